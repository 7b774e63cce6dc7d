"""Region extractor with a detector, the patch grid of an image encoder, or given boxes."""

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig

from mmpt.configuration.configuration_bottom_up import PRESETS, Background, BottomUpConfig
from mmpt.configuration.errors import MmptRuntimeError, MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.modeling_mmpt.devices import device_of
from mmpt.processing.region_extraction.bottom_up_backend import BottomUpBackend
from mmpt.processing.region_extraction.box_backend import BoxBackend
from mmpt.processing.region_extraction.detector_backend import Arrays, DetectorBackend
from mmpt.processing.region_extraction.extractor_loading import (
    is_detector,
    load_bottom_up,
    load_detector,
    load_encoder,
    load_image_processor,
    recognise_backend,
)
from mmpt.processing.region_extraction.grid_backend import GridBackend
from mmpt.processing.region_extraction.image_preparation import ImagePreparation, PreparedImage
from mmpt.processing.regions import Regions, check_boxes

BACKENDS = ("detector", "grid", "boxes")
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


Backend = DetectorBackend | GridBackend | BoxBackend | BottomUpBackend


class RegionExtractor:
    """Extract `Regions` from images, with float32 features and boxes normalised to the upright image.

    The regions of an image do not depend on the other images of its batch.

    Args:
        model: name of the checkpoint.
        revision: commit of the checkpoint, if known.
        dtype: a key of `DTYPES`; for bfloat16 and float16 the model runs under autocast.
        batch_size: number of images per forward pass.

    Raises:
        ValueError: if the model and the image processor do not match.
    """

    def __init__(
        self,
        backend: Backend,
        preparation: ImagePreparation,
        *,
        model: str,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
    ) -> None:
        _check_settings(dtype, batch_size)
        self.batch_size = batch_size
        self._backend: Any = backend  # each reads its own output
        self._dtype = dtype
        self._device = device_of(device)
        self.prepare = preparation
        settings = {
            "model": model,
            "model_type": backend.model.config.model_type,
            "revision": revision,
            "weights_sha256": weights_sha256(backend.model),
            "backend": backend.name,
            "dtype": dtype,
            **backend.settings,
            "images": preparation.settings,
        }
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        """All settings as JSON: the `extractor` of a region store."""
        backend.model.to(self._device)
        if backend.feature_dim is not None:
            self.feature_dim: int = backend.feature_dim
            """Numbers in one region's feature."""
            return
        # One grey image: what is wrong with every image shows itself here, before the first.
        grey = self.prepare(Image.new("RGB", (96, 64), (128, 128, 128)))
        whole = [np.asarray([[0, 0, 1, 1]], dtype=np.float32)] if self.needs_boxes else None
        self.feature_dim = self.extract_prepared([grey], boxes=whole)[0].feature_dim

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        backend: str | None = None,
        max_regions: int | None = 36,
        min_regions: int = 1,
        threshold: float = 0.0,
        preset: str | None = None,
        background: Background | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
    ) -> "RegionExtractor":
        """Load an extractor from a transformers checkpoint on the Hub or in a folder.

        Args:
            backend: "detector", "grid" (an image encoder's patches) or "boxes" (given boxes, cut from an image encoder
                or a detector's backbone); a detector or a grid by the checkpoint's config if None.
            max_regions: the most regions of an image; None keeps all. Given boxes are all kept.
            min_regions: of a detector, the fewest, below the threshold too.
            threshold: of a detector, the lowest score that is kept.
            preset: of bottom-up attention's detector, the released model whose regions are wanted (`PRESETS`); the
                rules that its folder holds by default. It sets the three numbers before, too.
            background: of the same, "first" or "none": class probabilities with the background as class 0 or without
                it; the preset tells by default.
            device: a GPU if there is one, by default.

        Raises:
            OSError: if the checkpoint or its image processor does not exist.
            ValueError: if the checkpoint is of another kind, or an argument is out of range.
        """
        _check_settings(dtype, batch_size)
        _check_ranges(max_regions, min_regions, threshold)
        if backend is not None:
            _check_backend(backend, min_regions, threshold)
        device = device_of(device)
        config = load_pretrained(AutoConfig, name, "the extractor", revision=revision)
        if backend is None:
            backend = recognise_backend(config, str(name))
        limits = (max_regions, min_regions, threshold)
        bottom_up = isinstance(config, BottomUpConfig)
        _check_backend(backend, min_regions, threshold)
        _check_preset(str(name), config, backend, limits, preset or background)
        revision = getattr(config, "_commit_hash", None) or revision
        processor = load_image_processor(str(name), revision)
        chosen: Backend
        if isinstance(config, BottomUpConfig):
            used = None if preset is None else config.use_preset(preset)
            if used is not None:
                processor.use_preset(used)
            chosen = BottomUpBackend(
                load_bottom_up(str(name), config=config, revision=revision),
                preset=preset,
                background=background or (used.background if used else "first"),
                given=backend == "boxes",
            )
        elif backend == "detector":
            detector = load_detector(str(name), config=config, revision=revision)
            chosen = DetectorBackend(detector, max_regions=max_regions, min_regions=min_regions, threshold=threshold)
        else:
            encoder = load_encoder(str(name), config=config, revision=revision)
            chosen = GridBackend(encoder, max_regions=max_regions) if backend == "grid" else BoxBackend(encoder)
        return cls(
            chosen,
            ImagePreparation(processor, uncropped=not (bottom_up or is_detector(config))),
            model=Path(name).name if Path(name).is_dir() else str(name),  # where a folder lies is this machine's affair
            revision=revision,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in `class_probs` and `labels`, or None if there are no classes."""
        return self._backend.class_names

    @property
    def needs_boxes(self) -> bool:
        """Whether images come with the boxes that features are wanted of."""
        return self._backend.name == "boxes"

    def __call__(
        self,
        images: Sequence[Image.Image],
        image_ids: Sequence[str] | None = None,
        boxes: Sequence[NDArray[Any]] | None = None,
    ) -> list[Regions]:
        """Return the regions of each image.

        Args:
            image_ids: ids of the images.
            boxes: for the backend "boxes", (regions, 4) per image, normalised to the upright image.

        Raises:
            ValueError: if boxes or ids do not match the images, or an image cannot be converted to RGB.
        """
        return self.extract_prepared([self.prepare(image) for image in images], image_ids, boxes)

    def extract_prepared(
        self,
        images: Sequence[PreparedImage],
        image_ids: Sequence[str] | None = None,
        boxes: Sequence[NDArray[Any]] | None = None,
    ) -> list[Regions]:
        """Return the regions of images that `prepare` has prepared, possibly in other threads.

        Raises:
            RuntimeError: if a batch does not fit into the memory of the device.
            ValueError: if boxes or ids do not match the images.
        """
        for given, what in ((image_ids, "image_ids"), (boxes, "boxes")):
            if given is not None and len(given) != len(images):
                raise MmptValueError(f"got {len(given)} {what} and {len(images)} images, expected one of each")
        if (boxes is not None) != self.needs_boxes:
            raise MmptValueError(
                f"got {'no boxes' if boxes is None else 'boxes'}, but the backend is {self._backend.name!r}; "
                "the backend 'boxes' needs boxes, and no other backend accepts them"
            )
        checked = None if boxes is None else [_checked_boxes(given, row) for row, given in enumerate(boxes)]
        batches: dict[tuple[int, ...], list[int]] = defaultdict(list)  # only images of equal shape share a batch
        for row, image in enumerate(images):
            batches[tuple(image.inputs["pixel_values"].shape)].append(row)
        found: dict[int, Regions] = {}
        for rows in batches.values():
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                arrays = self._run([images[row] for row in batch], checked and [checked[row] for row in batch])
                for row, fields in zip(batch, arrays, strict=True):
                    if self._backend.pixel_boxes:
                        size = np.asarray([images[row].width, images[row].height] * 2, dtype=np.float32)
                        fields["boxes"] = (fields["boxes"] / size).clip(0, 1)
                    found[row] = Regions(
                        **fields,
                        width=images[row].width,
                        height=images[row].height,
                        image_id=None if image_ids is None else image_ids[row],
                    )
        return [found[row] for row in range(len(images))]

    def _run(self, images: Sequence[PreparedImage], boxes: Any) -> list[Arrays]:
        inputs = {
            name: torch.cat([image.inputs[name] for image in images]).to(self._device) for name in images[0].inputs
        }
        lower = DTYPES[self._dtype]
        try:
            with torch.inference_mode():
                with nullcontext() if lower is None else torch.autocast(self._device.type, lower):
                    output = self._backend.forward(inputs, boxes)
                return self._backend.regions(output, boxes)
        except torch.OutOfMemoryError as error:
            shape = tuple(inputs["pixel_values"].shape)
            raise MmptRuntimeError(
                f"{self._device} ran out of memory with {len(images)} images at once (pixels {shape}); expected fewer: "
                f"set batch_size below {len(images)}, or dtype='bfloat16'"
            ) from error


def weights_sha256(model: torch.nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of all weights, independent of the file format."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_settings(dtype: str, batch_size: int) -> None:
    if dtype not in DTYPES:
        raise MmptValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if batch_size < 1:
        raise MmptValueError(f"batch_size is {batch_size}, expected at least 1")


def _check_ranges(max_regions: int | None, min_regions: int, threshold: float) -> None:
    if min_regions < 1 or (max_regions is not None and max_regions < min_regions):
        raise MmptValueError(
            f"min_regions is {min_regions} and max_regions {max_regions}, expected 1 <= min_regions <= max_regions"
        )
    if not 0 <= threshold <= 1:
        raise MmptValueError(f"threshold is {threshold}, expected a score in 0..1")


def _check_backend(backend: str, min_regions: int, threshold: float) -> None:
    if backend not in BACKENDS:
        raise MmptValueError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend != "detector" and (threshold > 0 or min_regions > 1):
        raise MmptValueError(f"got threshold or min_regions, but regions of the backend {backend!r} have no scores")


def _check_preset(name: str, config: Any, backend: str, limits: tuple[Any, ...], asked: str | None) -> None:
    """Refuse a preset where there is none, and other rules where a preset or its folder has them."""
    if not isinstance(config, BottomUpConfig):
        if asked is not None:
            raise MmptValueError(
                f"got the preset or background {asked!r}, but {name} is of type {config.model_type!r}; presets are of "
                "bottom-up attention's detector, which `mmpt convert` makes of the published files"
            )
        return
    if limits != (36, 1, 0.0):
        raise MmptValueError(
            f"max_regions, min_regions and threshold are {limits}, but {name} selects by the rules of a preset; leave "
            f"them out and give preset: one of {', '.join(PRESETS)}"
        )
    if backend == "grid":
        raise MmptValueError(f"got the backend 'grid', but {name} is a detector of regions; give 'detector' or 'boxes'")


def _checked_boxes(boxes: NDArray[Any], row: int) -> NDArray[np.float32]:
    name = f"image {row} of the batch: boxes"
    boxes = np.asarray(boxes, dtype=np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise MmptValueError(f"{name} have shape {boxes.shape}, expected (regions, 4) with at least one region")
    return check_boxes(boxes, name)
