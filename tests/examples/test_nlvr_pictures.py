"""Pictures of NLVR's scenes: every object is where and what the scene says."""

import numpy as np
import pytest

from examples.nlvr.pictures import BOX, COLOUR_VALUES, PAGE, draw_scene

# panel, x, y, side, colour, shape
OBJECTS = [(0, 5, 60, 30, 0, 0), (1, 70, 0, 30, 1, 1), (2, 40, 79, 20, 2, 2)]


@pytest.mark.parametrize("item", OBJECTS)
def test_an_object_is_drawn_in_its_box(item: tuple[int, ...]) -> None:
    pixels = np.asarray(draw_scene(np.array([item], dtype=np.int16)))
    panel, x, y, side, colour, shape = item
    assert pixels.shape == (100, 400, 3)
    found = np.argwhere((pixels == COLOUR_VALUES[colour]).all(-1))
    top, left = found.min(0)
    bottom, right = found.max(0)
    assert (left, right + 1) == (150 * panel + x, 150 * panel + x + side)
    assert (top, bottom + 1) == pytest.approx((y, y + side), abs=1)
    share = len(found) / side**2
    assert share == pytest.approx((1.0, np.pi / 4, 0.5)[shape], abs=0.08)


def test_an_empty_scene_is_three_grey_boxes() -> None:
    pixels = np.asarray(draw_scene(np.zeros((0, 6), dtype=np.int16)))
    assert [tuple(pixels[50, x]) for x in (50, 125, 200, 275, 350)] == [BOX, PAGE, BOX, PAGE, BOX]
