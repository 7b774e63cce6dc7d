"""Grounding accuracy: a predicted box is right if its intersection over union (IoU) with a true box is at least 0.5.

Referring expressions have one true box (Kazemzadeh et al. 2014); phrases of Flickr30k Entities may have several
(Plummer et al. 2015).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from datasets import List, Value
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, report
from mmpt.metrics.metric_inputs import finite
from mmpt.processing.box_overlap import box_iou

THRESHOLD = 0.5
BOX = List(Value("float64"), length=4)


class GroundingAccuracy(MmptMetric):
    """`grounding_accuracy`, the fraction of texts whose predicted box has an IoU of at least 0.5 with the true box.

    predictions, references: (batch, 4), x1 y1 x2 y2 in pixels. Sides are x2 - x1 and y2 - y1. The interval resamples
    texts.
    """

    inputs: ClassVar = {"predictions": BOX, "references": BOX}

    def prepare(self, *, predictions: Any, references: Any) -> dict[str, list[list[float]]]:
        return {
            "predictions": boxes("predictions", predictions).tolist(),
            "references": boxes("references", references).tolist(),
        }

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        predicted, true = (_table(rows[name]) for name in ("predictions", "references"))
        return _share_right("grounding_accuracy", box_iou(predicted, true) >= THRESHOLD, self.seed)


class PhraseRecall(MmptMetric):
    """`phrase_recall_at_1`, the fraction of phrases whose predicted box has an IoU of at least 0.5 with any true box.

    predictions: (batch, 4), the best box of each phrase, x1 y1 x2 y2 in pixels. references: for each phrase a list of
    one or more true boxes; like the benchmark, leave out phrases without a box. The interval resamples phrases.
    """

    inputs: ClassVar = {"predictions": BOX, "references": List(BOX)}

    def prepare(self, *, predictions: Any, references: Sequence[Any]) -> dict[str, list[Any]]:
        sizes = [len(true) for true in references]
        if 0 in sizes:
            raise MmptValueError(f"references: phrase {sizes.index(0)} of the batch has no box; leave such phrases out")
        true = iter(boxes("references", [box for phrase in references for box in phrase]).tolist())
        return {
            "predictions": boxes("predictions", predictions).tolist(),
            "references": [list(islice(true, size)) for size in sizes],
        }

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        true = rows["references"]
        phrase = true.value_parent_indices().to_numpy()
        overlaps = box_iou(_table(rows["predictions"])[phrase], _table(true.flatten()))
        hits = np.bincount(phrase, weights=overlaps >= THRESHOLD, minlength=len(true)) > 0
        return _share_right("phrase_recall_at_1", hits, self.seed)


def boxes(name: str, values: Any) -> Tensor:
    """Return a (boxes, 4) tensor.

    Raises:
        ValueError: if the shape is wrong, or a box has x1 > x2 or y1 > y2.
    """
    tensor = finite(name, values)
    if not tensor.numel():
        return torch.zeros(0, 4)
    if tensor.dim() != 2 or tensor.shape[-1] != 4:
        raise MmptValueError(f"{name} are {tuple(tensor.shape)}, expected (boxes, 4), x1 y1 x2 y2 in pixels")
    inverted = (tensor[:, :2] > tensor[:, 2:]).any(-1)
    if inverted.any():
        row = int(inverted.nonzero()[0, 0])
        raise MmptValueError(
            f"{name}: box {row} is {tensor[row].tolist()}, expected x1 <= x2 and y1 <= y2; is it x, y, width, height?"
        )
    return tensor.double()


def _table(column: pa.Array) -> np.ndarray:
    return column.flatten().to_numpy().reshape(-1, 4)


def _share_right(name: str, hits: np.ndarray, seed: int) -> dict[str, float]:
    (share,) = bootstrap(hits[:, None], lambda counts, kinds: ratios(counts, kinds, np.ones(len(kinds))), seed)
    return report(name, share, len(hits), hits.sum())
