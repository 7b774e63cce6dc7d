"""Apply a saved model of a downstream task to a table: predictions and, if the table has labels, metrics."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoConfig

from mmpt.configuration.configuration_mmpt import MMPT_CONFIGS
from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.modeling_mmpt.devices import device_of
from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.store.record import Record
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL, TaskDataCollator
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.encoding import Blank
from mmpt.recipe.earlier import TASK_NAMES
from mmpt.recipe.recipe import Recipe, load_recipe
from mmpt.tasks.predictions import Prediction, label_numbers
from mmpt.tasks.scoring import Measures
from mmpt.tasks.table import TASKS, Task, task_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class SavedTaskModel:
    """A model of a task on its device, with its collator and recipe.

    Args:
        name: name of the task.
        recipe: recipe of the training run, if the folder has one.
        dtype: dtype of matrix multiplications; the weights stay in float32.
    """

    name: str
    model: MmptTaskModel
    collator: TaskDataCollator
    recipe: Recipe | None
    device: torch.device
    dtype: torch.dtype

    @property
    def task(self) -> Task:
        """The row of the table of tasks."""
        return TASKS[self.name]

    @property
    def numbers(self) -> dict[str, int]:
        """Name of a class or answer -> number."""
        return label_numbers(self.model.config)

    @property
    def trained_on(self) -> Record | None:
        """Record of the training regions, or None for models of mmpt 0.1.0."""
        return self.collator.processor.image_processor.extracted_by

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        """Run the model on a batch and return its output."""
        given = {name: value.to(self.device) for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        lower = self.dtype != torch.float32
        precision = torch.autocast(self.device.type, self.dtype) if lower else contextlib.nullcontext()
        with torch.inference_mode(), precision:
            return self.model(**given)

    def predict(
        self, dataset: TaskDataset, batch_size: int, progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[Prediction]:
        """Yield the prediction of each row in table order.

        Args:
            progress: called with the number of rows done.
        """
        if self.task.rank is not None:
            ranked = self.task.rank(self.forward, self.collator, dataset, batch_size)
            yield from (ranked[row] for row in range(len(dataset)))
            return
        done = 0
        loader: Any = DataLoader(dataset, batch_size=batch_size, collate_fn=self.collator)
        for batch in loader:
            output = self.forward(batch)
            on_device = {name: value.to(self.device) for name, value in batch.items()}
            predictions = self.task.predict(output, on_device, self.model.config)
            yield from predictions
            done += len(predictions)
            progress(done)

    def score(self, predictions: list[Prediction], dataset: TaskDataset) -> Measures:
        """Return the measures of the task.

        Raises:
            ValueError: if a row has no label, or a label that is unknown to the model.
        """
        return self.task.score(predictions, dataset, self.numbers)


def open_task_model(
    folder: str,
    name: str | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    blank: Blank | None = None,
) -> SavedTaskModel:
    """Load a task model saved by `mmpt finetune` or by any other transformers training run.

    Args:
        folder: folder, or name on the Hub.
        name: name of the task; None infers it from the recipe in the folder, or from a model class with only one task.
        device: cpu, cuda, ...; None uses a GPU if there is one.
        dtype: float32, bfloat16 or float16.
        blank: modality to hide from the model; None means as in training.

    Raises:
        ValueError: if the model is not of a task or not of task `name`, or an option is unknown.
    """
    if dtype not in DTYPES:
        raise MmptValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if blank not in (None, *get_args(Blank)):
        raise MmptValueError(f"blank is {blank!r}, expected one of {', '.join(get_args(Blank))}")
    where = device_of(device)
    if name is not None:
        name = TASK_NAMES.get(name, name)
        task_of(name)
    path = Path(folder) / "recipe.yaml"
    config = load_pretrained(AutoConfig, folder, "the model")
    made_by = (config.architectures or ["none"])[0]
    recipe = None
    if path.is_file() and "PreTraining" not in made_by:
        recipe = load_recipe(path, command="finetune", saved=True)
    stream = next((each for each, made in MMPT_CONFIGS.items() if made.model_type == config.model_type), None)
    if stream is None:
        raise MmptValueError(f"{folder!r} contains a model of type {config.model_type!r}, expected one of this package")
    fitting = [each for each, task in TASKS.items() if task.models[stream].__name__ == made_by]
    if not fitting:
        raise MmptValueError(
            f"{folder!r} contains a {made_by}, which has no downstream task; fine-tune it: mmpt finetune"
        )
    if name is None:
        name = recipe.task.name if recipe is not None and recipe.task is not None else fitting[0]
        if recipe is None and len(fitting) > 1:
            raise MmptValueError(
                f"{folder!r} contains a {made_by}; give its task as --task, one of {', '.join(fitting)}"
            )
    task_of(name)
    if name not in fitting:
        raise MmptValueError(
            f"{folder!r} contains a {made_by}, not a model of task {name!r}; its tasks are {', '.join(fitting)}"
        )
    model: Any = load_pretrained(TASKS[name].models[stream], folder)
    collator = TaskDataCollator(
        processor=load_pretrained(MmptProcessor, folder),
        config=model.config,
        inputs=TASKS[name].inputs,
        max_text_length=None if recipe is None else recipe.data.max_text_length,
        blank=blank or (None if recipe is None or recipe.task is None else recipe.task.blank),
    )
    return SavedTaskModel(name, model.to(where).eval(), collator, recipe, where, DTYPES[dtype])
