"""Questions about generated scenes, with free answers and with choices.

The scenes of a group are rotations of each other: from one to the next, every object takes the next colour and place.
Over all of them, each answer to a question is equally frequent.
"""

from typing import Any

import numpy as np

from mmpt.processing.generated_scenes.groups import CELLS, Group, draw_cells, shuffled
from mmpt.processing.generated_scenes.scenes import COLOURS, GRID, PLACES, SHAPES, Scene, compose_scene, pick

COUNTS = ("zero", "one", "two")
ANSWERS = (*COLOURS, *SHAPES, *PLACES, *COUNTS)
COLOUR_OF = "what colour is the {}"
SHAPE_OF = "what shape is the {} object"
PLACE_OF = "where is the {}"
SHAPES_COUNTED = "how many {}s are there"
COLOURS_COUNTED = "how many {} objects are there"
CHOICES = len(SHAPES)


def question_group(rng: np.random.Generator, number: int) -> Group:
    """Return 54 rows: colours, shapes and places in six scenes, counts in three; every scene has four objects.

    A group uses six of the nine places. Over three groups, with numbers 3 n to 3 n + 2, each place is equally often
    the answer.
    """
    scenes, rows = _turned_scenes(rng, number)
    counted, counts = _counted_scenes(rng)
    rows += [(index + len(scenes), question, answer) for index, question, answer in counts]
    return Group(scenes + counted, [((index,), _answered(question, answer)) for index, question, answer in rows])


def choice_group(rng: np.random.Generator, number: int) -> Group:
    """Return 16 rows about the colour, shape or place (by `number`) of two objects in each of four scenes.

    A scene shows two of the four choices, so a model can learn first to find these two, and then which one is right.
    Each question occurs with two orders of the choices, so that within a scene every index is the right one once.
    """
    kind = ("colour", "shape", "place")[number % 3]
    hues, shapes, cells = shuffled(rng, COLOURS), shuffled(rng, SHAPES), draw_cells(rng, CELLS)
    values = {"colour": hues, "shape": shapes, "place": cells}[kind][:CHOICES]
    choices = [PLACES[value] for value in cells[:CHOICES]] if kind == "place" else [str(value) for value in values]
    orders = choices, choices[2:] + choices[:2]
    step = pick(rng, (1, 3))  # odd, so that no index is right in both orders
    group = Group([], [])
    for turn in range(CHOICES):
        right = turn, (turn + step) % CHOICES
        objects = []
        for index in range(CHOICES):  # two objects of questions, two others
            hue, shape, cell = pick(rng, hues[CHOICES:]), shapes[index], cells[CHOICES + index]
            if kind == "colour" and index < 2:
                hue = hues[right[index]]
            elif kind == "shape":
                hue, shape = hues[index], shapes[right[index % 2]]
            elif kind == "place" and index < 2:
                cell = cells[right[index]]
            objects.append((hue, shape, cell))
        group.scenes.append(compose_scene(rng, objects))
        for place, (hue, shape, _) in zip(right, objects, strict=False):
            subject = hue if kind == "shape" else shape
            question = {"colour": COLOUR_OF, "shape": SHAPE_OF, "place": PLACE_OF}[kind].format(subject)
            for order in orders:
                columns = {"text": question, "choices": order, "label": order.index(choices[place])}
                group.rows.append(((turn,), columns))
    return group


def _turned_scenes(rng: np.random.Generator, number: int) -> tuple[list[Scene], list[tuple[int, str, str]]]:
    """Return six scenes with one object of each shape, and 36 tuples (scene, question, answer)."""
    hues, shapes = shuffled(rng, COLOURS), shuffled(rng, SHAPES)
    turns = len(hues)
    located = {
        SHAPES[(number // GRID + step) % len(SHAPES)] for step in range(2)
    }  # the same in three consecutive groups, while the cells rotate
    cells = shuffled(rng, [cell for cell in range(CELLS) if (cell // GRID + cell) % GRID != number % GRID])
    offsets = rng.permutation(turns)
    scenes, rows = [], []
    for turn in range(turns):
        objects = [
            (hues[(index + turn) % turns], shape, cells[(offsets[index] + turn) % turns])
            for index, shape in enumerate(shapes)
        ]
        scenes.append(compose_scene(rng, objects))
        for colour, shape, cell in objects:
            if shape in located:
                rows.append((turn, PLACE_OF.format(shape), PLACES[cell]))
            else:
                rows.append((turn, COLOUR_OF.format(shape), colour))
            if colour in hues[:3]:  # four of the six scenes have the colour, each on another shape
                rows.append((turn, SHAPE_OF.format(colour), shape))
    return scenes, rows


def _counted_scenes(rng: np.random.Generator) -> tuple[list[Scene], list[tuple[int, str, str]]]:
    """Return three scenes with zero, one and two objects of three shapes and three colours, and 18 questions."""
    hues, shapes = shuffled(rng, COLOURS), shuffled(rng, SHAPES)
    scenes, rows = [], []
    for turn in range(len(COUNTS)):
        counts = [(index + turn) % len(COUNTS) for index in range(len(COUNTS))]
        object_shapes = [s for s, count in zip(shapes, counts, strict=False) for _ in range(count)] + [shapes[3]]
        object_hues = [hue for hue, count in zip(hues, counts, strict=False) for _ in range(count)] + [hues[3]]
        cells = draw_cells(rng, len(object_shapes))
        scenes.append(compose_scene(rng, list(zip(shuffled(rng, object_hues), object_shapes, cells, strict=True))))
        for hue, shape, count in zip(hues, shapes, counts, strict=False):
            rows.append((turn, SHAPES_COUNTED.format(shape), COUNTS[count]))
            rows.append((turn, COLOURS_COUNTED.format(hue), COUNTS[count]))
    return scenes, rows


def _answered(question: str, answer: str) -> dict[str, Any]:
    return {"text": question, "answers": [answer], "answer_scores": [1.0]}
