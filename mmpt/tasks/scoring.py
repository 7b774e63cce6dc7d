"""Compare predictions with the labels of a table: the metrics of each task, with counts and intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.box_grounding import GroundingAccuracy, PhraseRecall
from mmpt.metrics.class_accuracy import ClassAccuracy
from mmpt.metrics.group_consistency import GroupConsistency
from mmpt.metrics.vqa_accuracy import VqaAccuracy
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.labels import class_number
from mmpt.tasks.predictions import Prediction

Measures = dict[str, float]
NO_BOX = [0.0, 0.0, 0.0, 0.0]
"""Placeholder for a missing box; it is empty and so counts as wrong."""


def score_answers(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return the VQA accuracy."""
    answers = _gold(dataset, "answers")
    return VqaAccuracy().compute(predictions=[each["prediction"] for each in predictions], references=answers)  # type: ignore[return-value]


def score_classes(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return the accuracy over all rows and the accuracy balanced over classes."""
    found = [each["number"] for each in predictions]
    return ClassAccuracy().compute(predictions=found, references=gold_classes(dataset, numbers))  # type: ignore[return-value]


def score_statements(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return accuracy and consistency over groups, given by the column `group` or otherwise by the text."""
    groups = dataset.column("group" if "group" in dataset.table.column_names else "text")
    return GroupConsistency().compute(  # type: ignore[return-value]
        predictions=[each["number"] for each in predictions],
        references=gold_classes(dataset, numbers),
        groups=groups,
    )


def score_choices(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return the accuracy of the choices."""
    found = [each["number"] for each in predictions]
    return ClassAccuracy().compute(predictions=found, references=_gold(dataset, "label"))  # type: ignore[return-value]


def score_boxes(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return the fraction of texts whose predicted box matches."""
    found = [each["prediction"] or NO_BOX for each in predictions]
    return GroundingAccuracy().compute(predictions=found, references=_gold(dataset, "box"))  # type: ignore[return-value]


def score_phrases(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Measures:
    """Return the fraction of phrases whose predicted box matches, over phrases with a gold box.

    Raises:
        ValueError: if no phrase has a gold box.
    """
    found, true = [], []
    for prediction, phrases in zip(predictions, _gold(dataset, "phrases"), strict=True):
        for box, phrase in zip(prediction["prediction"], phrases, strict=False):
            if phrase["boxes"]:
                found.append(box or NO_BOX)
                true.append(phrase["boxes"])
    if not found:
        raise MmptValueError("no phrase of the table has a box, expected some in column 'phrases'")
    return PhraseRecall().compute(predictions=found, references=true)  # type: ignore[return-value]


def gold_classes(dataset: TaskDataset, numbers: Mapping[str, int]) -> list[int]:
    """Return the class number of each row in the numbering of the model.

    Raises:
        ValueError: if a row has no label, or a label that is unknown to the model.
    """
    columns = {name: dataset.column(name) for name in ("label", "label_name", "question_id", "example_id")}
    rows = range(len(dataset))
    return [class_number({name: each[row] for name, each in columns.items()} | {"row": row}, numbers) for row in rows]


def _gold(dataset: TaskDataset, name: str) -> list[Any]:
    column = dataset.column(name)
    row = next((row for row, value in enumerate(column) if value is None), None)
    if row is not None:
        raise MmptValueError(f"row {row} of the table has no {name!r}, expected one in every scored row")
    return column
