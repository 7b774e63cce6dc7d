"""Recall at k and median rank: by hand, against scikit-learn, and rows against the matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from mmpt.metrics.metric_table import load_metric
from mmpt.metrics.retrieval_recall import DIRECTIONS, measure_score_matrix, recalls_and_median


def as_rows(scores: np.ndarray, image_of_text: np.ndarray) -> dict[str, np.ndarray]:
    texts, images = (axis.ravel() for axis in np.indices(scores.shape))
    belongs = (image_of_text[texts] == images).astype(int)
    return {"predictions": scores.ravel(), "references": belongs, "text_ids": texts, "image_ids": images}


# Four texts, three images; texts 0 and 1 are of image 0, text 2 of image 1, text 3 of image 2.
IMAGE_OF_TEXT = np.array([0, 0, 1, 2])
SCORES = np.array(
    [
        [0.9, 0.1, 0.2],  # rank 1
        [0.3, 0.8, 0.4],  # two are ahead: rank 3
        [0.5, 0.5, 0.1],  # a tie counts against: rank 2
        [0.6, 0.7, 0.8],  # rank 1
    ]
)
# Images: image 0 finds text 0 first, rank 1; image 1 has texts 1 (0.8) and 3 (0.7) ahead of text 2: rank 3; image 2: 1.


def test_ranks_by_hand() -> None:
    measures = load_metric("retrieval_recall").compute(**as_rows(SCORES, IMAGE_OF_TEXT))
    assert measures["text_to_image_recall_at_1_correct"] == 2
    assert measures["text_to_image_recall_at_1_total"] == 4
    assert measures["text_to_image_recall_at_5"] == 1.0
    assert measures["text_to_image_median_rank"] == 1.5  # of 1, 3, 2, 1
    assert measures["image_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert measures["image_to_text_recall_at_10_correct"] == 3
    assert measures["image_to_text_median_rank"] == 1.0
    assert measures["text_to_image_without_match"] == measures["image_to_text_without_match"] == 0


def test_equal_scores_find_nothing() -> None:
    measures = measure_score_matrix(np.zeros((20, 20)), np.arange(20))
    for direction in DIRECTIONS:
        assert measures[f"{direction}_recall_at_10"] == 0.0
        assert measures[f"{direction}_median_rank"] == 20.0


@pytest.mark.parametrize("place", [1, 5, 10])
def test_recall_of_distinct_scores_is_top_k_accuracy_of_scikit_learn(place: int) -> None:
    scores = np.random.default_rng(0).normal(size=(60, 20))
    image_of_text = np.arange(60) % 20
    scores[np.arange(60), image_of_text] += 1
    measures = measure_score_matrix(scores, image_of_text)
    expected = top_k_accuracy_score(image_of_text, scores, k=place, labels=np.arange(20))
    assert measures[f"text_to_image_recall_at_{place}"] == pytest.approx(expected)
    single = measure_score_matrix(scores[:20], image_of_text[:20])  # a caption an image: both ways are one problem
    assert single[f"image_to_text_recall_at_{place}"] == pytest.approx(
        top_k_accuracy_score(np.arange(20), scores[:20].T, k=place, labels=np.arange(20))
    )


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    texts, images = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    score = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    scores = draw(st.lists(st.lists(score, min_size=images, max_size=images), min_size=texts, max_size=texts))
    return np.array(scores), np.array(draw(st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts)))


@settings(max_examples=25, deadline=None)
@given(matrices(), st.randoms())
def test_rows_in_any_order_and_batch_measure_what_the_matrix_does(case, shuffle) -> None:
    scores, image_of_text = case
    rows = as_rows(scores, image_of_text)
    order = np.array(shuffle.sample(range(scores.size), scores.size))
    metric = load_metric("retrieval_recall")
    for chunk in np.array_split(order, min(3, len(order))):
        metric.add_batch(**{name: values[chunk] for name, values in rows.items()})
    metric.add_batch(**{name: values[order[:2]] for name, values in rows.items()})  # pairs that come again
    assert metric.compute() == measure_score_matrix(scores, image_of_text)


@settings(max_examples=50, deadline=None)
@given(matrices())
def test_ranks_are_places_in_a_list_sorted_against_the_model(case) -> None:
    scores, image_of_text = case
    measures = measure_score_matrix(scores, image_of_text)
    for direction, table, own in (
        ("text_to_image", scores, image_of_text[:, None] == np.arange(scores.shape[1])),
        ("image_to_text", scores.T, (image_of_text[:, None] == np.arange(scores.shape[1])).T),
    ):
        ranks = []
        for row, belongs in zip(table.tolist(), own.tolist(), strict=True):
            if any(belongs):
                listed = sorted(zip(row, belongs, strict=True), key=lambda one: (-one[0], one[1]))
                first = next(place for place, (_, found) in enumerate(listed) if found)
                ranks.append(1 + sum(not found for _, found in listed[:first]))
        assert measures[f"{direction}_recall_at_1_correct"] == sum(rank == 1 for rank in ranks)
        assert measures[f"{direction}_median_rank"] == np.median(ranks)
        assert measures[f"{direction}_without_match"] == len(table) - len(ranks)


def test_drawn_medians_are_numpys() -> None:
    kinds, counts = np.array([[1.0], [2.0], [5.0], [30.0]]), np.array([[3, 1, 2, 0], [0, 2, 0, 4], [1, 1, 2, 2]])
    for row, measures in zip(counts, recalls_and_median(counts, kinds), strict=True):
        ranks = np.repeat(kinds[:, 0], row)
        assert measures.tolist() == [*((ranks <= place).mean() for place in (1, 5, 10)), np.median(ranks)]


def test_an_image_without_a_text_is_a_candidate_and_is_counted() -> None:
    measures = measure_score_matrix([[0.1, 0.9]], [0])
    assert measures["text_to_image_median_rank"] == 2.0
    assert (measures["image_to_text_without_match"], measures["image_to_text_median_rank_total"]) == (1, 1)


def test_rows_that_are_missing_are_an_error() -> None:
    rows = {name: values[:-1] for name, values in as_rows(SCORES, IMAGE_OF_TEXT).items()}
    with pytest.raises(ValueError, match="text_to_image: query '3' has 2 candidates and '0' has 3"):
        load_metric("retrieval_recall").compute(**rows)


def test_a_direction_can_be_left_out() -> None:
    # Each text with images of its own.
    rows = {"predictions": [0.2, 0.1], "references": [1, 0], "text_ids": ["a", "a"], "image_ids": ["x", "y"]}
    more = {"predictions": [0.2, 0.1], "references": [0, 1], "text_ids": ["b", "b"], "image_ids": ["y", "z"]}
    metric = load_metric("retrieval_recall")
    metric.add_batch(**rows)
    metric.add_batch(**more)
    measures = metric.compute(directions=["text_to_image"])
    assert measures["text_to_image_recall_at_1"] == 0.5
    assert not any(name.startswith("image_to_text") for name in measures)
    with pytest.raises(ValueError, match="direction is 'sideways', expected one of"):
        load_metric("retrieval_recall").compute(**rows, directions=["sideways"])


def test_one_pair_with_two_scores_is_an_error() -> None:
    rows = as_rows(SCORES, IMAGE_OF_TEXT)
    metric = load_metric("retrieval_recall")
    metric.add_batch(**rows)
    metric.add_batch(**rows | {"predictions": rows["predictions"] + 1})
    with pytest.raises(ValueError, match="text_ids and image_ids '0', '0' came twice with different predictions"):
        metric.compute()


@pytest.mark.parametrize(
    ("scores", "image_of_text", "message"),
    [
        ([[0.1, np.nan]], [0], "scores: row 0 of the batch has a value that is NaN or infinite"),
        ([[0.1, 0.2]], [2], "image_of_text is 2 to 2, expected 0 to 1"),
        ([[0.1, 0.2]], [0, 1], r"scores are \(1, 2\) for 2 texts"),
    ],
)
def test_a_bad_matrix_is_an_error(scores: list, image_of_text: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_score_matrix(scores, image_of_text)


def test_nothing_that_belongs_together_is_an_error() -> None:
    rows = {"predictions": [0.5], "references": [0], "text_ids": ["a"], "image_ids": ["x"]}
    with pytest.raises(ValueError, match="text_to_image: none of 1 queries has a match"):
        load_metric("retrieval_recall").compute(**rows)
