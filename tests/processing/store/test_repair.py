"""A repaired store has its old bytes where there is a source, and else lacks only what was damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.processing.store.filling import fill_store
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.repair import repair_store
from tests.factories.sources import ListSource, contents, tiny_regions

COUNT = 8
ITEMS = [*(tiny_regions(number) for number in range(COUNT)), "broken"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "whole"
    fill_store(path, ListSource(ITEMS), shard_bytes=3000)
    return path


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "damaged"))


def change(file: Path, place: int, by: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= by
    file.write_bytes(content)


def damage_features(store: Path, number: int) -> str:
    """Change a byte of an image's features and return the shard's name."""
    wanted = tiny_regions(number).features.astype(np.float16).tobytes()
    (shard,) = (file for file in store.glob("shard-*") if wanted in file.read_bytes())
    change(shard, shard.read_bytes().index(wanted) + 100)
    return shard.name


def test_undamaged_store_is_left_alone(whole: Path, damaged: Path) -> None:
    repair = repair_store(damaged)
    assert (repair.faults, repair.mended, repair.dropped) == ([], [], [])
    assert contents(damaged) == contents(whole)


@pytest.mark.parametrize("source", ["copy", "file", "regions"])
def test_only_the_damaged_shard_is_written_again(whole: Path, damaged: Path, source: str) -> None:
    name = damage_features(damaged, 4)
    others = {file.name: file.stat().st_mtime_ns for file in damaged.glob("shard-*") if file.name != name}
    sources = {
        "copy": RegionStore.open(whole),
        "file": ListSource(ITEMS),
        "regions": {"image 4": tiny_regions(4)},
    }
    repair = repair_store(damaged, sources[source])
    assert ([fault.file for fault in repair.faults], repair.mended, repair.dropped) == ([name], ["image 4"], [])
    assert contents(damaged) == contents(whole)
    assert {name: (damaged / name).stat().st_mtime_ns for name in others} == others


def test_without_a_source_damaged_rows_are_dropped_and_listed(damaged: Path) -> None:
    damage_features(damaged, 4)
    repair = repair_store(damaged)
    assert repair.dropped == ["image 4"]
    store = RegionStore.open(damaged)
    store.validate(deep=True)
    assert list(store) == [f"image {number}" for number in range(COUNT) if number != 4]
    last = json.loads((damaged / "errors.jsonl").read_text().splitlines()[-1])
    assert (last["image_id"], last["reason"]) == ("image 4", "damaged, dropped by a repair")


def test_missing_shard_is_mended_or_its_images_dropped(whole: Path, damaged: Path) -> None:
    (damaged / "shard-00001.arrow").unlink()
    half = shutil.copytree(damaged, damaged.with_name("half"))
    assert len(repair_store(damaged, ListSource(ITEMS)).mended) == 3
    assert contents(damaged) == contents(whole)
    assert repair_store(half).dropped == ["image 3", "image 4", "image 5"]
    store = RegionStore.open(half)
    store.validate(deep=True)
    assert list(store) == [f"image {number}" for number in (0, 1, 2, 6, 7)]
    np.testing.assert_array_equal(store["image 6"].boxes, tiny_regions(6).boxes.astype(np.float32))


def test_manifest_is_mended_from_a_copy_alone(whole: Path, damaged: Path) -> None:
    for content in (b"{", (whole / "manifest.json").read_bytes().replace(b"a detector", b"b detector")):
        (damaged / "manifest.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"Only a copy of the store can repair a manifest"):
            repair_store(damaged)
        repair_store(damaged, RegionStore.open(whole))
        assert contents(damaged) == contents(whole)


def test_source_of_other_features_is_refused(damaged: Path) -> None:
    damage_features(damaged, 4)
    with pytest.raises(ValueError, match="features of dimension 5 for image 'image 4', the store has 300"):
        repair_store(damaged, {"image 4": tiny_regions(4, features=np.ones((2, 5)))})


def test_interrupted_repair_is_done_again(whole: Path, damaged: Path) -> None:
    damage_features(damaged, 4)
    (damaged / "repair").mkdir()
    (damaged / "repair" / "shard-00000.arrow.tmp").write_bytes(b"half")
    repair_store(damaged, RegionStore.open(whole))
    assert contents(damaged) == contents(whole)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    by=st.integers(1, 255),
    name=st.sampled_from(["manifest.json", "shard-00000.arrow", "shard-00002.arrow", "index.arrow", "errors.jsonl"]),
    with_source=st.booleans(),
)
def test_any_changed_byte_is_mended(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, place: float, by: int, name: str, with_source: bool
) -> None:
    path = Path(shutil.copytree(whole, tmp_path_factory.mktemp("changed") / "s"))
    change(path / name, int(place * (path / name).stat().st_size), by)
    if with_source or name == "manifest.json":
        repair_store(path, RegionStore.open(whole))
        ignored = {"errors.jsonl", "manifest.json"} if name == "errors.jsonl" else set()
        assert {k: v for k, v in contents(path).items() if k not in ignored} == {
            k: v for k, v in contents(whole).items() if k not in ignored
        }
    else:
        dropped = repair_store(path).dropped
        assert len(RegionStore.open(path)) == COUNT - len(dropped)
    RegionStore.open(path).validate(deep=True)
