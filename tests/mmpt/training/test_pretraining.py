"""`mmpt pretrain` from recipe to files, on the smallest data that has everything."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForPreTraining, AutoProcessor

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES
from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.processing.store.writer import RegionStoreWriter
from mmpt.recipe.recipe import load_recipe
from mmpt.training.pretraining import pretrain
from tests.factories.training import tiny_dataset

MODEL = """
model:
  hidden_size: 16
  num_hidden_layers: 2
  num_attention_heads: 2
  intermediate_size: 32
  max_position_embeddings: 96
  dual: {region_num_hidden_layers: 1, text_co_attention_layers: [1], region_co_attention_layers: [0]}
"""
TRAINING = """
training:
  max_steps: 4
  per_device_train_batch_size: 8
  logging_steps: 1
  eval_strategy: steps
  eval_steps: 2
  save_strategy: steps
  save_steps: 2
  load_best_model_at_end: true
  metric_for_best_model: loss
  use_cpu: true
  disable_tqdm: true
"""
GENERATED = (
    "data: {generated: {train_scenes: 16, eval_scenes: 32, statements: 0.5}}\nmasking: {hard_negative_rate: 0.5}\n"
)


def recipe_file(folder: Path, data: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(MODEL + data + TRAINING)
    return path


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_a_run_leaves_model_processor_recipe_log_metrics_and_curves(tmp_path: Path, stream: str) -> None:
    out = tmp_path / "out"
    recipe = load_recipe(recipe_file(tmp_path, GENERATED), ["--stream", stream, "--output_dir", str(out)])
    metrics = pretrain(recipe)
    written = json.loads((out / "metrics.json").read_text())
    assert next(iter(written)) == "headline"
    assert written.pop("headline")
    assert written == metrics
    for name in OBJECTIVE_NAMES:
        assert metrics["evaluation"][f"eval_{name}_count"] > 0
    grounding = metrics["grounding"]
    for name in (
        *("attribute_word_accuracy", "attribute_word_accuracy_zeroed", "mrc_accuracy", "mrc_kl_of_prior"),
        *("mrfr_of_mean", "itm_accuracy", "itm_hard_accuracy", "retrieval_recall_at_1"),
    ):
        assert grounding[name] >= 0
        assert grounding[f"{name}_count"] > 0
    assert metrics["grounding_compositions"]["attribute_word_accuracy_count"] > 0
    kinds = [f"attribute_word_accuracy_{kind}" for kind in ("colour", "shape", "size")]
    assert sum(grounding[f"{kind}_count"] for kind in kinds) == grounding["attribute_word_accuracy_count"]
    hits = sum(grounding[kind] * grounding[f"{kind}_count"] for kind in kinds)
    assert hits == pytest.approx(grounding["attribute_word_accuracy"] * grounding["attribute_word_accuracy_count"])
    model, processor = AutoModelForPreTraining.from_pretrained(out), AutoProcessor.from_pretrained(out)
    pairs = tiny_dataset()
    assert len(processor.tokenizer) == model.config.vocab_size
    assert pairs.regions_of(0).feature_dim != model.config.region_feature_dim
    assert load_recipe(out / "recipe.yaml").resolved() == recipe.resolved()
    assert (out / "log.jsonl").read_text().count("eval_mlm_loss") >= 2
    pytest.importorskip("matplotlib")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, GENERATED)
    whole = load_recipe(path, ["--output_dir", str(tmp_path / "whole"), "--load_best_model_at_end", "false"])
    pretrain(whole)
    cut = ["--output_dir", str(tmp_path / "cut"), "--load_best_model_at_end", "false"]
    pretrain(load_recipe(path, cut))
    (tmp_path / "cut" / "checkpoint-4" / "complete.json").unlink()  # as if it had been killed while saving
    pretrain(load_recipe(path, [*cut, "--resume_from_checkpoint", "last"]))
    one, two = (AutoModelForPreTraining.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


@pytest.mark.parametrize("policy", ["joint", "one_objective"])
def test_every_policy_trains_and_evaluates(tmp_path: Path, policy: str) -> None:
    recipe = load_recipe(recipe_file(tmp_path, GENERATED), ["--policy", policy, "--output_dir", str(tmp_path / "out")])
    metrics = pretrain(recipe)
    assert all(metrics["evaluation"][f"eval_{name}_count"] > 0 for name in OBJECTIVE_NAMES)


def test_short_positions_and_a_run_without_log_events_end_well(tmp_path: Path) -> None:
    overrides = ["--max_position_embeddings", "12", "--max_text_length", "12", "--output_dir", str(tmp_path / "out")]
    plain = [
        "--logging_steps",
        "500",
        "--eval_strategy",
        "no",
        "--save_strategy",
        "no",
        "--load_best_model_at_end",
        "no",
    ]
    pretrain(load_recipe(recipe_file(tmp_path, GENERATED), [*overrides, *plain[:-1], "false"]))
    assert (tmp_path / "out" / "metrics.json").exists()


def store_and_tables(folder: Path, pairs: int = 16) -> str:
    dataset = tiny_dataset(pairs=pairs)
    with RegionStoreWriter(folder / "store", extractor={"name": "random"}) as writer:
        for row in range(pairs):
            writer.add(dataset.regions_of(row))
    table = Dataset.from_dict(dataset.pairs)
    table.to_parquet(folder / "pairs.parquet")
    table.select(range(8)).to_json(folder / "eval.jsonl")
    return (
        f"data: {{store: {folder / 'store'}, pairs: {folder / 'pairs.parquet'}, eval_pairs: {folder / 'eval.jsonl'}}}\n"
    )


def test_a_store_and_tables_on_disk_are_trained_on(tmp_path: Path) -> None:
    data = store_and_tables(tmp_path)
    metrics = pretrain(load_recipe(recipe_file(tmp_path, data), ["--output_dir", str(tmp_path / "out")]))
    assert "grounding" not in metrics
    assert metrics["evaluation"]["eval_mrfr_count"] > 0


def test_every_missing_image_is_named_before_training(tmp_path: Path) -> None:
    data = store_and_tables(tmp_path)
    dataset = tiny_dataset(pairs=18)
    Dataset.from_dict(dataset.pairs).to_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(MissingRegionsError, match=r"2 of 18 images .* have no regions .*'image-16', 'image-17'"):
        pretrain(load_recipe(recipe_file(tmp_path, data), ["--output_dir", str(tmp_path / "out")]))


def test_weights_go_on_from_a_folder_and_must_fit_the_data(tmp_path: Path) -> None:
    data = store_and_tables(tmp_path)
    path = recipe_file(tmp_path, data)
    first = tmp_path / "first"
    pretrain(load_recipe(path, ["--output_dir", str(first)]))
    again = tmp_path / "again.yaml"
    again.write_text(f"model: {{from_pretrained: {first}}}\n" + data + TRAINING)
    pretrain(load_recipe(again, ["--output_dir", str(tmp_path / "again")]))
    words = [AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() for folder in (first, tmp_path / "again")]
    assert words[0] == words[1]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"model: {{from_pretrained: {first}}}\n" + GENERATED + TRAINING)
    with pytest.raises(
        ValueError,
        match=r"the tokenizer has \d+ tokens, the model has vocab_size|has feature_dim 152, but the model was",
    ):
        pretrain(load_recipe(wrong, ["--output_dir", str(tmp_path / "wrong")]))
