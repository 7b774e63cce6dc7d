"""Feature files with parts in other files: sizes, boxes, names of classes, ids."""

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmpt.processing.region_readers.open_features import open_features, recognise_format
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected
from tests.fuzz.feature_files import (
    encode,
    expected_regions,
    make_images,
    npz_bytes,
    shard_files,
    tar_bytes,
    vilbert_item,
    write_bottom_up_h5,
    write_lmdb,
    write_meshed_memory_h5,
    write_oscar,
    write_shard,
    write_vinvl,
    write_visdial_h5,
)

Image = dict[str, Any]


def read(path: Path, **options: Any) -> list[Found | Rejected]:
    return [item for group in open_features(path, allow_pickle=True, **options).groups(0) for item in group]


def regions(path: Path, **options: Any) -> list[Regions]:
    found = read(path, **options)
    assert not [item for item in found if isinstance(item, Rejected)], found
    return [item.regions for item in found if isinstance(item, Found)]


def reason(path: Path, **options: Any) -> str:
    item = read(path, **options)[0]
    assert isinstance(item, Rejected)
    return item.reason


def assert_same(found: list[Regions], images: list[Image], file_format: str, without: str = "") -> None:
    """Compare every array with the one that was written."""
    for got, image in zip(found, images, strict=True):
        for name, value in vars(expected_regions(image, file_format)).items():
            if name != without and isinstance(value, np.ndarray):
                np.testing.assert_allclose(getattr(got, name), value, rtol=1e-6, atol=1e-7, err_msg=name)


def write_narrow(path: Path, images: list[Image], dtype: str = "f4") -> Path:
    """features.tsv without the six numbers of the boxes."""
    lines = [f"{image['id']}\t{image['n']}\t{encode(image['features'].astype(dtype))}\n" for image in images]
    path.write_text("".join(lines))
    return path


def write_labels(path: Path, images: list[Image]) -> None:
    rows = [
        [
            {"class": f"class {label}", "rect": box.tolist(), "conf": 0.5}
            for label, box in zip(i["labels"], i["boxes"], strict=True)
        ]
        for i in images
    ]
    path.write_text("".join(f"{i['id']}\t{json.dumps(row)}\n" for i, row in zip(images, rows, strict=True)))


def write_sizes(path: Path, images: list[Image]) -> Path:
    """hw.tsv, COCO's JSON or a CSV."""
    if path.suffix == ".tsv":
        rows = [{"height": image["h"], "width": image["w"]} for image in images]
        path.write_text("".join(f"{i['id']}\t{json.dumps([row])}\n" for i, row in zip(images, rows, strict=True)))
    elif path.suffix == ".json":
        named = [
            {"id": n, "file_name": f"{i['id']}.jpg", "width": i["w"], "height": i["h"]} for n, i in enumerate(images)
        ]
        path.write_text(json.dumps({"images": named}))
    else:
        path.write_text("image_id,width,height\n" + "".join(f"{i['id']},{i['w']},{i['h']}\n" for i in images))
    return path


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_vinvl_features_take_boxes_sizes_and_classes_from_the_files_beside_them(tmp_path: Path, dtype: str) -> None:
    images = make_images(3, dim=2048)
    path = write_narrow(tmp_path / "train.feature.tsv", images, dtype)
    assert "no predictions.tsv or label.tsv with boxes is next to the file" in reason(path)
    write_labels(tmp_path / "train.label.tsv", images)
    assert "the image size is neither there" in reason(path)
    sizes = write_sizes(tmp_path / "sizes.json", images)
    for options in ({"image_sizes_path": sizes}, {}):
        found = regions(path, **options)
        np.testing.assert_array_equal(found[0].features, images[0]["features"].astype(dtype), strict=True)
        assert_same(found, images, "bottom_up_tsv", without="features")
        assert found[0].labels is None
        write_sizes(tmp_path / "train.hw.tsv", images[::-1])
    (tmp_path / "train.labelmap.tsv").write_text("".join(f"class {number}\n" for number in range(5)))
    np.testing.assert_array_equal(regions(path)[0].labels, images[0]["labels"])
    assert open_features(path).class_names == [f"class {number}" for number in range(5)]
    (tmp_path / "train.yaml").write_text(
        "img: train.img.tsv\nfeature: train.feature.tsv\nlabel: train.label.tsv\nhw: train.hw.tsv\n"
    )
    assert_same(regions(tmp_path / "train.yaml"), images, "bottom_up_tsv", without="features")
    assert any("img of train.yaml is skipped" in note for note in open_features(tmp_path / "train.yaml").notes)


def test_label_file_alone_says_where_the_features_are(tmp_path: Path) -> None:
    write_labels(tmp_path / "train.label.tsv", make_images(1))
    with pytest.raises(ValueError, match=r"boxes and classes without features.*give the feature.tsv next to it"):
        recognise_format(tmp_path / "train.label.tsv")


def test_predictions_of_another_file_are_passed_over_with_a_note(tmp_path: Path) -> None:
    images = make_images(2, dim=2048)
    write_vinvl(tmp_path / "predictions.tsv", make_images(2, ids=["x", "y"]))
    path = write_oscar(tmp_path / "vqa.tsv", images)
    assert_same(regions(path), images, "oscar_tsv")
    assert any("predictions.tsv is skipped: its first image is 'x'" in note for note in open_features(path).notes)


def test_predictions_with_features_keep_classes_by_name_and_need_a_size(tmp_path: Path) -> None:
    images = make_images(2, dim=2048)
    path = write_vinvl(tmp_path / "predictions.tsv", images, [f"class {number}" for number in range(5)])
    names = [f"class {number}" for number in range(5)]
    np.testing.assert_array_equal(regions(path, class_names=names)[1].labels, images[1]["labels"])
    lines = [line.partition("\t") for line in path.read_text().splitlines()]
    items = [json.loads(text) for *_, text in lines]
    for image, item in zip(images, items, strict=True):
        del item["image_w"], item["image_h"]
        for found, feature in zip(item["objects"], image["features"].astype("f2"), strict=True):
            found["feature"] = encode(feature)
    path.write_text("".join(f"{i['id']}\t{json.dumps(item)}\n" for i, item in zip(images, items, strict=True)))
    assert "the line has no image_w and image_h" in reason(path)
    found = regions(path, image_sizes_path=write_sizes(tmp_path / "sizes.csv", images))
    np.testing.assert_array_equal(found[0].features, images[0]["features"].astype("f2"), strict=True)
    assert (found[1].width, found[1].height) == (images[1]["w"], images[1]["h"])


def test_bottom_up_rows_are_found_by_the_index(tmp_path: Path) -> None:
    images = make_images(4)
    for fixed in (True, False):
        path = write_bottom_up_h5(tmp_path / f"val{fixed}.hdf5", images, fixed)
        index = path.with_name(f"{path.stem}_imgid2idx.pkl")
        index.write_bytes(pickle.dumps({9: 2, 7: 0, 5: 3}, protocol=0))
        source = open_features(path, allow_pickle=True)
        assert (source.total, "1 rows without an image id are skipped" in " ".join(source.notes)) == (3, True)
        found = regions(path)
        assert [one.image_id for one in found] == ["7", "9", "5"]
        assert_same(found, [images[0], images[2], images[3]], "npy_folder", without="boxes")
        with pytest.raises(ValueError, match=r"_imgid2idx.pkl has the image ids and contains pickled objects"):
            open_features(path)
        index.write_bytes(pickle.dumps({9: 99}))
        with pytest.raises(ValueError, match="do they belong together"):
            open_features(path, allow_pickle=True)
        index.unlink()
        with pytest.raises(FileNotFoundError, match="whose image ids are in val"):
            open_features(path, allow_pickle=True)


def test_boxes_in_pixels_need_sizes_from_somewhere(tmp_path: Path) -> None:
    images = make_images(3)
    meshed = write_meshed_memory_h5(tmp_path / "coco.hdf5", images, sized=False)
    visdial = write_visdial_h5(tmp_path / "visdial.h5", images, sized=False)
    for path, file_format in ((meshed, "meshed_memory_h5"), (visdial, "visdial_h5")):
        assert "the file has no image sizes" in reason(path)
        for name in ("hw.tsv", "coco.json", "sizes.csv"):
            sizes = write_sizes(tmp_path / name, images)
            assert_same(regions(path, image_sizes_path=sizes), images, file_format)
        write_sizes(sizes, images[1:])
        assert f"has 2 images, but not '{images[0]['id']}'" in reason(path, image_sizes_path=sizes)


def test_visdial_features_without_boxes_need_a_word_of_the_user(tmp_path: Path) -> None:
    images = make_images(2, ids=["12", "34"])
    path = write_visdial_h5(tmp_path / "visdial.h5", images)
    with h5py.File(path, "r+") as file:
        for name in ("boxes", "image_ids"):
            del file[name]
        file["image_id"] = [12, 34]
    with pytest.raises(ValueError, match=r"features without boxes.*--boxes whole_image"):
        open_features(path)
    assert_same(regions(path, boxes="whole_image"), images, "npy_folder")
    assert [one.image_id for one in regions(path, boxes="whole_image")] == ["12", "34"]


def test_mmf_lmdb_is_read_by_its_paths(tmp_path: Path) -> None:
    images = make_images(3, ids=["train/1", "train/2", "b"])
    items = {
        image["id"]: {
            "feature_path": image["id"],
            "features": image["features"],
            "image_height": image["h"],
            "image_width": image["w"],
            "num_boxes": image["n"],
            "objects": image["labels"],
            "cls_prob": image["probs"],
            "bbox": image["boxes"],
        }
        for image in images
    }
    entries = {key.encode(): pickle.dumps(item) for key, item in items.items()}
    path = write_lmdb(tmp_path / "detectron.lmdb", {**entries, b"keys": pickle.dumps(list(entries))})
    assert recognise_format(path) == "pickled_lmdb"
    found = sorted(regions(path), key=lambda one: str(one.image_id))
    assert_same(found, sorted(images, key=lambda image: image["id"]), "mmf_folder")
    assert open_features(path, allow_pickle=True).extractor["label_space"] == "background_first"


def test_folder_of_shards_with_archives_and_pickles(tmp_path: Path) -> None:
    images = make_images(5, ids=["a/1", "a/2", "3", "4", "5"])
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(folder / "000.tar", images[:2])
    archive = dict(x=images[2]["features"], bbox=images[2]["boxes"], image_w=images[2]["w"], image_h=images[2]["h"])
    (folder / "001.tar").write_bytes(
        tar_bytes({"3.npz": npz_bytes(**archive), "3.jpg": b"", "4.pyd": pickle.dumps(vilbert_item(images[3]))})
    )
    write_shard(folder / "002.tar", images[4:])
    assert recognise_format(folder) == "webdataset"
    assert_same(regions(folder), images, "webdataset")
    source = open_features(folder)
    assert any("the files .jpg of the first images are skipped" in note for note in source.notes)
    found = [item for group in source.groups(0) for item in group]
    assert [type(item) for item in found] == [Found, Found, Found, Rejected, Found]
    assert "allow_pickle=True (--allow-pickle)" in found[3].reason  # type: ignore[union-attr]
    assert [item.where for item in found[2:]] == [item.where for group in source.groups(2) for item in group]


def test_damaged_shard_gives_the_images_before(tmp_path: Path) -> None:
    images = make_images(3)
    data = tar_bytes({name: data for image in images for name, data in shard_files(image).items()})
    path = tmp_path / "x.tar"
    path.write_bytes(data[: len(data) // 2 - 100])
    found = read(path)
    assert isinstance(found[0], Found)
    assert "the rest of the shard cannot be read" in found[-1].reason  # type: ignore[union-attr]
