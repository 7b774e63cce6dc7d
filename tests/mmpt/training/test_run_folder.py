"""The output folder of a run: locked, never overwritten unasked, and what an earlier run left is kept till the end."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmpt.configuration.errors import MmptError
from mmpt.recipe.recipe import Recipe, load_recipe
from mmpt.training.checkpoints import mark_complete
from mmpt.training.run_files import clear_write_errors, replacing
from mmpt.training.run_folder import EARLIER, LOCK, LockedFolder, check_changes, open_folder, run_files

TEXT = """
model: {hidden_size: 16}
data: {generated: {train_scenes: 8}}
training: {max_steps: 4, learning_rate: 0.001}
"""


def recipe(folder: Path, *overrides: str, text: str = TEXT) -> Recipe:
    path = folder / "a.yaml"
    path.write_text(text)
    return load_recipe(path, ["--output_dir", str(folder / "run"), *overrides])


def earlier_run(folder: Path, *steps: int, finished: bool = True) -> Path:
    run = folder / "run"
    run.mkdir()
    recipe(folder).write(run / "recipe.yaml")
    (run / "run.json").write_text('{"processes": 1}')
    (run / "log.jsonl").write_text("")
    for step in steps:
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "optimizer.pt").write_text("weights")
        mark_complete(run / f"checkpoint-{step}")
    if finished:
        for name in ("metrics.json", "config.json", "model.safetensors", "heads.py"):
            (run / name).write_text(name)
    return run


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(MmptError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_a_run_is_refused_with_three_ways(tmp_path: Path, finished: bool) -> None:
    earlier_run(tmp_path, 2, finished=finished)
    message = refusal(open_folder, recipe(tmp_path))
    assert "a finished run" in message if finished else "a run that did not finish" in message
    for way in ("--resume_from_checkpoint last", "--output_dir", "--overwrite"):
        assert way in message


def test_an_overwritten_run_is_kept_until_the_new_one_is_done(tmp_path: Path) -> None:
    run = earlier_run(tmp_path, 2, 4)
    (run / "notes.txt").write_text("mine")
    (run / "train.py").write_text("mine")
    asked = recipe(tmp_path, "--overwrite")
    folder = open_folder(asked)
    folder.begin(asked, {"processes": 1})
    assert sorted(path.name for path in run.iterdir()) == [EARLIER, "notes.txt", "recipe.yaml", "run.json", "train.py"]
    assert (run / EARLIER / "model.safetensors").read_text() == "model.safetensors"
    assert (run / EARLIER / "checkpoint-4" / "optimizer.pt").is_file()
    folder = open_folder(asked)  # the new run was killed, and is itself replaced
    folder.begin(asked, {"processes": 1})
    assert (run / EARLIER / "model.safetensors").is_file()
    assert (run / f"{EARLIER}_2" / "recipe.yaml").is_file()
    folder.end()
    assert sorted(path.name for path in run.iterdir()) == ["notes.txt", "recipe.yaml", "run.json", "train.py"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run_files(tmp_path / "run") == []
    open_folder(recipe(tmp_path))
    (tmp_path / "run" / "README.md").write_text("mine")
    for words in ([], ["--overwrite"]):
        assert "holds README.md, which no run wrote" in refusal(open_folder, recipe(tmp_path, *words))
    assert (tmp_path / "run" / "README.md").read_text() == "mine"


def test_a_folder_that_the_run_reads_is_not_overwritten(tmp_path: Path) -> None:
    run = earlier_run(tmp_path, 2)
    asked = recipe(tmp_path, "--overwrite", "--from_pretrained", str(run), text=TEXT.replace("{hidden_size: 16}", "{}"))
    assert "which model.from_pretrained reads" in refusal(open_folder, asked)


def test_flags_without_an_effect_are_refused(tmp_path: Path) -> None:
    assert "no effect without" in refusal(open_folder, recipe(tmp_path, "--allow_changes"))
    both = recipe(tmp_path, "--overwrite", "--resume_from_checkpoint", "last")
    assert "are both given" in refusal(open_folder, both)
    assert "expected nothing behind it" in refusal(recipe, tmp_path, "--overwrite", "perhaps")
    both = ["--eval_strategy", "no", "--eval_steps", "3"]
    assert "has no effect with eval_strategy no" in refusal(recipe, tmp_path, *both)
    assert "has no effect with save_strategy no" in refusal(
        recipe, tmp_path, "--save_strategy", "no", "--save_total_limit", "2"
    )
    assert "set push_to_hub to true" in refusal(recipe, tmp_path, "--hub_model_id", "me/it")
    in_file = TEXT.replace("max_steps: 4", "max_steps: 4, eval_strategy: steps, eval_steps: 2")
    recipe(tmp_path, "--eval_strategy", "no", text=in_file)  # a switch on the command line puts out what it likes
    (tmp_path / "run").mkdir()
    open_folder(recipe(tmp_path, "--overwrite"))  # one command to run again and again


def test_last_starts_from_the_beginning_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "--resume_from_checkpoint", "last")
    (tmp_path / "run").mkdir()
    assert open_folder(asked).checkpoint is None
    (tmp_path / "run").rmdir()
    run = earlier_run(tmp_path, finished=False)
    folder = open_folder(asked)
    assert folder.checkpoint is None
    assert {path.name for path in folder.earlier} == {"recipe.yaml", "run.json", "log.jsonl"}
    (run / "metrics.json").write_text("{}")
    assert "that saved no checkpoint to resume from" in refusal(open_folder, asked)


def test_a_damaged_checkpoint_is_skipped_or_refused_by_name(tmp_path: Path) -> None:
    run = earlier_run(tmp_path, 2, 4)
    (run / "checkpoint-4" / "optimizer.pt").write_text("WEIGHTS")
    folder = open_folder(recipe(tmp_path, "--resume_from_checkpoint", "last"))
    assert folder.checkpoint == run / "checkpoint-2"
    assert folder.earlier == [run / "checkpoint-4"]
    named = recipe(tmp_path, "--resume_from_checkpoint", str(run / "checkpoint-4"))
    assert "cannot resume: " in refusal(open_folder, named)
    assert "optimizer.pt is damaged" in refusal(open_folder, named)


def test_resuming_with_other_settings_lists_them_and_stops(tmp_path: Path) -> None:
    run = earlier_run(tmp_path, 2)
    resume = ["--resume_from_checkpoint", "last"]
    last = run / "checkpoint-2"
    check_changes(recipe(tmp_path, *resume), last, {"processes": 1})
    free = ["--logging_steps", "7", "--save_total_limit", "3", "--weight_decay", "0", "--dataloader_num_workers", "2"]
    check_changes(
        recipe(tmp_path, *resume, *free), last, {"processes": 1}
    )  # a default that is written out is no change
    words = ["--learning_rate", "0.01", "--training.seed", "3", "--policy", "joint", "--train_scenes", "9",
             "--hidden_size", "32", "--per_device_train_batch_size", "2", "--max_steps", "6"]  # fmt: skip
    message = refusal(check_changes, recipe(tmp_path, *resume, *words), last, {"processes": 2})
    for change in (
        *("training.learning_rate 0.001 → 0.01", "training.seed 42 → 3", "masking.policy 'conditional' → 'joint'"),
        *("data.generated.train_scenes 8 → 9", "model.hidden_size 16 → 32", "training.max_steps 4 → 6"),
        *("training.per_device_train_batch_size 8 → 2", "processes 1 → 2", "--allow_changes"),
    ):
        assert change in message
    check_changes(recipe(tmp_path, *resume, *words, "--allow_changes"), last, {"processes": 2})
    (run / "run.json").write_text(json.dumps({"processes": 1, "training_rows": {"count": 8, "fingerprint": "ab"}}))
    other = {"processes": 1, "training_rows": {"count": 8, "fingerprint": "cd"}}
    assert "training_rows" in refusal(check_changes, recipe(tmp_path, *resume), last, other)


def test_a_second_run_is_refused_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal, pathlib\nfrom mmpt.training.run_folder import LockedFolder\n"
        "with LockedFolder(pathlib.Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        assert "is being written by another run" in refusal(LockedFolder(tmp_path).__enter__)
        first.kill()
    assert (tmp_path / LOCK).exists()
    with LockedFolder(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as path:
            path.write_text("half")
            with Path("/dev/full").open("w") as full:
                full.write("x")

    assert "metrics.json could not be written: No space left on device (" in refusal(write)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert target.read_text() == "old"
    with pytest.raises(OSError, match="quite another"), clear_write_errors(target):
        raise OSError(errno.ECHILD, os.strerror(errno.ECHILD), "quite another")
