"""Lists of images from a folder, a table of files or a dataset; each image is decoded only on access."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.annotations.pair_tables import LESS_USUAL_NAMES, OTHER_NAMES
from mmpt.processing.annotations.plain_words import plain_name
from mmpt.processing.region_extraction.image_loading import SUFFIXES, load_image
from mmpt.processing.text_files import BadEntry, file_suffix, read_bytes, read_delimited

logger = logging.getLogger(__name__)

IMAGE_NAMES = (*OTHER_NAMES["image_id"], *LESS_USUAL_NAMES["image_id"])
"""What a column of the images' files may be called, the first that is there."""

COLUMNS = ("image", "image_id", "boxes", "labels")


@dataclass(frozen=True)
class ImageEntry:
    """One image of a list.

    Args:
        where: name of the image in errors.
        image_id: id of the image, or None if it could not be read.
        load: decodes the image to RGB; raises ValueError if that fails.
        boxes: boxes to extract features from, unchecked.
        labels: class numbers of the boxes, unchecked.
        file: path of the image in a table.
    """

    where: str
    image_id: str | None
    load: Callable[[], Image.Image]
    boxes: Any = None
    labels: Any = None
    file: str = ""


@dataclass(frozen=True)
class ImageSource:
    """Images by position.

    Args:
        name: name of the list.
        ids: ids of the images in order; None for an id that could not be read.
        entry: returns the image at a position.
    """

    name: str
    ids: Sequence[str | None]
    entry: Callable[[int], ImageEntry]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> ImageEntry:
        return self.entry(position)

    @property
    def ids_sha256(self) -> str:
        """SHA-256 of the ids in order."""
        return sha256("\n".join(map(str, self.ids)).encode(errors="surrogateescape")).hexdigest()


def open_images(
    source: str | Path,
    *,
    encoding: str | None = None,
    separator: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> ImageSource:
    """List the images of a folder, of a table, or of a dataset on disk.

    * A folder: every image file below it, in the order of their paths. An image's id is its path in the folder without
      the suffix ("birds/07" for `birds/07.jpg`), or with it where two files differ in the suffix alone.
    * A `.jsonl` or `.csv` file with a column `image` (a path, seen from the file's folder; or called as one of
      `IMAGE_NAMES`) and, optionally, `image_id` (the path without its suffix, if missing), `boxes` (lists of x1
      y1 x2 y2; JSON in a CSV cell) and `labels`.
    * A dataset that `datasets` saved with `save_to_disk`, with the same columns; `image` is an image, bytes or a path.
      Without `image_id`, an image's id is the number of its row.

    Args:
        encoding: that of a table in CSV; by default UTF-8, or what a byte order mark names.
        separator: of the columns of a table in CSV; by default the header tells.
        columns: our names of the columns of a table by the file's: {"图片": "image"}.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if it is none of these, has no image, or two images have the same id.
    """
    path = Path(source)
    if path.is_dir():
        found = _dataset(path) if (path / "state.json").exists() or _is_dict(path) else _folder(path)
    elif file_suffix(path) in (".jsonl", ".csv", ".tsv"):
        found = _table(path, encoding, separator, columns or {})
    elif path.exists():
        raise MmptValueError(f"{path} is neither a folder nor a .jsonl or .csv file; expected one of them")
    else:
        raise MmptFileNotFoundError(
            f"{path} does not exist, expected a folder of images, a .jsonl or .csv file, or a dataset"
        )
    if not len(found):
        raise MmptValueError(
            f"{path} has no image, expected files such as *.jpg or *.png, or rows with a column 'image'"
        )
    _refuse_duplicates(found)
    return found


def _folder(folder: Path) -> ImageSource:
    files = sorted(_files_below(folder))
    hidden = [file for file in files if any(part.startswith(".") for part in Path(file).parts)]
    if hidden:
        logger.warning("%s: passing over %d hidden files and folders (%s)", folder, len(hidden), _first(hidden))
        files = sorted(set(files) - set(hidden))
    images = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
    if len(images) < len(files):
        others = [file for file in files if Path(file).suffix.lower() not in SUFFIXES]
        logger.warning("%s: skipping %d files that are not images (%s)", folder, len(others), _first(others))
    ids = _ids_of_paths(images, str(folder))
    return ImageSource(
        folder.resolve().name,
        ids,
        lambda position: ImageEntry(images[position], ids[position], lambda: load_image(folder / images[position])),
    )


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of the files in a folder and below it; links to folders are followed, each folder once.

    A hidden folder is yielded as one path and not searched.
    """
    seen = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden))
        yield from (Path(current, name).relative_to(folder).as_posix() for name in (*files, *hidden))


def _ids_of_paths(paths: Sequence[str], where: str) -> list[str]:
    """Return ids made from paths: without the suffix, or with it if two files share the stem."""
    stems = [Path(path).with_suffix("").as_posix() for path in paths]
    files: dict[str, set[str]] = {}
    for stem, path in zip(stems, paths, strict=True):
        files.setdefault(stem, set()).add(path)
    twice = [stem for stem, names in files.items() if len(names) > 1]
    if twice:
        logger.warning(
            "%s: %d names belong to several files (%s); the ids of these files keep their suffix, such as %r",
            *(where, len(twice), _first(twice), sorted(files[twice[0]])[0]),
        )
    return [path if len(files[stem]) > 1 else stem for stem, path in zip(stems, paths, strict=True)]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _table(path: Path, encoding: str | None, separator: str | None, columns: Mapping[str, str]) -> ImageSource:
    is_json = file_suffix(path) == ".jsonl"
    rows = list(_json_lines(path) if is_json else _csv_lines(path, encoding, separator, columns))
    names = dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row)
    ours = _our_names(names, columns) if rows else {}
    if unknown := [name for name in columns if name not in names]:
        raise MmptValueError(f"{path}: there is no column {unknown[0]!r}, got {', '.join(names)}")
    rows = [(line, _renamed(row, ours, path.parent)) for line, row in rows]
    named = [row["image"] for _, row in rows if _is_without_id(row)]
    ids = dict(zip(named, _ids_of_paths(named, path.name), strict=True))
    entries = [_row_entry(f"{path.name}, line {line}", row, path.parent, ids) for line, row in rows]
    entries = _each_once(entries, path.name)
    return ImageSource(path.name, [entry.image_id for entry in entries], entries.__getitem__)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, row); if the line cannot be read, the row is the reason as a string."""
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"the line is not valid JSON ({error})"


def _our_names(names: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return our name of each column of a table that we read."""
    ours = {name: name for name in names if name in COLUMNS} | dict(columns)
    if "image" not in ours.values():
        other = next((name for known in IMAGE_NAMES for name in names if plain_name(name) == known), None)
        ours |= {} if other is None else {other: "image"}
    return ours


def _renamed(row: Any, ours: Mapping[str, str], folder: Path) -> Any:
    """Return a row by our names; the / of a path may be a backslash, as Windows writes it."""
    if not isinstance(row, dict):
        return row
    row = {ours[name]: value for name, value in row.items() if name in ours}
    image = row.get("image")
    if isinstance(image, str) and "\\" in image and not os.path.lexists(folder / image):
        row["image"] = image.replace("\\", "/")
    return row


def _csv_lines(
    path: Path, encoding: str | None, separator: str | None, columns: Mapping[str, str]
) -> Iterator[tuple[int, Any]]:
    names, rows = read_delimited(path, encoding, {*COLUMNS, *IMAGE_NAMES, *columns}, separator)
    if "image" not in _our_names(names, columns).values():
        raise MmptValueError(
            f"{path}: the columns are {names}, expected 'image' among them; say which: columns={{name: 'image'}} "
            "(--columns NAME=image)"
        )
    for number, row in rows:
        if isinstance(row, BadEntry):
            yield number, row.reason
            continue
        try:
            given: dict[str, Any] = {name: value for name, value in row.items() if value}
            for name in {"boxes", "labels"} & set(given):
                given[name] = json.loads(given[name])
            yield number, given
        except (ValueError, RecursionError) as error:
            yield number, f"boxes or labels are not valid JSON ({error})"


def _is_without_id(row: Any) -> bool:
    return isinstance(row, dict) and row.get("image_id") is None and isinstance(row.get("image"), str) and row["image"]


def _each_once(entries: Sequence[ImageEntry], where: str) -> list[ImageEntry]:
    """Return the first entry of each image; a table of captions may list an image several times."""
    first: dict[tuple[str, str], ImageEntry] = {}
    again = []
    kept = []
    for entry in entries:
        key = (entry.file, entry.image_id or "")
        if entry.file and entry.boxes is None and entry.labels is None and first.setdefault(key, entry) is not entry:
            again.append(entry.image_id or "")
        else:
            kept.append(entry)
    if again:
        names = _first(list(dict.fromkeys(again)))
        logger.warning(
            "%s: %d rows repeat an image of an earlier row (%s); each image is used once", where, len(again), names
        )
    return kept


def _row_entry(where: str, row: Any, folder: Path, ids: Mapping[str, str]) -> ImageEntry:
    image = row.get("image") if isinstance(row, dict) else None
    image_id = row.get("image_id") if isinstance(row, dict) else None
    if not isinstance(image, str) or not image:
        reason = row if isinstance(row, str) else f"the row is {row!r:.100}, expected a path in 'image'"
        return ImageEntry(where, None if image_id is None else str(image_id), lambda: _fail(reason))
    if image_id is None:
        image_id = ids[image]
    boxes, labels = row.get("boxes"), row.get("labels")
    return ImageEntry(where, str(image_id), lambda: load_image(folder / image), boxes, labels, image)


def _dataset(path: Path) -> ImageSource:
    if _is_dict(path):
        splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
        raise MmptValueError(
            f"{path} has the splits {', '.join(splits)}, expected one of them: give {path / splits[0]}"
        )
    rows: Any = datasets.load_from_disk(str(path))
    if "image" not in rows.column_names:
        raise MmptValueError(f"{path}: the columns are {', '.join(rows.column_names)}, expected 'image' among them")
    rows = rows.select_columns([name for name in COLUMNS if name in rows.column_names])
    if isinstance(rows.features["image"], datasets.Image):
        rows = rows.cast_column("image", datasets.Image(decode=False))  # `load` decodes, so an error names its image
    named = "image_id" in rows.column_names
    ids = [str(value) for value in rows["image_id"]] if named else [str(row) for row in range(len(rows))]

    def entry(position: int) -> ImageEntry:
        row = rows[position]
        image = row["image"]
        content = (image["bytes"] or image["path"]) if isinstance(image, dict) else image
        load = (lambda: load_image(content)) if content else lambda: _fail("the row has no image")
        return ImageEntry(f"{path.name}, row {position}", ids[position], load, row.get("boxes"), row.get("labels"))

    return ImageSource(path.resolve().name, ids, entry)


def _is_dict(path: Path) -> bool:
    return (path / "dataset_dict.json").exists()


def _fail(reason: str) -> Image.Image:
    raise MmptValueError(reason)


def _refuse_duplicates(images: ImageSource) -> None:
    first: dict[str, int] = {}
    for position, image_id in enumerate(images.ids):
        if image_id is not None and first.setdefault(image_id, position) != position:
            names = images[first[image_id]].where, images[position].where
            raise MmptValueError(
                f"{images.name}: {names[0]} and {names[1]} both have the id {image_id!r}, expected each id once; "
                "rename one, or give a table with a column 'image_id'"
            )
