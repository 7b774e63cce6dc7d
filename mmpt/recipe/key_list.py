"""Every key that a recipe can have, with type and default: what `mmpt keys` prints."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS, OBJECTIVE_NAMES, OPTIONAL_OBJECTIVE_NAMES
from mmpt.recipe.keys import ALIASES, Schema, check_keys, defaults_of
from mmpt.recipe.packaged import find_recipe
from mmpt.recipe.recipe import build_config, choose_stream, read_recipe, recipe_schema
from mmpt.recipe.sections import PRESETS, DataSection, GeneratedSource, MaskingSection, ModelSection
from mmpt.recipe.task_section import SceneTaskSource, TaskSection
from mmpt.recipe.values import describe
from mmpt.training.base_trainer import MmptTrainingArguments

OFF = "off"
"""What an objective is that a recipe's weights do not name."""


def list_keys(path: str | Path | None = None) -> Iterator[str]:
    """Yield a line for every key that a recipe can have: its name, type and default.

    Args:
        path: a recipe: the keys are those of its command and stream, and its own values are told beside the defaults;
            None yields the keys of all recipes.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if it has unknown keys or values of a wrong type.
    """
    given: dict[str, Any] = {}
    if path is None:
        kinds = [(stream, command) for command in ("pretrain", "finetune") for stream in PRESETS]
    else:
        file = find_recipe(path)
        command = "finetune" if "task" in read_recipe(file, "keys") else "pretrain"
        given = read_recipe(file, command)
        kinds = [(choose_stream(given, (), str(file), command), command)]
        check_keys(given, recipe_schema(*kinds[0]), str(file))
        given["model"] = _chosen_weights(kinds[0][0], given["model"])
    schema: Schema = {}
    for kind in kinds:
        for section, keys in recipe_schema(*kind).items():
            schema[section] = keys | schema.get(section, {})
    yield from _lines(schema, _defaults([stream for stream, _ in kinds]), given)
    yield "on a command line: " + ", ".join(f"--{short} is --{key}" for short, key in ALIASES.items())


def _chosen_weights(stream: str, model: dict[str, Any]) -> dict[str, Any]:
    """Return the section with what each objective is in the run: its weight, or off."""
    weights = model.get("objective_weights")
    if weights is None and model.get("preset") in PRESETS[stream]:
        weights = build_config(ModelSection(stream=stream, preset=model["preset"]), {}).objective_weights  # type: ignore[arg-type]
    off = dict.fromkeys(OBJECTIVE_NAMES + OPTIONAL_OBJECTIVE_NAMES, OFF)
    return model if weights is None else model | {"objective_weights": off | weights}


def _lines(schema: Schema, defaults: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, kind in schema.items():
        default = defaults.get(name, dataclasses.MISSING)
        value = given.get(name, default)
        if isinstance(kind, dict):
            inner, own = (each if isinstance(each, Mapping) else {} for each in (default, value))
            yield from _lines(kind, inner, own, f"{prefix}{name}.")
            continue
        words = "no default" if default is dataclasses.MISSING else f"default {_as_yaml(default)}"
        here = "" if value is default or value == default else f"; here {_as_yaml(value)}"
        yield f"{prefix}{name}: {describe(kind)}; {words}{here}"


def _defaults(streams: Sequence[str]) -> dict[str, Any]:
    """Return the defaults by section; a source of data has those of its class."""
    model: dict[str, Any] = {}
    for stream in reversed(streams):
        model |= defaults_of(MMPT_CONFIGS[stream])
    sources = {"generated": GeneratedSource, "scene_task": SceneTaskSource}
    return {
        "model": model | defaults_of(ModelSection),
        "data": defaults_of(DataSection) | {name: defaults_of(source) for name, source in sources.items()},
        "masking": defaults_of(MaskingSection),
        "task": defaults_of(TaskSection),
        "training": defaults_of(MmptTrainingArguments) | {"output_dir": "runs/NAME_OF_THE_RECIPE"},
    }


def _as_yaml(value: Any) -> str:
    """Return a value as a recipe may have it."""
    return OFF if value == OFF else json.dumps(getattr(value, "value", value), ensure_ascii=False, default=str)
