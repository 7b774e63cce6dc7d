"""Feature maps: the last hidden states of an image encoder, arranged as rows and columns of the image."""

from typing import Any

from torch import Tensor

from mmpt.configuration.errors import MmptValueError


def feature_map(encoder: Any, pixel_values: Tensor) -> Tensor:
    """Return the last feature map, (batch, feature, rows, columns).

    Args:
        pixel_values: (batch, channels, height, width).

    Raises:
        ValueError: if the tokens of the encoder do not form a grid of patches.
    """
    output = encoder(pixel_values)
    if "feature_maps" in output:
        return output.feature_maps[-1]
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        return hidden
    rows, columns = _patches(encoder.config, (pixel_values.shape[-2], pixel_values.shape[-1]))
    first = hidden.shape[1] - rows * columns  # class token and registers (DINOv2, DeiT) come before the patches
    registers = getattr(encoder.config, "num_register_tokens", None) or 0
    if not 0 <= first - registers <= 2:
        raise MmptValueError(
            f"{type(encoder).__name__} gives {hidden.shape[1]} tokens for {rows} x {columns} patches, expected up to 2 "
            f"tokens and {registers} registers before the patches, and none after them; it has no regular grid"
        )
    return hidden[:, first:].transpose(1, 2).unflatten(2, (rows, columns))  # (batch, feature, rows, columns)


def _patches(config: Any, size: tuple[int, int]) -> tuple[int, int]:
    patch = config.patch_size
    patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
    stride = 2 ** (len(getattr(config, "depths", [1])) - 1)  # Swin merges 2 x 2 patches after all but the last stage
    height, width = patch_height * stride, patch_width * stride
    if size[0] % height or size[1] % width:
        raise MmptValueError(
            f"images are {size[0]} x {size[1]} pixels (height x width), expected multiples of {height} and {width}, "
            "the size of a patch; change the size in preprocessor_config.json"
        )
    return size[0] // height, size[1] // width
