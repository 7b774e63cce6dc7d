"""Fine-tuned heads of a checkpoint, and the choice of the head to convert."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.modeling_mmpt.task_models import TASK_MODELS
from mmpt.predecessors.key_map import KeyMap
from mmpt.predecessors.source_checkpoint import SourceCheckpoint

AUTO, PRETRAINING = "auto", "pretraining"

HEAD_KEYS = (
    *("vqa_output.", "nlvr2_output.", "rank_output.", "re_output.", "vcr_output.", "ve_output."),
    *("attn1.", "attn2.", "attn_pool.", "fc."),
    *("vil_prediction.", "vil_prediction_gqa.", "vil_binary_prediction.", "vil_logit.", "vil_tri_prediction."),
    *("vision_logit.", "linguisic_logit.", "clfs_dict.", "logit_fc.", "classifier.", "qa_outputs."),
    *("flickr_attention.", "attention.", "cls.weight", "cls.bias"),
)
"""Prefixes of the keys of fine-tuned heads; transformers' VisualBERT uses cls for these and for pre-training heads."""


@dataclass(frozen=True)
class TaskHead:
    """A fine-tuned head, read as the head of one task; a head usable for several tasks has one of these for each.

    Args:
        name: name in the predecessor.
        task: a key of `TASK_MODELS`.
        keys: mapping of its keys.
        fields: fields of our configuration.
        outputs: number of classes or answers; None for a task without class names.
        names: names of the classes, if fixed by the predecessor's code.
        usual: whether this is the default reading if no task is given.
        note: sentence for the report, if the head is used.
    """

    name: str
    task: str
    keys: KeyMap
    fields: dict[str, Any] = field(default_factory=dict)
    outputs: int | None = None
    names: tuple[str, ...] | None = None
    usual: bool = True
    note: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.task})"

    def model_class(self, config: MmptConfig) -> type[MmptTaskModel]:
        return TASK_MODELS[self.task]["single" if isinstance(config, MmptSingleStreamConfig) else "dual"]


def choose_head(heads: Sequence[TaskHead], task: str, source: SourceCheckpoint, pretrains: bool) -> TaskHead | None:
    """Return the head to convert, or None for the pre-training heads.

    Args:
        heads: fine-tuned heads of the checkpoint.
        task: a task, the predecessor's name of a head, "pretraining", or "auto" for the only head.
        pretrains: whether there are pre-training heads, which "auto" uses if there are several fine-tuned ones.

    Raises:
        ValueError: if there is no such head, or more than one.
    """
    if task == PRETRAINING:
        return None
    usual = [head for head in heads if head.usual]
    if task == AUTO:
        if len(usual) > 1 and pretrains:
            source.assumptions.append(
                f"task = {PRETRAINING}: there are several fine-tuned heads, {_listed(usual)}; choose one with --task"
            )
            return None
        found, problem = usual, "several fine-tuned heads"
    else:
        by_task = [head for head in heads if head.task == task]
        found = by_task or [head for head in usual if head.name == task]
        problem = f"several heads for {task!r}"
        if not found:
            has = f"it has {_listed(heads)}" if heads else "it has none that is supported"
            raise MmptValueError(
                f"{source.path} has no fine-tuned head for task {task!r}; {has}, or use {PRETRAINING!r}"
            )
    if len(found) > 1:
        raise MmptValueError(f"{source.path} has {problem}: {_listed(found)}; choose one by its name, with --task NAME")
    return found[0] if found else None


def use_head(keys: KeyMap, head: TaskHead) -> None:
    """Replace the pre-training heads of a key map by a task head, and drop poolers that the task does not read."""
    reasons = {"heads.": f"a pre-training head; the model is for {head.task}"}
    if not TASK_MODELS[head.task]["single"].reads_pooled:
        unread = f"a model for {head.task} reads no pooled vector"
        reasons |= {"backbone.text_pooler.": unread, "backbone.region_pooler.": unread}
    for theirs, ((ours, _), *_) in list(keys.targets.items()):
        for prefix, reason in reasons.items():
            if ours.startswith(prefix):
                del keys.targets[theirs]
                keys.drop([theirs], reason)
    keys.targets.update(head.keys.targets)
    keys.drops.update(head.keys.drops)


def drop_other_heads(keys: KeyMap, source: SourceCheckpoint, heads: Sequence[TaskHead], task: str) -> None:
    """Drop the fine-tuned heads that are not used, each with a reason.

    Args:
        task: the requested task.

    Raises:
        ValueError: if a fine-tuned head is not supported and `task` is "auto".
    """
    for head in heads:
        theirs = {*head.keys.targets, *head.keys.drops} - keys.targets.keys() - keys.drops.keys()
        keys.drop(theirs, f"a fine-tuned head that was not chosen; use it with --task {head.name}")
    known = keys.targets.keys() | keys.drops.keys() | keys.ties.keys()
    left = [key for key in source if key.startswith(HEAD_KEYS) and key not in known]
    if left and task == AUTO:
        raise MmptValueError(
            f"{source.path} has a fine-tuned head that is not supported or incomplete: {', '.join(left[:4])}. Convert "
            f"the rest without it with --task {PRETRAINING}" + (f", or use {_listed(heads)}" if heads else "")
        )
    keys.drop(left, "a fine-tuned head that is not supported or incomplete")


def label_fields(head: TaskHead, source: SourceCheckpoint, path: str | Path | None) -> dict[str, Any]:
    """Return number and names of a head's classes from a JSON file, the configuration, or the predecessor's code.

    Raises:
        ValueError: if the file has another number of names, or the task has no classes.
    """
    if head.outputs is None:
        if path is not None:
            raise MmptValueError(f"labels were given, but {head} has no classes to name; leave them out")
        return {}
    if path is not None:
        return _named(read_label_names(path, head.outputs))
    configured = source.label_names().get("id2label")
    if configured is not None and sorted(configured) == list(range(head.outputs)):
        return _named([configured[number] for number in range(head.outputs)])
    if configured is not None:
        source.assumptions.append(
            f"the {len(configured)} label names of the configuration are ignored: {head} has {head.outputs} outputs"
        )
    if head.names is not None and len(head.names) == head.outputs:
        return _named(head.names)
    return {"num_labels": head.outputs}


def read_label_names(path: str | Path, outputs: int) -> list[str]:
    """Return class names in order from a JSON file: a list, or an object of names to numbers or numbers to names.

    Raises:
        ValueError: if it is something else, or does not have one unique name for each of `outputs`.
    """
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MmptValueError(f"{path} is not valid JSON ({error}), expected the names of labels") from None
    if isinstance(read, list):
        numbered = dict(enumerate(read))
    elif isinstance(read, dict) and all(isinstance(value, int) for value in read.values()):
        numbered = {number: name for name, number in read.items()}
    elif isinstance(read, dict) and all(name.isdecimal() for name in read):
        numbered = {int(number): name for number, name in read.items()}
    else:
        raise MmptValueError(f"{path} is neither a list of names nor an object of names and numbers")
    names = [numbered.get(number) for number in range(outputs)]
    if len(numbered) != outputs or len(set(names)) != outputs or not all(isinstance(name, str) for name in names):
        raise MmptValueError(
            f"{path} names {len(numbered)} labels, expected a unique name for each of 0..{outputs - 1}"
        )
    return [str(name) for name in names]


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def _listed(heads: Sequence[TaskHead]) -> str:
    return ", ".join(map(str, heads))
