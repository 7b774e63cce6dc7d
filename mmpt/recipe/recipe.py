"""Recipes: one YAML document that says what to pre-train or fine-tune, on what, and how.

```yaml
model: {stream: single, hidden_size: 64, objective_weights: {mlm: 1.0, mrc: 1.0, itm: 1.0}}
data: {generated: {train_scenes: 4000, seed: 0}}
masking: {policy: conditional, hard_negative_rate: 0.5}
training: {max_steps: 200, per_device_train_batch_size: 16}
```

A recipe of `mmpt finetune` has a section `task` instead of `masking`.

Keys of `model` that only one stream knows may stand under `model.single` or `model.dual`, so that one recipe serves
both. Paths are relative to the folder that the command runs in.
"""

import dataclasses
import shlex
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mmpt.configuration.errors import MmptPermissionError, MmptValueError
from mmpt.configuration.value_bounds import check_bounds
from mmpt.hub.access_tokens import refuse_tokens
from mmpt.recipe.earlier import in_todays_words
from mmpt.recipe.effects import check_effects
from mmpt.recipe.keys import (
    RUN_SWITCHES,
    Schema,
    apply_override,
    check_keys,
    expect_mapping,
    split_overrides,
    types_of,
)
from mmpt.recipe.packaged import find_recipe
from mmpt.recipe.sections import (
    MASKING_SHARES,
    PRESETS,
    READ_WITH_PAIRS,
    DataSection,
    GeneratedSource,
    MaskingSection,
    ModelSection,
)
from mmpt.recipe.task_section import SceneTaskSource, TaskName, TaskSection, task_ranges
from mmpt.recipe.values import read_yaml, write_yaml
from mmpt.training.argument_values import check_training_values

if TYPE_CHECKING:
    from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig


@dataclass
class Recipe:
    """A checked recipe, every override applied.

    Args:
        training: fields of `transformers.TrainingArguments`; `output_dir` is always there.
        command: the command line that asks for this run.
        task: what to fine-tune for; None where the recipe is one of pre-training.
        overwrite: replace the run that the output folder holds, once this one is done.
        allow_changes: resume a run with other settings than it began with.
    """

    model: ModelSection
    data: DataSection
    masking: MaskingSection
    training: dict[str, Any]
    command: str = field(compare=False)
    task: TaskSection | None = None
    overwrite: bool = field(default=False, compare=False)
    allow_changes: bool = field(default=False, compare=False)

    @property
    def output_dir(self) -> Path:
        """Folder that the run writes."""
        return Path(self.training["output_dir"])

    def resolved(self) -> dict[str, Any]:
        """Return the whole recipe as plain values: defaults filled in, overrides applied, one stream's keys only.

        How the run was started (resume_from_checkpoint) is no part of it.
        """
        plain = dataclasses.asdict(self)
        config = plain["model"].pop("config")
        how = "masking" if self.task is None else "task"
        for name in ("generated",) if how == "task" else ("scene_task", "images"):
            plain["data"].pop(name)
        return {
            "model": plain["model"] | config,
            "data": plain["data"],
            how: plain[how],
            "training": {name: value for name, value in plain["training"].items() if name != "resume_from_checkpoint"},
        }

    def write(self, path: Path) -> None:
        """Write the resolved recipe, which gives the same run again, below the command that asked for it.

        Raises:
            ValueError: if it holds an access token.
        """
        _refuse_tokens(self, str(path))
        command = " ".join(self.command.split())  # a line break would end the comment
        path.write_text(f"# {command}\n{write_yaml(self.resolved())}", encoding="utf-8")


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    command: Literal["pretrain", "finetune"] = "pretrain",
    saved: bool = False,
) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        path: of a YAML file, with or without its ending; else the name of a recipe of the package, `tiny`.
        overrides: words of a command line: `--section.key value`, `--section.key=value`, or `--key value` where only
            one section has the key. Values are YAML: `0.1`, `true`, `null`, `[0, 1]`.
        command: what the recipe is for.
        saved: it is the recipe of a run that is done: its data may come from a source that only mmpt 0.1.0 had.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown or ambiguous key, a value of a wrong type, or values that do not fit each other.
    """
    asked, path = str(path), find_recipe(path)
    raw = read_recipe(path, command, saved)
    pairs = split_overrides(overrides)
    switches = {name: read_yaml(text, f"--{name}") for name, text in pairs if name in RUN_SWITCHES}
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise MmptValueError(f"--{name} is {value!r}, expected nothing behind it, or true or false")
    pairs = [(name, text) for name, text in pairs if name not in RUN_SWITCHES]
    schema = recipe_schema(choose_stream(raw, pairs, str(path), command), command)
    check_keys(raw, schema, str(path))
    _choose_length(raw, {name.rpartition(".")[2] for name, _ in pairs})
    for name, text in pairs:
        apply_override(raw, schema, name, text, starts={"masking.shares": MaskingSection().shares})
    recipe = _build(raw, path, shlex.join(["mmpt", command, asked, *overrides]), command)
    recipe = dataclasses.replace(recipe, **switches)
    if not saved:
        check_effects(recipe.training, {name.rpartition(".")[2] for name, _ in pairs}, str(path))
    _check_values(recipe, str(path), saved)
    return recipe


def read_recipe(path: Path, command: str, saved: bool = False) -> dict[str, Any]:
    """Return what a recipe's file says in today's words, unchecked.

    Raises:
        ValueError: if it is no YAML mapping, or a recipe of the other command.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise MmptValueError(f"recipe {str(path)!r} is not text in UTF-8; is it a YAML file?") from None
    raw = read_yaml(text, str(path))
    raw = {} if raw is None else raw
    expect_mapping(raw, f"{path}", "the sections model, data, masking or task, and training")
    in_todays_words(raw, str(path), saved)
    if command == "pretrain" and "task" in raw:
        raise MmptValueError(f"{path} has a section task: it is a recipe of fine-tuning; run mmpt finetune {path}")
    if command == "finetune" and "masking" in raw:
        raise MmptValueError(f"{path} has a section masking: it is a recipe of pre-training; run mmpt pretrain {path}")
    return raw


def build_config(model: ModelSection, facts: Mapping[str, Any]) -> "MmptSingleStreamConfig | MmptDualStreamConfig":
    """Return the configuration that a recipe describes.

    Args:
        facts: fields that tokenizer and data decide (vocab_size, region_feature_dim, ...). They replace the preset's;
            what the recipe itself says goes first.

    Raises:
        StrictDataclassError: if a value, or values together, do not make a configuration.
    """
    from mmpt.configuration.configuration_mmpt import MmptDualStreamConfig, MmptSingleStreamConfig

    builders: dict[str | None, Callable[..., MmptSingleStreamConfig | MmptDualStreamConfig]] = {
        None: MmptSingleStreamConfig if model.stream == "single" else MmptDualStreamConfig,
        "uniter": MmptSingleStreamConfig.uniter,
        "visual_bert": MmptSingleStreamConfig.visual_bert,
        "oscar": MmptSingleStreamConfig.oscar,
        "volta_uniter": MmptSingleStreamConfig.volta_uniter,
        "volta_visual_bert": MmptSingleStreamConfig.volta_visual_bert,
        "vilbert": MmptDualStreamConfig.vilbert,
        "lxmert": MmptDualStreamConfig.lxmert,
        "volta_vilbert": MmptDualStreamConfig.volta_vilbert,
        "volta_lxmert": MmptDualStreamConfig.volta_lxmert,
    }
    return builders[model.preset](**{**facts, **model.config})


def check_output_dir(path: str | Path) -> None:
    """Make the output folder and write to it once, so that a run cannot fail there at its end.

    Raises:
        PermissionError: if the folder cannot be made or written.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".probe") as probe:
            probe.write(b"mmpt")
            probe.flush()
    except OSError as error:
        raise MmptPermissionError(
            f"output folder {str(path)!r} cannot be written ({error.strerror}); choose another with --output_dir"
        ) from error


def recipe_schema(stream: str, command: str) -> Schema:
    """Return section -> key -> type, or a further mapping where the value is one with known keys."""
    from transformers import PreTrainedConfig, TrainingArguments

    from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS, OBJECTIVE_NAMES, OPTIONAL_OBJECTIVE_NAMES

    model = types_of(ModelSection) | types_of(MMPT_CONFIGS[stream])
    for name in ("config", "schema_version", *types_of(PreTrainedConfig)):  # bookkeeping of a saved configuration
        model.pop(name, None)
    model["objective_weights"] = dict.fromkeys(OBJECTIVE_NAMES + OPTIONAL_OBJECTIVE_NAMES, float)
    data = types_of(DataSection) | {"generated": types_of(GeneratedSource)}
    training = types_of(TrainingArguments)
    if command == "finetune":
        data = {name: kind for name, kind in data.items() if name != "generated"}
        for name in ("label_smoothing", "class_weights"):  # of the task, which is where a recipe has them
            model.pop(name)
        data["scene_task"] = types_of(SceneTaskSource)
        return {"model": model, "data": data, "task": types_of(TaskSection), "training": training}
    for name in ("scene_task", "images"):  # pre-training shows no predictions
        data.pop(name)
    masking = types_of(MaskingSection) | {"shares": dict.fromkeys(MASKING_SHARES, float)}
    return {"model": model, "data": data, "masking": masking, "training": training}


def _choose_length(raw: dict[str, Any], overridden: Collection[str]) -> None:
    """Take the length of the run that the command line names: max_steps of the file would outdo its epochs.

    Raises:
        MmptValueError: if the command line names both.
    """
    if not {"num_train_epochs", "max_steps"} - set(overridden):
        raise MmptValueError("got --epochs (num_train_epochs) and --max_steps, expected one of them")
    if "num_train_epochs" in overridden and raw.get("training"):
        raw["training"].pop("max_steps", None)


def choose_stream(raw: dict[str, Any], overrides: Sequence[tuple[str, str]], source: str, command: str) -> str:
    """Name the stream asked for, and put the keys under model.single or model.dual into the model section."""
    from mmpt.configuration.configuration_mmpt import MODEL_BOUNDS

    if raw.get("model") is None:
        raw["model"] = {}
    model = raw["model"]
    expect_mapping(model, f"{source}: model", "keys like hidden_size")
    asked = [text for name, text in overrides if name in ("stream", "model.stream")]
    stream = asked[-1] if asked else model.get("stream", "single")
    if stream not in PRESETS:
        where = "--stream" if asked else f"{source}: model.stream"
        raise MmptValueError(f"{where} is {stream!r}, expected 'single' or 'dual'")
    sections = {name: model.pop(name) or {} for name in PRESETS if name in model}
    for name, section in sections.items():
        expect_mapping(section, f"{source}: model.{name}", f"keys for the {name} stream alone")
        twice = sorted(set(section) & set(model), key=str)
        if twice:
            raise MmptValueError(
                f"{source}: model.{name}.{twice[0]} stands as model.{twice[0]} as well; keep one of them"
            )
        if name != stream:  # not used in this run, checked all the same
            check_keys({"model": section}, recipe_schema(name, command), source)
            check_bounds(section, MODEL_BOUNDS, f"{source}: model.{name}.")
    model.update(sections.get(stream, {}))
    return stream


def _build(raw: dict[str, Any], path: Path, line: str, command: str) -> Recipe:
    from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS

    own = types_of(ModelSection)
    model = ModelSection(**{key: value for key, value in raw["model"].items() if key in own})
    types = types_of(MMPT_CONFIGS[model.stream])
    # The strict configuration refuses an int where it declares float; a person may write 1 for 1.0.
    model.config = {
        key: float(value) if types[key] is float else value for key, value in raw["model"].items() if key not in own
    }
    data = dict(raw.get("data", {}))
    if "generated" in data:
        data["generated"] = GeneratedSource(**data["generated"])
    if "scene_task" in data:
        data["scene_task"] = SceneTaskSource(**data["scene_task"])
    masking = MaskingSection(**raw.get("masking", {}))
    training = {"output_dir": f"runs/{path.stem}"} | {
        key: value for key, value in raw.get("training", {}).items() if key != "output_dir" or value is not None
    }
    task = None
    if command == "finetune":
        if "name" not in raw.get("task", {}):
            raise MmptValueError(
                f"{path} says no task; give task.name, one of {', '.join(get_args(TaskName))}, with --task.name"
            )
        task = TaskSection(**raw["task"])
    return Recipe(model, DataSection(**data), masking, training, line, task)


def _check_values(recipe: Recipe, source: str, saved: bool) -> None:
    """Refuse values that have the right type but make no run."""
    from mmpt.configuration.configuration_mmpt import MODEL_BOUNDS

    model, data, masking = recipe.model, recipe.data, recipe.masking
    if model.preset is not None and model.preset not in PRESETS[model.stream]:
        other = next((name for name, presets in PRESETS.items() if model.preset in presets), None)
        hint = f"; it is a {other}-stream model: set --stream {other}" if other else ""
        raise MmptValueError(
            f"{source}: model.preset is {model.preset!r}, expected one of {', '.join(PRESETS[model.stream])} for the "
            f"{model.stream} stream{hint}"
        )
    if model.preset is not None and model.from_pretrained is not None:
        raise MmptValueError(
            f"{source}: model.preset and model.from_pretrained are both given, but the weights in "
            f"{model.from_pretrained!r} bring their architecture with them; leave preset out"
        )
    sources = ("generated" if recipe.task is None else "scene_task", "store")
    given = [name for name in sources if getattr(data, name) is not None]
    if len(given) != 1 and not (saved and not given):
        raise MmptValueError(
            f"{source}: data has {' and '.join(given) or 'no source'}, expected either {sources[0]} or "
            f"store (switch one off with --{sources[0]} null)"
        )
    if data.store is None and (data.pairs or data.eval_pairs):
        raise MmptValueError(
            f"{source}: data.pairs is given without data.store; say where the regions are with --store"
        )
    if data.store is not None and data.pairs is None:
        raise MmptValueError(f"{source}: data.store is given without data.pairs; say where the texts are with --pairs")
    unread = [name for name in (*READ_WITH_PAIRS, "images") if data.pairs is None and getattr(data, name)]
    if unread:
        raise MmptValueError(f"{source}: data.{unread[0]} is given without data.pairs, which it is for; leave it out")
    data.reading()
    check_training_values(recipe.training, f"{source}: training.")
    check_bounds(model.config, MODEL_BOUNDS, f"{source}: model.")
    _refuse_tokens(recipe, source)
    if min(masking.shares.values(), default=0) < 0 or sum(masking.shares.values()) <= 0:
        raise MmptValueError(
            f"{source}: masking.shares is {masking.shares}, expected 0 or more for each of "
            f"{', '.join(MASKING_SHARES)}, and above 0 for one"
        )
    ranges = [
        ("masking.probability", masking.probability, 0, 1),
        ("masking.overlap_threshold", masking.overlap_threshold, 0, 1),
        ("masking.hard_negative_rate", masking.hard_negative_rate, 0, 1),
        ("masking.seed", masking.seed, 0, None),
        ("data.max_text_length", data.max_text_length, 3, None),  # [CLS], a word, [SEP]
        ("data.max_regions", data.max_regions, 1, None),
    ]
    if data.generated is not None:
        scenes = data.generated
        ranges += [
            ("data.generated.train_scenes", scenes.train_scenes, 1, None),
            ("data.generated.eval_scenes", scenes.eval_scenes, 1, None),
            ("data.generated.seed", scenes.seed, 0, None),
            ("data.generated.statements", scenes.statements, 0, 1),
            ("data.generated.partial_captions", scenes.partial_captions, 0, 1),
        ]
    if recipe.task is not None:
        ranges += task_ranges(recipe.task, data.scene_task)
    for name, value, low, high in ranges:
        if value is not None and (value < low or (high is not None and value > high)):
            wanted = f"{low} or more" if high is None else f"{low} to {high}"
            raise MmptValueError(f"{source}: {name} is {value}, expected {wanted}")


def _refuse_tokens(recipe: Recipe, source: str) -> None:
    if recipe.training.get("hub_token") is not None:
        raise MmptValueError(
            f"{source}: training.hub_token would be written into the run's folder for all to read; leave it out and "
            "log in with `hf auth login`"
        )
    refuse_tokens({"the command": recipe.command, **recipe.resolved()}, source)
