"""Box features and the classifier of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmpt.processing.generated_scenes.box_features import FEATURE_DIM, RegionClassifier, box_features


def half_and_half() -> Image.Image:
    pixels = np.zeros((24, 36, 3), dtype=np.uint8)
    pixels[:, :18] = (255, 0, 0)
    pixels[:, 18:] = (128, 128, 128)
    return Image.fromarray(pixels)


def test_features_hold_cells_silhouette_mean_spread_and_sides():
    (row,) = box_features(half_and_half(), np.array([[6, 0, 30, 24]]))
    assert row.shape == (FEATURE_DIM,)
    assert row.dtype == np.float32
    red, grey = np.array([1.0, -1.0, -1.0]), np.full(3, 128 / 127.5 - 1)
    cells = np.stack([red] * 3 + [grey] * 3)
    np.testing.assert_allclose(row[:108].reshape(6, 6, 3), np.stack([cells] * 6), atol=1e-6)
    np.testing.assert_allclose(row[108:144].reshape(6, 6), [[1, 1, 1, -1, -1, -1]] * 6, atol=1e-6)
    np.testing.assert_allclose(row[144:147], (red + grey) / 2, atol=1e-6)
    np.testing.assert_allclose(row[147:150], np.abs(red - grey), atol=1e-6)
    np.testing.assert_allclose(row[150:], [24 / 8 - 3, 24 / 8 - 3], atol=1e-6)


def test_silhouette_does_not_depend_on_the_colour_and_grey_has_none():
    def silhouette(colour: tuple[int, int, int]) -> np.ndarray:
        pixels = np.full((24, 24, 3), 128, dtype=np.uint8)
        pixels[:, :12] = colour
        return box_features(Image.fromarray(pixels), np.array([[0, 0, 24, 24]]))[0, 108:144]

    np.testing.assert_allclose(silhouette((255, 0, 0)), silhouette((90, 140, 120)), atol=1e-6)
    np.testing.assert_allclose(silhouette((60, 60, 60)), -1.0, atol=1e-6)


def test_cells_agree_with_block_means():
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 40, 3), dtype=np.uint8)
    (row,) = box_features(Image.fromarray(pixels), np.array([[3, 5, 27, 35]]))
    blocks = pixels[5:35, 3:27].reshape(6, 5, 6, 4, 3).mean(axis=(1, 3)) / 127.5 - 1
    np.testing.assert_allclose(row[:108].reshape(6, 6, 3), blocks, atol=0.006)  # Pillow rounds to whole grey levels


def test_grey_and_palette_images_and_no_boxes_work():
    for mode in ("L", "P", "RGBA"):
        assert box_features(half_and_half().convert(mode), np.array([[0, 0, 10.5, 9.5]])).shape == (1, FEATURE_DIM)
    assert box_features(half_and_half(), np.zeros((0, 4))).shape == (0, FEATURE_DIM)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 0, 5, 9], [-1, 0, 5, 5], [0, 0, 37, 5], [0, 0, 5, float("nan")]])
def test_empty_or_outside_box_is_an_error(box):
    with pytest.raises(ValueError, match=r"box 1 is .*expected pixels x1 < x2 <= 36, y1 < y2 <= 24 \(1 of 2"):
        box_features(half_and_half(), np.array([[0, 0, 5, 5], box]))


def test_classifier_separates_classes_and_stays_soft():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = rng.normal(size=(300, 5)) * 0.3 + np.eye(3, 5)[labels]
    probs = RegionClassifier.fit(features[:150], labels[:150], 3).probs(features[150:])
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-6)
    assert (probs.argmax(axis=1) == labels[150:]).mean() > 0.9
    assert probs.max(axis=1).mean() < 0.99


def test_classifier_probabilities_are_the_softmax_of_a_linear_map():
    rng = np.random.default_rng(1)
    weight, bias, features = rng.normal(size=(4, 3)), rng.normal(size=3), 100 * rng.normal(size=(6, 4))
    expected = torch.softmax(torch.from_numpy(features @ weight + bias), dim=1).float().numpy()
    np.testing.assert_allclose(RegionClassifier(weight, bias).probs(features), expected, atol=1e-6)


def test_class_without_a_region_is_an_error():
    with pytest.raises(ValueError, match=r"classes \[1, 3\] have no region \(2 of 4\), expected at least one each"):
        RegionClassifier.fit(np.ones((2, 3)), np.array([0, 2]), 4)
