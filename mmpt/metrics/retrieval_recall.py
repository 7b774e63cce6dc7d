"""Recall at k and median rank of image-text retrieval (Karpathy and Fei-Fei 2015), in both directions."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import Value

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.bootstrap import bootstrap, ratios
from mmpt.metrics.metric_base import MmptMetric, encode, report
from mmpt.metrics.metric_inputs import as_ids, class_numbers, finite

DIRECTIONS = ("text_to_image", "image_to_text")
RECALL_AT = (1, 5, 10)


class RetrievalRecall(MmptMetric):
    """`<direction>_recall_at_1`, `_5`, `_10` and `<direction>_median_rank`, for text_to_image and image_to_text.

    A row is a text, an image, their score and whether they match; rows may be in any order. predictions: (batch,)
    scores, higher for a better match. references: (batch,) 1 if text and image match, else 0. text_ids, image_ids:
    (batch,) ids; a repeated pair counts once.

    The rank of a query is 1 + the number of non-matching candidates whose score is at least that of its best matching
    candidate. Ties therefore count against the model, and with several captions the best one counts. A query without
    a matching candidate has no rank; `<direction>_without_match` is the number of these, which remain candidates in
    the other direction. The intervals resample queries.
    """

    inputs: ClassVar = {
        "predictions": Value("float64"),
        "references": Value("int64"),
        "text_ids": Value("string"),
        "image_ids": Value("string"),
    }
    key: ClassVar = ("text_ids", "image_ids")

    def prepare(self, *, predictions: Any, references: Any, text_ids: Any, image_ids: Any) -> dict[str, list[Any]]:
        scores, labels = finite("predictions", predictions), class_numbers("references", references)
        if scores.dim() != 1:
            raise MmptValueError(f"predictions are {tuple(scores.shape)}, expected (batch,) matching scores")
        if set(labels) - {0, 1}:
            raise MmptValueError(f"references contain {sorted(set(labels))}, expected 1 (match) or 0 (no match)")
        return {
            "predictions": scores.double().tolist(),
            "references": labels,
            "text_ids": as_ids("text_ids", text_ids),
            "image_ids": as_ids("image_ids", image_ids),
        }

    def measure(self, rows: dict[str, pa.Array], directions: Sequence[str] = DIRECTIONS) -> dict[str, float]:
        """Return the measures of `directions`; leave out a direction whose queries lack candidates.

        Raises:
            ValueError: if the queries of a direction have different numbers of candidates.
        """
        scores, belongs = rows["predictions"].to_numpy(), rows["references"].to_numpy() == 1
        measures: dict[str, float] = {}
        for direction in directions:
            if direction not in DIRECTIONS:
                raise MmptValueError(f"direction is {direction!r}, expected one of {DIRECTIONS}")
            query, names = encode(rows["text_ids" if direction == "text_to_image" else "image_ids"])
            candidates = np.bincount(query)
            if candidates.min() < candidates.max():
                few, many = int(candidates.argmin()), int(candidates.argmax())
                raise MmptValueError(
                    f"{direction}: query {names[few].as_py()!r} has {candidates[few]} candidates and "
                    f"{names[many].as_py()!r} has {candidates[many]}; score every text with every image, or give "
                    "directions= without this one"
                )
            best = np.full(len(names), -np.inf)
            np.maximum.at(best, query[belongs], scores[belongs])
            ahead = np.bincount(query, weights=~belongs & (scores >= best[query]), minlength=len(names))
            measures |= _recalls(direction, np.where(best > -np.inf, 1 + ahead, 0).astype(int), self.seed)
        return measures


def measure_score_matrix(scores: Any, image_of_text: Any, seed: int = 0) -> dict[str, float]:
    """Return the measures of `RetrievalRecall` from a full score matrix, in a single process.

    Args:
        scores: (texts, images), higher for a better match.
        image_of_text: (texts,), the column of each text's image.
        seed: seed of the bootstrap.

    Raises:
        ValueError: if the shapes do not match, a score is not finite, or an image number is out of range.
    """
    table = finite("scores", scores).float().numpy()
    columns = np.array(class_numbers("image_of_text", image_of_text), dtype=int)
    if table.ndim != 2 or len(table) != len(columns) or not table.size:
        raise MmptValueError(f"scores are {table.shape} for {len(columns)} texts, expected (texts, images)")
    if not 0 <= columns.min() <= columns.max() < table.shape[1]:
        raise MmptValueError(f"image_of_text is {columns.min()} to {columns.max()}, expected 0 to {table.shape[1] - 1}")
    belongs = columns[:, None] == np.arange(table.shape[1])
    measures: dict[str, float] = {}
    for direction, of_query, own in (("text_to_image", table, belongs), ("image_to_text", table.T, belongs.T)):
        best = of_query.max(axis=1, where=own, initial=-np.inf)
        ahead = (~own & (of_query >= best[:, None])).sum(axis=1)
        measures |= _recalls(direction, np.where(own.any(axis=1), 1 + ahead, 0), seed)
    return measures


def _recalls(direction: str, ranks: np.ndarray, seed: int) -> dict[str, float]:
    """Return the measures of a direction; ranks: (queries,), 0 for a query without a matching candidate."""
    ranked = ranks[ranks > 0]
    if not len(ranked):
        raise MmptValueError(f"{direction}: none of {len(ranks)} queries has a match; are the references all 0?")
    values = bootstrap(ranked[:, None], recalls_and_median, seed)
    measures = {f"{direction}_without_match": len(ranks) - len(ranked)}
    for k, value in zip(RECALL_AT, values, strict=False):
        measures |= report(f"{direction}_recall_at_{k}", value, len(ranked), (ranked <= k).sum())
    return measures | report(f"{direction}_median_rank", values[-1], len(ranked))


def recalls_and_median(counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Statistic of the bootstrap; kinds: (kinds, 1) ranks, sorted."""
    found = (kinds <= np.array(RECALL_AT)).astype(float)
    up_to, queries = counts.cumsum(axis=1), int(counts[0].sum())
    middle = [kinds[(up_to > position).argmax(axis=1)] for position in ((queries - 1) // 2, queries // 2)]
    return np.concatenate([ratios(counts, found, np.ones(len(kinds))), (middle[0] + middle[1]) / 2], axis=1)
