"""A predecessor's checkpoint as it was published: its tensors, its configuration and its vocabulary."""

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.configuration.pretrained import reason_of

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th")  # .th: the original VisualBERT
WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Where training scripts keep the weights in a file that holds more (VisualBERT, VOLTA)."""

_OLD_NORM_NAMES = {"gamma": "weight", "beta": "bias"}


class SourceCheckpoint(Mapping[str, Tensor]):
    """The tensors of a checkpoint by key, read when they are asked for, and the JSON beside them.

    Keys come without `module.` (DataParallel), without `lxrt_encoder.model.` (fine-tuned LXMERT), and with `weight` and
    `bias` for TensorFlow's `gamma` and `beta`.

    Args:
        path: a weight file (.safetensors, .bin, .pt, .pth, .th), or a folder with one, whole or in shards with an
            index.
        config_path: the predecessor's configuration; `config.json` beside the weights by default, if it is there.

    Raises:
        FileNotFoundError: if there is no weight file, with the names that were looked for.
        ValueError: if a file cannot be read as weights, contains code, or holds something other than tensors.
    """

    def __init__(self, path: str | Path, config_path: str | Path | None = None) -> None:
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else self.path.parent
        self.config = _read_config(self.folder, config_path)
        self.assumptions: list[str] = []
        self._tensors: dict[str, tuple[Any, str]] = {}  # our spelling of a key -> (reader, the file's spelling)
        for file in _weight_files(self.path):
            reader = _open(file)
            for key in reader.keys():  # noqa: SIM118 (a safetensors file is no mapping)
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
                f"{self.path} has no {key!r}, which its family of checkpoints has; is the file complete?"
            )
        reader, name = self._tensors[key]
        return tuple(reader.get_slice(name).get_shape())

    def count(self, prefix: str) -> int:
        """Return how many numbered modules `<prefix>.0`, `<prefix>.1`, … there are.

        Raises:
            ValueError: if a number is left out.
        """
        start = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        numbers = {int(match[1]) for key in self if (match := start.match(key))}
        if numbers != set(range(len(numbers))):
            raise MmptValueError(f"{self.path} has {prefix}.N for N in {sorted(numbers)}; expected all from 0 on")
        return len(numbers)

    def setting(self, name: str, default: Any, why: str | None = None) -> Any:
        """Return a value of the configuration; a default is noted among the assumptions where `why` is given."""
        if self.config.get(name) is not None:
            return self.config[name]
        if why is not None:
            self.assumptions.append(f"{name} = {default}: {why}")
        return default

    def label_names(self) -> dict[str, Any]:
        """Return `id2label` and `label2id` of the configuration, where they are more than LABEL_0, LABEL_1, …"""
        names = self.config.get("id2label")
        if not isinstance(names, dict) or all(str(name) == f"LABEL_{number}" for number, name in names.items()):
            return {}
        found = {int(number): str(name) for number, name in names.items()}
        return {"id2label": found, "label2id": {name: number for number, name in found.items()}}

    def heads(self, name: str, width: int, head_width: int = 64) -> int:
        """Return a number of attention heads, which no shape of a weight tells."""
        heads = width // head_width
        if self.config.get(name) is None and (heads < 1 or width % head_width):
            raise MmptValueError(
                f"{self.path}: the number of attention heads ({name}) cannot be told from weights {width} wide; "
                "give the checkpoint's configuration with --config"
            )
        return int(self.setting(name, heads, f"no configuration says it; heads of {head_width} are usual"))

    def _strip_common_wrapper(self) -> None:
        """VisualBERT's files have `bert.bert.…` and `bert.cls.…`: the model lay in an attribute called bert."""
        if self._tensors and all(key.startswith("bert.") for key in self) and any("bert.bert." in key for key in self):
            self._tensors = {key.removeprefix("bert."): value for key, value in self._tensors.items()}


class _LoadedTensors:
    """A dict of tensors with the access of a safetensors file."""

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


def _read_config(folder: Path, config_path: str | Path | None) -> dict[str, Any]:
    path = folder / "config.json" if config_path is None else Path(config_path)
    if config_path is None and not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MmptValueError(f"{path} is no JSON ({error}), expected the checkpoint's configuration") from None
    if not isinstance(config, dict):
        raise MmptValueError(f"{path} holds a {type(config).__name__}, expected an object with the configuration")
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
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if any(Path(shard).name != shard for shard in names):
                raise MmptValueError(
                    f"{index} names files outside its folder; a checkpoint's shards lie beside the index"
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


def _open(file: Path) -> Any:
    if file.suffix == ".safetensors":
        try:
            return safe_open(file, framework="pt")
        except SafetensorError as error:
            raise MmptValueError(f"{file} cannot be read as safetensors ({error}); copy it again") from None
    return _LoadedTensors(_load_pickled(file))


def _load_pickled(file: Path) -> dict[str, Tensor]:
    loaded: Any
    try:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files of torch before 1.6 cannot be mapped into memory.
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        asks = f" (it asks for {blocked[1]})" if blocked else ""
        raise MmptValueError(
            f"{file} is refused: it holds more than tensors{asks}, and loading that could run code. Nothing of it was "
            "run. Save its state_dict() alone, or as safetensors, where you trust it"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise MmptValueError(
            f"{file} cannot be read as a torch checkpoint ({reason_of(error)}); copy it again"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise MmptValueError(f"{file} holds a {type(loaded).__name__}, expected a dict of tensors (a state_dict)")
    wrong = [key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        raise MmptValueError(
            f"{file} has entries that are no tensors ({', '.join(map(repr, wrong[:5]))}), expected a state_dict; "
            f"known wrappings are {', '.join(WRAPPERS)}"
        )
    return loaded


def _clean(key: str) -> str:
    for prefix in ("module.", "lxrt_encoder.model.", "module."):  # LXMERT's tasks wrap the encoder alone
        key = key.removeprefix(prefix)
    stem, _, last = key.rpartition(".")
    return f"{stem}.{_OLD_NORM_NAMES[last]}" if last in _OLD_NORM_NAMES else key
