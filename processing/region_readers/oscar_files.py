"""Find the files that belong to Oscar's and VinVL's features: boxes and classes, sizes, class names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.region_readers.tsv_reader import MAX_LINE

PREDICTIONS = "predictions.tsv"
_START = 2**16  # bytes at the start of a line that are searched for features


@dataclass(frozen=True)
class OscarFiles:
    """The files of one dataset of scene_graph_benchmark.

    Args:
        features: file with lines of an id, the number of regions and base64 features.
        objects: file with lines of an id and a list of objects, in the same order.
        sizes: file with lines of an id and a size, in any order.
        class_names: file with one class per line.
        notes: which files were found, and which were skipped.
    """

    features: Path
    objects: Path | None = None
    sizes: Path | None = None
    class_names: Path | None = None
    notes: tuple[str, ...] = ()


def find_oscar_files(path: Path) -> OscarFiles:
    """Find the files that belong to a feature file by its YAML file or by the names of the files next to it.

    `X.label.tsv`, `X.hw.tsv` and `X.labelmap.tsv` belong to `X.feature.tsv`. `predictions.tsv`, `hw.tsv` and
    `labelmap.tsv` belong to `features.tsv`. For a file of another name, `predictions.tsv` belongs to it if both start
    with the same image.

    Raises:
        ValueError: if the YAML file lists no features.
        FileNotFoundError: if a listed file does not exist.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        return _listed(path)
    name = next(
        (path.name.removesuffix(end) for end in (".feature.tsv", ".features.tsv") if path.name.endswith(end)), ""
    )
    prefix = f"{name}." if name else ""
    beside = {kind: path.with_name(f"{prefix}{kind}.tsv") for kind in ("label", "hw", "labelmap")}
    found = {kind: file if file.is_file() else None for kind, file in beside.items()}
    objects, notes = found["label"] if name else None, []
    predictions = path.with_name(PREDICTIONS)
    if objects is None and predictions.is_file() and predictions != path:
        same = _first_id(predictions) == _first_id(path)
        if same or (path.name == "features.tsv" and not has_features(_first_line(predictions))):
            objects = predictions
        else:
            notes.append(f"{PREDICTIONS} is skipped: its first image is {_first_id(predictions)!r:.60}")
    for kind, file in (("boxes and classes", objects), ("sizes", found["hw"]), ("class names", found["labelmap"])):
        if file is not None:
            notes.append(f"{kind} from {file.name}")
    return OscarFiles(path, objects, found["hw"], found["labelmap"], tuple(notes))


def has_features(line: bytes) -> bool:
    """Return whether the objects of a line of predictions.tsv, which may be cut off, have features."""
    return b'"feature"' in line[:_START]


def _listed(path: Path) -> OscarFiles:
    try:
        listed: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MmptValueError(f"{path.name} is not valid YAML: {str(error)[:200]}") from None
    given = listed if isinstance(listed, dict) else {}
    if not isinstance(given.get("feature"), str):
        keys = ", ".join(map(str, given)) or "nothing"
        raise MmptValueError(f"{path.name} lists {keys:.200}, expected 'feature' with the name of a feature.tsv")
    files = {}
    for key in ("feature", "label", "hw", "labelmap"):
        if isinstance(given.get(key), str):
            files[key] = path.parent / given[key]
            if not files[key].is_file():
                raise MmptFileNotFoundError(f"{path.name} lists {key}: {given[key]!r:.100}, which is not next to it")
    others = [str(key) for key in given if key not in files]
    notes = [f"{key}: {file.name}" for key, file in files.items()]
    if others:
        notes.append(f"{', '.join(others)} of {path.name} is skipped")
    return OscarFiles(files["feature"], files.get("label"), files.get("hw"), files.get("labelmap"), tuple(notes))


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(min(MAX_LINE, _START))


def _first_id(path: Path) -> str:
    return _first_line(path).partition(b"\t")[0].decode("utf-8", "replace")
