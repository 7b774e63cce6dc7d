"""Accuracy of class labels, over all rows and averaged over classes."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Value

from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, report
from mmpt.metrics.metric_inputs import class_numbers


class ClassAccuracy(MmptMetric):
    """`accuracy`, and `balanced_accuracy`, the mean of the per-class accuracies over the classes of the references.

    predictions: (batch,) class numbers or (batch, classes) scores. references: (batch,) class numbers. The interval
    resamples rows.
    """

    inputs: ClassVar = {"predictions": Value("int64"), "references": Value("int64")}

    def prepare(self, *, predictions: Any, references: Any) -> dict[str, list[int]]:
        return {
            "predictions": class_numbers("predictions", predictions),
            "references": class_numbers("references", references),
        }

    def measure(self, rows: dict[str, pa.Array], per_class: bool = False) -> dict[str, float]:
        """Return the measures; `per_class` adds `accuracy_class_<number>`, `_correct`, `_total`, without interval."""
        labels = rows["references"].to_numpy()
        hits = rows["predictions"].to_numpy() == labels
        classes, of_class = np.unique(labels, return_inverse=True)
        overall, balanced = bootstrap(np.stack([of_class, hits], axis=1), class_accuracies, self.seed)
        measures = report("accuracy", overall, len(hits), hits.sum()) | report("balanced_accuracy", balanced, len(hits))
        if per_class:
            totals, correct = np.bincount(of_class), np.bincount(of_class, weights=hits).astype(int)
            for label, right, total in zip(classes.tolist(), correct.tolist(), totals.tolist(), strict=True):
                name = f"accuracy_class_{label}"
                measures |= {name: right / total, f"{name}_correct": right, f"{name}_total": total}
        return measures


def class_accuracies(counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Statistic of the bootstrap; kinds: (kinds, 2) class and whether the row is right, sorted."""
    starts = np.flatnonzero(np.diff(kinds[:, 0], prepend=-1))
    of_class = np.add.reduceat(counts * kinds[:, 1], starts, axis=1) / np.add.reduceat(counts, starts, axis=1)
    return np.concatenate(
        [ratios(counts, kinds[:, 1:], np.ones(len(kinds))), np.nanmean(of_class, axis=1, keepdims=True)], axis=1
    )
