"""Preparation of images for a model: what transformers' image processors do, image by image and without padding."""

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_extraction.image_loading import upright_rgb


@dataclass(frozen=True)
class PreparedImage:
    """An image as a model takes it.

    Args:
        inputs: the model's inputs, each with a first dimension of 1.
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
    """

    inputs: dict[str, Tensor]
    width: int
    height: int


class ImagePreparation:
    """Prepare one image at a time.

    A batch of images of different sizes is never padded: in detectors that pad, an image's regions would depend on what
    else is in its batch (by 1e-2 in the logits), and padding all images to one square doubles the pixels.

    Args:
        processor: an image processor of transformers.
        uncropped: resize the whole image to the square that the processor would crop, so that the cells of a grid are
            shares of the true image; without it the processor does what it always does.
    """

    def __init__(self, processor: Any, *, uncropped: bool) -> None:
        self._processor = processor
        self._size = _crop_size(processor) if uncropped else None

    def __call__(self, image: Image.Image) -> PreparedImage:
        image = upright_rgb(image)
        try:
            inputs = self._inputs(image)
        except ValueError as error:  # one side of a very long image would be less than a pixel
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
        """What is done to an image, as JSON."""
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
    """Return (height, width) of what the processor hands to the model."""
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = dict(processor.crop_size if cropped else processor.size)
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if size.get("shortest_edge"):
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise MmptValueError(f"the image processor has size {size}, expected height and width, or shortest_edge")
