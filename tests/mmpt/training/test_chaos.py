"""A slice of `make chaos`: killed, stopped and damaged runs end like undisturbed ones."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from mmpt.training.checkpoints import checkpoints_of, why_incomplete
from mmpt.training.preemption import EXIT_STOPPED
from tests.runs.chaos import check_equal, disturb, finish, make_pretraining, resume_damaged, start, wait

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")


def test_killed_stopped_and_damaged_runs_end_like_undisturbed_ones(tmp_path: Path) -> None:
    command, log = make_pretraining(tmp_path), tmp_path / "log.txt"
    assert resume_damaged(command, tmp_path, times=1) == 1
    whole, run = tmp_path / "whole", tmp_path / "run"
    resume = [*command, "--resume_from_checkpoint", "last"]
    for phase in ("while a checkpoint is written", "in an evaluation"):
        assert disturb(resume, run, 1, random.Random(3), 1, phase, log) == "killed"
    finish([*resume, "--output_dir", str(run)], log)
    check_equal(run, whole)
    run = tmp_path / "stopped"
    children = start([*resume, "--output_dir", str(run), "--dataloader_num_workers", "1"], log)
    events = run / "log.jsonl"
    while not (events.is_file() and '"step": 3' in events.read_text()):
        time.sleep(0.002)
    os.killpg(children[0], signal.SIGTERM)  # its worker gets it as well
    ended = wait(children)
    assert ended in ([EXIT_STOPPED], [0])  # on a slow machine all steps may have been done
    if ended == [EXIT_STOPPED]:
        newest = checkpoints_of(run)[0]
        assert why_incomplete(newest) is None
        state = json.loads((newest / "trainer_state.json").read_text())
        assert f"checkpoint-{state['global_step']}" == newest.name
    finish([*resume, "--output_dir", str(run)], log)
    check_equal(run, whole)
