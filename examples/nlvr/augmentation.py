"""Changes of a sentence and its scene that keep the truth: boxes, colours and shapes are exchanged."""

import re
from difflib import get_close_matches
from functools import cache

import numpy as np

from examples.nlvr.scenes import (
    COLOURS,
    PANELS,
    SHAPES,
    Scene,
    is_tower,
    permute_colours,
    permute_panels,
    permute_shapes,
)

_SHAPE_WORDS = (*SHAPES, *(f"{shape}s" for shape in SHAPES))
_ORDINARY = ("block", "blocks")  # near to "black", and no misspelling of it
# Words that tell what a shape is called whatever its shape: "grey square" is a box, and a block is a square.
_FIXED_SHAPE = re.compile(r"\bgr[ea]y squares?\b|block|tower|rectangle", re.IGNORECASE)


def augment(text: str, scene: Scene, rng: np.random.Generator) -> tuple[str, Scene]:
    """Return text and scene changed in ways that keep the truth: boxes, colours and shapes exchanged.

    Colours are exchanged in scene and text alike, unless one is misspelt in the text. So are shapes, where objects are
    scattered and no word stands for one shape alone.
    """
    scene = permute_panels(scene, rng.permutation(PANELS).tolist())
    if not misspells(text, COLOURS):
        order = rng.permutation(len(COLOURS)).tolist()
        scene = permute_colours(scene, order)
        text = _exchange(text, dict(zip(COLOURS, (COLOURS[k] for k in order), strict=True)))
    if not (is_tower(scene) or _FIXED_SHAPE.search(text) or misspells(text, _SHAPE_WORDS)):
        order = rng.permutation(len(SHAPES)).tolist()
        scene = permute_shapes(scene, order)
        names = {old: SHAPES[k] for old, k in zip(SHAPES, order, strict=True)}
        text = _exchange(text, names | {f"{old}s": f"{new}s" for old, new in names.items()})
    return text, scene


def misspells(text: str, names: tuple[str, ...]) -> bool:
    """Whether a word of the text is nearly, but not quite, one of the names."""
    return any(_nearly(word, names) for word in set(re.findall("[a-z]+", text.lower())))


@cache
def _nearly(word: str, names: tuple[str, ...]) -> bool:
    if word in names or word in _ORDINARY:
        return False
    return any(name in word for name in names) or bool(get_close_matches(word, names, 1, 0.75))


def _exchange(text: str, names: dict[str, str]) -> str:
    """Exchange whole words; those that change are lower-case afterwards."""
    pattern = r"\b(" + "|".join(names) + r")\b"
    return re.sub(pattern, lambda found: names[found[0].lower()], text, flags=re.IGNORECASE)
