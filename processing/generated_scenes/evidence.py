"""Hints at a class from a text and from an image that need not be read together."""

import numpy as np

from mmpt.processing.generated_scenes.groups import Group, draw_cells, draw_scene
from mmpt.processing.generated_scenes.scenes import COLOURS, SHAPES, compose_scene, pick

_TOLD = 0.7  # chance that a text names the class, and that an image shows it, independently
_OBJECTS = 3


def evidence_group(rng: np.random.Generator, number: int) -> Group:
    """Tell the colour of a collection: one row a colour.

    The text names the colour or says nothing of it; the image shows objects of that colour, or of any. Each is a hint
    of its own: what one says does not depend on the other, so decisions can be made apart and combined.
    """
    group = Group([], [])
    for label, colour in enumerate(COLOURS):
        text = f"a collection of {colour} things" if rng.random() < _TOLD else "a collection of things"
        if rng.random() < _TOLD:
            cells = draw_cells(rng, _OBJECTS)
            scene = compose_scene(rng, [(colour, pick(rng, SHAPES), cell) for cell in cells])
        else:
            scene = draw_scene(rng, _OBJECTS)
        group.rows.append(((len(group.scenes),), {"text": text, "label": label, "label_name": colour}))
        group.scenes.append(scene)
    return group
