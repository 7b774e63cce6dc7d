"""Region stores give back what was written, name what is missing, and notice every changed byte."""

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.writer import RegionStoreWriter

CLASSES = 3
GOLDEN = Path(__file__).parent / "golden"
image_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["../../etc/passwd", "/abs", "a\0b", "x" * 1000, "é", "e\u0301"]
)


def make_regions(image_id: str, count: int = 3, feature_dim: int = 4, seed: int = 0, **rest: Any) -> Regions:
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2, 2), dtype=np.float32)
    return Regions(
        features=rng.normal(size=(count, feature_dim)).astype(np.float32),
        boxes=np.sort(corners, axis=1).reshape(count, 4),
        image_id=image_id,
        **rest,
    )


def make_full_regions(image_id: str, count: int, seed: int) -> Regions:
    rng = np.random.default_rng(seed)
    return make_regions(
        image_id,
        count,
        seed=seed,
        class_probs=rng.dirichlet(np.ones(CLASSES), count),
        labels=rng.integers(0, CLASSES, count),
        scores=rng.random(count),
        attribute_labels=rng.integers(0, 400, count),
        attribute_scores=rng.random(count),
        type_ids=rng.integers(0, 3, count),
        width=640,
        height=None,
    )


def write_store(path: Path, *images: Regions, shard_bytes: int = 100) -> Path:
    with RegionStoreWriter(path, extractor={"model": "grid"}, shard_bytes=shard_bytes) as writer:
        for regions in images:
            writer.add(regions)
    return path


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store", *(make_full_regions(f"image {n}", n, seed=n) for n in range(4)))


@settings(deadline=None, max_examples=40)
@given(
    counts=st.dictionaries(image_ids, st.integers(0, 5), min_size=1, max_size=5),
    full=st.booleans(),
    shard_bytes=st.integers(1, 600),
)
def test_store_gives_back_what_was_written(counts: dict[str, int], full: bool, shard_bytes: int) -> None:
    make: Callable[..., Regions] = make_full_regions if full else make_regions
    written = {name: make(name, count, seed=seed) for seed, (name, count) in enumerate(counts.items())}
    with TemporaryDirectory() as folder:
        store = RegionStore.open(write_store(Path(folder) / "s", *written.values(), shard_bytes=shard_bytes))
        assert list(store) == list(written)
        for image_id, regions in written.items():
            read = store[image_id]
            assert (read.image_id, read.width, read.height) == (image_id, regions.width, regions.height)
            np.testing.assert_array_equal(read.features, regions.features.astype(np.float16), strict=True)
            np.testing.assert_array_equal(read.boxes, regions.boxes, strict=True)
            for name in ("labels", "attribute_labels", "type_ids"):
                np.testing.assert_equal(getattr(read, name), getattr(regions, name))
            for name in ("scores", "attribute_scores", "class_probs"):
                value = getattr(regions, name)
                if value is None:
                    assert getattr(read, name) is None
                else:
                    np.testing.assert_allclose(getattr(read, name), value, atol=1e-3)


def test_class_probs_sum_to_one_in_float32(tmp_path: Path) -> None:
    probs = np.random.default_rng(0).dirichlet(np.full(1601, 0.1), 8).astype(np.float32)
    assert np.abs(probs.astype(np.float16).sum(1, dtype=np.float64) - 1).max() > 1e-5
    store = RegionStore.open(write_store(tmp_path / "s", make_regions("a", 8, class_probs=probs)))
    read = store["a"].class_probs
    assert read is not None
    assert read.dtype == np.float32
    np.testing.assert_allclose(read.sum(1, dtype=np.float64), 1, atol=1e-6)


def test_features_are_views_of_the_file(store_path: Path) -> None:
    features = RegionStore.open(store_path)["image 3"].features
    assert not features.flags.owndata
    assert not features.flags.writeable


def test_datasets_reads_a_shard(store_path: Path) -> None:
    store = RegionStore.open(store_path)
    rows: list[Any] = [row for file in sorted(store_path.glob("shard-*.arrow")) for row in Dataset.from_file(str(file))]
    assert [row["image_id"] for row in rows] == list(store)
    for row in rows:
        features = np.frombuffer(row["features"], "<f2").reshape(row["num_regions"], 4)
        np.testing.assert_array_equal(features, store[row["image_id"]].features)


def test_pickled_store_is_small_and_reads_the_same(store_path: Path) -> None:
    store = RegionStore.open(store_path)
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again["image 2"].features, store["image 2"].features)


def test_manifest_facts_are_attributes(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={"model": "detr"}, class_names=["cat", "dog"]) as writer:
        writer.add(make_regions("a"))
    store = RegionStore.open(tmp_path)
    assert (store.feature_dim, store.num_classes, store.class_names) == (4, 2, ["cat", "dog"])
    assert store.extractor == {"model": "detr"}


def test_fingerprint_depends_on_the_extractor_not_on_the_images(tmp_path: Path) -> None:
    def fingerprint(name: str, extractor: str, image_id: str) -> str:
        with RegionStoreWriter(tmp_path / name, extractor={"model": extractor}) as writer:
            writer.add(make_regions(image_id))
        return RegionStore.open(tmp_path / name).fingerprint

    assert fingerprint("1", "detr", "a") == fingerprint("2", "detr", "b") != fingerprint("3", "yolos", "a")


def test_missing_image_is_named_with_the_store(store_path: Path) -> None:
    with pytest.raises(KeyError, match=r"image 'cat' is not in .*store \(4 images, 'image 0' is the first\)"):
        RegionStore.open(store_path)["cat"]


def test_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        RegionStore.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json: it is not a region store"):
        RegionStore.open(tmp_path)


def test_store_interrupted_before_its_first_shard_is_refused(store_path: Path) -> None:
    (store_path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="writing was interrupted; write it again"):
        RegionStore.open(store_path)


def test_newer_schema_asks_for_an_upgrade(store_path: Path) -> None:
    change_manifest(store_path, schema_version=3)
    with pytest.raises(ValueError, match=r"has schema version 3, this mmpt reads up to 2; pip install --upgrade mmpt"):
        RegionStore.open(store_path)


def test_truncated_shard_is_named_with_both_sizes(store_path: Path) -> None:
    shard = store_path / "shard-00001.arrow"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"shard-00001\.arrow has {size - 8} bytes, expected {size}"):
        RegionStore.open(store_path)


def test_missing_shard_is_named(store_path: Path) -> None:
    (store_path / "shard-00001.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-00001\.arrow is missing, the manifest lists it"):
        RegionStore.open(store_path)


def test_manifest_cannot_lead_out_of_the_folder(store_path: Path) -> None:
    shards = json.loads((store_path / "manifest.json").read_text())["shards"]
    shards[0]["file"] = "../shard-00000.arrow"
    change_manifest(store_path, shards=shards)
    with pytest.raises(ValueError, match="wrong list of shards"):
        RegionStore.open(store_path)


def test_shallow_validation_notices_a_truncated_shard(store_path: Path) -> None:
    store = RegionStore.open(store_path)
    store.validate()
    shard = store_path / "shard-00000.arrow"
    shard.unlink()  # the store keeps the old file mapped
    shard.write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes"):
        store.validate()


def test_deep_validation_names_shard_and_image(store_path: Path) -> None:
    RegionStore.open(store_path).validate(deep=True)
    features = RegionStore.open(store_path)["image 3"].features.tobytes()
    (shard,) = (file for file in store_path.glob("shard-*.arrow") if features in file.read_bytes())
    content = shard.read_bytes()
    shard.write_bytes(content.replace(features, b"\xff" + features[1:]))
    with pytest.raises(ValueError, match=rf"{shard.name}: sha256 is .* 1 of \d images are damaged: 'image 3'"):
        RegionStore.open(store_path).validate(deep=True)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
    name=st.sampled_from(["manifest.json", "shard-00001.arrow", "index.arrow"]),
)
def test_every_changed_byte_is_noticed(store_path: Path, place: float, change: int, name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(shutil.copytree(store_path, Path(folder) / "s"))
        content = bytearray((path / name).read_bytes())
        content[int(place * len(content))] ^= change
        (path / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=r"damaged|expected|lacks|is missing|this mmpt reads"):
            read_everything(path)


def read_everything(path: Path) -> None:
    store = RegionStore.open(path)
    for image_id in store:
        with contextlib.suppress(ValueError, KeyError):  # a damaged row may be refused already
            store[image_id]
    store.validate(deep=True)


def test_store_of_schema_version_1_is_read(tmp_path: Path) -> None:
    old = shutil.copytree(GOLDEN / "region_store_v1", tmp_path / "old")
    store = RegionStore.open(old)
    store.validate(deep=True)
    assert list(store) == [f"image {number}" for number in range(4)]
    assert (store.complete, store.class_names) == (True, ["background", "cat", "dog"])
    for number in range(4):
        written, read = make_full_regions(f"image {number}", number, seed=number), store[f"image {number}"]
        np.testing.assert_array_equal(read.features, written.features.astype(np.float16))
        np.testing.assert_array_equal(read.labels, written.labels)
    with pytest.raises(KeyError, match="image 'image 9' is not in"):
        store["image 9"]


def test_ids_that_no_store_can_hold_are_not_in_it(store_path: Path) -> None:
    store = RegionStore.open(store_path)
    assert "\ud800" not in store
    assert 0 not in store


def test_ids_that_share_a_hash_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("store.index", "store.writer"):
        monkeypatch.setattr(f"mmpt.processing.{module}.id_hash", lambda image_id: np.uint64(len(image_id)))
    images = [make_regions(name, seed=seed) for seed, name in enumerate(("a", "b", "cc", "d"))]
    store = RegionStore.open(write_store(tmp_path / "s", *images, shard_bytes=1))
    for regions in images:
        np.testing.assert_array_equal(store[str(regions.image_id)].boxes, regions.boxes)
    assert "e" not in store
    assert "ff" not in store


def test_shards_hold_no_file_open(tmp_path: Path) -> None:
    images = [make_regions(f"image {number}", seed=number) for number in range(40)]
    store = RegionStore.open(write_store(tmp_path / "s", *images, shard_bytes=1))
    before = psutil.Process().num_fds()
    for image_id in store:
        store[image_id]
    assert psutil.Process().num_fds() <= before + 1


def test_reading_writes_nothing_and_follows_links(store_path: Path, tmp_path: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in store_path.iterdir()}
    for path in (store_path, *store_path.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    link = tmp_path / "link"
    link.symlink_to(store_path)
    for place in (store_path, link):
        store = RegionStore.open(place)
        assert len([store[image_id] for image_id in store]) == 4
        store.validate(deep=True)
    assert {file.name: file.stat().st_mtime_ns for file in store_path.iterdir()} == before
    store_path.chmod(0o755)


def change_manifest(path: Path, **changes: Any) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
