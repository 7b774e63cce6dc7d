"""Consistency of NLVR and NLVR2: the fraction of groups with every row right (Suhr et al. 2017, 2019)."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Value

from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, encode, report
from mmpt.metrics.metric_inputs import as_ids, class_numbers


class GroupConsistency(MmptMetric):
    """`consistency`, the fraction of groups with every row right, and `accuracy`, the fraction of right rows.

    predictions: (batch,) class numbers or (batch, classes) scores. references: (batch,) class numbers. groups: (batch,)
    group ids; in NLVR the sentence is the group. Both intervals resample groups, because the rows of a group are not
    independent.
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
    """Statistic of the bootstrap; kinds: (kinds, 2) number of right rows and number of rows of a group."""
    whole = (kinds[:, :1] == kinds[:, 1:]).astype(float)
    return np.concatenate(
        [ratios(counts, whole, np.ones(len(kinds))), ratios(counts, kinds[:, :1], kinds[:, 1])], axis=1
    )
