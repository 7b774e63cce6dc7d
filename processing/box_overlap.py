"""How much boxes overlap."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def box_iou(boxes: Array, others: Array) -> Array:
    """Return the intersection over union of each box with each other one, 0 where both are empty.

    boxes: (boxes, 4), others: (others, 4), x1 y1 x2 y2 in one unit; returns (boxes, others).
    """
    boxes, others = np.asarray(boxes, dtype=np.float64), np.asarray(others, dtype=np.float64).reshape(-1, 4)
    corner = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    common = corner.clip(min=0).prod(-1)
    areas = [(each[:, 2:] - each[:, :2]).prod(-1) for each in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
