"""Scenes of NLVR v1: three boxes of objects as rows of numbers, rearranged, permuted, and made into regions."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.regions import Regions

COLOURS = ("yellow", "black", "blue")
SHAPES = ("square", "circle", "triangle")
SIZES = (10, 20, 30)
KINDS = len(COLOURS) * len(SHAPES) * len(SIZES)
PANELS = 3
SIDE = 100  # pixels of a box
STRIDE = 150  # from the left edge of one box to that of the next
TOWER_X = 40
TOWER_STEP = 21  # blocks are 20 pixels high and one apart
TALLEST = 4
SUM_SCALE = 1 / 40  # of the features of a box, small enough for a projection's bias and LayerNorm to leave its length
MOST = 8  # objects of a box of scattered ones
SNAP = 0.18  # chance that a scattered object is moved to the right wall, and to the bottom
PANEL, X, Y, SIZE, COLOUR, SHAPE = range(6)

Scene = NDArray[np.int16]
"""(objects, 6): box 0..2, left and top edge in pixels of the box, side in pixels, colour and shape."""

_PLACE_TRIES = 40
_ARRANGE_TRIES = 20
_COUNTS = np.array(list(product(range(MOST + 1), repeat=PANELS)))
_COUNTS = _COUNTS[(_COUNTS > 0).all(axis=1) | (_COUNTS.sum(axis=1) < PANELS)]
_HEIGHTS = np.array(list(product(range(1, TALLEST + 1), repeat=PANELS)))


def scene_of(boxes: NDArray[np.floating], categories: NDArray[np.integer], panels: NDArray[np.integer]) -> Scene:
    """Return the scene of an image's objects.

    Args:
        boxes: (objects, 4), pixels x1 y1 x2 y2 of the whole image.
        categories: (objects,), three times the colour plus the shape.
        panels: (objects,).
    """
    left = boxes[:, 0] - STRIDE * panels
    columns = (panels, left, boxes[:, 1], boxes[:, 2] - boxes[:, 0], categories // 3, categories % 3)
    return np.stack(columns, axis=1).astype(np.int16)


def is_tower(scene: Scene) -> bool:
    """Whether the scene is one tower of blocks in each box; else its objects are scattered."""
    return bool(((scene[:, SIZE] == 20) & (scene[:, SHAPE] == 0) & (scene[:, X] == TOWER_X)).all())


def rearrange(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene of the same objects (size, shape and colour of each) in other places, as NLVR's false images are.

    All are placed anew, or two objects trade places, or one moves.
    """
    return _rearrange_tower(scene, rng) if is_tower(scene) else _rearrange_scattered(scene, rng)


def permute_panels(scene: Scene, order: Sequence[int]) -> Scene:
    """Return the scene with box `order[k]` at place k."""
    place = np.argsort(order)
    return _with(scene, PANEL, place[scene[:, PANEL]])


def permute_colours(scene: Scene, colours: Sequence[int]) -> Scene:
    """Return the scene with colour k replaced by `colours[k]`."""
    return _with(scene, COLOUR, np.asarray(colours)[scene[:, COLOUR]])


def permute_shapes(scene: Scene, shapes: Sequence[int]) -> Scene:
    """Return the scene with shape k replaced by `shapes[k]`."""
    return _with(scene, SHAPE, np.asarray(shapes)[scene[:, SHAPE]])


def prototype_ids(scene: Scene) -> NDArray[np.int64]:
    """Return (objects,), 0..26: the kind of each object, by colour, shape and size.

    The feature of an object is a function of its kind: scenes need no pixels.
    """
    sizes = scene[:, SIZE].astype(np.int64) // 10 - 1
    return (scene[:, COLOUR] * 3 + scene[:, SHAPE]).astype(np.int64) * 3 + sizes


def look_up(prototypes: NDArray[np.float32], scene: Scene, image_id: str) -> NDArray[np.float32]:
    """Return (objects, feature), the feature of the kind of each object.

    Args:
        prototypes: (27, feature); what no image has shown is NaN.

    Raises:
        ValueError: if there is no feature for one of them.
    """
    features = prototypes[prototype_ids(scene)]
    unknown = np.flatnonzero(np.isnan(features).any(axis=1))
    if len(unknown):
        size, colour, shape = scene[unknown[0], SIZE:]
        raise MmptValueError(
            f"image {image_id!r} has a {COLOURS[colour]} {SHAPES[shape]} of {size} pixels, but none of the images "
            "that features were taken from shows one; expected every kind in the first 600 training images"
        )
    return features


def regions_of(scene: Scene, features: NDArray[np.float32], image_id: str | None = None) -> Regions:
    """Return the regions of a scene: its objects with these (objects, feature), then its three grey boxes.

    The grey boxes are taken as three images: the box of a region is a share of its own grey box, and its type is the
    number of that. The feature of a grey box is the sum of its objects', scaled: a mean would not tell how many there
    are.
    """
    low = scene[:, (X, Y)]
    boxes = np.concatenate([low, low + scene[:, SIZE : SIZE + 1]], axis=1).astype(np.float32) / SIDE
    panels = scene[:, PANEL].astype(np.int64)
    here = (panels[None] == np.arange(PANELS)[:, None]).astype(np.float32)  # (panels, objects)
    sums = SUM_SCALE * (here @ features)
    whole = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (PANELS, 1))
    return Regions(
        features=np.concatenate([features, sums]),
        boxes=np.concatenate([boxes, whole]),
        type_ids=np.concatenate([panels, np.arange(PANELS)]),
        width=SIDE,
        height=SIDE,
        image_id=image_id,
    )


def _with(scene: Scene, column: int, values: NDArray[np.integer]) -> Scene:
    changed = scene.copy()
    changed[:, column] = values
    return changed


def _rearrange_tower(scene: Scene, rng: np.random.Generator) -> Scene:
    count, draw = len(scene), rng.random()
    heights = np.bincount(scene[:, PANEL], minlength=PANELS)
    if draw < 0.5:
        heights = _draw_heights(count, rng)
        colours = rng.permutation(scene[:, COLOUR])
    else:
        colours = scene[np.lexsort((-scene[:, Y], scene[:, PANEL])), COLOUR]
        if draw < 0.75:
            one, other = rng.choice(count, size=2, replace=False) if count > 1 else (0, 0)
            colours[[one, other]] = colours[[other, one]]
        else:
            heights = _draw_heights(count, rng)
    level = np.concatenate([np.arange(height) for height in heights])
    moved = np.zeros_like(scene)
    moved[:, PANEL] = np.repeat(np.arange(PANELS), heights)
    moved[:, X], moved[:, Y] = TOWER_X, SIDE - 20 - TOWER_STEP * level
    moved[:, SIZE], moved[:, COLOUR] = 20, colours
    return moved


def _draw_heights(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    fitting = _HEIGHTS[_HEIGHTS.sum(axis=1) == count]
    return fitting[int(rng.integers(len(fitting)))]


def _rearrange_scattered(scene: Scene, rng: np.random.Generator) -> Scene:
    draw = rng.random()
    if draw < 0.2 and len(scene) > 1:
        return _trade(scene, rng)
    for _ in range(_ARRANGE_TRIES):
        moved = scene.copy()
        if draw < 0.5:
            chosen = [int(rng.integers(len(scene)))]
            moved[chosen, PANEL] = rng.integers(PANELS)
        else:
            counts = _draw_counts(len(scene), rng)
            moved[:, PANEL] = rng.permutation(np.repeat(np.arange(PANELS), counts))
            chosen = np.argsort(-moved[:, SIZE], kind="stable").tolist()  # the large ones first, while there is room
        if np.bincount(moved[:, PANEL], minlength=PANELS).max() <= MOST and _place(moved, chosen, rng):
            return moved
    return scene


def _trade(scene: Scene, rng: np.random.Generator) -> Scene:
    """Two objects of one size trade places; if there are none, two of any size trade boxes where there is room."""
    moved = scene.copy()
    for _ in range(_PLACE_TRIES):
        one, other = rng.choice(len(scene), size=2, replace=False)
        if scene[one, SIZE] == scene[other, SIZE]:
            moved[[one, other], :SIZE] = scene[[other, one], :SIZE]
            return moved
    return moved


def _draw_counts(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    fitting = _COUNTS[_COUNTS.sum(axis=1) == count]
    return fitting[int(rng.integers(len(fitting)))]


def _place(scene: Scene, chosen: list[int], rng: np.random.Generator) -> bool:
    """Give the chosen objects new places in their boxes, without overlap; False if one finds none."""
    taken: list[list[tuple[int, int, int]]] = [[] for _ in range(PANELS)]
    rows = scene.tolist()
    for index in set(range(len(rows))).difference(chosen):
        panel, left, top, size = rows[index][: SIZE + 1]
        taken[panel].append((left, top, size))
    for index in chosen:
        panel, size = rows[index][PANEL], rows[index][SIZE]
        draws = rng.random((_PLACE_TRIES, 4)).tolist()
        for across, down, snap_across, snap_down in draws:
            left = SIDE - size if snap_across < SNAP else int(across * (SIDE - size + 1))
            top = SIDE - size if snap_down < SNAP else int(down * (SIDE - size + 1))
            if all(left + size < x or x + s < left or top + size < y or y + s < top for x, y, s in taken[panel]):
                scene[index, X], scene[index, Y] = left, top
                taken[panel].append((left, top, size))
                break
        else:
            return False
    return True
