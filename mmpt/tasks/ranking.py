"""Retrieval: score every text of a table with every image of the table."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from torch import Tensor

from mmpt.metrics.retrieval_recall import RetrievalRecall
from mmpt.processing.tasks.collator import TaskDataCollator
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.tasks.predictions import TOP, Prediction

RANKED = 10  # images listed in a prediction


def rank_images(
    forward: Callable[[dict[str, Tensor]], Any],
    collator: TaskDataCollator,
    dataset: TaskDataset,
    batch_size: int,
    share: tuple[int, int] = (0, 1),
) -> dict[int, Prediction]:
    """Return row -> the images that match its text best.

    Every text is scored with every image, which needs texts * images forward passes; thousands of either need many
    GPUs.

    Args:
        forward: runs the model on a batch.
        collator: collator that makes no labels.
        batch_size: number of pairs per forward pass.
        share: (i, n) scores the texts i, i + n, i + 2n, ..., so that n processes together score all.

    Returns:
        For each row: `prediction`, the id of the best image; `confidence`, its matching probability; `ranked`, the ids
        of the ten best images; `top`, the best images with confidences; and `scores` of all distinct images, in the
        order of first occurrence.
    """
    texts, images = _first_rows(dataset.column("text")), _first_rows(dataset.column("image_id"))
    names = list(images)
    shown = [dataset[row] for row in images.values()]
    own = list(texts.items())[share[0] :: share[1]]
    pairs = product([dataset.table[row] for _, row in own], shown)
    scores: list[float] = []
    for batch in _batches(pairs, batch_size):
        examples = [{**_texts_of(text), **_regions_of(image)} for text, image in batch]
        inputs = collator(examples)
        inputs.pop("rows")
        scores += forward(inputs).logits.float().tolist()
    of_text: dict[str, Prediction] = {}
    for number, (text, _) in enumerate(own):
        of_text[text] = _prediction(scores[number * len(names) : (number + 1) * len(names)], names)
    return {row: of_text[text] for row, text in enumerate(dataset.column("text")) if text in of_text}


def score_rankings(predictions: Sequence[Prediction], dataset: TaskDataset, numbers: Mapping[str, int]) -> Any:
    """Return recall at 1, 5 and 10 and the median rank, text to image and image to text."""
    texts, images = dataset.column("text"), dataset.column("image_id")
    names = list(_first_rows(images))
    together = set(zip(texts, images, strict=True))
    metric = RetrievalRecall()
    for text, row in _first_rows(texts).items():
        metric.add_batch(
            predictions=predictions[row]["scores"],
            references=[int((text, name) in together) for name in names],
            text_ids=[str(row)] * len(names),
            image_ids=names,
        )
    return metric.compute()


def _prediction(scores: list[float], names: list[str]) -> Prediction:
    order = sorted(range(len(names)), key=lambda image: -scores[image])[:RANKED]
    top = [{"prediction": names[image], "confidence": _probability(scores[image])} for image in order[:TOP]]
    return {
        **top[0],
        "ranked": [names[image] for image in order],
        "top": top,
        "scores": scores,
    }


def _probability(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0


def _first_rows(values: Sequence[str]) -> dict[str, int]:
    """Return value -> its first row, in the order of first occurrence."""
    rows: dict[str, int] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, row)
    return rows


def _texts_of(example: Mapping[str, Any]) -> dict[str, Any]:
    return {name: example[name] for name in ("text", "text_pair") if example.get(name) is not None}


def _regions_of(example: Mapping[str, Any]) -> dict[str, Any]:
    return {name: example[name] for name in ("image_id", "regions")}


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(islice(items, size)):
        yield batch
