"""A saved model of a downstream task on a table: its predictions, and its measures where the table has labels."""

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
    """A model of a task with what it needs, on its device.

    Args:
        name: of the task.
        recipe: of the run that made it, where its folder has one.
        dtype: that matrices are multiplied in; the weights stay in float32.
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
        """The number of each class or answer by its name."""
        return label_numbers(self.model.config)

    @property
    def trained_on(self) -> Record | None:
        """Record of the regions that the model was trained on; None for models of mmpt 0.1.0."""
        return self.collator.processor.image_processor.extracted_by

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        """Return the model's output on a batch."""
        given = {name: value.to(self.device) for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        lower = self.dtype != torch.float32
        precision = torch.autocast(self.device.type, self.dtype) if lower else contextlib.nullcontext()
        with torch.inference_mode(), precision:
            return self.model(**given)

    def predict(
        self, dataset: TaskDataset, batch_size: int, progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[Prediction]:
        """Yield the prediction of each row, in the order of the table.

        Args:
            progress: called with how many rows are done.
        """
        if self.task.rank is not None:
            ranked = self.task.rank(self.forward, self.collator, dataset, batch_size)
            yield from (ranked[row] for row in range(len(dataset)))
            return
        done = 0
        loader: Any = DataLoader(dataset, batch_size=batch_size, collate_fn=self.collator)
        for batch in loader:
            output = self.forward(batch)
            there = {name: value.to(self.device) for name, value in batch.items()}
            predictions = self.task.decode(output, there, self.model.config)
            yield from predictions
            done += len(predictions)
            progress(done)

    def score(self, predictions: list[Prediction], dataset: TaskDataset) -> Measures:
        """Return the task's measures.

        Raises:
            ValueError: if a row has no label, or one that the model does not know.
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
    """Load a model that `mmpt finetune` saved, or that another run of transformers did.

    Args:
        folder: or name on the Hub.
        name: of the task; by default the recipe in the folder tells it, or the model's class where one task has it.
        device: cpu, cuda, ...; a GPU if there is one.
        dtype: float32, bfloat16 or float16.
        blank: a modality that the model is not to see; by default as it was trained.

    Raises:
        ValueError: if the model is of no task or of another one, or an option is unknown.
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
        raise MmptValueError(f"{folder!r} holds a model of type {config.model_type!r}, expected one of this package")
    fitting = [each for each, task in TASKS.items() if task.models[stream].__name__ == made_by]
    if not fitting:
        raise MmptValueError(
            f"{folder!r} holds a {made_by}, which does no downstream task; fine-tune it: mmpt finetune"
        )
    if name is None:
        name = recipe.task.name if recipe is not None and recipe.task is not None else fitting[0]
        if recipe is None and len(fitting) > 1:
            raise MmptValueError(f"{folder!r} holds a {made_by}; say the task with --task, one of {', '.join(fitting)}")
    task_of(name)
    if name not in fitting:
        raise MmptValueError(
            f"{folder!r} holds a {made_by}, not a model of task {name!r}; it does {', '.join(fitting)}"
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
