"""Regions agree with themselves, and boxes are what they are said to be."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processing.regions import Regions, boxes_from_pixels, check_boxes
from tests.factories.examples import random_regions

ONE_BOX = np.array([[0.1, 0.2, 0.5, 0.6]], dtype=np.float32)


def test_regions_count_and_measure_themselves() -> None:
    regions = Regions(np.zeros((3, 7), dtype=np.float16), [[0, 0, 1, 1]] * 3)
    assert (len(regions), regions.feature_dim) == (3, 7)
    assert regions.features.dtype == np.float16
    assert regions.boxes.dtype == np.float32


def test_an_image_may_have_no_regions() -> None:
    regions = Regions(np.zeros((0, 7)), [])
    assert len(regions) == 0
    assert regions.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("features", np.zeros(3), r"features have shape \(3,\), expected \(regions, feature\)"),
        ("boxes", np.zeros((2, 5)), r"boxes has shape \(2, 5\), expected \(2, 4\) beside 2 rows of features"),
        ("boxes", np.zeros((3, 4)), r"boxes has shape \(3, 4\), expected \(2, 4\)"),
        ("class_probs", np.zeros((3, 5)), r"class_probs has shape \(3, 5\), expected \(2, any\)"),
        ("class_probs", np.zeros(2), r"class_probs has shape \(2,\), expected \(2, any\)"),
        ("labels", np.zeros((2, 1)), r"labels has shape \(2, 1\), expected \(2\)"),
        ("scores", [0.5], r"scores has shape \(1,\), expected \(2\)"),
        ("attribute_labels", [1, 2, 3], r"attribute_labels has shape \(3,\)"),
        ("attribute_scores", [1.0], r"attribute_scores has shape \(1,\)"),
        ("type_ids", [1, 2, 3], r"type_ids has shape \(3,\)"),
    ],
)
def test_a_field_of_another_shape_is_refused_by_name(field: str, value: Any, message: str) -> None:
    values = {"features": np.zeros((2, 3)), "boxes": np.zeros((2, 4))} | {field: value}
    with pytest.raises(ValueError, match=message):
        Regions(**values)
    with pytest.raises(ValueError, match=f"regions of image 'cat-7': {field}"):
        Regions(**values, image_id="cat-7")


def test_select_takes_the_rows_of_every_array_and_keeps_the_rest() -> None:
    regions = random_regions(4, image_id="x", type_ids=np.array([5, 6, 7, 8]), width=30, height=20)
    for keep in (np.array([2, 0]), np.array([True, False, True, False])):
        chosen = regions.select(keep)
        for name in ("features", "boxes", "class_probs", "labels", "scores", "attribute_labels", "type_ids"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(regions, name)[keep])
        assert (chosen.image_id, chosen.width, chosen.height) == ("x", 30, 20)


def test_pixels_become_shares_of_width_and_height() -> None:
    regions = Regions.from_pixels(np.zeros((1, 2)), [[20, 10, 100, 50]], width=200, height=50, image_id="x")
    np.testing.assert_allclose(regions.boxes, [[0.1, 0.2, 0.5, 1.0]], rtol=1e-6)
    assert (regions.width, regions.height, regions.image_id) == (200, 50, "x")


@pytest.mark.parametrize(
    ("boxes", "size", "message"),
    [
        (ONE_BOX, (200, 100), "largest coordinate is 0.6: they look normalised already.*box_format='normalized'"),
        (ONE_BOX, (0, 100), "image size is 0 x 100, expected positive width and height"),
        ([[0, 0, 210, 50]], (200, 100), "from 0 to 1.05, expected 0..1.*width and height those of the image"),
        ([[50, 0, 20, 50]], (200, 100), "box 0 is inverted.*order x1 y1 x2 y2, not x y width height"),
        ([[0, 0, np.nan, 50]], (200, 100), "a coordinate is NaN or infinite"),
        ([[0, 0, 10, 50, 1]], (200, 100), r"boxes have shape \(1, 5\), expected \(regions, 4\)"),
        ([0, 0, 10, 50], (200, 100), r"boxes have shape \(4,\), expected \(regions, 4\)"),
    ],
)
def test_wrong_pixel_boxes_are_refused(boxes: Any, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boxes_from_pixels(np.asarray(boxes, dtype=np.float32), *size)


def test_no_boxes_are_fine_in_either_format() -> None:
    assert boxes_from_pixels(np.zeros(0, dtype=np.float32), 20, 10).shape == (0, 4)
    assert check_boxes(np.zeros((0, 4), dtype=np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, 640, 480], "mine: the largest coordinate is 640, .*looks like pixels.*box_format='pixel'"),
        ([0, 0, np.inf, 1], "mine: a coordinate is NaN or infinite"),
        ([0, 0, 1.02, 1], "mine: coordinates run from 0 to 1.02, expected 0..1"),
        ([-0.02, 0, 1, 1], "mine: coordinates run from -0.02 to 1, expected 0..1"),
        ([0, 0.6, 1, 0.5], r"mine: box 1 is inverted .*1 of 2\), expected x1 <= x2 and y1 <= y2"),
    ],
)
def test_wrong_boxes_are_refused(box: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_boxes(np.array([[0, 0, 1, 1], box], dtype=np.float32), "mine")


def test_boxes_up_to_one_per_cent_outside_are_clamped() -> None:
    boxes = np.array([[-0.009, 0.5, 0.7, 1.009]], dtype=np.float32)
    np.testing.assert_array_equal(check_boxes(boxes), np.array([[0, 0.5, 0.7, 1]], dtype=np.float32))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(3, 4000), height=st.integers(3, 4000))
def test_pixels_and_back_are_the_same_boxes(seed: int, width: int, height: int) -> None:
    size = np.array([width, height, width, height])
    corners = np.sort(np.random.default_rng(seed).integers(0, [width, height], (5, 2, 2), endpoint=True), axis=1)
    pixels = np.concatenate([corners.reshape(5, 4), [[0, 0, width, height]]]).astype(np.float32)
    np.testing.assert_allclose(boxes_from_pixels(pixels, width, height) * size, pixels, atol=1e-3)


def test_regions_survive_pickling() -> None:
    regions = random_regions(3, image_id="x")
    copy = pickle.loads(pickle.dumps(regions))
    np.testing.assert_array_equal(copy.features, regions.features)
    assert copy.image_id == "x"
