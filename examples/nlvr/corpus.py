"""NLVR v1 (Suhr et al. 2017): human sentences about three boxes of coloured shapes, read from Parquet files.

The corpus is at https://github.com/lil-lab/nlvr (CC-BY-4.0). This reads the columns `identifier`, `group`,
`permutation`, `image`, `sentence`, `label` and `objects` (bbox in pixels, category, panel); README.md makes the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from PIL import Image

from examples.nlvr.scenes import KINDS, Scene, prototype_ids, regions_of, scene_of
from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.generated_scenes.box_features import RegionClassifier, box_features
from mmpt.processing.regions import Regions

FOLDS = 10  # parts of the training groups, one of which can be held out
HELD_OUT = 7
CLASSIFIER_IMAGES = 400
PROTOTYPE_IMAGES = 600


@dataclass(frozen=True)
class Example:
    """A sentence about an image.

    Args:
        image_id: the corpus' identifier. It tells the label to who knows the corpus: it is a name, never an input.
        label: 1 if the sentence is true of the image, else 0.
        group: rows of one share their sentence; no group may be split between training and validation.
        boxes: (objects, 4) in pixels of the whole image.
        categories: (objects,), three times the colour plus the shape.
        image_file: the image as a file has it.
    """

    text: str
    image_id: str
    label: int
    group: int
    scene: Scene
    boxes: NDArray[np.float32]
    categories: NDArray[np.int64]
    image_file: bytes

    @property
    def image(self) -> Image.Image:
        """The image itself."""
        return Image.open(BytesIO(self.image_file))

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """(objects, 152) from the pixels of the boxes."""
        return box_features(self.image.convert("RGB"), self.boxes)


class Corpus(NamedTuple):
    """The examples of each split, images in their first order of boxes, and the names of the nine classes."""

    splits: dict[str, list[Example]]
    class_names: tuple[str, ...]


def read_corpus(folder: Path) -> Corpus:
    """Read every `<split>-*.parquet` of a folder.

    Raises:
        FileNotFoundError: if there is none of train or dev, with the place to get the corpus from.
    """
    names = {path.name.split("-")[0] for path in folder.glob("*-*.parquet")}
    for split in ("train", "dev"):
        if split not in names:
            raise MmptFileNotFoundError(
                f"{str(folder)!r} has no {split}-*.parquet; NLVR v1 is at https://github.com/lil-lab/nlvr, and "
                "examples/nlvr/README.md tells how it becomes Parquet"
            )
    tables = {split: _first_order(folder, split) for split in ("train", *sorted(names - {"train"}))}
    class_names = tuple(tables["train"].features["objects"]["category"].feature.names)
    return Corpus({split: [*_examples(table)] for split, table in tables.items()}, class_names)


def _first_order(folder: Path, split: str) -> Dataset:
    table = concatenate_datasets([Dataset(pq.read_table(path)) for path in sorted(folder.glob(f"{split}-*.parquet"))])
    first = table.select(np.flatnonzero(np.asarray(table["permutation"]) == 0))
    return first.cast_column("image", datasets.Image(decode=False))


def _examples(table: Dataset) -> Iterator[Example]:
    rows: Any = table  # datasets does not say that it iterates over dicts
    for row in rows:
        boxes = np.asarray(row["objects"]["bbox"], dtype=np.float32)
        categories, panels = (np.asarray(row["objects"][name], dtype=np.int64) for name in ("category", "panel"))
        yield Example(
            row["sentence"],
            row["identifier"],
            row["label"],
            row["group"],
            scene_of(boxes, categories, panels),
            boxes,
            categories,
            row["image"]["bytes"],
        )


def hold_out(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return the examples without a tenth of their groups, and that tenth, which is for choosing settings.

    Raises:
        ValueError: if one of the two has none.
    """
    rest, held = ([e for e in examples if (e.group % FOLDS == HELD_OUT) is wanted] for wanted in (False, True))
    if not (rest and held):
        raise MmptValueError(
            f"{len(held)} of {len(examples)} examples are of a group n with n % {FOLDS} = {HELD_OUT}, expected some "
            "that are and some that are not; leave --held-out away"
        )
    return rest, held


def true_pairs(examples: Sequence[Example]) -> Dataset:
    """Return a pair table of the true rows; the images that the same sentence is false of are their hard negatives."""
    false: dict[int, list[str]] = {}
    for example in examples:
        if not example.label:
            false.setdefault(example.group, []).append(example.image_id)
    true = [example for example in examples if example.label]
    return Dataset.from_dict(
        {
            "text": [example.text for example in true],
            "image_id": [example.image_id for example in true],
            "hard_negative_image_ids": [false.get(example.group, []) for example in true],
        }
    )


def fit_prototypes(examples: Sequence[Example]) -> NDArray[np.float32]:
    """Return (27, feature), the median feature of each colour, shape and size in the first images.

    The pixels of an object are a function of the three, but for the edge of a circle or triangle. What is in none of
    the images has NaN.
    """
    few = examples[:PROTOTYPE_IMAGES]
    seen = np.concatenate([prototype_ids(example.scene) for example in few])
    features = np.concatenate([example.features for example in few])
    prototypes = np.full((KINDS, features.shape[1]), np.nan, dtype=np.float32)
    for kind in np.unique(seen):
        prototypes[kind] = np.median(features[seen == kind], axis=0)
    return prototypes


def measured_regions(examples: Sequence[Example]) -> Iterator[Regions]:
    """Yield the regions of each image as of a scene (`regions_of`), features from its own pixels."""
    return (regions_of(example.scene, example.features, example.image_id) for example in examples)


def whole_image_regions(examples: Sequence[Example], fit_on: Sequence[Example], classes: int) -> Iterator[Regions]:
    """Yield the objects of each image as a detector would find them: boxes in the whole image, and classes.

    Args:
        fit_on: examples whose first 400 the classifier of features is fitted to.
    """
    few = fit_on[:CLASSIFIER_IMAGES]
    features, labels = (np.concatenate([getattr(e, name) for e in few]) for name in ("features", "categories"))
    classifier = RegionClassifier.fit(features, labels, classes)
    for example in examples:
        probs = classifier.probs(example.features)
        width, height = example.image.size
        yield Regions.from_pixels(
            example.features,
            example.boxes,
            width=width,
            height=height,
            class_probs=probs,
            labels=probs.argmax(axis=1),
            scores=probs.max(axis=1),
            type_ids=example.scene[:, 0].astype(np.int64),
            image_id=example.image_id,
        )
