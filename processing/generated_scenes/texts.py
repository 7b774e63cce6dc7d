"""Texts about scenes: captions of their objects, and statements with computed truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.generated_scenes.scenes import (
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIZES,
    Composition,
    Scene,
    SceneObject,
    change_attribute,
    pick,
    rearrange,
    swap_attributes,
)

ATTRIBUTE_WORDS = {
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(SHAPES, "shape"),
    **dict.fromkeys(SIZES, "size"),
}
# Sizes are rare, because a guess is right half the time, and because a small model learns them far more slowly than
# colours and shapes, which the region classes contain (the models of the tiny recipe still guess sizes).
SIZE_SHARE = 0.1

# Wordings are short, and within a caption the place is always on the same side of its object, so that a small model
# learns the language in minutes.
_PHRASES = (
    "a {size}{colour} {shape} at {place}",
    "a {size}{shape} in {colour} at {place}",
    "one {size}{colour} {shape} at {place}",
)
_SENTENCES = (
    "{place} is a {size}{colour} {shape}",
    "the {place} {size}{shape} is {colour}",
    "the {place} has one {size}{colour} {shape}",
)
_OPENERS = ("", "there is ", "we see ")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_TRIES = 24
_CHANGE_TRIES = 100


@dataclass(frozen=True)
class CaptionPlan:
    """All random choices of a caption; a plan can be applied to any scene with the same number of objects.

    Args:
        order: indices of the mentioned objects, in the order of mention.
        templates: index of the wording of each mention.
        sized: whether each mention includes the size.
        opener: beginning of the caption; None makes each mention a separate sentence.
    """

    order: tuple[int, ...]
    templates: tuple[int, ...]
    sized: tuple[bool, ...]
    opener: str | None


def plan_caption(scene: Scene, rng: np.random.Generator, mentions: int | None = None) -> CaptionPlan:
    """Draw the order and wording of a caption.

    Args:
        mentions: number of objects to mention; None means all.
    """
    count = len(scene.objects) if mentions is None else mentions
    return CaptionPlan(
        order=tuple(int(index) for index in rng.permutation(len(scene.objects))[:count]),
        templates=tuple(int(index) for index in rng.integers(len(_PHRASES), size=count)),
        sized=tuple(bool(draw < SIZE_SHARE) for draw in rng.random(count)),
        opener=None if rng.random() < 0.4 else pick(rng, _OPENERS),
    )


def write_caption(plan: CaptionPlan, scene: Scene) -> str:
    """Return the caption of a scene: each planned object once, with colour, shape, place and sometimes size."""
    templates = _SENTENCES if plan.opener is None else _PHRASES
    mentions = []
    for index, template, sized in zip(plan.order, plan.templates, plan.sized, strict=True):
        item = scene.objects[index]
        size = f"{item.size} " if sized else ""
        text = templates[template].format(size=size, colour=item.colour, shape=item.shape, place=item.place)
        mentions.append(text)
    if plan.opener is None:
        return " . ".join(mentions) + " ."
    *others, last = mentions
    return plan.opener + (f"{' , '.join(others)} and {last}" if others else last)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return a caption of the scene with random order and wording."""
    return write_caption(plan_caption(scene, rng), scene)


def caption_negative_scenes(
    scene: Scene, plan: CaptionPlan, rng: np.random.Generator, compositions: Sequence[Composition]
) -> list[Scene]:
    """Return scenes for which the caption is false: one with a changed attribute and, if possible, one with a swap.

    Captions of these scenes with the same plan are false for `scene`.

    Raises:
        ValueError: if no attribute can change within `compositions`.
    """
    text = write_caption(plan, scene)
    for _ in range(_CHANGE_TRIES):
        changed = change_attribute(scene, rng, compositions)
        if write_caption(plan, changed) != text:
            break  # otherwise the changed attribute is a size that the caption does not mention
    else:
        raise MmptValueError(
            f"no named attribute of the scene can change within the {len(compositions)} compositions given, expected "
            "two colours for a shape or two shapes for a colour. Pass ALL_COMPOSITIONS"
        )
    swapped = swap_attributes(scene, rng, compositions, touching=plan.order)
    return [changed] if swapped is None else [changed, swapped]


@dataclass(frozen=True)
class Description:
    """Description of the objects in a statement; None matches any value."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    row: int | None = None
    column: int | None = None

    def fits(self, item: SceneObject) -> bool:
        """Return whether the object matches the description."""
        pairs = (
            (self.colour, item.colour),
            (self.shape, item.shape),
            (self.size, item.size),
            (self.row, item.row),
            (self.column, item.column),
        )
        return all(want is None or want == got for want, got in pairs)

    def words(self, number: int = 1) -> str:
        """Return the noun phrase without article, in the plural if `number` is not 1."""
        noun = (self.shape or "object") + ("" if number == 1 else "s")
        parts = [word for word in (self.size, self.colour, noun) if word]
        if self.row is not None:
            parts.append(f"in the {ROWS[self.row]} row")
        if self.column is not None:
            parts.append(f"in the {COLUMNS[self.column]} column")
        return " ".join(parts)


@dataclass(frozen=True)
class Exists:
    """State that there is an object of the description."""

    what: Description

    def text(self) -> str:
        """Return the sentence."""
        return f"there is a {self.what.words()}"

    def holds(self, scene: Scene) -> bool:
        """Return whether the statement is true of the scene."""
        return any(self.what.fits(item) for item in scene.objects)


@dataclass(frozen=True)
class Count:
    """State that the number of objects of the description is exactly, at least or at most `number`."""

    what: Description
    bound: str
    number: int

    def text(self) -> str:
        """Return the sentence."""
        verb = "is" if self.number == 1 else "are"
        return f"there {verb} {self.bound} {_NUMBERS[self.number]} {self.what.words(self.number)}"

    def holds(self, scene: Scene) -> bool:
        """Return whether the statement is true of the scene."""
        found = sum(self.what.fits(item) for item in scene.objects)
        return {"exactly": found == self.number, "at least": found >= self.number, "at most": found <= self.number}[
            self.bound
        ]


@dataclass(frozen=True)
class Relation:
    """State that one object is left of, right of, above or below another, by columns and rows of the grid."""

    one: Description
    relation: str
    other: Description

    def text(self) -> str:
        """Return the sentence."""
        return f"a {self.one.words()} is {self.relation} a {self.other.words()}"

    def holds(self, scene: Scene) -> bool:
        """Return whether the statement is true of the scene."""
        others = [item for item in scene.objects if self.other.fits(item)]
        ones = [item for item in scene.objects if self.one.fits(item)]
        return any(_related(item, self.relation, other) for item in ones for other in others)


@dataclass(frozen=True)
class SameColour:
    """State that two objects of the description have the same colour."""

    what: Description

    def text(self) -> str:
        """Return the sentence."""
        return f"two {self.what.words(2)} have the same colour"

    def holds(self, scene: Scene) -> bool:
        """Return whether the statement is true of the scene."""
        colours = [item.colour for item in scene.objects if self.what.fits(item)]
        return len(set(colours)) < len(colours)


@dataclass(frozen=True)
class Both:
    """State that two statements are both true."""

    one: "Statement"
    other: "Statement"

    def text(self) -> str:
        """Return the sentence."""
        return f"{self.one.text()} and {self.other.text()}"

    def holds(self, scene: Scene) -> bool:
        """Return whether the statement is true of the scene."""
        return self.one.holds(scene) and self.other.holds(scene)


Statement = Exists | Count | Relation | SameColour | Both


def statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Draw a statement that is true of the scene."""
    kind = pick(rng, ("exists", "count", "relation", "same colour", "both"))
    if kind == "both":
        return Both(_simple_statement(scene, rng), _simple_statement(scene, rng))
    if kind == "same colour":
        drawn = SameColour(_describe(pick(rng, scene.objects), rng, (("shape",), ("size",), ("row",), ("column",))))
        return drawn if drawn.holds(scene) else _simple_statement(scene, rng)
    return _simple_statement(scene, rng, kind)


def statement_pair(
    scene: Scene, rng: np.random.Generator, compositions: Sequence[Composition]
) -> tuple[Statement, Statement, Scene]:
    """Return a statement true of the scene, a statement true of a rearranged scene, and the rearranged scene.

    Each statement is false of the other scene.
    """
    while True:
        other = rearrange(scene, rng, compositions)
        one = _true_of_first(scene, other, rng)
        two = None if one is None else _true_of_first(other, scene, rng)
        if one is not None and two is not None:
            return one, two, other


def _true_of_first(scene: Scene, other: Scene, rng: np.random.Generator) -> Statement | None:
    for _ in range(_TRIES):
        drawn = statement(scene, rng)
        if not drawn.holds(other):
            return drawn
    return None


def _simple_statement(scene: Scene, rng: np.random.Generator, kind: str | None = None) -> Statement:
    kind = kind or pick(rng, ("exists", "count", "relation"))
    if kind == "count":
        narrow = (("colour", "shape"), ("colour", "row"), ("shape", "column"), ("row",), ("column",), ("size", "shape"))
        what = _describe(pick(rng, scene.objects), rng, narrow)
        found = sum(what.fits(item) for item in scene.objects)
        return Count(what, pick(rng, ("exactly", "at least", "at most")), found)
    if kind == "relation":
        one, other = (scene.objects[k] for k in rng.permutation(len(scene.objects))[:2])
        true = [name for name in ("left of", "right of", "above", "below") if _related(one, name, other)]
        named = (("colour", "shape"), ("size", "colour", "shape"))
        return Relation(_describe(one, rng, named), pick(rng, true), _describe(other, rng, named))
    places = (("colour", "shape"), ("colour", "shape", "row"), ("colour", "shape", "column"))
    places += (("shape", "row", "column"), ("colour", "row", "column"), ("size", "colour", "shape"))
    return Exists(_describe(pick(rng, scene.objects), rng, places))


def _describe(item: SceneObject, rng: np.random.Generator, options: Sequence[tuple[str, ...]]) -> Description:
    return Description(**{name: getattr(item, name) for name in pick(rng, options)})


def _related(one: SceneObject, relation: str, other: SceneObject) -> bool:
    return {
        "left of": one.column < other.column,
        "right of": one.column > other.column,
        "above": one.row < other.row,
        "below": one.row > other.row,
    }[relation]
