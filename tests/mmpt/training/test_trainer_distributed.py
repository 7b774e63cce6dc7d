"""One process, two processes and two accumulation steps train the same model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories.paths import ROOT

CASES = ["single mlm", "single mrc", "single mrc_kl", "single mrfr", "single itm", "single all", "dual all"]


def run(folder: Path, world_size: int, accumulation: int) -> dict:
    output = folder / f"{world_size}-{accumulation}.json"
    launcher = [sys.executable]
    if world_size > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world_size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, "-m", "tests.runs.distributed", str(output), str(world_size), str(accumulation)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("distributed")
    return {"one": run(folder, 1, 1), "accumulated": run(folder, 1, 2), "two": run(folder, 2, 1)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["two", "accumulated"])
def test_splitting_a_batch_changes_nothing(runs: dict, how: str, case: str) -> None:
    expected, got = runs["one"][case], runs[how][case]
    assert got["counts"] == expected["counts"]
    assert sum(map(sum, expected["counts"])) > 0
    for step, losses in enumerate(expected["losses"]):
        assert got["losses"][step] == pytest.approx(losses, abs=1e-5)
        assert got["metrics"][step] == pytest.approx(expected["metrics"][step], abs=1e-4)
    assert len(expected["losses"]) == 2
    assert got["weights"] == pytest.approx(expected["weights"], abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_examples_that_fill_up_the_last_batch_are_not_evaluated_twice(runs: dict, case: str) -> None:
    expected, got = runs["one"][case]["evaluation"], runs["two"][case]["evaluation"]
    assert got == pytest.approx(expected, abs=1e-5)
