"""A fine-tuned head of a checkpoint as the head of one of our tasks: what it is, and which one a conversion takes."""

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
"""How the keys of fine-tuned heads begin; VisualBERT's of transformers is called cls, as the pre-training heads are."""


@dataclass(frozen=True)
class TaskHead:
    """A fine-tuned head, read as the head of a task. One that serves several tasks is one of these for each.

    Args:
        name: what the predecessor calls it.
        task: a name of `TASK_MODELS`.
        keys: its map.
        fields: of our configuration.
        outputs: number of its classes or answers; None where the task has no names for them.
        names: of its classes, where the predecessor's code fixes them.
        usual: whether it is taken where nobody names a task.
        note: a sentence for the report, if it is taken.
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
    """Return the head that a conversion takes, None for the pre-training heads.

    Args:
        heads: those of the checkpoint.
        task: a task, the predecessor's name of a head, "pretraining", or "auto": the only head there is.
        pretrains: whether the checkpoint has pre-training heads, which "auto" takes where there are several others.

    Raises:
        ValueError: if there is no such head, or several.
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
        found, said = usual, "several fine-tuned heads"
    else:
        by_task = [head for head in heads if head.task == task]
        found = by_task or [head for head in usual if head.name == task]
        said = f"several heads for {task!r}"
        if not found:
            has = f"it has {_listed(heads)}" if heads else "it has none that is covered"
            raise MmptValueError(
                f"{source.path} has no fine-tuned head for task {task!r}; {has}, or take {PRETRAINING!r}"
            )
    if len(found) > 1:
        raise MmptValueError(f"{source.path} has {said}: {_listed(found)}; choose one by its name, with --task NAME")
    return found[0] if found else None


def use_head(keys: KeyMap, head: TaskHead) -> None:
    """Put a head in the place of a map's pre-training heads, and leave out poolers that its model does not read."""
    reasons = {"heads.": f"a pre-training head; the model is one for {head.task}"}
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
    """Drop the fine-tuned heads that are not taken, each with the reason.

    Args:
        task: what was asked for.

    Raises:
        ValueError: if a fine-tuned head is not covered, and nobody asked for another one or for pre-training.
    """
    for head in heads:
        theirs = {*head.keys.targets, *head.keys.drops} - keys.targets.keys() - keys.drops.keys()
        keys.drop(theirs, f"a fine-tuned head that was not chosen; --task {head.name} takes it")
    known = keys.targets.keys() | keys.drops.keys() | keys.ties.keys()
    left = [key for key in source if key.startswith(HEAD_KEYS) and key not in known]
    if left and task == AUTO:
        raise MmptValueError(
            f"{source.path} has a fine-tuned head that is not covered, or not complete: {', '.join(left[:4])}. Convert "
            f"the rest without it with --task {PRETRAINING}" + (f", or take {_listed(heads)}" if heads else "")
        )
    keys.drop(left, "a fine-tuned head that is not covered, or not complete")


def label_fields(head: TaskHead, source: SourceCheckpoint, path: str | Path | None) -> dict[str, Any]:
    """Return the number and the names of a head's classes: from a JSON file, the configuration, or their code.

    Raises:
        ValueError: if the file names another number of classes, or the task has none.
    """
    if head.outputs is None:
        if path is not None:
            raise MmptValueError(f"labels were given, but {head} has no classes to be named; leave them out")
        return {}
    if path is not None:
        return _named(read_label_names(path, head.outputs))
    told = source.label_names().get("id2label")
    if told is not None and sorted(told) == list(range(head.outputs)):
        return _named([told[number] for number in range(head.outputs)])
    if told is not None:
        source.assumptions.append(
            f"the configuration's {len(told)} label names are left out: {head} has {head.outputs} outputs"
        )
    if head.names is not None and len(head.names) == head.outputs:
        return _named(head.names)
    return {"num_labels": head.outputs}


def read_label_names(path: str | Path, outputs: int) -> list[str]:
    """Return the names of classes by number from a JSON file: a list, or an object of names to numbers or back.

    Raises:
        ValueError: if it is something else, or has not one name for each of `outputs`.
    """
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MmptValueError(f"{path} is no JSON ({error}), expected the names of labels") from None
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
            f"{path} names {len(numbered)} labels, expected a name of its own for each of 0..{outputs - 1}"
        )
    return [str(name) for name in names]


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def _listed(heads: Sequence[TaskHead]) -> str:
    return ", ".join(map(str, heads))
