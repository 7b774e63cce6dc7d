"""Accuracy, consistency and matching: against scikit-learn, and by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from mmpt.metrics.class_accuracy import class_accuracies
from mmpt.metrics.matching_auc import auc_and_accuracy
from mmpt.metrics.metric_table import load_metric

DRAW = np.random.default_rng(0)
LABELS = DRAW.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
GUESSES = np.where(DRAW.random(300) < 0.6, LABELS, DRAW.integers(0, 4, 300))


def test_accuracy_is_that_of_scikit_learn() -> None:
    measures = load_metric("accuracy").compute(predictions=GUESSES, references=LABELS)
    assert measures["accuracy"] == accuracy_score(LABELS, GUESSES)
    assert measures["accuracy_correct"] == accuracy_score(LABELS, GUESSES, normalize=False)
    assert measures["accuracy_total"] == measures["balanced_accuracy_total"] == 300
    assert measures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(LABELS, GUESSES))


def test_per_class_counts_add_up() -> None:
    measures = load_metric("accuracy").compute(predictions=GUESSES, references=LABELS, per_class=True)
    for label in range(4):
        of_class = label == LABELS
        assert measures[f"accuracy_class_{label}"] == pytest.approx((GUESSES == LABELS)[of_class].mean())
        assert measures[f"accuracy_class_{label}_total"] == of_class.sum()
    assert sum(measures[f"accuracy_class_{label}_correct"] for label in range(4)) == measures["accuracy_correct"]
    assert "accuracy_class_4" not in measures


def test_the_best_of_scores_is_the_prediction() -> None:
    scores = torch.tensor([[0.1, 2.0], [3.0, 0.0], [0.0, 1.0]], dtype=torch.bfloat16)
    measures = load_metric("accuracy").compute(predictions=scores, references=torch.tensor([1, 0, 0]))
    assert (measures["accuracy_correct"], measures["accuracy_total"]) == (2, 3)


def test_drawn_accuracies_are_those_of_scikit_learn_on_the_drawn_rows() -> None:
    kinds, often = np.unique(np.stack([LABELS, GUESSES == LABELS], axis=1), axis=0, return_counts=True)
    counts = np.random.default_rng(1).multinomial(40, often / 300, size=5)
    for row, (accuracy, balanced) in zip(counts, class_accuracies(counts, kinds), strict=True):
        labels, hits = np.repeat(kinds, row, axis=0).T
        guesses = np.where(hits == 1, labels, 9)
        assert accuracy == pytest.approx(accuracy_score(labels, guesses))
        expected = np.mean([hits[labels == label].mean() for label in np.unique(labels)])
        assert balanced == pytest.approx(expected)


def test_a_group_is_consistent_if_every_row_of_it_is_right() -> None:
    #          a a a  b b  c  d d: a is right, b is not, c is, d is not though its first row is
    measures = load_metric("consistency").compute(
        predictions=[1, 0, 1, 1, 1, 0, 1, 0],
        references=[1, 0, 1, 0, 0, 0, 1, 1],
        groups=["a", "a", "a", "b", "b", "c", "d", "d"],
    )
    assert (measures["consistency_correct"], measures["consistency_total"]) == (2, 4)
    assert (measures["accuracy_correct"], measures["accuracy_total"]) == (5, 8)
    assert (measures["consistency"], measures["accuracy"]) == (0.5, 0.625)


def test_a_repeated_row_neither_breaks_nor_makes_a_group() -> None:
    batch = {"predictions": [1, 0, 1], "references": [1, 1, 1], "groups": [7, 7, 8], "ids": [0, 1, 2]}
    metric = load_metric("consistency")
    metric.add_batch(**batch)
    metric.add_batch(**batch)
    measures = metric.compute()
    assert (measures["consistency_correct"], measures["consistency_total"], measures["accuracy_total"]) == (1, 2, 3)


@pytest.mark.parametrize("ties", [False, True])
def test_area_under_the_curve_is_that_of_scikit_learn(ties: bool) -> None:
    labels = DRAW.integers(0, 2, 200)
    logits = DRAW.normal(size=(200, 2)) + labels[:, None] * np.array([0.0, 0.8])
    logits = logits.round() if ties else logits
    measures = load_metric("itm").compute(predictions=logits, references=labels)
    score = logits[:, 1] - logits[:, 0]
    assert measures["itm_auc"] == pytest.approx(roc_auc_score(labels, score))
    assert measures["itm_accuracy"] == accuracy_score(labels, logits.argmax(1))
    assert measures["itm_accuracy_correct"] == accuracy_score(labels, logits.argmax(1), normalize=False)
    assert measures["itm_auc_low"] < measures["itm_auc"] < measures["itm_auc_high"]


def test_drawn_areas_are_those_of_scikit_learn_with_weights() -> None:
    labels, score = DRAW.integers(0, 2, 60), DRAW.integers(-4, 5, 60)
    kinds, often = np.unique(np.stack([score, labels], axis=1).astype(float), axis=0, return_counts=True)
    counts = np.random.default_rng(2).multinomial(60, often / 60, size=20).astype(float)
    for row, (area, accuracy) in zip(counts, auc_and_accuracy(counts, kinds), strict=True):
        assert area == pytest.approx(roc_auc_score(kinds[:, 1], kinds[:, 0], sample_weight=row))
        assert accuracy == pytest.approx(accuracy_score(kinds[:, 1], kinds[:, 0] > 0, sample_weight=row))


@pytest.mark.parametrize(
    ("name", "batch", "message"),
    [
        ("accuracy", {"predictions": [1.0, 0.0], "references": [1, 0]}, "expected .batch,. integer class numbers or"),
        ("accuracy", {"predictions": [1, 0], "references": [[1], [0]]}, "references are .2, 1. torch.int64, expected"),
        (
            "accuracy",
            {"predictions": [[0.0, np.nan]], "references": [0]},
            "predictions: row 0 of the batch has a value",
        ),
        ("accuracy", {"predictions": ["cat"], "references": [0]}, "predictions are not numbers with one shape per row"),
        ("consistency", {"predictions": [1], "references": [1]}, "expected .'predictions', 'references', 'groups'"),
        ("itm", {"predictions": [0.3], "references": [1]}, r"predictions are \(1,\), expected \(batch, 2\) logits"),
        ("itm", {"predictions": [[0.0, np.inf]], "references": [1]}, "NaN or infinite, expected finite numbers"),
        ("itm", {"predictions": [[0.0, 1.0]], "references": [2]}, "references contain .2., expected 1 .matched. or 0"),
        ("accuracy", {"predictions": [1], "references": [-100]}, "references contain -100, .* rows without a label"),
    ],
)
def test_bad_inputs_are_errors(name: str, batch: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_metric(name).add_batch(**batch)


def test_matching_needs_both_kinds_of_pairs() -> None:
    with pytest.raises(ValueError, match="got only references of 1, expected matched and mismatched pairs"):
        load_metric("itm").compute(predictions=[[0.0, 1.0]], references=[1])
