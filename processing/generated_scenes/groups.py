"""Groups of scenes with rows about them: what a task of generated scenes is made of."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mmpt.processing.generated_scenes.scenes import ALL_COMPOSITIONS, GRID, Scene, compose_scene, pick

T = TypeVar("T")
CELLS = GRID * GRID


class Group(NamedTuple):
    """Scenes and rows in which every text meets every label, and every scene too, so that neither tells it alone.

    Args:
        scenes: all different.
        rows: for each the places of its scenes in `scenes`, and its columns apart from ids.
    """

    scenes: list[Scene]
    rows: list[tuple[tuple[int, ...], dict[str, Any]]]


def shuffled(rng: np.random.Generator, items: Iterable[T]) -> list[T]:
    """Return the items in a drawn order."""
    items = list(items)
    return [items[index] for index in rng.permutation(len(items))]


def draw_cells(rng: np.random.Generator, count: int) -> list[int]:
    """Draw distinct cells of the grid."""
    return [int(cell) for cell in rng.permutation(CELLS)[:count]]


def draw_scene(rng: np.random.Generator, count: int) -> Scene:
    """Draw a scene of so many objects, each of a colour and shape of its own draw."""
    return compose_scene(rng, [(*pick(rng, ALL_COMPOSITIONS), cell) for cell in draw_cells(rng, count)])
