"""Decode stored rows to `Regions`."""

from typing import Any

import numpy as np
import torch

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.regions import Regions
from mmpt.processing.store.format import PAYLOADS, ShardBatch


def decode_regions(
    batch: ShardBatch, row: int, image_id: str, feature_dim: int, num_classes: int | None, source: str
) -> Regions:
    """Return the regions of a row; all arrays but class_probs are views of the batch.

    Args:
        image_id: id of the row.
        source: name of the store in errors.

    Raises:
        ValueError: if the size of an array does not match the number of regions, or class_probs do not sum to 1.
    """
    width, height, count = batch.numbers(row)
    widths = {"features": feature_dim, "boxes": 4, "class_probs": num_classes or 0}
    arrays: dict[str, Any] = {}
    for key in batch.present:
        payload = batch.payload(key, row)
        if payload is None:
            continue
        dtype, columns = PAYLOADS[key], widths.get(key)
        shape = (count,) if columns is None else (count, columns)
        if payload.size != dtype.itemsize * count * (1 if columns is None else columns):
            raise _damaged(image_id, source, f"{key} are {payload.size} bytes, expected an array of shape {shape}")
        values = payload.view(dtype)
        arrays[key] = values if columns is None else values.reshape(shape)
    if "class_probs" in arrays:
        # After float16 rounding the sums are 1 +- 1e-3, but the target of a KL divergence must be a distribution.
        # torch converts float16 to float32 30 times as fast as NumPy.
        probs = torch.from_numpy(arrays["class_probs"].copy()).float().numpy()
        sums = probs.sum(1, keepdims=True)
        if not (np.abs(sums - 1) < 0.1).all():
            raise _damaged(image_id, source, "class_probs do not sum to 1")
        probs /= sums
        arrays["class_probs"] = probs
    return Regions(width=width, height=height, image_id=image_id, **arrays)


def _damaged(image_id: str, source: str, fault: str) -> MmptValueError:
    return MmptValueError(f"image {image_id!r} in {source}: {fault}; it is damaged, validate(deep=True) shows where")
