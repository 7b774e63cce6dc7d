"""Groups of scenes with rows about them, the units from which tasks of generated scenes are built."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mmpt.processing.generated_scenes.scenes import ALL_COMPOSITIONS, GRID, Scene, compose_scene, pick

T = TypeVar("T")
CELLS = GRID * GRID


class Group(NamedTuple):
    """Scenes and rows balanced so that neither the text alone nor the scene alone determines the label.

    Every text occurs with every label, and so does every scene.

    Args:
        scenes: distinct scenes.
        rows: for each row, the indices of its scenes in `scenes`, and its columns without ids.
    """

    scenes: list[Scene]
    rows: list[tuple[tuple[int, ...], dict[str, Any]]]


def shuffled(rng: np.random.Generator, items: Iterable[T]) -> list[T]:
    """Return the items in random order."""
    items = list(items)
    return [items[index] for index in rng.permutation(len(items))]


def draw_cells(rng: np.random.Generator, count: int) -> list[int]:
    """Draw distinct cells of the grid."""
    return [int(cell) for cell in rng.permutation(CELLS)[:count]]


def draw_scene(rng: np.random.Generator, count: int) -> Scene:
    """Draw a scene of `count` objects with independently drawn colour and shape."""
    return compose_scene(rng, [(*pick(rng, ALL_COMPOSITIONS), cell) for cell in draw_cells(rng, count)])
