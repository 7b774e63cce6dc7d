"""Convert a predecessor's checkpoint: plan from keys and shapes only, then read the weights."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import torch
from torch import Tensor

from mmpt.configuration.configuration_bottom_up import BottomUpConfig
from mmpt.configuration.configuration_mmpt import MmptConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptFileExistsError, MmptValueError
from mmpt.modeling_mmpt.modeling_bottom_up import BottomUpDetector
from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.predecessors.bert_keys import drop_buffers
from mmpt.predecessors.detector_keys import read_detector
from mmpt.predecessors.families import FAMILIES, config_class_of, recognise
from mmpt.predecessors.key_map import KeyMap, KeyReport, KeyStatus
from mmpt.predecessors.predecessor_tokenizer import find_processor
from mmpt.predecessors.source_checkpoint import SourceCheckpoint
from mmpt.predecessors.task_heads import choose_head, drop_other_heads, label_fields, use_head
from mmpt.predecessors.text_encoders import read_text_encoder
from mmpt.processing.image_processing_bottom_up import BottomUpImageProcessor

FamilyName = Literal[
    "auto", "uniter", "visual_bert", "lxmert", "lxmert_original", "vilbert", "volta", "oscar", "bert", "bottom_up"
]
Model = MmptForPreTraining | MmptTaskModel | BottomUpDetector
DETECTOR = "bottom_up"
REPORT = "conversion.json"
DECODER = "heads.token.decoder.weight"  # tied to the word embeddings


@dataclass(frozen=True)
class ConversionPlan:
    """Plan of a conversion, made without reading weights.

    Args:
        source: the checkpoint.
        family: name of the predecessor.
        model_class: class of the converted model.
        config: configuration of the converted model.
        keys: mapping of keys.
        report: status of every key.
    """

    source: SourceCheckpoint
    family: str
    model_class: type[Model]
    config: MmptConfig | BottomUpConfig
    keys: KeyMap
    report: KeyReport


def plan_conversion(
    source: str | Path,
    *,
    family: FamilyName = "auto",
    task: str = "auto",
    labels: str | Path | None = None,
    config_path: str | Path | None = None,
    preset: str = "uniter",
    allow_unknown: Iterable[str] = (),
    allow_random: Iterable[str] = (),
    **config_overrides: Any,
) -> ConversionPlan:
    """Determine how every key of a checkpoint is converted.

    Args:
        source: a weight file, or a folder with one; .safetensors, .bin, .pt or .pth; with or without `module.`.
        family: whose checkpoint it is; "auto" recognises it by its keys. "bottom_up" is a detector of regions, for
            which `labels` is the vocabulary of its classes.
        task: which head becomes the model's: "pretraining", a task ("vqa", "classification", "entailment", "nlvr2",
            "multiple_choice", "grounding", "phrases", "retrieval"), or the predecessor's name of a head
            ("vil_prediction_gqa"). "auto" takes the only fine-tuned head; where there are several or none, those of
            pre-training.
        labels: a JSON file with the names of the classes or answers: a list, or an object of names to numbers.
        config_path: the predecessor's JSON configuration; `config.json` beside the weights by default.
        preset: for "bert", the model whose text part is started.
        allow_unknown: keys, or patterns with `*`, that may be dropped although nothing is known of them.
        allow_random: weights of our model, or patterns with `*`, that may keep their random start because the
            checkpoint has none for them. With the family named as "bert" the region part may.
        config_overrides: fields of our configuration that replace those found.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: for unknown keys, shapes that do not match, missing keys, a missing or ambiguous head, and a file
            that is not a checkpoint or contains code.
    """
    checkpoint = SourceCheckpoint(source, config_path)
    detector = read_detector(checkpoint, labels, config_overrides) if family in ("auto", DETECTOR) else None
    if detector is not None:
        if task != "auto" or config_path is not None:
            raise MmptValueError(f"{source} is a detector of regions, which has neither tasks nor a JSON configuration")
        report = _report(checkpoint, DETECTOR, BottomUpDetector, *detector, tuple(allow_unknown), tuple(allow_random))
        return ConversionPlan(checkpoint, DETECTOR, BottomUpDetector, *detector, report)
    if family == DETECTOR:
        raise MmptValueError(f"{source} has no region proposal network; leave the family to 'auto'")
    name = recognise(checkpoint) if family == "auto" else family
    heads, head = [], None
    if name == "bert":
        config, keys = read_text_encoder(checkpoint, preset, config_overrides)
        choose_head(heads, task, checkpoint, pretrains=True)
    elif name in FAMILIES:
        try:
            values, keys = FAMILIES[name].read(checkpoint)
        except StopIteration:
            raise MmptValueError(f"{source} has none of {name}'s keys; leave the family to 'auto'") from None
        heads = FAMILIES[name].read_heads(checkpoint)
        head = choose_head(heads, task, checkpoint, pretrains=bool(values["objective_weights"]))
        if head is not None:
            use_head(keys, head)
            of_head = head.fields | {"objective_weights": {}} | label_fields(head, checkpoint, labels)
            checkpoint.assumptions.extend([head.note] if head.note else [])
        else:
            of_head = checkpoint.label_names()
            if labels is not None:
                raise MmptValueError(
                    f"labels were given, but no fine-tuned head of {source} is used; name one with --task"
                )
        config = config_class_of(name, values)(**(values | of_head | config_overrides))
    else:
        raise MmptValueError(f"unknown family {name!r}, expected auto, bert, {', '.join(FAMILIES)}")
    drop_buffers(keys, checkpoint)
    drop_other_heads(keys, checkpoint, heads, task)
    model_class = _pretraining_class(config) if head is None else head.model_class(config)
    may_be_random = tuple(allow_random) + (("*",) if family == "bert" else ())
    report = _report(checkpoint, name, model_class, config, keys, tuple(allow_unknown), may_be_random)
    return ConversionPlan(checkpoint, name, model_class, config, keys, report)


def from_predecessor(source: str | Path, **options: Any) -> Model:
    """Convert a predecessor's checkpoint to one of our models, in float32 and evaluation mode.

    It is a model for pre-training, for the task of the fine-tuned head that was chosen, or a detector of regions. Its
    `conversion_report` says what became of every key. Options and errors are those of `plan_conversion`.

    Raises:
        ValueError: also if keys that the predecessor ties have different values.

    Example:

    ```python
    >>> from mmpt import from_predecessor

    >>> model = from_predecessor("uniter-base.pt")
    ```
    """
    return carry_out(plan_conversion(source, **options))


def convert(source: str | Path, out: str | Path, *, tokenizer: str | None = None, **options: Any) -> KeyReport:
    """Convert a predecessor's checkpoint to a folder that `from_pretrained` loads, with a report of every key.

    The tokenizer is read from the folder of the source (vocab.txt or tokenizer.json) or from `tokenizer`, a folder or a
    name on the Hub. It is saved as a processor with the settings of the predecessor. Further options are those of
    `plan_conversion`.

    Raises:
        FileExistsError: if `out` is a file or a folder that is not empty.
        ValueError: also if the tokenizer has more entries than the model.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MmptFileExistsError(f"{out} exists{' and is not empty' if out.is_dir() else ''}; name a new folder")
    plan = plan_conversion(source, **options)
    processor, note = _processor_of(plan, tokenizer)
    report = plan.report
    if note:
        report = replace(report, assumptions=(*report.assumptions, note))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", suffix=".tmp", dir=out.parent) as folder:  # `out` appears complete
        written = Path(folder) / "model"
        written.mkdir()
        carry_out(plan).save_pretrained(written)
        if processor is not None:
            processor.save_pretrained(written)
        (written / REPORT).write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
        written.replace(out)
    return report


def _processor_of(plan: ConversionPlan, tokenizer: str | None) -> tuple[Any, str | None]:
    """Return what makes the model's input, None if no tokenizer is there, and what to say of it."""
    config, family = plan.config, FAMILIES.get(plan.family)
    if isinstance(config, BottomUpConfig):
        if tokenizer is not None:
            raise MmptValueError(
                f"got a tokenizer, but {plan.source.path} is a detector of regions, which reads no text"
            )
        return BottomUpImageProcessor.of_config(config), None
    return find_processor(
        plan.source,
        config,
        tokenizer,
        family.lowercase if family else None,
        whole_image_region=family is not None and family.whole_image_region and _pools_first_region(config),
    )


def carry_out(plan: ConversionPlan) -> Model:
    """Build the model of a plan with its weights."""
    for theirs, to in plan.keys.ties.items():
        if theirs in plan.source and to in plan.source and not torch.equal(plan.source[theirs], plan.source[to]):
            raise MmptValueError(
                f"{plan.source.path}: {theirs!r} and {to!r} have different values, expected the same: this family ties "
                "them. Is it the family's checkpoint?"
            )
    weights = {
        ours: part.take(plan.source[theirs]).to(torch.float32)
        for theirs, targets in plan.keys.targets.items()
        if theirs in plan.source
        for ours, part in targets
    } | plan.keys.made
    # What the checkpoint fills is never initialised first: that would cost more than reading it.
    complete = not plan.report.of("missing")
    with torch.device("meta" if complete else "cpu"):
        model = plan.model_class(cast("Any", plan.config))
    _assign(model, weights)
    model.__dict__["conversion_report"] = plan.report
    return model.eval()


def _assign(model: Model, weights: dict[str, Tensor]) -> None:
    words = "backbone.text_embeddings.word_embeddings.weight"
    if isinstance(model, MmptForPreTraining) and "token" in model.heads and words in weights:
        weights[DECODER] = weights[words]
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise MmptValueError(f"{name} got no value; a conversion plan must name it as missing")


def _pretraining_class(config: MmptConfig) -> type[MmptForPreTraining]:
    single = isinstance(config, MmptSingleStreamConfig)
    return MmptSingleStreamForPreTraining if single else MmptDualStreamForPreTraining


def _pools_first_region(config: MmptConfig) -> bool:
    """Return whether the region pooler reads the first region, which must then be the mean of all regions."""
    return config.pooled_fusion != "text"


def _report(
    source: SourceCheckpoint,
    family: str,
    model_class: type[Model],
    config: MmptConfig | BottomUpConfig,
    keys: KeyMap,
    allowed: tuple[str, ...],
    may_be_random: tuple[str, ...],
) -> KeyReport:
    with torch.device("meta"):
        expected = {
            key: tuple(value.shape) for key, value in model_class(cast("Any", config)).saved_state_dict().items()
        }
    statuses, unknown, misfits, filled = [], [], [], set()
    for theirs in source:
        if theirs in keys.targets:
            for ours, part in keys.targets[theirs]:
                shape = tuple(part.take(torch.empty(source.shape(theirs), device="meta")).shape)
                if ours not in expected:
                    misfits.append(f"{theirs} would become {ours}, which the model does not have")
                elif shape != expected[ours]:
                    misfits.append(f"{theirs} has shape {shape}, expected {expected[ours]} for {ours}")
                filled.add(ours)
                statuses.append(KeyStatus("mapped", theirs, ours, part.note))
        elif theirs in keys.ties:
            statuses.append(KeyStatus("tied", theirs, None, f"the same as {keys.ties[theirs]}"))
        elif theirs in keys.drops:
            statuses.append(KeyStatus("dropped", theirs, None, keys.drops[theirs]))
        elif any(fnmatchcase(theirs, pattern) for pattern in allowed):
            statuses.append(KeyStatus("dropped", theirs, None, "unknown, and allowed to be"))
        else:
            unknown.append(theirs)
    if unknown:
        first = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        raise MmptValueError(
            f"{source.path} has {len(unknown)} keys that are unknown for {family}: {first}. Is it this family's "
            "checkpoint? If they are not needed, drop them with --allow-unknown KEY (a pattern with * serves)"
        )
    if misfits:
        raise MmptValueError(f"{source.path} does not fit as {family}: " + "; ".join(misfits[:5]))
    missing = sorted(set(expected) - filled - {DECODER} - keys.made.keys())
    refused = [ours for ours in missing if not any(fnmatchcase(ours, pattern) for pattern in may_be_random)]
    if refused and family == "bert":
        raise MmptValueError(
            f"{source.path} is only a text encoder: {len(refused)} weights of the model would be initialised randomly, "
            f"{', '.join(refused[:3])}, ... To accept that, give --from bert"
        )
    if refused:
        raise MmptValueError(
            f"{source.path} lacks {len(refused)} weights of the model: {', '.join(refused[:5])}. Is the file complete? "
            "To initialise them randomly, name them with --allow-random KEY (or a pattern with *)"
        )
    statuses.extend(KeyStatus("missing", None, ours, "left randomly initialised") for ours in missing)
    fields = cast("dict[str, Any]", config.to_diff_dict())
    return KeyReport(family, str(source.path), model_class.__name__, fields, tuple(statuses), tuple(source.assumptions))
