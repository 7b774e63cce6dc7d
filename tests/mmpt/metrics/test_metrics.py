"""Properties of every metric: no download, plain numbers, each example counted once, clear errors."""

import json
import subprocess
import sys
from typing import Any

import evaluate
import pytest

from mmpt.metrics.metric_table import METRICS, load_metric
from tests.factories.metrics import as_batch, metric_examples

EXAMPLES = metric_examples(0)


@pytest.mark.parametrize("name", METRICS)
def test_measures_are_plain_numbers_in_their_interval(name: str) -> None:
    metric = load_metric(name)
    assert isinstance(metric, evaluate.Metric)
    measures = metric.compute(**as_batch(EXAMPLES[name]))
    assert {type(value) for value in json.loads(json.dumps(measures)).values()} <= {int, float}
    assert {type(value) for value in measures.values()} <= {int, float}
    values = [key for key in measures if f"{key}_low" in measures]
    assert values
    for key in values:
        assert measures[f"{key}_low"] - 1e-12 <= measures[key] <= measures[f"{key}_high"] + 1e-12
        assert measures[f"{key}_total"] > 0
        if f"{key}_correct" in measures:
            assert measures[key] == pytest.approx(measures[f"{key}_correct"] / measures[f"{key}_total"])


@pytest.mark.parametrize("name", METRICS)
def test_rows_one_by_one_or_in_batches_measure_the_same(name: str) -> None:
    rows = EXAMPLES[name]
    expected = load_metric(name).compute(**as_batch(rows))
    metric = load_metric(name)
    metric.add_batch(**as_batch(rows[:4]))
    metric.add_batch(**as_batch(rows[4:]))
    assert metric.compute() == pytest.approx(expected, rel=1e-12)
    one_by_one = [
        {{"predictions": "prediction", "references": "reference"}.get(key, key): value for key, value in row.items()}
        for row in rows
    ]
    for row in one_by_one:
        metric.add(**row)  # a metric begins anew once it has computed
    assert metric.compute() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "retrieval_recall"])
def test_a_repeated_tail_changes_nothing_unless_it_differs(name: str) -> None:
    rows, places = EXAMPLES[name], [*range(11), 0, 1, 2]
    expected = load_metric(name).compute(**as_batch(rows))
    repeated = as_batch([rows[place] for place in places])
    assert load_metric(name).compute(**repeated, ids=places) == pytest.approx(expected, rel=1e-12)
    metric = load_metric(name)
    changed = [rows[0] | {"predictions": row["predictions"]} for row in rows]
    kept = [metric.prepare(**as_batch([row]))["predictions"] for row in changed]
    other = next(row for row, values in zip(changed, kept, strict=True) if values != kept[0])
    with pytest.raises(ValueError, match=r"ids 'e' came twice with different predictions, .*a unique id"):
        metric.compute(**as_batch([rows[0], other]), ids=["e", "e"])


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_measure_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="has no predictions: add_batch was never called, or the data are empty"):
        load_metric(name).compute()
    empty: dict[str, list[Any]] = {key: [] for key in EXAMPLES[name][0]}
    with pytest.raises(ValueError, match="has no predictions: the data are empty"):
        load_metric(name).compute(**empty)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"predictions": [1]}, ValueError, "class_accuracy got .'predictions'., expected .'predictions', 'references'"),
        ({"predictions": [1], "references": [1], "labels": [1]}, ValueError, "got .'labels', 'predictions'"),
        (
            {"predictions": [1, 0], "references": [1]},
            ValueError,
            "different length: {'predictions': 2, 'references': 1",
        ),
        ({"predictions": [1], "references": [1], "ids": ["a", "b"]}, ValueError, "different length: .*'ids': 2"),
        (
            {"predictions": [1], "references": [1], "ids": [0.5]},
            TypeError,
            "ids contain 0.5, expected strings or integers",
        ),
    ],
)
def test_bad_batches_are_errors(batch: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_metric("accuracy").add_batch(**batch)


def test_ids_are_given_always_or_never() -> None:
    metric = load_metric("accuracy")
    metric.add_batch(predictions=[1], references=[1], ids=["a"])
    with pytest.raises(ValueError, match="got ids in one batch and none in another"):
        metric.add_batch(predictions=[1], references=[1])


def test_metrics_combine_as_those_of_evaluate() -> None:
    combined = evaluate.combine([load_metric("accuracy"), load_metric("itm")])
    scores, labels = [[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]], [1, 0, 0]
    combined.add_batch(predictions=scores, references=labels, ids=["a", "b", "c"])
    measures = combined.compute()
    assert (measures["accuracy_correct"], measures["itm_accuracy_correct"]) == (2, 2)
    assert combined.compute(predictions=scores, references=labels)["itm_auc"] == 0.5


def test_an_unknown_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="metric is 'bleu', expected one of vqa_accuracy, retrieval_recall"):
        load_metric("bleu")


def test_neither_the_package_nor_its_command_line_imports_evaluate() -> None:
    script = "import sys, mmpt, mmpt.commands.main; print('evaluate' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"
