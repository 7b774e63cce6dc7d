"""Classification from independent hints in the text and in the image, which need not be read together."""

import numpy as np

from mmpt.processing.generated_scenes.groups import Group, draw_cells, draw_scene
from mmpt.processing.generated_scenes.scenes import COLOURS, SHAPES, compose_scene, pick

_HINT_RATE = 0.7  # probability that the text names the class, and, independently, that the image shows it
_OBJECTS = 3


def evidence_group(rng: np.random.Generator, number: int) -> Group:
    """Return one row per colour, the label being the colour of a collection.

    The text may name the colour, and the image may show objects of that colour only. The two hints are independent
    given the label, so predictions from each modality alone can be combined afterwards.
    """
    group = Group([], [])
    for label, colour in enumerate(COLOURS):
        text = f"a collection of {colour} things" if rng.random() < _HINT_RATE else "a collection of things"
        if rng.random() < _HINT_RATE:
            cells = draw_cells(rng, _OBJECTS)
            scene = compose_scene(rng, [(colour, pick(rng, SHAPES), cell) for cell in cells])
        else:
            scene = draw_scene(rng, _OBJECTS)
        group.rows.append(((len(group.scenes),), {"text": text, "label": label, "label_name": colour}))
        group.scenes.append(scene)
    return group
