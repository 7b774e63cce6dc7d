"""Damaged feature files: what is damaged is rejected with a reason, and what follows is read."""

import io
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgpack
import msgpack_numpy
import numpy as np
import pytest

from mmpt.processing.region_readers import container_process, tsv_reader
from mmpt.processing.region_readers.open_features import FORMATS, open_features
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.store.source import Found, RegionSource, Rejected
from tests.fuzz.feature_files import (
    BOTTOM_UP,
    LXMERT,
    OPENING,
    encode,
    lxmert_row,
    make_images,
    npz_bytes,
    pickled_entries,
    uniter_arrays,
    vilbert_item,
    write_features,
    write_h5,
    write_lmdb,
    write_npy_folder,
    write_npz_folder,
    write_oscar,
    write_tsv,
    write_uniter,
    write_vilbert,
)

IMAGES = make_images(3)


def positions(source: RegionSource) -> list[Found | Rejected]:
    return [position for group in source.groups(0) for position in group]


def reason(position: Found | Rejected) -> str:
    assert isinstance(position, Rejected), position
    return position.reason


def lxmert_with(folder: Path, **changes: Any) -> list[Found | Rejected]:
    """Return what is read from three images, the middle one having other fields."""
    path = folder / "train.tsv"
    rows = [lxmert_row(image) for image in IMAGES]
    rows[1] |= changes
    path.write_bytes(b"".join("\t".join(str(row[name]) for name in LXMERT).encode() + b"\r\n" for row in rows))
    found = positions(open_features(path))
    assert isinstance(found[0], Found)
    assert isinstance(found[2], Found)
    assert len(found) == 3
    return found


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def test_row_with_missing_or_extra_columns_is_rejected_with_its_line(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "train.tsv", IMAGES, LXMERT)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1:2] = [lines[1].rsplit(b"\t", 1)[0] + b"\r\n", b"x\t" + lines[1], b"\r\n"]
    path.write_bytes(b"".join(lines))
    found = positions(open_features(path))
    assert [type(position) for position in found] == [Found, Rejected, Rejected, Rejected, Found]
    assert found[1].where == "train.tsv, line 2"
    assert "has 9 columns, expected the 10 of lxmert_tsv: img_id, img_h" in reason(found[1])
    assert isinstance(found[1], Rejected)
    assert found[1].image_id == IMAGES[1]["id"]
    assert "has 11 columns" in reason(found[2])
    assert "has 1 columns" in reason(found[3])


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 8])
def test_cut_base64_is_rejected(tmp_path: Path, cut: int) -> None:
    for column in ("boxes", "features", "objects_id", "attrs_conf"):
        assert reason(lxmert_with(tmp_path, **{column: lxmert_row(IMAGES[1])[column][:-cut]})[1])


def test_base64_with_other_characters_is_rejected(tmp_path: Path) -> None:
    text = lxmert_row(IMAGES[1])["boxes"]
    for wrong in (text[:5] + "!" + text[6:], text + "\v", text + "AAAA", " " + text, f"b'{text}'"):
        assert "boxes" in reason(lxmert_with(tmp_path, boxes=wrong)[1])


def test_wrong_number_of_boxes_names_both_sizes(tmp_path: Path) -> None:
    n = IMAGES[1]["n"]
    message = reason(lxmert_with(tmp_path, num_boxes=n + 1)[1])
    assert f"boxes has {16 * n} bytes, expected {16 * n + 16} ({n + 1} x 4 float32) or {32 * n + 32}" in message
    for wrong in (0, -1, 1e9, "", "x", "1_0", "9" * 5000, 10**12):
        assert "num_boxes is" in reason(lxmert_with(tmp_path, num_boxes=wrong)[1])


def test_wrong_type_names_the_sizes_that_fit(tmp_path: Path) -> None:
    message = reason(lxmert_with(tmp_path, boxes=encode(IMAGES[1]["boxes"].astype(np.float16)))[1])
    assert "float32) or" in message
    assert "float64)" in message
    assert "labels has" in reason(lxmert_with(tmp_path, objects_id=encode(IMAGES[1]["labels"].astype(np.int16)))[1])
    image = IMAGES[1] | {"boxes": IMAGES[1]["boxes"].astype(np.float64)}
    message = reason(lxmert_with(tmp_path, boxes=encode(image["boxes"]))[1])
    assert "2048 float64" in message  # beside float64 boxes, the width must tell the type


def test_row_of_real_size_needs_no_raised_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = make_images(1)[0]
    boxes = np.tile(np.float32([1, 1, 9, 9]), (36, 1))
    image |= dict(n=36, boxes=boxes, features=rng.random((36, 2048), np.float32))
    path = write_tsv(tmp_path / "x.tsv", [image], BOTTOM_UP)
    assert path.stat().st_size > 393_000
    assert isinstance(positions(open_features(path))[0], Found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_box_that_is_not_finite_is_rejected(tmp_path: Path, value: float) -> None:
    boxes = IMAGES[1]["boxes"].copy()
    boxes[0, 2] = value
    assert "boxes" in reason(lxmert_with(tmp_path, boxes=encode(boxes))[1])


def test_boxes_outside_or_inverted_are_rejected(tmp_path: Path) -> None:
    boxes = IMAGES[1]["boxes"]
    assert "is inverted" in reason(lxmert_with(tmp_path, boxes=encode(boxes[:, [2, 3, 0, 1]]))[1])
    assert "coordinates run from" in reason(lxmert_with(tmp_path, img_w=int(boxes[:, 2].max() * 0.9))[1])
    assert "look normalised already" in reason(lxmert_with(tmp_path, boxes=encode(boxes / 1000))[1])


def test_id_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", IMAGES, LXMERT)
    path.write_bytes(path.read_bytes().replace(IMAGES[1]["id"].encode(), b"\xff\xfe"))
    found = positions(open_features(path))
    assert [type(position) for position in found] == [Found, Rejected, Found]
    assert "expected UTF-8 text" in reason(found[1])


def test_last_line_that_was_torn_is_rejected(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", IMAGES, LXMERT)
    path.write_bytes(path.read_bytes()[:-9])
    assert [type(position) for position in positions(open_features(path))] == [Found, Found, Rejected]


def test_line_without_end_is_rejected_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsv_reader, "MAX_LINE", 2000)
    path = write_tsv(tmp_path / "x.tsv", IMAGES, LXMERT)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"x" * 3_000_000 + b"\n" + lines[1])
    found = positions(open_features(path))
    assert [type(position) for position in found] == [Found, Rejected, Found]
    assert "more than 2000 bytes" in reason(found[1])
    path.write_bytes(lines[0] + b"x" * 3_000_000)
    assert [type(position) for position in positions(open_features(path))] == [Found, Rejected]


def test_damaged_json_of_oscar_is_rejected(tmp_path: Path) -> None:
    images = make_images(3, dim=2048)
    path = write_oscar(tmp_path / "features.tsv", images, as_json=True)
    lines = path.read_text().splitlines()
    for wrong in (lines[1][:-1], 'x\t{"num_boxes": 2, "features": 3}', 'x\t{"num_boxes": 1e999, "features": ""}', "x"):
        path.write_text("\n".join([lines[0], wrong, lines[2]]))
        assert [type(position) for position in positions(open_features(path))] == [Found, Rejected, Found]
    path.write_text("\n".join([lines[0], "x\t" + "[" * 100_000, lines[2]]))
    assert [type(position) for position in positions(open_features(path))] == [Found, Rejected, Found]


def test_pickled_files_are_refused_without_consent(tmp_path: Path) -> None:
    lmdb_path = write_vilbert(tmp_path / "a.lmdb", IMAGES)
    npy_path = write_npy_folder(tmp_path / "npy", IMAGES, pickled=True)
    for path in (lmdb_path, npy_path):
        with pytest.raises(ValueError, match="read only with allow_pickle=True"):
            open_features(path)
        with pytest.raises(ValueError, match="read only with allow_pickle=True"):
            open_features(path, "pickled_lmdb" if path == lmdb_path else "pickled_npy_folder")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_payload_of_a_pickle_is_never_executed(tmp_path: Path, protocol: int, allow_pickle: bool) -> None:
    target = tmp_path / "executed"
    item = vilbert_item(IMAGES[1]) | {"extra": Payload(target)}
    entries = pickled_entries(IMAGES, vilbert_item, protocol=protocol)
    entries[IMAGES[1]["id"].encode()] = pickle.dumps(item, protocol=protocol)
    entries[b"keys"] = pickle.dumps(Payload(target))
    path = write_lmdb(tmp_path / "a.lmdb", entries)
    folder = write_npy_folder(tmp_path / "npy", IMAGES, pickled=True)
    np.save(folder / f"{IMAGES[1]['id']}.npy", np.array(item, dtype=object))
    for place in (path, folder):
        if allow_pickle:
            found = positions(open_features(place, allow_pickle=True))
            assert [type(position) for position in found] == [Found, Rejected, Found]
            assert "mkdir'; it was refused" in reason(found[1])
        else:
            with pytest.raises(ValueError, match="allow_pickle"):
                open_features(place)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_and_plain_values_are_read(protocol: int) -> None:
    item = {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 4), np.float16),
        "flags": np.array([True, False]),
        "scalar": np.float32(2.5),
        "text": np.str_("é"),
        "bytes": b"\xff\0",
        "list": [1, -2, 2**70, 0.5, None, True, ("a", "é"), {}],
        3: bytearray(b"abc"),
    }
    if protocol < 5:
        item[3] = b"abc"  # older protocols call bytearray
    got = load_pickle(pickle.dumps(item, protocol=protocol))
    assert got.keys() == item.keys()
    for key, value in item.items():
        if isinstance(value, np.ndarray | np.generic):
            np.testing.assert_array_equal(got[key], value)
            assert np.asarray(got[key]).dtype == value.dtype
        else:
            assert got[key] == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"}",
        b"\x80\x04K\x01",
        b"\x80\x04r\xff\xff\xff\x7f.",  # a memo that would fill the memory
        b"\x80\x04]" + b"2\x86" * 200 + b"}2s.",  # a key that would take for ever to hash
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\ndtype\n(cnumpy\ndtype\ntR.",
        b"P1\n.",
        b"\x82\x01.",
        b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
def test_damaged_or_malicious_pickle_is_a_value_error(data: bytes) -> None:
    if data.startswith(b"]]"):
        assert isinstance(load_pickle(data), list)  # deep, but nothing descends into it
        return
    with pytest.raises(ValueError, match=r"pickle|expected|exhausted"):
        load_pickle(data)


def test_arrays_of_objects_in_an_npz_are_not_read(tmp_path: Path) -> None:
    path = write_npz_folder(tmp_path / "npz", IMAGES)
    target = tmp_path / "executed"
    arrays = uniter_arrays(IMAGES[1])
    bad = {"features": np.array([Payload(target)], dtype=object)}
    (path / f"{IMAGES[1]['id']}.npz").write_bytes(npz_bytes(**(arrays | bad)))
    found = positions(open_features(path))
    assert [type(position) for position in found] == [Found, Rejected, Found]
    assert "holds objects" in reason(found[1])
    assert not target.exists()


def test_arrays_of_objects_in_msgpack_are_not_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    bad = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(Payload(target))}
    value = msgpack.packb(uniter_arrays(IMAGES[0]) | {"conf": bad}, default=msgpack_numpy.encode)
    found = positions(open_features(write_lmdb(tmp_path / "a", {b"a.npz": value})))
    assert "expected plain numbers" in reason(found[0])
    assert not target.exists()


def test_zip_bomb_is_rejected_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_npz_folder(tmp_path / "npz", IMAGES)
    bomb = npz_bytes(features=np.zeros((1000, 25_000), np.float64), norm_bb=np.zeros((1000, 6)))
    assert len(bomb) < 300_000
    (path / f"{IMAGES[1]['id']}.npz").write_bytes(bomb)
    found = positions(open_features(path))
    assert "200000128; this looks like a zip bomb".removeprefix("200000128; ") in reason(found[1])
    assert isinstance(found[2], Found)


def test_npz_that_declares_too_much_is_rejected(tmp_path: Path) -> None:
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 2048), }".ljust(117)
        + b"\n"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("features.npy", header + b"1234")
        archive.writestr("norm_bb.npy", header)
    path = write_npz_folder(tmp_path / "npz", IMAGES)
    (path / f"{IMAGES[1]['id']}.npz").write_bytes(buffer.getvalue())
    assert "shape" in reason(positions(open_features(path))[1])


def test_cut_npz_is_rejected(tmp_path: Path) -> None:
    path = write_npz_folder(tmp_path / "npz", IMAGES)
    file = path / f"{IMAGES[1]['id']}.npz"
    whole = file.read_bytes()
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert [type(position) for position in positions(open_features(path))] == [Found, Rejected, Found]


def test_arrays_that_disagree_are_rejected(tmp_path: Path) -> None:
    path = write_npz_folder(tmp_path / "npz", IMAGES)
    file = path / f"{IMAGES[1]['id']}.npz"
    arrays = uniter_arrays(IMAGES[1])
    for bad in (
        {"conf": arrays["conf"][:0]},
        {"norm_bb": arrays["norm_bb"][:, :5]},
        {"features": arrays["features"][0]},
        {"features": arrays["features"].astype(np.int64)},
        {"norm_bb": np.array(1.0)},
    ):
        file.write_bytes(npz_bytes(**(arrays | bad)))
        assert reason(positions(open_features(path))[1])


def test_cut_lmdb_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_uniter(tmp_path / "feat", make_images(50, dim=512))
    data = path / "data.mdb"
    whole = data.read_bytes()
    for size in (100, 4096, len(whole) // 2, len(whole) - 4096):
        data.write_bytes(whole[:size])
        try:
            found = positions(open_features(path, "uniter_lmdb"))
        except ValueError as error:
            assert "feat cannot be opened as lmdb" in str(error)  # noqa: PT017
        else:
            assert isinstance(found[-1], Rejected)


def test_value_that_crashes_the_library_is_rejected_and_the_next_one_read(tmp_path: Path) -> None:
    """The file ends within the pages of the second value, so that touching the others is a bus error."""
    source, cut = lmdb_that_ends_early(tmp_path)
    cut(4000)
    found = positions(source)
    assert [type(position) for position in found] == [Found, Rejected, Found]
    assert found[1].where == "feat, key 'b.npz'"
    assert reason(found[1]).startswith("the library crashed (exit status -")


def test_entries_after_a_crash_while_skipping_are_rejected_together(tmp_path: Path) -> None:
    """The file ends before the head of the second value, which the library reads to pass it."""
    source, cut = lmdb_that_ends_early(tmp_path)
    cut(-16)
    found = positions(source)
    assert [type(position) for position in found] == [Found, Rejected, Rejected]
    assert "the rest of the file cannot be reached: the library crashed" in reason(found[2])


def lmdb_that_ends_early(folder: Path) -> tuple[RegionSource, Callable[[int], int]]:
    """An open LMDB with a large value between two small ones, and what cuts the file behind the large one's start."""
    small, large = make_images(1)[0], make_images(1, dim=4000)[0]
    values = [npz_bytes(**uniter_arrays(image)) for image in (small, large, small)]
    path = write_lmdb(folder / "feat", dict(zip((b"a.npz", b"b.npz", b"c.npz"), values, strict=True)))
    data = (path / "data.mdb").read_bytes()
    place = data.find(values[1][:200])
    return open_features(path), lambda offset: (path / "data.mdb").write_bytes(data[: place + offset])


def test_process_that_dies_is_an_error_that_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_uniter(tmp_path / "feat", IMAGES)
    source = open_features(path)
    receive, frames = container_process._Worker.receive, []

    def dying(worker: Any) -> Any:
        frames.append(worker)
        if len(frames) == 6:  # open, skip, key, value, key, then the value of the second image
            worker.process.kill()
            worker.process.wait()
            worker.process.stdout.read()
        return receive(worker)

    monkeypatch.setattr(container_process._Worker, "receive", dying)
    found = positions(source)
    assert [type(position) for position in found] == [Found, Rejected, Found]
    assert found[1].where == f"feat, key '{IMAGES[1]['id']}.npz'"
    assert "the library crashed (exit status -9); the file is damaged" in reason(found[1])


def test_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_uniter(tmp_path / "feat", IMAGES)
    source = open_features(path)
    monkeypatch.setattr(container_process, "SECONDS", 0.2)
    monkeypatch.setattr(container_process._Worker, "send", lambda worker, request: None)
    started = time.monotonic()
    assert "took more than 0.2 seconds" in reason(positions(source)[0])
    assert time.monotonic() - started < 5


def test_reading_leaves_no_process_behind(tmp_path: Path) -> None:
    path = write_uniter(tmp_path / "feat", IMAGES)
    source = open_features(path)
    half_read = [source.groups(0) for _ in range(3)]
    for groups in half_read:
        next(groups)
    del groups, half_read
    assert len(container_process._idle) == 1
    worker = container_process._idle[0]
    container_process._stop_idle()
    assert worker.process.returncode is not None
    assert [type(position) for position in positions(source)] == [Found] * 3


def test_read_only_lmdb_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    path = write_uniter(tmp_path / "feat", IMAGES)
    (path / "data.mdb").chmod(0o444)
    path.chmod(0o555)
    try:
        assert [type(position) for position in positions(open_features(path))] == [Found] * 3
        assert [file.name for file in path.iterdir()] == ["data.mdb"]
    finally:
        path.chmod(0o755)


def test_tensorpack_lmdb_is_refused(tmp_path: Path) -> None:
    for value in (msgpack.packb([1] * 8), b"\xff\xff\xff\xff\x08\0\0\0"):
        path = write_lmdb(
            tmp_path / f"train{value[0]}", {b"00000000": value, b"__keys__": msgpack.packb([b"00000000"])}
        )
        with pytest.raises(ValueError, match=r"tensorpack's \(ViLBERT's pre-training data\) cannot be read"):
            open_features(path)


def test_value_above_the_bound_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmdb_path, h5_path = write_uniter(tmp_path / "feat", IMAGES), write_h5(tmp_path / "x.h5", IMAGES)
    monkeypatch.setattr(container_process, "MAX_VALUE", 100)
    assert "expected up to 100" in reason(positions(open_features(lmdb_path, "uniter_lmdb"))[1])
    assert "expected up to 100 bytes per image" in reason(positions(open_features(h5_path))[1])


def test_links_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    other = write_h5(tmp_path / "other.h5", IMAGES)
    path = write_h5(tmp_path / "x.h5", IMAGES[:1])
    with h5py.File(path, "a") as file:
        file["y"] = h5py.ExternalLink(str(other), IMAGES[1]["id"])
        file["z"] = h5py.SoftLink(f"/{IMAGES[0]['id']}")
        file["number"] = 3
        layout = h5py.VirtualLayout((1, 8), np.float32)
        layout[0] = h5py.VirtualSource(str(other), f"{IMAGES[1]['id']}/features", IMAGES[1]["features"].shape)[0]
        file.create_group("virtual").create_virtual_dataset("features", layout)
    found = positions(open_features(path))
    assert isinstance(found[0], Found)
    reasons = [reason(position) for position in found[1:]]
    assert "expected a group" in reasons[0]
    assert "stored in another file" in reasons[1]
    assert "ExternalLink, which is not followed" in reasons[2]
    assert "SoftLink, which is not followed" in reasons[3]


def test_group_without_features_is_rejected(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "x.h5", IMAGES)
    with h5py.File(path, "a") as file:
        del file[IMAGES[1]["id"]]["features"]
        del file[IMAGES[2]["id"]]["obj_id"]
        file[IMAGES[2]["id"]]["obj_id"] = np.zeros((99, 2), np.int64)
    found = positions(open_features(path))
    assert "there is no features or x, only" in reason(found[1])
    assert "labels has shape (99, 2)" in reason(found[2])


def test_cut_hdf5_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "x.h5", IMAGES)
    whole = path.read_bytes()
    for size in (8, 100, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x.h5 cannot be opened as hdf5"):
            open_features(path)


def test_missing_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmdb_path, h5_path = write_uniter(tmp_path / "feat", IMAGES), write_h5(tmp_path / "x.h5", IMAGES)
    monkeypatch.setattr("mmpt.processing.region_readers.file_source.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'lmdb is needed to read this file; pip install "mmpt\[lmdb\]"'):
        open_features(lmdb_path)
    with pytest.raises(ModuleNotFoundError, match=r'h5py is needed to read this file; pip install "mmpt\[hdf5\]"'):
        open_features(h5_path)


@pytest.mark.parametrize("file_format", FORMATS)
def test_empty_file_is_refused_or_has_no_positions(tmp_path: Path, file_format: str) -> None:
    path = write_features(tmp_path, file_format, make_images(1, dim=2048))
    for file in [path] if path.is_file() else list(path.iterdir()):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=path.name):
        open_features(path, allow_pickle=True)
    try:
        found = positions(open_features(path, file_format, allow_pickle=True, **OPENING.get(file_format, {})))
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017
    else:
        assert all(isinstance(position, Rejected) for position in found)
