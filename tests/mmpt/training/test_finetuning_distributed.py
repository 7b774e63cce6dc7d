"""Two processes fine-tune and measure as one does: no row of the padded last batch is counted twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories.paths import ROOT
from tests.mmpt.training.test_finetuning import recipe


def run(folder: Path, output: str, processes: int, *overrides: str) -> tuple[dict, list[dict]]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [*launcher, "-m", "tests.runs.finetuning", folder / "recipe.yaml", folder / output, *overrides],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (folder / output / "predictions.jsonl").read_text().splitlines()
    return json.loads((folder / output / "seen.json").read_text()), [json.loads(line) for line in lines]


def test_two_processes_measure_as_one_does(tmp_path: Path) -> None:
    recipe(tmp_path, "statements")  # writes the files
    # Without learning both have the same weights; 12 rows in batches of 5 and of 2 * 5 leave a tail.
    same = ["--learning_rate", "0", "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no"]
    same += ["--per_device_eval_batch_size", "5"]
    one, alone = run(tmp_path, "one", 1, *same)
    two, together = run(tmp_path, "two", 2, *same)
    assert [line["id"] for line in together] == [line["id"] for line in alone]
    for line, other in zip(together, alone, strict=True):
        assert line["prediction"] == other["prediction"]
        assert line["confidence"] == pytest.approx(other["confidence"], abs=1e-4)
    for measure, value in one.items():
        if measure == "loss" or measure.endswith(("_total", "_correct", "accuracy", "consistency")):
            assert two[measure] == pytest.approx(value, abs=1e-4), measure
