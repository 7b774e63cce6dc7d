"""Reader of folders with one .npz or .npy file per image."""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.array_archives import decode_npy, decode_npz, npy_header
from mmpt.processing.region_readers.field_decoding import MAX_BYTES, float_array
from mmpt.processing.region_readers.file_source import FileSource, found_or_rejected
from mmpt.processing.region_readers.item_decoding import FIELD_NAMES, regions_of_item
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.region_readers.uniter_decoding import UNITER_FIELDS, regions_of_uniter
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected

_FIRST = 10  # files inspected to recognise the format; more than one, because some may be damaged

EXTRACTORS = {
    "npz_folder": {"format": "npz_folder", "label_space": "background_first"},
    "npy_folder": {"format": "npy_folder", "boxes": "whole_image"},
    "pickled_npy_folder": {"format": "pickled_npy_folder", "label_space": "background_first"},
    "mmf_folder": {"format": "mmf_folder", "label_space": "background_first"},
}
INFO = "_info.npy"  # suffix of MMF's file with the boxes of `<id>.npy`
BOX_NUMBERS = 6  # an array with at most this many columns contains boxes, not features


def open_array_files(path: Path, file_format: str, boxes: str | None = None) -> FileSource:
    """Open a folder of one of the formats in EXTRACTORS; its positions are its files, sorted by name.

    Subfolders are read too. The id of an image is its file name or, if two files have the same name, its path.

    Args:
        boxes: "whole_image" uses the whole image as box of every region in files without boxes.

    Raises:
        ValueError: if the folder has no file of the format, or files have no boxes and `boxes` is None.
    """
    suffix = ".npz" if file_format == "npz_folder" else ".npy"
    names, others = walk_files(path, suffix)
    if file_format == "mmf_folder":
        names = [name for name in names if not name.endswith(INFO)]
    if not names:
        raise MmptValueError(f"{path.name} has no {suffix} file, expected one for each image")
    if file_format == "npy_folder" and boxes is None:
        raise MmptValueError(
            f"{path.name} contains features without boxes ({names[0]}), and no {INFO[1:]} next to them as in MMF's. To "
            "use the whole image as box of every region, give "
            "boxes='whole_image' (--boxes whole_image)"
        )
    stems = Counter(Path(name).name for name in names)
    unique = all(count == 1 for count in stems.values())

    def read(start: int) -> Iterator[Found | Rejected]:
        for name in names[start:]:
            shown = os.fsencode(name).decode("utf-8", "replace")
            image_id = (Path(name).name if unique else name).removesuffix(suffix)
            where = f"{path.name}/{shown}"
            info = path / f"{name.removesuffix(suffix)}{INFO}"
            decode = partial(_mmf, info) if file_format == "mmf_folder" else _DECODERS[file_format]
            yield _position(where, path / name, image_id, decode)

    crc = zlib.crc32(os.fsencode("\0".join(names)))
    origin = {"file": path.name, "files": len(names), "names_crc32": crc, "format": file_format}
    notes = [f"{len(names)} {suffix} files"]
    if not unique:
        notes.append("ids are paths, because two files have the same name")
    if others:
        notes.append(f"{len(others)} other files are skipped: {', '.join(others[:5])}")
    return FileSource(EXTRACTORS[file_format], origin, read, len(names), notes=tuple(notes))


def walk_files(path: Path, suffix: str) -> tuple[list[str], list[str]]:
    """Return the sorted relative paths of the files below a folder that have the suffix, and of all others.

    A hidden folder is one of the others, and so is a link that leads nowhere. Links to folders are followed; a folder
    that was seen already is not entered again.
    """
    found: list[str] = []
    others: list[str] = []
    seen = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = sorted(set(folders) - set(hidden))
        for name in (*files, *hidden):
            is_array = name.lower().endswith(suffix) and not name.startswith("._")  # what macOS leaves beside a file
            is_array = is_array and Path(folder, name).is_file()
            (found if is_array else others).append(Path(folder, name).relative_to(path).as_posix())
    return sorted(found), sorted(others)


def recognise_array_files(path: Path) -> str:
    """Return the format of a folder by its first files: archives, plain features, MMF's pairs, or pickled objects.

    Raises:
        ValueError: if it has none of these formats, or contains boxes without features.
    """
    names = walk_files(path, ".npz")[0][:_FIRST]
    if not names:
        every = walk_files(path, ".npy")[0]
        with_info = {name.removesuffix(INFO) for name in every if name.endswith(INFO)}
        pairs = [name for name in every if name.removesuffix(".npy") in with_info][:_FIRST]
        if any(_is_object(path / f"{name.removesuffix('.npy')}{INFO}") for name in pairs):
            return "mmf_folder"
        names = every[:_FIRST]
    for name in names:
        with (path / name).open("rb") as file:
            head = file.read(2**17)
        if head.startswith(b"PK\x03\x04"):
            return "npz_folder"
        try:
            dtype, shape, *_ = npy_header(head, name)
        except ValueError:
            continue
        if not dtype.hasobject and len(shape) == 2 and shape[1] <= BOX_NUMBERS:
            raise MmptValueError(
                f"{path.name} contains boxes without features: {name} is {shape[0]} x {shape[1]}. The features are "
                "elsewhere (such as cocobu_att next to cocobu_box); files that have both can be imported"
            )
        return "pickled_npy_folder" if dtype.hasobject else "npy_folder"
    got = f"first files ({names[0]}) are neither .npz nor .npy" if names else "no data.mdb, .npz or .npy file"
    raise MmptValueError(f"{path.name} has {got}; expected an LMDB, or a folder with one .npz or .npy file per image")


def _is_object(file: Path) -> bool:
    """Return whether a .npy file contains a pickled object."""
    with file.open("rb") as opened, suppress(ValueError):
        return npy_header(opened.read(2**17), file.name)[0].hasobject
    return False


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
    # openvqa stores features as (feature, regions).
    if features is not None and boxes is not None and features.ndim == 2 and len(features) != len(boxes):
        arrays["x"] = features.T
    return regions_of_item(arrays, image_id)


def _npy(data: bytes, image_id: str) -> Regions:
    """Return the regions of VisualBERT's file, which has no boxes, with the whole image as box of each region."""
    features = float_array(decode_npy(data, "features"), "features")
    if features.ndim == 2 and features.shape[1] <= BOX_NUMBERS:
        raise MmptValueError(f"the array is {features.shape[0]} x {features.shape[1]}: boxes, expected features")
    boxes = np.tile(np.asarray([0, 0, 1, 1], np.float32), (len(features) if features.ndim else 0, 1))
    return Regions(features=features, boxes=boxes, image_id=image_id)


def _pickled_npy(data: bytes, image_id: str) -> Regions:
    """Return the regions of ViLBERT's file, a pickled dict."""
    return regions_of_item(_pickled_dict(data), image_id)


def _mmf(info: Path, data: bytes, image_id: str) -> Regions:
    """Return the regions of MMF's two files: features, and a pickled dict of boxes, sizes and probabilities."""
    try:
        item = _pickled_dict(info.read_bytes())
    except OSError as error:
        raise MmptValueError(f"{info.name}, which has the boxes, cannot be read: {error.strerror}") from None
    features = decode_npy(data, "features")
    if features.ndim == 3 and len(features) == 1:
        features = features[0]
    return regions_of_item({**item, "features": features}, image_id)


def _pickled_dict(data: bytes) -> dict[Any, Any]:
    dtype, _, _, start = npy_header(data, "item")
    if not dtype.hasobject:
        raise MmptValueError(f"the file contains an array of {dtype}, expected a pickled dict as in the other files")
    item = load_pickle(data[start:])
    if not isinstance(item, dict):
        raise MmptValueError(f"the file contains {type(item).__name__}, expected a dict of one image")
    return item


_DECODERS: dict[str, Callable[[bytes, str], Regions]] = {
    "npz_folder": _npz,
    "npy_folder": _npy,
    "pickled_npy_folder": _pickled_npy,
}
