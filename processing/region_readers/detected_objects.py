"""Decode scene_graph_benchmark's lists of objects with class, box in pixels and confidence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import MAX_SIDE, shown, whole_number

Item = Mapping[str, Any]


def read_json(text: bytes | str, kind: Any, name: str) -> Any:
    """Return the parsed JSON of a field, which must be of type `kind`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(value, kind):
        raise MmptValueError(f"{name} contains {type(value).__name__}, expected a JSON object")
    return value


def read_objects(text: bytes, where: str, count: int | None = None) -> tuple[Item, Sequence[Item]]:
    """Return (fields of the image, its objects) of a line of `predictions.tsv` or `label.tsv`.

    Args:
        where: name of the line in errors.
        count: required number of objects; None allows any.
    """
    item = read_json(text, dict | list, where)
    objects: Any = item.get("objects") if isinstance(item, dict) else item
    fits = isinstance(objects, list) and all(isinstance(found, dict) for found in objects)
    if not fits or (count is not None and len(objects) != count):
        got = f"{len(objects)} objects" if isinstance(objects, list) else "no list of objects"
        wanted = "a list of objects" if count is None else f"{count} as num_boxes says"
        raise MmptValueError(f"{where} has {got}, expected {wanted}")
    return item if isinstance(item, dict) else {}, objects


def size_in_item(item: Item, where: str) -> dict[str, int]:
    """Return the width and height of the image in pixels, or an empty dict if the item lacks them."""
    if "image_w" not in item:
        return {}
    return {
        "width": whole_number(item["image_w"], f"image_w of {where}", MAX_SIDE),
        "height": whole_number(item.get("image_h"), f"image_h of {where}", MAX_SIDE),
    }


def scores_and_labels(objects: Sequence[Item], where: str, numbers: Mapping[str, int] | None) -> dict[str, Any]:
    """Return the scores of the objects, if all have one, and their labels, if `numbers` maps class names to ids."""
    rest: dict[str, Any] = {}
    if objects and all("conf" in found for found in objects):
        rest["scores"] = np.asarray([_score(found["conf"], where) for found in objects], np.float32)
    if numbers is not None:
        names: list[Any] = [found.get("class") for found in objects]
        unknown = [name for name in names if not isinstance(name, str) or name not in numbers]
        if unknown:
            raise MmptValueError(f"{where} has class {shown(unknown[0])}, which is not in class_names")
        rest["labels"] = np.asarray([numbers[name] for name in names], np.int64)
    return rest


def boxes_in_pixels(objects: Sequence[Item], where: str) -> NDArray[Any]:
    """Return the boxes of the objects, (regions, 4) as x1 y1 x2 y2 in pixels."""
    boxes = []
    for found in objects:
        rect = found.get("rect")
        if not isinstance(rect, list) or len(rect) != 4 or not all(isinstance(side, int | float) for side in rect):
            raise MmptValueError(f"{where} has rect {shown(rect)}, expected four numbers x1 y1 x2 y2 in pixels")
        boxes.append(rect)
    try:
        return np.asarray(boxes, np.float32).reshape(-1, 4)
    except OverflowError:
        raise MmptValueError(f"{where} has a box with a number that is too large") from None


def _score(value: object, where: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise MmptValueError(f"{where} has conf {shown(value)}, expected a number from 0 to 1")
    return float(value)
