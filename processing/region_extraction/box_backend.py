"""Regions of given boxes, pooled from an image encoder's feature map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmpt.processing.region_extraction.detector_backend import Arrays
from mmpt.processing.region_extraction.feature_maps import feature_map

SAMPLES = 7  # each box is sampled at 7 x 7 points, the usual number for RoIAlign


class BoxBackend:
    """Average the feature map inside each given box; there are no classes."""

    name = "boxes"
    class_names = None
    pixel_boxes = False
    feature_dim = None

    def __init__(self, encoder: Any) -> None:
        self.model = encoder

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that affect the output, as JSON."""
        return {"samples": SAMPLES}

    def forward(self, inputs: dict[str, Tensor], boxes: Any) -> Tensor:
        """Return the map, (batch, feature, rows, columns)."""
        return feature_map(self.model, inputs["pixel_values"])

    def regions(self, output: Tensor, boxes: Sequence[NDArray[np.float32]]) -> list[Arrays]:
        """Return features and boxes of each image; boxes are (regions, 4), normalised to 0..1."""
        return [
            {
                "features": pool_boxes(image.float(), torch.from_numpy(given).to(image.device)).cpu().numpy(),
                "boxes": given,
            }
            for image, given in zip(output, boxes, strict=True)
        ]


def pool_boxes(image: Tensor, boxes: Tensor) -> Tensor:
    """Average a feature map inside boxes, sampling it bilinearly as RoIAlign does (He et al. 2017, Mask R-CNN).

    The samples are at the centres of `SAMPLES` x `SAMPLES` equal parts of each box.

    Args:
        image: (feature, rows, columns), the feature map of one image.
        boxes: (regions, 4), normalised x1 y1 x2 y2.

    Returns:
        (regions, feature).
    """
    steps = (torch.arange(SAMPLES, device=boxes.device) + 0.5) / SAMPLES
    corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    parts = torch.cartesian_prod(steps, steps)  # (points, 2)
    points = corner[:, None] + parts * size[:, None]  # (regions, points, 2), normalised
    read = F.grid_sample(image[None], points[None] * 2 - 1, padding_mode="border", align_corners=False)
    return read[0].mean(-1).T  # (1, feature, regions, points) -> (regions, feature)
