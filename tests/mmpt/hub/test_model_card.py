"""Cards: written by the run, true to its numbers, with metadata that reads back and code that runs."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from mmpt.hub.model_card import Rows, fingerprint, measures_of, name_the_source, wilson
from mmpt.recipe.recipe import load_recipe
from mmpt.training.finetuning import finetune
from mmpt.training.pretraining import pretrain
from tests.factories import tasks as tiny_tasks
from tests.mmpt.training.test_finetuning import recipe as task_recipe
from tests.mmpt.training.test_pretraining import GENERATED, recipe_file

SECTIONS = ["Use", "Training", "Data", "Measured", "Versions and hardware", "Limits and biases", "Licence", "Citation"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("card")
    recipe = load_recipe(recipe_file(folder, GENERATED), ["--output_dir", str(folder / "shapes")])
    return folder / "shapes", pretrain(recipe)


def run_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the python block of a card in its folder and return what it prints."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue().strip()


def test_a_card_says_what_the_run_was(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = pretrained
    text = (folder / "README.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert "MmptSingleStreamForPreTraining" in text
    assert f"{metrics['parameters']:,} parameters" in text
    assert "Single stream" in text
    assert "| masked region feature regression (`mrfr`) | 1 |" in text
    assert "Masking: policy 'conditional', 15% of tokens and of regions" in text
    assert "50% of mismatched pairs take a hard negative" in text
    assert "![losses and metrics over the steps](curves.png)" in text
    width = json.loads((folder / "config.json").read_text())["region_feature_dim"]
    assert f"Regions: {width} numbers each, made by the corpus itself." in text
    recipe = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    (folder / "again.yaml").write_text(recipe)
    assert load_recipe(folder / "again.yaml").resolved() == load_recipe(folder / "recipe.yaml").resolved()


def test_its_numbers_are_those_of_the_run(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = pretrained
    text = (folder / "README.md").read_text()
    for name, value in metrics["grounding"].items():
        if not name.endswith("_count"):
            n = metrics["grounding"][f"{name}_count"]
            assert re.search(rf"^\| {name} \| {value:.4g} \| .*\| {n:,} \|$", text, re.MULTILINE), name
    loss = metrics["evaluation"]["eval_mlm_loss"]
    assert f"| eval_mlm_loss | {loss:.4g} |  | {metrics['evaluation']['eval_mlm_count']:,} |" in text


def test_its_metadata_reads_back(pretrained: tuple[Path, dict[str, Any]]) -> None:
    data = ModelCard.load(pretrained[0] / "README.md").data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "transformers", "shapes")
    assert "single-stream" in data.tags
    results = {result.metric_type: result for result in data.eval_results}
    assert len(results) == len(data.eval_results)
    accuracy = results["itm_accuracy"]
    assert accuracy.metric_args["n"] == pretrained[1]["grounding"]["itm_accuracy_count"]
    low, high = accuracy.metric_args["interval_95"]
    assert low <= accuracy.metric_value <= high


def test_its_code_runs(pretrained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    sample = json.loads((pretrained[0] / "sample.json").read_text())
    assert "[MASK]" in sample["text"]
    assert run_code(pretrained[0], monkeypatch).isascii()


@pytest.mark.parametrize("task", ["vqa", "nlvr2"])
def test_a_card_of_a_task_and_its_code(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = finetune(task_recipe(tmp_path, task))["evaluation"]
    folder = tmp_path / "run"
    text = (folder / "README.md").read_text()
    metric = tiny_tasks.TASKS[task].metric
    low, high, n = (metrics[f"{metric}_{part}"] for part in ("low", "high", "total"))
    assert f"| {metric} | {metrics[metric]:.4g} | {low:.3f} to {high:.3f} | {n:,} |" in text
    assert "The licence of the weights is not stated" in text
    assert 'extracted with `{"name": "random"}`' in text
    assert ModelCard.load(folder / "README.md").data.license == "other"
    printed = run_code(folder, monkeypatch)
    answers = json.loads((folder / "config.json").read_text())["id2label"].values()
    assert printed in answers if task == "vqa" else printed.startswith("tensor(")


def test_a_fingerprint_is_of_content_and_order() -> None:
    rows = Rows("training", ["a", "b"], ["1", "2"])
    assert fingerprint(rows) == fingerprint(Rows("evaluation", ["a", "b"], ["1", "2"]))
    others = (Rows("training", ["b", "a"], ["2", "1"]), Rows("training", ["a", "b"], ["1", "3"]))
    assert len({fingerprint(each) for each in (rows, *others)}) == 3


def test_intervals_of_shares_are_wilsons() -> None:
    # 8 of 10, by hand: (0.8 + 0.19207) / 1.38415 -+ 0.22657
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert [(m.name, m.n, m.low is None) for m in measures_of({"loss": 1.0, "loss_count": 3, "epoch": 2.0})] == [
        ("loss", 3, True)
    ]


def test_a_pushed_card_names_its_repository() -> None:
    assert name_the_source('source = "."  # a folder', "me/shapes") == 'source = "me/shapes"  # a folder'
