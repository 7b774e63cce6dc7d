# Copyright 2026 The mmpt authors. Licensed under the Apache License, Version 2.0.
"""Which proposals become regions, and in which order: the rules of the published extractions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpt.modeling_mmpt.box_geometry import ROUNDING, box_overlaps, suppress


@dataclass(frozen=True)
class Chosen:
    """The regions of an image, in order.

    Args:
        indices: (regions,), their proposals; one may come several times ("perclass").
        labels: (regions,), their classes without the background.
        scores: (regions,), the confidence in `labels`.
    """

    indices: Tensor
    labels: Tensor
    scores: Tensor


def survivors(boxes: Tensor, scores: Tensor, threshold: float, extra: int) -> tuple[Tensor, Tensor]:
    """Suppress all proposals by the score of each class, and return each proposal's best surviving score and its class.

    Args:
        boxes: (proposals, 4).
        scores: (proposals, classes), without the background.

    Returns:
        Two of (proposals,); 0 and class 0 where a proposal survives in no class.
    """
    count, classes = scores.shape
    order = scores.sort(dim=0, descending=True, stable=True).indices  # (ranks, classes)
    overlapping = box_overlaps(boxes, boxes, extra) > threshold + ROUNDING
    overlapping.fill_diagonal_(False)
    gone = torch.zeros(classes, count, dtype=torch.bool, device=boxes.device)
    column = torch.arange(classes, device=boxes.device)
    for place in order:  # all classes at once, each at its next proposal
        stays = ~gone[column, place]
        gone |= overlapping[place] & stays[:, None]
    best, label = scores.masked_fill(gone.T, 0).max(dim=1)
    return best, label


def select_tsv(
    boxes: Tensor, scores: Tensor, *, threshold: float, score: float, least: int, most: int, extra: int
) -> Chosen:
    """Select as bottom-up attention's generate_tsv.py does.

    The regions are in the proposals' order if `least` to `most` of them reach the score, else the best first.

    Args:
        boxes: (proposals, 4) in pixels of the original image.
        scores: (proposals, classes), without the background.
    """
    best, _ = survivors(boxes, scores, threshold, extra)
    indices = (best >= score).nonzero()[:, 0]
    if not least <= len(indices) <= most:
        wanted = least if len(indices) < least else most
        indices = best.sort(descending=True, stable=True).indices[:wanted]
    confidence, labels = scores[indices].max(dim=1)
    return Chosen(indices, labels, confidence)


def select_nms_filter(
    boxes: Tensor, scores: Tensor, *, threshold: float, score: float, least: int, most: int, extra: int
) -> Chosen:
    """Select as VinVL's detector does: the best first, labelled by the class that they survived in."""
    best, label = survivors(boxes, scores, threshold, extra)
    order = best.sort(descending=True, stable=True).indices
    order = order[best[order] > 0]  # those that survive in no class are dropped
    count = min(max(int((best >= score).sum()), least), most)
    indices = order[:count]
    return Chosen(indices, label[indices], best[indices])


def select_maxnms(
    boxes: Tensor, scores: Tensor, *, thresholds: Sequence[float], least: int, most: int, extra: int
) -> Chosen:
    """Suppress the box that each proposal has for its best class, whatever the class, and keep the best.

    Args:
        boxes: (proposals, 4), those of the best class.
        scores: (proposals, classes), without the background.
        thresholds: tried in turn until at least `least` are left; the last holds whatever it leaves.
    """
    confidence, labels = scores.max(dim=1)
    order = confidence.sort(descending=True, stable=True).indices
    kept = order[:0]
    for threshold in thresholds:
        kept = order[suppress(boxes[order], threshold, extra, most)]
        if len(kept) >= least:
            break
    return Chosen(kept, labels[kept], confidence[kept])


def select_perclass(
    boxes: Tensor, scores: Tensor, *, thresholds: Sequence[float], score: float, least: int, most: int, extra: int
) -> Chosen:
    """Select pairs of proposal and class, suppressed class by class, as stock Faster R-CNN does.

    Args:
        boxes: (proposals, classes, 4).
        scores: (proposals, classes), without the background.
        thresholds: tried in turn until at least `least` are left; the last holds whatever it leaves.
    """
    proposals, labels = (scores > score).nonzero(as_tuple=True)
    confidence, order = scores[proposals, labels].sort(descending=True, stable=True)
    proposals, labels = proposals[order], labels[order]
    kept = order[:0]
    for threshold in thresholds:
        kept = suppress(boxes[proposals, labels], threshold, extra, most, groups=labels)
        if len(kept) >= least:
            break
    return Chosen(proposals[kept], labels[kept], confidence[kept])
