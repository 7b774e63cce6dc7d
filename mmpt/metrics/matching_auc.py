"""Image-text matching: area under the ROC curve, and accuracy."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Value

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, report
from mmpt.metrics.metric_inputs import class_numbers, finite


class MatchingAuc(MmptMetric):
    """`itm_auc`, and `itm_accuracy`, the fraction of pairs whose more probable class is right.

    The area is the probability that a matched pair has a higher score than a mismatched one, counting ties as one half.
    predictions: (batch, 2) logits or probabilities of mismatched and matched; equal values count as mismatched.
    references: (batch,) 1 for matched, 0 for mismatched. The intervals resample pairs.
    """

    inputs: ClassVar = {"predictions": Value("float64"), "references": Value("int64")}

    def prepare(self, *, predictions: Any, references: Any) -> dict[str, list[Any]]:
        logits = finite("predictions", predictions)
        if logits.numel() and (logits.dim() != 2 or logits.shape[1] != 2):
            raise MmptValueError(f"predictions are {tuple(logits.shape)}, expected (batch, 2) logits")
        labels = class_numbers("references", references)
        if set(labels) - {0, 1}:
            raise MmptValueError(f"references contain {sorted(set(labels))}, expected 1 (matched) or 0 (mismatched)")
        scores = logits.double().reshape(-1, 2)
        return {"predictions": (scores[:, 1] - scores[:, 0]).tolist(), "references": labels}

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        scores, labels = rows["predictions"].to_numpy(), rows["references"].to_numpy()
        if len(np.unique(labels)) < 2:
            raise MmptValueError(
                f"{self.name} got only references of {labels[0]}, expected matched and mismatched pairs; is the "
                "evaluation collator's mismatching off?"
            )
        auc, accuracy = bootstrap(np.stack([scores, labels], axis=1), auc_and_accuracy, self.seed)
        correct = ((scores > 0) == labels).sum()
        return report("itm_auc", auc, len(scores)) | report("itm_accuracy", accuracy, len(scores), correct)


def auc_and_accuracy(counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Statistic of the bootstrap; kinds: (kinds, 2) score and label, sorted."""
    scores, labels = kinds.T
    matched, mismatched = counts * labels, counts * (1 - labels)
    won = np.einsum("dk,dk->d", matched, mismatched.cumsum(axis=1))
    # Kinds are sorted by score, then label, so mismatched pairs come directly before matched pairs of equal score.
    tied = 1 + np.flatnonzero(scores[1:] == scores[:-1])
    half = np.einsum("dk,dk->d", matched[:, tied], mismatched[:, tied - 1]) / 2
    auc = (won - half) / (matched.sum(axis=1) * mismatched.sum(axis=1))
    right = ((scores > 0) == labels).astype(float)[:, None]
    return np.concatenate([auc[:, None], ratios(counts, right, np.ones(len(kinds)))], axis=1)
