"""Decode the item of one image, with the field names of LXMERT, ViLBERT, VOLTA or openvqa."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import (
    MAX_REGIONS,
    MAX_SIDE,
    base64_array,
    base64_features,
    float_array,
    whole_number,
)
from mmpt.processing.regions import Regions

_FLOATS = ("<f4", "<f8")
_IDS = ("<i8", "<i4")
# ViLBERT's `objects` is left out: its scripts remove the background by column or, by mistake, by row.
FIELDS: dict[str, Sequence[str]] = {
    "width": ("img_w", "image_w", "image_width"),
    "height": ("img_h", "image_h", "image_height"),
    "num_boxes": ("num_boxes", "num_bbox"),
    "boxes": ("boxes", "bbox"),
    "features": ("features", "x"),
    "class_probs": ("cls_prob",),
    "labels": ("objects_id", "obj_id"),
    "scores": ("objects_conf", "obj_conf"),
    "attribute_labels": ("attrs_id", "attr_id"),
    "attribute_scores": ("attrs_conf", "attr_conf"),
}
"""Field -> its names in the predecessors' files."""

FIELD_NAMES = tuple(name for names in FIELDS.values() for name in names)
_TYPES: dict[str, Sequence[str]] = {
    "labels": _IDS,
    "scores": _FLOATS,
    "attribute_labels": _IDS,
    "attribute_scores": _FLOATS,
}


def regions_of_item(item: Mapping[Any, Any], image_id: str, dtype: str | None = None) -> Regions:
    """Return the regions of an item with boxes in pixels; fields are arrays or base64.

    The predecessors' class ids are 0..1599 without the background, but `class_probs` has the background at 0. If the
    item has class probabilities, labels become id + 1 and so index the columns of `class_probs`.

    Args:
        dtype: dtype of base64 features, as in `base64_features`.

    Raises:
        ValueError: if a field is missing or damaged, or two fields disagree.
    """
    given = {field: item[name] for field, names in FIELDS.items() for name in names if item.get(name) is not None}
    for field in ("width", "height", "boxes", "features"):
        if field not in given:
            names = sorted(str(name) for name in item)[:20]
            raise MmptValueError(f"there is no {' or '.join(FIELDS[field])}, only {', '.join(names) or 'nothing'}")
    width = whole_number(given["width"], "image width", MAX_SIDE)
    height = whole_number(given["height"], "image height", MAX_SIDE)
    count = _count(given)
    boxes = _array(given["boxes"], "boxes", count, 4, _FLOATS)
    features = given["features"]
    features = (
        base64_features(features, count, boxes, dtype)
        if isinstance(features, bytes | str)
        else _array(features, "features", count, None, _FLOATS)
    )
    rest = {name: _array(given[name], name, count, 0, types) for name, types in _TYPES.items() if name in given}
    if "class_probs" in given:
        rest["class_probs"] = float_array(
            _array(given["class_probs"], "class_probs", count, None, ("<f4",)), "class_probs"
        )
        if "labels" in rest:
            rest["labels"] = rest["labels"] + 1
    return Regions.from_pixels(
        float_array(features, "features"), boxes, width=width, height=height, image_id=image_id, **rest
    )


def _count(given: Mapping[str, Any]) -> int:
    """Return the number of regions; files of arrays may lack `num_boxes`."""
    if "num_boxes" in given:
        return whole_number(given["num_boxes"], "num_boxes", MAX_REGIONS)
    if not isinstance(given["features"], np.ndarray) or not given["features"].ndim:
        raise MmptValueError("there is no num_boxes, expected it for base64 features")
    return len(given["features"])


def _array(value: object, name: str, count: int, columns: int | None, types: Sequence[str]) -> NDArray[Any]:
    if isinstance(value, bytes | str):
        return base64_array(value, name, count, columns, types)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise MmptValueError(f"{name} is {got}, expected an array of numbers, or base64")
    if value.shape[:1] != (count,):
        raise MmptValueError(f"{name} has shape {value.shape}, expected {count} rows as num_boxes or the features say")
    return value
