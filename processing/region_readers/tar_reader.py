"""Reader of WebDataset's tar shards: the files of an image are consecutive and share the name up to the first dot."""

import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.array_archives import decode_npy, decode_npz
from mmpt.processing.region_readers.array_files_reader import walk_files
from mmpt.processing.region_readers.field_decoding import MAX_BYTES
from mmpt.processing.region_readers.file_source import FileSource, found_or_rejected
from mmpt.processing.region_readers.item_decoding import FIELD_NAMES, regions_of_item
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.region_readers.uniter_decoding import UNITER_FIELDS, regions_of_uniter
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected

FORMAT = "webdataset"
PICKLES = ("pkl", "pickle", "pyd")
_MAX_MEMBERS = 1000  # files per image; more mean another layout
_FIRST = 10  # images inspected to report which files are skipped


@dataclass
class _Sample:
    """The files of one image; the keys of `files` are the parts of the names after the first dot."""

    where: str
    key: str
    files: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""


def open_shards(path: Path, allow_pickle: bool = False) -> FileSource:
    """Open a tar file or a folder of tar files; its positions are the images in file order.

    The features of an image are in `features.npy` or `npy`. Other fields are in `<field>.npy`, with the names of the
    other formats. `json` and `npz` contain several fields.

    Args:
        allow_pickle: read pickled dicts (`.pkl`, `.pickle`, `.pyd`) too.

    Raises:
        ValueError: if there is no tar file.
    """
    if path.is_dir():
        names = [name for name in walk_files(path, "")[0] if name.lower().endswith((".tar", ".tar.gz", ".tgz"))]
        shards = [path / name for name in names]
    else:
        shards = [path]
    if not shards:
        raise MmptValueError(f"{path.name} has no .tar file, expected shards of WebDataset")

    def read(start: int) -> Iterator[Found | Rejected]:
        position = 0
        for shard in shards:
            for sample in _samples(shard):
                if position >= start:
                    yield _position(sample, allow_pickle)
                position += 1

    others = sorted({
        suffix
        for sample, _ in zip(_samples(shards[0]), range(_FIRST), strict=False)
        for suffix in sample.files
        if not _is_read(suffix, allow_pickle)
    })  # fmt: skip
    crc = 0
    for shard in shards:
        with shard.open("rb") as file:
            crc = zlib.crc32(os.fsencode(f"{shard.name} {shard.stat().st_size}") + file.read(2**16), crc)
    origin = {"file": path.name, "files": len(shards), "shards_crc32": crc, "format": FORMAT}
    notes = [f"{len(shards)} tar file{'' if len(shards) == 1 else 's'}"]
    if others:
        notes.append(f"the files .{', .'.join(others)} of the first images are skipped")
    return FileSource({"format": FORMAT, "label_space": "background_first"}, origin, read, notes=tuple(notes))


def _is_read(suffix: str, allow_pickle: bool) -> bool:
    return suffix in ("json", "npz", "npy") or suffix.endswith(".npy") or (allow_pickle and suffix in PICKLES)


def is_tar(head: bytes, path: Path) -> bool:
    """Return whether a file is a tar file, also a gzipped one, by its first 512 bytes."""
    return head[257:262] == b"ustar" or (head.startswith(b"\x1f\x8b") and _holds_tar(path))


def _holds_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, OSError, zlib.error):
        return False


def _samples(shard: Path) -> Iterator[_Sample]:
    """Yield the images of a shard; if it is damaged, the last one has a fault."""
    sample = None
    try:
        with tarfile.open(shard, "r|*") as archive:
            for member in archive:
                key, suffix = _key_and_suffix(member.name)
                if not member.isreg() or member.issparse() or not suffix or key.rpartition("/")[2].startswith("__"):
                    continue
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(f"{shard.name}, {key!r:.200}", key)
                if suffix in sample.files:
                    sample.fault = f"there are two files {suffix}"
                elif len(sample.files) >= _MAX_MEMBERS:
                    sample.fault = f"there are more than {_MAX_MEMBERS} files with the same name"
                elif sum(map(len, sample.files.values())) + member.size > MAX_BYTES:
                    sample.fault = (
                        f"the file {suffix} has {member.size} bytes, expected up to {MAX_BYTES} for one image"
                    )
                else:
                    read = archive.extractfile(member) if _is_read(suffix, True) else None
                    sample.files[suffix] = b"" if read is None else read.read(member.size)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        if sample is not None:
            yield sample
        yield _Sample(shard.name, "", fault=f"the rest of the shard cannot be read: {str(error)[:200]}")
        return
    if sample is not None:
        yield sample


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Return (WebDataset's key, suffix): the path up to the first dot of the file name, and the part after it."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}".removeprefix("./"), suffix.lower()


def _position(sample: _Sample, allow_pickle: bool) -> Found | Rejected:
    image_id = sample.key or None
    if sample.fault or image_id is None:
        return Rejected(sample.where, sample.fault or "the name has no part before the dot", image_id)
    return found_or_rejected(sample.where, image_id, lambda: _regions(sample.files, image_id, allow_pickle))


def _regions(files: Mapping[str, bytes], image_id: str, allow_pickle: bool) -> Regions:
    item: dict[str, Any] = {}
    for suffix, data in files.items():
        if suffix in PICKLES:
            if not allow_pickle:
                continue
            _add(item, _pickled(data, suffix), suffix)
        elif suffix == "npz":
            _add(item, decode_npz(data, (*UNITER_FIELDS, *FIELD_NAMES)), suffix)
        elif suffix == "json":
            _add(item, _json(data), suffix)
        elif suffix == "npy" or suffix.endswith(".npy"):
            name = suffix.removesuffix("npy").removesuffix(".") or "features"
            _add(item, {name: decode_npy(data, name)}, suffix)
    if "norm_bb" in item:
        return regions_of_uniter(
            {name: value for name, value in item.items() if isinstance(value, np.ndarray)}, image_id
        )
    pickled = [suffix for suffix in files if suffix in PICKLES]
    if pickled and not allow_pickle and not item.keys() & {"features", "x"}:
        raise MmptValueError(
            f"the file {pickled[0]} contains pickled objects, which are read only with allow_pickle=True "
            "(--allow-pickle); no code in them is run"
        )
    for side in ("width", "height"):  # names in img2dataset's json
        if side in item:
            item.setdefault(f"image_{side}", item[side])
    return regions_of_item(item, image_id)


def _add(item: dict[str, Any], given: Mapping[Any, Any], suffix: str) -> None:
    twice = sorted(str(name) for name in item.keys() & given.keys())
    if twice:
        raise MmptValueError(f"{twice[0]} is in the file {suffix} and in another one, expected it once")
    item.update(given)


def _pickled(data: bytes, suffix: str) -> Mapping[Any, Any]:
    item = load_pickle(data)
    if not isinstance(item, dict):
        raise MmptValueError(f"the file {suffix} contains {type(item).__name__}, expected a dict of one image")
    return item


def _json(data: bytes) -> Mapping[str, Any]:
    """Return the fields of a JSON object; lists of numbers become arrays."""
    try:
        item = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"the file json is not valid JSON: {error}") from None
    if not isinstance(item, dict):
        raise MmptValueError(f"the file json contains {type(item).__name__}, expected an object")
    return {
        name: _array(value, name) if isinstance(value, list) and name in FIELD_NAMES else value
        for name, value in item.items()
    }


def _array(value: list[Any], name: str) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:
        raise MmptValueError(f"{name} of the file json is not a table of numbers: its rows differ in length") from None
    if array.dtype.kind not in "fiu":
        raise MmptValueError(f"{name} of the file json is not a table of numbers")
    return array
