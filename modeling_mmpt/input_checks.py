"""Checks of what a model is given: unknown keywords, then types, shapes and values, with one clear error each.

Types and shapes are checked at each call, which costs no computation. Values are checked at each call on a CPU; on an
accelerator, where looking at a number makes the device wait, they are checked once for each module; not while a model
is compiled, exported or traced.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptTypeError, MmptValueError

LIBRARY_INPUTS = {
    "output_attentions": "every caller, PEFT",
    "output_hidden_states": "every caller, PEFT",
    "return_dict": "every caller, PEFT",
    "use_cache": "pipelines and `merge_with_config_defaults`, which hands on the configuration's",
    "num_items_in_batch": "Trainer.compute_loss",
    "debug_io": "model_debugging_utils, as the next two",
    "debug_io_dir": "",
    "prune_layers": "",
    "kernel_options": "read by flex attention",
}
"""The keywords that transformers itself passes, or reads in an attention function, and who does."""

EMPTY_LIBRARY_INPUTS = {
    "labels": "PEFT's wrappers of a task, around a model without labels of that name",
    "start_positions": "PEFT's wrapper for question answering, as the next one",
    "end_positions": "",
    "past_key_values": "generation and PEFT's wrappers, where there is no prefix",
    "is_causal": "`merge_with_config_defaults`, where the configuration has it",
}
"""The keywords that libraries pass without a value to models of any kind; None or False means nothing."""

FLASH_INPUTS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""What DataCollatorWithFlattening gives and flash attention reads."""

NOT_FOR_THE_MODEL = ("rows", "candidates", "candidate_boxes")
"""What the batch of a task holds for who reads the model's output."""

PREDECESSOR_INPUTS = {
    "region_features": "visual_feats visual_embeds visual_features image_feat image_feats image_features img_feat "
    "img_feats input_imgs visn_feats features",
    "region_boxes": "visual_pos image_loc img_pos_feat spatials boxes bbox bboxes image_boxes",
    "region_attention_mask": "visual_attention_mask image_attention_mask image_mask img_mask visual_mask",
    "region_type_ids": "visual_token_type_ids img_type_ids image_type_ids",
    "masked_regions": "img_masks image_label",
    "input_ids": "input_txt question text",
    "attention_mask": "input_mask attn_masks txt_mask",
    "token_type_ids": "segment_ids",
    "mlm_labels": "labels masked_lm_labels lm_label_ids txt_labels",
    "mrc_labels": "obj_labels",
    "mrc_kl_labels": "image_target label_targets",
    "mrfr_labels": "feat_targets",
    "itm_labels": "matched_label next_sentence_label sentence_image_labels",
    "qa_labels": "ans",
    "labels": "label targets target",
}
"""By our name, the names that an input has in predecessors and in transformers' models of two modalities."""

AXES: dict[str, tuple[str, ...]] = {
    "input_ids": ("tokens",),
    "attention_mask": ("tokens",),
    "token_type_ids": ("tokens",),
    "position_ids": ("tokens",),
    "inputs_embeds": ("tokens", "hidden"),
    "task_ids": (),
    "region_features": ("regions", "feature"),
    "region_boxes": ("regions", "4"),
    "region_attention_mask": ("regions",),
    "region_type_ids": ("regions",),
    "masked_regions": ("regions",),
}
"""The inputs of a backbone with their axes behind that of the batch."""

LAYOUT_PARTS = ("places", "grid", "read", "read_grid")
LAYOUT_INPUTS = (
    *(f"layout_{name}_{part}" for name in ("text", "regions", "joint") for part in LAYOUT_PARTS),
    *("layout_labelled_tokens", "layout_labelled_regions"),
)
"""What a collator says about a batch's padding; see `unpadding.py`."""

PASSED_TO_A_BACKBONE = ("late", "reads")
INTEGERS = (torch.int64, torch.int32)
BOX_TOLERANCE = 0.01  # as of the processor, which clamps what it lets pass
TEXTS, REGIONS = ("input_ids", "inputs_embeds"), ("region_features",)


def refuse_unknown_inputs(model: Any, unread: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise for a keyword that neither the model nor transformers reads.

    Args:
        unread: the keywords that the signature of `forward` does not name.
        known: the names that `forward` reads.

    Raises:
        TypeError: naming the input that is probably meant.
    """
    for name, value in unread.items():
        if (
            name in LAYOUT_INPUTS
            or name in LIBRARY_INPUTS
            or (name in EMPTY_LIBRARY_INPUTS and (value is None or value is False))
        ):
            continue
        owner = type(model).__name__
        if name in FLASH_INPUTS:
            if value is None or "flash" in str(getattr(model.config, "_attn_implementation", None)):
                continue
            raise MmptTypeError(f"{owner} reads {name!r} with flash attention only; set attn_implementation, or pad")
        names = list(known)
        same = [ours for ours, theirs in PREDECESSOR_INPUTS.items() if name in theirs.split() and ours in names]
        near = same or difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it reads {', '.join(names)}"
        raise MmptTypeError(f"{owner} has no input {name!r}; {hint}")


def check_keywords(model: Any, unread: Mapping[str, Any], late: Any) -> None:
    """Check what a backbone is given beside its tensors.

    Raises:
        TypeError: for an unknown keyword, or if `late` is not a bool.
    """
    refuse_unknown_inputs(model, unread, (*AXES, *PASSED_TO_A_BACKBONE))
    if not isinstance(late, bool):
        raise MmptTypeError(f"late is {late!r}, expected True or False")


def checks_shapes() -> bool:
    """Return whether types and shapes can be looked at: not while a graph is made of them for other shapes."""
    return not torch.jit.is_tracing() and not torch.compiler.is_exporting()


def values_are_known(tensor: Tensor) -> bool:
    """Return whether the numbers of a tensor can be read without making a device wait or breaking a graph."""
    return tensor.device.type == "cpu" and _has_values(tensor)


def checks_values(model: nn.Module, what: str, tensor: Tensor) -> bool:
    """Return whether values are to be checked now; on an accelerator, True once for each module and `what`."""
    if values_are_known(tensor):
        return True
    if tensor.device.type in ("cpu", "meta") or not _has_values(tensor):
        return False
    seen = model.__dict__.setdefault("_checked_values", set())
    first = what not in seen
    seen.add(what)
    return first


def check_inputs(
    model: Any,
    inputs: Mapping[str, Any],
    text_axes: Sequence[str | int] = ("batch",),
    region_axes: Sequence[str | int] = ("batch",),
    values: bool = True,
) -> None:
    """Check the inputs of a backbone.

    Args:
        model: with a configuration.
        inputs: by name; None is not given.
        text_axes: the first axes of the text's inputs; a number is the only size that an axis may have.
        region_axes: the same of the regions' inputs.
        values: whether to look at values as well; the backbone does, what calls it need not.

    Raises:
        TypeError: for an input that is not a tensor.
        ValueError: for a type, shape or value that cannot be right.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    if not given or not checks_shapes():
        return
    check_tensors(given)
    _check_kinds(given)
    for names, others in ((TEXTS, "text"), (REGIONS, "region")):
        if not any(name in given for name in names):
            alone = [name for name in given if name in AXES and ("region" in name) == (others == "region")]
            if alone:
                raise MmptValueError(f"{alone[0]} is given without {' or '.join(names)}, which it describes")
    _check_shapes(model.config, given, text_axes, region_axes)
    if values and checks_values(model, "inputs", next(iter(given.values()))):
        _check_values(model, given)


def check_tensors(given: Mapping[str, Any]) -> None:
    """Check that these inputs are tensors on one device.

    Raises:
        TypeError: for something else.
        ValueError: for several devices.
    """
    first = next(iter(given))
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise MmptTypeError(
                f"{name} is {type(value).__name__}, expected a tensor; the processor gives them with "
                "return_tensors='pt', else use torch.as_tensor"
            )
        if value.device != given[first].device:
            raise MmptValueError(
                f"{first} is on {given[first].device} and {name} on {value.device}, expected one device; move the "
                "whole batch, as batch.to(model.device) does"
            )


def _check_kinds(given: Mapping[str, Tensor]) -> None:
    for name, tensor in given.items():
        kind, floats, integers = tensor.dtype, tensor.is_floating_point(), tensor.dtype in INTEGERS
        if name in ("attention_mask", "region_attention_mask"):
            fits, expected = not tensor.is_complex(), "0 and 1, as integers or bool"
        elif name == "masked_regions":
            fits, expected = kind == torch.bool, "bool"
        elif name in ("region_features", "region_boxes"):
            # Integers are taken: a count or a one-hot vector is a feature, and 0 0 1 1 a box.
            fits, expected = floats or integers, "floats"
        elif name == "inputs_embeds":
            fits, expected = floats, "floats"
        else:
            fits, expected = integers, "integers, torch.long"
        if not fits:
            raise MmptValueError(f"{name} is of {kind}, expected {expected}")


def _check_shapes(
    config: MmptConfig,
    given: Mapping[str, Tensor],
    text_axes: Sequence[str | int],
    region_axes: Sequence[str | int],
) -> None:
    """Compare all shapes: the first tensor that has an axis says how long it is."""
    sizes: dict[Any, int] = {"hidden": config.hidden_size, "feature": config.region_feature_dim, "4": 4}
    hints = {"4": ": x1 y1 x2 y2 in 0..1; further numbers such as the area are computed by the model"}
    order = [name for name in (*TEXTS, *REGIONS) if name in given]
    for name in order + [name for name in given if name not in order]:
        shape = tuple(given[name].shape)
        axes = (*(region_axes if "region" in name else text_axes), *AXES[name])
        wanted = ", ".join(str(axis) for axis in axes)
        if len(shape) != len(axes):
            raise MmptValueError(f"{name} has shape {shape}, expected ({wanted}){hints.get(str(axes[-1]), '')}")
        for axis, size in zip(axes, shape, strict=True):
            if not size:
                raise MmptValueError(f"{name} has shape {shape}, expected ({wanted}) with one or more of each")
            if axis == "feature" and size != sizes[axis]:
                raise MmptValueError(
                    f"region_features are {size} numbers wide, the model expects region_feature_dim {sizes[axis]}. "
                    "Were the features extracted with the detector this model was made for?"
                )
            length = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
            if size != length and not (name == "position_ids" and axis == "batch" and size == 1):
                here = ", ".join(str(axis if isinstance(axis, int) else sizes.get(axis, "any")) for axis in axes)
                raise MmptValueError(
                    f"{name} has shape {shape}, expected ({wanted}), here ({here}){hints.get(str(axis), '')}"
                )


def _check_values(model: Any, given: Mapping[str, Tensor]) -> None:
    config: MmptConfig = model.config
    words = getattr(model.get_input_embeddings(), "num_embeddings", config.vocab_size)
    region_types = config.type_vocab_size if config.region_type_embedding == "shared" else config.region_type_vocab_size
    for name, size, what in (
        ("input_ids", words, "vocab_size"),
        ("token_type_ids", config.type_vocab_size, "type_vocab_size"),
        ("position_ids", config.max_position_embeddings, "max_position_embeddings"),
        ("task_ids", config.num_task_tokens, "num_task_tokens"),
        ("region_type_ids", region_types - config.region_token_type_id, "rows of the type table"),
    ):
        if name in given and size > 0:  # without the table, the embeddings raise
            low, high = bounds(given[name])
            if low < 0 or high >= size:
                raise MmptValueError(f"{name} run from {low} to {high}, expected 0..{size - 1} ({what})")
    for name in ("attention_mask", "region_attention_mask"):
        mask = given.get(name)
        if mask is not None and mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
            raise MmptValueError(
                f"{name} holds other numbers than 0 and 1, expected 1 where there is something and 0 in padding; "
                "a mask that is added to scores is made by the model"
            )
    if "inputs_embeds" in given and not _is_finite(given["inputs_embeds"]):
        raise MmptValueError("inputs_embeds hold NaN or infinite numbers, expected finite ones")
    if "region_features" in given:
        _check_region_values(given)


def _check_region_values(given: Mapping[str, Tensor]) -> None:
    """Look at what is not padding: features that are not masked, and boxes."""
    features, boxes = given["region_features"], given.get("region_boxes")
    mask, masked = given.get("region_attention_mask"), given.get("masked_regions")
    valid = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    if not _is_finite(features):
        seen = valid.to(features.device) if masked is None else valid & ~masked
        wrong = ~torch.isfinite(features).all(-1) & seen
        if wrong.any():
            row, place = wrong.nonzero()[0].tolist()
            raise MmptValueError(
                f"region_features hold NaN or infinite numbers in region {place} of row {row}, expected finite ones; "
                "extract them anew, or leave the region out"
            )
    if boxes is None:
        return
    shown = boxes.masked_fill(~valid.to(boxes.device)[..., None], 0)
    low, high = bounds(shown)
    if not (low >= -BOX_TOLERANCE and high <= 1 + BOX_TOLERANCE):
        raise MmptValueError(
            f"region_boxes run from {low:g} to {high:g}, expected x1 y1 x2 y2 in 0..1; divide pixels by the image's "
            "width and height, as the processor does with box_format='pixel'"
        )
    inverted = (shown[..., 2:] < shown[..., :2]).any(-1)
    if inverted.any():
        row, place = inverted.nonzero()[0].tolist()
        box = [round(number, 3) for number in boxes[row, place].tolist()]
        raise MmptValueError(
            f"region_boxes: box {place} of row {row} is inverted ({box}), "
            "expected x1 <= x2 and y1 <= y2. Is the order x1 y1 x2 y2, not x y width height?"
        )


def check_shape(name: str, tensor: Any, shape: Sequence[int], what: str) -> None:
    """Check one further input against the shape that it must have.

    Args:
        what: the shape in words.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: for another shape.
    """
    check_tensors({name: tensor})
    if tuple(tensor.shape) != tuple(shape) and checks_shapes():
        raise MmptValueError(f"{name} are {tuple(tensor.shape)}, expected {what}, {tuple(shape)}")


def check_flags(name: str, tensor: Any, shape: Sequence[int]) -> None:
    """Check a tensor of bool."""
    check_shape(name, tensor, shape, "bool, a flag for each place")
    if tensor.dtype != torch.bool:
        raise MmptValueError(f"{name} is of {tensor.dtype}, expected bool")


def _has_values(tensor: Tensor) -> bool:
    # Subclasses are fake, distributed or quantised tensors.
    plain = type(tensor) in (Tensor, nn.Parameter)
    return plain and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def bounds(tensor: Tensor) -> tuple[Any, Any]:
    """Return the lowest and the highest number, in one pass and with one wait; both NaN where there is one."""
    if tensor.dtype == torch.bool:
        tensor = tensor.int()
    low, high = torch.stack(tensor.aminmax()).tolist()
    return low, high


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    low, high = bounds(tensor)  # an infinite number is one of them, and NaN is both
    return math.isfinite(low) and math.isfinite(high)
