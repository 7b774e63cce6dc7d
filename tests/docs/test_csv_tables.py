"""The CSV of each task in docs/csv-tables.md trains a model, through the command line, and is predicted."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from mmpt.commands.main import app
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.recipe.task_section import TaskName
from tests.factories.examples import random_regions
from tests.factories.paths import ROOT
from tests.mmpt.training.test_finetuning import MODEL

PAGE = ROOT / "docs" / "csv-tables.md"
EXAMPLES = dict(
    re.findall(r"^## (\w+)\n.*?```csv\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)
RUNNER = CliRunner()
TRAINING = "training: {max_steps: 1, per_device_train_batch_size: 2, use_cpu: true, output_dir: RUN}\n"


def test_every_task_has_an_example() -> None:
    assert set(EXAMPLES) == {"pretraining", *get_args(TaskName)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_trains_and_is_predicted(name: str, tmp_path: Path) -> None:
    store, table, run = tmp_path / "regions", tmp_path / "pairs.csv", tmp_path / "run"
    with RegionStoreWriter(store, extractor={"name": "none"}) as writer:
        for seed, image_id in enumerate(("flower_01", "trip one/a")):
            writer.add(random_regions(3, seed=seed, image_id=image_id, width=200, height=100))
        writer.close()
    table.write_text(EXAMPLES[name], encoding="utf-8")
    command = "pretrain" if name == "pretraining" else "finetune"
    named = ["--columns", "图片=image_id,描述=text"] if "图片" in EXAMPLES[name] else []
    task = "" if command == "pretrain" else f"task: {{name: {name}}}\n"
    model = MODEL + ("  objective_weights: {mlm: 1.0, itm: 1.0}\n" if command == "pretrain" else "")
    recipe = tmp_path / "recipe.yaml"
    data = f"data: {{store: {store}, pairs: {table}, eval_pairs: {table}}}\n"
    recipe.write_text(model + data + task + TRAINING.replace("RUN", str(run)))
    done = RUNNER.invoke(app, [command, str(recipe), *named])
    assert done.exit_code == 0, done.output
    assert "leakage: warning: " in done.output
    if command == "pretrain":
        return
    out = tmp_path / "predictions.jsonl"
    words = [
        "predict",
        str(run),
        "--pairs",
        str(table),
        "--store",
        str(store),
        "--out",
        str(out),
    ]  # columns as in the recipe
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    trained = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    kept = ("id", "text", "gold", "prediction", "right")
    assert [[line[key] for key in kept] for line in lines] == [
        [json.loads(each)[key] for key in kept] for each in trained
    ]
    assert {"id", "image_id", "text", "prediction", "confidence", "gold", "right"} <= lines[0].keys()
    assert lines[0]["image_id"] == "flower_01"
    assert "top" in lines[0] or name == "phrases"
