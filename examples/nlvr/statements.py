"""Statements about NLVR scenes: each with a scene of which it is true and a rearrangement of which it is false."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.nlvr.colour_templates import (
    box_number_of_colours,
    box_only_colours,
    tower_number_of_colours,
    tower_of_colour,
    tower_only_colours,
)
from examples.nlvr.scenes import Scene, rearrange
from examples.nlvr.templates import (
    box_above,
    box_each_other,
    box_many,
    box_of_which,
    box_same_number,
    box_shapes,
    box_touching,
    box_with,
    existence,
    no_or_without,
    total,
    touching,
)
from examples.nlvr.tower_templates import (
    between,
    block_as_end,
    end_colour,
    ends,
    height,
    height_and,
    order,
    ordinal,
    same_ends,
    tower_counts,
)
from examples.nlvr.wording import Boxes, Maker, Statement, Writer
from mmpt.configuration.errors import MmptValueError

_SCENES = 500  # tried for a statement before giving up
_STATEMENTS = 20  # tried for a scene before another is drawn
_REARRANGEMENTS = 6  # tried for a statement

Level = Literal["words", "simple", "all"]
"""How hard statements are: "words" say only that there is a thing, "simple" ones one thing about one box or tower."""

_EASY = {"words": 1.0, "simple": 0.9, "all": 0.3}


class Written(NamedTuple):
    """A statement with a scene of which it is true and one of which it is false."""

    statement: Statement
    true: Scene
    false: Scene


def write_statements(scenes: Sequence[Scene], count: int, seed: int, level: Level = "all") -> Iterator[Written]:
    """Write statements about scenes drawn from these; each depends on the seed and its number alone.

    For a share of the statements, for all on the level "words", the one scene is no rearrangement of the other but
    another one of the scenes. What is seen at a glance, like whether there is a blue circle, then differs too.

    Args:
        level: a new model that starts with "all" learns nothing for more than a thousand steps; one that has seen
            "words" for 300 and then "simple" learns at once.

    Raises:
        ValueError: if `count` is negative, there are no scenes, or they are too much alike.
    """
    if count < 0 or not scenes:
        raise MmptValueError(
            f"{count} statements about {len(scenes)} scenes were asked for, expected 0 or more about some"
        )
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        for _ in range(_SCENES):
            scene = scenes[int(rng.integers(len(scenes)))]
            other = scenes[int(rng.integers(len(scenes)))] if rng.random() < _EASY[level] else None
            pair = statement_pair(scene, rng, other, level)
            if pair is not None:
                yield pair
                break
        else:
            raise MmptValueError(
                f"no statement of level {level!r} is true of one and false of another of {_SCENES} pairs of scenes, "
                f"expected scenes that differ; got {len(scenes)}"
            )


def statement_pair(
    scene: Scene, rng: np.random.Generator, other: Scene | None = None, level: Level = "all"
) -> Written | None:
    """Return a statement, a scene of which it is true and one of which it is false.

    One of the two is `scene`, with equal chance either, and the other is `other` or, by default, a rearrangement of it.
    None if no statement is found, as for a scene whose objects are all alike.
    """
    boxes = Boxes(scene)
    wanted = bool(rng.random() < 0.5)
    for _ in range(_STATEMENTS):
        statement = draw_statement(boxes, rng, level)
        if statement.holds(boxes) != wanted:
            continue
        for _ in range(_REARRANGEMENTS if other is None else 1):
            second = rearrange(scene, rng) if other is None else other
            if statement.holds(Boxes(second)) != wanted:
                return Written(statement, *((scene, second) if wanted else (second, scene)))
    return None


def draw_statement(boxes: Boxes, rng: np.random.Generator, level: Level = "all") -> Statement:
    """Draw a statement about things like those of the scene; it may be true or false of it."""
    makers, bounds = _BOUNDS[level][boxes.tower]
    maker = makers[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
    text, holds = maker(Writer(boxes, rng, plain=level == "simple"))
    return Statement(text, holds, maker.__name__)


# Weights are about the shares of the writers' sentences.
_SCATTERED_WEIGHTS: dict[Maker, float] = {
    total: 17,
    box_with: 30,
    box_only_colours: 4,
    box_number_of_colours: 4,
    box_of_which: 4,
    box_many: 2,
    no_or_without: 2,
    box_same_number: 1.5,
    touching: 30,
    box_touching: 5,
    box_each_other: 2,
    box_above: 2.5,
    box_shapes: 2,
}

_TOWER_WEIGHTS: dict[Maker, float] = {
    total: 9,
    end_colour: 22,
    block_as_end: 17,
    height: 9,
    height_and: 6,
    ends: 3,
    order: 13,
    ordinal: 4,
    tower_counts: 10,
    tower_only_colours: 3.4,
    tower_number_of_colours: 2.3,
    tower_of_colour: 3.3,
    same_ends: 1.5,
    between: 1,
    box_with: 5,
    box_only_colours: 1,
    box_number_of_colours: 1,
    box_of_which: 1,
    box_many: 0.5,
    no_or_without: 0.5,
    box_same_number: 1,
}


_SIMPLE_SCATTERED: dict[Maker, float] = {existence: 2, box_with: 4, touching: 4, box_only_colours: 1}
_SIMPLE_TOWERS: dict[Maker, float] = {end_colour: 4, height: 2, order: 3, tower_counts: 2, tower_of_colour: 1}


def _bounds(templates: dict[Maker, float]) -> tuple[list[Maker], NDArray[np.float64]]:
    return list(templates), np.array(list(accumulate(templates.values())))


_BOUNDS = {
    "words": (_bounds({existence: 1}), _bounds({existence: 1})),
    "simple": (_bounds(_SIMPLE_SCATTERED), _bounds(_SIMPLE_TOWERS)),
    "all": (_bounds(_SCATTERED_WEIGHTS), _bounds(_TOWER_WEIGHTS)),
}
"""Templates by level, for scattered objects and for towers."""
