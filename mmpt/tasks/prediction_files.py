"""Prediction files of a task: JSON lines with the input, gold label and prediction of each row."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.tasks.error_analysis import Assessment
from mmpt.tasks.predictions import Prediction
from mmpt.tasks.table import TASKS

NOT_WRITTEN = ("number", "scores")
"""Fields of a prediction that are used only by metrics."""

OF_THE_ROW = ("image_id", "second_image_id", "text", "text_pair", "choices")


def write_predictions(
    path: Path, name: str, dataset: TaskDataset, predictions: Sequence[Prediction], numbers: Mapping[str, int]
) -> None:
    """Write the lines of `prediction_lines` to a file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(prediction_lines(name, dataset, predictions, numbers))


def prediction_lines(
    name: str, dataset: TaskDataset, predictions: Iterable[Prediction], numbers: Mapping[str, int]
) -> Iterator[str]:
    """Yield one JSON line per prediction.

    A line has `id` (question_id, else example_id, else the row number), the image, the text and the prediction. If the
    table has labels, it also has `gold` and `right`.

    Args:
        name: name of the task.
        predictions: one per row of the table.
        numbers: name of a class -> the model's number of it.
    """
    for row, (row_id, prediction) in enumerate(zip(dataset.ids(), predictions, strict=True)):
        values: dict[str, Any] = dataset.table[row]
        line: dict[str, Any] = {"id": row_id} | {key: values[key] for key in OF_THE_ROW if values.get(key) is not None}
        assessment = _assessed(name, row, values, dataset, prediction, numbers)
        if assessment is not None:
            line |= {"gold": assessment.label}
        line |= {key: value for key, value in prediction.items() if key not in NOT_WRITTEN}
        if assessment is not None:
            line |= {"right": assessment.right}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _assessed(
    name: str,
    row: int,
    values: Mapping[str, Any],
    dataset: TaskDataset,
    prediction: Prediction,
    numbers: Mapping[str, int],
) -> Assessment | None:
    """Return the assessment of a row, or None if it has no label or a label that is unknown to the model."""
    task = TASKS[name]
    if any(values.get(key) is None for key in task.label_columns):
        return None
    if "phrases" in task.columns and not any(phrase["boxes"] for phrase in values["phrases"]):
        return None
    try:
        return task.assess(prediction, row, dataset, numbers)
    except MmptValueError:  # the label is unknown to this model
        return None
