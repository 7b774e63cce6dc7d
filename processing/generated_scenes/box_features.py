"""Region features from the pixels of boxes, and a classifier of them: a detector's two outputs without a detector."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mmpt.configuration.errors import MmptValueError

CROP = 6  # a box becomes this many cells in each direction
FEATURE_DIM = CROP * CROP * 4 + 6 + 2
LEAST_CHROMA = 0.25  # of at most 2
PENALTY = 1e-3  # on the squared weights; keeps the distributions soft: on scenes the likeliest class has 0.93


def box_features(image: Image.Image, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Compute features of roughly unit scale.

    Colour and relative colourfulness of 6 x 6 cells, mean and spread of the colours, width and height of the box.

    Args:
        boxes: (regions, 4), pixels x1 y1 x2 y2.

    Returns:
        (regions, 152), float32.

    Raises:
        ValueError: if a box is empty or leaves the image.
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
    # Tells a shape from a grey ground whatever its colour; where all is grey there is none to tell.
    silhouette = 2.0 * chroma / np.maximum(chroma.max(axis=1, keepdims=True), LEAST_CHROMA) - 1.0
    sides = ((boxes[:, 2:] - boxes[:, :2]) / 8 - 3).astype(np.float32)  # what a crop of fixed size does not tell
    parts = (crops.reshape(len(boxes), CROP * CROP * 3), silhouette, cells.mean(axis=1), 2.0 * cells.std(axis=1), sides)
    return np.concatenate(parts, axis=1)


class RegionClassifier:
    """Multinomial logistic regression: class distributions of regions, as a detector gives them.

    Args:
        weight: (feature, classes).
        bias: (classes,).
    """

    def __init__(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def fit(cls, features: NDArray[np.floating], labels: NDArray[np.integer], num_classes: int) -> "RegionClassifier":
        """Fit the classes of regions; the same input gives the same classifier.

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
        """Return (regions, classes) distributions; each row sums to 1."""
        logits = np.asarray(features, dtype=np.float64) @ self.weight + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
