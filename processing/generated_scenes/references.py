"""Texts that refer to objects of generated scenes: referring expressions, phrases in captions, unique captions."""

import numpy as np

from mmpt.processing.generated_scenes.groups import Group, draw_cells, draw_scene, shuffled
from mmpt.processing.generated_scenes.scenes import ALL_COMPOSITIONS, COLOURS, SHAPES, compose_scene, pick
from mmpt.processing.generated_scenes.texts import Description, plan_caption, write_caption

EXPRESSIONS = (("colour",), ("shape",), ("colour", "shape"), ("shape", "row"), ("colour", "column"))
REFERENTS = 4  # objects per scene; there is one expression for each
PHRASES = 3  # per caption
CAPTIONS = 3  # per scene
CAPTION_OBJECTS = 3
_OPENERS = ("", "we see ")


def expression_group(rng: np.random.Generator, number: int) -> Group:
    """Return 4 rows, one unambiguous referring expression for each of the four objects of a scene."""
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
    """Return 3 rows, captions of one scene with the same three phrases, each phrase once at each position.

    Each phrase refers to one object. For odd `number`, one phrase refers to two objects with a shape or colour in
    common that no other object has.
    """
    objects, phrases = _drawn_phrases(rng, plural=number % 2 == 1)
    cells = draw_cells(rng, len(objects))
    scene = compose_scene(rng, [(*item, cell) for item, cell in zip(objects, cells, strict=True)])
    boxes = scene.boxes.tolist()
    phrases = shuffled(rng, phrases)
    group = Group([scene], [])
    for turn in range(PHRASES):
        text, columns = pick(rng, _OPENERS), []
        for position in range(PHRASES):
            text += ("", " , ", " and ")[position]
            entity = (position + turn) % PHRASES
            words, referents = phrases[entity]
            start, text = len(text), text + words
            columns.append(
                {
                    "text": words,
                    "start": start,
                    "end": len(text),
                    "entity_id": str(entity),
                    "types": ["object"],
                    "boxes": [boxes[index] for index in referents],
                }
            )
        group.rows.append(((0,), {"text": text, "phrases": columns}))
    return group


def caption_group(rng: np.random.Generator, number: int) -> Group:
    """Return 3 rows, captions of one scene that name colour, shape and place of all its three objects.

    Two scenes that differ in these attributes have no caption in common.
    """
    scene = draw_scene(rng, CAPTION_OBJECTS)
    captions: dict[str, None] = {}  # a set that keeps its order
    while len(captions) < CAPTIONS:
        captions[write_caption(plan_caption(scene, rng), scene)] = None
    return Group([scene], [((0,), {"text": text}) for text in captions])


def _drawn_phrases(
    rng: np.random.Generator, plural: bool
) -> tuple[list[tuple[str, str]], list[tuple[str, tuple[int, ...]]]]:
    """Return (colour, shape) of the objects, and (words, indices of the objects) of three phrases."""
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
