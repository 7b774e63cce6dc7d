"""Intersection over union of boxes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def box_iou(boxes: Array, others: Array) -> Array:
    """Return the intersection over union of boxes with others, 0 where both are empty.

    Args:
        boxes: (..., 4), x1 y1 x2 y2; leading axes are broadcast against those of `others`.
        others: (..., 4), in the same unit.

    Returns:
        (...), in the precision of the boxes.
    """
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = sides.clip(min=0).prod(-1)
    area, other = ((each[..., 2:] - each[..., :2]).clip(min=0).prod(-1) for each in (boxes, others))
    union = area + other - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pairwise_iou(boxes: Array, others: Array) -> Array:
    """Return the intersection over union of each box with each other one.

    boxes: (..., n, 4); others: (..., m, 4); returns (..., n, m).
    """
    return box_iou(boxes[..., :, None, :], others[..., None, :, :])
