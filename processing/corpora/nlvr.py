"""NLVR v1 (Suhr et al. 2017): human sentences about three panels of coloured shapes, regions from the objects.

The corpus is at https://github.com/lil-lab/nlvr (CC-BY-4.0). This reads its Parquet form, with columns `identifier`,
`group`, `permutation`, `image`, `sentence`, `label` and `objects` (bbox in pixels, category, panel).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from mmpt.configuration.errors import MmptFileNotFoundError
from mmpt.processing.generated_scenes.box_features import FEATURE_DIM, RegionClassifier, box_features
from mmpt.processing.regions import Regions

PANELS = 3
CLASSIFIER_IMAGES = 400


@dataclass(frozen=True)
class NlvrPairs:
    """Regions and pair tables of NLVR v1.

    Args:
        regions: every image's regions by `identifier`; type ids are panels.
        train: sentences of the training split with an image of which they are true; images of which the same sentence
            is false are its hard negatives.
        dev: the same of the development split, images in their first panel order.
    """

    regions: dict[str, Regions]
    train: Dataset
    dev: Dataset
    class_names: tuple[str, ...]
    feature_dim: int = FEATURE_DIM
    panels: int = PANELS


def read_nlvr(folder: Path) -> NlvrPairs:
    """Read the true pairs of a folder with `train-*.parquet` and `dev-*.parquet`.

    The identifier tells the label to who knows the corpus, so it names images here and is never a model's input.

    Raises:
        FileNotFoundError: if the folder lacks the files, with the place to get the corpus from.
    """
    rows = read_nlvr_tables(folder)
    class_names = tuple(rows["train"].features["objects"]["category"].feature.names)
    classifier = _fit_classifier(rows["train"], len(class_names))
    regions = {}
    pairs = {}
    for split, examples in rows.items():
        for example in iterate(examples):
            regions[example["identifier"]] = _regions(example, classifier)
        pairs[split] = _true_pairs(examples)
    return NlvrPairs(regions, pairs["train"], pairs["dev"], class_names)


def read_nlvr_tables(folder: Path, splits: Sequence[str] = ("train", "dev")) -> dict[str, Dataset]:
    """Return the rows of each split, `<split>-*.parquet`, with images in their first order of panels.

    Raises:
        FileNotFoundError: if the folder lacks the files, with the place to get the corpus from.
    """
    files = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in splits}
    for split, found in files.items():
        if not found:
            raise MmptFileNotFoundError(
                f"{str(folder)!r} has no {split}-*.parquet; NLVR v1 is at https://github.com/lil-lab/nlvr, and "
                "docs/nlvr.md tells how it becomes Parquet"
            )
    tables = {
        split: concatenate_datasets([Dataset(pq.read_table(path)) for path in found]) for split, found in files.items()
    }
    return {split: _first_permutation(table) for split, table in tables.items()}


def iterate(table: Dataset) -> Iterator[dict[str, Any]]:
    """Return the rows as the dicts that they are; datasets does not say so."""
    yield from table  # type: ignore[misc]


def _first_permutation(table: Dataset) -> Dataset:
    chosen = np.flatnonzero(np.asarray(table["permutation"]) == 0)
    return table.select(chosen)


def _true_pairs(examples: Dataset) -> Dataset:
    columns = examples.select_columns(["identifier", "group", "sentence", "label"])
    true: list[tuple[int, str, str]] = []
    false: dict[int, list[str]] = {}
    for row in iterate(columns):
        if row["label"]:
            true.append((row["group"], row["identifier"], row["sentence"]))
        else:
            false.setdefault(row["group"], []).append(row["identifier"])
    return Dataset.from_dict(
        {
            "text": [sentence for _, _, sentence in true],
            "image_id": [identifier for _, identifier, _ in true],
            "hard_negative_image_ids": [false.get(group, []) for group, _, _ in true],
        }
    )


def boxes_and_features(example: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the objects' (objects, 4) boxes in pixels and (objects, feature) features of a row."""
    boxes = np.asarray(example["objects"]["bbox"], dtype=np.float32)
    return boxes, box_features(example["image"].convert("RGB"), boxes)


def _fit_classifier(examples: Dataset, classes: int) -> RegionClassifier:
    few = examples.select(range(min(CLASSIFIER_IMAGES, len(examples))))
    features = np.concatenate([boxes_and_features(example)[1] for example in iterate(few)])
    labels = np.concatenate([np.asarray(example["objects"]["category"]) for example in iterate(few)])
    return RegionClassifier.fit(features, labels, classes)


def _regions(example: dict[str, Any], classifier: RegionClassifier) -> Regions:
    boxes, features = boxes_and_features(example)
    probs = classifier.probs(features)
    width, height = example["image"].size
    return Regions.from_pixels(
        features,
        boxes,
        width=width,
        height=height,
        class_probs=probs,
        labels=probs.argmax(axis=1),
        scores=probs.max(axis=1),
        type_ids=np.asarray(example["objects"]["panel"], dtype=np.int64),
        image_id=example["identifier"],
    )
