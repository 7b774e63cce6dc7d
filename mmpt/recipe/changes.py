"""The differences between the recipe of a run and the one that resumes it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmpt.recipe.recipe import Recipe

Changes = dict[str, tuple[Any, Any]]
"""Key -> (old, new)."""

_UNSET = object()

FREE = {
    *("output_dir", "resume_from_checkpoint", "restore_callback_states_from_checkpoint"),
    *("logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level", "log_level_replica"),
    *("disable_tqdm", "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id"),
    *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
    *("save_total_limit", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"),
    *("skip_memory_metrics", "ddp_timeout", "per_device_eval_batch_size"),
}
"""Keys of `training` that change nothing of what is learnt: a run resumes with others without a word."""

_FREE_WITHOUT_BEST = {"save_strategy", "save_steps"}
"""Free too, unless the best checkpoint is loaded at the end: which are saved then decides which is the best."""


def changes_of(old: Any, new: Recipe) -> Changes:
    """Return what differs between a resolved recipe on disk and a new one, without what is free to differ.

    Args:
        old: what `recipe.yaml` says; None or no recipe compares nothing.
    """
    if not isinstance(old, Mapping):
        return {}
    before, after = _flat(old), _flat(new.resolved())
    with_best = any(each.get("training.load_best_model_at_end") for each in (before, after))
    free = {f"training.{name}" for name in (FREE if with_best else FREE | _FREE_WITHOUT_BEST)}
    free |= {"task.gallery", "data.images"}
    defaults = _defaults(new)
    changes: Changes = {}
    for name in [*before, *(name for name in after if name not in before)]:
        values = [each.get(name, defaults.get(name, _UNSET)) for each in (before, after)]
        if name not in free and values[0] != values[1]:
            changes[name] = (values[0], values[1])
    return changes


def listed_changes(changes: Changes) -> str:
    """Return the changes as a sentence lists them."""
    return ", ".join(f"{name} {_shown(old)} → {_shown(new)}" for name, (old, new) in changes.items())


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted name -> value of nested mappings; an empty one or null is left out, as if it were not there."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, Mapping) and each:
            found |= _flat(each, f"{prefix}{name}.")
        elif each is not None and each != {}:
            found[f"{prefix}{name}"] = each
    return found


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """Return dotted name -> default of fields of training, of data and, where nothing else gives them, the model."""
    from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS
    from mmpt.training.base_trainer import MmptTrainingArguments

    sections: dict[str, Any] = {"training": MmptTrainingArguments, "data": type(recipe.data)}
    if recipe.model.preset is None and recipe.model.from_pretrained is None:
        sections["model"] = MMPT_CONFIGS[recipe.model.stream]
    return {
        f"{section}.{item.name}": getattr(item.default, "value", item.default)
        for section, cls in sections.items()
        for item in dataclasses.fields(cls)
        if item.default is not dataclasses.MISSING and item.default is not None
    }


def _shown(value: Any) -> str:
    return "unset" if value is _UNSET else repr(value)
