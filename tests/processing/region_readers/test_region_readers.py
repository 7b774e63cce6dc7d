"""Readers of predecessors' feature files: each gives what the predecessor's own script wrote."""

import base64
import csv
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.configuration.errors import MmptError
from mmpt.processing.region_readers.array_archives import decode_npy
from mmpt.processing.region_readers.open_features import FORMATS, open_features, recognise_format
from mmpt.processing.region_readers.tsv_reader import COLUMNS
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, RegionSource, Rejected
from tests.fuzz.feature_files import (
    BOTTOM_UP,
    CLASSES,
    LXMERT,
    OPENING,
    VOLTA,
    WRITERS,
    expected_regions,
    lxmert_row,
    make_images,
    pickled_entries,
    uniter_value,
    write_features,
    write_lmdb,
    write_npz_folder,
    write_oscar,
    write_predictions,
    write_tsv,
    write_uniter,
)

NAMES = [f"class {number}" for number in range(CLASSES)]
REAL = Path(os.environ.get("MMPT_TEST_DATA", "")) / "coco_obj36" / "train2014_obj36_8.tsv"


def positions(source: RegionSource, start: int = 0) -> list[Found | Rejected]:
    return [position for group in source.groups(start) for position in group]


def regions(source: RegionSource) -> list[Regions]:
    found = positions(source)
    assert not [position for position in found if isinstance(position, Rejected)]
    return [position.regions for position in found if isinstance(position, Found)]


def assert_same(got: Regions, wanted: Regions) -> None:
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name, strict=name != "labels")


def images_of(file_format: str, count: int = 4, **options: Any) -> list[dict[str, Any]]:
    return make_images(count, dim=2048 if file_format == "oscar_tsv" else 8, **options)


@pytest.mark.parametrize("file_format", FORMATS)
def test_reader_gives_what_was_written(tmp_path: Path, file_format: str) -> None:
    images = images_of(file_format)
    source = open_features(
        write_features(tmp_path, file_format, images), allow_pickle=True, **OPENING.get(file_format, {})
    )
    for got, image in zip(regions(source), images, strict=True):
        assert_same(got, expected_regions(image, file_format))


@pytest.mark.parametrize("file_format", FORMATS)
def test_format_is_recognised_by_content(tmp_path: Path, file_format: str) -> None:
    path = write_features(tmp_path, file_format, images_of(file_format, 1))
    renamed = path.rename(tmp_path / "renamed.bin")
    assert recognise_format(renamed) == file_format
    assert open_features(renamed, allow_pickle=True, **OPENING.get(file_format, {})).extractor["format"] == file_format


@pytest.mark.parametrize("file_format", FORMATS)
def test_reading_resumes_at_a_position(tmp_path: Path, file_format: str) -> None:
    images = images_of(file_format)
    source = open_features(
        write_features(tmp_path, file_format, images), allow_pickle=True, **OPENING.get(file_format, {})
    )
    everything = positions(source)
    assert [position.where for position in positions(source, 2)] == [position.where for position in everything[2:]]
    assert positions(source, 4) == []
    assert source.total in (None, 4)


@pytest.mark.parametrize("file_format", FORMATS)
def test_extractor_does_not_depend_on_the_file(tmp_path: Path, file_format: str) -> None:
    sources = []
    for seed in (0, 1):
        (folder := tmp_path / str(seed)).mkdir()
        path = write_features(folder, file_format, images_of(file_format, seed + 1, seed=seed))
        sources.append(open_features(path, allow_pickle=True, **OPENING.get(file_format, {})))
    assert sources[0].extractor == sources[1].extractor
    assert sources[0].origin != sources[1].origin


@pytest.mark.parametrize("file_format", FORMATS)
def test_path_like_ids_are_only_data(tmp_path: Path, file_format: str) -> None:
    folder = file_format.endswith("_folder")
    ids = ["..", "a..b", "é" * 40, "e\u0301"] if folder else ["../../x", "/abs/olute", "a" * 400, "é e\u0301"]
    ids = [id.replace("/", "-") for id in ids] if file_format.endswith("_h5") else ids  # / makes groups there
    images = images_of(file_format, ids=ids)
    source = open_features(
        write_features(tmp_path, file_format, images), allow_pickle=True, **OPENING.get(file_format, {})
    )
    assert sorted(str(got.image_id) for got in regions(source)) == sorted(ids)


def test_every_format_has_a_writer_here() -> None:
    assert set(WRITERS) == set(FORMATS)


def test_null_character_in_an_id_is_kept(tmp_path: Path) -> None:
    images = make_images(1, ids=["a\0b"])
    assert regions(open_features(write_tsv(tmp_path / "x.tsv", images, LXMERT)))[0].image_id == "a\0b"


def test_class_names_are_passed_on(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", make_images(1), LXMERT)
    assert open_features(path, class_names=NAMES).class_names == NAMES
    assert open_features(path).class_names is None


def test_unknown_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\tworld\nmore\n")
    with pytest.raises(ValueError, match=r"notes.txt is not HDF5.*first lines have \[2, 1\] columns"):
        open_features(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match=r"missing\.tsv does not exist"):
        open_features(tmp_path / "missing.tsv")
    with pytest.raises(ValueError, match=r"no data.mdb, .npz or .npy file"):
        open_features(tmp_path)
    with pytest.raises(ValueError, match="format is 'tsv', expected one of bottom_up_tsv"):
        open_features(tmp_path / "notes.txt", "tsv")
    with pytest.raises(ValueError, match=r"notes.txt is a file, which a npz_folder is not"):
        open_features(tmp_path / "notes.txt", "npz_folder")


def test_damaged_first_line_does_not_hide_the_format(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", make_images(2), BOTTOM_UP)
    path.write_bytes(b"torn\tline\n" + path.read_bytes())
    source = open_features(path)
    assert [type(position) for position in positions(source)] == [Rejected, Found, Found]


@pytest.mark.skipif(
    not REAL.is_file(),
    reason="MMPT_TEST_DATA has no coco_obj36/train2014_obj36_8.tsv; it is the first 8 rows of train2014_obj36.tsv, "
    "in features_extraction of https://github.com/e-bug/volta",
)
def test_real_rows_are_read_bit_by_bit() -> None:
    csv.field_size_limit(2**30)
    with REAL.open(newline="") as file:
        rows = list(csv.DictReader(file, LXMERT, delimiter="\t"))
    got = regions(open_features(REAL))
    assert recognise_format(REAL) == "lxmert_tsv"
    assert len(got) == len(rows) == 8
    for image, row in zip(got, rows, strict=True):
        n, size = int(row["num_boxes"]), (int(row["img_w"]), int(row["img_h"]))
        assert (image.image_id, image.width, image.height, len(image)) == (row["img_id"], *size, n)
        decoded = {name: base64.b64decode(row[name]) for name in LXMERT if len(row[name]) > 100}
        assert image.features.tobytes() == decoded["features"]
        assert image.features.shape == (36, 2048)
        pixels = np.frombuffer(decoded["boxes"], np.float32).reshape(n, 4)
        assert image.boxes.tobytes() == (pixels / np.float32([*size, *size])).tobytes()
        for field, name in {"labels": "objects_id", "attribute_labels": "attrs_id"}.items():
            assert getattr(image, field).tobytes() == decoded[name]
        for field, name in {"scores": "objects_conf", "attribute_scores": "attrs_conf"}.items():
            assert getattr(image, field).tobytes() == decoded[name]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = write_tsv(tmp_path / f"{count}.tsv", [], LXMERT)
        line = write_tsv(tmp_path / "line.tsv", make_images(1, dim=2048), LXMERT).read_bytes()
        path.write_bytes(line * count)
        tracemalloc.start()
        for group in open_features(path).groups(3):
            assert isinstance(group[0], Found)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    few = peak(20)
    assert peak(2000) < 1.1 * few + 20_000


def test_lxmert_has_height_before_width_and_bottom_up_the_other_way_round(tmp_path: Path) -> None:
    assert COLUMNS["lxmert_tsv"][1:3] == ("img_h", "img_w")
    assert COLUMNS["bottom_up_tsv"][1:3] == ("image_w", "image_h")
    image = make_images(1)[0]
    for columns in (LXMERT, BOTTOM_UP):
        got = regions(open_features(write_tsv(tmp_path / "x.tsv", [image], columns)))[0]
        assert (got.width, got.height) == (image["w"], image["h"])


def test_volta_labels_are_columns_of_the_class_probabilities(tmp_path: Path) -> None:
    images = make_images(20)
    source = open_features(write_features(tmp_path, "volta_tsv", images))
    assert source.extractor["label_space"] == "background_first"
    for got in regions(source):
        assert got.class_probs is not None
        np.testing.assert_array_equal(got.labels, got.class_probs[:, 1:].argmax(1) + 1)
        np.testing.assert_array_equal(got.scores, got.class_probs[np.arange(len(got)), got.labels])


def test_file_without_class_probabilities_keeps_its_own_labels(tmp_path: Path) -> None:
    for file_format in ("lxmert_tsv", "volta_h5"):
        images = make_images(2)
        source = open_features(write_features(tmp_path, file_format, images))
        assert source.extractor["label_space"] == "no_background"
        for got, image in zip(regions(source), images, strict=True):
            np.testing.assert_array_equal(got.labels, image["labels"])


def test_float64_arrays_of_a_tsv_are_recognised_by_their_size(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        image = make_images(1, dim=2048)[0]
        written = image | {"boxes": image["boxes"].astype(np.float64), "features": image["features"].astype(dtype)}
        got = regions(open_features(write_tsv(tmp_path / "x.tsv", [written], BOTTOM_UP)))[0]
        np.testing.assert_array_equal(got.features, image["features"])
        assert got.features.dtype == np.float32


def test_uniter_values_of_msgpack_are_read(tmp_path: Path) -> None:
    images = make_images(4)
    source = open_features(write_uniter(tmp_path / "feat_numbb36", images, compressed=False))
    assert source.extractor["format"] == "uniter_lmdb"
    for got, image in zip(regions(source), images, strict=True):
        assert_same(got, expected_regions(image, "uniter_lmdb"))


def test_uniter_file_of_region_numbers_is_followed(tmp_path: Path) -> None:
    images = [image for image in make_images(9) if image["n"] > 1][:2]
    path = write_uniter(tmp_path / "all", images)
    counts = tmp_path / "nbb_th0.2_max100_min10.json"
    counts.write_text(f'{{"{images[0]["id"]}.npz": 1}}')
    one, missing = positions(open_features(path, num_boxes_path=counts))
    assert isinstance(one, Found)
    assert_same(one.regions, expected_regions(images[0], "uniter_lmdb").select(np.arange(1)))
    assert isinstance(missing, Rejected)
    assert "but not this one" in missing.reason
    with pytest.raises(ValueError, match="expected it for a uniter_lmdb only"):
        open_features(write_tsv(tmp_path / "x.tsv", images, LXMERT), num_boxes_path=counts)


def test_volta_lmdbs_of_base64_and_of_arrays_are_read(tmp_path: Path) -> None:
    def from_h5(image: dict[str, Any]) -> dict[str, Any]:
        fields = dict(features="features", boxes="boxes", obj_id="labels", obj_conf="scores", img_w="w", img_h="h")
        fields |= dict(attr_id="attrs", attr_conf="attr_scores")
        item: dict[str, Any] = {name: np.asarray(image[field])[()] for name, field in fields.items()}
        return item | {"img_id": image["id"]}

    def from_tsv(image: dict[str, Any]) -> dict[str, Any]:
        return {name: str(value) for name, value in lxmert_row(image).items()}  # csv gives strings

    for item, wanted in ((from_h5, "volta_h5"), (from_tsv, "volta_tsv")):
        images = make_images(3)
        path = write_lmdb(tmp_path / wanted, pickled_entries(images, item))
        source = open_features(path, allow_pickle=True)
        assert source.extractor["label_space"] == ("background_first" if item is from_tsv else "no_background")
        for got, image in zip(regions(source), images, strict=True):
            assert_same(got, expected_regions(image, wanted))


def test_oscar_features_of_float16_and_in_json_are_read(tmp_path: Path) -> None:
    images = make_images(2, dim=2048)
    for dtype, as_json in (("f2", False), ("f4", True), ("f2", True)):
        path = write_oscar(tmp_path / "features.tsv", images, dtype, as_json)
        assert recognise_format(path) == "oscar_tsv"
        for got, image in zip(regions(open_features(path)), images, strict=True):
            wanted = expected_regions(image, "oscar_tsv")
            np.testing.assert_array_equal(got.features, wanted.features.astype(dtype), strict=True)
            np.testing.assert_array_equal(got.boxes, wanted.boxes.astype(dtype).astype(np.float32), strict=True)


def test_predictions_beside_oscar_features_give_size_scores_and_labels(tmp_path: Path) -> None:
    images = make_images(3, dim=2048)
    path = write_oscar(tmp_path / "features.tsv", images)
    write_predictions(tmp_path / "predictions.tsv", images, NAMES)
    for start in (0, 1):
        for position, image in zip(
            positions(open_features(path, class_names=NAMES), start), images[start:], strict=True
        ):
            assert isinstance(position, Found)
            assert (position.regions.width, position.regions.height) == (image["w"], image["h"])
            np.testing.assert_array_equal(position.regions.labels, image["labels"])
            np.testing.assert_array_equal(position.regions.scores, image["scores"])
    assert regions(open_features(path))[0].labels is None


def test_predictions_in_another_order_are_rejected(tmp_path: Path) -> None:
    images = make_images(2, dim=2048)
    path = write_oscar(tmp_path / "features.tsv", images)
    write_predictions(tmp_path / "predictions.tsv", images[::-1], NAMES)
    for position in positions(open_features(path)):
        assert isinstance(position, Rejected)
        assert "both files need the same order" in position.reason
    write_predictions(tmp_path / "predictions.tsv", images[:1], NAMES)
    assert [type(position) for position in positions(open_features(path))] == [Found, Rejected]


@pytest.mark.parametrize("transposed", [False, True])
def test_openvqa_files_are_read(tmp_path: Path, transposed: bool) -> None:
    images = [image for image in make_images(9) if image["n"] > 1]
    source = open_features(write_npz_folder(tmp_path / "npz", images, uniter=False, transposed=transposed))
    for got, image in zip(regions(source), images, strict=True):
        assert_same(got, expected_regions(image, "openvqa"))


def test_lmdb_that_is_one_file_is_read(tmp_path: Path) -> None:
    image = make_images(1)[0]
    path = write_lmdb(tmp_path / "one.mdb", {b"a.npz": uniter_value(image, True)}, subdir=False)
    assert recognise_format(path) == "uniter_lmdb"
    assert [got.image_id for got in regions(open_features(path))] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["one.mdb"]  # no lock file


def test_array_of_python_2_is_read_without_a_warning() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }".ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.arange(6, dtype="<f4").tobytes()
    np.testing.assert_array_equal(decode_npy(data, "x"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("file_format", ["bottom_up_tsv", "lxmert_tsv", "volta_tsv"])
@pytest.mark.parametrize("kind", ["relu", "normal", "sparse"])
@pytest.mark.parametrize("dim", [40, 2048])
def test_the_type_of_features_in_a_tsv_is_recognised(tmp_path: Path, file_format: str, kind: str, dim: int) -> None:
    rng = np.random.default_rng(3)
    images = make_images(3, dim=dim)
    for image in images:
        values = rng.normal(size=(image["n"], dim)) * 0.8
        image["features"] = {
            "relu": np.abs(values),
            "normal": values,
            "sparse": np.where(rng.random(values.shape) < 0.7, 0, np.abs(values)),
        }[kind].astype(np.float32)
    columns = {"bottom_up_tsv": BOTTOM_UP, "lxmert_tsv": LXMERT, "volta_tsv": VOLTA}[file_format]
    for dtype in (np.float32, np.float16):
        written = [{**image, "features": image["features"].astype(dtype)} for image in images]
        source = open_features(write_tsv(tmp_path / f"{np.dtype(dtype)}.tsv", written, columns))
        for got, image in zip(regions(source), written, strict=True):
            np.testing.assert_array_equal(got.features.astype(np.float32), image["features"].astype(np.float32))
        assert any("float16" in note for note in source.notes) == (dtype == np.float16)


@pytest.mark.parametrize("rounding", [np.float16, "bfloat16"])
def test_float32_of_rounded_numbers_stays_float32(tmp_path: Path, rounding: Any) -> None:
    images = make_images(3, dim=2048)
    for image in images:
        features = image["features"]
        if rounding == "bfloat16":
            image["features"] = (features.view(np.uint32) & 0xFFFF0000).view(np.float32)
        else:
            image["features"] = features.astype(rounding).astype(np.float32)
    for got, image in zip(regions(open_features(write_tsv(tmp_path / "x.tsv", images, LXMERT))), images, strict=True):
        np.testing.assert_array_equal(got.features, image["features"])


def test_a_named_type_is_used_and_a_wrong_one_refused(tmp_path: Path) -> None:
    images = make_images(2, dim=40)
    for image in images:
        image["features"] = image["features"].astype(np.float16)
    path = write_tsv(tmp_path / "x.tsv", images, LXMERT)
    assert regions(open_features(path, dtype="float16"))[0].features.shape[1] == 40
    assert regions(open_features(path, dtype="float32"))[0].features.shape[1] == 20
    with pytest.raises(MmptError, match="dtype 'int8' was given for a lxmert_tsv, expected float16"):
        open_features(path, dtype="int8")


def test_boxes_that_no_file_has_need_a_word_of_the_user(tmp_path: Path) -> None:
    path = write_features(tmp_path, "npy_folder", make_images(2))
    with pytest.raises(MmptError, match=r"contains features without boxes .*--boxes whole_image"):
        open_features(path)
    with pytest.raises(MmptError, match="boxes 'whole_image' was given for a npz_folder"):
        open_features(write_features(tmp_path, "npz_folder", make_images(2)), boxes="whole_image")


@pytest.mark.parametrize("columns", [4, 5, 6])
def test_boxes_alone_are_no_features(tmp_path: Path, columns: int) -> None:
    (tmp_path / "cocobu_box").mkdir()
    np.save(tmp_path / "cocobu_box" / "9.npy", np.ones((20, columns), np.float32))
    with pytest.raises(MmptError, match=rf"contains boxes without features: 9\.npy is 20 x {columns}"):
        open_features(tmp_path / "cocobu_box")


def test_mmf_features_without_their_boxes_are_rejected_by_name(tmp_path: Path) -> None:
    path = write_features(tmp_path, "mmf_folder", make_images(3, ids=["a", "b", "c"]))
    (path / "b_info.npy").unlink()
    np.save(path / "c.npy", np.ones((9, 8), np.float32))
    found, missing, other = positions(open_features(path, allow_pickle=True))
    assert isinstance(found, Found)
    assert isinstance(missing, Rejected)
    assert "b_info.npy, which has the boxes, cannot be read" in missing.reason
    assert isinstance(other, Rejected)


def test_folders_below_are_read_links_followed_and_loops_left(tmp_path: Path) -> None:
    folder = tmp_path / "npz"
    (folder / "train").mkdir(parents=True)
    write_npz_folder(folder / "train" / "part", make_images(1, ids=["a"]))
    elsewhere = write_npz_folder(tmp_path / "elsewhere", make_images(2, ids=["b", "c"]))
    (folder / "val").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    (folder / "notes.txt").write_text("mine")
    source = open_features(folder)
    assert [got.image_id for got in regions(source)] == ["a", "b", "c"]
    assert "1 other files are skipped: notes.txt" in source.notes
    (folder / "train" / "part" / "a.npz").rename(folder / "train" / "part" / "b.npz")
    source = open_features(folder)
    assert [got.image_id for got in regions(source)] == ["train/part/b", "val/b", "val/c"]
    assert any("ids are paths" in note for note in source.notes)


def test_uniters_numbers_of_regions_beside_the_file_are_used(tmp_path: Path) -> None:
    images = make_images(3)
    path = write_uniter(tmp_path / "feat_th0.2_max100_min10", images)
    counts = {f"{image['id']}.npz": 1 for image in images}
    (tmp_path / "nbb_th0.2_max100_min10.json").write_text(json.dumps(counts))
    source = open_features(path)
    assert [len(got.features) for got in regions(source)] == [1, 1, 1]
    assert any("nbb_th0.2_max100_min10.json" in note for note in source.notes)
    (tmp_path / "nbb_th0.2_max100_min10.json").rename(tmp_path / "nbb_a.json")
    (tmp_path / "nbb_b.json").write_text("{}")
    with pytest.raises(MmptError, match=r"are nbb_a\.json, nbb_b\.json; give the one .*--num-boxes-path"):
        open_features(path)
