"""FSDP2 and DDP in two processes against one, for a few models; `make sharding` compares every preset and task."""

import os
import subprocess
import sys

from tests.factories.paths import ROOT


def test_split_models_train_as_one_process_does() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "tests/runs/sharding.py"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("by_")]
    compared = [
        f"{how}: {count} models compared" for how, count in (("by_plan", 7), ("by_accelerate", 7), ("by_ddp", 10))
    ]
    assert lines == compared, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
