"""Reader of Oscar's and VinVL's features.tsv, with the predictions.tsv beside it if there is one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import (
    MAX_REGIONS,
    MAX_SIDE,
    base64_array,
    shown,
    text_of,
    whole_number,
)
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.tsv_reader import MAX_LINE, tsv_lines
from mmpt.processing.region_source import Found, Rejected
from mmpt.processing.regions import Regions, check_boxes

WIDTH = 2048 + 6  # the feature, then x1 y1 x2 y2 width height as shares of the image
PREDICTIONS = "predictions.tsv"

_Line = tuple[int, bytes | None]


def open_oscar_tsv(path: Path, class_names: Sequence[str] | None = None) -> FileSource:
    """Open a features.tsv; its lines are read in order, so that features.lineidx is not needed.

    predictions.tsv must have the same images in the same order. It gives the size of the image and the scores, and
    labels if `class_names` says what number each class has.
    """
    beside = path.with_name(PREDICTIONS)
    predictions = beside if beside.is_file() and beside != path else None
    numbers = None if class_names is None else {name: number for number, name in enumerate(class_names)}

    def read(start: int) -> Iterator[Found | Rejected]:
        others: Iterator[_Line | None] = repeat(None) if predictions is None else _endless(predictions, start)
        for (number, line), other in zip(tsv_lines(path, start), others, strict=False):
            yield _position(f"{path.name}, line {number}", line, other, numbers)

    origin = file_origin(path, "oscar_tsv")
    if predictions is not None:
        origin["predictions"] = predictions.stat().st_size
    return FileSource({"format": "oscar_tsv"}, origin, read)


def _endless(path: Path, start: int) -> Iterator[_Line]:
    """Yield the lines of a file, then empty ones."""
    number = start
    for number, line in tsv_lines(path, start):
        yield number, line
    while True:
        number += 1
        yield number, b""


def _position(
    where: str, line: bytes | None, other: _Line | None, numbers: Mapping[str, int] | None
) -> Found | Rejected:
    if line is None:
        return Rejected(where, f"the line has more than {MAX_LINE} bytes; is this a feature file?")
    fields = line.split(b"\t")
    try:
        image_id = text_of(fields[0], "the image id")
    except ValueError as error:
        return Rejected(where, str(error))
    return found_or_rejected(where, image_id, lambda: _regions(fields, image_id, other, numbers))


def _regions(fields: list[bytes], image_id: str, other: _Line | None, numbers: Mapping[str, int] | None) -> Regions:
    if len(fields) < 2:
        raise MmptValueError("the line has 1 column, expected an image id, then JSON or num_boxes and base64 features")
    if len(fields) == 2:
        item = _json(fields[1], dict, "the second column")
        count, text = item.get("num_boxes"), item.get("features")
        if not isinstance(text, str):
            raise MmptValueError(f"features are {type(text).__name__} in the JSON, expected base64 text")
    else:
        count, text = fields[1], fields[-1]
    count = whole_number(count, "num_boxes", MAX_REGIONS)
    rows = base64_array(text, "features", count, WIDTH, ("<f4", "<f2"))
    rest = {} if other is None else _predicted(other, image_id, count, numbers)
    boxes = check_boxes(rows[:, 2048:2052].astype(np.float32))
    return Regions(features=rows[:, :2048], boxes=boxes, image_id=image_id, **rest)


def _predicted(other: _Line, image_id: str, count: int, numbers: Mapping[str, int] | None) -> dict[str, Any]:
    """Return what a line of predictions.tsv adds."""
    number, line = other
    name, _, text = (line or b"").partition(b"\t")
    if name != image_id.encode():
        raise MmptValueError(
            f"{PREDICTIONS}, line {number} is of {name[:60]!r}, expected {image_id!r:.60}: both files need the same "
            f"order. Move {PREDICTIONS} away to read the features alone"
        )
    where = f"{PREDICTIONS}, line {number}"
    item = _json(text, dict | list, where)
    objects = item.get("objects") if isinstance(item, dict) else item
    if not isinstance(objects, list) or len(objects) != count or not all(isinstance(o, dict) for o in objects):
        got = f"{len(objects)} objects" if isinstance(objects, list) else "no list of objects"
        raise MmptValueError(f"{where} has {got}, expected {count} as num_boxes says")
    rest: dict[str, Any] = {}
    if isinstance(item, dict) and "image_w" in item:
        rest["width"] = whole_number(item["image_w"], f"image_w of {where}", MAX_SIDE)
        rest["height"] = whole_number(item.get("image_h"), f"image_h of {where}", MAX_SIDE)
    if all("conf" in found for found in objects):
        rest["scores"] = np.asarray([_score(found["conf"], where) for found in objects], np.float32)
    if numbers is not None:
        names = [found.get("class") for found in objects]
        unknown = [name for name in names if not isinstance(name, str) or name not in numbers]
        if unknown:
            raise MmptValueError(f"{where} has class {shown(unknown[0])}, which is not in class_names")
        rest["labels"] = np.asarray([numbers[name] for name in names], np.int64)
    return rest


def _json(text: bytes, kind: Any, name: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{name} is no JSON: {error}") from None
    if not isinstance(value, kind):
        raise MmptValueError(f"{name} holds {type(value).__name__}, expected a JSON object")
    return value


def _score(value: object, where: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise MmptValueError(f"{where} has conf {shown(value)}, expected a number from 0 to 1")
    return float(value)
