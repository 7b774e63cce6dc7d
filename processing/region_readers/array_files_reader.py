"""Reader of folders with one .npz or .npy file an image."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.array_archives import decode_npy, decode_npz, npy_header
from mmpt.processing.region_readers.field_decoding import MAX_BYTES, float_array
from mmpt.processing.region_readers.file_source import FileSource, found_or_rejected
from mmpt.processing.region_readers.item_decoding import FIELD_NAMES, regions_of_item
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.region_readers.uniter_decoding import UNITER_FIELDS, regions_of_uniter
from mmpt.processing.region_source import Found, Rejected
from mmpt.processing.regions import Regions

_FIRST = 10  # files that are looked at to see what a folder holds: some may be damaged

EXTRACTORS = {
    "npz_folder": {"format": "npz_folder", "label_space": "background_first"},
    "npy_folder": {"format": "npy_folder", "boxes": "whole_image"},
    "pickled_npy_folder": {"format": "pickled_npy_folder", "label_space": "background_first"},
}


def open_array_files(path: Path, file_format: str) -> FileSource:
    """Open a folder of one of the formats in EXTRACTORS; its positions are its files, sorted by name."""
    suffix = ".npz" if file_format == "npz_folder" else ".npy"
    decode = _DECODERS[file_format]
    names = array_files(path, suffix)
    if not names:
        raise MmptValueError(f"{path.name} has no {suffix} file, expected one for each image")

    def read(start: int) -> Iterator[Found | Rejected]:
        for name in names[start:]:
            shown = os.fsencode(name).decode("utf-8", "replace")
            image_id = name.removesuffix(suffix)
            yield _position(f"{path.name}/{shown}", path / name, image_id, decode)

    crc = zlib.crc32(os.fsencode("\0".join(names)))
    origin = {"file": path.name, "files": len(names), "names_crc32": crc, "format": file_format}
    return FileSource(EXTRACTORS[file_format], origin, read, len(names))


def array_files(path: Path, suffix: str) -> list[str]:
    """Return the names of a folder's files with that ending, sorted."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.name.endswith(suffix) and entry.is_file())


def recognise_array_files(path: Path) -> str:
    """Return the format of a folder by its first files: archives, plain features, or pickled objects.

    Raises:
        ValueError: if it has none of them.
    """
    names = array_files(path, ".npz")[:_FIRST] or array_files(path, ".npy")[:_FIRST]
    for name in names:
        with (path / name).open("rb") as file:
            head = file.read(2**17)
        if head.startswith(b"PK\x03\x04"):
            return "npz_folder"
        with suppress(ValueError):
            return "pickled_npy_folder" if npy_header(head, name)[0].hasobject else "npy_folder"
    got = f"first files ({names[0]}) are neither .npz nor .npy" if names else "no data.mdb, .npz or .npy file"
    raise MmptValueError(f"{path.name} has {got}; expected an LMDB, or a folder with one .npz or .npy file an image")


def _position(where: str, file: Path, image_id: str, decode: Callable[[bytes, str], Regions]) -> Found | Rejected:
    def read() -> Regions:
        try:
            size = file.stat().st_size
            if size > MAX_BYTES:
                raise MmptValueError(f"the file has {size} bytes, expected up to {MAX_BYTES} for one image")
            data = file.read_bytes()
        except OSError as error:
            raise MmptValueError(f"the file cannot be read: {error.strerror}") from None
        return decode(data, image_id)

    return found_or_rejected(where, image_id, read)


def _npz(data: bytes, image_id: str) -> Regions:
    arrays = decode_npz(data, (*UNITER_FIELDS, *FIELD_NAMES))
    if "norm_bb" in arrays:
        return regions_of_uniter(arrays, image_id)
    features, boxes = arrays.get("x"), arrays.get("bbox")
    # openvqa's files have the features of one region as a column.
    if features is not None and boxes is not None and features.ndim == 2 and len(features) != len(boxes):
        arrays["x"] = features.T
    return regions_of_item(arrays, image_id)


def _npy(data: bytes, image_id: str) -> Regions:
    """Return VisualBERT's features, which have no boxes: each region is said to be the whole image."""
    features = float_array(decode_npy(data, "features"), "features")
    boxes = np.tile(np.asarray([0, 0, 1, 1], np.float32), (len(features) if features.ndim else 0, 1))
    return Regions(features=features, boxes=boxes, image_id=image_id)


def _pickled_npy(data: bytes, image_id: str) -> Regions:
    """Return the regions of ViLBERT's file, a pickled dict."""
    dtype, _, _, start = npy_header(data, "item")
    if not dtype.hasobject:
        raise MmptValueError(f"the file holds an array of {dtype}, expected a pickled dict as in the other files")
    item = load_pickle(data[start:])
    if not isinstance(item, dict):
        raise MmptValueError(f"the file holds {type(item).__name__}, expected a dict of one image")
    return regions_of_item(item, image_id)


_DECODERS: dict[str, Callable[[bytes, str], Regions]] = {
    "npz_folder": _npz,
    "npy_folder": _npy,
    "pickled_npy_folder": _pickled_npy,
}
