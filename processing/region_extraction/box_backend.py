"""Regions of given boxes: what lies under each on an image encoder's feature map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmpt.processing.region_extraction.detector_backend import Arrays
from mmpt.processing.region_extraction.feature_maps import feature_map

SAMPLES = 7  # a box is sampled at 7 x 7 points, as is usual for RoIAlign


class BoxBackend:
    """The mean feature under every given box; no classes."""

    name = "boxes"
    class_names = None
    pixel_boxes = False
    feature_dim = None

    def __init__(self, encoder: Any) -> None:
        self.model = encoder

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which regions come out, as JSON."""
        return {"samples": SAMPLES}

    def forward(self, inputs: dict[str, Tensor], boxes: Any) -> Tensor:
        """Return the map, (batch, feature, rows, columns)."""
        return feature_map(self.model, inputs["pixel_values"])

    def regions(self, output: Tensor, boxes: Sequence[NDArray[np.float32]]) -> list[Arrays]:
        """Return features and boxes of each image; boxes (regions, 4) are shares of the image."""
        return [
            {
                "features": pool_boxes(image.float(), torch.from_numpy(given).to(image.device)).cpu().numpy(),
                "boxes": given,
            }
            for image, given in zip(output, boxes, strict=True)
        ]


def pool_boxes(image: Tensor, boxes: Tensor) -> Tensor:
    """Average an image's map (feature, rows, columns) under each of (regions, 4) boxes: (regions, feature).

    The map is read between its cells (bilinearly) at the centres of `SAMPLES` x `SAMPLES` equal parts of the box.
    """
    steps = (torch.arange(SAMPLES, device=boxes.device) + 0.5) / SAMPLES
    corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    parts = torch.cartesian_prod(steps, steps)  # (points, 2)
    points = corner[:, None] + parts * size[:, None]  # (regions, points, 2), shares of the image
    read = F.grid_sample(image[None], points[None] * 2 - 1, padding_mode="border", align_corners=False)
    return read[0].mean(-1).T  # (1, feature, regions, points) -> (regions, feature)
