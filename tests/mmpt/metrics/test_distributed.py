"""Two processes that share a folder measure what one process does, with rows repeated to fill up the last batch."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from mmpt.metrics.metric_table import METRICS, load_metric
from tests.factories.metrics import as_batch, metric_examples

Measured = dict[str, list[Any]]


def run_process(folder: Path, process: int) -> None:
    """Write what one of two processes gets: of every metric, and of accuracy for three evaluations in a row.

    Rows are dealt as torch deals them, which pads the tail by repeating rows of the head.
    """
    torch.set_num_threads(1)
    options: dict[str, Any] = {"num_process": 2, "process_id": process, "cache_dir": str(folder), "timeout": 60}
    measured: Measured = {}
    for name in METRICS:
        metric = load_metric(name, experiment_id="tests", **options)
        measured[name] = []
        for seed in range(3 if name == "accuracy" else 1):
            rows = metric_examples(seed)[name]
            dealt = list(DistributedSampler(rows, 2, process, shuffle=False))  # type: ignore[arg-type]
            for start in range(0, len(dealt), 4):
                places = dealt[start : start + 4]
                ids = {} if name == "retrieval_recall" else {"ids": places}
                metric.add_batch(**as_batch([rows[place] for place in places]), **ids)
            if name == "accuracy" and process == 0:
                time.sleep(0.5)  # process 1 begins the next evaluation before this one is read
            measured[name].append(metric.compute())
    alone = load_metric("accuracy", experiment_id="alone", **options)
    if process == 0:
        alone.add_batch(predictions=[1, 1], references=[1, 0], ids=["a", "b"])
    measured["only process 0 has rows"] = [alone.compute()]
    (folder / f"{process}.json").write_text(json.dumps(measured))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Measured]:
    """What each of two processes got. They are forked, because importing everything again takes most of the time."""
    folder = tmp_path_factory.mktemp("metrics")
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=run_process, args=(folder, process)) for process in range(2)]
    for one in started:
        one.start()
    for one in started:
        one.join(240)
    assert [one.exitcode for one in started] == [0, 0]
    first, second = (json.loads((folder / f"{process}.json").read_text()) for process in range(2))
    return first, second


@pytest.mark.parametrize("name", METRICS)
def test_two_processes_measure_what_one_does(name: str, two: tuple[Measured, Measured]) -> None:
    for seed, measures in enumerate(two[0][name]):
        expected = load_metric(name).compute(**as_batch(metric_examples(seed)[name]))
        assert measures == pytest.approx(expected, rel=1e-12)
    assert set(two[1][name]) == {None}


def test_evaluations_in_a_row_are_not_mixed(two: tuple[Measured, Measured]) -> None:
    first, second, third = two[0]["accuracy"]
    assert first != second != third


def test_a_process_without_rows_joins(two: tuple[Measured, Measured]) -> None:
    (measures,) = two[0]["only process 0 has rows"]
    assert (measures["accuracy_correct"], measures["accuracy_total"]) == (1, 2)


def test_several_processes_need_ids_and_a_name_of_their_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="experiment_id is None with 2 processes"):
        load_metric("accuracy", num_process=2, process_id=0)
    metric = load_metric("accuracy", num_process=2, process_id=0, experiment_id="run", cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="class_accuracy got no ids with 2 processes"):
        metric.add_batch(predictions=[1], references=[1])
