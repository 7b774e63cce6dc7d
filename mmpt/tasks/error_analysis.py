"""Whether one prediction is right, in words and boxes that a person can look at."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpt.metrics.vqa_answers import score_answer
from mmpt.processing.box_overlap import box_iou
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.labels import MATCHING_IOU, class_number
from mmpt.tasks.predictions import Prediction

Box = list[float]


@dataclass
class Shown:
    """An image to show.

    Args:
        true: boxes that the text means, in pixels.
        found: boxes that were predicted.
    """

    image_id: str
    caption: str = ""
    true: list[Box] = field(default_factory=list)
    found: list[Box] = field(default_factory=list)


@dataclass
class Judgement:
    """What was right, and what was said.

    Args:
        label: the right answer as the table has it.
        gold: the right answer in words.
        said: the prediction in words.
        images: what both are about.
    """

    right: bool
    label: Any
    gold: str
    said: str
    images: list[Shown]


def judge_class(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge a class of one image or of two."""
    example = _example(row, dataset)
    gold = list(numbers)[class_number(example, numbers)]
    images = [Shown(example["image_id"])]
    if "second_image_id" in example:
        images = [Shown(example["image_id"], "left"), Shown(example["second_image_id"], "right")]
    return Judgement(prediction["prediction"] == gold, gold, gold, prediction["prediction"], images)


def judge_answer(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge an answer: it is wrong where VQA's accuracy gives it less than half."""
    example = _example(row, dataset)
    counts = Counter(example["answers"]).most_common()
    gold = ", ".join(answer if number == 1 else f"{answer} ({number})" for answer, number in counts)
    right = score_answer(prediction["prediction"], example["answers"]) >= 0.5
    return Judgement(right, example["answers"], gold, prediction["prediction"], [Shown(example["image_id"])])


def judge_choice(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge a choice among texts."""
    example = _example(row, dataset)
    gold, said = example["choices"][example["label"]], example["choices"][prediction["number"]]
    label = example["label"]
    return Judgement(prediction["number"] == label, label, gold, said, [Shown(example["image_id"])])


def judge_box(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge the box of an expression."""
    example = _example(row, dataset)
    box = prediction["prediction"]
    shown = Shown(example["image_id"], "", [example["box"]], [box] if box else [])
    overlap = _overlap(box, [example["box"]])
    said = f"red box, overlap {overlap:.2f}"
    return Judgement(overlap >= MATCHING_IOU, example["box"], "green box", said, [shown])


def judge_phrases(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge the boxes of a text's phrases; those without a true box do not count."""
    example = _example(row, dataset)
    wrong, shown = [], Shown(example["image_id"])
    phrases = [pair for pair in zip(example["phrases"], prediction["prediction"], strict=False) if pair[0]["boxes"]]
    for phrase, box in phrases:
        if _overlap(box, phrase["boxes"]) < MATCHING_IOU:
            wrong.append(phrase["text"])
            shown.true += phrase["boxes"]
            shown.found += [box] if box else []
    boxes = [phrase["boxes"] for phrase in example["phrases"]]
    said = f"red boxes for {', '.join(wrong)}" if wrong else "the same boxes"
    return Judgement(not wrong, boxes, "green boxes", said, [shown])


def judge_ranking(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Judgement:
    """Judge the image that a text found; every image with this text is right."""
    example = _example(row, dataset)
    found = prediction["prediction"]
    right = (example["text"], found) in dataset.pairs
    images = [Shown(example["image_id"], "right"), Shown(found, "found")]
    return Judgement(right, example["image_id"], example["image_id"], found, images)


def _example(row: int, dataset: TaskDataset) -> dict[str, Any]:
    values: dict[str, Any] = dataset.table[row]
    return {name: value for name, value in values.items() if value is not None} | {"row": row}


def _overlap(box: Box | None, true: list[Box]) -> float:
    return float(box_iou(np.array(box), np.array(true)).max()) if box else 0.0
