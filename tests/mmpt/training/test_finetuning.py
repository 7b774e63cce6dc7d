"""`mmpt finetune`, from recipe to files, on the smallest data that has everything."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from mmpt.modeling_mmpt.modeling_dual_stream import MmptDualStreamForPreTraining
from mmpt.modeling_mmpt.modeling_single_stream import MmptSingleStreamForPreTraining
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.recipe.recipe import Recipe, load_recipe
from mmpt.tasks.table import TASKS
from mmpt.training.checkpoints import MARKER
from mmpt.training.finetuning import finetune
from tests.factories.examples import TOKENIZER
from tests.factories.paths import ROOT
from tests.factories.tasks import config, write_data

RECIPES = sorted((ROOT / "recipes" / "tasks").glob("*.yaml"))
MODEL = """
model:
  hidden_size: 16
  num_hidden_layers: 2
  num_attention_heads: 2
  intermediate_size: 32
  max_position_embeddings: 32
  initializer_range: 0.3
  dual: {region_num_hidden_layers: 1, text_co_attention_layers: [1], region_co_attention_layers: [0]}
"""
TRAINING = """
training:
  max_steps: 4
  per_device_train_batch_size: 4
  logging_steps: 1
  eval_strategy: steps
  eval_steps: 2
  save_strategy: steps
  save_steps: 2
  learning_rate: 0.01
  use_cpu: true
  disable_tqdm: true
"""


def recipe(folder: Path, name: str, *overrides: str, model: str = MODEL, task: str = "") -> Recipe:
    store, pairs = write_data(folder, name)
    data = f"data: {{store: {store}, pairs: {pairs}, eval_pairs: {pairs}}}\n"
    path = folder / "recipe.yaml"
    path.write_text(f"{model}\n{data}\ntask: {{name: {name}{task}}}\n{TRAINING}")
    return load_recipe(path, ["--output_dir", str(folder / "run"), *overrides], command="finetune")


def refuse(folder: Path, text: str, *overrides: str) -> str:
    path = folder / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers look at the message
        load_recipe(path, overrides, command="finetune")
    return str(caught.value)


@pytest.mark.parametrize("name", TASKS)
def test_a_run_leaves_model_processor_recipe_log_metrics_predictions_and_gallery(tmp_path: Path, name: str) -> None:
    stream = "dual" if name in ("vqa", "grounding", "retrieval") else "single"
    fusion = "hybrid" if name == "entailment" else "early"
    run = recipe(tmp_path, name, "--stream", stream, "--gallery", "3", "--fusion", fusion)
    metrics = finetune(run)
    out, task = tmp_path / "run", TASKS[name]
    written = json.loads((out / "metrics.json").read_text())
    assert next(iter(written)) == "headline"
    assert task.metric in written.pop("headline")
    assert written == metrics
    assert 0 <= metrics["evaluation"][task.metric] <= 1
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"q{row}" for row in range(12)]
    assert all(0 <= line["confidence"] <= 1 for line in lines)
    steps = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert f"eval_{task.metric}" in steps[2]
    assert (out / "curves.png").stat().st_size > 0
    page = (out / "gallery.html").read_text()
    assert "http" not in page
    assert ("predicted from regions" in page) == (fusion == "hybrid" and "<article>" in page)
    assert load_recipe(out / "recipe.yaml", command="finetune") == run
    model: Any = task.models[stream].from_pretrained(out)
    assert isinstance(AutoProcessor.from_pretrained(out), MmptProcessor)
    if task.names is not None:
        assert model.config.label2id == {label: number for number, label in model.config.id2label.items()}
    assert all((out / f"checkpoint-{step}" / MARKER).is_file() for step in (2, 4))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stream", ["single", "dual"])
def test_shipped_recipe_is_of_its_task_in_either_stream(path: Path, stream: str) -> None:
    loaded = load_recipe(path, ["--stream", stream], command="finetune")
    assert loaded.task is not None
    assert loaded.task.name == path.stem
    assert path.read_text().startswith(f"# mmpt finetune recipes/tasks/{path.name} ")


def test_there_is_a_recipe_for_every_task_but_any_classification() -> None:
    assert {path.stem for path in RECIPES} == set(TASKS) - {"classification"}


def test_a_recipe_of_the_other_command_and_bad_values_are_refused(tmp_path: Path) -> None:
    task = "task: {name: vqa}\n"
    assert "run mmpt pretrain" in refuse(tmp_path, "masking: {}\n")
    assert "says no task; give task.name, one of vqa, " in refuse(tmp_path, "data: {scene_task: {}}\n")
    assert "either scene_task or store" in refuse(tmp_path, task)
    assert "data.scene_task.train_rows is 0" in refuse(tmp_path, task + "data: {scene_task: {train_rows: 0}}\n")
    assert "task.layer_lr_decay is 1.5, expected 0 to 1" in refuse(
        tmp_path, "task: {name: vqa, layer_lr_decay: 1.5}\ndata: {scene_task: {train_rows: 8}}\n"
    )
    assert "did you mean task.freeze?" in refuse(tmp_path, "task: {name: vqa, freze: 1}\n")
    assert "unknown key 'data.generated'" in refuse(tmp_path, task + "data: {generated: {train_scenes: 4}}\n")
    with pytest.raises(ValueError, match="has a section task: it is a recipe of fine-tuning; run mmpt finetune"):
        load_recipe(tmp_path / "a.yaml")


def test_a_run_without_the_columns_of_its_task_stops_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'answers'"):
        finetune(recipe(tmp_path, "retrieval", "--task.name", "vqa"))
    with pytest.raises(ValueError, match="'group_by_length', which only pre-training has"):
        finetune(recipe(tmp_path, "retrieval", "--train_sampling_strategy", "group_by_length"))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def pretrained(folder: Path, stream: str) -> Path:
    """Save a model for pre-training with its processor, and return its folder."""
    torch.manual_seed(1)
    made = {"single": MmptSingleStreamForPreTraining, "dual": MmptDualStreamForPreTraining}[stream]
    model: Any = made(config("retrieval", stream, objective_weights={"mlm": 1.0, "itm": 1.0}))  # type: ignore[arg-type]
    model.save_pretrained(folder / "pretrained")
    MmptProcessor(MmptImageProcessor(max_regions=3), TOKENIZER).save_pretrained(folder / "pretrained")
    return folder / "pretrained"


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_a_pre_trained_folder_gives_backbone_tokenizer_and_processor(tmp_path: Path, stream: str) -> None:
    source = pretrained(tmp_path, stream)
    options = ["--from_pretrained", str(source), "--stream", stream, "--freeze", "backbone"]
    finetune(recipe(tmp_path, "entailment", *options, model="", task=", class_weights: balanced"))
    model: Any = TASKS["entailment"].models[stream].from_pretrained(tmp_path / "run")
    before = {"single": MmptSingleStreamForPreTraining, "dual": MmptDualStreamForPreTraining}[stream]
    backbone = before.from_pretrained(source).backbone.state_dict()
    # Frozen, so the backbone is the one that was loaded; the weights of its classes are in the configuration.
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, backbone[name], atol=0, rtol=0)
    assert model.config.class_weights == pytest.approx([1.0, 1.0, 1.0])
    assert list(model.config.id2label.values()) == ["contradiction", "neutral", "entailment"]
    processor = MmptProcessor.from_pretrained(tmp_path / "run")
    assert processor.image_processor.max_regions == 3
    assert len(processor.tokenizer) == len(TOKENIZER)


def test_the_matching_head_of_pre_training_goes_on_in_retrieval(tmp_path: Path) -> None:
    source = pretrained(tmp_path, "single")
    finetune(recipe(tmp_path, "retrieval", "--from_pretrained", str(source), "--learning_rate", "0", model=""))
    before = MmptSingleStreamForPreTraining.from_pretrained(source).heads.state_dict()["matching.weight"]
    after: Any = TASKS["retrieval"].models["single"].from_pretrained(tmp_path / "run")
    torch.testing.assert_close(after.heads.state_dict()["matching.weight"], before)


def test_weights_of_the_other_stream_or_another_size_are_refused(tmp_path: Path) -> None:
    source = pretrained(tmp_path, "dual")
    with pytest.raises(ValueError, match="is a mmpt_dual_stream model; set --stream dual"):
        finetune(recipe(tmp_path, "statements", "--from_pretrained", str(source), model=""))
    options = ["--from_pretrained", str(source), "--stream", "dual", "--intermediate_size", "8"]
    with pytest.raises(ValueError, match="have another shape than the configuration asks for"):
        finetune(recipe(tmp_path, "statements", *options, model=""))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    model: Any = TASKS["statements"].models["single"].from_pretrained(folder)
    return model.state_dict()


def test_resuming_gives_the_weights_of_the_whole_run(tmp_path: Path) -> None:
    finetune(recipe(tmp_path, "statements", "--layer_lr_decay", "0.8", "--save_total_limit", "5"))
    whole = weights_of(tmp_path / "run")
    (tmp_path / "run" / "checkpoint-4" / MARKER).unlink()
    resumed = ["--layer_lr_decay", "0.8", "--resume_from_checkpoint", "last"]
    finetune(recipe(tmp_path, "statements", *resumed))
    for name, value in weights_of(tmp_path / "run").items():
        torch.testing.assert_close(value, whole[name], atol=0, rtol=0)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_early_stopping_keeps_the_best_checkpoint_by_the_metric(tmp_path: Path) -> None:
    options = ["--early_stopping_patience", "1", "--max_steps", "40", "--learning_rate", "0"]
    metrics = finetune(recipe(tmp_path, "statements", *options))
    # At a rate of zero nothing gets better, so the second evaluation ends the run.
    assert metrics["train"]["epoch"] < 4
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert state["best_global_step"] == 2
    assert state["best_metric"] == pytest.approx(metrics["evaluation"]["accuracy"])


@pytest.mark.parametrize("blank", ["text", "regions"])
def test_a_blank_modality_leaves_nothing_of_it_to_learn_from(tmp_path: Path, blank: str) -> None:
    metrics = finetune(recipe(tmp_path, "statements", "--blank", blank, "--max_steps", "2"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    said = [round(line["confidence"], 4) for line in lines]
    # Six images and six texts, twice: what is told apart is only what the other modality tells apart.
    assert len(set(said)) <= 6
    assert said[:6] == said[6:]
    assert metrics["task"] == "statements"


def test_generated_scenes_are_a_source(tmp_path: Path) -> None:
    path = tmp_path / "scenes.yaml"
    path.write_text(f"{MODEL}\ndata: {{scene_task: {{train_rows: 18, evaluation_rows: 9}}}}\n"
                    f"task: {{name: entailment, gallery: 2}}\n{TRAINING}")  # fmt: skip
    metrics = finetune(load_recipe(path, ["--output_dir", str(tmp_path / "run")], command="finetune"))
    assert metrics["evaluation"]["accuracy_total"] == 9
    assert "data:image/jpeg;base64," in (tmp_path / "run" / "gallery.html").read_text()
