# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Boxes of the region detectors: anchors, decoding, overlaps, non-maximum suppression, proposals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 16  # pixels from one cell of res4 to the next
ROUNDING = 1e-6
"""What an overlap may exceed its threshold by: boxes that a convolution's rounding moves overlap by so much more."""

_MAX_GROWTH = math.log(1000 / 16)  # exp of more is no box


@dataclass(frozen=True)
class Geometry:
    """How a detector counts pixels.

    Args:
        extra: added to a side: 1 where x2 is the last pixel of a box.
        shift: taken from x2 and y2 when a box is decoded.
        clamps: whether the growth of a box is bounded.
        filters_first: whether small boxes go before the candidates are chosen, or after it.
        min_size: smallest side that is kept, in pixels of the original image; 0 drops boxes without any area.
        rounded_anchors: Caffe's anchors of whole pixels, or centred ones.
    """

    extra: int
    shift: int
    clamps: bool
    filters_first: bool
    min_size: float
    rounded_anchors: bool


GEOMETRIES = {
    # py-faster-rcnn's generate_anchors and proposal_layer, which bottom-up attention uses
    "caffe": Geometry(extra=1, shift=0, clamps=False, filters_first=True, min_size=16, rounded_anchors=True),
    "detectron2": Geometry(extra=0, shift=0, clamps=True, filters_first=False, min_size=0, rounded_anchors=False),
    # maskrcnn-benchmark
    "maskrcnn": Geometry(extra=1, shift=1, clamps=True, filters_first=False, min_size=0, rounded_anchors=True),
}


def centred_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return detectron2's anchors around 0, (sizes x ratios, 4), ratios innermost."""
    rows = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size * size / ratio)
            height = ratio * width
            rows.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(rows)


def rounded_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return Caffe's anchors around the first cell, (sizes x ratios, 4), ratios innermost.

    Caffe has sizes innermost. Here both kinds have the order of the released weights in PyTorch. The sides of the base,
    a cell of 16 pixels, are rounded half to even before they are scaled (py-faster-rcnn, generate_anchors).
    """
    centre, area = (STRIDE - 1) / 2, STRIDE * STRIDE
    rows = []
    for size in sizes:
        for ratio in ratios:
            base = round(math.sqrt(area / ratio))
            width, height = base * size / STRIDE, round(base * ratio) * size / STRIDE
            half_width, half_height = (width - 1) / 2, (height - 1) / 2
            rows.append([centre - half_width, centre - half_height, centre + half_width, centre + half_height])
    return torch.tensor(rows)


def place_anchors(anchors: Tensor, height: int, width: int) -> Tensor:
    """Return the anchors of every cell, (height x width x anchors, 4), flattened as (row, column, anchor)."""
    rows = torch.arange(height, device=anchors.device, dtype=anchors.dtype) * STRIDE
    columns = torch.arange(width, device=anchors.device, dtype=anchors.dtype) * STRIDE
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1)  # (rows, columns, 4)
    return (corners[:, :, None] + anchors).reshape(-1, 4)


def decode_boxes(boxes: Tensor, deltas: Tensor, geometry: Geometry) -> Tensor:
    """Move and scale boxes (..., 4) by deltas (..., 4) of dx, dy, dw, dh: Girshick et al. 2014, appendix C."""
    width = boxes[..., 2] - boxes[..., 0] + geometry.extra
    height = boxes[..., 3] - boxes[..., 1] + geometry.extra
    dx, dy, dw, dh = deltas.unbind(-1)
    if geometry.clamps:
        dw, dh = dw.clamp(max=_MAX_GROWTH), dh.clamp(max=_MAX_GROWTH)
    x, y = dx * width + (boxes[..., 0] + 0.5 * width), dy * height + (boxes[..., 1] + 0.5 * height)
    half_width, half_height = 0.5 * (dw.exp() * width), 0.5 * (dh.exp() * height)
    return torch.stack(
        [x - half_width, y - half_height, x + half_width - geometry.shift, y + half_height - geometry.shift], dim=-1
    )


def clip_boxes(boxes: Tensor, height: int, width: int, geometry: Geometry) -> Tensor:
    """Return boxes (..., 4) inside an image."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    right, bottom = width - geometry.extra, height - geometry.extra
    return torch.stack([x1.clamp(0, right), y1.clamp(0, bottom), x2.clamp(0, right), y2.clamp(0, bottom)], dim=-1)


def box_overlaps(boxes: Tensor, others: Tensor, extra: int) -> Tensor:
    """Return the intersection over union of boxes (n, 4) with others (m, 4): (n, m)."""
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])
    size = (torch.minimum(boxes[:, None, 2:], others[:, 2:]) - corner + extra).clamp(min=0)
    common = size[..., 0] * size[..., 1]
    union = _areas(boxes, extra)[:, None] + _areas(others, extra) - common
    return torch.where(common > 0, common / union, 0.0)  # boxes without any area overlap with nothing


def suppress(boxes: Tensor, threshold: float, extra: int, limit: int, groups: Tensor | None = None) -> Tensor:
    """Return the positions of the boxes that greedy non-maximum suppression keeps, at most `limit`, in order.

    Args:
        boxes: (n, 4), the best first.
        threshold: a box that overlaps more than this with a better kept one goes.
        groups: (n,); boxes of two groups do not suppress each other.
    """
    waiting = torch.arange(len(boxes), device=boxes.device)
    kept: list[Tensor] = []
    while len(waiting) and len(kept) < limit:
        best, waiting = waiting[:1], waiting[1:]
        kept.append(best)
        stays = box_overlaps(boxes[best], boxes[waiting], extra)[0] <= threshold + ROUNDING
        if groups is not None:
            stays |= groups[waiting] != groups[best]
        waiting = waiting[stays]
    return torch.cat(kept) if kept else waiting


def propose(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    geometry: Geometry,
    *,
    size: tuple[int, int],
    factor: float,
    num_candidates: int,
    num_proposals: int,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Return the proposals (proposals, 4) of an image in its pixels, and their logits; the best first.

    Args:
        logits: (rows, columns, anchors), objectness.
        deltas: (rows, columns, anchors, 4).
        anchors: (anchors, 4).
        size: height and width of the image.
        factor: pixels of the image for one of the original, which the smallest size is given in.
    """
    boxes = place_anchors(anchors, *logits.shape[:2])
    logits, deltas = logits.reshape(-1), deltas.reshape(-1, 4)
    if geometry.filters_first:
        boxes = clip_boxes(decode_boxes(boxes, deltas, geometry), *size, geometry)
        large = _are_large(boxes, geometry, factor)
        boxes, logits = boxes[large], logits[large]
    logits, order = logits.sort(descending=True, stable=True)
    logits, order = logits[:num_candidates], order[:num_candidates]
    boxes = boxes[order]
    if not geometry.filters_first:
        boxes = clip_boxes(decode_boxes(boxes, deltas[order], geometry), *size, geometry)
        large = _are_large(boxes, geometry, factor)
        boxes, logits = boxes[large], logits[large]
    kept = suppress(boxes, threshold, geometry.extra, num_proposals)
    return boxes[kept], logits[kept]


def _areas(boxes: Tensor, extra: int) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)


def _are_large(boxes: Tensor, geometry: Geometry, factor: float) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2] + geometry.extra
    smallest = geometry.min_size * factor
    return (sides >= smallest).all(1) if smallest else (sides > 0).all(1)
