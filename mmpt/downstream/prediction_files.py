"""The files of a task's run: predictions by the example's id."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmpt.downstream.decoding import Prediction
from mmpt.processing.task_dataset import TaskDataset

NOT_WRITTEN = ("number", "scores")
"""What a metric reads of a prediction, and nobody else."""


def write_predictions(path: Path, dataset: TaskDataset, predictions: Sequence[Prediction]) -> None:
    """Write a JSON line a row: `id` (question_id, else example_id, else the row's number), and what was predicted."""
    with path.open("w", encoding="utf-8") as file:
        for line in prediction_lines(dataset.ids(), predictions):
            file.write(line)


def prediction_lines(ids: Iterable[str], predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the line of each prediction."""
    for name, prediction in zip(ids, predictions, strict=True):
        kept: dict[str, Any] = {key: value for key, value in prediction.items() if key not in NOT_WRITTEN}
        yield json.dumps({"id": name} | kept, ensure_ascii=False) + "\n"
