"""Corpus of rendered scenes with captions and statements, generated from a seed without files or downloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.generated_scenes.box_features import FEATURE_DIM, RegionClassifier, box_features
from mmpt.processing.generated_scenes.scenes import (
    ALL_COMPOSITIONS,
    CLASS_NAMES,
    HELD_OUT_COMPOSITIONS,
    IMAGE_SIZE,
    TRAIN_COMPOSITIONS,
    Composition,
    Scene,
    render,
    sample_scene,
)
from mmpt.processing.generated_scenes.texts import (
    ATTRIBUTE_WORDS,
    caption_negative_scenes,
    plan_caption,
    statement_pair,
    write_caption,
)
from mmpt.processing.regions import Regions

TRAIN_CAPTIONS = 3  # captions per training scene; more captions need no more rendering
NEGATIVE_IMAGE_SHARE = 1 / 6  # fraction of captions with a hard-negative image; all have hard-negative texts
BOX_JITTER = 1.5  # largest distance in pixels between the edges of a found box and the tight box
_CLASSIFIER_SCENES = 320
_CLASSIFIER, _TRAIN, _EVALUATION, _COMPOSITIONS = range(4)  # random streams

_COLUMNS = Features(
    {
        "text": Value("string"),
        "image_id": Value("string"),
        "hard_negative_image_ids": List(Value("string")),
        "hard_negative_texts": List(Value("string")),
    }
)


@dataclass(frozen=True)
class GeneratedScenes:
    """Generated scenes, the regions of their images, and pair tables.

    Args:
        seed: argument of `build`.
        scenes: image id -> scene, including those of hard negatives.
        found: image id -> (objects, 4) boxes in pixels, as of a detector: in random order and not exactly tight.
        train: captions, of which some mention only part of the objects, and statements.
        evaluation: captions of new scenes, one per scene, with the hard-negative texts of both tables below.
        changed: rows of `evaluation` whose only hard-negative text has one attribute changed.
        swapped: rows of `evaluation` whose only hard-negative text has an attribute of two objects swapped; rows where
            no swap is possible are left out.
        compositions: captions of scenes whose (colour, shape) pairs never occur in `train`.
        statements: statements about the scenes of `evaluation`, each with an image for which it is false.
    """

    seed: int
    scenes: dict[str, Scene]
    found: dict[str, NDArray[np.float32]]
    train: Dataset
    evaluation: Dataset
    changed: Dataset
    swapped: Dataset
    compositions: Dataset
    statements: Dataset
    feature_dim: int = FEATURE_DIM
    class_names: tuple[str, ...] = CLASS_NAMES

    @cached_property
    def regions(self) -> dict[str, Regions]:
        """Image id -> regions with features of the found boxes, computed on first access."""
        classifier = fit_scene_classifier(self.seed)
        return {
            image_id: scene_regions(image_id, scene, self.found[image_id], classifier)
            for image_id, scene in self.scenes.items()
        }

    @property
    def texts(self) -> list[str]:
        """Texts to train a tokenizer on: all training texts, hard negatives included, and every attribute word."""
        false = [text for texts in self.train["hard_negative_texts"] for text in texts]
        return [*self.train["text"], *false, " ".join(ATTRIBUTE_WORDS)]

    @classmethod
    def build(
        cls,
        train_scenes: int,
        eval_scenes: int,
        seed: int,
        statements: float = 0.25,
        partial_captions: float = 0.0,
    ) -> "GeneratedScenes":
        """Generate the corpus; on one machine, the same arguments give bit-identical results.

        Args:
            train_scenes: number of scenes with captions in `train`.
            eval_scenes: number of scenes in `evaluation`, and in `compositions`.
            seed: seed of all random numbers.
            statements: fraction of the training and evaluation scenes with statements. Each of them gives two rows:
                one about the scene, one about its rearrangement.
            partial_captions: fraction of the captions in `train` that mention a random number of objects, from one to
                all. Short captions teach matching that a colour and a shape must belong to the same object.

        Raises:
            ValueError: if a size is not positive, the seed is negative or a fraction is outside 0..1.
        """
        for name, value in (("train_scenes", train_scenes), ("eval_scenes", eval_scenes)):
            if value < 1:
                raise MmptValueError(f"{name} is {value}, expected at least 1 scene")
        if seed < 0:
            raise MmptValueError(f"seed is {seed}, expected 0 or more")
        for name, share in (("statements", statements), ("partial_captions", partial_captions)):
            if not 0 <= share <= 1:
                raise MmptValueError(f"{name} is {share}, expected a fraction, 0..1")
        builder = _Builder(seed)
        train = builder.split(
            "train", _TRAIN, train_scenes, TRAIN_COMPOSITIONS, statements, TRAIN_CAPTIONS, partial_captions
        )
        evaluation = builder.split("evaluation", _EVALUATION, eval_scenes, TRAIN_COMPOSITIONS, statements, 1)
        held_out = builder.split("compositions", _COMPOSITIONS, eval_scenes, HELD_OUT_COMPOSITIONS, 0.0, 1)
        return cls(
            seed=seed,
            scenes=builder.scenes,
            found=builder.found,
            train=_table(train.captions + train.statements),
            evaluation=_table(evaluation.captions),
            changed=_table([_one_negative(row, 0) for row in evaluation.captions]),
            swapped=_table(
                [_one_negative(row, 1) for row in evaluation.captions if len(row["hard_negative_texts"]) > 1]
            ),
            compositions=_table(held_out.captions),
            statements=_table(evaluation.statements),
        )


@dataclass(frozen=True)
class _Rows:
    captions: list[dict[str, Any]]
    statements: list[dict[str, Any]]


class _Builder:
    """Collect images, and the layouts that no later scene may repeat."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.scenes: dict[str, Scene] = {}
        self.found: dict[str, NDArray[np.float32]] = {}
        self.layouts: set[frozenset[tuple[str, str, str, int]]] = set()

    def split(
        self,
        name: str,
        stream: int,
        count: int,
        compositions: Sequence[Composition],
        statement_share: float,
        captions: int,
        partial_captions: float = 0.0,
    ) -> _Rows:
        """Generate the scenes and rows of one split."""
        rows = _Rows([], [])
        # There are too few held-out pairs to change an attribute within them.
        negative_compositions = ALL_COMPOSITIONS if compositions is HELD_OUT_COMPOSITIONS else compositions
        statements_made = 0
        for index in range(count):
            rng = np.random.default_rng((self.seed, stream, index))
            image_id = f"{name}-{index:06d}"
            scene = sample_scene(rng, compositions)
            while scene.layout in self.layouts:
                scene = sample_scene(rng, compositions)
            self._add(image_id, scene, rng)
            for number in range(captions):
                partial = rng.random() < partial_captions
                mentions = int(rng.integers(1, len(scene.objects) + 1)) if partial else None
                plan = plan_caption(scene, rng, mentions)
                false = caption_negative_scenes(scene, plan, rng, negative_compositions)
                images = []
                if rng.random() < NEGATIVE_IMAGE_SHARE:
                    drawn = false[int(rng.integers(len(false)))]
                    if drawn.layout not in self.layouts:
                        images.append(f"{image_id}-false-{number}")
                        self._add(images[0], drawn, rng)
                false_texts = [write_caption(plan, other) for other in false]
                rows.captions.append(_row(write_caption(plan, scene), image_id, images, false_texts))
            if statements_made < round(statement_share * (index + 1)):
                statements_made += 1
                rows.statements.extend(self._statements(image_id, scene, compositions, rng))
        return rows

    def _statements(
        self, image_id: str, scene: Scene, compositions: Sequence[Composition], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        one, two, other = statement_pair(scene, rng, compositions)
        while other.layout in self.layouts:
            one, two, other = statement_pair(scene, rng, compositions)
        other_id = f"{image_id}-rearranged"
        self._add(other_id, other, rng)
        return [
            _row(one.text(), image_id, [other_id], [two.text()]),
            _row(two.text(), other_id, [image_id], [one.text()]),
        ]

    def _add(self, image_id: str, scene: Scene, rng: np.random.Generator) -> None:
        self.layouts.add(scene.layout)
        self.scenes[image_id] = scene
        self.found[image_id], _ = find_objects(scene, rng)


def find_objects(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (objects, 4) boxes in pixels and (objects,) true classes, in random order, as of a detector."""
    order = rng.permutation(len(scene.objects))
    miss = rng.uniform(-BOX_JITTER, BOX_JITTER, size=(len(order), 4))
    boxes = np.clip(scene.boxes[order] + miss, 0, IMAGE_SIZE).astype(np.float32)
    return boxes, scene.class_ids[order]


def scene_regions(image_id: str, scene: Scene, boxes: NDArray[np.float32], classifier: RegionClassifier) -> Regions:
    """Render the scene and return the regions of its found boxes; boxes: (regions, 4) in pixels."""
    features = box_features(render(scene), boxes)
    probs = classifier.probs(features)
    return Regions.from_pixels(
        features,
        boxes,
        width=IMAGE_SIZE,
        height=IMAGE_SIZE,
        class_probs=probs,
        labels=probs.argmax(axis=1),
        scores=probs.max(axis=1),
        image_id=image_id,
    )


def fit_scene_classifier(seed: int) -> RegionClassifier:
    """Fit a classifier of `CLASS_NAMES` on scenes that are in no corpus."""
    features, labels = [], []
    for index in range(_CLASSIFIER_SCENES):
        rng = np.random.default_rng((seed, _CLASSIFIER, index))
        scene = sample_scene(rng, ALL_COMPOSITIONS)
        boxes, classes = find_objects(scene, rng)
        features.append(box_features(render(scene), boxes))
        labels.append(classes)
    return RegionClassifier.fit(np.concatenate(features), np.concatenate(labels), len(CLASS_NAMES))


def _row(text: str, image_id: str, false_images: list[str], false_texts: list[str]) -> dict[str, Any]:
    return {
        "text": text,
        "image_id": image_id,
        "hard_negative_image_ids": false_images,
        "hard_negative_texts": false_texts,
    }


def _one_negative(row: dict[str, Any], kind: int) -> dict[str, Any]:
    """Return the row with one hard-negative text: 0 with a changed attribute, 1 with a swapped attribute."""
    return _row(row["text"], row["image_id"], [], [row["hard_negative_texts"][kind]])


def _table(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_dict({name: [row[name] for row in rows] for name in _COLUMNS}, features=_COLUMNS)
