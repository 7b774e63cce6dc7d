"""Boxes and phrases: overlaps worked by hand, and by counting pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.metrics.metric_table import load_metric
from mmpt.processing.box_overlap import box_iou

SQUARE = [0, 0, 10, 10]


@st.composite
def whole_boxes(draw: st.DrawFn) -> list[int]:
    left, top = draw(st.integers(0, 11)), draw(st.integers(0, 11))
    return [left, top, draw(st.integers(left, 12)), draw(st.integers(top, 12))]


@settings(max_examples=100, deadline=None)
@given(whole_boxes(), whole_boxes())
def test_overlap_is_the_share_of_pixels(one: list[int], other: list[int]) -> None:
    covered = np.zeros((2, 12, 12), dtype=bool)
    for pixels, (x1, y1, x2, y2) in zip(covered, (one, other), strict=True):
        pixels[y1:y2, x1:x2] = True
    union = covered.any(0).sum()
    expected = covered.all(0).sum() / union if union else 0.0
    assert box_iou(np.array([one], float), np.array([other], float))[0] == pytest.approx(expected)


def test_a_box_is_right_from_an_overlap_of_one_half_on() -> None:
    #           the same   exactly 1/2      less than half     beside it
    predicted = [SQUARE, [0, 0, 10, 5], [0, 0, 10, 4.99], [10, 0, 20, 10]]
    measures = load_metric("grounding_accuracy").compute(
        predictions=torch.tensor(predicted), references=np.array([SQUARE] * 4)
    )
    assert (measures["grounding_accuracy_correct"], measures["grounding_accuracy_total"]) == (2, 4)
    assert measures["grounding_accuracy"] == 0.5


def test_a_phrase_is_found_by_any_of_its_boxes() -> None:
    measures = load_metric("phrase_recall").compute(
        predictions=[SQUARE, SQUARE, SQUARE],
        references=[[[50, 50, 60, 60], SQUARE], np.array([[20, 20, 30, 30]]), torch.tensor([SQUARE, SQUARE])],
    )
    assert (measures["phrase_recall_at_1_correct"], measures["phrase_recall_at_1_total"]) == (2, 3)


def test_boxes_of_a_phrase_are_not_merged() -> None:
    halves = [[0, 0, 4, 10], [6, 0, 10, 10]]  # together they cover 80 %, each alone 40 %
    assert load_metric("phrase_recall").compute(predictions=[SQUARE], references=[halves])["phrase_recall_at_1"] == 0.0


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        (
            "grounding_accuracy",
            [[0, 0, np.nan, 1]],
            [SQUARE],
            "predictions: row 0 of the batch has a value that is NaN",
        ),
        ("grounding_accuracy", [[5, 5, 3, 9]], [SQUARE], "box 0 is .5.*, expected x1 <= x2 and y1 <= y2"),
        ("grounding_accuracy", [[0, 0, 1]], [SQUARE], r"predictions are \(1, 3\), expected \(boxes, 4\)"),
        ("grounding_accuracy", [SQUARE, SQUARE], [SQUARE], "different length"),
        ("phrase_recall", [SQUARE, SQUARE], [[SQUARE], []], "references: phrase 1 of the batch has no box"),
        ("phrase_recall", [SQUARE], [SQUARE], r"references are \(4,\), expected \(boxes, 4\)"),
    ],
)
def test_bad_boxes_are_errors(name: str, predictions: list, references: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_metric(name).add_batch(predictions=predictions, references=references)
