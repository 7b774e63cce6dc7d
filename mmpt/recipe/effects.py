"""Keys of `training` that have no effect beside others."""

from collections.abc import Collection
from typing import Any

from mmpt.configuration.errors import MmptValueError

_NEEDS = {
    "eval_steps": ("eval_strategy", "no", {"steps"}),
    "eval_delay": ("eval_strategy", "no", {"steps", "epoch"}),
    "eval_on_start": ("eval_strategy", "no", {"steps", "epoch"}),
    "save_steps": ("save_strategy", "steps", {"steps"}),
    "save_total_limit": ("save_strategy", "steps", {"steps", "epoch", "best"}),
    "save_only_model": ("save_strategy", "steps", {"steps", "epoch", "best"}),
    "logging_steps": ("logging_strategy", "steps", {"steps"}),
    "hub_model_id": ("push_to_hub", False, {True}),
    "hub_strategy": ("push_to_hub", False, {True}),
    "hub_private_repo": ("push_to_hub", False, {True}),
    "hub_always_push": ("push_to_hub", False, {True}),
    "hub_revision": ("push_to_hub", False, {True}),
    "gradient_checkpointing_kwargs": ("gradient_checkpointing", False, {True}),
}
"""Key -> (the key of `training` that it depends on, that one's default, its values with which it has an effect)."""


def check_effects(training: dict[str, Any], overridden: Collection[str], source: str) -> None:
    """Refuse keys of `training` that have no effect beside the others.

    A key of the file that a command line has put out of effect (`--eval_strategy no`) is no mistake: it is taken out,
    so that the recipe of the run can be read again.

    Args:
        overridden: keys of the section that the command line gives.

    Raises:
        ValueError: naming both keys.
    """
    for name, (switch, default, values) in _NEEDS.items():
        value = training.get(switch, default)
        if training.get(name) is None or value in values:
            continue
        if switch in overridden and name not in overridden:
            del training[name]
        else:
            wanted = " or ".join(sorted(str(each).lower() for each in values))
            raise MmptValueError(
                f"{source}: training.{name} is {training[name]!r}, but has no effect with {switch} "
                f"{str(value).lower()}; leave it out, or set {switch} to {wanted}"
            )
