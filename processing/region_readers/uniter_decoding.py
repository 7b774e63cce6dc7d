"""Decode UNITER's dictionaries of arrays: normalised boxes, confidences and class probabilities."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import float_array
from mmpt.processing.regions import Regions, check_boxes

UNITER_FIELDS = {"features": 2, "norm_bb": 2, "conf": 1, "soft_labels": 2}
"""Name of an array -> number of axes. UNITER's files also contain arrays without an axis, which are skipped."""


def regions_of_uniter(arrays: Mapping[str, NDArray[Any]], image_id: str, num_boxes: int | None = None) -> Regions:
    """Return the regions of one image.

    Args:
        num_boxes: number of regions to keep, from UNITER's nbb_*.json; None keeps all.

    Raises:
        ValueError: if an array is missing, or the shapes of two arrays disagree.
    """
    fields = {name: array for name, array in arrays.items() if name in UNITER_FIELDS and array.ndim}
    for name in ("features", "norm_bb"):
        if name not in fields:
            raise MmptValueError(f"there is no array {name}, only {', '.join(sorted(arrays)[:20]) or 'nothing'}")
    fields = {name: float_array(array, name) for name, array in fields.items()}
    for name, array in fields.items():
        if array.ndim != UNITER_FIELDS[name] or len(array) != len(fields["features"]):
            raise MmptValueError(
                f"{name} has shape {array.shape}, expected {UNITER_FIELDS[name]} axes, the first as long as "
                f"that of features, which is {len(fields['features'])}"
            )
    if num_boxes is not None and num_boxes > len(fields["features"]):
        raise MmptValueError(f"there are {len(fields['features'])} regions, expected {num_boxes} as the nbb file says")
    fields = {name: array[:num_boxes] for name, array in fields.items()}
    boxes = fields["norm_bb"]
    if boxes.shape[1] not in (6, 7):
        raise MmptValueError(f"norm_bb has shape {boxes.shape}, expected (regions, 6): x1 y1 x2 y2 width height")
    return Regions(
        features=fields["features"],
        boxes=check_boxes(boxes[:, :4].astype(np.float32), "norm_bb"),
        class_probs=fields.get("soft_labels"),
        scores=fields.get("conf"),
        image_id=image_id,
    )
