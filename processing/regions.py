"""Regions: the features, boxes and classes of one image."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptTypeError, MmptValueError

BOX_TOLERANCE = 0.01  # a detector's boxes may leave the image by this share of its side; they are clamped
PROBABILITY_TOLERANCE = 2e-3  # how far class probabilities may be from a sum of 1: 1,600 float16 roundings
PIXEL_EVIDENCE = 2.0  # a normalised coordinate above this cannot be rounding: the box is in pixels


@dataclass(eq=False)
class Regions:
    """The regions of one image, as a detector, a grid or a person found them.

    Args:
        features: (regions, feature), float16 or float32.
        boxes: (regions, 4), float32; x1 y1 x2 y2 as shares (0..1) of the true image's width and height.
        class_probs: (regions, classes); the detector's distribution, each row sums to 1.
        labels: (regions,), the detector's most likely class.
        scores: (regions,), the detector's confidence in `labels`, 0..1.
        attribute_labels: (regions,), the most likely attribute (LXMERT).
        attribute_scores: (regions,), the confidence in `attribute_labels`.
        type_ids: (regions,), the group, panel or image number that a region belongs to.
        width: width of the image in pixels.
        height: height of the image in pixels.
        image_id: the name of the image; data, never a path.

    Raises:
        ValueError: if the arrays disagree on the number of regions or have a wrong shape.
    """

    features: NDArray[Any]
    boxes: NDArray[Any]
    class_probs: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    scores: NDArray[Any] | None = None
    attribute_labels: NDArray[Any] | None = None
    attribute_scores: NDArray[Any] | None = None
    type_ids: NDArray[Any] | None = None
    width: int | None = None
    height: int | None = None
    image_id: str | None = None

    def __post_init__(self) -> None:
        self.features = as_numbers(self.features, f"{self._name()}: features")
        self.boxes = as_numbers(self.boxes, f"{self._name()}: boxes").astype(np.float32, copy=False)
        if self.features.ndim != 2:
            raise MmptValueError(
                f"{self._name()}: features have shape {self.features.shape}, expected (regions, feature)"
            )
        count = len(self.features)
        if count == 0 and self.boxes.size == 0:
            self.boxes = self.boxes.reshape(0, 4)
        self._check("boxes", self.boxes, (count, 4))
        for name in ("class_probs", "labels", "scores", "attribute_labels", "attribute_scores", "type_ids"):
            if (array := getattr(self, name)) is not None:
                array = as_numbers(array, f"{self._name()}: {name}")
                setattr(self, name, array)
                self._check(name, array, (count, None) if name == "class_probs" else (count,))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def feature_dim(self) -> int:
        """Numbers in one region's feature."""
        return self.features.shape[1]

    @classmethod
    def from_pixels(
        cls, features: NDArray[Any], boxes: NDArray[Any], *, width: int, height: int, **rest: Any
    ) -> "Regions":
        """Make regions whose boxes are given in pixels: x / width, y / height.

        Raises:
            ValueError: if a box is inverted, leaves the image by more than 1 %, or looks normalised already.
        """
        boxes = boxes_from_pixels(np.asarray(boxes, dtype=np.float32), width, height)
        return cls(features=features, boxes=boxes, width=width, height=height, **rest)

    def select(self, keep: NDArray[Any]) -> "Regions":
        """Return the regions that `keep` (indices or a boolean mask) names, in that order."""
        chosen = {}
        for item in fields(self):
            value = getattr(self, item.name)
            chosen[item.name] = value[keep] if isinstance(value, np.ndarray) else value
        return Regions(**chosen)

    def title(self, row: int) -> str:
        """Return what errors call the image: by its id or, without one, by its row in the batch."""
        return f"image {row} of the batch" if self.image_id is None else f"image {self.image_id!r}"

    def _check(self, name: str, array: NDArray[Any], shape: tuple[int | None, ...]) -> None:
        fits = array.ndim == len(shape) and array.shape[0] == shape[0] and shape[-1] in (None, array.shape[-1])
        if not fits:
            wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
            raise MmptValueError(
                f"{self._name()}: {name} has shape {array.shape}, expected {wanted} beside {len(self)} rows of features"
            )

    def _name(self) -> str:
        return "regions" if self.image_id is None else f"regions of image {self.image_id!r}"


def as_numbers(values: Any, name: str) -> NDArray[Any]:
    """Return an array of real numbers from an array, a tensor or nested lists.

    Raises:
        TypeError: for anything else, rows of several lengths among it.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MmptTypeError(
            f"{name} cannot be made an array ({error}), expected numbers in rows of one length"
        ) from error
    if array.dtype.kind not in "fiub":
        raise MmptTypeError(f"{name} are {type(values).__name__} of {array.dtype}, expected an array of numbers")
    return array


def wrong_distributions(probs: NDArray[Any]) -> NDArray[Any]:
    """Return which rows of (regions, classes) are not numbers of 0 or more that sum to 1."""
    sums = probs.sum(1, dtype=np.float32)
    # A NaN compares as False.
    return np.flatnonzero(~((np.abs(sums - 1) <= PROBABILITY_TOLERANCE) & (probs.min(1, initial=0) >= 0)))


def boxes_from_pixels(boxes: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Turn (regions, 4) pixel boxes x1 y1 x2 y2 into shares of the image.

    Raises:
        ValueError: if a box is inverted, leaves the image by more than 1 %, or looks normalised already.
    """
    if width <= 0 or height <= 0:
        raise MmptValueError(f"image size is {width} x {height}, expected positive width and height in pixels")
    if not boxes.size:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise MmptValueError(f"boxes have shape {boxes.shape}, expected (regions, 4): x1 y1 x2 y2 of each region")
    if boxes.max() <= 1.0 and max(width, height) > 2:
        raise MmptValueError(
            f"boxes were said to be in pixels of a {width} x {height} image, but the largest coordinate is "
            f"{boxes.max():g}: they look normalised already. Pass box_format='normalized'"
        )
    return check_boxes(boxes / np.asarray([width, height, width, height], dtype=np.float32))


def check_boxes(boxes: NDArray[Any], name: str = "boxes") -> NDArray[Any]:
    """Return normalised (regions, 4) boxes clamped to 0..1.

    Raises:
        ValueError: if a number is not finite, a box is inverted, or it leaves the image by more than 1 %.
    """
    if not len(boxes):
        return boxes
    low, high = boxes.min(), boxes.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MmptValueError(f"{name}: a coordinate is NaN or infinite, expected x1 y1 x2 y2 in 0..1")
    if high > PIXEL_EVIDENCE:
        raise MmptValueError(
            f"{name}: the largest coordinate is {high:g}, expected x1 y1 x2 y2 in 0..1; this looks like pixels. "
            "Pass box_format='pixel' with the image's width and height"
        )
    if low < -BOX_TOLERANCE or high > 1 + BOX_TOLERANCE:
        raise MmptValueError(
            f"{name}: coordinates run from {low:g} to {high:g}, expected 0..1 (up to 1 % outside is clamped). "
            "Are width and height those of the image that the detector saw?"
        )
    inverted = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(inverted):
        first = inverted[0]
        raise MmptValueError(
            f"{name}: box {first} is inverted ({np.array2string(boxes[first], precision=3)}; {len(inverted)} of "
            f"{len(boxes)}), expected x1 <= x2 and y1 <= y2. Is the order x1 y1 x2 y2, not x y width height?"
        )
    return np.clip(boxes, 0.0, 1.0)
