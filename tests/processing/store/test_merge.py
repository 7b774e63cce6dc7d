"""Merged stores have the images of all, in order, and only stores that belong together are merged."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.merge import merge_stores
from mmpt.processing.store.region_store import RegionStore
from tests.factories.sources import ListSource, contents, tiny_regions


def make_store(path: Path, numbers: range, model: str = "a detector", **changes) -> Path:
    items = ["broken", *(tiny_regions(number, **changes) for number in numbers)]
    fill_store(path, ListSource(items, model=model), shard_bytes=3000)
    return path


def test_merged_store_has_the_images_and_the_errors_of_all(tmp_path: Path) -> None:
    parts = [make_store(tmp_path / "a", range(5)), make_store(tmp_path / "b", range(5, 9))]
    merged = merge_stores(parts, tmp_path / "all")
    merged.validate(deep=True)
    assert list(merged) == [f"image {number}" for number in range(9)]
    for number in range(9):
        expected = tiny_regions(number)
        np.testing.assert_array_equal(merged[f"image {number}"].features, expected.features.astype(np.float16))
    assert len((tmp_path / "all" / "errors.jsonl").read_text().splitlines()) == 2
    assert merged.fingerprint == RegionStore.open(parts[0]).fingerprint
    assert not (tmp_path / "all" / "writer.lock").exists()


def test_interrupted_merge_ends_in_the_same_bytes(tmp_path: Path) -> None:
    parts = [make_store(tmp_path / "a", range(5)), make_store(tmp_path / "b", range(5, 9))]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "shard-00000.arrow").write_bytes(b"half")
    merge_stores(parts, tmp_path / "once")
    merge_stores(parts, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "once")


def test_stores_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = make_store(tmp_path / "a", range(3))
    with pytest.raises(ValueError, match=r"3 images are in more than one of the stores, 'image 0', 'image 1'"):
        merge_stores([first, make_store(tmp_path / "same", range(3))], tmp_path / "out")
    with pytest.raises(ValueError, match=r"has extractor {'model': 'another'}, expected {'model': 'a detector'}"):
        merge_stores([first, make_store(tmp_path / "other", range(5, 6), model="another")], tmp_path / "out")
    with pytest.raises(ValueError, match="has class_probs, expected class_probs, scores"):
        merge_stores([first, make_store(tmp_path / "bare", range(5, 6), scores=None)], tmp_path / "out")
    with pytest.raises(ValueError, match="got no store"):
        merge_stores([], tmp_path / "out")
    with pytest.raises(FileExistsError, match="already holds a region store"):
        merge_stores([first], first)
    assert not (tmp_path / "out").exists()


def test_incomplete_or_damaged_store_is_not_merged(tmp_path: Path) -> None:
    first, second = make_store(tmp_path / "a", range(3)), make_store(tmp_path / "b", range(5, 9))
    shard = second / "shard-00000.arrow"
    whole = shard.read_bytes()
    place = whole.index(tiny_regions(5).features.astype(np.float16).tobytes())
    shard.write_bytes(whole[:place] + b"\0" + whole[place + 1 :])
    with pytest.raises(ValueError, match=r"b/shard-00000\.arrow is damaged"):
        merge_stores([first, second], tmp_path / "out")
    shard.write_bytes(whole)
    manifest = second / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "complete": False, "position": 3}))
    with pytest.raises(ValueError, match="is not complete"):
        merge_stores([first, second], tmp_path / "out")
