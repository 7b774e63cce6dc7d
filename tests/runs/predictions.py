"""Evaluate with predictions and write what each case gave; started by test_predictions_distributed.py.

Every case is run by transformers' own Trainer and by ours.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from mmpt.tasks.table import TASKS
from mmpt.training.finetuning_trainer import FineTuningTrainer
from mmpt.training.process_group import leave_process_group
from mmpt.training.trainer import MmptTrainer, MmptTrainingArguments
from tests.factories import tasks as tiny_tasks
from tests.factories.training import tiny_collator, tiny_dataset, tiny_model

ROWS, BATCH = 7, 2  # by two processes: the last batch lacks a row
OBJECTIVES = {"itm": ("mlm", "itm"), "mlm": ("mlm",), "regions": ("mrc", "mrfr")}


def cases() -> dict[str, Any]:
    """Return a function that makes a Trainer of each case, by its name; it takes `compute_metrics`."""
    made: dict[str, Any] = {}
    for kind, trainer, arguments in (
        ("stock", Trainer, TrainingArguments),
        ("ours", MmptTrainer, MmptTrainingArguments),
    ):
        for name, objectives in OBJECTIVES.items():
            torch.manual_seed(0)
            model = tiny_model(objectives=objectives, initializer_range=0.3)
            made[f"{kind} {name}"] = _maker(
                trainer,
                arguments,
                [f"{objective}_labels" for objective in model.config.objective_weights],
                model=model,
                data_collator=tiny_collator(model),
                eval_dataset=tiny_dataset(ROWS, 1, for_evaluation=True),
            )
    for task in TASKS:
        parts: dict[str, Any] = dict(
            model=tiny_tasks.model(task),
            data_collator=tiny_tasks.collator(task),
            eval_dataset=tiny_tasks.dataset(task, ROWS),
        )
        made[f"stock {task}"] = _maker(Trainer, TrainingArguments, ["labels"], **parts)
        made[f"ours {task}"] = _maker(FineTuningTrainer, MmptTrainingArguments, None, **parts, task=TASKS[task])
    return made


def _maker(trainer: Any, arguments: Any, label_names: list[str] | None, **parts: Any) -> Any:
    def make(compute_metrics: Any) -> Any:
        args = arguments(
            tempfile.mkdtemp(),
            use_cpu=True,
            remove_unused_columns=False,
            label_names=label_names,
            per_device_eval_batch_size=BATCH,
            disable_tqdm=True,
            report_to="none",
        )
        return trainer(args=args, compute_metrics=compute_metrics, **parts)

    return make


def main(output: Path) -> None:
    """Write the arrays that `compute_metrics` saw, and the loss of our trainers, from the first process."""
    results: dict[str, np.ndarray] = {}
    for name, make in cases().items():
        seen: dict[str, Any] = {}

        def measure(prediction: Any, seen: dict[str, Any] = seen) -> dict[str, float]:
            seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
            return {}

        trainer = make(measure)
        loss = trainer.evaluate()["eval_loss"]
        for kind, arrays in seen.items():
            for number, array in enumerate(arrays if isinstance(arrays, tuple | list) else [arrays]):
                results[f"{name}|{kind}|{number}"] = np.asarray(array)
        if name.startswith("ours"):
            results[f"{name}|loss|0"] = np.asarray(loss)
    if trainer.is_world_process_zero():
        np.savez(output, **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave_process_group()
