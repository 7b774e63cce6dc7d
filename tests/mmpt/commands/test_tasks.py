"""`mmpt evaluate` and `mmpt predict`: a saved model on a table, from the command line."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.recipe.values import read_yaml, write_yaml
from mmpt.tasks.table import TASKS
from mmpt.training.finetuning import finetune
from tests.factories.tasks import table
from tests.mmpt.training.test_finetuning import pretrained, recipe

RUNNER = CliRunner()


def run(*words: object) -> str:
    result = RUNNER.invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def refuse(*words: object) -> str:
    result = RUNNER.invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]  # transformers' progress stands before it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store, and a run of `statements` that was trained a little."""
    folder = tmp_path_factory.mktemp("statements")
    finetune(recipe(folder, "statements"))
    return folder


@pytest.mark.parametrize("name", ["grounding", "multiple_choice", "nlvr2", "phrases", "retrieval", "vqa"])
def test_the_saved_folder_gives_the_numbers_of_its_own_run(tmp_path: Path, name: str) -> None:
    finetune(recipe(tmp_path, name, "--max_steps", "2"))
    report = json.loads(run("evaluate", tmp_path / "run", "--batch-size", 5, "--device", "cpu"))
    own = json.loads((tmp_path / "run" / "metrics.json").read_text())["evaluation"]
    assert report["evaluation"] == {key: own[key] for key in report["evaluation"]}
    assert report["value"] == own[TASKS[name].metric]
    assert (report["task"], report["rows"]) == (name, 12)


def test_evaluate_writes_metrics_predictions_and_the_gallery(folder: Path) -> None:
    out = folder / "scores"
    words = ["--pairs", folder / "statements.parquet", "--store", folder / "store", "--out", out, "--gallery", 2]
    report = json.loads(run("evaluate", folder / "run", *words))
    assert json.loads((out / "metrics.json").read_text()) == report
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    own = [json.loads(line) for line in (folder / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [(line["id"], line["prediction"]) for line in lines] == [(line["id"], line["prediction"]) for line in own]
    gold = ["true" if label else "false" for label in table("statements", 12)["label"]]
    right = sum(line["prediction"] == label for line, label in zip(lines, gold, strict=True))
    assert report["evaluation"]["accuracy_correct"] == right
    assert report["evaluation"]["accuracy_total"] == 12
    page = (out / "gallery.html").read_text()
    assert page.count("<article>") == min(2, 12 - right)
    assert f"{12 - right} of 12 rows are wrong" in page


def test_predict_needs_no_labels_and_keeps_ids_and_order(folder: Path) -> None:
    bare = table("statements", 6).remove_columns(["label"]).select([4, 0, 5])
    bare.to_json(folder / "bare.jsonl")
    out = folder / "said.jsonl"
    words = ["--pairs", folder / "bare.jsonl", "--store", folder / "store", "--out", out, "--batch-size", 2]
    assert "3 predictions" in run("predict", folder / "run", *words)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["q4", "q0", "q5"]
    own = [json.loads(line) for line in (folder / "run" / "predictions.jsonl").read_text().splitlines()]
    for line, row in zip(lines, (4, 0, 5), strict=True):
        assert line["prediction"] == own[row]["prediction"]
        assert line["confidence"] == pytest.approx(own[row]["confidence"], abs=1e-5)
    assert "has no column 'label'" in refuse("evaluate", folder / "run", *words[:4])


def test_half_precision_is_close(folder: Path) -> None:
    exact, half = (
        [json.loads(line) for line in run("predict", folder / "run", "--out", "-", "--dtype", dtype).splitlines()]
        for dtype in ("float32", "bfloat16")
    )
    for one, other in zip(exact, half, strict=True):
        assert one["confidence"] == pytest.approx(other["confidence"], abs=0.05)


def test_a_blank_modality_changes_what_is_said(folder: Path) -> None:
    seen, blind = (
        [json.loads(line)["confidence"] for line in run("predict", folder / "run", "--out", "-", *words).splitlines()]
        for words in ([], ["--blank", "text"])
    )
    assert seen != pytest.approx(blind, abs=1e-4)


def test_bad_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    model = folder / "run"
    assert "expected both: a table" in refuse("evaluate", model, "--pairs", "a.csv")
    assert "without --out" in refuse("evaluate", model, "--gallery", 3)
    assert "not a model of task 'vqa'; its tasks are classification, entailment, statements" in refuse(
        "evaluate", model, "--task", "vqa"
    )
    assert "expected one of vqa" in refuse("evaluate", model, "--task", "vcr")
    assert "dtype is 'int8'" in refuse("predict", model, "--dtype", "int8")
    assert "--batch-size 0" in refuse("predict", model, "--batch-size", 0)
    assert "blank is 'image'" in refuse("predict", model, "--blank", "image")
    assert "has no downstream task; fine-tune it" in refuse("evaluate", pretrained(tmp_path, "single"))
    unknown = Dataset.from_dict(table("statements", 1).to_dict() | {"label": [7]})  # type: ignore[operator]
    unknown.to_parquet(tmp_path / "unknown.parquet")
    words = ["--pairs", tmp_path / "unknown.parquet", "--store", folder / "store"]
    assert "has label 7, expected 0..1" in refuse("evaluate", model, *words)


def test_a_folder_without_recipe_is_asked_for_its_task_where_that_is_unclear(folder: Path) -> None:
    path = folder / "run" / "recipe.yaml"
    text = path.read_text()
    path.unlink()
    try:
        assert "give its task as --task, one of classification, entailment, statements" in refuse(
            "evaluate", folder / "run"
        )
        words = ["--task", "statements"]
        assert "no recipe.yaml that names its data" in refuse("evaluate", folder / "run", *words)
        words += ["--pairs", folder / "statements.parquet", "--store", folder / "store"]
        assert json.loads(run("evaluate", folder / "run", *words))["rows"] == 12
    finally:
        path.write_text(text)


@pytest.mark.parametrize("source", ["null", "{folder: data/nlvr, pixels: false}"])
def test_a_folder_of_0_1_0_whose_task_was_called_nlvr_is_measured_and_used(
    folder: Path, tmp_path: Path, source: str
) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    path = tmp_path / "run" / "recipe.yaml"
    raw = read_yaml(path.read_text(), "a")
    raw["task"]["name"] = "nlvr"
    raw["data"] |= {"nlvr": read_yaml(source, "a")} | ({"store": None, "pairs": None} if source != "null" else {})
    raw["data"]["eval_pairs"] = raw["data"]["eval_pairs"] if source == "null" else None
    path.write_text(write_yaml(raw))
    words = ["--pairs", folder / "statements.parquet", "--store", folder / "store"]
    before = json.loads(run("evaluate", folder / "run", *words))["evaluation"]
    for asked in ([], ["--task", "nlvr"]):
        report = json.loads(run("evaluate", tmp_path / "run", *words, *asked))
        assert (report["task"], report["evaluation"]) == ("statements", before)
    assert len(run("predict", tmp_path / "run", *words, "--out", "-").splitlines()) == 12
    if source == "null":  # then the rows of its own recipe are there as well
        assert json.loads(run("evaluate", tmp_path / "run"))["evaluation"] == before
    else:
        assert "has no data.eval_pairs; give --pairs and --store" in refuse("evaluate", tmp_path / "run")
        assert "data.nlvr is a source of mmpt 0.1.0, expected data.store and data.pairs" in refuse("finetune", path)
