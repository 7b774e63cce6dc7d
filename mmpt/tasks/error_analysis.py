"""Assess single predictions: whether each is right, with gold and prediction as text and boxes for display."""

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
    """An image to display.

    Args:
        true: gold boxes, x1 y1 x2 y2 in pixels.
        found: predicted boxes, in the same format.
    """

    image_id: str
    caption: str = ""
    true: list[Box] = field(default_factory=list)
    found: list[Box] = field(default_factory=list)


@dataclass
class Assessment:
    """Gold and prediction of one row.

    Args:
        right: whether the prediction is right.
        label: the gold label as in the table.
        gold: the gold label as text.
        predicted: the prediction as text.
        images: the images of the row, with gold and predicted boxes.
    """

    right: bool
    label: Any
    gold: str
    predicted: str
    images: list[Shown]


def assess_class(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess the predicted class of one image or of two images."""
    example = _example(row, dataset)
    gold = list(numbers)[class_number(example, numbers)]
    images = [Shown(example["image_id"])]
    if "second_image_id" in example:
        images = [Shown(example["image_id"], "left"), Shown(example["second_image_id"], "right")]
    return Assessment(prediction["prediction"] == gold, gold, gold, prediction["prediction"], images)


def assess_answer(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess an answer, which is right if its VQA accuracy is at least 0.5."""
    example = _example(row, dataset)
    counts = Counter(example["answers"]).most_common()
    gold = ", ".join(answer if number == 1 else f"{answer} ({number})" for answer, number in counts)
    right = score_answer(prediction["prediction"], example["answers"]) >= 0.5
    return Assessment(right, example["answers"], gold, prediction["prediction"], [Shown(example["image_id"])])


def assess_choice(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess the predicted choice."""
    example = _example(row, dataset)
    gold, predicted = example["choices"][example["label"]], example["choices"][prediction["number"]]
    label = example["label"]
    return Assessment(prediction["number"] == label, label, gold, predicted, [Shown(example["image_id"])])


def assess_box(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess the predicted box of a referring expression."""
    example = _example(row, dataset)
    box = prediction["prediction"]
    shown = Shown(example["image_id"], "", [example["box"]], [box] if box else [])
    overlap = _overlap(box, [example["box"]])
    predicted = f"red box, overlap {overlap:.2f}"
    return Assessment(overlap >= MATCHING_IOU, example["box"], "green box", predicted, [shown])


def assess_phrases(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess the predicted boxes of the phrases of a text; phrases without a gold box do not count."""
    example = _example(row, dataset)
    wrong, shown = [], Shown(example["image_id"])
    phrases = [pair for pair in zip(example["phrases"], prediction["prediction"], strict=False) if pair[0]["boxes"]]
    for phrase, box in phrases:
        if _overlap(box, phrase["boxes"]) < MATCHING_IOU:
            wrong.append(phrase["text"])
            shown.true += phrase["boxes"]
            shown.found += [box] if box else []
    boxes = [phrase["boxes"] for phrase in example["phrases"]]
    predicted = f"red boxes for {', '.join(wrong)}" if wrong else "the same boxes"
    return Assessment(not wrong, boxes, "green boxes", predicted, [shown])


def assess_ranking(prediction: Prediction, row: int, dataset: TaskDataset, numbers: Mapping[str, int]) -> Assessment:
    """Assess the image retrieved for a text; every image with this text is right."""
    example = _example(row, dataset)
    found = prediction["prediction"]
    right = (example["text"], found) in dataset.pairs
    images = [Shown(example["image_id"], "right"), Shown(found, "found")]
    return Assessment(right, example["image_id"], example["image_id"], found, images)


def _example(row: int, dataset: TaskDataset) -> dict[str, Any]:
    values: dict[str, Any] = dataset.table[row]
    return {name: value for name, value in values.items() if value is not None} | {"row": row}


def _overlap(box: Box | None, true: list[Box]) -> float:
    return float(box_iou(np.array(box), np.array(true)).max()) if box else 0.0
