"""Every argument of transformers' Trainer works in both trainers, is refused, or has nothing to do with either."""

from dataclasses import fields
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset
from transformers import Trainer, TrainingArguments

from mmpt.configuration.errors import MmptError
from mmpt.tasks.table import TASKS
from mmpt.training.finetuning_trainer import FineTuningTrainer
from mmpt.training.trainer import MmptTrainer, MmptTrainingArguments
from tests.factories import tasks as tiny_tasks
from tests.factories.training import tiny_collator, tiny_dataset, tiny_model

# Everything else is refused by the trainer that is named with a value that is seen to be refused below.
REFUSED: dict[str, dict[str, Any]] = {
    "both": {
        "data_collator": None,
        "remove_unused_columns": True,
        "prediction_loss_only": True,  # with compute_metrics, which it would silence
        "use_liger_kernel": True,
        "label_names": ["start_positions"],
        "length_column_name": "words",
    },
    "pre-training": {
        "compute_loss_func": lambda outputs, labels, num_items_in_batch=None: outputs.loss,
        "label_smoothing_factor": 0.1,
        "average_tokens_across_devices": False,
    },
    "fine-tuning": {"train_sampling_strategy": "group_by_length"},
}
# Refused where the library beside it is installed and several processes run.
REFUSED_ELSEWHERE = {"parallelism_config": "these models have no tensor, context or sequence parallelism"}
IRRELEVANT = {
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "read by example scripts, not by Trainer"),
    "local_rank": "set by the launcher",
    "debug": "of the TPU and of sharding underflow, which print and compute nothing else",
    "use_cache": "a cache of generation; these models do not generate",
    **dict.fromkeys(("run_name", "project"), "names for trackers"),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "where a tracker writes"),
    "liger_kernel_config": "read with use_liger_kernel alone, which is refused",
}
WORKS = {
    "output_dir",
    "per_device_train_batch_size",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "optim_target_modules",
    "gradient_accumulation_steps",
    "average_tokens_across_devices",
    "max_grad_norm",
    "label_smoothing_factor",
    "bf16",
    "fp16",
    "bf16_full_eval",
    "fp16_full_eval",
    "tf32",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "neftune_noise_alpha",
    "torch_empty_cache_steps",
    "auto_find_batch_size",
    "logging_strategy",
    "logging_steps",
    "logging_first_step",
    "log_on_each_node",
    "logging_nan_inf_filter",
    "include_num_input_tokens_seen",
    "log_level",
    "log_level_replica",
    "disable_tqdm",
    "report_to",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "per_device_eval_batch_size",
    "eval_on_start",
    "eval_do_concat_batches",
    "eval_use_gather_object",
    "eval_accumulation_steps",
    "include_for_metrics",
    "batch_eval_metrics",
    "save_only_model",
    "save_strategy",
    "save_steps",
    "save_on_each_node",
    "save_total_limit",
    "enable_jit_checkpoint",
    "push_to_hub",
    "hub_token",
    "hub_private_repo",
    "hub_model_id",
    "hub_strategy",
    "hub_always_push",
    "hub_revision",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "ignore_data_skip",
    "restore_callback_states_from_checkpoint",
    "full_determinism",
    "seed",
    "data_seed",
    "use_cpu",
    "accelerator_config",
    "dataloader_drop_last",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
    "dataloader_in_order",
    "train_sampling_strategy",
    "ddp_find_unused_parameters",
    "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers",
    "ddp_static_graph",
    "ddp_backend",
    "ddp_timeout",
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "skip_memory_metrics",
    "resume_from_checkpoint",
    "model",
    "args",
    "train_dataset",
    "eval_dataset",
    "processing_class",
    "model_init",
    "compute_loss_func",
    "compute_metrics",
    "callbacks",
    "optimizers",
    "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
}
PARAMETERS = set(signature(Trainer).parameters)


def trainer(kind: str, folder: Path, task: str = "statements", model: Any = None, **given: Any) -> Any:
    """A trainer of one step; `given` are fields of TrainingArguments and parameters of Trainer."""
    parameters = {name: given.pop(name) for name in list(given) if name in PARAMETERS}
    own = {name: given.pop(name) for name in list(given) if name in ("layer_decay", "head_factor")}
    values: dict[str, Any] = dict(
        output_dir=str(folder), use_cpu=True, max_steps=1, logging_steps=1, save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=4, per_device_eval_batch_size=4,
    )  # fmt: skip
    args = MmptTrainingArguments(**(values | given))
    if kind == "pre-training":
        model = tiny_model() if model is None else model
        common = dict(data_collator=tiny_collator(tiny_model()), train_dataset=tiny_dataset())
        common["eval_dataset"] = tiny_dataset(6, 1, True)
        common = {"model": None if "model_init" in parameters else model, **common}
        return MmptTrainer(args=args, **(common | parameters))
    common = {
        "model": None if "model_init" in parameters else (tiny_tasks.model(task) if model is None else model),
        "data_collator": tiny_tasks.collator(task),
        "train_dataset": tiny_tasks.dataset(task, 12),
        "eval_dataset": tiny_tasks.dataset(task, 10),
    }
    return FineTuningTrainer(args=args, task=TASKS[task], **own, **(common | parameters))


KINDS = pytest.mark.parametrize("kind", ["pre-training", "fine-tuning"])


def test_every_argument_of_transformers_is_in_the_table() -> None:
    # What is refused says why in its own message, which the next test looks for.
    known = WORKS | set(IRRELEVANT) | set(REFUSED_ELSEWHERE) | {name for values in REFUSED.values() for name in values}
    ours = PARAMETERS | {item.name for item in fields(TrainingArguments)}
    assert known == ours


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("pre-training", "fine-tuning") for name in REFUSED["both"] | REFUSED[kind]],
)
def test_what_is_refused_is_refused_when_the_trainer_is_made(tmp_path: Path, kind: str, name: str) -> None:
    given = {name: (REFUSED["both"] | REFUSED[kind])[name]}
    if name == "prediction_loss_only":
        given["compute_metrics"] = lambda prediction: {}
    with pytest.raises(MmptError, match=rf"does not take {name}=.+: .{{20,}}(; |, or |leave)"):
        trainer(kind, tmp_path, **given)


@KINDS
def test_compute_metrics_gets_a_row_an_example_and_its_measures_are_logged(tmp_path: Path, kind: str) -> None:
    seen: list[tuple[Any, Any]] = []

    def measure(prediction: Any) -> dict[str, float]:
        labels = prediction.label_ids
        labels = labels[4] if kind == "pre-training" else labels
        seen.append((prediction.predictions, labels))
        there = labels != -100
        hits = prediction.predictions.argmax(-1)[there] == labels[there]
        return {"mine": float(hits.mean()), "rows": float(len(prediction.inputs))}

    made = trainer(kind, tmp_path, compute_metrics=measure, include_for_metrics=["inputs", "loss"])
    metrics = made.evaluate()
    rows = len(made.eval_dataset)
    assert [len(part) for part in seen[0]] == [rows, rows]
    name = "itm_accuracy" if kind == "pre-training" else "accuracy"
    assert metrics["eval_mine"] == pytest.approx(metrics[f"eval_{name}"])
    assert metrics["eval_rows"] == rows
    predicted = made.predict(made.eval_dataset)
    np.testing.assert_allclose(predicted.predictions, seen[0][0], atol=1e-6)
    assert predicted.metrics["test_mine"] == metrics["eval_mine"]


@KINDS
def test_arguments_of_evaluation_are_those_of_trainer(tmp_path: Path, kind: str) -> None:
    def measure(prediction: Any, compute_result: bool = True) -> dict[str, float]:
        calls.append(len(prediction.predictions))
        return {"mine": float(len(calls))} if compute_result else {}

    calls: list[int] = []
    metrics = trainer(kind, tmp_path, compute_metrics=measure, batch_eval_metrics=True).evaluate()
    assert len(calls) > 1
    assert metrics["eval_mine"] == len(calls)
    for given in ({"eval_do_concat_batches": False}, {"eval_accumulation_steps": 1}):
        assert "eval_mine" in trainer(kind, tmp_path, compute_metrics=measure, **given).evaluate()
    largest = trainer(
        kind,
        tmp_path,
        compute_metrics=lambda p: {"width": float(p.predictions.ndim)},
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    assert largest.evaluate()["eval_width"] == 1
    table = largest.eval_dataset
    both = trainer(kind, tmp_path, eval_dataset={"a": table, "b": table}, eval_strategy="steps", eval_steps=1)
    logged = both.evaluate()
    assert logged["eval_a_loss"] == logged["eval_b_loss"]
    assert "eval_loss" in trainer(kind, tmp_path, dataloader_drop_last=True).evaluate()


@KINDS
def test_a_users_metric_chooses_the_best_checkpoint(tmp_path: Path, kind: str) -> None:
    steps: list[int] = []
    made = trainer(
        kind, tmp_path, max_steps=3, eval_strategy="steps", eval_steps=1, load_best_model_at_end=True,
        metric_for_best_model="mine", greater_is_better=True, compute_metrics=lambda p: steps.append(1) or
        {"mine": float(len(steps) == 2)}, **{"save_strategy": "steps", "save_steps": 1},
    )  # fmt: skip
    made.train()
    assert made.state.best_global_step == 2


@KINDS
def test_noise_on_embeddings_changes_training_alone(tmp_path: Path, kind: str) -> None:
    seen = []
    for alpha in (None, 5.0):
        torch.manual_seed(0)
        model = tiny_model() if kind == "pre-training" else tiny_tasks.model("statements")
        made = trainer(kind, tmp_path, model=model, neftune_noise_alpha=alpha, learning_rate=0.0)
        seen.append((made.train().training_loss, made.evaluate()["eval_loss"]))
    assert seen[0][0] != pytest.approx(seen[1][0], abs=1e-3)
    assert seen[0][1] == pytest.approx(seen[1][1])


def test_deepspeed_that_is_not_installed_is_one_sentence(tmp_path: Path) -> None:
    if find_spec("deepspeed") is not None:
        pytest.skip("deepspeed is installed")
    with pytest.raises(MmptError, match=r"need a package that is not installed: .*deepspeed"):
        trainer("pre-training", tmp_path, deepspeed={"zero_optimization": {"stage": 2}})


@KINDS
def test_arguments_of_training_are_those_of_trainer(tmp_path: Path, kind: str) -> None:
    def new() -> Any:
        return tiny_model() if kind == "pre-training" else tiny_tasks.model("statements")

    assert trainer(kind, tmp_path, model_init=new).train().global_step == 1
    made = trainer(kind, tmp_path, optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1}))
    made.train()
    assert isinstance(made.optimizer.optimizer, torch.optim.SGD)
    model = new()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    made = trainer(kind, tmp_path, model=model, optimizers=(optimizer, None))
    made.train()
    assert isinstance(made.optimizer.optimizer, torch.optim.Adagrad)


def test_rates_by_depth_keep_the_optimiser_that_was_named(tmp_path: Path) -> None:
    made = trainer("fine-tuning", tmp_path, layer_decay=0.5, optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1}))
    made.train()
    assert isinstance(made.optimizer.optimizer, torch.optim.SGD)
    model = tiny_tasks.model("statements")
    with pytest.raises(MmptError, match="does not take optimizers with layer_decay"):
        trainer(
            "fine-tuning", tmp_path, model=model, layer_decay=0.5,
            optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
        )  # fmt: skip


def test_label_smoothing_is_the_models_own_with_its_class_weights(tmp_path: Path) -> None:
    fields_of = {"class_weights": [5.0, 0.1]}
    given = trainer(
        "fine-tuning", tmp_path, model=tiny_tasks.model("statements", **fields_of), label_smoothing_factor=0.1
    )
    own = trainer("fine-tuning", tmp_path, model=tiny_tasks.model("statements", label_smoothing=0.1, **fields_of))
    plain = trainer("fine-tuning", tmp_path, model=tiny_tasks.model("statements", **fields_of))
    losses = [made.train().training_loss for made in (given, own, plain)]
    assert losses[0] == losses[1] != losses[2]
    for task in ("vqa", "grounding", "phrases", "retrieval"):
        with pytest.raises(MmptError, match="does not take label_smoothing_factor"):
            trainer("fine-tuning", tmp_path, task=task, label_smoothing_factor=0.1)
    with pytest.raises(MmptError, match="give one of them"):
        trainer(
            "fine-tuning",
            tmp_path,
            model=tiny_tasks.model("statements", label_smoothing=0.2),
            label_smoothing_factor=0.1,
        )


def test_a_loss_of_the_users_own_is_that_of_fine_tuning(tmp_path: Path) -> None:
    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return 7.0 + 0 * outputs.logits.sum()

    made = trainer("fine-tuning", tmp_path, compute_loss_func=loss)
    assert made.train().training_loss == 7.0
    assert made.evaluate()["eval_loss"] == 7.0


EXACT = [
    ("retrieval", {}), ("retrieval", {"contrastive_size": 8}), ("statements", {"class_weights": [5.0, 0.1]}),
    ("grounding", {"grounding_loss": "cross_entropy"}), ("phrases", {}), ("vqa", {}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "options"), EXACT)
def test_the_loss_of_an_evaluation_does_not_depend_on_the_batch_size(tmp_path: Path, task: str, options: dict) -> None:
    losses = [
        trainer(
            "fine-tuning", tmp_path, task=task, model=tiny_tasks.model(task, **options), per_device_eval_batch_size=size
        ).evaluate()["eval_loss"]
        for size in (3, 10)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_stock_trainer_and_ours_gather_the_same_rows_of_every_task(tmp_path: Path, task: str) -> None:
    model, rows = tiny_tasks.model(task), tiny_tasks.dataset(task, 10)
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, remove_unused_columns=False, per_device_eval_batch_size=3, report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    stock = Trainer(model=model, args=arguments, data_collator=tiny_tasks.collator(task), compute_metrics=lambda p: {})
    ours = trainer("fine-tuning", tmp_path, task=task, model=model, per_device_eval_batch_size=3)
    expected, got = stock.predict(rows), ours.predict(rows)
    assert len(expected.predictions) == len(expected.label_ids) == len(rows)
    np.testing.assert_allclose(got.predictions, expected.predictions, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.label_ids, expected.label_ids)


@pytest.mark.parametrize("objectives", [("mlm",), ("mrc", "mrfr"), ("mlm", "itm")])
def test_logits_of_pre_training_stand_where_their_labels_do(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    made = trainer("pre-training", tmp_path, model=(model := tiny_model(objectives=objectives)),
                   data_collator=tiny_collator(model))  # fmt: skip
    metrics = made.evaluate()
    output = made.predict(made.eval_dataset)
    named = [name for name in ("mlm", "mrc", "mrfr", "itm") if name in objectives]
    predictions, labels = output.predictions, output.label_ids
    predictions = predictions if isinstance(predictions, tuple) else (predictions,)
    labels = labels if isinstance(labels, tuple) else (labels,)
    kept = [name for name in named if name == "itm" or "itm" not in objectives]
    assert len(predictions) == len(kept)
    for name, logits in zip(kept, predictions, strict=True):
        target = labels[made.label_names.index(f"{name}_labels")]
        assert logits.shape[: target.ndim] == target.shape or name == "mrfr"
        assert len(logits) == len(target) == 6
        if name != "mrfr":
            there = target != -100
            hits = logits.argmax(-1)[there] == target[there]
            assert hits.mean() == pytest.approx(metrics[f"eval_{name}_accuracy"])
            assert (logits[~there] == -100).all()


def test_a_table_without_labels_is_predicted_and_other_evaluation_rows_are_refused(tmp_path: Path) -> None:
    made = trainer("fine-tuning", tmp_path)
    labelled = tiny_tasks.dataset("statements", 5)
    unlabelled = type(labelled)(labelled.table.remove_columns("label"), labelled.regions)
    output = made.predict(unlabelled)
    assert output.label_ids is None
    np.testing.assert_allclose(output.predictions, made.predict(labelled).predictions, atol=1e-6)
    with pytest.raises(MmptError, match="are a Subset, expected a TaskDataset"):
        trainer("fine-tuning", tmp_path, eval_dataset=Subset(labelled, [0, 1]))


def test_a_batch_size_that_is_too_large_is_halved(tmp_path: Path) -> None:
    model = tiny_model()
    made = trainer("pre-training", tmp_path, model=model, auto_find_batch_size=True, per_device_train_batch_size=8)

    def out_of_memory(module: Any, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > 4:
            raise RuntimeError("CUDA out of memory.")

    model.register_forward_pre_hook(out_of_memory, with_kwargs=True)
    made.train()
    assert made.state.log_history[0]["itm_count"] <= 4
