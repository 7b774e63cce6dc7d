"""The keys of a recipe: which there are, which one a command line means, and what an unknown one may have meant."""

import dataclasses
import difflib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.recipe.values import describe, fits, is_text, read_yaml

Schema = dict[str, Any]
"""Key -> type, or -> Schema where the value is a mapping with known keys. The outermost keys are the sections."""

RUN_SWITCHES = ("overwrite", "allow_changes")
"""Words of a command line that say how the output folder is treated; no part of the recipe."""

SWITCHES = ("push_to_hub", *RUN_SWITCHES)
"""Keys that mean true on a command line where no value stands behind them."""

ALIASES = {
    "lr": "training.learning_rate",
    "batch_size": "training.per_device_train_batch_size",
    "epochs": "training.num_train_epochs",
    "seed": "training.seed",
}
"""What a command line may call a key by."""

USUAL_NAMES = {
    "accumulation": "training.gradient_accumulation_steps",
    "arch": "model.preset",
    "batch": "training.per_device_train_batch_size",
    "bs": "training.per_device_train_batch_size",
    "captions": "data.pairs",
    "checkpoint": "model.from_pretrained",
    "clip_grad": "training.max_grad_norm",
    "d_model": "model.hidden_size",
    "decay": "training.weight_decay",
    "depth": "model.num_hidden_layers",
    "dev_data": "data.eval_pairs",
    "device": "training.use_cpu",
    "dim": "model.hidden_size",
    "dropout": "model.hidden_dropout_prob",
    "early_stopping": "task.early_stopping_patience",
    "embed_dim": "model.hidden_size",
    "epoch": "training.num_train_epochs",
    "eval_batch_size": "training.per_device_eval_batch_size",
    "eval_data": "data.eval_pairs",
    "eval_every": "training.eval_steps",
    "features": "data.store",
    "ffn_dim": "model.intermediate_size",
    "grad_accum": "training.gradient_accumulation_steps",
    "grad_clip": "training.max_grad_norm",
    "heads": "model.num_attention_heads",
    "hidden_dim": "model.hidden_size",
    "init_checkpoint": "model.from_pretrained",
    "iterations": "training.max_steps",
    "layers": "model.num_hidden_layers",
    "learning_rate_decay": "task.layer_lr_decay",
    "log_every": "training.logging_steps",
    "loss_weights": "model.objective_weights",
    "mask_prob": "masking.probability",
    "max_epochs": "training.num_train_epochs",
    "max_iters": "training.max_steps",
    "max_len": "data.max_text_length",
    "max_length": "data.max_text_length",
    "max_seq_len": "data.max_text_length",
    "max_seq_length": "data.max_text_length",
    "mlm_probability": "masking.probability",
    "model_name_or_path": "model.from_pretrained",
    "momentum": "training.adam_beta1",
    "n_heads": "model.num_attention_heads",
    "n_layers": "model.num_hidden_layers",
    "num_boxes": "data.max_regions",
    "num_epochs": "training.num_train_epochs",
    "num_heads": "model.num_attention_heads",
    "num_layers": "model.num_hidden_layers",
    "num_steps": "training.max_steps",
    "num_workers": "training.dataloader_num_workers",
    "objectives": "model.objective_weights",
    "optimizer": "training.optim",
    "out": "training.output_dir",
    "outdir": "training.output_dir",
    "output": "training.output_dir",
    "patience": "task.early_stopping_patience",
    "precision": "training.bf16",
    "pretrained": "model.from_pretrained",
    "region_store": "data.store",
    "resume": "training.resume_from_checkpoint",
    "save_dir": "training.output_dir",
    "save_every": "training.save_steps",
    "schedule": "training.lr_scheduler_type",
    "scheduler": "training.lr_scheduler_type",
    "steps": "training.max_steps",
    "total_steps": "training.max_steps",
    "train_batch_size": "training.per_device_train_batch_size",
    "train_data": "data.pairs",
    "train_file": "data.pairs",
    "val_data": "data.eval_pairs",
    "validation_file": "data.eval_pairs",
    "warmup": "training.warmup_steps",
    "wd": "training.weight_decay",
    "workers": "training.dataloader_num_workers",
}
"""What others call a key by, for "did you mean"."""


def types_of(cls: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass that its constructor takes."""
    return {item.name: item.type for item in dataclasses.fields(cls) if item.init}


def defaults_of(cls: Any) -> dict[str, Any]:
    """Return the default of each field of a dataclass that has one."""
    return {
        item.name: item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
        for item in dataclasses.fields(cls)
        if item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    }


def split_overrides(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return (key, value text) of each `--key value` and `--key=value`; `ALIASES` are resolved, and - is read as _.

    Raises:
        ValueError: for a word that belongs to no key, or a key without a value.
    """
    pairs, rest = [], deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("--") or len(word) == 2:
            raise MmptValueError(f"got {word!r} on the command line, expected --key value")
        name, equals, text = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals:
            if rest and not rest[0].startswith("--"):
                text = rest.popleft()
            elif name.rpartition(".")[2] in SWITCHES:
                text = "true"
            else:
                raise MmptValueError(f"--{name} has no value; write --{name} VALUE, or --{name} true for a switch")
        pairs.append((ALIASES.get(name, name), text))
    return pairs


def check_keys(raw: dict[str, Any], schema: Schema, source: str) -> None:
    """Refuse unknown keys and values of a wrong type; drop mappings that are null.

    Args:
        raw: a recipe as YAML gives it; changed in place.
        source: the file that it came from; errors name it.

    Raises:
        ValueError: naming source and key.
    """
    _check_mapping(raw, schema, source, "", schema)


def apply_override(
    raw: dict[str, Any], schema: Schema, name: str, text: str, starts: Mapping[str, dict[str, Any]]
) -> None:
    """Set one key of a checked recipe from a command line.

    Args:
        raw: changed in place.
        name: the full key, or its end where only one key has that end; a source of data that the recipe does not have
            does not count.
        text: the value, as YAML.
        starts: mappings that an override of one of their keys changes where the recipe has none.

    Raises:
        ValueError: if the key is unknown or ambiguous, or the value has a wrong type.
    """
    dotted = _full_name(name, schema, raw)
    parent, _, last = dotted.rpartition(".")
    target, types = raw, schema
    for key in parent.split("."):
        target, types = target.setdefault(key, {}), types[key]
    if not target:
        target.update(starts.get(parent, {}))
    if parent == "model.objective_weights" and not target:
        raise MmptValueError(
            f"--{name} sets one weight, but the recipe has no model.objective_weights, and an objective without a "
            f"weight is off; name all that are on: --objective_weights '{{{last}: {text}, ...}}'"
        )
    kind = types[last]
    as_text = not isinstance(kind, dict) and is_text(kind) and text != "null"
    holder = {last: text if as_text else read_yaml(text, f"--{name}")}
    _check_mapping(holder, {last: kind}, f"--{name}", f"{parent}.", schema)
    target.pop(last, None)
    target.update(holder)


def expect_mapping(value: Any, name: str, what: str) -> None:
    """Raise ValueError unless the value is a mapping."""
    if isinstance(value, dict):
        return
    raise MmptValueError(f"{name} is {value!r}, expected a mapping with {what}")


def _check_mapping(raw: dict[str, Any], types: Schema, source: str, prefix: str, schema: Schema) -> None:
    for key in list(raw):
        name = f"{prefix}{key}"
        if key not in types:
            raise MmptValueError(f"{source}: unknown {'key' if prefix else 'section'} {name!r}; {_hint(name, schema)}")
        kind, value = types[key], raw[key]
        if isinstance(kind, dict):
            if value is None:
                del raw[key]
                continue
            expect_mapping(value, f"{source}: {name}", f"keys like {next(iter(kind))}")
            _check_mapping(value, kind, source, f"{name}.", schema)
        elif not fits(value, kind):
            raise MmptValueError(f"{source}: {name} is {value!r}, expected {describe(kind)}")


def _full_name(name: str, schema: Schema, raw: Mapping[str, Any]) -> str:
    known = list(_names(schema))
    if name in known:
        return name
    full = [key for key in known if key.endswith(f".{name}")]
    present = [key for key in full if _has_parent(key, raw)]
    full = present if len(full) > 1 and present else full
    if len(full) > 1:
        raise MmptValueError(f"--{name} is ambiguous; write {' or '.join('--' + key for key in full)}")
    if not full:
        raise MmptValueError(f"unknown key --{name}; {_hint(name, schema)}")
    return full[0]


def _has_parent(name: str, raw: Any) -> bool:
    """Whether the recipe has the mapping that holds a key; a section itself may be left out of it."""
    section, *inner, _ = name.split(".")
    found = raw.get(section) or {}
    for key in inner:
        if not isinstance(found.get(key), dict):
            return False
        found = found[key]
    return True


def _hint(name: str, schema: Schema) -> str:
    """Return what may have been meant by an unknown key: the same word elsewhere, or the nearest spelling."""
    from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS

    known, last = list(_names(schema)), name.rpartition(".")[2]
    same = [key for key in known if key.rpartition(".")[2] == last]
    if name.startswith(("model.single.", "model.dual.")):
        return f"on the command line a key of one stream is written without it: --{last}"
    if same:
        return f"did you mean {' or '.join(difflib.get_close_matches(name, same, n=1, cutoff=0.75) or same)}?"
    for stream, config in MMPT_CONFIGS.items():
        if last in types_of(config) and name in (last, f"model.{last}"):
            choose = f"choose that with --stream {stream}, or write it under model.{stream}"
            return f"it belongs to the {stream} stream: {choose}"
    if last == "images":
        return (
            "pre-training reads regions, not images: extract them (mmpt extract --images ... --out regions) and give "
            "the store as data.store"
        )
    usual = {word: key for word, key in (ALIASES | USUAL_NAMES).items() if key in known}
    word = last.lower()
    if word in usual:
        return f"did you mean {usual[word]}?"
    near = difflib.get_close_matches(name, [*known, *schema], n=1, cutoff=0.75)
    if not near:
        by_word = {key.rpartition(".")[2]: key for key in reversed(known)} | usual
        near = [by_word[each] for each in difflib.get_close_matches(word, by_word, n=1)]
    return f"did you mean {near[0]}?" if near else f"the sections are {', '.join(schema)}"


def _names(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Yield every full name below the sections."""
    for key, value in schema.items():
        if prefix:
            yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
