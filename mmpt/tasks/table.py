"""The downstream tasks, one a row: what each reads, learns from, predicts and is measured by.

Adding one adds a row, and functions only where no other task has them. Every metric is better the higher it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.dual_stream_tasks import (
    MmptDualStreamForGrounding,
    MmptDualStreamForImageAndTextRetrieval,
    MmptDualStreamForImagesAndTextClassification,
    MmptDualStreamForMultipleChoice,
    MmptDualStreamForQuestionAnswering,
    MmptDualStreamForRegionToPhraseAlignment,
    MmptDualStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.single_stream_tasks import (
    MmptSingleStreamForGrounding,
    MmptSingleStreamForImageAndTextRetrieval,
    MmptSingleStreamForImagesAndTextClassification,
    MmptSingleStreamForMultipleChoice,
    MmptSingleStreamForQuestionAnswering,
    MmptSingleStreamForRegionToPhraseAlignment,
    MmptSingleStreamForSequenceClassification,
)
from mmpt.modeling_mmpt.task_base import MmptTaskModel
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
    Judgement,
    judge_answer,
    judge_box,
    judge_choice,
    judge_class,
    judge_phrases,
    judge_ranking,
)
from mmpt.tasks.predictions import (
    Prediction,
    decode_answers,
    decode_choices,
    decode_classes,
    decode_phrases,
    decode_regions,
    decode_scores,
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

Decode = Callable[[Any, Mapping[str, Tensor], MmptConfig], list[Prediction]]
Score = Callable[[Sequence[Prediction], TaskDataset, Mapping[str, int]], Measures]
Judge = Callable[[Prediction, int, TaskDataset, Mapping[str, int]], Judgement]
Chance = Callable[[TaskDataset, Mapping[str, int]], float]
Names = Callable[[datasets.Dataset, int], list[str]]


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Args:
        models: the model's class by stream.
        inputs: makes the model's inputs of examples.
        labels: makes the labels of examples.
        decode: makes predictions of the model's output.
        score: makes measures of predictions and the table.
        judge: says of one prediction whether it is right, for a person.
        metric: the measure that decides which checkpoint is best.
        chance: what guessing gets in that measure.
        columns: what the input needs beside text and image_id.
        label_columns: what is learnt from and scored against.
        names: makes the names of the classes or answers of the training table; None where the task has none.
        rank: predicts a whole table at once, where a row's prediction is a choice among all rows' images.
    """

    models: Mapping[str, type[MmptTaskModel]]
    inputs: MakeInputs
    labels: MakeLabels
    decode: Decode
    score: Score
    judge: Judge
    metric: str
    chance: Chance
    columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    names: Names | None = None
    rank: Callable[..., dict[int, Prediction]] | None = None


_CLASSIFIERS = {
    "single": MmptSingleStreamForSequenceClassification,
    "dual": MmptDualStreamForSequenceClassification,
}

TASKS: Mapping[str, Task] = {
    "vqa": Task(
        models={"single": MmptSingleStreamForQuestionAnswering, "dual": MmptDualStreamForQuestionAnswering},
        inputs=pair_inputs,
        labels=answer_labels,
        decode=decode_answers,
        score=score_answers,
        judge=judge_answer,
        metric="vqa_accuracy",
        chance=chance_of_answers,
        label_columns=("answers",),
        names=answer_names,
    ),
    "classification": Task(
        models=_CLASSIFIERS,
        inputs=pair_inputs,
        labels=class_labels,
        decode=decode_classes,
        score=score_classes,
        judge=judge_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=class_names,
    ),
    "entailment": Task(
        models=_CLASSIFIERS,
        inputs=pair_inputs,
        labels=class_labels,
        decode=decode_classes,
        score=score_classes,
        judge=judge_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=entailment_names,
    ),
    "statements": Task(
        models=_CLASSIFIERS,
        inputs=pair_inputs,
        labels=class_labels,
        decode=decode_classes,
        score=score_statements,
        judge=judge_class,
        metric="accuracy",
        chance=chance_of_classes,
        label_columns=("label",),
        names=truth_names,
    ),
    "nlvr2": Task(
        models={
            "single": MmptSingleStreamForImagesAndTextClassification,
            "dual": MmptDualStreamForImagesAndTextClassification,
        },
        inputs=image_pair_inputs,
        labels=class_labels,
        decode=decode_classes,
        score=score_statements,
        judge=judge_class,
        metric="accuracy",
        chance=chance_of_classes,
        columns=("second_image_id",),
        label_columns=("label",),
        names=truth_names,
    ),
    "multiple_choice": Task(
        models={"single": MmptSingleStreamForMultipleChoice, "dual": MmptDualStreamForMultipleChoice},
        inputs=choice_inputs,
        labels=choice_labels,
        decode=decode_choices,
        score=score_choices,
        judge=judge_choice,
        metric="accuracy",
        chance=chance_of_choices,
        columns=("choices",),
        label_columns=("label",),
    ),
    "grounding": Task(
        models={"single": MmptSingleStreamForGrounding, "dual": MmptDualStreamForGrounding},
        inputs=candidate_inputs,
        labels=grounding_labels,
        decode=decode_regions,
        score=score_boxes,
        judge=judge_box,
        metric="grounding_accuracy",
        chance=chance_of_boxes,
        label_columns=("box",),
    ),
    "phrases": Task(
        models={
            "single": MmptSingleStreamForRegionToPhraseAlignment,
            "dual": MmptDualStreamForRegionToPhraseAlignment,
        },
        inputs=phrase_inputs,
        labels=phrase_labels,
        decode=decode_phrases,
        score=score_phrases,
        judge=judge_phrases,
        metric="phrase_recall_at_1",
        chance=chance_of_phrases,
        columns=("phrases",),
    ),
    "retrieval": Task(
        models={"single": MmptSingleStreamForImageAndTextRetrieval, "dual": MmptDualStreamForImageAndTextRetrieval},
        inputs=pair_inputs,
        labels=group_labels,
        decode=decode_scores,
        score=score_rankings,
        judge=judge_ranking,
        metric="text_to_image_recall_at_1",
        chance=chance_of_ranking,
        rank=rank_images,
    ),
}
"""The tasks by name; a test holds them to the names that a recipe may have."""


def task_of(name: str) -> Task:
    """Return a row of the table.

    Raises:
        ValueError: if there is no such task.
    """
    if name not in TASKS:
        raise MmptValueError(f"task is {name!r}, expected one of {', '.join(TASKS)}")
    return TASKS[name]


def constant_predictions(task: Task, dataset: TaskDataset, names: Sequence[str]) -> list[Prediction]:
    """Return a prediction for each row that the task can score and show, made without a model.

    Scoring them before training finds what would otherwise be found after it: a row without a label, say, or a label
    that the model does not know.

    Args:
        names: of the model's classes or answers.
    """
    images = dataset.column("image_id")
    scores = [0.0] * len(set(images))
    predictions: list[Any] = [names[0] if task.names is not None else None] * len(images)
    if task.rank is not None:
        predictions = images
    elif "phrases" in task.columns:
        predictions = [[None] * len(phrases) for phrases in dataset.column("phrases")]
    return [{"prediction": each, "confidence": 0.0, "number": 0, "scores": scores} for each in predictions]
