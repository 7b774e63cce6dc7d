"""The store writer refuses bad numbers by name, and leaves a complete store or none."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.processing.regions import Regions
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.writer import RegionStoreWriter

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]], dtype=np.float32)
PROBS = np.array([[0.25, 0.75], [0.5, 0.5]])


def make_regions(image_id: str | None = "a", **changes: Any) -> Regions:
    return Regions(**{"features": np.ones((2, 3)), "boxes": BOXES, "image_id": image_id, **changes})


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = np.array(array, dtype=np.float64)
    changed[1, 0] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": None}, r"image_id is None, expected a non-empty string"),
        ({"image_id": ""}, r"image_id is '', expected a non-empty string"),
        ({"image_id": "\ud800"}, r"cannot be written as UTF-8"),
        ({"image_id": "first"}, r"image 'first' was added before"),
        ({"features": with_value(np.ones((2, 3)), np.nan)}, r"image 'a': features of region 1 contain nan"),
        (
            {"features": with_value(np.ones((2, 3)), 65_520)},
            r"image 'a': features of region 1 contain 65520, which float16 \(up to 65504\) cannot hold",
        ),
        ({"features": np.ones((2, 5))}, r"image 'a': features have dimension 5, expected 3"),
        ({"boxes": BOXES[:, ::-1]}, r"image 'a': boxes: box 0 is inverted"),
        ({"boxes": BOXES * 640}, r"image 'a': boxes: .*looks like pixels"),
        ({"class_probs": PROBS * 2}, r"image 'a': class_probs of region 0 sum to 2, expected 1 \(2 of 2"),
        ({"class_probs": with_value(PROBS, -1)}, r"image 'a': class_probs contain -1, expected probabilities"),
        ({"class_probs": with_value(PROBS, np.inf)}, r"image 'a': class_probs of region 1 contain inf"),
        ({"class_probs": np.full((2, 4), 0.25)}, r"image 'a': class_probs have 4 classes, expected 2"),
        ({"class_probs": None}, r"image 'a' has labels, expected class_probs, labels as in earlier images"),
        ({"labels": [0, 2]}, r"image 'a': labels run up to 2, expected 0..1 \(2 classes\)"),
        ({"labels": [0, -1]}, r"image 'a': labels contain -1, expected integers from 0"),
        ({"labels": [0, 0.5]}, r"image 'a': labels contain 0.5, expected integers from 0"),
        ({"scores": [0.5, 7.0]}, r"image 'a': scores run from 0.5 to 7, expected confidences in 0..1"),
        ({"scores": [0.5, np.nan]}, r"image 'a': scores of region 1 contain nan"),
    ],
)
def test_bad_image_is_refused_by_name_and_the_rest_is_kept(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    full = {"class_probs": PROBS, "labels": [1, 0]}
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions("first", **full))
        with pytest.raises(ValueError, match=message):
            writer.add(make_regions(**{**full, **changes}))
        writer.add(make_regions("last", **full))
    assert list(RegionStore.open(tmp_path)) == ["first", "last"]


def test_image_without_regions_fits_every_store(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions("none", features=np.ones((0, 3)), boxes=np.ones((0, 4))))
        writer.add(make_regions("two", class_probs=PROBS))
    store = RegionStore.open(tmp_path)
    assert [len(regions) for regions in store.values()] == [0, 2]


def test_boxes_within_tolerance_are_clamped(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions(boxes=BOXES * 1.005))
    assert RegionStore.open(tmp_path)["a"].boxes.max() == 1.0


def test_class_names_fix_the_number_of_classes(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}, class_names=["cat", "dog", "cow"]) as writer:
        with pytest.raises(ValueError, match="class_probs have 2 classes, expected 3"):
            writer.add(make_regions(class_probs=PROBS))
        writer.add(make_regions(labels=[2, 0]))


def test_store_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image was added"):
        RegionStoreWriter(tmp_path, extractor={}).close()
    with RegionStoreWriter(tmp_path, extractor={}) as writer:  # the folder is free again
        writer.add(make_regions())


def test_extractor_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        RegionStoreWriter(tmp_path, extractor={"model": object()})


def test_complete_store_is_not_overwritten(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions())
    with pytest.raises(FileExistsError, match="already holds a region store"):
        RegionStoreWriter(tmp_path, extractor={})
    with pytest.raises(ValueError, match="is closed"):
        writer.add(make_regions("b"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.arrow", "manifest.json", "shard-00000.arrow"]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions())
        with pytest.raises(RuntimeError, match="is being written by another process"):
            RegionStoreWriter(tmp_path, extractor={})


def test_error_while_writing_leaves_the_complete_shards_and_a_new_writer_starts_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write_until_error() -> None:
        with RegionStoreWriter(tmp_path, extractor={}, shard_bytes=100) as writer:
            writer.add(make_regions("a", features=np.ones((2, 100))))
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_until_error()
    store = RegionStore.open(tmp_path)
    assert (list(store), store.complete) == (["a"], False)
    assert "writing was interrupted, only the first 1 images are available" in caplog.text
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions("b"))
    assert "replacing 1 shards of an interrupted run" in caplog.text
    assert list(RegionStore.open(tmp_path)) == ["b"]


def write_images(path: Path, count: int, *, resume: bool = False) -> RegionStoreWriter:
    writer = RegionStoreWriter(path, extractor={"model": "x"}, shard_bytes=1500, resume=resume)
    for number in range(writer.position, count):
        writer.add(make_regions(f"image {number}", features=np.full((2, 300), number)))
    return writer


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_killed_writer_leaves_a_folder_that_ends_in_the_same_bytes(tmp_path: Path, images: int, resume: bool) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    child = os.fork()
    if child == 0:
        write_images(killed, images)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    if images > 1:  # two images fill a shard
        assert list(RegionStore.open(killed)) == ["image 0", "image 1"]
    write_images(killed, 4, resume=resume).close()
    write_images(undisturbed, 4).close()
    assert contents(killed) == contents(undisturbed)


def test_resumed_writer_knows_what_it_has(tmp_path: Path) -> None:
    write_images(tmp_path, 3).abandon()
    writer = write_images(tmp_path, 2, resume=True)
    assert (writer.position, len(writer)) == (2, 2)
    with pytest.raises(ValueError, match="image 'image 1' was added before"):
        writer.add(make_regions("image 1", features=np.ones((2, 300))))
    with pytest.raises(ValueError, match="features have dimension 3, expected 300"):
        writer.add(make_regions("other"))
    with pytest.raises(ValueError, match="has scores, expected no optional arrays"):
        writer.add(make_regions("other", features=np.ones((2, 300)), scores=[0.5, 0.5]))
    writer.abandon()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractor": {"model": "y"}}, "was started with extractor {'model': 'x'}, now it is {'model': 'y'}"),
        ({"class_names": ["cat"]}, r"was started with class_names None, now it is \['cat'\]"),
        ({"origin": {"file": "b.tsv"}}, "was started with origin {}, now it is {'file': 'b.tsv'}"),
    ],
)
def test_writing_does_not_go_on_with_something_else(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_images(tmp_path, 3).abandon()
    with pytest.raises(ValueError, match=message):
        RegionStoreWriter(tmp_path, **{"extractor": {"model": "x"}, **changes}, resume=True)
    write_images(tmp_path, 4, resume=True).close()  # nothing was lost, and the folder is free


def test_full_disk_leaves_the_shards_before(tmp_path: Path) -> None:
    def fill_the_disk() -> None:
        with write_images(tmp_path, 2) as writer:
            (tmp_path / "shard-00001.arrow.tmp").symlink_to("/dev/full")
            for number in range(2, 40):
                writer.add(make_regions(f"image {number}", features=np.ones((2, 300))))

    with pytest.raises(OSError, match="No space left on device"):
        fill_the_disk()
    assert list(RegionStore.open(tmp_path)) == ["image 0", "image 1"]
    assert not list(tmp_path.glob("*.tmp"))
