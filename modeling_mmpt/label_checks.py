"""Checks of labels: class numbers, positions, vectors, and the labels of the objectives."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.input_checks import (
    REGIONS,
    TEXTS,
    bounds,
    check_shape,
    check_tensors,
    checks_shapes,
    checks_values,
    values_are_known,
)
from mmpt.modeling_mmpt.objectives import IGNORED, OBJECTIVES, is_labelled


def check_class_numbers(model: nn.Module, name: str, labels: Any, shape: Sequence[int], classes: int | None) -> None:
    """Check labels that are class numbers, or -100 where nothing is predicted.

    Args:
        classes: how many there are; None where any number is one.

    Raises:
        TypeError, ValueError: for labels that cannot be right.
    """
    check_shape(name, labels, shape, "class numbers")
    if labels.dtype != torch.int64:
        raise MmptValueError(f"{name} are of {labels.dtype}, expected class numbers of torch.long: use .long()")
    if labels.numel() and checks_values(model, name, labels):
        low, high = bounds(labels.masked_fill(labels == IGNORED, 0))
        if low < 0 or (classes is not None and high >= classes):
            top = "or more" if classes is None else f"to {classes - 1}"
            raise MmptValueError(
                f"{name} run from {low} to {high}, expected 0 {top}, or {IGNORED} where nothing is predicted"
            )


def check_positions(model: nn.Module, name: str, positions: Any, text: Sequence[int]) -> None:
    """Check places in a text, (batch, any number), or -100 where there is none.

    Args:
        text: batch and tokens.

    Raises:
        TypeError, ValueError: for places that cannot be right.
    """
    check_tensors({name: positions})
    if positions.dim() != 2:
        raise MmptValueError(f"{name} are {tuple(positions.shape)}, expected (batch, phrases), a token of each")
    check_class_numbers(model, name, positions, (text[0], positions.shape[1]), text[1])


def check_vectors(
    model: nn.Module,
    name: str,
    labels: Any,
    shape: Sequence[int],
    what: str,
    bounded: bool = False,
    distributions: bool = False,
    by_row: bool = True,
) -> None:
    """Check labels that are vectors of floats.

    Args:
        what: the shape in words.
        bounded: whether the numbers are in 0..1.
        distributions: whether, besides, each row sums to 1.
        by_row: -100 is a whole row without a label; else each number is a label by itself.

    Raises:
        TypeError, ValueError: for labels that cannot be right.
    """
    check_tensors({name: labels})
    if not labels.is_floating_point() or (tuple(labels.shape) != tuple(shape) and checks_shapes()):
        raise MmptValueError(
            f"{name} are {tuple(labels.shape)} of {labels.dtype}, expected a float {what}, {tuple(shape)}"
        )
    if not labels.numel() or not checks_values(model, name, labels):
        return
    there = labels[is_labelled(labels)] if by_row else labels[labels != IGNORED]
    if not there.numel():
        return
    low, high = bounds(there)
    # A NaN compares as False.
    if not (low >= 0 and high <= 1.001 if bounded else math.isfinite(low) and math.isfinite(high)):
        raise MmptValueError(
            f"{name} run from {low:g} to {high:g}, expected {'0..1' if bounded else 'finite numbers'}, or {IGNORED} "
            f"in {'a whole row that is' if by_row else 'what is'} not predicted"
        )
    if distributions:
        sums = there.float().sum(-1)
        off = (sums - 1).abs()
        if off.max() > (2e-3 if labels.dtype in (torch.float32, torch.float64) else 2e-2):
            raise MmptValueError(
                f"a row of {name} sums to {float(sums[off.argmax()]):.4g}, expected probabilities that sum to 1; "
                "scores that do not need a softmax or a division by their sum"
            )


def check_padding(model: nn.Module, name: str, labels: Tensor, mask: Tensor | None) -> None:
    """Check that no label above 0 means a region that is padding, whose score is the lowest number there is.

    Raises:
        ValueError: naming the place.
    """
    if mask is None or not checks_values(model, f"{name} in padding", labels):
        return
    wrong = (labels > 0) & ~mask.bool()
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise MmptValueError(
            f"{name} mean a region that region_attention_mask calls padding, at {place}, expected {IGNORED} or 0 there"
        )


def check_objective_labels(
    model: Any, labels: Mapping[str, Any], inputs: Mapping[str, Tensor | None], denominators: Any
) -> None:
    """Check the labels of the objectives against the model's inputs and sizes.

    Args:
        labels: by objective.
        inputs: of the backbone.
        denominators: see `MmptForPreTraining.forward`.

    Raises:
        TypeError, ValueError: for labels that cannot be right, or whose modality is not given.
    """
    text, regions = next((inputs[name] for name in TEXTS if inputs.get(name) is not None), None), inputs.get(REGIONS[0])
    axes = {
        "tokens": None if text is None else text.shape[:2],
        "regions": None if regions is None else regions.shape[:2],
        "pair": next((each.shape[:1] for each in (text, regions) if each is not None), None),
    }
    config: MmptConfig = model.config
    sizes = {
        "token": getattr(model.get_output_embeddings(), "out_features", config.vocab_size),
        "region_class": config.num_region_classes,
        "region_attribute": config.num_region_attributes,
        "region_feature": config.region_feature_dim,
        "matching": config.num_matching_classes,
        "answer": config.num_qa_labels,
    }
    for objective, given in labels.items():
        name, row = f"{objective}_labels", OBJECTIVES[objective]
        shape, size = axes[row.reads], sizes[row.head]
        if shape is None:
            needed = "text (input_ids)" if row.reads == "tokens" else "regions (region_features)"
            raise MmptValueError(f"{name} were given without {needed}; pass both, or leave the labels out")
        if row.target not in ("distribution", "features"):
            check_class_numbers(model, name, given, shape, size)
        else:
            is_kl = row.target == "distribution"
            what = "distribution a region" if is_kl else "feature a region"
            check_vectors(model, name, given, (*shape, size), what, bounded=is_kl, distributions=is_kl)
    for name, given in inputs.items():
        if name.endswith("_scores") and given is not None:
            check_vectors(model, name, given, axes["regions"] or (), "score a region", bounded=True, by_row=False)
    if denominators is not None:
        _check_denominators(denominators, labels)


def _check_denominators(denominators: Any, labels: Mapping[str, Any]) -> None:
    if not isinstance(denominators, Mapping) or not set(labels) <= set(denominators) <= set(OBJECTIVES):
        got = sorted(denominators) if isinstance(denominators, Mapping) else type(denominators).__name__
        raise MmptValueError(f"loss_denominators are {got}, expected a count for each of {', '.join(labels)}")
    for name, count in denominators.items():
        if (not isinstance(count, Tensor) or values_are_known(count)) and not 0 <= float(count) < math.inf:
            raise MmptValueError(f"the loss denominator of {name!r} is {float(count)}, expected a count of 0 or more")
