"""What two processes see of wrapped data, of one bad example and of losses; started by test_two_processes.py.

torchrun --nproc_per_node 2 -m tests.runs.two_processes OUTPUT
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from mmpt.configuration.errors import MmptFloatingPointError
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL
from mmpt.tasks.table import TASKS
from mmpt.training.finetuning_trainer import FineTuningTrainer
from mmpt.training.process_group import leave_process_group
from mmpt.training.trainer import MmptTrainingArguments
from tests.factories import tasks as tiny_tasks
from tests.factories.training import tiny_model, tiny_trainer
from tests.mmpt.training.test_not_finite import poisoned
from tests.processing.pretraining.test_epochs import MAPS, ROWS, STREAMS

EPOCHS = 2
OWN, SPLIT = {"dispatch_batches": False}, {"split_batches": True}
WAYS: dict[str, list[dict[str, bool]]] = {
    "random_split": [OWN],
    "concat": [OWN],
    "list": [OWN, SPLIT],
    "table": [OWN],
    "stream": [OWN, SPLIT | {"dispatch_batches": True}],
    "datasets stream": [OWN, SPLIT | {"dispatch_batches": True}],
}
"""Kind of data -> how processes share its batches."""


def fine_tuner(**arguments: Any) -> FineTuningTrainer:
    """Return a trainer that logs and learns nothing."""
    values = {"output_dir": tempfile.mkdtemp(), "learning_rate": 0.0, "save_strategy": "no", "use_cpu": True}
    values |= {"disable_tqdm": True, "per_device_train_batch_size": 2}
    return FineTuningTrainer(
        model=tiny_tasks.model("vqa"),
        args=MmptTrainingArguments(**(values | arguments)),
        data_collator=tiny_tasks.collator("vqa"),
        train_dataset=tiny_tasks.dataset("vqa", 12),
        task=TASKS["vqa"],
    )


def masks_of(make: Callable[[], Any], way: dict[str, bool], processes: int) -> list[list[list[int]]]:
    """Return, by epoch, the rows that all processes see: words and masked regions, without padding."""
    seen: list[list[list[int]]] = []
    trainer = tiny_trainer(
        Path(tempfile.mkdtemp()),
        tiny_model(objectives=("mlm", "mrc")),  # where a stream's mismatched partners come from depends on the batch
        train=make(),
        per_device_train_batch_size=ROWS if way.get("split_batches") else ROWS // processes,
        max_steps=EPOCHS,
        learning_rate=0.0,
        logging_strategy="no",
        accelerator_config=way,
    )
    original = trainer.compute_loss

    def spy(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        rows = []
        for row in range(len(inputs["input_ids"])):
            words = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
            masked = inputs["masked_regions"][row][inputs["region_attention_mask"][row].bool()]
            rows.append([*words.tolist(), -1, *masked.long().tolist()])
        seen.append(rows)
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    trainer.train()
    return [sorted(gather_object(rows)) if processes > 1 else sorted(rows) for rows in seen]


def error_of(trainer: Any) -> str:
    try:
        trainer.train()
    except MmptFloatingPointError as error:
        return str(error)
    return ""


def not_finite() -> dict[str, list[str]]:
    """Return, by the example that is bad, what each process raises; one of them gets it."""
    folder = Path(tempfile.mkdtemp())
    pretrainer = tiny_trainer(folder, tiny_model(), train=poisoned(5), per_device_train_batch_size=2, max_steps=8)
    tuner = fine_tuner(max_steps=6)
    data: Any = tuner.train_dataset
    data.regions[data.table[3]["image_id"]].features[0] *= 1e30
    return {"image-5": gather_object([error_of(pretrainer)]), "q3": gather_object([error_of(tuner)])}


def losses() -> dict[str, Any]:
    """Return the losses that fine-tuning logs, and those of the batches of both processes."""
    trainer = fine_tuner(max_steps=4, logging_steps=2, gradient_accumulation_steps=2, num_train_epochs=3)
    batches: list[dict[str, Any]] = []
    original = trainer.compute_loss

    def spy(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        batches.append({name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL})
        return original(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy  # type: ignore[method-assign]
    trainer.train()
    network: Any = trainer.accelerator.unwrap_model(trainer.model).eval()
    with torch.no_grad():
        own = [float(network(**batch).loss) for batch in batches]
    logged = [event["loss"] for event in trainer.state.log_history if "loss" in event]
    return {"logged": logged, "batches": gather_object([own])}


if __name__ == "__main__":
    data = MAPS | STREAMS
    epochs = [(name, masks_of(data[name], way, 2)) for name, ways in WAYS.items() for way in ways]
    results = {"epochs": epochs, "losses": losses(), "not finite": not_finite()}
    if torch.distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
    leave_process_group()
