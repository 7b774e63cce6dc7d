"""What a run tells: its opening and closing lines, a line a log step, leakage, and how it is gone on with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from mmpt.recipe.recipe import load_recipe
from mmpt.tasks.table import TASKS
from mmpt.training.finetuning import finetune
from mmpt.training.run_report import resume_command
from tests.factories.paths import ROOT
from tests.mmpt.training.test_finetuning import recipe

TINY = [
    *("--hidden_size", "16", "--intermediate_size", "16", "--train_scenes", "20", "--eval_scenes", "8"),
    *("--batch_size", "8", "--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", "2"),
]


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mmpt", *words],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_run_without_a_terminal_is_a_line_a_log_step_between_its_opening_and_closing_lines(tmp_path: Path) -> None:
    out, err = start("pretrain", "tiny", *TINY, "--max_steps", "6", cwd=tmp_path).communicate(timeout=120)
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == [
        *("mmpt 0.1.0", "model", "rows", "leakage", "training", "writes"),
    ]
    assert "MmptSingleStreamForPreTraining" in lines[1]
    assert "parameters, new weights" in lines[1]
    assert lines[2] == "rows: 60 for training, 8 for evaluation"
    assert lines[4] == "training: 6 steps of 8 rows on cpu in float32"
    assert lines[6].startswith("trained in ")
    assert "mrc_accuracy " in lines[6]
    assert "(chance 0.0417)" in lines[6]
    assert lines[7].startswith("next: mmpt finetune RECIPE --from_pretrained runs/tiny")
    assert lines[8:] == ["runs/tiny/curves.png", "runs/tiny/metrics.json"]
    steps = err.splitlines()
    assert [line.split(" (")[0] for line in steps] == ["step 2 of 6", "step 4 of 6", "step 6 of 6", "step 6 of 6"]
    assert "{" not in err
    assert "|" not in err  # no bars


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_says_the_command_that_goes_on(tmp_path: Path) -> None:
    words = ["pretrain", "tiny", *TINY[:-6], "--batch_size", "8", "--logging_steps", "1", "--max_steps", "100000"]
    run = start(*words, cwd=tmp_path)
    assert run.stderr is not None
    run.stderr.readline()  # the first step is logged
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 75
    told = next(line for line in err.splitlines() if line.startswith("stopped at step "))
    again = told.partition("go on with: ")[2]
    assert again == f"mmpt {' '.join(words)} --resume_from_checkpoint last"


def test_the_command_that_resumes_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "a b.yaml"
    path.write_text("data: {generated: {}}")
    resuming = ["--training.resume_from_checkpoint", "last", "--resume-from-checkpoint=x"]
    words = ["--overwrite", "--max_steps", "3", *resuming]
    command = resume_command(load_recipe(path, words))
    assert command == f"mmpt pretrain '{path}' --max_steps 3 --resume_from_checkpoint last"


def test_fine_tuning_tells_what_training_and_evaluation_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recipe(tmp_path, "nlvr2", "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no")
    rows = load_dataset("parquet", data_files=run.data.pairs, split="train", cache_dir=str(tmp_path / "cache"))
    train = rows.filter(lambda row: {row["image_id"], row["second_image_id"]}.isdisjoint({"image-0"}))
    Dataset.from_dict(train.to_dict()).to_parquet(run.data.pairs)
    shared = rows.select([0, 1])  # images 0 and 1, 1 and 2
    run.data.eval_pairs = str(tmp_path / "evaluation.parquet")
    Dataset.from_dict(shared.to_dict()).to_parquet(run.data.eval_pairs)
    finetune(run)
    out = capsys.readouterr().out
    assert out.count("leakage:") == 1
    assert (
        "leakage: warning: 2 of 3 images ('image-1', 'image-2') and 1 of 2 texts of the evaluation are in training "
        "too, 1 row whole"
    ) in out
    assert "(chance 0.5)" in out
    assert f"next: mmpt predict {tmp_path / 'run'} --pairs TABLE --store " in out


@pytest.mark.parametrize("name", TASKS)
def test_chance_is_a_share_that_guessing_can_get(tmp_path: Path, name: str) -> None:
    from mmpt.training.data_sources import open_task_corpus

    corpus = open_task_corpus(recipe(tmp_path, name).data, name)
    assert corpus.evaluation is not None
    task, table = TASKS[name], corpus.train.table
    names = task.names(table, 1) if task.names else []
    chance = task.chance(corpus.evaluation.dataset, {each: number for number, each in enumerate(names)})
    known = {"retrieval": 1 / 6, "classification": 1 / 3, "entailment": 1 / 3, "statements": 0.5, "nlvr2": 0.5}
    assert chance == pytest.approx(known[name]) if name in known else 0 < chance <= 1
