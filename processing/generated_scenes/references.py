"""Texts that mean objects of generated scenes: expressions, captions with phrases, and captions of one scene only."""

import numpy as np

from mmpt.processing.generated_scenes.groups import Group, draw_cells, draw_scene, shuffled
from mmpt.processing.generated_scenes.scenes import ALL_COMPOSITIONS, COLOURS, SHAPES, compose_scene, pick
from mmpt.processing.generated_scenes.texts import Description, plan_caption, tell

EXPRESSIONS = (("colour",), ("shape",), ("colour", "shape"), ("shape", "row"), ("colour", "column"))
REFERENTS = 4  # objects of a scene, each of them meant once
PHRASES = 3  # of a caption
CAPTIONS = 3  # of a scene
CAPTION_OBJECTS = 3
_OPENERS = ("", "we see ")


def expression_group(rng: np.random.Generator, number: int) -> Group:
    """Mean each of the four objects of a scene once, by an expression that fits no other of them: 4 rows."""
    scene = draw_scene(rng, REFERENTS)
    while len({item.composition for item in scene.objects}) < REFERENTS:
        scene = draw_scene(rng, REFERENTS)
    group = Group([scene], [])
    for item, box in zip(scene.objects, scene.boxes.tolist(), strict=True):
        described = [Description(**{name: getattr(item, name) for name in names}) for names in EXPRESSIONS]
        fitting = [what for what in described if sum(what.fits(other) for other in scene.objects) == 1]
        group.rows.append(((0,), {"text": f"the {pick(rng, fitting).words()}", "box": box}))
    return group


def phrase_group(rng: np.random.Generator, number: int) -> Group:
    """Tell a scene three times, each of its three phrases once at each place of the caption: 3 rows.

    Each phrase means one object; for odd numbers, one of them means two that have a shape or a colour in common which
    no other object has.
    """
    objects, phrases = _drawn_phrases(rng, plural=number % 2 == 1)
    cells = draw_cells(rng, len(objects))
    scene = compose_scene(rng, [(*item, cell) for item, cell in zip(objects, cells, strict=True)])
    boxes = scene.boxes.tolist()
    phrases = shuffled(rng, phrases)
    group = Group([scene], [])
    for turn in range(PHRASES):
        text, told = pick(rng, _OPENERS), []
        for place in range(PHRASES):
            text += ("", " , ", " and ")[place]
            entity = (place + turn) % PHRASES
            words, meant = phrases[entity]
            start, text = len(text), text + words
            told.append(
                {
                    "text": words,
                    "start": start,
                    "end": len(text),
                    "entity_id": str(entity),
                    "types": ["object"],
                    "boxes": [boxes[index] for index in meant],
                }
            )
        group.rows.append(((0,), {"text": text, "phrases": told}))
    return group


def caption_group(rng: np.random.Generator, number: int) -> Group:
    """Write three captions of a scene of three objects, each naming the colour, shape and place of all: 3 rows.

    Scenes of as many objects that differ in these have no caption in common.
    """
    scene = draw_scene(rng, CAPTION_OBJECTS)
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < CAPTIONS:
        captions[tell(plan_caption(scene, rng), scene)] = None
    return Group([scene], [((0,), {"text": text}) for text in captions])


def _drawn_phrases(
    rng: np.random.Generator, plural: bool
) -> tuple[list[tuple[str, str]], list[tuple[str, tuple[int, ...]]]]:
    """Return the (colour, shape) of the objects, and of three phrases the words and which objects they mean."""
    objects = shuffled(rng, ALL_COMPOSITIONS)[:PHRASES]
    phrases = []
    if plural:
        if rng.random() < 0.5:
            shape = pick(rng, SHAPES)
            pair = [(colour, shape) for colour in shuffled(rng, COLOURS)[:2]]
            phrases.append((f"two {shape}s", (0, 1)))
            others = [item for item in ALL_COMPOSITIONS if item[1] != shape]
        else:
            colour = pick(rng, tuple(COLOURS))
            pair = [(colour, shape) for shape in shuffled(rng, SHAPES)[:2]]
            phrases.append((f"two {colour} objects", (0, 1)))
            others = [item for item in ALL_COMPOSITIONS if item[0] != colour]
        objects = pair + shuffled(rng, others)[: PHRASES - 1]
    for index in range(2 if plural else 0, len(objects)):
        colour, shape = objects[index]
        phrases.append((f"{pick(rng, ('a', 'one'))} {colour} {shape}", (index,)))
    return objects, phrases
