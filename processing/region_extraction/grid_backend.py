"""Regions of a grid: the patches of an image encoder, with their cells as boxes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmpt.processing.region_extraction.detector_backend import Arrays
from mmpt.processing.region_extraction.feature_maps import feature_map


class GridBackend:
    """Return every cell of an encoder's feature map in reading order; there are no classes.

    Args:
        max_regions: a feature map with more cells is average-pooled to at most k x k, k being the integer square root.
    """

    name = "grid"
    pixel_boxes = False
    feature_dim = None
    class_names = None

    def __init__(self, encoder: Any, *, max_regions: int | None) -> None:
        self.model = encoder
        self._max_regions = max_regions

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that affect the output, as JSON."""
        return {"max_regions": self._max_regions}

    def forward(self, inputs: dict[str, Tensor], boxes: None) -> Tensor:
        """Return the map, (batch, feature, rows, columns)."""
        return feature_map(self.model, inputs["pixel_values"])

    def regions(self, output: Tensor, boxes: None) -> list[Arrays]:
        """Return features and boxes of each image."""
        rows, columns = output.shape[-2:]
        kept = (rows, columns)
        if self._max_regions is not None and rows * columns > self._max_regions:
            side = math.isqrt(self._max_regions)
            kept = (min(rows, side), min(columns, side))
        cells = F.adaptive_avg_pool2d(output.float(), kept).flatten(2).transpose(1, 2)  # (batch, cells, feature)
        boxes_of_cells = cell_boxes((rows, columns), kept)
        return [{"features": image, "boxes": boxes_of_cells} for image in cells.cpu().numpy()]


def cell_boxes(size: tuple[int, int], kept: tuple[int, int]) -> NDArray[np.float32]:
    """Return (cells, 4) normalised boxes of the cells of adaptive pooling from `size` to `kept` rows and columns."""
    (top, bottom), (left, right) = (_spans(*pair) for pair in zip(size, kept, strict=True))
    y1, x1 = np.meshgrid(top, left, indexing="ij")
    y2, x2 = np.meshgrid(bottom, right, indexing="ij")
    return np.stack([x1, y1, x2, y2], axis=-1).reshape(-1, 4).astype(np.float32)


def _spans(size: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return normalised starts and ends of the cells; adjacent cells overlap if `count` does not divide `size`."""
    steps = np.arange(count)
    return steps * size // count / size, -(-(steps + 1) * size // count) / size
