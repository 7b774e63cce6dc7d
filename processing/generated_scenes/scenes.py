"""Scenes of shapes with known boxes and classes: sampling, rearranging and rendering."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmpt.configuration.errors import MmptValueError

T = TypeVar("T")
Composition = tuple[str, str]  # (colour, shape)

# No colour or size begins with a vowel, because "an" before a masked word would reveal it.
COLOURS = {
    "red": (205, 50, 45),
    "green": (60, 160, 70),
    "blue": (55, 85, 205),
    "yellow": (225, 205, 60),
    "purple": (130, 60, 165),
    "pink": (235, 135, 185),
}
SHAPES = ("circle", "square", "triangle", "star")
DIAMETERS = {"small": (16, 20), "large": (28, 32)}  # pixels, both ends included
SIZES = tuple(DIAMETERS)
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")
PLACES = tuple("center" if row == column else f"{row} {column}" for row, column in product(ROWS, COLUMNS))

CLASS_NAMES = tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))
ALL_COMPOSITIONS: tuple[Composition, ...] = tuple(product(COLOURS, SHAPES))
# Only three pairs: each one makes it easier to guess the shape from the colour without the image.
HELD_OUT_COMPOSITIONS: tuple[Composition, ...] = (("red", "star"), ("blue", "triangle"), ("yellow", "circle"))
TRAIN_COMPOSITIONS = tuple(pair for pair in ALL_COMPOSITIONS if pair not in HELD_OUT_COMPOSITIONS)

GRID = 3
CELL = 40  # pixels
IMAGE_SIZE = GRID * CELL
OBJECT_COUNTS = {2: 0.4, 3: 0.34, 4: 0.17, 5: 0.06, 6: 0.03}  # number of objects -> probability
BACKGROUND = (190, 190, 186)
PIXEL_NOISE = 9.0  # standard deviation, for values 0..255
TINT = 14  # largest deviation of an object's RGB values, 0..255, from its named colour
_SUPERSAMPLE = 2
_TRIES = 16


@dataclass(frozen=True)
class SceneObject:
    """A shape in a scene.

    Args:
        colour: key of `COLOURS`.
        shape: one of `SHAPES`.
        size: key of `DIAMETERS`.
        cell: index in the 3 x 3 grid in reading order; a cell has at most one object.
        left: left edge in pixels.
        top: top edge in pixels.
        diameter: width and height in pixels.
        tint: offset added to the red, green and blue of the colour.
    """

    colour: str
    shape: str
    size: str
    cell: int
    left: int
    top: int
    diameter: int
    tint: tuple[int, int, int]

    @property
    def class_id(self) -> int:
        """Index into `CLASS_NAMES`."""
        return tuple(COLOURS).index(self.colour) * len(SHAPES) + SHAPES.index(self.shape)

    @property
    def composition(self) -> Composition:
        """Colour and shape."""
        return self.colour, self.shape

    @property
    def place(self) -> str:
        """Name of the cell, such as "top left"."""
        return PLACES[self.cell]

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return self.cell // GRID

    @property
    def column(self) -> int:
        """0 left, 1 middle, 2 right."""
        return self.cell % GRID


@dataclass(frozen=True)
class Scene:
    """Objects in distinct cells.

    Args:
        noise_seed: seeds the pixel noise, so that rendering is a function of the scene.
    """

    objects: tuple[SceneObject, ...]
    noise_seed: int

    @property
    def layout(self) -> frozenset[tuple[str, str, str, int]]:
        """Attributes and cell of every object, which is all that a text can describe."""
        return frozenset((item.colour, item.shape, item.size, item.cell) for item in self.objects)

    @property
    def class_ids(self) -> NDArray[np.int64]:
        """(objects,), indices into `CLASS_NAMES`."""
        return np.asarray([item.class_id for item in self.objects], dtype=np.int64)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(objects, 4), tight pixel boxes x1 y1 x2 y2."""
        edges = [(o.left, o.top, o.left + o.diameter, o.top + o.diameter) for o in self.objects]
        return np.asarray(edges, dtype=np.float32)


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Draw one item uniformly."""
    return items[int(rng.integers(len(items)))]  # Generator.choice is ten times slower


def sample_scene(rng: np.random.Generator, compositions: Sequence[Composition]) -> Scene:
    """Draw 2 to 6 independent objects whose (colour, shape) are among `compositions`.

    Raises:
        ValueError: if `compositions` is empty.
    """
    if not compositions:
        raise MmptValueError("compositions is empty, expected at least one (colour, shape), such as TRAIN_COMPOSITIONS")
    chance = rng.random()
    count = next(
        n
        for n, bound in zip(OBJECT_COUNTS, accumulate(OBJECT_COUNTS.values()), strict=True)
        if chance < bound or n == 6
    )
    cells = rng.permutation(GRID * GRID)[:count]
    objects = []
    for cell in cells:
        colour, shape = pick(rng, compositions)
        objects.append(_place(rng, colour, shape, pick(rng, SIZES), int(cell)))
    return Scene(tuple(objects), _noise_seed(rng))


def compose_scene(rng: np.random.Generator, objects: Sequence[tuple[str, str, int]]) -> Scene:
    """Return a scene of the given (colour, shape, cell), with random sizes and positions within the cells."""
    placed = [_place(rng, colour, shape, pick(rng, SIZES), cell) for colour, shape, cell in objects]
    return Scene(tuple(placed), _noise_seed(rng))


def rearrange(scene: Scene, rng: np.random.Generator, compositions: Sequence[Composition]) -> Scene:
    """Return a different scene with the same colours, shapes and sizes.

    Either the objects move to other cells, or one attribute is permuted among them within `compositions`.
    """
    objects = scene.objects
    mode = pick(rng, ("places", "colour", "shape"))
    for _ in range(_TRIES):
        if mode == "places":
            break
        order = rng.permutation(len(objects))
        permuted = [replace(item, **{mode: getattr(objects[k], mode)}) for item, k in zip(objects, order, strict=True)]
        if all(item.composition in compositions for item in permuted):
            moved = [_place(rng, o.colour, o.shape, o.size, o.cell) for o in permuted]
            if (candidate := Scene(tuple(moved), _noise_seed(rng))).layout != scene.layout:
                return candidate
    while True:  # nine cells for at most six objects: another arrangement exists
        cells = rng.permutation(GRID * GRID)[: len(objects)]
        moved = [_place(rng, o.colour, o.shape, o.size, int(cell)) for o, cell in zip(objects, cells, strict=True)]
        if (candidate := Scene(tuple(moved), _noise_seed(rng))).layout != scene.layout:
            return candidate


def change_attribute(scene: Scene, rng: np.random.Generator, compositions: Sequence[Composition]) -> Scene:
    """Return the scene with the colour, shape or size of one object changed, within `compositions`.

    The objects keep their order.
    """
    index = int(rng.integers(len(scene.objects)))
    old = scene.objects[index]
    colours = [c for c, s in compositions if s == old.shape and c != old.colour]
    shapes = [s for c, s in compositions if c == old.colour and s != old.shape]
    options = [("size", [size for size in SIZES if size != old.size])]
    options += [(name, words) for name, words in (("colour", colours), ("shape", shapes)) if words]
    name, words = pick(rng, options)
    changed = replace(old, **{name: pick(rng, words)})
    new = _place(rng, changed.colour, changed.shape, changed.size, changed.cell)
    return Scene((*scene.objects[:index], new, *scene.objects[index + 1 :]), _noise_seed(rng))


def swap_attributes(
    scene: Scene, rng: np.random.Generator, compositions: Sequence[Composition], touching: Sequence[int]
) -> Scene | None:
    """Return the scene with the colours or shapes of two objects swapped, or None if no swap is possible.

    At least one of the two is in `touching`. The objects keep their order and places. The two differ in both colour
    and shape, so that a swap gives new pairs: red star and blue circle become blue star and red circle.
    """
    objects = scene.objects
    swaps = []
    for first in range(len(objects)):
        for second in range(first + 1, len(objects)):
            one, two = objects[first], objects[second]
            if one.colour == two.colour or one.shape == two.shape:
                continue
            if first not in touching and second not in touching:
                continue
            exchanged = (two.colour, one.shape), (one.colour, two.shape)
            if not all(composition in compositions for composition in exchanged):
                continue
            for name in ("colour", "shape"):
                new = replace(one, **{name: getattr(two, name)}), replace(two, **{name: getattr(one, name)})
                swaps.append((first, second, new))
    if not swaps:
        return None
    first, second, new = pick(rng, swaps)
    changed = list(objects)
    changed[first], changed[second] = new
    return Scene(tuple(changed), _noise_seed(rng))


def render(scene: Scene) -> Image.Image:
    """Draw the scene as a square RGB image with its pixel noise."""
    side = IMAGE_SIZE * _SUPERSAMPLE
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for item in scene.objects:
        fill = tuple(min(255, max(0, c + t)) for c, t in zip(COLOURS[item.colour], item.tint, strict=True))
        left, top = item.left * _SUPERSAMPLE, item.top * _SUPERSAMPLE
        extent = item.diameter * _SUPERSAMPLE - 1  # Pillow draws both ends
        if item.shape == "circle":
            draw.ellipse((left, top, left + extent, top + extent), fill=fill)
        else:
            draw.polygon([(left + x * extent, top + y * extent) for x, y in _OUTLINES[item.shape]], fill=fill)
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32)
    noise = np.random.default_rng(scene.noise_seed).standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels + PIXEL_NOISE * noise, 0, 255).astype(np.uint8))


def _place(rng: np.random.Generator, colour: str, shape: str, size: str, cell: int) -> SceneObject:
    low, high = DIAMETERS[size]
    diameter = int(rng.integers(low, high + 1))
    left, top = (int(n) for n in rng.integers(2, CELL - diameter - 1, size=2))  # two pixels from the cell's border
    red, green, blue = (int(n) for n in rng.integers(-TINT, TINT + 1, size=3))
    row, column = divmod(cell, GRID)
    return SceneObject(colour, shape, size, cell, column * CELL + left, row * CELL + top, diameter, (red, green, blue))


def _noise_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**62))


def _star() -> list[tuple[float, float]]:
    """Return a five-pointed star stretched to fill the unit square, so that its box is as tight as the others'."""
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    return [(float(x), float(y)) for x, y in points]


_OUTLINES = {
    "square": [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "star": _star(),
}
