"""Annotation files opened: JSON, JSON lines and plain lines, and the forms that corpora give the ids of images."""

import json
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.bad_rows import ROW_ERRORS, BadRows
from mmpt.processing.region_extraction.image_loading import SUFFIXES
from mmpt.processing.text_files import BadEntry, read_lines, read_text

logger = logging.getLogger(__name__)


def read_json(path: Path, encoding: str | None = None) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: if it is no JSON.
    """
    text = read_text(path, encoding)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{path} is no JSON in UTF-8 ({error}); was it downloaded and unpacked whole?") from error


def read_json_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, Any]]:
    """Yield what each line of a file holds, with the line's number; a `BadEntry` where it is no JSON."""
    for number, line in read_lines(path, encoding):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadEntry(f"no JSON ({error}), expected one object a line", line)


def read_objects(path: Path) -> list[Any]:
    """Return the objects of a file that is a list of them.

    Raises:
        ValueError: if it is none.
    """
    data = read_json(path)
    if not isinstance(data, list):
        raise MmptValueError(f"{path} holds a {type(data).__name__}, expected a list of objects")
    return data


class Nested(NamedTuple):
    """An entry of a list that lies in an entry of another."""

    item: Any
    parent: Any

    def __repr__(self) -> str:
        return repr(self.item)


def nested_entries(
    source: Path, entries: Iterable[Any], key: str, unit: str
) -> Iterator[tuple[str, Nested | BadEntry]]:
    """Yield the entries of the lists that lie under a key of each entry, with their places.

    Entries whose list is empty are counted in a warning.

    Args:
        source: the file, for the warning.
        unit: what the file calls the inner ones, for errors.
    """
    empty = 0
    for place, entry in enumerate(entries):
        inner = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(inner, list):
            yield f"{place}", BadEntry(f"expected a list under {key!r}", entry)
            continue
        empty += not inner
        for number, item in enumerate(inner):
            yield f"{place}, {unit} {number}", Nested(item, entry)
    if empty:
        logger.warning("%s: %d entries have no %s in %r and give no row", source, empty, unit, key)


def has_key(entries: Iterable[Any], key: str) -> bool:
    """Return whether any of the entries has a key; a test split has no labels."""
    return any(isinstance(entry, dict) and key in entry for entry in entries)


def entries_of(path: Path, data: Any, key: str) -> list[Any]:
    """Return the list under a key of a file's top level.

    Raises:
        ValueError: if there is none.
    """
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list):
        got = f"the keys {', '.join(map(repr, data)):.200}" if isinstance(data, dict) else f"a {type(data).__name__}"
        raise MmptValueError(f"{path} has no list {key!r} at its top, got {got}; is it the file of another corpus?")
    return entries


def index_entries(
    path: Path,
    unit: str,
    entries: Iterable[Any],
    to_item: Callable[[Any], tuple[Hashable, Any]],
    expected: str,
    bad: BadRows,
) -> dict[Any, Any]:
    """Return the entries of a list by their ids, without those that are bad or repeat an id.

    Args:
        unit: what the file calls an entry, for errors.
        to_item: gives an entry's id and what is wanted of it; may raise any of `ROW_ERRORS`.
        expected: what an entry should hold, in words.
        bad: takes the bad ones.

    Raises:
        ValueError: if an entry is bad, and bad rows are an error.
    """
    items: dict[Any, Any] = {}
    for place, entry in enumerate(entries):
        try:
            key, value = to_item(entry)
            if items.setdefault(key, value) is not value:
                bad.add(f"{path}, {unit} {place}", f"{key!r:.80} is there twice, expected it once", entry)
        except ROW_ERRORS as error:
            if bad.strict:
                message = f"{path}, {unit} {place}: got {entry!r:.120}, expected {expected}"
                raise MmptValueError(message) from error
            bad.add(f"{path}, {unit} {place}", f"expected {expected}", entry)
    return items


def image_stems(path: Path, data: Any, bad: BadRows) -> dict[Any, str]:
    """Return the file name without its ending of every image of a COCO file, by the image's number."""
    return index_entries(
        path,
        "image",
        entries_of(path, data, "images"),
        lambda image: (image["id"], file_stem(image["file_name"])),
        "'id' and 'file_name'",
        bad,
    )


def file_stem(name: str) -> str:
    """Return a file's name without folders and ending: train/7.jpg -> 7."""
    return PurePosixPath(name).stem


def path_image_id(name: str) -> str:
    """Return the id that `mmpt extract` gives an image by its path, which has no suffix: train/7.jpg -> train/7."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def format_image_id(value: int | str, image_id_format: str) -> str:
    """Return an image's id in the form that a store uses.

    Args:
        value: what the corpus calls the image by, a number if it can be one.
        image_id_format: as in `str.format`: "COCO_train2014_{:012d}".

    Raises:
        ValueError: if the form does not take the value.
    """
    try:
        # A form without a place for the number would give all images one id.
        fits = "{" in image_id_format and image_id_format.format(value)
    except (ValueError, LookupError, AttributeError, TypeError):
        fits = False
    if not fits:
        raise MmptValueError(
            f"image_id_format is {image_id_format!r}, which does not take {value!r}; expected one place for it, as in "
            f"{'COCO_train2014_{:012d}' if isinstance(value, int) else 'nlvr2_{}'!r}"
        )
    return fits
