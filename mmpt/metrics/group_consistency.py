"""Consistency of NLVR and NLVR2 (Suhr et al. 2017, 2019): a group counts if every row of it is right."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Value

from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, encode, report
from mmpt.metrics.metric_inputs import as_ids, class_numbers


class GroupConsistency(MmptMetric):
    """`consistency`, the share of groups whose every row is right, and `accuracy`, the share of rows.

    predictions: (batch,) class numbers or (batch, classes) scores. references: (batch,) class numbers. groups: the id
    of each row's group, in NLVR the sentence that its images share. Both intervals draw groups, because the rows of a
    group depend on each other.
    """

    inputs: ClassVar = {"predictions": Value("int64"), "references": Value("int64"), "groups": Value("string")}

    def prepare(self, *, predictions: Any, references: Any, groups: Any) -> dict[str, list[Any]]:
        return {
            "predictions": class_numbers("predictions", predictions),
            "references": class_numbers("references", references),
            "groups": as_ids("groups", groups),
        }

    def measure(self, rows: dict[str, pa.Array]) -> dict[str, float]:
        hits = rows["predictions"].to_numpy() == rows["references"].to_numpy()
        group, _ = encode(rows["groups"])
        sizes, correct = np.bincount(group), np.bincount(group, weights=hits).astype(int)
        consistency, accuracy = bootstrap(np.stack([correct, sizes], axis=1), group_shares, self.seed)
        consistent = (correct == sizes).sum()
        return report("consistency", consistency, len(sizes), consistent) | report(
            "accuracy", accuracy, len(hits), hits.sum()
        )


def group_shares(counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The statistic of the bootstrap; kinds: (kinds, 2) right rows and rows of a group."""
    whole = (kinds[:, :1] == kinds[:, 1:]).astype(float)
    return np.concatenate(
        [ratios(counts, whole, np.ones(len(kinds))), ratios(counts, kinds[:, :1], kinds[:, 1])], axis=1
    )
