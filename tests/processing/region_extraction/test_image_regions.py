import json
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmpt.processing.generated_scenes.scenes import TRAIN_COMPOSITIONS, render, sample_scene
from mmpt.processing.region_extraction.image_regions import ImageRegions
from mmpt.processing.region_extraction.image_sources import open_images
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.store.source import Found, Rejected
from mmpt.processing.store.writer import RegionStoreWriter
from tests.factories.detectors import save_detector

COUNT, BATCH = 7, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give seven scenes, the second of which is broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        render(sample_scene(np.random.default_rng(number), TRAIN_COMPOSITIONS)).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> RegionExtractor:
    saved = save_detector("yolos", tmp_path_factory.mktemp("detector"))
    return RegionExtractor.from_pretrained(saved, device="cpu", batch_size=BATCH)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> RegionExtractor:
    saved = save_detector("detr", tmp_path_factory.mktemp("boxed"))
    return RegionExtractor.from_pretrained(saved, backend="boxes", device="cpu", batch_size=BATCH)


def names(groups: Iterator[list[Found | Rejected]]) -> list[list[str]]:
    return [[item.where.removesuffix(".png") for item in group] for group in groups]


def test_each_group_is_a_batch_in_order(folder, extractor):
    source = ImageRegions(open_images(folder), extractor)
    assert names(source.groups(0)) == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert names(source.groups(3)) == [["3", "4", "5"], ["6"]]
    assert names(source.groups(COUNT)) == []
    assert source.total == COUNT


def test_a_broken_image_is_rejected_and_the_rest_of_its_batch_is_kept(folder, extractor, tmp_path):
    source = ImageRegions(open_images(folder), extractor)
    first, broken, third = next(source.groups(0))
    assert isinstance(broken, Rejected)
    assert (broken.where, broken.image_id) == ("1.png", "1")
    assert broken.reason.startswith("the image cannot be read ")
    with RegionStoreWriter(tmp_path, extractor=source.extractor, class_names=source.class_names) as writer:
        for item in (first, third):
            writer.add(item.regions)
    assert (first.regions.image_id, first.regions.width, len(first.regions)) == ("0", 120, 7)
    alone = extractor([Image.open(folder / "2.png")])[0]
    np.testing.assert_allclose(third.regions.features, alone.features, atol=1e-5)


def test_shards_in_order_are_the_whole(folder, extractor):
    images = open_images(folder)
    shards = [ImageRegions(images, extractor, shard=(index, 3)) for index in range(3)]
    assert [list(chain(*names(shard.groups(0)))) for shard in shards] == [["0", "1"], ["2", "3"], ["4", "5", "6"]]
    assert [shard.total for shard in shards] == [2, 2, 3]
    for shard in ((3, 3), (-1, 3), (0, 8), (0, 0)):
        with pytest.raises(ValueError, match=f"shard is {shard[0]} of {shard[1]}, expected"):
            ImageRegions(images, extractor, shard=shard)


def test_origin_identifies_the_images(folder, extractor):
    images = open_images(folder)
    origin = ImageRegions(images, extractor, shard=(1, 2)).origin
    assert json.loads(json.dumps(origin)) == origin
    assert origin == {"images": folder.name, "total": COUNT, "ids_sha256": images.ids_sha256, "shard": [1, 2]}


def test_an_error_of_the_model_is_not_an_images(folder, extractor, monkeypatch):
    def fail(inputs: Any, boxes: None) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(extractor._backend, "forward", fail)
    with pytest.raises(RuntimeError, match=r"ran out of memory with 2 images at once .* set batch_size below 2"):
        next(ImageRegions(open_images(folder), extractor).groups(0))


def test_reading_that_stops_early_leaves_no_thread(folder, extractor):
    groups = ImageRegions(open_images(folder), extractor).groups(0)
    next(groups)
    groups.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmpt-images")]


def test_given_boxes_are_of_the_upright_image(folder, boxed, tmp_path):
    rows = [
        {"image_id": "a", "boxes": [[0, 0, 60, 120], [12, 0, 120, 30]], "labels": [4, 0]},
        {"image_id": "no boxes"},
        {"image_id": "inverted", "boxes": [[60, 0, 0, 9]], "labels": [1]},
        {"image_id": "outside", "boxes": [[0, 0, 240, 9]], "labels": [1]},
        {"image_id": "labels", "boxes": [[0, 0, 24, 9]], "labels": ["cat"]},
        {"image_id": "words", "boxes": ["left"], "labels": [1]},
    ]
    rows = [{"image": str(folder / "0.png"), **row} for row in rows]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, *rejected = chain(*ImageRegions(open_images(tmp_path / "boxes.jsonl"), boxed).groups(0))
    np.testing.assert_allclose(found.regions.boxes, [[0, 0, 0.5, 1], [0.1, 0, 1, 0.25]], atol=1e-6)
    assert found.regions.labels.tolist() == [4, 0]
    words = ("have shape (0,)", "is inverted", "from 0 to 2", "labels are ['cat']", "boxes are ['left']")
    for item, expected in zip(rejected, words, strict=True):
        assert expected in item.reason
    with RegionStoreWriter(tmp_path / "store", extractor=boxed.settings) as writer:
        writer.add(found.regions)


def test_normalised_boxes_are_taken_as_they_are(folder, boxed, tmp_path):
    row = {"image": str(folder / "0.png"), "boxes": [[0, 0.25, 0.5, 1]]}
    (tmp_path / "boxes.jsonl").write_text(json.dumps(row))
    images = open_images(tmp_path / "boxes.jsonl")
    ((found,),) = ImageRegions(images, boxed, box_format="normalized").groups(0)
    assert found.regions.boxes.tolist() == row["boxes"]
    ((rejected,),) = ImageRegions(images, boxed).groups(0)
    assert "Pass box_format='normalized'" in rejected.reason
