"""Epochs, losses and what is not finite where two processes train: one launch for all of it."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.factories.paths import ROOT
from tests.processing.pretraining.test_epochs import MAPS, STREAMS
from tests.runs.two_processes import EPOCHS, WAYS, masks_of


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("two") / "seen.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.runs.two_processes", str(output)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


def test_masks_of_all_processes_are_those_of_one_and_change_with_the_epoch(seen: dict[str, Any]) -> None:
    assert [name for name, _ in seen["epochs"]] == [name for name, ways in WAYS.items() for _ in ways]
    for name in WAYS:
        alone = masks_of((MAPS | STREAMS)[name], {}, 1)
        assert len({str(epoch) for epoch in alone}) == EPOCHS
        assert [masks for other, masks in seen["epochs"] if other == name] == [alone] * len(WAYS[name]), name


def test_one_process_that_meets_a_bad_example_stops_both_with_its_name(seen: dict[str, Any]) -> None:
    for example, (first, second) in seen["not finite"].items():
        assert first == second
        assert "the loss is nan at step " in first
        assert "the first layer with NaN is backbone.region_embeddings" in first
        assert f"with the examples '{example}' (row " in first


def test_fine_tuning_logs_the_mean_over_processes_and_micro_batches(seen: dict[str, Any]) -> None:
    # 12 rows, 2 a batch, 2 processes: a pass has 3 micro-batches, so the second of its steps has one.
    one, two = seen["losses"]["batches"]
    means = [(a + b) / 2 for a, b in zip(one, two, strict=True)]
    assert len(means) == 6
    steps = [(means[0] + means[1]) / 2, means[2], (means[3] + means[4]) / 2, means[5]]
    expected = [(steps[0] + steps[1]) / 2, (steps[2] + steps[3]) / 2]
    assert seen["losses"]["logged"] == pytest.approx(expected, abs=1e-5)
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)
