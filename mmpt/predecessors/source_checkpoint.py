"""A predecessor's checkpoint as published: tensors, configuration and vocabulary."""

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.configuration.pretrained import reason_of
from mmpt.processing.placeholders import refuse_placeholder
from mmpt.processing.region_readers.restricted_pickle import load_pickle

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
PICKLE = ".pkl"  # of numpy arrays: detectors in detectron2's form
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th", PICKLE)  # .th: the original VisualBERT
WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Keys of the weights in files with more content, written by training scripts (VisualBERT, VOLTA)."""

TORCH_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of files written by `torch.save`: a zip archive, or a pickle before torch 1.6."""

_OLD_NORM_NAMES = {"gamma": "weight", "beta": "bias"}


class SourceCheckpoint(Mapping[str, Tensor]):
    """Mapping of key to tensor, read on access, with the configuration next to the weights.

    The prefixes `module.` (DataParallel) and `lxrt_encoder.model.` (fine-tuned LXMERT) are removed from keys.
    TensorFlow's `gamma` and `beta` become `weight` and `bias`.

    Args:
        path: a weight file (.safetensors, .bin, .pt, .pth, .th, .pkl), or a folder with one, whole or in shards with an
            index.
        config_path: the predecessor's configuration; `config.json` beside the weights by default, if it is there.

    Raises:
        FileNotFoundError: if there is no weight file; the message has the expected names.
        ValueError: if a file cannot be read as weights, contains code, or contains anything but tensors.
    """

    def __init__(self, path: str | Path, config_path: str | Path | None = None) -> None:
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else self.path.parent
        self.config_path = self.folder / "config.json" if config_path is None else Path(config_path)
        self.config = _read_config(self.config_path, must_exist=config_path is not None)
        self.assumptions: list[str] = []
        self._tensors: dict[str, tuple[Any, str]] = {}  # cleaned key -> (reader, key in the file)
        for file in _weight_files(self.path):
            reader = _open(file)
            for key in reader.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                name = _clean(key)
                if name in self._tensors:
                    raise MmptValueError(f"{file} has {key!r} twice (as {name!r}); a checkpoint needs each key once")
                self._tensors[name] = (reader, key)
        self._strip_common_wrapper()

    def __getitem__(self, key: str) -> Tensor:
        reader, name = self._tensors[key]
        return reader.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it.

        Raises:
            ValueError: if the checkpoint has no such key.
        """
        if key not in self._tensors:
            raise MmptValueError(
                f"{self.path} has no {key!r}, which checkpoints of its family have; is the file complete?"
            )
        reader, name = self._tensors[key]
        return tuple(reader.get_slice(name).get_shape())

    def size(self, key: str, axis: int, *settings: str) -> int:
        """Return the size of a tensor along an axis, after checking it against the configuration.

        Args:
            settings: names of this size in the predecessor's configuration.

        Raises:
            ValueError: if the checkpoint has no such key, or the configuration has another number.
        """
        found = self.shape(key)[axis]
        for setting in settings:
            self.agree(setting, found, f"{key} has shape {self.shape(key)}")
        return found

    def agree(self, setting: str, found: int, where: str) -> None:
        """Check that the configuration agrees with the weights.

        Args:
            setting: name of an integer in the configuration; missing and other values are ignored.
            found: number in the weights.
            where: evidence in the weights, for the error.

        Raises:
            ValueError: if they differ; the message has both values.
        """
        configured = self.config.get(setting)
        if isinstance(configured, int) and not isinstance(configured, bool) and configured != found:
            raise MmptValueError(
                f"{self.config_path} has {setting} = {configured}, but the weights have {found}: {where} in "
                f"{self.path}. The configuration belongs to another model; give the right one with --config"
            )

    def count(self, prefix: str, *settings: str) -> int:
        """Return the number of modules `<prefix>.0`, `<prefix>.1`, …

        Args:
            settings: names of this number in the predecessor's configuration.

        Raises:
            ValueError: if a module is missing, or the configuration has another number.
        """
        start = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        numbers = {int(match[1]) for key in self if (match := start.match(key))}
        if numbers != set(range(len(numbers))):
            raise MmptValueError(f"{self.path} has {prefix}.N for N in {sorted(numbers)}; expected all from 0")
        for setting in settings if numbers else ():
            self.agree(setting, len(numbers), f"there are {len(numbers)} modules {prefix}.N")
        return len(numbers)

    def setting(self, name: str, default: Any, why: str | None = None) -> Any:
        """Return a value of the configuration, or the default; with `why`, a default is recorded as an assumption."""
        if self.config.get(name) is not None:
            return self.config[name]
        if why is not None:
            self.assumptions.append(f"{name} = {default}: {why}")
        return default

    def label_names(self) -> dict[str, Any]:
        """Return `id2label` and `label2id` of the configuration, or an empty dict if they are LABEL_0, LABEL_1, …"""
        names = self.config.get("id2label")
        if not isinstance(names, dict) or all(str(name) == f"LABEL_{number}" for number, name in names.items()):
            return {}
        found = {int(number): str(name) for number, name in names.items()}
        return {"id2label": found, "label2id": {name: number for number, name in found.items()}}

    def heads(self, name: str, width: int, head_width: int = 64) -> int:
        """Return the number of attention heads, which cannot be inferred from the shapes of weights.

        It is read from the configuration. If there is another `config.json` next to the weights, both must agree.

        Args:
            name: name of the setting.
            width: total width of all heads.
            head_width: width of a head in every released model.

        Raises:
            ValueError: if two configurations disagree, the number does not divide the width, or it is unknown.
        """
        beside = self.folder / "config.json"
        values = {beside: _read_config(beside, must_exist=False).get(name), self.config_path: self.config.get(name)}
        found = {path: int(value) for path, value in values.items() if value is not None}
        if len(set(found.values())) > 1:
            both = " and ".join(f"{value} in {path}" for path, value in found.items())
            raise MmptValueError(f"{name} is {both}; remove the configuration that belongs to another model")
        usual, rest = divmod(width, head_width)
        if not found:
            if rest or not usual:
                raise MmptValueError(
                    f"{self.path}: the number of attention heads ({name}) cannot be inferred from weights of width "
                    f"{width}; give the checkpoint's configuration with --config"
                )
            return int(self.setting(name, usual, f"not in a configuration; heads of width {head_width} are usual"))
        heads = next(iter(found.values()))
        if heads < 1 or width % heads:
            raise MmptValueError(
                f"{next(iter(found))} has {name} = {heads}, which does not divide the width {width} of the attention "
                f"in {self.path}; give the right configuration with --config"
            )
        if not rest and heads != usual:
            self.assumptions.append(
                f"{name} = {heads} as configured, though {usual} heads of {head_width} are usual at width {width}: it "
                "cannot be inferred from the weights, so compare an output with the original model"
            )
        return heads

    def _strip_common_wrapper(self) -> None:
        """Remove the prefix `bert.` of VisualBERT's wrapper: `bert.bert.…`, `bert.cls.…`.

        Its VCR model also has an image network, `detector.…`.
        """
        if any(key.startswith("bert.bert.") for key in self):
            self._tensors = {key.removeprefix("bert."): value for key, value in self._tensors.items()}


class _LoadedTensors:
    """A dict of tensors with the interface of a safetensors file."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def keys(self) -> Iterator[str]:
        return iter(self._tensors)

    def get_tensor(self, key: str) -> Tensor:
        return self._tensors[key]

    def get_slice(self, key: str) -> "_LoadedTensors._Shape":
        return self._Shape(self._tensors[key])

    class _Shape:
        def __init__(self, tensor: Tensor) -> None:
            self._tensor = tensor

        def get_shape(self) -> list[int]:
            return list(self._tensor.shape)


def _read_config(path: Path, must_exist: bool) -> dict[str, Any]:
    if not must_exist and not path.is_file():
        return {}
    refuse_placeholder(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MmptValueError(f"{path} is not valid JSON ({error}), expected the checkpoint's configuration") from None
    if not isinstance(config, dict):
        raise MmptValueError(f"{path} contains a {type(config).__name__}, expected an object with the configuration")
    return config


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MmptFileNotFoundError(f"{path} does not exist, expected a weight file or a folder with one")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if index.is_file():
            names = _shards(index)
            if any(Path(shard).name != shard for shard in names):
                raise MmptValueError(
                    f"{index} names files outside its folder; the shards of a checkpoint must be next to the index"
                )
            return [path / shard for shard in names]
    others = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(others) != 1:
        found = ", ".join(file.name for file in others) or "no weight file"
        raise MmptFileNotFoundError(
            f"{path} has {found}, expected {' or '.join(WEIGHT_FILES)}, or exactly one file that ends in "
            f"{', '.join(WEIGHT_SUFFIXES)}; name the file itself"
        )
    return others


def _shards(index: Path) -> list[str]:
    refuse_placeholder(index)
    try:
        return sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MmptValueError(
            f"{index} is damaged ({error!r}), expected JSON with a weight_map; copy it again"
        ) from None


def _open(file: Path) -> Any:
    if not file.is_file():
        raise MmptFileNotFoundError(f"{file} does not exist, but the index next to it lists it; copy it too")
    refuse_placeholder(file)
    if file.suffix == ".safetensors":
        try:
            return safe_open(file, framework="pt")
        except SafetensorError as error:
            raise MmptValueError(f"{file} cannot be read as safetensors ({error}); copy it again") from None
    return _LoadedTensors(_load_arrays(file) if file.suffix == PICKLE else _load_pickled(file))


def _load_arrays(file: Path) -> dict[str, Tensor]:
    """Read a pickle of numpy arrays; nothing in it is imported or called."""
    try:
        loaded = load_pickle(file.read_bytes())
    except MmptValueError as error:
        raise MmptValueError(f"{file} is refused, and nothing of it was run: {error}") from None
    loaded = _unwrapped(loaded, file)
    return {
        key: torch.from_numpy(np.array(value))  # a copy that may be written to
        for key, value in loaded.items()
    }


def _load_pickled(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as opened:
        start = opened.read(2)
    if start not in TORCH_STARTS:
        raise MmptValueError(
            f"{file} cannot be read as a torch checkpoint: it is neither a zip archive nor a pickle"
        ) from None
    loaded: Any
    try:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files from before torch 1.6 cannot be memory-mapped.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        names = f" (it names {blocked[1]})" if blocked else ""
        raise MmptValueError(
            f"{file} is refused: it contains more than tensors{names}, and loading that could run code. None of it was "
            "run. If you trust it, save only its state_dict(), or save it as safetensors"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise MmptValueError(
            f"{file} cannot be read as a torch checkpoint ({reason_of(error)}); copy it again"
        ) from None
    return _unwrapped(loaded, file)


def _unwrapped(loaded: Any, file: Path) -> dict[str, Any]:
    """Return the dict of weights in what a file holds."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise MmptValueError(f"{file} holds a {type(loaded).__name__}, expected a dict of tensors (a state_dict)")
    wrong = [
        key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor | np.ndarray))
    ]
    if wrong:
        raise MmptValueError(
            f"{file} has entries that are not tensors ({', '.join(map(repr, wrong[:5]))}), expected a state_dict; "
            f"known wrapper keys are {', '.join(WRAPPERS)}"
        )
    return loaded


def _clean(key: str) -> str:
    for prefix in ("module.", "lxrt_encoder.model.", "module."):  # LXMERT's tasks wrap only the encoder
        key = key.removeprefix(prefix)
    stem, _, last = key.rpartition(".")
    return f"{stem}.{_OLD_NORM_NAMES[last]}" if last in _OLD_NORM_NAMES else key
