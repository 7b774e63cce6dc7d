"""Chance level of each task in its main metric, for comparison with a model."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpt.metrics.vqa_answers import score_answer
from mmpt.processing.box_overlap import pairwise_iou
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.processing.tasks.encoding import pixel_boxes
from mmpt.processing.tasks.labels import MATCHING_IOU
from mmpt.tasks.scoring import gold_classes


def chance_of_answers(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the accuracy of always giving the most frequent training answer."""
    most_frequent = next(iter(numbers))
    return float(np.mean([score_answer(most_frequent, answers) for answers in dataset.column("answers")]))


def chance_of_classes(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the fraction of rows with the most frequent class."""
    return max(Counter(gold_classes(dataset, numbers)).values()) / len(dataset)


def chance_of_choices(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the mean of 1 / number of choices."""
    return float(np.mean([1 / len(choices) for choices in dataset.column("choices")]))


def chance_of_boxes(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the mean fraction of an image's regions that match the true box."""
    pairs = zip(dataset.column("image_id"), dataset.column("box"), strict=True)
    return float(np.mean([_matching(dataset.regions[image_id], [box]) for image_id, box in pairs]))


def chance_of_phrases(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the mean fraction of an image's regions that match a true box of a phrase, over phrases with boxes."""
    pairs = zip(dataset.column("image_id"), dataset.column("phrases"), strict=True)
    shares = [
        _matching(dataset.regions[image_id], phrase["boxes"])
        for image_id, phrases in pairs
        for phrase in phrases
        if phrase["boxes"]
    ]
    return float(np.mean(shares)) if shares else 0.0


def chance_of_ranking(dataset: TaskDataset, numbers: Mapping[str, int]) -> float:
    """Return the mean fraction of images that match a text."""
    pairs = set(zip(dataset.column("text"), dataset.column("image_id"), strict=True))
    right = Counter(text for text, _ in pairs)
    return float(np.mean([count / len({image for _, image in pairs}) for count in right.values()]))


def _matching(regions: Any, boxes: list[list[float]]) -> float:
    if not len(regions.boxes):
        return 0.0
    return float((pairwise_iou(pixel_boxes(regions), np.array(boxes)) >= MATCHING_IOU).any(1).mean())
