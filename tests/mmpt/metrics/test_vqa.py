"""VQA's accuracy: how answers are made comparable, and what each is worth, worked by hand."""

import itertools

import pytest

from mmpt.metrics.metric_table import load_metric
from mmpt.metrics.vqa_answers import normalise_answer, score_answer
from mmpt.processing.annotations.question_annotations import SOFT_SCORES


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Yes", "yes"),
        ("the two dogs", "2 dogs"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("an apple.", "apple"),
        ("a", ""),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("oclock", "o'clock"),
        ("Im", "im"),  # the script lists this contraction in upper case and looks it up in lower case
        ("somebody'd", "somebodyd"),  # and has this one the wrong way round
        ("t-shirt", "t shirt"),  # between letters a mark becomes a space
        ("red, blue", "red blue"),  # next to a space it goes
        ("left/right", "left right"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),  # a comma between digits: all marks go
        ("2.5", "2.5"),
        ("3.", "3"),
        ("a.m.", "am"),
        ("." * 33 + "x", ".x"),  # 32 periods at most
        ("what?!", "what"),
        ("100%", "100%"),
        ("  two\nwords\t", "2 words"),
        ("it's", "it's"),
    ],
)
def test_answers_are_made_comparable_as_by_the_official_script(answer: str, normal: str) -> None:
    assert normalise_answer(answer) == normal


@pytest.mark.parametrize("said", range(11))
def test_ten_people_by_the_formula_and_as_the_annotations_score_them(said: int) -> None:
    given = ["red"] * said + [f"other{i}" for i in range(10 - said)]
    subsets = [given[:out] + given[out + 1 :] for out in range(10)]
    by_formula = sum(min(1.0, subset.count("red") / 3) for subset in subsets) / 10
    assert score_answer("red", given) == pytest.approx(by_formula)
    assert score_answer("red", given) == pytest.approx(SOFT_SCORES[min(said, 4)])


def test_an_answer_is_scored_after_both_sides_are_normalised() -> None:
    assert score_answer("Two", ["2", "two.", "the two", "3", "3", "3", "3", "3", "3", "3"]) == pytest.approx(0.9)


def test_where_all_people_wrote_the_same_the_official_script_compares_what_is_written() -> None:
    assert score_answer("Two", ["two"] * 10) == 0.0
    assert score_answer("Two", ["two"] * 10, always_normalise=True) == 1.0
    assert score_answer(" two\n", ["two"] * 10) == 1.0
    examples = {"predictions": ["Two"], "references": [["two"] * 10]}
    assert load_metric("vqa_accuracy").compute(**examples)["vqa_accuracy"] == 0.0
    assert load_metric("vqa_accuracy", config_name="uniform").compute(**examples)["vqa_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (["red"], 1.0),
        (["blue"], 0.0),
        (["red", "red"], 1.0),
        (["red", "blue"], 0.5),  # met when the other person is left out
        (["red", "red", "red"], 1.0),
        (["red", "red", "blue"], (2 * 0.5 + 1) / 3),
        (["red", "blue", "green"], (0 + 2 * 0.5) / 3),
        (["red"] * 4, 1.0),  # from four people on it is the official formula
        (["red", "red", "blue", "blue"], (2 * 1 / 3 + 2 * 2 / 3) / 4),
    ],
)
def test_fewer_people_can_still_agree_in_full(given: list[str], score: float) -> None:
    for order in itertools.permutations(given):
        assert score_answer("red", order) == pytest.approx(score)


def test_measures_are_the_mean_and_a_count() -> None:
    measures = load_metric("vqa_accuracy").compute(
        predictions=["2", "yes", "no"],
        references=[["two", "2", "2"] + ["3"] * 7, ["yes"] * 10, ["yes"] * 10],
    )
    assert measures["vqa_accuracy"] == pytest.approx((0.9 + 1 + 0) / 3)
    assert measures["vqa_accuracy_total"] == 3
    assert 0 <= measures["vqa_accuracy_low"] < measures["vqa_accuracy"] < measures["vqa_accuracy_high"] <= 1


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["yes"], [[]], "references: row 0 of the batch is .., expected a list of one or more answers"),
        (["yes"], ["yes"], "references: row 0 of the batch is 'yes', expected a list"),
        ([None], [["yes"]], "predictions: row 0 of the batch is None, expected a string"),
        ([float("nan")], [["yes"]], "predictions: row 0 of the batch is nan, expected a string"),
        (["yes", "no"], [["yes"]], "different length: {'predictions': 2, 'references': 1"),
    ],
)
def test_bad_answers_are_errors(predictions: list, references: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_metric("vqa_accuracy").add_batch(predictions=predictions, references=references)


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="config_name is 'lenient', expected one of"):
        load_metric("vqa_accuracy", config_name="lenient")
