"""Images as bottom-up attention's detector takes them: blue, green, red, in 0..255, less their means."""

from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from mmpt.configuration.configuration_bottom_up import PRESETS, BottomUpConfig, BottomUpPreset, ResizeRule
from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.configuration.self_contained import SelfContained
from mmpt.modeling_mmpt.modeling_bottom_up import SMALLEST_SIDE
from mmpt.processing.region_extraction.image_loading import upright_rgb

MEANS = [102.9801, 115.9465, 122.7717]  # of blue, green, red
VINVL_MEANS = [103.53, 116.28, 123.675]


class BottomUpImageProcessor(SelfContained, BaseImageProcessor):
    """Resize images, turn their channels round and take the means off.

    Images of one call must come out at one size: padding would change the regions.

    Args:
        size: `shortest_edge` and `longest_edge` in pixels: the short side gets the first, unless the long side would
            be longer than the second.
        resize_rule: "opencv" (bilinear, one factor for both sides, as in Caffe), "interpolate" (torch's bilinear, as in
            transformers' research code) or "pillow" (bilinear with antialiasing on whole grey levels, as detectron2).
        image_mean: of blue, green, red.

    Raises:
        ValueError: if an option is out of range.
    """

    model_input_names = ["pixel_values", "resize_factors"]
    resample = Image.Resampling.BILINEAR
    do_rescale = False
    do_normalize = True

    def __init__(
        self,
        size: dict[str, int] | None = None,
        resize_rule: ResizeRule = "opencv",
        image_mean: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = {"shortest_edge": 600, "longest_edge": 1000} if size is None else dict(size)
        self.resize_rule = resize_rule
        self.image_mean = list(MEANS if image_mean is None else image_mean)
        edges = [self.size.get("shortest_edge", 0), self.size.get("longest_edge", 0)]
        if not SMALLEST_SIDE <= edges[0] <= edges[1] or resize_rule not in get_args(ResizeRule):
            raise MmptValueError(
                f"size is {self.size} and resize_rule {resize_rule!r}, expected {SMALLEST_SIDE} <= shortest_edge <= "
                f"longest_edge and one of {', '.join(get_args(ResizeRule))}"
            )

    @classmethod
    def of_config(cls, config: BottomUpConfig) -> "BottomUpImageProcessor":
        """Return what a detector was trained with: ResNet-101's or VinVL's."""
        processor = cls(image_mean=VINVL_MEANS if config.of_vinvl else None)
        processor.use_preset(PRESETS["vinvl" if config.of_vinvl else "uniter"])
        return processor

    def use_preset(self, preset: BottomUpPreset) -> None:
        """Take the size and the rule of a preset."""
        self.size = {"shortest_edge": preset.shortest_edge, "longest_edge": preset.longest_edge}
        self.resize_rule = preset.resize_rule

    def hub_classes(self) -> dict[str, type]:
        return {"AutoImageProcessor": type(self)}

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Return `pixel_values` (images, 3, height, width) and `resize_factors` (images, 2), float32.

        Args:
            images: one or several: Pillow images, or arrays or tensors of 8 bits, (height, width, 3) red, green, blue.

        Raises:
            TypeError: for anything else.
            ValueError: if an image would have a side of less than 3 pixels, or images come out at several sizes.
        """
        if kwargs.keys() - {"do_convert_rgb"}:
            raise MmptTypeError(
                f"got {', '.join(kwargs)}, expected images and return_tensors; set size and rule before"
            )
        given = images if isinstance(images, list | tuple) else [images]
        made = [self._prepare(_as_rgb(image)) for image in given]
        shapes = sorted({tuple(pixels.shape) for pixels, _ in made})
        if len(shapes) != 1:
            raise MmptValueError(
                f"images come out at {len(shapes)} sizes ({', '.join(str(shape[1:]) for shape in shapes[:4])}), "
                "expected one: padding would change the regions. Prepare images of other sizes by themselves"
            )
        batch = {
            "pixel_values": torch.stack([pixels for pixels, _ in made]).numpy(),
            "resize_factors": np.asarray([factors for _, factors in made], dtype=np.float32),
        }
        return BatchFeature(batch, tensor_type=return_tensors)

    def _prepare(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[float, float]]:
        height, width = image.shape[:2]
        short, long = self.size["shortest_edge"], self.size["longest_edge"]
        means = torch.tensor(self.image_mean)
        if self.resize_rule == "opencv":
            factor = short / min(height, width)
            if round(factor * max(height, width)) > long:  # half to even, as np.round
                factor = long / max(height, width)
            size = (round(height * factor), round(width * factor))
            self._check_size(size, height, width)
            pixels = torch.from_numpy(image[..., ::-1].astype(np.float32)) - means
            pixels = _sample(_sample(pixels, 1, size[1], factor), 0, size[0], factor)
            return pixels.permute(2, 0, 1).contiguous(), (factor, factor)
        factor = short / min(height, width)
        new = (short, factor * width) if height < width else (factor * height, short)
        if max(new) > long:
            new = (new[0] * (long / max(new)), new[1] * (long / max(new)))
        size = (int(new[0] + 0.5), int(new[1] + 0.5))
        self._check_size(size, height, width)
        if self.resize_rule == "pillow":
            resized = Image.fromarray(image).resize((size[1], size[0]), self.resample)
            pixels = torch.from_numpy(np.asarray(resized)[..., ::-1].astype(np.float32)).permute(2, 0, 1)
        else:
            channels = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)
            pixels = F.interpolate(channels[None], size, mode="bilinear", align_corners=False)[0]
        return (pixels - means[:, None, None]).contiguous(), (size[0] / height, size[1] / width)

    def _check_size(self, size: tuple[int, int], height: int, width: int) -> None:
        if min(size) < SMALLEST_SIDE:
            raise MmptValueError(
                f"an image of {width} x {height} pixels would be {size[1]} x {size[0]}, expected sides of "
                f"{SMALLEST_SIDE} or more; cut it into pieces that are less long"
            )


def _sample(pixels: Tensor, axis: int, count: int, factor: float) -> Tensor:
    """Resize one axis as OpenCV's INTER_LINEAR does when it is given a factor: with steps of 1 / factor."""
    length = pixels.shape[axis]
    places = ((torch.arange(count, dtype=torch.float64) + 0.5) * (1 / factor) - 0.5).float()
    low = places.floor()
    part = places - low
    part[(low < 0) | (low >= length - 1)] = 0
    first = low.long().clamp(0, length - 1)
    last = (first + 1).clamp(max=length - 1)
    part = part.view([-1 if dimension == axis else 1 for dimension in range(pixels.ndim)])
    return pixels.index_select(axis, first) * (1 - part) + pixels.index_select(axis, last) * part


def _as_rgb(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return np.asarray(upright_rgb(image))
    if isinstance(image, np.ndarray | Tensor):
        array = np.asarray(image)
        if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
            return array
        raise MmptTypeError(
            f"an image is an array of {array.dtype} with shape {array.shape}, expected uint8 and (height, width, 3): "
            "red, green, blue"
        )
    raise MmptTypeError(f"an image is a {type(image).__name__}, expected a Pillow image or an array")
