"""What the Trainers log, against numbers that are made by hand from the batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

from mmpt.modeling_mmpt.objectives import OBJECTIVES
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL
from mmpt.tasks.table import TASKS
from mmpt.training.base_trainer import MmptTrainingArguments
from mmpt.training.finetuning_trainer import FineTuningTrainer
from tests.factories.tasks import collator, dataset, model
from tests.factories.training import tiny_dataset, tiny_model, tiny_trainer

WEIGHTS = {"mlm": 2.0, "mrc": 0.5, "mrfr": 1.0, "itm": 1.5}


def record(trainer: Trainer) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Return lists that fill with the training and the evaluation batches."""
    seen: tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]] = ([], [])
    original = trainer.compute_loss

    def spy(model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        seen[0 if model.training else 1].append({name: value.clone() for name, value in inputs.items()})
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    return seen


def by_hand(model: Any, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    """Return each objective's loss, metric and count over all batches, an element at a time where it can be."""
    sums = {name: [0.0, 0.0, 0.0] for name in WEIGHTS}
    for batch in batches:
        with torch.no_grad():
            output = model(**batch)
        for name in WEIGHTS:
            labels = batch[f"{name}_labels"]
            chosen = (labels != -100).reshape(*labels.shape[:2], -1).all(-1) if name == "mrfr" else labels != -100
            count = int(chosen.sum())
            assert count == int(output[f"{name}_count"])
            sums[name][0] += float(output[f"{name}_loss"]) * count
            sums[name][1] += float(output[f"{name}_{OBJECTIVES[name].metric_name}"]) * count
            sums[name][2] += count
    named = {}
    for name, (loss, metric, count) in sums.items():
        named |= {f"{name}_loss": loss / max(count, 1), f"{name}_count": count}
        named[f"{name}_{OBJECTIVES[name].metric_name}"] = metric / max(count, 1)
    return named


def weighted(named: Mapping[str, float]) -> float:
    return sum(weight * named[f"{name}_loss"] for name, weight in WEIGHTS.items())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_pre_training_logs_what_the_batches_of_each_window_give(tmp_path: Path, accumulation: int) -> None:
    trainer = tiny_trainer(
        tmp_path,
        tiny_model(objective_weights=WEIGHTS),
        evaluation=tiny_dataset(pairs=10, seed=1, for_evaluation=True),
        masking={"policy": "joint", "probability": 0.3},
        per_device_train_batch_size=4 // accumulation,
        per_device_eval_batch_size=3,
        gradient_accumulation_steps=accumulation,
        max_steps=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        learning_rate=0.0,  # the weights at the end are those of every step
    )
    training, evaluation = record(trainer)
    trainer.train()
    network = trainer.model.eval()
    logged = [event for event in trainer.state.log_history if "loss" in event]
    evaluated = [event for event in trainer.state.log_history if "eval_loss" in event]
    assert len(logged) == len(evaluated) == 2
    for window, event in enumerate(logged):
        batches = training[window * 2 * accumulation : (window + 1) * 2 * accumulation]
        expected = by_hand(network, batches)
        assert sum(expected[f"{name}_count"] for name in WEIGHTS) > 4
        assert 0 < expected["itm_accuracy"] < 1 or expected["mrfr_cosine"] != 0
        assert {name: event[name] for name in expected} == pytest.approx(expected, abs=1e-5)
        steps = [by_hand(network, batches[start : start + accumulation]) for start in (0, accumulation)]
        assert event["loss"] == pytest.approx(sum(map(weighted, steps)) / 2, abs=1e-4)
    for part, event in enumerate(evaluated):
        expected = by_hand(network, evaluation[4 * part : 4 * part + 4])
        assert {name: event[f"eval_{name}"] for name in expected} == pytest.approx(expected, abs=1e-5)
        assert event["eval_loss"] == pytest.approx(weighted(expected), abs=1e-5)


def test_fine_tuning_logs_the_mean_of_the_batches_and_the_exact_evaluation(tmp_path: Path) -> None:
    data = dataset("classification", 6)
    trainer = FineTuningTrainer(
        model=model("classification"),
        args=MmptTrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=1,
            per_device_eval_batch_size=4,
            gradient_accumulation_steps=3,
            max_steps=4,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            learning_rate=0.0,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        data_collator=collator("classification"),
        train_dataset=data,
        eval_dataset=data,
        task=TASKS["classification"],
    )
    training, evaluation = record(trainer)
    trainer.train()
    network: Any = trainer.model.eval()

    def outputs(batches: list[dict[str, Tensor]]) -> list[tuple[float, int, int]]:
        """The loss, the right ones and the rows of each batch."""
        found = []
        for batch in batches:
            with torch.no_grad():
                output = network(**{name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL})
            right = int((output.logits.argmax(-1) == batch["labels"]).sum())
            found.append((float(output.loss), right, len(batch["labels"])))
        return found

    logged = [event for event in trainer.state.log_history if "loss" in event]
    assert len(logged) == 2
    for window, event in enumerate(logged):
        losses = [loss for loss, _, _ in outputs(training[6 * window : 6 * window + 6])]
        assert event["loss"] == pytest.approx(sum(losses) / 6, abs=1e-4)
    evaluated = [event for event in trainer.state.log_history if "eval_loss" in event]
    assert len(evaluated) == 2
    for part, event in enumerate(evaluated):
        rows = outputs(evaluation[2 * part : 2 * part + 2])
        assert event["eval_loss"] == pytest.approx(sum(loss * count for loss, _, count in rows) / 6, abs=1e-5)
        assert event["eval_accuracy"] == pytest.approx(sum(right for _, right, _ in rows) / 6, abs=1e-5)
