"""Prepare images for a model with transformers' image processors, one by one and without padding."""

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_extraction.image_loading import upright_rgb


@dataclass(frozen=True)
class PreparedImage:
    """An image prepared for a model.

    Args:
        inputs: model inputs, each of shape (1, ...).
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
    """

    inputs: dict[str, Tensor]
    width: int
    height: int


class ImagePreparation:
    """Prepare one image at a time.

    Images of different sizes are never padded to one batch. With padding, the regions of an image would depend on the
    other images of its batch (logits of detectors change by 1e-2). Padding all images to one square would double the
    number of pixels.

    Args:
        processor: an image processor of transformers.
        uncropped: resize the whole image to the size that the processor would crop to, so that grid cells cover the
            whole image. If False, the processor runs unchanged.
    """

    def __init__(self, processor: Any, *, uncropped: bool) -> None:
        self._processor = processor
        self._size = _crop_size(processor) if uncropped else None

    def __call__(self, image: Image.Image) -> PreparedImage:
        image = upright_rgb(image)
        try:
            inputs = self._inputs(image)
        except ValueError as error:  # for a very long image, one side would be resized to less than a pixel
            raise MmptValueError(
                f"an image of {image.width} x {image.height} pixels cannot be prepared: {error}"
            ) from error
        kept = {name: inputs[name] for name in ("pixel_values", "resize_factors") if name in inputs}
        if "pixel_mask" in inputs and not inputs["pixel_mask"].all():  # a processor with a fixed pad_size
            kept["pixel_mask"] = inputs["pixel_mask"]
        return PreparedImage(kept, image.width, image.height)

    def _inputs(self, image: Image.Image) -> Any:
        if self._size is None:
            return self._processor(images=[image], return_tensors="pt")
        height, width = self._size
        resized = image.resize((width, height), Image.Resampling(self._processor.resample))
        return self._processor(images=[resized], do_resize=False, do_center_crop=False, return_tensors="pt")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the preparation, as JSON."""
        processor = self._processor
        size = dict(zip(("height", "width"), self._size, strict=True)) if self._size else processor.size
        names = ["do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"]
        names += ["resize_rule"] if hasattr(processor, "resize_rule") else []
        return {
            "processor": type(processor).__name__,
            "size": {name: int(number) for name, number in dict(size).items() if number},
            "resample": Image.Resampling(processor.resample).name.lower(),
            **{name: getattr(processor, name, None) for name in names},
        }


def _crop_size(processor: Any) -> tuple[int, int]:
    """Return (height, width) in pixels of the processor's output."""
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = dict(processor.crop_size if cropped else processor.size)
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if size.get("shortest_edge"):
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise MmptValueError(f"the image processor has size {size}, expected height and width, or shortest_edge")
