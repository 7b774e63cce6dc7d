"""Regions of any accepted form become the same padded, checked arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoImageProcessor

from mmpt.processing.image_processing_mmpt import MmptImageProcessor, set_whole_image_feature
from mmpt.processing.regions import Regions
from tests.factories.examples import FEATURE, random_regions

WHOLE = [0.0, 0.0, 1.0, 1.0]
NAMES = {"region_features", "region_boxes", "region_attention_mask"}


def as_dict(regions: Regions, **fields: Any) -> dict[str, Any]:
    return {"features": regions.features, "boxes": regions.boxes} | fields


def test_ragged_images_are_padded_with_zeros_behind_their_regions() -> None:
    images = [random_regions(3, 1), random_regions(1, 2)]
    batch = MmptImageProcessor()(images)
    assert set(batch) == NAMES
    assert batch["region_features"].shape == (2, 3, FEATURE)
    assert batch["region_attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    for row, image in enumerate(images):
        np.testing.assert_array_equal(batch["region_features"][row, : len(image)], image.features)
        np.testing.assert_array_equal(batch["region_boxes"][row, : len(image)], image.boxes)
    assert not batch["region_features"][1, 1:].any()
    assert not batch["region_boxes"][1, 1:].any()


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: [image],
        as_dict,
        lambda image: [as_dict(image)],
        lambda image: as_dict(image, labels=None, scores=None),
        lambda image: {"features": image.features.tolist(), "boxes": image.boxes.tolist()},
        lambda image: {"features": torch.tensor(image.features), "boxes": torch.tensor(image.boxes)},
        lambda image: (image.features, image.boxes),
        lambda image: [(image.features, image.boxes)],
        lambda image: (torch.tensor(image.features), image.boxes.tolist()),
    ],
)
def test_an_image_in_any_form_gives_the_same_batch(convert: Any) -> None:
    image = random_regions(3)
    expected, found = MmptImageProcessor()(image), MmptImageProcessor()(convert(image))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    "images",
    [
        np.ones((3, FEATURE), dtype=np.float16),
        np.ones((1, 3, FEATURE)),
        torch.ones(3, FEATURE),
        torch.ones(1, 3, FEATURE),
        [np.ones((3, FEATURE), dtype=np.int64)],
        [[[1.0] * FEATURE] * 3],
    ],
)
def test_features_alone_get_the_whole_image_as_their_box(images: Any) -> None:
    batch = MmptImageProcessor()(images, return_tensors="np")
    assert batch["region_features"].dtype == np.float32
    np.testing.assert_array_equal(batch["region_features"], np.ones((1, 3, FEATURE)))
    np.testing.assert_array_equal(batch["region_boxes"], [[WHOLE] * 3])


def test_a_tuple_of_two_images_is_two_images() -> None:
    images = (random_regions(2), random_regions(1))
    assert MmptImageProcessor()(images)["region_features"].shape == (2, 2, FEATURE)
    assert MmptImageProcessor()(tuple(map(as_dict, images)))["region_features"].shape == (2, 2, FEATURE)


def test_an_image_without_regions_gets_one_that_covers_it() -> None:
    empty = Regions(np.zeros((0, FEATURE)), [])
    batch = MmptImageProcessor()([empty, random_regions(2), {"features": [], "boxes": []}])
    assert batch["region_attention_mask"].tolist() == [[1, 0], [1, 1], [1, 0]]
    for row in (0, 2):
        assert batch["region_boxes"][row].tolist() == [WHOLE, [0.0] * 4]
        assert not batch["region_features"][row].any()


@pytest.mark.parametrize(("tensor_type", "kind"), [("pt", torch.Tensor), ("np", np.ndarray)])
def test_tensors_are_of_the_kind_asked_for(tensor_type: str, kind: type) -> None:
    batch = MmptImageProcessor()(random_regions(2), return_tensors=tensor_type)
    assert all(isinstance(value, kind) for value in batch.values())


def test_float16_features_come_out_as_float32() -> None:
    image = random_regions(3)
    half = Regions(image.features.astype(np.float16), image.boxes)
    half.features.flags.writeable = False  # as those of a store are
    batch = MmptImageProcessor()(half)
    assert batch["region_features"].dtype == np.float32
    np.testing.assert_array_equal(batch["region_features"][0], half.features.astype(np.float32))


def test_pixel_boxes_are_divided_by_width_and_height() -> None:
    image = {"features": np.ones((1, 2)), "boxes": [[20, 10, 100, 50]], "width": 200, "height": 50}
    expected = np.array([[[0.1, 0.2, 0.5, 1.0]]], dtype=np.float32)
    np.testing.assert_allclose(MmptImageProcessor()(image, box_format="pixel")["region_boxes"], expected)
    np.testing.assert_allclose(MmptImageProcessor(box_format="pixel")(image)["region_boxes"], expected)


def test_regions_are_normalised_whatever_the_box_format() -> None:
    image = random_regions(2)
    np.testing.assert_array_equal(MmptImageProcessor(box_format="pixel")(image)["region_boxes"][0], image.boxes)


def test_type_ids_are_padded_with_zero() -> None:
    batch = MmptImageProcessor()([random_regions(2, type_ids=np.array([1, 2])), random_regions(3)])
    assert batch["region_type_ids"].tolist() == [[1, 2, 0], [0, 0, 0]]


def test_the_best_regions_are_kept_in_their_old_order() -> None:
    image = random_regions(4, scores=np.array([0.2, 0.9, 0.1, 0.8]), type_ids=np.arange(4))
    batch = MmptImageProcessor(max_regions=2)(image)
    np.testing.assert_array_equal(batch["region_features"][0], image.features[[1, 3]])
    assert batch["region_type_ids"].tolist() == [[1, 3]]
    assert MmptImageProcessor(max_regions=2)(image, max_regions=3)["region_type_ids"].tolist() == [[0, 1, 3]]


def test_without_scores_the_surest_class_decides_and_without_classes_the_order() -> None:
    probs = np.array([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]])
    image = random_regions(3, scores=None, class_probs=probs, type_ids=np.arange(3))
    assert MmptImageProcessor()(image, max_regions=2)["region_type_ids"].tolist() == [[1, 2]]
    image = random_regions(3, scores=None, class_probs=None, type_ids=np.arange(3))
    assert MmptImageProcessor()(image, max_regions=2)["region_type_ids"].tolist() == [[0, 1]]


def test_the_whole_image_region_stands_in_front_with_the_mean_feature() -> None:
    images = [random_regions(3, 1), random_regions(1, 2), random_regions(0)]
    plain, batch = MmptImageProcessor()(images), MmptImageProcessor(whole_image_region=True)(images)
    assert batch["region_attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert batch["region_boxes"][:, 0].tolist() == [WHOLE] * 3
    np.testing.assert_array_equal(batch["region_features"][:2, 1:], plain["region_features"][:2])
    for row in (0, 1):
        np.testing.assert_allclose(batch["region_features"][row, 0], images[row].features.mean(0), rtol=1e-6)
    assert not batch["region_features"][2].any()


def test_pad_says_where_the_detected_regions_are() -> None:
    records = [random_regions(2), random_regions(0)]
    assert MmptImageProcessor().pad(records)[1].tolist() == [[True, True], [False, False]]
    assert MmptImageProcessor().pad(records, True)[1].tolist() == [[False, True, True], [False, False, False]]


def test_pad_takes_the_width_from_the_call_where_no_image_has_regions() -> None:
    records = MmptImageProcessor().records([{"features": [], "boxes": []}] * 2)
    assert MmptImageProcessor().pad(records, feature_dim=9)[0]["region_features"].shape == (2, 1, 9)


def test_the_whole_image_feature_is_the_mean_of_what_is_seen() -> None:
    features = torch.tensor([[[9.0], [1.0], [3.0], [5.0]], [[9.0], [1.0], [3.0], [5.0]]])
    set_whole_image_feature(features, torch.tensor([[True, True, False, True], [True, False, False, False]]))
    assert features[..., 0].tolist() == [[3.0, 1.0, 3.0, 5.0], [0.0, 1.0, 3.0, 5.0]]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("cat.jpg", "got str for the regions, expected Regions, a dict"),
        (7, "got int for the regions"),
        ([], "got an empty list of images"),
        ([7], "got int for the regions of an image, expected Regions, a dict or an array"),
        (np.ones(3), r"shape \(3,\), expected \(regions, feature\) or \(images, regions, feature\)"),
        ([[1.0, 2.0]], r"features have shape \(2,\), expected \(regions, feature\)"),
        ({"features": np.ones((2, 3))}, "regions have no 'boxes', got features"),
        ({"boxes": np.ones((2, 4))}, "regions have no 'features', got boxes"),
        ({"feature": np.ones((2, 3)), "boxes": np.ones((2, 4))}, "no field 'feature'; did you mean 'features'"),
        ({"features": np.ones((2, 3)), "zzz": 1}, "no field 'zzz'; known are features, boxes, class_probs"),
        ([random_regions(2), random_regions(1, features=np.ones((1, 3)))], "image 1 of the batch are 3 numbers wide"),
    ],
)
def test_what_is_no_regions_is_refused(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MmptImageProcessor()(images)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("image_id", "title"), [("cat-7", "image 'cat-7'"), (None, "image 1 of the batch")])
def test_features_that_are_not_finite_name_their_image(bad: float, image_id: str | None, title: str) -> None:
    image = random_regions(2, image_id=image_id)
    image.features[1, 2] = bad
    with pytest.raises(ValueError, match=f"features of {title} hold NaN or infinite numbers, expected finite"):
        MmptImageProcessor()([random_regions(3), image])


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, 64, 48], "boxes of image 'cat-7': the largest coordinate is 64, .*looks like pixels"),
        ([0, 0, 1.5, 1], "boxes of image 'cat-7': coordinates run from 0 to 1.5, expected 0..1"),
        ([0.5, 0, 0.4, 1], "boxes of image 'cat-7': box 0 is inverted"),
        ([0, 0, np.nan, 1], "boxes of image 'cat-7': a coordinate is NaN or infinite"),
        ([0, 0, np.inf, 1], "boxes of image 'cat-7': a coordinate is NaN or infinite"),
    ],
)
def test_wrong_boxes_name_their_image(box: list[float], message: str) -> None:
    image = Regions(np.ones((1, FEATURE)), [box], image_id="cat-7")
    with pytest.raises(ValueError, match=message):
        MmptImageProcessor()([random_regions(3), image])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": [[0.1, 0.1, 0.5, 0.5]], "width": 200, "height": 50}, "look normalised already"),
        ({"boxes": [[20, 10, 100, 50]]}, "box_format='pixel' needs the width and height"),
        ({"boxes": [[20, 10, 100, 50]], "width": 200}, "box_format='pixel' needs the width and height"),
        ({"boxes": [[20, 10, 300, 50]], "width": 200, "height": 50}, "run from 0.1 to 1.5"),
        ({"boxes": [20, 10, 100, 50], "width": 200, "height": 50}, r"boxes have shape \(4,\), expected \(regions, 4\)"),
    ],
)
def test_wrong_pixel_boxes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MmptImageProcessor(box_format="pixel")({"features": np.ones((1, FEATURE))} | fields)


def test_boxes_up_to_one_per_cent_outside_are_clamped() -> None:
    image = Regions(np.ones((1, FEATURE)), [[-0.01, 0.5, 0.7, 1.01]])
    np.testing.assert_allclose(MmptImageProcessor()(image)["region_boxes"], [[[0, 0.5, 0.7, 1]]])
    assert image.boxes[0, 0] == np.float32(-0.01)  # the caller's own array stays


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_regions": 0}, "max_regions is 0, expected 1 or more, or None for all"),
        ({"max_regions": -1}, "max_regions is -1"),
        ({"box_format": "pixels"}, "box_format is 'pixels', expected 'normalized' .* or 'pixel'"),
        ({"max_region": 3}, "no option 'max_region'; did you mean 'max_regions'"),
        ({"whole_image_regions": True}, "no option 'whole_image_regions'; did you mean 'whole_image_region'"),
    ],
)
def test_wrong_options_are_refused_when_made_and_when_called(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MmptImageProcessor(**options)
    with pytest.raises(ValueError, match=message):
        MmptImageProcessor()(random_regions(2), **options)


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5), whole=st.booleans(), limit=st.integers(1, 4))
def test_every_kept_region_is_in_the_batch_once(counts: list[int], whole: bool, limit: int) -> None:
    images = [random_regions(count, seed) for seed, count in enumerate(counts)]
    batch = MmptImageProcessor(max_regions=limit, whole_image_region=whole)(images)
    kept = [min(count, limit) for count in counts]
    length = max(1, max(kept) + whole)
    assert batch["region_features"].shape == (len(counts), length, FEATURE)
    assert batch["region_attention_mask"].sum(1).tolist() == [max(1, count + whole) for count in kept]
    for row, image in enumerate(images):
        best = np.sort(np.argsort(-image.scores, kind="stable")[:limit])
        np.testing.assert_array_equal(batch["region_features"][row, whole : whole + kept[row]], image.features[best])


def test_options_survive_saving_and_loading(tmp_path: Path) -> None:
    options = {"max_regions": 7, "box_format": "pixel", "whole_image_region": True}
    MmptImageProcessor(**options).save_pretrained(tmp_path)
    loaded = MmptImageProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in options} == options


def test_auto_image_processor_finds_it(tmp_path: Path) -> None:
    MmptImageProcessor(max_regions=7).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, MmptImageProcessor)
    assert loaded.max_regions == 7
