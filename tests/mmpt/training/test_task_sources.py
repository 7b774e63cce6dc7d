"""The data of a task from each of its sources: generated scenes, and a store with tables."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from mmpt.processing.annotations.pair_writing import write_pairs
from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.recipe.recipe import load_recipe
from mmpt.tasks.scoring import score_statements
from mmpt.training.data_sources import evaluation_table, open_task_corpus, store_table, texts_of
from mmpt.training.finetuning import finetune
from tests.factories.tasks import table, write_data

TRAINING = """
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
training: {max_steps: 2, per_device_train_batch_size: 4, logging_steps: 1, use_cpu: true, disable_tqdm: true}
"""


def recipe(folder: Path, data: str, name: str = "statements"):
    path = folder / "a.yaml"
    path.write_text(f"{TRAINING}\ndata: {data}\ntask: {{name: {name}}}\n")
    return load_recipe(path, ["--output_dir", str(folder / "run")], command="finetune")


def test_consistency_is_of_the_groups_that_a_table_has(tmp_path: Path) -> None:
    """Each text comes twice in twelve rows: six groups of two by text, three of four by the column."""
    store, pairs = write_data(tmp_path, "statements")
    data = f"{{store: {store}, pairs: {pairs}, eval_pairs: {pairs}}}"
    assert finetune(recipe(tmp_path, data))["evaluation"]["consistency_total"] == 6
    for name, groups in (("numbers", [row // 4 for row in range(12)]), ("words", ["a", "b", "c"] * 4)):
        grouped = table("statements", 12).add_column("group", groups)  # type: ignore[call-arg]
        for suffix in ("parquet", "csv", "jsonl"):
            file = tmp_path / f"{name}.{suffix}"
            write_pairs(grouped, file)
            dataset = store_table(str(file), str(store), None, "statements").dataset
            assert dataset.column("group") == [str(group) for group in groups]
            guesses: list[Any] = [{"number": label} for label in dataset.column("label")]
            scores = score_statements(guesses, dataset, {"false": 0, "true": 1})
            assert (scores["consistency_total"], scores["accuracy_total"]) == (3, 12)


def test_a_table_and_a_store_are_joined(tmp_path: Path) -> None:
    store, pairs = write_data(tmp_path, "multiple_choice", rows=6)
    data = recipe(tmp_path, f"{{store: {store}, pairs: {pairs}}}", "multiple_choice").data
    corpus = open_task_corpus(data, "multiple_choice")
    assert corpus.evaluation is None
    assert corpus.facts == {"region_feature_dim": 6}
    assert {"a blue star", "red star"} <= set(corpus.texts)
    with pytest.raises(ValueError, match=r"no data\.eval_pairs"):
        evaluation_table(data, "multiple_choice")
    joined = store_table(str(pairs), str(store), None, "multiple_choice")
    assert joined.class_names == [f"thing {i}" for i in range(5)]
    assert joined.picture("image-0") is None


def test_images_without_regions_are_named(tmp_path: Path) -> None:
    store, pairs = write_data(tmp_path, "statements", rows=6)
    rows = table("statements", 6).to_dict() | {"image_id": ["image-0"] * 5 + ["other"]}  # type: ignore[operator]
    Dataset.from_dict(rows).to_parquet(pairs)
    with pytest.raises(MissingRegionsError, match="'other'"):
        store_table(str(pairs), str(store), None, "statements")


def test_generated_scenes_evaluate_on_the_rows_of_their_recipe(tmp_path: Path) -> None:
    data = recipe(tmp_path, "{scene_task: {train_rows: 9, evaluation_rows: 18, seed: 3}}", "entailment").data
    rows = evaluation_table(data, "entailment")
    assert len(rows.dataset) == 18
    picture = rows.picture(rows.dataset.column("image_id")[0])
    assert picture is not None
    assert picture.size == (120, 120)


def test_texts_of_a_table_are_all_its_texts() -> None:
    assert texts_of(table("multiple_choice", 1)) == ["red star", "red", "a blue star", "dog"]
