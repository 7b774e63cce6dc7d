"""A corpus of rendered scenes with captions and statements, made from one seed: no file, no download."""

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
    tell,
)
from mmpt.processing.regions import Regions

TRAIN_CAPTIONS = 3  # captions of one training scene; another wording costs no rendering
NEGATIVE_IMAGE_SHARE = 1 / 6  # captions with a rendered hard negative; all have written ones
BOX_JITTER = 1.5  # pixels by which a found box's edges miss the tight one
_CLASSIFIER_SCENES = 320
_CLASSIFIER, _TRAIN, _EVALUATION, _COMPOSITIONS = range(4)  # streams of random numbers

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
        seed: what `build` was given.
        scenes: every image's scene, those of hard negatives too.
        found: every image's boxes in pixels as a detector would find them: in random order, not quite tight.
        train: captions, some of which mention a part of the objects only, and statements beside them.
        evaluation: captions of new scenes; one a scene. Their false texts are of both kinds that follow.
        changed: the same, with one attribute changed as the only false text.
        swapped: those where it is possible, with one attribute of two objects exchanged as the only false text.
        compositions: captions of scenes whose (colour, shape) pairs never occur in `train`.
        statements: statements about the scenes of `evaluation`, each with an image of which it is false.
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
        """Every image's regions, with features of the found boxes; computed when they are first asked for."""
        classifier = fit_scene_classifier(self.seed)
        return {
            image_id: scene_regions(image_id, scene, self.found[image_id], classifier)
            for image_id, scene in self.scenes.items()
        }

    @property
    def texts(self) -> list[str]:
        """The texts for a tokenizer: those of training, true and false, and every attribute word."""
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
        """Generate the corpus; the same arguments give the same bits on one machine.

        Args:
            train_scenes: scenes with captions in `train`.
            eval_scenes: scenes in `evaluation`, and as many in `compositions`.
            statements: share of the training and evaluation scenes that statements are made about. Each of these
                gives two rows: one about the scene, one about its rearrangement.
            partial_captions: share of the captions in `train` that mention one object, two, ... up to all, with equal
                chance. From a short one matching learns what a long one would not teach it: that colour and shape
                must be those of one object.

        Raises:
            ValueError: if a size is not positive, the seed is negative or a share lies outside 0..1.
        """
        for name, value in (("train_scenes", train_scenes), ("eval_scenes", eval_scenes)):
            if value < 1:
                raise MmptValueError(f"{name} is {value}, expected at least 1 scene")
        if seed < 0:
            raise MmptValueError(f"seed is {seed}, expected 0 or more")
        for name, share in (("statements", statements), ("partial_captions", partial_captions)):
            if not 0 <= share <= 1:
                raise MmptValueError(f"{name} is {share}, expected a share, 0..1")
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
            changed=_table([_told_false(row, 0) for row in evaluation.captions]),
            swapped=_table([_told_false(row, 1) for row in evaluation.captions if len(row["hard_negative_texts"]) > 1]),
            compositions=_table(held_out.captions),
            statements=_table(evaluation.statements),
        )


@dataclass(frozen=True)
class _Rows:
    captions: list[dict[str, Any]]
    statements: list[dict[str, Any]]


class _Builder:
    """The images made so far, and the layouts that no later scene may repeat."""

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
        # Held-out pairs are too few to change one attribute into another of them.
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
                rows.captions.append(_row(tell(plan, scene), image_id, images, [tell(plan, other) for other in false]))
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
    """Return pixel boxes and true classes of the objects, in random order, as a detector would find them."""
    order = rng.permutation(len(scene.objects))
    miss = rng.uniform(-BOX_JITTER, BOX_JITTER, size=(len(order), 4))
    boxes = np.clip(scene.boxes[order] + miss, 0, IMAGE_SIZE).astype(np.float32)
    return boxes, scene.class_ids[order]


def scene_regions(image_id: str, scene: Scene, boxes: NDArray[np.float32], classifier: RegionClassifier) -> Regions:
    """Render the scene and return the regions of its found boxes."""
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
    """Fit the classes of `CLASS_NAMES` on scenes that no corpus has."""
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


def _told_false(row: dict[str, Any], kind: int) -> dict[str, Any]:
    """Return the row with one false text: 0 the one with an attribute changed, 1 the one with two exchanged."""
    return _row(row["text"], row["image_id"], [], [row["hard_negative_texts"][kind]])


def _table(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_dict({name: [row[name] for row in rows] for name in _COLUMNS}, features=_COLUMNS)
