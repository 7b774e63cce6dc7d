"""The files of a task's run: a line a row, with what the row says and what was predicted."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.tasks.error_analysis import Judgement
from mmpt.tasks.predictions import Prediction
from mmpt.tasks.table import TASKS

NOT_WRITTEN = ("number", "scores")
"""What a metric reads of a prediction, and nobody else."""

OF_THE_ROW = ("image_id", "second_image_id", "text", "text_pair", "choices")


def write_predictions(
    path: Path, name: str, dataset: TaskDataset, predictions: Sequence[Prediction], numbers: Mapping[str, int]
) -> None:
    """Write a JSON line a row, as `prediction_lines` gives it."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(prediction_lines(name, dataset, predictions, numbers))


def prediction_lines(
    name: str, dataset: TaskDataset, predictions: Iterable[Prediction], numbers: Mapping[str, int]
) -> Iterator[str]:
    """Yield the line of each prediction.

    It has `id` (question_id, else example_id, else the row's number), image, text, what was predicted and, where the
    table says it, `gold` and `right`.

    Args:
        name: of the task.
        predictions: one a row of the table.
        numbers: the model's number of each class by its name.
    """
    for row, (row_id, prediction) in enumerate(zip(dataset.ids(), predictions, strict=True)):
        values: dict[str, Any] = dataset.table[row]
        line: dict[str, Any] = {"id": row_id} | {key: values[key] for key in OF_THE_ROW if values.get(key) is not None}
        judgement = _judged(name, row, values, dataset, prediction, numbers)
        if judgement is not None:
            line |= {"gold": judgement.label}
        line |= {key: value for key, value in prediction.items() if key not in NOT_WRITTEN}
        if judgement is not None:
            line |= {"right": judgement.right}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _judged(
    name: str,
    row: int,
    values: Mapping[str, Any],
    dataset: TaskDataset,
    prediction: Prediction,
    numbers: Mapping[str, int],
) -> Judgement | None:
    """Return the judgement of a row; None where the table does not say what is right, or the model cannot say it."""
    task = TASKS[name]
    if any(values.get(key) is None for key in task.label_columns):
        return None
    if "phrases" in task.columns and not any(phrase["boxes"] for phrase in values["phrases"]):
        return None
    try:
        return task.judge(prediction, row, dataset, numbers)
    except MmptValueError:  # a label of another model
        return None
