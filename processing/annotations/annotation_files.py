"""Annotation files opened: JSON, JSON lines and plain lines, and the forms that corpora give the ids of images."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt.configuration.errors import MmptValueError


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: if it is no JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{path} is no JSON in UTF-8 ({error}); was it downloaded and unpacked whole?") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1; blank lines are no rows.

    Raises:
        ValueError: if the file is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise MmptValueError(f"{path} is no text in UTF-8 ({error}); was it unpacked?") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield what each line of a file holds, with the line's number.

    Raises:
        ValueError: if a line is no JSON.
    """
    for number, line in read_lines(path):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MmptValueError(f"{path}, line {number}: no JSON ({error}), expected one object a line") from error


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


def image_stems(path: Path, data: Any) -> dict[Any, str]:
    """Return the file name without its ending of every image of a COCO file, by the image's number.

    Raises:
        ValueError: if an image has no number or no file name.
    """
    stems = {}
    for place, image in enumerate(entries_of(path, data, "images")):
        try:
            stems[image["id"]] = file_stem(image["file_name"])
        except (KeyError, TypeError) as error:
            raise MmptValueError(f"{path}, image {place}: got {image!r:.120}, expected 'id' and 'file_name'") from error
    return stems


def file_stem(name: str) -> str:
    """Return a file's name without folders and ending: train/7.jpg -> 7."""
    return PurePosixPath(name).stem


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
