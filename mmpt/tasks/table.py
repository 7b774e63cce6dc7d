"""Table of downstream tasks, one per row: inputs, labels, predictions and metrics.

To add a task, add a row, and new functions where no existing ones can be used. Higher is better for every metric.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.task_models import TASK_MODELS, Streams
from mmpt.processing.tasks.collator import MakeInputs, MakeLabels
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.inputs import candidate_inputs, choice_inputs, image_pair_inputs, pair_inputs, phrase_inputs
from mmpt.processing.tasks.labels import (
    answer_labels,
    choice_labels,
    class_labels,
    grounding_labels,
    group_labels,
    phrase_labels,
)
from mmpt.tasks.chance import (
    chance_of_answers,
    chance_of_boxes,
    chance_of_choices,
    chance_of_classes,
    chance_of_phrases,
    chance_of_ranking,
)
from mmpt.tasks.class_names import answer_names, class_names, entailment_names, truth_names
from mmpt.tasks.error_analysis import (
    Assessment,
    assess_answer,
    assess_box,
    assess_choice,
    assess_class,
    assess_phrases,
    assess_ranking,
)
from mmpt.tasks.predictions import (
    Prediction,
    predict_answers,
    predict_choices,
    predict_classes,
    predict_phrases,
    predict_regions,
    predict_scores,
)
from mmpt.tasks.ranking import rank_images, score_rankings
from mmpt.tasks.scoring import (
    Measures,
    score_answers,
    score_boxes,
    score_choices,
    score_classes,
    score_phrases,
    score_statements,
)

Predict = Callable[[Any, Mapping[str, Tensor], MmptConfig], list[Prediction]]
Score = Callable[[Sequence[Prediction], TaskDataset, Mapping[str, int]], Measures]
Assess = Callable[[Prediction, int, TaskDataset, Mapping[str, int]], Assessment]
Chance = Callable[[TaskDataset, Mapping[str, int]], float]
Names = Callable[[datasets.Dataset, int], list[str]]


@dataclass(frozen=True)
class Task:
    """A row of the table of tasks.

    Args:
        models: model class for each architecture.
        inputs: builds model inputs from examples.
        labels: builds labels from examples.
        predict: converts the model output to predictions.
        score: computes the metrics of predictions on a table.
        assess: describes for display whether one prediction is right.
        metric: metric that selects the best checkpoint.
        chance: computes the chance level of that metric.
        columns: input columns in addition to text and image_id.
        label_columns: columns with labels, for training and scoring.
        names: returns the names of classes or answers of the training table; None for a task without names.
        rank: predicts a whole table at once, for a task whose predictions are chosen among the images of all rows.
    """

    models: Streams
    inputs: MakeInputs
    labels: MakeLabels
    predict: Predict
    score: Score
    assess: Assess
    metric: str
    chance: Chance
    columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    names: Names | None = None
    rank: Callable[..., dict[int, Prediction]] | None = None


TASKS: Mapping[str, Task] = {
    "vqa": Task(
        models=TASK_MODELS["vqa"],
        inputs=pair_inputs,
        labels=answer_labels,
        predict=predict_answers,
        score=score_answers,
        assess=assess_answer,
        metric="vqa_accuracy",
        chance=chance_of_answers,
        label_columns=("answers",),
        names=answer_names,
    ),
    "classification": Task(
        models=TASK_MODELS["classification"],
        inputs=pair_inputs,
        labels=class_labels,
        predict=predict_classes,
        score=score_classes,
        assess=assess_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=class_names,
    ),
    "entailment": Task(
        models=TASK_MODELS["entailment"],
        inputs=pair_inputs,
        labels=class_labels,
        predict=predict_classes,
        score=score_classes,
        assess=assess_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=entailment_names,
    ),
    "statements": Task(
        models=TASK_MODELS["statements"],
        inputs=pair_inputs,
        labels=class_labels,
        predict=predict_classes,
        score=score_statements,
        assess=assess_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=truth_names,
    ),
    "nlvr2": Task(
        models=TASK_MODELS["nlvr2"],
        inputs=image_pair_inputs,
        labels=class_labels,
        predict=predict_classes,
        score=score_statements,
        assess=assess_class,
        metric="accuracy",
        chance=chance_of_classes,
        columns=("second_image_id",),
        label_columns=("label",),
        names=truth_names,
    ),
    "multiple_choice": Task(
        models=TASK_MODELS["multiple_choice"],
        inputs=choice_inputs,
        labels=choice_labels,
        predict=predict_choices,
        score=score_choices,
        assess=assess_choice,
        metric="accuracy",
        chance=chance_of_choices,
        columns=("choices",),
        label_columns=("label",),
    ),
    "grounding": Task(
        models=TASK_MODELS["grounding"],
        inputs=candidate_inputs,
        labels=grounding_labels,
        predict=predict_regions,
        score=score_boxes,
        assess=assess_box,
        metric="grounding_accuracy",
        chance=chance_of_boxes,
        label_columns=("box",),
    ),
    "phrases": Task(
        models=TASK_MODELS["phrases"],
        inputs=phrase_inputs,
        labels=phrase_labels,
        predict=predict_phrases,
        score=score_phrases,
        assess=assess_phrases,
        metric="phrase_recall_at_1",
        chance=chance_of_phrases,
        columns=("phrases",),
    ),
    "retrieval": Task(
        models=TASK_MODELS["retrieval"],
        inputs=pair_inputs,
        labels=group_labels,
        predict=predict_scores,
        score=score_rankings,
        assess=assess_ranking,
        metric="text_to_image_recall_at_1",
        chance=chance_of_ranking,
        rank=rank_images,
    ),
}
"""Tasks by name, kept in sync with the names allowed in a recipe by a test."""


def task_of(name: str) -> Task:
    """Return a row of the table.

    Raises:
        ValueError: if the task does not exist.
    """
    if name not in TASKS:
        raise MmptValueError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    return TASKS[name]


def constant_predictions(task: Task, dataset: TaskDataset, names: Sequence[str]) -> list[Prediction]:
    """Return one valid dummy prediction per row, made without a model.

    Scoring them before training fails fast on errors that would otherwise appear after it, such as a row without a
    label, or a label that is unknown to the model.

    Args:
        names: names of the model's classes or answers.
    """
    images = dataset.column("image_id")
    scores = [0.0] * len(set(images))
    predictions: list[Any] = [names[0] if task.names is not None else None] * len(images)
    if task.rank is not None:
        predictions = images
    elif "phrases" in task.columns:
        predictions = [[None] * len(phrases) for phrases in dataset.column("phrases")]
    return [{"prediction": each, "confidence": 0.0, "number": 0, "scores": scores} for each in predictions]
