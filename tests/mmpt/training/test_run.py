"""What would only come out after training stops a run before it, and a disk that takes no more leaves it whole."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from mmpt.configuration.errors import MmptError
from mmpt.training.finetuning import finetune
from mmpt.training.finetuning_trainer import FineTuningTrainer
from tests.factories.tasks import table
from tests.mmpt.training.test_finetuning import recipe


def refusal(folder: Path, name: str, *words: str, change: Callable[[], object] = lambda: None) -> str:
    run = recipe(folder, name, *words)
    change()
    with pytest.raises(MmptError) as caught:
        finetune(run)
    assert not (folder / "run" / "log.jsonl").exists()
    return str(caught.value)


def test_what_would_come_out_after_training_is_found_before_it(tmp_path: Path) -> None:
    best = ["--load_best_model_at_end", "true", "--metric_for_best_model", "acuracy"]
    assert "metric_for_best_model is 'acuracy', expected one of accuracy, " in refusal(tmp_path, "statements", *best)
    assert "trackio" in refusal(tmp_path, "statements", "--report_to", "trackio")
    assert "me/it" in refusal(tmp_path, "statements", "--push_to_hub", "--hub_model_id", "me/it")
    assert "no effect" in refusal(tmp_path, "statements", "--enable_jit_checkpoint", "true")
    again = table("statements", 12).to_dict() | {"question_id": ["q"] * 12}
    twice = refusal(
        tmp_path, "statements", change=lambda: Dataset.from_dict(again).to_parquet(tmp_path / "statements.parquet")
    )
    assert "question_id 'q' is in rows 0 and 1" in twice
    (tmp_path / "run" / "gallery.html").mkdir()
    words = ["--gallery", "2", "--resume_from_checkpoint", "last"]
    assert "gallery.html is a folder" in refusal(tmp_path, "statements", *words)


def test_missing_matplotlib_is_said_before_training_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[bool] = []

    def train(*args: Any, **kwargs: Any) -> Any:
        said.append("pip install 'mmpt[plots]'" in caplog.text)
        return original(*args, **kwargs)

    original = FineTuningTrainer.train
    monkeypatch.setattr(FineTuningTrainer, "train", train)
    finetune(recipe(tmp_path, "statements", "--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no"))
    assert said == [True]
    assert caplog.text.count("matplotlib is not installed") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert not (tmp_path / "run" / "curves.png").exists()


def test_a_class_name_of_two_lines_is_refused(tmp_path: Path) -> None:
    columns = table("classification", 12).to_dict()
    columns["label_name"] = [f"class\n{label}" for label in columns["label"]]
    path = tmp_path / "classification.parquet"
    message = refusal(tmp_path, "classification", change=lambda: Dataset.from_dict(columns).to_parquet(path))
    assert r"a class is named 'class\n0'" in message


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of file sizes")
def test_a_checkpoint_that_the_disk_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from tests.mmpt.training.test_finetuning import recipe\nfrom mmpt.training.finetuning import finetune\n"
        "run = recipe(Path(sys.argv[1]), 'statements')\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\nfinetune(run)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.stderr.splitlines()[-1].startswith(
        f"mmpt.configuration.errors.MmptOSError: {tmp_path / 'run' / 'checkpoint-2'} could not be written: "
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["log.jsonl", "recipe.yaml", "run.json"]
