"""The labels of the tasks: from the columns of a table to tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.processing.annotations.plain_words import on_one_line
from mmpt.processing.box_overlap import pairwise_iou
from mmpt.processing.tasks.encoding import TaskBatch, pixel_boxes

Example = Mapping[str, Any]
Labels = dict[str, Tensor]
MATCHING_IOU = 0.5
"""A region shows what a box shows if they overlap so much (Plummer et al. 2015 and everyone since)."""


def class_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return the class of each example, (batch,).

    Raises:
        ValueError: if an example has no label, or one that the model does not know.
    """
    return {"labels": torch.tensor([class_number(example, numbers) for example in examples])}


def class_number(example: Example, numbers: Mapping[str, int]) -> int:
    """Return the model's number of an example's class: by its name where the table has names, else the number itself.

    Args:
        numbers: the model's number of each class by its name.
    """
    name = example.get("label_name")
    if name is not None:
        if name not in numbers:
            raise MmptValueError(
                f"{_where(example)} has the label {name!r}, the model knows {', '.join(list(numbers)[:10])}; "
                "is the table of another task, or its label_name spelled in another way?"
            )
        return numbers[name]
    label = example.get("label")
    if label is None:
        raise MmptValueError(f"{_where(example)} has no label, expected a number in column 'label'")
    if not 0 <= label < len(numbers):
        raise MmptValueError(
            f"{_where(example)} has label {label}, expected 0..{len(numbers) - 1}: the model's classes"
        )
    return label


def answer_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return the score of every answer, (batch, answers): what VQA's accuracy gives it, 0 for one that nobody gave.

    Answers that the model does not know are left out; an example may then have no score at all.
    """
    labels = torch.zeros(len(examples), len(numbers))
    for row, example in enumerate(examples):
        for answer, score in answer_scores(example).items():
            if answer in numbers:
                labels[row, numbers[answer]] = score
    return {"labels": labels}


def answer_scores(example: Example) -> dict[str, float]:
    """Return the score of each answer that people gave, on one line, each once: the best of its spellings'.

    Raises:
        ValueError: if the example has no answers.
    """
    answers = example.get("answers")
    if answers is None:
        raise MmptValueError(f"{_where(example)} has no answers, expected a list of them in column 'answers'")
    scores = example.get("answer_scores") or [1.0] * len(answers)
    best: dict[str, float] = {}
    for answer, score in zip(map(on_one_line, answers), scores, strict=True):
        best[answer] = max(score, best.get(answer, 0.0))
    return best


def choice_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return the number of the right choice, (batch,).

    Raises:
        ValueError: if an example has no label, or none of its choices has it.
    """
    for example in examples:
        label = example.get("label")
        if label is None or not 0 <= label < len(example["choices"]):
            expected = f"the number of the right choice, 0..{len(example['choices']) - 1}, in column 'label'"
            raise MmptValueError(f"{_where(example)} has label {label}, expected {expected}")
    return {"labels": torch.tensor([example["label"] for example in examples])}


def group_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return a number for each pair, (batch,): pairs of one number share their image or their text.

    Such pairs are no negatives of each other, so that a caption that fits two images of a batch costs nothing.
    """
    first: dict[tuple[str, str], int] = {}
    groups = list(range(len(examples)))
    for row, example in enumerate(examples):
        for key in (("image", example["image_id"]), ("text", example["text"])):
            other = groups[first.setdefault(key, row)]
            groups = [other if group == groups[row] else group for group in groups]
    return {"labels": torch.tensor(groups)}


def grounding_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return how much each region overlaps the box that the text means, (batch, regions) IoU.

    -100 stands at padding and at a whole-image region.

    Raises:
        ValueError: if an example has no box, or its image no size.
    """
    labels = torch.full(batch.detected.shape, float(IGNORED))
    for row, example in enumerate(examples):
        if example.get("box") is None:
            raise MmptValueError(f"{_where(example)} has no box, expected x1 y1 x2 y2 in pixels in column 'box'")
        overlap = pairwise_iou(pixel_boxes(batch.records[row]), np.array([example["box"]]))[:, 0]
        labels[row, batch.detected[row]] = torch.from_numpy(overlap).float()
    return {"labels": labels}


def phrase_labels(examples: Sequence[Example], batch: TaskBatch, numbers: Mapping[str, int]) -> Labels:
    """Return for each phrase a distribution over the regions that match it, (batch, phrases, regions).

    A region matches if it overlaps one of the phrase's boxes by an IoU of 0.5 or more; all that do have the same
    probability. A row of -100 stands for a phrase without boxes, one that nothing matches or whose words were cut off,
    and for padding. Where the examples say the most regions that an image of their table has (`TaskDataset` does),
    labels are that wide in every batch, with a place for a whole-image region, so that batches can be put together.

    Raises:
        ValueError: if an image has no size.
    """
    positions = batch.tensors["phrase_positions"]
    regions = batch.detected.shape[1]
    width = max(regions, *(example.get("most_regions", 0) + 1 for example in examples))
    labels = torch.full((*positions.shape, width), float(IGNORED))
    for row, example in enumerate(examples):
        boxes = pixel_boxes(batch.records[row])
        for place, phrase in enumerate(example["phrases"]):
            if positions[row, place] == IGNORED or not phrase["boxes"]:
                continue
            matches = (pairwise_iou(boxes, np.array(phrase["boxes"])) >= MATCHING_IOU).any(1)
            if matches.any():
                labels[row, place] = 0.0
                labels[row, place, :regions][batch.detected[row]] = torch.from_numpy(matches / matches.sum()).float()
    return {"labels": labels}


def _where(example: Example) -> str:
    name = example.get("question_id") or example.get("example_id")
    return f"row {example.get('row')}" if name is None else f"example {name!r}"
