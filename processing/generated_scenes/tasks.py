"""A generated task for every task head: tables about scenes whose answers need the text and the image."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.pair_columns import build_pairs
from mmpt.processing.annotations.statement_annotations import ENTAILMENT, TRUTH
from mmpt.processing.generated_scenes.box_features import FEATURE_DIM
from mmpt.processing.generated_scenes.corpus import find_objects, fit_scene_classifier, scene_regions
from mmpt.processing.generated_scenes.evidence import evidence_group
from mmpt.processing.generated_scenes.groups import Group
from mmpt.processing.generated_scenes.questions import ANSWERS, choice_group, question_group
from mmpt.processing.generated_scenes.references import caption_group, expression_group, phrase_group
from mmpt.processing.generated_scenes.scenes import CLASS_NAMES, COLOURS, PLACES, Scene
from mmpt.processing.generated_scenes.statements import entailment_group, pair_truth_group, truth_group
from mmpt.processing.generated_scenes.texts import ATTRIBUTE_WORDS
from mmpt.processing.regions import Regions

IMAGE_COLUMNS = ("image_id", "second_image_id")
TEXT_COLUMNS = ("text", "choices")
LABEL_COLUMNS = ("label", "answers", "box")
_STREAM = 16  # of random numbers; those of the generated corpus have lower numbers
_SPLITS = ("train", "evaluation")

Layout = frozenset[tuple[str, str, int]]
"""Colour, shape and cell of every object: what the texts of a task can tell of a scene."""


class _Kind(NamedTuple):
    group: Callable[[np.random.Generator, int], Group]
    columns: tuple[str, ...]
    labels: tuple[str, ...] = ()


_KINDS = {
    "vqa": _Kind(question_group, ("answers", "answer_scores"), ANSWERS),
    "entailment": _Kind(entailment_group, ("label", "label_name"), tuple(ENTAILMENT)),
    "statements": _Kind(truth_group, ("label", "label_name"), tuple(TRUTH)),
    "nlvr2": _Kind(pair_truth_group, ("second_image_id", "label", "label_name"), tuple(TRUTH)),
    "multiple_choice": _Kind(choice_group, ("choices", "label")),
    "grounding": _Kind(expression_group, ("box",)),
    "phrases": _Kind(phrase_group, ("phrases",)),
    "retrieval": _Kind(caption_group, ()),
    "classification": _Kind(evidence_group, ("label", "label_name"), tuple(COLOURS)),
}
SCENE_TASKS = tuple(_KINDS)


@dataclass(frozen=True)
class SceneTask:
    """A task about generated scenes: two tables, and the regions of the images of both.

    Both tables have the columns of a pair table: text, image_id, question_id, and

    | task | columns | accuracy of the best guess from text alone; from the image alone |
    | --- | --- | --- |
    | vqa | answers, answer_scores | 0.23; 0.22 |
    | entailment | label, label_name | 1/3; 1/3 |
    | statements | label, label_name | 1/2; 1/2 |
    | nlvr2 | second_image_id, label, label_name | 1/2; 1/2 |
    | multiple_choice | choices, label | 1/4; 1/4 |
    | grounding | box | one of four regions; 1/4 |
    | phrases | phrases | one of the three or four regions; 1/3 |
    | retrieval | | one of all images; one of all captions |
    | classification | label, label_name | 0.75; 0.75, and 0.925 from both: hints that need not be read together |

    Rows are made in groups; in all but those of classification every text meets every label equally often, and every
    scene too. So the figures are exact, by counting, for whole groups: numbers of rows that are multiples of 162 in
    vqa, 9 in entailment, 8 in statements and nlvr2, 16 in multiple_choice, 4 in grounding and 3 in phrases. The last
    group is cut where it is too long.

    Args:
        name: one of `SCENE_TASKS`.
        seed: what `build` was given.
        scenes: every image's scene. No scene is in both tables, nor twice in one.
        found: every image's boxes in pixels as a detector would find them: in random order, not quite tight.
        labels: the answers of vqa, the names of the labels of entailment, statements and nlvr2, or none.
    """

    name: str
    seed: int
    scenes: dict[str, Scene]
    found: dict[str, NDArray[np.float32]]
    train: Dataset
    evaluation: Dataset
    labels: tuple[str, ...]
    feature_dim: int = FEATURE_DIM
    class_names: tuple[str, ...] = CLASS_NAMES

    @cached_property
    def regions(self) -> Mapping[str, Regions]:
        """Every image's regions, with features of the found boxes; computed when they are first asked for."""
        classifier = fit_scene_classifier(self.seed)
        return {
            image_id: scene_regions(image_id, scene, self.found[image_id], classifier)
            for image_id, scene in self.scenes.items()
        }

    @property
    def texts(self) -> list[str]:
        """The texts for a tokenizer: those of training, and every word of an attribute, a place and a label."""
        return [*self.train["text"], " ".join((*ATTRIBUTE_WORDS, *PLACES, *self.labels))]

    @classmethod
    def build(cls, name: str, train_rows: int, evaluation_rows: int, seed: int = 0) -> "SceneTask":
        """Generate a task; the same arguments give the same rows on one machine.

        Args:
            name: one of `SCENE_TASKS`.

        Raises:
            ValueError: if there is no such task, a number of rows is not positive or the seed is negative.
        """
        if name not in _KINDS:
            raise MmptValueError(f"there is no task {name!r}, expected one of {', '.join(_KINDS)}")
        for argument, value in (("train_rows", train_rows), ("evaluation_rows", evaluation_rows)):
            if value < 1:
                raise MmptValueError(f"{argument} is {value}, expected at least 1 row")
        if seed < 0:
            raise MmptValueError(f"seed is {seed}, expected 0 or more")
        builder = _Builder(name, seed)
        train, evaluation = builder.table("train", train_rows), builder.table("evaluation", evaluation_rows)
        return cls(name, seed, builder.scenes, builder.found, train, evaluation, _KINDS[name].labels)


def blind_accuracy(table: Dataset, sees: Literal["text", "image"]) -> float:
    """Return the best accuracy that is possible on a table from one modality alone.

    Rows that look alike to who sees only the text (with its choices), or only the image, get the most frequent label of
    them. The label is `label`, the first of `answers`, or `box`. Texts that occur once are counted as known, so that
    the figure is an upper bound where a table has few rows for each text.

    Raises:
        ValueError: if the table has none of these labels.
    """
    label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    if label is None:
        raise MmptValueError(f"the table has no label to guess, expected one of {', '.join(LABEL_COLUMNS)}")
    seen = [name for name in (TEXT_COLUMNS if sees == "text" else IMAGE_COLUMNS) if name in table.column_names]
    counts: dict[str, Counter[str]] = {}
    columns = [table[name] for name in (*seen, label)]
    for *inputs, value in zip(*columns, strict=True):
        counts.setdefault(repr(inputs), Counter())[repr(value)] += 1
    return sum(max(counter.values()) for counter in counts.values()) / len(table)


class _Builder:
    """The images made so far, and the layouts that no later scene may repeat."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        self.scenes: dict[str, Scene] = {}
        self.found: dict[str, NDArray[np.float32]] = {}
        self.layouts: set[Layout] = set()

    def table(self, split: str, count: int) -> Dataset:
        """Generate the rows of one split and their scenes."""
        kind = _KINDS[self.name]
        rows: list[dict[str, Any]] = []
        number = 0
        while len(rows) < count:
            stream = (self.seed, _STREAM, SCENE_TASKS.index(self.name), _SPLITS.index(split), number)
            rng = np.random.default_rng(stream)
            group = kind.group(rng, number)
            while not self._is_new(group.scenes):
                group = kind.group(rng, number)
            for places, columns in group.rows[: count - len(rows)]:
                ids = [f"{split}-{number:06d}-{place}" for place in places]
                for image_id, place in zip(ids, places, strict=True):
                    if image_id not in self.scenes:
                        self._add(image_id, group.scenes[place], rng)
                images = dict(zip(IMAGE_COLUMNS, ids, strict=False))
                rows.append({**columns, **images, "question_id": f"{split}-{len(rows):06d}"})
            number += 1
        names = ("text", "image_id", "question_id", *kind.columns)
        return build_pairs(f"generated task {self.name}", "row", enumerate(rows), lambda row: [row], names)

    def _is_new(self, scenes: list[Scene]) -> bool:
        layouts = {_layout(scene) for scene in scenes}
        return len(layouts) == len(scenes) and not layouts & self.layouts

    def _add(self, image_id: str, scene: Scene, rng: np.random.Generator) -> None:
        self.layouts.add(_layout(scene))
        self.scenes[image_id] = scene
        self.found[image_id], _ = find_objects(scene, rng)


def _layout(scene: Scene) -> Layout:
    return frozenset((item.colour, item.shape, item.cell) for item in scene.objects)
