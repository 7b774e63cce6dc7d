"""Statements about one or two generated scenes: true or false, or entailed, neutral or contradicted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mmpt.processing.annotations.statement_annotations import ENTAILMENT, TRUTH
from mmpt.processing.generated_scenes.groups import Group, draw_cells, draw_scene, shuffled
from mmpt.processing.generated_scenes.scenes import (
    ALL_COMPOSITIONS,
    COLOURS,
    SHAPES,
    Scene,
    SceneObject,
    compose_scene,
    pick,
    rearrange,
)
from mmpt.processing.generated_scenes.texts import Count, Description, Exists

STATEMENTS = 2  # texts true of only the first of two scenes (or pairs of scenes), and texts true of only the second
QUANTIFIERS: dict[str, Callable[[bool, bool], bool]] = {
    "both images have": lambda left, right: left and right,
    "exactly one image has": lambda left, right: left != right,
    "the left image has": lambda left, right: left,
    "the right image has": lambda left, right: right,
}
_TRIES = 24
_OBJECTS = 3  # per scene of true/false statements
_COUNTED = 0.15  # probability that a statement counts or compares numbers of objects
# A model first learns single colours and shapes, and then that both must belong to the same object.
_NAMED = (("colour",), ("shape",), ("colour", "shape"), ("colour", "shape"), ("shape", "row"), ("colour", "column"))
_BOTH = 0.5  # probability that a statement about two images begins with "both images have"


class SceneStatement(Protocol):
    """A statement that is true or false of one scene or of two scenes."""

    def text(self) -> str:
        """Return the sentence."""
        ...

    @property
    def holds(self) -> Callable[..., bool]:
        """Function that returns whether the statement is true of one scene, or of a left and a right one."""
        ...


@dataclass(frozen=True)
class Images:
    """State that both images, exactly one, the left or the right one have an object of the description."""

    quantifier: str
    what: Description

    def text(self) -> str:
        """Return the sentence."""
        return f"{self.quantifier} a {self.what.words()}"

    def holds(self, *scenes: Scene) -> bool:
        """Return whether the statement is true of the left and the right scene."""
        left, right = (_count(self.what, scene) > 0 for scene in scenes)
        return QUANTIFIERS[self.quantifier](left, right)


@dataclass(frozen=True)
class More:
    """State that the image on one side has more objects of the description than the other."""

    side: str
    what: Description

    def text(self) -> str:
        """Return the sentence."""
        other = "right" if self.side == "left" else "left"
        return f"the {self.side} image has more {self.what.words(2)} than the {other} image"

    def holds(self, *scenes: Scene) -> bool:
        """Return whether the statement is true of the left and the right scene."""
        left, right = (_count(self.what, scene) for scene in scenes)
        return left > right if self.side == "left" else right > left


def entailment_group(rng: np.random.Generator, number: int) -> Group:
    """Return 9 rows, three statements about three scenes; each label occurs once per statement and once per scene.

    "the circle is red" is entailed if the only circle is red, and contradicted if it has another colour. It is neutral
    if there is no circle: an image shows part of the world, and a circle outside of it may have any colour. For odd
    `number`, statements have the form "the red object is a circle".
    """
    hues, shapes = shuffled(rng, COLOURS), shuffled(rng, SHAPES)
    by_shape = number % 2 == 0
    named = list(zip(hues, shapes[:3], strict=False))
    names = list(ENTAILMENT)
    group = Group([], [])
    for turn in range(len(names)):
        objects = []
        for index, (colour, shape) in enumerate(named):
            name = names[(index + turn) % len(names)]
            if name == "contradiction" and by_shape:
                objects.append((pick(rng, [other for other in COLOURS if other != colour]), shape))
            elif name == "contradiction":
                objects.append((colour, pick(rng, [other for other in SHAPES if other != shape])))
            elif name == "entailment":
                objects.append((colour, shape))
            text = f"the {shape} is {colour}" if by_shape else f"the {colour} object is a {shape}"
            group.rows.append(((turn,), {"text": text, "label": ENTAILMENT[name], "label_name": name}))
        for hue in hues[3:5]:  # distractor objects
            objects.append((pick(rng, hues), shapes[3]) if by_shape else (hue, pick(rng, SHAPES)))
        cells = draw_cells(rng, len(objects))
        group.scenes.append(compose_scene(rng, [(*item, cell) for item, cell in zip(objects, cells, strict=True)]))
    return group


def truth_group(rng: np.random.Generator, number: int) -> Group:
    """Return 8 rows, statements about two scenes of three objects, each true of exactly one scene.

    The second scene is drawn independently or, in every fourth group, is a rearrangement of the first.
    """
    while True:
        one = draw_scene(rng, _OBJECTS)
        other = rearrange(one, rng, ALL_COMPOSITIONS) if number % 4 == 3 else draw_scene(rng, _OBJECTS)
        if rows := _opposed(rng, [one, other], ((0,), (1,)), _draw_statement):
            return Group([one, other], rows)


def pair_truth_group(rng: np.random.Generator, number: int) -> Group:
    """Return 8 rows, statements about two pairs of scenes of three objects, each true of exactly one pair.

    The second pair is drawn independently or, in every fourth group, is the first pair with left and right swapped.
    """
    while True:
        scenes = _draw_pair(rng)
        pairs = ((0, 1), (1, 0))
        if number % 4 != 3:
            scenes += _draw_pair(rng)
            pairs = ((0, 1), (2, 3))
        if rows := _opposed(rng, scenes, pairs, _draw_pair_statement):
            return Group(scenes, rows)


def _opposed(
    rng: np.random.Generator,
    scenes: list[Scene],
    inputs: tuple[tuple[int, ...], tuple[int, ...]],
    draw: Callable[[np.random.Generator, list[Scene]], SceneStatement],
) -> list[tuple[tuple[int, ...], dict[str, Any]]] | None:
    """Return rows of statements, half true of only the first input, half of only the second, or None if none is found.

    Args:
        inputs: indices into `scenes` of the two inputs to compare.
    """
    rows = []
    for here, there in (inputs, inputs[::-1]):
        texts: set[str] = set()
        for _ in range(_TRIES):
            drawn = draw(rng, [scenes[index] for index in here])
            text, truths = drawn.text(), [drawn.holds(*(scenes[index] for index in each)) for each in (here, there)]
            if truths == [True, False] and text not in texts:
                texts.add(text)
                rows.append((here, {"text": text, "label": TRUTH["true"], "label_name": "true"}))
                rows.append((there, {"text": text, "label": TRUTH["false"], "label_name": "false"}))
            if len(texts) == STATEMENTS:
                break
        else:
            return None
    return rows


def _draw_statement(rng: np.random.Generator, scenes: list[Scene]) -> SceneStatement:
    """Draw a statement that is true of the scene."""
    (scene,) = scenes
    item = pick(rng, scene.objects)
    if rng.random() < _COUNTED:
        what = _describe(item, pick(rng, (("colour",), ("shape",))))
        return Count(what, "exactly", _count(what, scene))
    return Exists(_describe(item, pick(rng, _NAMED)))


def _draw_pair_statement(rng: np.random.Generator, scenes: list[Scene]) -> SceneStatement:
    """Draw a statement about an object of one of two scenes; the statement may be false."""
    item = pick(rng, pick(rng, scenes).objects)
    if rng.random() < _COUNTED:
        return More(pick(rng, ("left", "right")), _describe(item, pick(rng, (("colour",), ("shape",)))))
    # "both" is rarely true, and the easiest to learn: an object in either image makes it more probable.
    quantifier = "both images have" if rng.random() < _BOTH else pick(rng, tuple(QUANTIFIERS))
    return Images(quantifier, _describe(item, pick(rng, (("colour",), ("shape",), ("colour", "shape")))))


def _draw_pair(rng: np.random.Generator) -> list[Scene]:
    """Draw two scenes that share a (colour, shape), which independent draws rarely do."""
    one = draw_scene(rng, _OBJECTS)
    compositions = [one.objects[0].composition, *(pick(rng, ALL_COMPOSITIONS) for _ in range(_OBJECTS - 1))]
    cells = draw_cells(rng, _OBJECTS)
    return [one, compose_scene(rng, [(*item, cell) for item, cell in zip(compositions, cells, strict=True)])]


def _describe(item: SceneObject, names: tuple[str, ...]) -> Description:
    return Description(**{name: getattr(item, name) for name in names})


def _count(what: Description, scene: Scene) -> int:
    return sum(what.fits(item) for item in scene.objects)
