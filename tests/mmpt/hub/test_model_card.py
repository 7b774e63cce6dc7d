"""Cards: written by the run, true to its numbers, with metadata that reads back and code that runs."""

import contextlib
import io
import json
import platform
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from mmpt.explanations.report import write_report
from mmpt.hub.measures import MEANINGS, SHOWN, measures_of, wilson
from mmpt.hub.model_card import Rows, fingerprint, name_the_source
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
    again, first = (load_recipe(folder / name).resolved() for name in ("again.yaml", "recipe.yaml"))
    again["training"]["output_dir"] = first["training"]["output_dir"]  # the card has no absolute path
    assert again == first


def test_its_numbers_are_those_of_the_run(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = pretrained
    text = (folder / "README.md").read_text()
    rows = [line.split(" | ") for line in re.findall(r"^\| (`.*) \|$", text.split("## Measured")[1], re.MULTILINE)]
    names = [row[0].strip("`") for row in rows]
    assert 5 < len(names) == len(set(names)) <= SHOWN
    values = metrics["grounding"] | {f"compositions_{k}": v for k, v in metrics["grounding_compositions"].items()}
    for name, (_, value, _, chance, n, meaning) in zip(names, rows, strict=True):
        assert (value, n) == (f"{values[name]:.4g}", f"{values[f'{name}_count']:,}"), name
        assert meaning == MEANINGS[name]
        assert chance, name


def test_metrics_open_with_the_headline(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = pretrained
    written = json.loads((folder / "metrics.json").read_text())
    assert next(iter(written)) == "headline"
    name, first = next(iter(written["headline"].items()))
    assert name == "attribute_word_accuracy"
    assert first["value"] == metrics["grounding"][name]
    assert first["chance"] == metrics["grounding"][f"{name}_zeroed"]
    assert all(each["meaning"] for each in written["headline"].values())


def test_a_card_shows_an_example_and_no_absolute_path(pretrained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = pretrained
    text = (folder / "README.md").read_text()
    assert "](example.png)" in text
    with Image.open(folder / "example.png") as picture:
        assert min(picture.size) > 300
    assert str(folder.parent) not in text
    assert "output_dir: shapes" in text


def test_its_metadata_reads_back(pretrained: tuple[Path, dict[str, Any]]) -> None:
    data = ModelCard.load(pretrained[0] / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "fill-mask")
    assert data.model_name == "shapes"
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
    row = next(line.split(" | ") for line in text.splitlines() if line.startswith(f"| `{metric}`"))
    assert (row[1], row[2], row[4]) == (f"{metrics[metric]:.4g}", f"{low:.3f} to {high:.3f}", f"{n:,}")
    assert float(row[3]) >= 0
    assert ("](example.png)" in text) == (task == "vqa")
    page = write_report(folder, tmp_path / "report.html", 2, 50).read_text()
    assert re.search(r"\d+ of \d+ rows are wrong", page)
    assert f"<b>{metrics[metric]:.3g}</b>{metric}" in page
    assert "The licence of the weights is not stated" in text
    assert 'extracted with `{"name": "random"}`' in text
    assert ModelCard.load(folder / "README.md").data.license == "other"
    printed = run_code(folder, monkeypatch)
    answers = json.loads((folder / "config.json").read_text())["id2label"].values()
    assert printed in answers if task == "vqa" else printed.startswith("tensor(")


def test_a_report_has_the_run_on_one_page(pretrained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, metrics = pretrained
    page = write_report(folder, tmp_path / "report.html", 1, 8).read_text()
    assert f"<b>{metrics['grounding']['attribute_word_accuracy']:.3g}</b>attribute_word_accuracy" in page
    assert page.count("<article>") == 2
    assert page.count("<img ") == 3
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page)
    assert f"<td>{metrics['evaluation']['eval_mlm_loss']:.6g}<td>" in page
    assert "train_scenes" in page
    assert f"Python {platform.python_version()}" in page
    with pytest.raises(FileNotFoundError, match="expected the folder of a finished run"):
        write_report(tmp_path, tmp_path / "none.html", 1, 8)


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
