"""Examples of NLVR v1: sentences with images and labels, regions from scenes, and changes that keep the label."""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.corpora.nlvr import boxes_and_features, iterate, read_nlvr_tables
from mmpt.processing.corpora.nlvr_scenes import (
    COLOURS,
    KINDS,
    PANELS,
    SHAPES,
    Scene,
    SceneRegions,
    is_tower,
    permute_colours,
    permute_panels,
    permute_shapes,
    prototype_ids,
    scene_of,
)
from mmpt.processing.generated_scenes.box_features import FEATURE_DIM

FOLDS = 10  # parts of the training groups, one of which can be held out
HELD_OUT = 7
_PROTOTYPE_IMAGES = 600
_SHAPE_WORDS = (*SHAPES, *(f"{shape}s" for shape in SHAPES))
_ORDINARY = ("block", "blocks")  # near to "black", and no misspelling of it
# Words that tell what a shape is called whatever its shape: "grey square" is a box, and a block is a square.
_FIXED_SHAPE = re.compile(r"\bgr[ea]y squares?\b|block|tower|rectangle", re.IGNORECASE)

_COLUMNS = Features(
    {
        "text": Value("string"),
        "image_id": Value("string"),
        "label": ClassLabel(names=["false", "true"]),
        "group": Value("int32"),
        "question_id": Value("string"),
    }
)


@dataclass(frozen=True)
class NlvrExamples:
    """Sentences about images, true and false.

    Args:
        regions: regions of every image by its id, with three boxes taken as three images (`SceneRegions`).
        train: columns `text`, `image_id`, `label` (0 or 1), `group` (rows of one share their sentence, and no group may
            be split between training and validation), and `question_id`, the corpus' identifier. That and the image's
            id tell the label to who knows the corpus: they are names, never inputs.
        dev: what is evaluated on, images in their first order of boxes.
    """

    regions: SceneRegions
    train: Dataset
    dev: Dataset
    feature_dim: int = FEATURE_DIM
    panels: int = PANELS

    def held_out(self) -> "NlvrExamples":
        """Return the same with a tenth of the training groups as `dev`, and without them in `train`.

        That tenth is for choosing settings: the true dev, had they been chosen on it, would tell too much.
        """
        held = np.asarray(self.train["group"]) % FOLDS == HELD_OUT
        rest, part = (self.train.select(np.flatnonzero(chosen)) for chosen in (~held, held))
        return replace(self, train=rest, dev=part)

    def augmented(self, copies: int, seed: int = 0) -> "NlvrExamples":
        """Return the same with each training row `copies` times, each time changed anew by `augment`.

        Raises:
            ValueError: if `copies` is not positive.
        """
        if copies < 1:
            raise MmptValueError(f"copies is {copies}, expected 1 or more")
        rows: dict[str, list] = {name: [] for name in self.train.column_names}
        for copy in range(copies):
            for number, row in enumerate(iterate(self.train)):
                rng = np.random.default_rng((seed, copy, number))
                text, scene = augment(row["text"], self.regions.scene(row["image_id"]), rng)
                name = f"{row['image_id']}-augmented-{copy}"
                self.regions.add(name, scene)
                for column, value in (row | {"text": text, "image_id": name}).items():
                    rows[column].append(value)
        return replace(self, train=Dataset.from_dict(rows, features=self.train.features))

    def with_statements(self, statements: Dataset) -> "NlvrExamples":
        """Return the same with `statements` (`write_statements`) behind the training rows, each true and false."""
        first = 1 + max(self.train["group"])
        rows = [
            {"text": row["text"], "image_id": image_id, "label": label, "group": group, "question_id": image_id}
            for group, row in enumerate(iterate(statements), first)
            for label, image_id in ((1, row["image_id"]), (0, row["hard_negative_image_ids"][0]))
        ]
        return replace(
            self, train=concatenate_datasets([self.train, Dataset.from_list(rows, features=self.train.features)])
        )


def read_nlvr_examples(
    folder: Path, split: str = "dev", pixels: bool = False, prototypes: NDArray[np.float32] | None = None
) -> NlvrExamples:
    """Read the examples of a folder with `train-*.parquet` and `<split>-*.parquet`.

    Args:
        split: whose rows are `dev`; of a split that is not there when a model is trained, or "held_out" (`held_out`).
        pixels: an object's feature is taken from the pixels of its box in its own image; by default it is the median
            feature of the training split's objects of its colour, shape and size.
        prototypes: (27, feature), those medians, which a model carries. With them the training split is not read, and
            `train` has the rows of `split`.

    Raises:
        FileNotFoundError: if the folder lacks the files.
    """
    if split == "held_out":
        return read_nlvr_examples(folder, "train", pixels, prototypes).held_out()
    first = "train" if prototypes is None else split
    tables = read_nlvr_tables(folder, tuple(dict.fromkeys((first, split))))
    regions = SceneRegions(fit_prototypes(tables[first]) if prototypes is None else prototypes)
    splits = {}
    for name_of_split, table in tables.items():
        rows: dict[str, list] = {name: [] for name in _COLUMNS}
        for row in iterate(table if pixels else table.remove_columns("image")):
            objects = row["objects"]
            regions.add(row["identifier"], scene_of(*(np.asarray(objects[name]) for name in _OBJECTS)))
            if pixels:
                regions.measured[row["identifier"]] = boxes_and_features(row)[1]
            for name, source in zip(_COLUMNS, _SOURCES, strict=True):
                rows[name].append(row[source])
        splits[name_of_split] = Dataset.from_dict(rows, features=_COLUMNS)
    return NlvrExamples(regions, splits[first], splits[split])


def fit_prototypes(table: Dataset) -> NDArray[np.float32]:
    """Return (27, feature), the median feature of each colour, shape and size in the first images.

    The pixels of an object are a function of the three, but for the edge of a circle or triangle. What is in none of
    the images has NaN.
    """
    ids, features = [], []
    for example in iterate(table.select(range(min(_PROTOTYPE_IMAGES, len(table))))):
        boxes, found = boxes_and_features(example)
        scene = scene_of(boxes, np.asarray(example["objects"]["category"]), np.asarray(example["objects"]["panel"]))
        ids.append(prototype_ids(scene))
        features.append(found)
    seen, all_features = np.concatenate(ids), np.concatenate(features)
    prototypes = np.full((KINDS, all_features.shape[1]), np.nan, dtype=np.float32)
    for kind in np.unique(seen):
        prototypes[kind] = np.median(all_features[seen == kind], axis=0)
    return prototypes


def true_pairs(examples: Dataset) -> Dataset:
    """Return the true rows; the images of which the same sentence is false are their hard negatives."""
    false: dict[int, list[str]] = {}
    for row in iterate(examples):
        if not row["label"]:
            false.setdefault(row["group"], []).append(row["image_id"])
    true = examples.select(np.flatnonzero(np.asarray(examples["label"]) == 1))
    return Dataset.from_dict(
        {
            "text": [*true["text"]],
            "image_id": [*true["image_id"]],
            "hard_negative_image_ids": [false.get(group, []) for group in true["group"]],
        }
    )


def augment(text: str, scene: Scene, rng: np.random.Generator) -> tuple[str, Scene]:
    """Return text and scene changed in ways that keep the truth: boxes, colours and shapes exchanged.

    Colours are exchanged in scene and text alike, unless one is misspelt in the text. So are shapes, where objects are
    scattered and no word stands for one shape alone.
    """
    scene = permute_panels(scene, rng.permutation(PANELS).tolist())
    if not misspells(text, COLOURS):
        order = rng.permutation(len(COLOURS)).tolist()
        scene = permute_colours(scene, order)
        text = _exchange(text, dict(zip(COLOURS, (COLOURS[k] for k in order), strict=True)))
    if not (is_tower(scene) or _FIXED_SHAPE.search(text) or misspells(text, _SHAPE_WORDS)):
        order = rng.permutation(len(SHAPES)).tolist()
        scene = permute_shapes(scene, order)
        names = {old: SHAPES[k] for old, k in zip(SHAPES, order, strict=True)}
        text = _exchange(text, names | {f"{old}s": f"{new}s" for old, new in names.items()})
    return text, scene


def misspells(text: str, names: tuple[str, ...]) -> bool:
    """Whether a word of the text is nearly, but not quite, one of the names."""
    return any(_nearly(word, names) for word in set(re.findall("[a-z]+", text.lower())))


@cache
def _nearly(word: str, names: tuple[str, ...]) -> bool:
    if word in names or word in _ORDINARY:
        return False
    return any(name in word for name in names) or bool(get_close_matches(word, names, 1, 0.75))


def _exchange(text: str, names: dict[str, str]) -> str:
    """Exchange whole words; those that change are lower-case afterwards."""
    pattern = r"\b(" + "|".join(names) + r")\b"
    return re.sub(pattern, lambda found: names[found[0].lower()], text, flags=re.IGNORECASE)


_OBJECTS = ("bbox", "category", "panel")
_SOURCES = ("sentence", "identifier", "label", "group", "identifier")
