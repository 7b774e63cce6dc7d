"""Convert and check inputs of metrics: arrays, tensors and lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.configuration.errors import MmptTypeError, MmptValueError


def as_tensor(name: str, values: Any) -> Tensor:
    """Return a CPU tensor from an array, a tensor, a list of these, or numbers.

    Raises:
        ValueError: if the rows differ in shape, or are not numbers.
    """
    try:
        if isinstance(values, Sequence) and any(isinstance(row, (Tensor, np.ndarray)) for row in values):
            return torch.stack([torch.as_tensor(row).detach().cpu() for row in values])
        return torch.as_tensor(values).detach().cpu()
    except (ValueError, TypeError, RuntimeError) as error:
        raise MmptValueError(f"{name} are not numbers with one shape per row: {error}") from error


def finite(name: str, values: Any) -> Tensor:
    """Return a tensor as `as_tensor` does, and check that it is finite.

    Raises:
        ValueError: as in `as_tensor`, and if a value is NaN or infinite; the message has the first such row.
    """
    tensor = as_tensor(name, values)
    if tensor.is_floating_point() and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
        row = int((~tensor.isfinite()).nonzero()[0, 0])
        raise MmptValueError(
            f"{name}: row {row} of the batch has a value that is NaN or infinite, expected finite numbers; "
            "did the model diverge, or half precision overflow?"
        )
    return tensor


def class_numbers(name: str, values: Any) -> list[int]:
    """Return class numbers, from (batch,) integers or, for predictions, the largest of (batch, classes) scores.

    Raises:
        ValueError: if the shape is wrong, or (batch,) numbers are not integers or are negative.
    """
    tensor = finite(name, values)
    if tensor.dim() == 2 and name == "predictions":
        return tensor.argmax(-1).tolist()
    if tensor.dim() != 1 or (tensor.is_floating_point() and tensor.numel()):
        scores = " or (batch, classes) scores" if name == "predictions" else ""
        raise MmptValueError(
            f"{name} are {tuple(tensor.shape)} {tensor.dtype}, expected (batch,) integer class numbers{scores}"
        )
    numbers = tensor.long()
    if numbers.numel() and int(numbers.min()) < 0:
        raise MmptValueError(
            f"{name} contain {int(numbers.min())}, expected class numbers from 0; leave out rows without a label"
        )
    return numbers.tolist()


def as_ids(name: str, values: Any) -> list[str]:
    """Return ids as strings, from strings or integers.

    Raises:
        TypeError: if one is of another type.
    """
    listed = values.tolist() if isinstance(values, (Tensor, np.ndarray)) else list(values)
    for value in listed:
        if not isinstance(value, (str, int, np.integer)) or isinstance(value, bool):
            raise MmptTypeError(f"{name} contain {value!r}, expected strings or integers")
    return [str(value) for value in listed]
