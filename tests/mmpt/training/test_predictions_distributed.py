"""Gathered predictions of two processes are those of one, row by row, and stand beside their labels."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mmpt.tasks.table import TASKS
from tests.factories.paths import ROOT
from tests.runs.predictions import OBJECTIVES, ROWS

CASES = [f"{kind} {name}" for kind in ("stock", "ours") for name in (*OBJECTIVES, *TASKS)]


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What one process saw, and what two saw."""
    folder = tmp_path_factory.mktemp("predictions")
    found = []
    for processes in (1, 2):
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        output = folder / f"{processes}.npz"
        done = subprocess.run(
            [*launcher, "-m", "tests.runs.predictions", output],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(output) as arrays:
            found.append(dict(arrays))
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_gather_the_rows_of_one(gathered: list[dict[str, np.ndarray]], case: str) -> None:
    one, two = ({name: each[name] for name in each if name.startswith(f"{case}|")} for each in gathered)
    assert one.keys() == two.keys()
    assert any("|predictions|" in name for name in one)
    for name, array in one.items():
        other = two[name]
        if "|loss|" not in name:
            assert len(array) == len(other) == ROWS
            # The other axes are as wide as the widest batch; what is beyond is filled with -100.
            shape = [slice(min(a, b)) for a, b in zip(array.shape, other.shape, strict=True)]
            assert (array[_beyond(array, other)] == -100).all()
            assert (other[_beyond(other, array)] == -100).all()
            array, other = array[tuple(shape)], other[tuple(shape)]
        np.testing.assert_allclose(array, other, atol=1e-5, err_msg=name)


def _beyond(array: np.ndarray, other: np.ndarray) -> tuple[slice, ...]:
    """Return the part of an array that another, narrower one lacks; empty where it is not wider."""
    if array.ndim < 2:
        return (slice(0, 0),)
    return (slice(None), slice(min(array.shape[1], other.shape[1]), None))
