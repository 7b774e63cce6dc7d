"""Reader of LMDB files: UNITER's arrays, and the pickled items of ViLBERT and VOLTA."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.array_archives import decode_msgpack, decode_npz
from mmpt.processing.region_readers.container_process import Container, Entry
from mmpt.processing.region_readers.field_decoding import MAX_REGIONS, text_of, whole_number
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.item_decoding import regions_of_item
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.region_readers.uniter_decoding import UNITER_FIELDS, regions_of_uniter
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected

SPECIAL_KEYS = ("__keys__", "keys")  # entries that list the other keys
_FIRST = 10  # entries inspected to recognise the format


def open_uniter_lmdb(path: Path, num_boxes_path: Path | None = None) -> FileSource:
    """Open UNITER's LMDB, compressed or not.

    Args:
        num_boxes_path: UNITER's nbb_*.json with the number of regions to keep of each image; None keeps all.
    """
    counts = None if num_boxes_path is None else _read_counts(num_boxes_path)

    def decode(key: str, value: bytes) -> Regions:
        count = None
        if counts is not None:
            if key not in counts:
                raise MmptValueError(f"the file with the numbers of regions has {len(counts)} images, but not this one")
            count = whole_number(counts[key], "the number of regions", MAX_REGIONS)
        arrays = decode_npz(value, UNITER_FIELDS) if value.startswith(b"PK") else decode_msgpack(value)
        return regions_of_uniter(arrays, key.removesuffix(".npz"), count)

    source = _source(path, "uniter_lmdb", "background_first", decode)
    if num_boxes_path is None:
        return source
    notes = (f"numbers of regions from {num_boxes_path.name}",)
    return replace(source, origin={**source.origin, "num_boxes": num_boxes_path.name}, notes=notes)


def open_pickled_lmdb(path: Path) -> FileSource:
    """Open ViLBERT's or VOLTA's LMDB of pickled items; no code in them is run."""

    def decode(key: str, value: bytes) -> Regions:
        item = load_pickle(value)
        if not isinstance(item, dict):
            raise MmptValueError(f"the pickle contains {type(item).__name__}, expected a dict of one image")
        return regions_of_item(item, key)

    source = _source(path, "pickled_lmdb", "no_background", decode)
    with_probs = any(
        isinstance(position, Found) and position.regions.class_probs is not None
        for position, _ in zip(source.read(0), range(_FIRST), strict=False)
    )
    return _source(path, "pickled_lmdb", "background_first", decode) if with_probs else source


def recognise_lmdb(path: Path) -> str:
    """Return the format of an LMDB by its first values.

    Raises:
        ValueError: if it cannot be opened, or has neither format.
    """
    entries = _container(path)
    entries.facts()
    for entry, _ in zip(entries.entries(0), range(_FIRST), strict=False):
        value = entry.blobs[0] if entry.blobs else b""
        if value.startswith(b"PK\x03\x04") or value[:1] in _MAPS:
            return "uniter_lmdb"
        if value[:1] == b"\x80" and value[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and value.endswith(b"."):
            return "pickled_lmdb"
        if value.startswith((b"(d", b"(l", b"}")):  # protocols 0 and 1
            return "pickled_lmdb"
        if value:
            break
    raise MmptValueError(
        f"{path.name} is an LMDB whose values are neither UNITER's arrays nor pickled items. tensorpack's (ViLBERT's "
        "pre-training data) cannot be read: its pyarrow serialisation no longer exists. Use the TSV it was made from"
    )


_MAPS = (*(bytes([0x81 + size]) for size in range(15)), b"\xde", b"\xdf")  # first byte of a msgpack dict


def _container(path: Path) -> Container:
    return Container("lmdb", path, {"ignored": SPECIAL_KEYS})


def _source(path: Path, file_format: str, label_space: str, decode: Callable[[str, bytes], Regions]) -> FileSource:
    container = _container(path)

    def read(start: int) -> Iterator[Found | Rejected]:
        for entry in container.entries(start):
            yield _position(path.name, entry, decode)

    data = path / "data.mdb" if path.is_dir() else path
    total = container.facts()["total"]
    origin = {**file_origin(data, file_format), "file": path.name, "entries": total}
    extractor = {"format": file_format, "label_space": label_space}
    return FileSource(extractor, origin, read, total)


def _position(name: str, entry: Entry, decode: Callable[[str, bytes], Regions]) -> Found | Rejected:
    if entry.key is None:
        return Rejected(name, entry.error or "")
    try:
        key = text_of(entry.key, "the key")
    except ValueError as error:
        return Rejected(f"{name}, key {entry.key[:60]!r}", str(error))
    where, image_id = f"{name}, key {key!r:.200}", key.removesuffix(".npz")
    if entry.error is not None:
        return Rejected(where, entry.error, image_id)
    return found_or_rejected(where, image_id, lambda: decode(key, entry.blobs[0]))


def _read_counts(path: Path) -> Mapping[str, Any]:
    try:
        counts = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{path.name} is not valid JSON: {error}") from None
    if not isinstance(counts, dict):
        raise MmptValueError(f"{path.name} contains {type(counts).__name__}, expected image file -> number of regions")
    return counts
