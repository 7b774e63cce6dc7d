"""The region part of the processor: regions of images to padded arrays."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs, Unpack

from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.configuration.self_contained import SelfContained
from mmpt.processing.regions import Regions, as_numbers, boxes_from_pixels, check_boxes, wrong_distributions

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
BoxFormat = Literal["normalized", "pixel"]


class MmptImagesKwargs(ImagesKwargs, total=False):
    """What a call may override.

    Args:
        max_regions: keep so many regions an image, those with the highest score; all by default.
        box_format: how the boxes of dicts and tuples are given: "normalized" (0..1) or "pixel" (needs width, height).
            `Regions` are normalised already.
        whole_image_region: put a region in front that covers the image: its feature is the mean of the others'.
    """

    max_regions: int | None
    box_format: BoxFormat
    whole_image_region: bool


class MmptImageProcessor(SelfContained, BaseImageProcessor):
    """Turn the regions of one or many images into `region_features`, `region_boxes` and `region_attention_mask`.

    An image is given as `Regions`; as a dict of its fields; as a tuple (features, boxes); or as an array of features
    (regions, feature), whose boxes are then the whole image. An image without regions gets one whole-image region with
    a zero feature.

    Args:
        max_regions: see `MmptImagesKwargs`.
        box_format: see `MmptImagesKwargs`.
        whole_image_region: see `MmptImagesKwargs`.
        extracted_by: record of what made the regions that a model was trained on (`region_record`); saved with the
            processor, so that a model carries what its input needs.

    Raises:
        ValueError: if an option is out of range, or an unknown one is spelled like one of these.
    """

    model_input_names = ["region_features", "region_boxes", "region_attention_mask"]
    valid_kwargs = MmptImagesKwargs

    def __init__(
        self,
        max_regions: int | None = None,
        box_format: BoxFormat = "normalized",
        whole_image_region: bool = False,
        extracted_by: dict[str, Any] | None = None,
        **kwargs: Unpack[ImagesKwargs],
    ) -> None:
        super().__init__(**kwargs)
        _check_options(max_regions, box_format, whole_image_region, kwargs)
        self.max_regions = max_regions
        self.box_format: BoxFormat = box_format
        self.whole_image_region = whole_image_region
        self.extracted_by = extracted_by

    def hub_classes(self) -> dict[str, type]:
        return {"AutoImageProcessor": type(self)}

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Return the regions as they are: there is nothing to fetch."""
        return image_url_or_urls

    def preprocess(
        self,
        images: Any,
        return_tensors: str | None = None,
        max_regions: int | None = None,
        box_format: BoxFormat | None = None,
        whole_image_region: bool | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return the padded batch: features (batch, regions, feature) float32, boxes (batch, regions, 4) and mask.

        `region_type_ids` (batch, regions) are added where an image has `type_ids`.

        Raises:
            ValueError: for a shape that does not fit, features that are not finite, boxes that are inverted, leave the
                image, or are in another format than `box_format` says, and for an option that is out of range.
        """
        _check_options(max_regions, box_format, whole_image_region, kwargs)
        refuse_unknown_options(kwargs, MmptImagesKwargs.__annotations__)
        records = self.records(images, max_regions, box_format)
        for row, record in enumerate(records):
            _check_record(record, row)
        whole = self.whole_image_region if whole_image_region is None else whole_image_region
        batch, _ = self.pad(records, whole)
        if whole:
            set_whole_image_feature(batch["region_features"], batch["region_attention_mask"].bool())
        return BatchFeature({name: value.numpy() for name, value in batch.items()}, tensor_type=return_tensors)

    def records(
        self,
        images: Any,
        max_regions: int | None = None,
        box_format: BoxFormat | None = None,
    ) -> list[Regions]:
        """Return one `Regions` an image, with normalised boxes and at most `max_regions` regions."""
        given_as = self.box_format if box_format is None else box_format
        limit = self.max_regions if max_regions is None else max_regions
        return [_keep_best(_as_regions(image, given_as), limit) for image in _as_list(images)]

    def pad(
        self, records: Sequence[Regions], whole_image_region: bool | None = None, feature_dim: int | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the padded batch and where its detected regions are, (batch, regions) bool.

        The feature of a whole-image region is left zero: which regions it may see is decided by masking.

        Args:
            feature_dim: width of the features, for a batch in which no image has regions.
        """
        whole = self.whole_image_region if whole_image_region is None else whole_image_region
        width = _common_width(records, feature_dim)
        counts = torch.tensor([len(record) for record in records])
        length = max(1, int(counts.max()) + whole)
        features = torch.empty(len(records), length, width)  # written once: only what is not copied to becomes zero
        boxes = torch.zeros(len(records), length, 4)
        type_ids = torch.zeros(len(records), length, dtype=torch.long)
        for row, record in enumerate(records):
            here = slice(int(whole), int(whole) + len(record))
            features[row, : here.start] = 0.0
            features[row, here.stop :] = 0.0
            if not len(record):
                continue
            _copy(features[row, here], record.features)
            _copy(boxes[row, here], record.boxes)
            if record.type_ids is not None:
                _copy(type_ids[row, here], record.type_ids)
        _check_batch(features, boxes, records)
        places = torch.arange(length)[None]
        detected = (places >= int(whole)) & (places < counts[:, None] + int(whole))
        mask = detected.clone()
        bare = counts == 0
        mask[:, 0] |= bare if not whole else True
        boxes[mask & ~detected] = torch.tensor(WHOLE_IMAGE)
        batch = {
            "region_features": features,
            "region_boxes": boxes.clamp_(0.0, 1.0),
            "region_attention_mask": mask.long(),
        }
        if any(record.type_ids is not None for record in records):
            batch["region_type_ids"] = type_ids
        return batch, detected


def set_whole_image_feature(features: Tensor, seen: Tensor) -> None:
    """Write into place 0 the mean feature of the places that `seen` names, place 0 left out; zero where there is none.

    features: (batch, regions, feature); seen: (batch, regions), bool.
    """
    seen = seen.clone()
    seen[:, 0] = False
    weights = seen.to(features.dtype)
    totals = torch.bmm(weights[:, None], features)[:, 0]  # (batch, feature)
    features[:, 0] = totals / weights.sum(1, keepdim=True).clamp(min=1)


def _as_list(images: Any) -> list[Any]:
    """Return a list with one entry an image, whatever of the accepted forms it has."""
    if isinstance(images, Regions | Mapping):
        return [images]
    is_two = isinstance(images, tuple) and len(images) == 2 and not isinstance(images[0], Regions | Mapping | tuple)
    if is_two and np.ndim(images[0]) == 2:
        return [images]  # (features, boxes) of one image
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim == 2:
            return [images]
        if images.ndim != 3:
            raise MmptValueError(
                f"an array of regions has shape {tuple(images.shape)}, expected (regions, feature) or (images, "
                "regions, feature)"
            )
    if not isinstance(images, Sequence | np.ndarray | Tensor) or isinstance(images, str | bytes):
        raise MmptValueError(
            f"got {type(images).__name__} for the regions, expected Regions, a dict with features and boxes, an array "
            "(regions, feature), or a list of these. Raw images become regions by extraction"
        )
    if not len(images):
        raise MmptValueError("got an empty list of images, expected at least one")
    return list(images)


def _as_regions(image: Any, box_format: BoxFormat) -> Regions:
    if isinstance(image, Regions):
        return image
    if isinstance(image, Mapping):
        values: dict[str, Any] = {name: value for name, value in image.items() if value is not None}
    elif isinstance(image, tuple):
        if len(image) != 2:
            raise MmptValueError(f"got a tuple of {len(image)} for the regions of an image, expected (features, boxes)")
        values = {"features": image[0], "boxes": image[1]}
    elif isinstance(image, np.ndarray | Tensor | list):
        features = np.atleast_1d(as_numbers(image, "features"))
        values = {"features": features, "boxes": np.tile(np.array(WHOLE_IMAGE, dtype=np.float32), (len(features), 1))}
        box_format = "normalized"
    else:
        raise MmptValueError(
            f"got {type(image).__name__} for the regions of an image, expected Regions, a dict or an array"
        )
    known = [item.name for item in fields(Regions)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise MmptValueError(f"regions have no field {name!r}; {hint}")
    for name in ("features", "boxes"):
        if name not in values:
            raise MmptValueError(f"regions have no {name!r}, got {', '.join(values) or 'nothing'}")
    scalars = ("width", "height", "image_id")
    values = {name: value if name in scalars else as_numbers(value, name) for name, value in values.items()}
    if values["features"].dtype not in (np.float16, np.float32):
        values["features"] = values["features"].astype(np.float32)
    if values["features"].size == 0 and values["features"].ndim < 2:
        values["features"] = np.zeros((0, 0), dtype=np.float32)
    if box_format == "pixel":
        sides = [values.get("width"), values.get("height")]
        if not all(isinstance(side, int | float | np.number) and 0 < side < math.inf for side in sides):
            raise MmptValueError(
                "box_format='pixel' needs the width and height of the image beside its boxes, in pixels"
            )
        boxes = values["boxes"].astype(np.float32)
        values["boxes"] = boxes_from_pixels(boxes, int(values["width"]), int(values["height"]))
    return Regions(**values)


def _keep_best(regions: Regions, limit: int | None) -> Regions:
    """Return the `limit` regions with the highest score, in their old order; the first ones where there is no score."""
    if limit is None or len(regions) <= limit:
        return regions
    scores = regions.scores
    if scores is None and regions.class_probs is not None:
        scores = regions.class_probs.max(1)
    if scores is None:
        return regions.select(np.arange(limit))
    return regions.select(np.sort(np.argsort(-np.asarray(scores, dtype=np.float32), kind="stable")[:limit]))


def refuse_unknown_options(given: Iterable[str], known: Iterable[str], what: str = "the processor of regions") -> None:
    """Raise for an option that a processor does not have.

    Raises:
        TypeError: naming the nearest one.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise MmptTypeError(f"{what} has no option {name!r}; {hint}")


def _check_record(record: Regions, row: int) -> None:
    """Check what the processor does not put into the batch itself, but chooses regions by or hands on."""
    probs, scores, types = record.class_probs, record.scores, record.type_ids
    if probs is not None and len(wrong := wrong_distributions(probs)):
        total = float(probs[wrong[0]].sum(dtype=np.float32))
        raise MmptValueError(
            f"class_probs of {record.title(row)} sum to {total:.4g} in region {wrong[0]} ({len(wrong)} of {len(probs)} "
            "are off), expected numbers of 0 or more that sum to 1; sigmoid scores need a softmax over the classes"
        )
    if scores is not None and not np.isfinite(scores).all():
        raise MmptValueError(f"scores of {record.title(row)} hold NaN or infinite numbers, expected 0..1")
    if types is not None and not ((types >= 0) & (types == np.floor(types))).all():
        raise MmptValueError(f"type_ids of {record.title(row)} are not integers of 0 or more, expected group numbers")


def _check_options(max_regions: Any, box_format: Any, whole_image_region: Any, others: Mapping[str, Any]) -> None:
    if max_regions is not None and (isinstance(max_regions, bool) or not isinstance(max_regions, int | np.integer)):
        raise MmptTypeError(f"max_regions is {max_regions!r}, expected an integer, or None for all")
    if whole_image_region is not None and not isinstance(whole_image_region, bool):
        raise MmptTypeError(f"whole_image_region is {whole_image_region!r}, expected True or False")
    if max_regions is not None and max_regions < 1:
        raise MmptValueError(f"max_regions is {max_regions}, expected 1 or more, or None for all")
    if box_format is not None and box_format not in get_args(BoxFormat):
        raise MmptValueError(f"box_format is {box_format!r}, expected 'normalized' (0..1) or 'pixel'")
    # transformers adds keys of its own to a saved processor, so that only what is nearly ours can be refused.
    for name in others:
        near = difflib.get_close_matches(
            str(name), ("max_regions", "box_format", "whole_image_region"), n=1, cutoff=0.8
        )
        if near:
            raise MmptValueError(f"the processor of regions has no option {name!r}; did you mean {near[0]!r}?")


def _common_width(records: Sequence[Regions], feature_dim: int | None) -> int:
    first: Regions | None = None
    for row, record in enumerate(records):
        if not len(record):
            continue
        first = first or record
        if record.feature_dim != first.feature_dim:
            raise MmptValueError(
                f"features of {record.title(row)} are {record.feature_dim} numbers wide, those before it in the "
                f"batch {first.feature_dim}; a batch takes features of one detector"
            )
    if first is not None:
        return first.feature_dim
    return max(record.feature_dim for record in records) if feature_dim is None else feature_dim


def _check_batch(features: Tensor, boxes: Tensor, records: Sequence[Regions]) -> None:
    """Check the whole batch at once, and look for the image only where something is wrong."""
    # An infinite number is the lowest or the highest, and NaN is both: far faster than to look at each.
    if features.numel() and not all(math.isfinite(bound) for bound in features.aminmax()):
        row = int((~torch.isfinite(features)).flatten(1).any(1).nonzero()[0])
        raise MmptValueError(
            f"features of {records[row].title(row)} hold NaN or infinite numbers, expected finite ones; "
            "extract them anew, or leave the image out"
        )
    fine = (boxes >= 0) & (boxes <= 1)
    if not (fine.all() and (boxes[..., 2:] >= boxes[..., :2]).all()):
        for row, record in enumerate(records):
            check_boxes(record.boxes, f"boxes of {record.title(row)}")


def _copy(target: Tensor, values: NDArray[Any]) -> None:
    """Copy an array into a tensor of the same shape."""
    if values.dtype == np.float16:
        # torch widens float16 far faster than NumPy does; it wants an array that could be written to, which those of
        # a store are not.
        target.copy_(torch.from_numpy(np.require(values, requirements=["C", "W"])))
    else:
        target.numpy()[...] = values
