"""Region features from box pixels, and a classifier of them, replacing the two outputs of a detector."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmpt.configuration.errors import MmptValueError

CROP = 6  # a box is resized to this many cells in each direction
FEATURE_DIM = CROP * CROP * 4 + 6 + 2
LEAST_CHROMA = 0.25  # chroma is at most 2
PENALTY = 1e-3  # L2 penalty; keeps the probabilities soft: on scenes the most probable class has 0.93


def box_features(image: Image.Image, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Compute region features of roughly unit scale.

    A feature has the colour and relative chroma of 6 x 6 cells, the mean and standard deviation of the colours, and
    the width and height of the box.

    Args:
        boxes: (regions, 4), x1 y1 x2 y2 in pixels.

    Returns:
        (regions, 152), float32.

    Raises:
        ValueError: if a box is empty or exceeds the image.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    width, height = image.size
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    outside = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2] > width) | (boxes[:, 3] > height)
    wrong = np.flatnonzero(empty | outside | ~np.isfinite(boxes).all(axis=1))
    if len(wrong):
        raise MmptValueError(
            f"box {wrong[0]} is {boxes[wrong[0]].tolist()}, expected pixels x1 < x2 <= {width}, y1 < y2 <= {height} "
            f"({len(wrong)} of {len(boxes)} boxes are wrong). Clip the boxes to the image first"
        )
    image = image if image.mode == "RGB" else image.convert("RGB")
    crops = np.empty((len(boxes), CROP, CROP, 3), dtype=np.float32)
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        crops[index] = np.asarray(image.resize((CROP, CROP), Image.Resampling.BOX, box=(left, top, right, bottom)))
    crops = crops / 127.5 - 1.0
    cells = crops.reshape(len(boxes), CROP * CROP, 3)
    chroma = cells.max(axis=2) - cells.min(axis=2)
    # Separates a shape of any colour from the grey background; LEAST_CHROMA avoids amplifying noise in grey boxes.
    silhouette = 2.0 * chroma / np.maximum(chroma.max(axis=1, keepdims=True), LEAST_CHROMA) - 1.0
    sides = ((boxes[:, 2:] - boxes[:, :2]) / 8 - 3).astype(np.float32)  # lost by resizing to a fixed size
    parts = (crops.reshape(len(boxes), CROP * CROP * 3), silhouette, cells.mean(axis=1), 2.0 * cells.std(axis=1), sides)
    return np.concatenate(parts, axis=1)


class RegionClassifier:
    """Multinomial logistic regression that gives class probabilities of regions, as a detector does.

    Args:
        weight: (feature, classes).
        bias: (classes,).
    """

    def __init__(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def fit(cls, features: NDArray[np.floating], labels: NDArray[np.integer], num_classes: int) -> "RegionClassifier":
        """Fit the classifier; deterministic for a given input.

        Args:
            features: (regions, feature).
            labels: (regions,), 0..num_classes - 1.

        Raises:
            ValueError: if a class has no region.
        """
        missing = np.setdiff1d(np.arange(num_classes), labels)
        if len(missing):
            raise MmptValueError(
                f"classes {missing[:5].tolist()} have no region ({len(missing)} of {num_classes}), expected at least "
                f"one each. Fit on more than these {len(labels)} regions"
            )
        inputs = torch.from_numpy(np.asarray(features, dtype=np.float64))
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
        weight = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(inputs @ weight + bias, targets) + PENALTY * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return cls(weight.detach().numpy(), bias.detach().numpy())

    def probs(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return (regions, classes) probabilities; each row sums to 1."""
        logits = np.asarray(features, dtype=np.float64) @ self.weight + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
