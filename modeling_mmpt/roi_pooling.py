# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Pooling of regions from a feature map: RoIPool (Girshick 2015, arXiv 1504.08083) and RoIAlign (He et al. 2017)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmpt.modeling_mmpt.box_geometry import STRIDE


class MaxPooler:
    """RoIPool: the maximum over each cell of a region, 0 where a cell lies outside.

    The map is reduced once, over windows of 1, 2, 4, ... rows and columns; a cell's maximum is then the largest of the
    four windows in its corners.

    Args:
        image: the map, (channels, rows, columns).
        resolution: cells of a region in each direction.
    """

    def __init__(self, image: Tensor, resolution: int) -> None:
        self.resolution = resolution
        self._rows, self._columns = image.shape[1:]
        # A cell of the largest region has so many rows or columns at most.
        longest = math.ceil(max(self._rows, self._columns) / resolution) + 2
        self._powers = longest.bit_length()
        table = image.permute(1, 2, 0).contiguous()
        tables: list[Tensor] = []
        for power in range(self._powers):
            tables.append(table if power == 0 else _reduced(tables[-self._powers], 0, power))
            for across in range(1, self._powers):
                tables.append(_reduced(tables[-1], 1, across))
        self._cells = torch.stack(tables).flatten(0, 2)  # (powers x powers x rows x columns, channels)

    def __call__(self, boxes: Tensor) -> Tensor:
        """Return the maps (regions, resolution, resolution, channels) of boxes (regions, 4) in pixels."""
        top, bottom = _cell_ranges(boxes[:, 1], boxes[:, 3], self._rows, self.resolution)
        left, right = _cell_ranges(boxes[:, 0], boxes[:, 2], self._columns, self.resolution)
        power_y, last_y = _windows(top, bottom)
        power_x, last_x = _windows(left, right)
        table = power_y[:, :, None] * self._powers + power_x[:, None]  # (regions, resolution, resolution)
        result = None
        for y in (top, last_y):
            for x in (left, last_x):
                y_in, x_in = y.clamp(0, self._rows - 1)[:, :, None], x.clamp(0, self._columns - 1)[:, None]
                found = self._cells[(table * self._rows + y_in) * self._columns + x_in]
                result = found if result is None else torch.maximum(result, found)
        assert result is not None
        result[((bottom <= top)[:, :, None] | (right <= left)[:, None])] = 0
        return result


class AlignPooler:
    """RoIAlign without the half-pixel shift and with as many samples as a cell has map cells.

    Args:
        image: the map, (channels, rows, columns).
        resolution: cells in each direction.
    """

    def __init__(self, image: Tensor, resolution: int) -> None:
        self.resolution = resolution
        self._dtype, self._image = image.dtype, image.float()

    def __call__(self, boxes: Tensor) -> Tensor:
        """Return the maps (regions, resolution, resolution, channels) of boxes (regions, 4) in pixels."""
        maps = []
        for x1, y1, x2, y2 in (boxes.float() / STRIDE).tolist():
            rows = self._weights(y1, max(y2 - y1, 1.0), self._image.shape[1])
            columns = self._weights(x1, max(x2 - x1, 1.0), self._image.shape[2])
            # Bilinear samples of a grid are a product over rows and columns, and so is their mean.
            pooled = rows @ (self._image @ columns.T)  # (channels, resolution, resolution)
            maps.append(pooled.permute(1, 2, 0).to(self._dtype))
        return torch.stack(maps)

    def _weights(self, start: float, length: float, cells: int) -> Tensor:
        """Return how much each cell of a line counts in each part of a region, (resolution, cells)."""
        samples = max(math.ceil(length / self.resolution), 1)
        steps = (torch.arange(self.resolution * samples, dtype=torch.float64) + 0.5) / samples
        places = start + steps * (length / self.resolution)
        inside = (places >= -1) & (places <= cells)
        places = places.clamp(0, cells - 1)
        low = places.floor().long().clamp(max=cells - 1)
        high = (low + 1).clamp(max=cells - 1)
        part = places - low
        weights = torch.zeros(len(places), cells, dtype=torch.float64)
        weights.scatter_add_(1, low[:, None], (1 - part)[:, None])
        weights.scatter_add_(1, high[:, None], part[:, None])
        weights *= inside[:, None]
        return weights.unflatten(0, (-1, samples)).mean(1).to(self._image)


def split_phases(maps: Tensor, dilation: int) -> Tensor:
    """Return maps (regions, n, n, channels) as (regions x dilation**2, n / dilation, n / dilation, channels).

    A convolution with this dilation sees every dilation-th cell alone: it is a plain one on each of these parts.
    """
    if dilation == 1:
        return maps
    parts = maps.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))  # (regions, n/d, d, n/d, d, channels)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _cell_ranges(low: Tensor, high: Tensor, cells: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Return where each part of a line starts and ends, two of (regions, resolution); in float32, as Caffe counts."""
    start, end = _round_away(low.float() / STRIDE), _round_away(high.float() / STRIDE)
    length = (end - start + 1).clamp(min=1)
    size = length / resolution
    parts = torch.arange(resolution, device=low.device, dtype=torch.float32)
    first = (parts * size[:, None]).floor() + start[:, None]
    last = ((parts + 1) * size[:, None]).ceil() + start[:, None]
    return first.clamp(0, cells).long(), last.clamp(0, cells).long()


def _windows(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the power of the largest window inside each range, and where one starts that ends with the range."""
    power = torch.frexp((last - first).clamp(min=1).float()).exponent.long() - 1
    return power, last - 2**power


def _reduced(table: Tensor, axis: int, power: int) -> Tensor:
    """Return the maxima of windows twice as long, 2**power cells; those that leave the map are never read."""
    half = 2 ** (power - 1)
    places = (torch.arange(table.shape[axis], device=table.device) + half).clamp(max=table.shape[axis] - 1)
    return torch.maximum(table, table.index_select(axis, places))


def _round_away(values: Tensor) -> Tensor:
    return values.sign() * (values.abs() + 0.5).floor()


POOLERS: dict[str, Callable[[Tensor, int], MaxPooler | AlignPooler]] = {"max": MaxPooler, "align": AlignPooler}
