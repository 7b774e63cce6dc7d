"""The store writer refuses bad numbers by name, and leaves a complete store or none."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.processing.region_store import RegionStore
from mmpt.processing.region_store_writer import RegionStoreWriter
from mmpt.processing.regions import Regions

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
        ({"features": with_value(np.ones((2, 3)), np.nan)}, r"image 'a': features of region 1 hold nan"),
        (
            {"features": with_value(np.ones((2, 3)), 65_520)},
            r"image 'a': features of region 1 hold 65520, which float16 \(up to 65504\) cannot hold",
        ),
        ({"features": np.ones((2, 5))}, r"image 'a': features are 5 numbers wide, expected 3"),
        ({"boxes": BOXES[:, ::-1]}, r"image 'a': boxes: box 0 is inverted"),
        ({"boxes": BOXES * 640}, r"image 'a': boxes: .*looks like pixels"),
        ({"class_probs": PROBS * 2}, r"image 'a': class_probs of region 0 sum to 2, expected 1 \(2 of 2"),
        ({"class_probs": with_value(PROBS, -1)}, r"image 'a': class_probs hold -1, expected probabilities"),
        ({"class_probs": with_value(PROBS, np.inf)}, r"image 'a': class_probs of region 1 hold inf"),
        ({"class_probs": np.full((2, 4), 0.25)}, r"image 'a': class_probs have 4 classes, expected 2"),
        ({"class_probs": None}, r"image 'a' has labels, expected class_probs, labels as in the images before"),
        ({"labels": [0, 2]}, r"image 'a': labels run up to 2, expected 0..1 \(2 classes\)"),
        ({"labels": [0, -1]}, r"image 'a': labels hold -1, expected whole numbers from 0 on"),
        ({"labels": [0, 0.5]}, r"image 'a': labels hold 0.5, expected whole numbers from 0 on"),
        ({"scores": [0.5, 7.0]}, r"image 'a': scores run from 0.5 to 7, expected confidences in 0..1"),
        ({"scores": [0.5, np.nan]}, r"image 'a': scores of region 1 hold nan"),
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
    with pytest.raises(FileExistsError, match="holds a region store already"):
        RegionStoreWriter(tmp_path, extractor={})
    with pytest.raises(ValueError, match="is closed"):
        writer.add(make_regions("b"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "shard-00000.arrow"]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions())
        with pytest.raises(RuntimeError, match="is being written by another process"):
            RegionStoreWriter(tmp_path, extractor={})


def test_error_while_writing_leaves_no_store_and_a_new_writer_starts_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write_until_error() -> None:
        with RegionStoreWriter(tmp_path, extractor={}, shard_bytes=1) as writer:
            writer.add(make_regions("a"))
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_until_error()
    assert not (tmp_path / "manifest.json").exists()
    with RegionStoreWriter(tmp_path, extractor={}) as writer:
        writer.add(make_regions("b"))
    assert "replacing 1 shards of an interrupted writing" in caplog.text
    assert list(RegionStore.open(tmp_path)) == ["b"]


@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("images", [1, 2, 3])
def test_killed_writer_leaves_a_folder_that_is_written_again_to_the_same_bytes(tmp_path: Path, images: int) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    child = os.fork()
    if child == 0:
        writer = RegionStoreWriter(killed, extractor={}, shard_bytes=1500)
        for number in range(images):
            writer.add(make_regions(f"image {number}", features=np.ones((2, 300))))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        RegionStore.open(killed)
    for path in (killed, undisturbed):
        with RegionStoreWriter(path, extractor={}, shard_bytes=1500) as writer:
            for number in range(4):
                writer.add(make_regions(f"image {number}", features=np.ones((2, 300))))
    contents = [{file.name: file.read_bytes() for file in path.iterdir()} for path in (killed, undisturbed)]
    assert contents[0] == contents[1]
