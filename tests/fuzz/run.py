"""Fuzzing of the readers: damaged feature files must give regions or a reason, and never run code.

Annotations, tables in any encoding and lists of images follow (tests/fuzz/annotations.py).

python -m tests.fuzz.run --inputs 10000
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.processing.region_readers.open_features import open_features
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected
from mmpt.processing.store.writer import RegionStoreWriter
from tests.fuzz.annotations import fuzz_annotations
from tests.fuzz.feature_files import (
    OPENING,
    WRITERS,
    expected_regions,
    make_images,
    shard_files,
    tar_bytes,
    uniter_arrays,
    uniter_value,
    vilbert_item,
    write_features,
    write_h5,
    write_lmdb,
)
from tests.fuzz.mutations import (
    PATH_LIKE,
    damage_arrays,
    damage_bytes,
    damage_msgpack,
    damage_npy,
    damage_npz,
    damage_pickle,
    damage_row,
)
from tests.fuzz.tally import Tally

IMAGES = 3
WIDTHS = {"oscar_tsv": 2048}  # of the features; 8 in the other formats
LINES = ("bottom_up_tsv", "lxmert_tsv", "volta_tsv", "oscar_tsv", "vinvl_predictions")
H5 = ("volta_h5", "bottom_up_h5", "meshed_memory_h5", "visdial_h5")
Rng = random.Random


@dataclass
class Input:
    """A damaged file.

    Args:
        whole: the images whose rows were not touched.
        positions: how many the file has, where the damage leaves that known.
    """

    path: Path
    whole: list[dict[str, Any]]
    positions: int | None = None


def damaged_input(rng: Rng, file_format: str, folder: Path, payload: Path) -> Input:
    """Write a file of the format and damage it: one row, or any byte."""
    images = make_images(IMAGES, seed=rng.randrange(50), dim=WIDTHS.get(file_format, 8))
    victim = rng.randrange(IMAGES)
    others = [image for place, image in enumerate(images) if place != victim]
    if file_format in LINES:
        path = write_features(folder, file_format, images)
        return _damage_lines(rng, path, victim, others)
    if file_format in ("uniter_lmdb", "pickled_lmdb"):
        return _damage_lmdb(rng, file_format, folder, images, victim, payload)
    if file_format == "volta_h5":
        return _damage_h5(rng, folder, images, victim, payload)
    if file_format.endswith("_h5"):
        return _damage_h5_table(rng, file_format, folder, images)
    if file_format == "webdataset":
        return _damage_shard(rng, folder, images, victim, payload)
    path = write_features(folder, file_format, images)
    suffix = "npz" if file_format == "npz_folder" else "npy"
    file = path / f"{images[victim]['id']}.{suffix}"
    if file_format == "npz_folder":
        file.write_bytes(damage_npz(rng, uniter_arrays(images[victim]), payload))
    elif file_format in ("npy_folder", "mmf_folder") or rng.random() < 0.5:
        if file_format == "mmf_folder" and rng.random() < 0.5:
            file = file.with_name(f"{images[victim]['id']}_info.npy")
        file.write_bytes(damage_npy(rng, file.read_bytes()))
    else:
        item = vilbert_item(images[victim])
        file.write_bytes(_npy_of_pickle(damage_pickle(rng, item, payload)))
    return Input(path, others, IMAGES)


def _damage_lines(rng: Rng, path: Path, victim: int, others: list[dict[str, Any]]) -> Input:
    data = path.read_bytes()
    if rng.random() < 0.4:
        data = damage_bytes(rng, data)
        others = []
    else:
        lines = data.split(b"\n")
        end = b"\r" if lines[victim].endswith(b"\r") else b""
        lines[victim] = damage_row(rng, lines[victim].removesuffix(b"\r")) + end
        data = b"\n".join(lines)
    path.write_bytes(data)
    return Input(path, others, data.count(b"\n") + (not data.endswith(b"\n") and bool(data)))


def _damage_lmdb(
    rng: Rng, file_format: str, folder: Path, images: list[dict[str, Any]], victim: int, payload: Path
) -> Input:
    pickled = file_format == "pickled_lmdb"
    compressed = rng.random() < 0.6
    suffix = "" if pickled else ".npz"
    values: dict[bytes, bytes] = {}
    for place, image in enumerate(images):
        key = f"{image['id']}{suffix}".encode()
        if place != victim:
            values[key] = _pickle(image) if pickled else uniter_value(image, compressed)
            continue
        if rng.random() < 0.1:
            key = rng.choice([name for name in PATH_LIKE if 0 < len(name) < 500]) + suffix.encode()
        if pickled:
            values[key] = damage_pickle(rng, vilbert_item(image), payload)
        else:
            damage: Callable[..., bytes] = damage_npz if compressed else damage_msgpack
            values[key] = damage(rng, uniter_arrays(image), payload)
    path = write_lmdb(folder / WRITERS[file_format][0], values)
    others = [image for place, image in enumerate(images) if place != victim]
    if rng.random() < 0.4:
        file = path / "data.mdb"
        file.write_bytes(damage_bytes(rng, file.read_bytes()))
        return Input(path, [])
    return Input(path, others, len(values))


def _damage_h5(rng: Rng, folder: Path, images: list[dict[str, Any]], victim: int, payload: Path) -> Input:
    import h5py

    path = write_h5(folder / "val.h5", images)
    if rng.random() < 0.5:
        path.write_bytes(damage_bytes(rng, path.read_bytes()))
        return Input(path, [])
    with h5py.File(path, "r+") as file:
        group: Any = file[images[victim]["id"]]
        arrays = damage_arrays(rng, {name: group[name][()] for name in group}, payload)
        for name in list(group):
            del group[name]
        for name, array in arrays.items():
            if np.asarray(array).dtype.kind in "fiubcS":
                group[name] = array
    return Input(path, [image for place, image in enumerate(images) if place != victim], IMAGES)


def _damage_h5_table(rng: Rng, file_format: str, folder: Path, images: list[dict[str, Any]]) -> Input:
    """Damage any byte of the file or of its index, or change one number of one table."""
    import h5py

    path = write_features(folder, file_format, images)
    index = path.with_name(f"{path.stem}_imgid2idx.pkl")
    if rng.random() < 0.6:
        file = index if index.exists() and rng.random() < 0.3 else path
        file.write_bytes(damage_bytes(rng, file.read_bytes()))
        return Input(path, [])
    with h5py.File(path, "r+") as opened:
        name = rng.choice([name for name in opened if opened[name].dtype.kind in "fi" and opened[name].size])
        opened[name][(0,) * opened[name].ndim] = (
            rng.choice((-1, 0, 1e9, float("nan"), float("inf"), 7))
            if (opened[name].dtype.kind == "f")
            else rng.choice((-1, 0, 2**31 - 1))
        )
        victims = (
            {0}
            if file_format != "meshed_memory_h5"
            else {place for place, image in enumerate(images) if name.startswith(f"{image['id']}_")}
        )
    others = [image for place, image in enumerate(images) if place not in victims]
    return Input(path, others, IMAGES)


def _damage_shard(rng: Rng, folder: Path, images: list[dict[str, Any]], victim: int, payload: Path) -> Input:
    path = folder / WRITERS["webdataset"][0]
    others = [image for place, image in enumerate(images) if place != victim]
    files = {name: data for image in images for name, data in shard_files(image).items()}
    name = rng.choice(list(shard_files(images[victim])))
    if rng.random() < 0.3:
        stem = name.partition(".")[0]
        files = {key: data for key, data in files.items() if key.partition(".")[0] != stem}
        files[f"{stem}.pkl"] = damage_pickle(rng, vilbert_item(images[victim]), payload)
    elif name.endswith(".npy"):
        files[name] = damage_npy(rng, files[name])
    else:
        files[name] = damage_bytes(rng, files[name])
    data = tar_bytes(files)
    if rng.random() < 0.4:
        path.write_bytes(damage_bytes(rng, data))
        return Input(path, [])
    path.write_bytes(data)
    return Input(path, others, IMAGES)


def _pickle(image: dict[str, Any]) -> bytes:
    import pickle

    return pickle.dumps(vilbert_item(image))


def _npy_of_pickle(data: bytes) -> bytes:
    """Return the `.npy` of an object array whose pickle is this."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def read_input(damaged: Input, file_format: str, rng: Rng, writer: RegionStoreWriter, tally: Tally) -> None:
    """Read a damaged file, and note every promise that is broken."""
    name = damaged.path.name
    asked = file_format if rng.random() < 0.7 else None
    options = OPENING.get(file_format, {})
    try:
        source = open_features(damaged.path, asked, allow_pickle=True, **options)
    except (ValueError, FileNotFoundError) as error:
        tally.refused += 1
        if name not in str(error):
            tally.faults.append(f"refused without naming {name}: {error}")
        if asked is not None and damaged.whole and file_format not in ("uniter_lmdb", "pickled_lmdb", *H5):
            tally.faults.append(f"refused though {len(damaged.whole)} rows are whole: {error}")
        return
    recognised = source.extractor["format"]
    positions = [item for group in source.groups(0) for item in group]
    for number, item in enumerate(positions):
        if name not in item.where and damaged.path.is_file():
            tally.faults.append(f"{item.where} does not name {name}")
        if isinstance(item, Rejected):
            tally.rejected += 1
            if not item.reason:
                tally.faults.append(f"{item.where} was rejected without a reason")
            continue
        tally.found += 1
        try:
            writer.add(replace(item.regions, image_id=f"{tally.inputs}-{number}"))
        except ValueError:
            continue
    if recognised != file_format:
        return
    if damaged.positions is not None and len(positions) != damaged.positions:
        tally.faults.append(f"{len(positions)} positions of {damaged.positions}")
    for image in damaged.whole:
        expected = expected_regions(image, file_format) if file_format != "oscar_tsv" else None
        same = [item for item in positions if isinstance(item, Found) and _is(item.regions, image, expected)]
        if not same:
            tally.faults.append(f"the whole row of {image['id']} was lost: {positions}"[:400])


def _is(regions: Regions, image: dict[str, Any], expected: Regions | None) -> bool:
    if regions.image_id != image["id"]:
        return False
    features = image["features"] if expected is None else expected.features
    return np.array_equal(regions.features, features) and (
        expected is None or np.allclose(regions.boxes, expected.boxes, atol=1e-6)
    )


def fuzz(file_format: str, inputs: int, seed: int = 0) -> Tally:
    """Read so many damaged files of a format."""
    tally, start = Tally(), time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        folder, payload = Path(base) / "input", Path(base) / "executed"
        with RegionStoreWriter(Path(base) / "store", extractor={}) as writer:
            writer.add(Regions(np.ones((1, 8)), [[0, 0, 1, 1]], image_id="first"))
            for number in range(inputs):
                tally.inputs += 1
                rng = random.Random(f"{seed} {file_format} {number}")
                folder.mkdir()
                before = len(tally.faults)
                try:
                    damaged = damaged_input(rng, file_format, folder, payload)
                    read_input(damaged, file_format, rng, writer, tally)
                except Exception as error:
                    tally.faults.append(f"{type(error).__name__}: {error}")
                if payload.exists():
                    tally.faults.append("code of the file was executed")
                    payload.rmdir()
                tally.faults[before:] = [f"{file_format} input {number}: {fault}" for fault in tally.faults[before:]]
                shutil.rmtree(folder)
    tally.seconds = time.perf_counter() - start
    return tally


def main() -> None:
    """Fuzz every reader, print a table, and exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="damaged feature files a reader")
    parser.add_argument("--annotations", type=int, default=2_000, help="damaged annotation files a layout")
    parser.add_argument("--reader", help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    only = arguments.reader
    print(f"{'reader':24}{'inputs':>8}{'found':>8}{'rejected':>10}{'refused':>9}{'faults':>8}{'seconds':>9}")
    faults = []
    features = ((name, fuzz(name, arguments.inputs, arguments.seed)) for name in WRITERS if only in (None, name))
    texts = () if only in WRITERS else fuzz_annotations(arguments.annotations, arguments.seed, only)
    for name, tally in chain(features, texts):
        faults += tally.faults
        print(
            f"{name:24}{tally.inputs:8}{tally.found:8}{tally.rejected:10}{tally.refused:9}{len(tally.faults):8}"
            f"{tally.seconds:9.0f}",
            flush=True,
        )
    for fault in faults[:50]:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
