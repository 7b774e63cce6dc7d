"""Readers of HDF5 files: VOLTA's groups, and the tables of hengyuan-hu, meshed-memory and VisDial."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.region_readers.container_process import Container, Entry
from mmpt.processing.region_readers.field_decoding import (
    MAX_BYTES,
    MAX_REGIONS,
    MAX_SIDE,
    float_array,
    plain_dtype,
    raw_array,
    text_of,
    whole_number,
)
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.image_sizes import ImageSizes, size_of_image
from mmpt.processing.region_readers.item_decoding import FIELD_NAMES, FIELDS, regions_of_item
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.regions import PIXEL_EVIDENCE, Regions, check_boxes
from mmpt.processing.store.source import Found, Rejected


@dataclass(frozen=True)
class _Layout:
    """Layout of an HDF5 file; see `Hdf5Reader` for `options`.

    Args:
        names: name of a dataset -> field.
    """

    options: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    extractor: Mapping[str, Any] = field(default_factory=dict)


_SIZES = {name: side for side in ("width", "height") for name in FIELDS[side]}
_LAYOUTS = {
    "volta_h5": _Layout({"wanted": FIELD_NAMES}, extractor={"label_space": "no_background"}),
    "bottom_up_h5": _Layout(
        {"layout": "rows", "first": "image_features"},
        {"image_features": "features", "spatial_features": "spatial", "image_bb": "boxes", **_SIZES},
    ),
    "meshed_memory_h5": _Layout(
        {"layout": "names", "first": "features"},
        {"features": "features", "boxes": "boxes", "cls_prob": "class_probs", "size": "size"},
        {"label_space": "background_first"},
    ),
    "visdial_h5": _Layout(
        {"layout": "rows", "first": "features"},
        {
            **{"features": "features", "boxes": "boxes", "classes": "labels", "scores": "scores"},
            **{"cls_prob": "class_probs", "num_boxes": "num_boxes", **_SIZES},
        },
        {"label_space": "background_first"},
    ),
}
H5_FORMATS = tuple(_LAYOUTS)
_IDS = ("image_id", "image_ids")  # VisDial's two scripts use different names
_BOUNDS = "pos_boxes"  # (first, last) row of each image in files with a varying number of regions


def recognise_h5(path: Path) -> str:
    """Return the format of an HDF5 file by the datasets at its root.

    Raises:
        ValueError: if it cannot be opened.
    """
    roots = ("image_features", "features", *_IDS)
    facts = Container("hdf5", path, {"wanted": roots}).facts()
    if "image_features" in facts["datasets"]:
        return "bottom_up_h5"
    if "features" in facts["datasets"]:
        return "visdial_h5"
    return "meshed_memory_h5" if any(name.endswith("_features") for name in facts["names"]) else "volta_h5"


def open_h5(
    path: Path,
    file_format: str,
    *,
    sizes: ImageSizes | None = None,
    boxes: str | None = None,
    allow_pickle: bool = False,
) -> FileSource:
    """Open an HDF5 file of one of H5_FORMATS; its positions are its images in file order.

    Args:
        sizes: image sizes in pixels, needed if boxes are in pixels.
        boxes: "whole_image" uses the whole image as box of every region in a file without boxes (visdial_h5 only).
        allow_pickle: read the pickled `imgid2idx` with the ids next to hengyuan-hu's file.

    Raises:
        ValueError: if the file cannot be opened, or has no ids or no boxes.
        FileNotFoundError: if there is no `imgid2idx` next to hengyuan-hu's file.
    """
    layout = _LAYOUTS[file_format]
    options = {"wanted": tuple(layout.names), **layout.options}
    there: list[str] = []
    if "layout" in options:
        there = Container("hdf5", path, {"wanted": (*layout.names, *_IDS, _BOUNDS)}).facts()["datasets"]
    ids: Mapping[int, str] | None = None
    origin: dict[str, Any] = {}
    notes = []
    if file_format == "bottom_up_h5":
        index = _index_beside(path)
        try:
            ids = _read_index(index, allow_pickle)
        except ValueError as error:
            raise MmptValueError(f"{path.name} is a bottom_up_h5: {error}") from None
        origin["index_crc32"] = zlib.crc32(index.read_bytes())
        notes.append(f"image ids from {index.name}")
        options["bounds"] = _BOUNDS if _BOUNDS in there else None
    if file_format == "visdial_h5":
        options["ids"] = next((name for name in _IDS if name in there), None)
        if options["ids"] is None:
            raise MmptValueError(
                f"{path.name} has features of VisDial's layout and no {' or '.join(_IDS)}, expected one"
            )
        if "boxes" not in there and boxes is None:
            raise MmptValueError(
                f"{path.name} contains features without boxes ({', '.join(there)}). To use the whole image as box of "
                "every region, give boxes='whole_image' (--boxes whole_image)"
            )
    container = Container("hdf5", path, options)
    facts = container.facts()
    decode = partial(_regions, layout=layout, sizes=sizes, whole_image=boxes is not None)
    order = None if ids is None else sorted(ids)

    def read(start: int) -> Iterator[Found | Rejected]:
        if ids is None or order is None:
            for entry in container.entries(start):
                yield _position(path.name, entry, None, decode)
            return
        first = order[start] if start < len(order) else facts["total"]
        for entry in container.entries(first):
            row = first if entry.key is None else int(entry.key)
            if entry.key is None or row in ids:
                yield _position(path.name, entry, ids.get(row), decode)

    total = facts["total"]
    if ids is not None and order is not None:
        lost = [row for row in order if not 0 <= row < total]
        if lost:
            raise MmptValueError(
                f"{path.name} has {total} rows, and its index has {ids[lost[0]]!r:.60} in row {lost[0]}; do they "
                "belong together?"
            )
        if total > len(order):
            notes.append(f"{total - len(order)} rows without an image id are skipped")
        total = len(order)
    if facts.get("others"):
        notes.append(f"{facts['others_total']} other datasets are skipped: {', '.join(facts['others'][:5])}")
    extractor: dict[str, Any] = {"format": file_format, **layout.extractor}
    if boxes is not None:
        extractor["boxes"] = boxes
    if sizes is not None:
        origin["sizes"] = len(sizes)
    return FileSource(
        extractor, {**file_origin(path, file_format), "entries": total, **origin}, read, total, notes=tuple(notes)
    )


def _index_beside(path: Path) -> Path:
    """Return the pickle of image id -> row next to hengyuan-hu's file: `train36_imgid2idx.pkl` of `train36.hdf5`."""
    named = path.with_name(f"{path.stem}_imgid2idx.pkl")
    found = [named] if named.is_file() else sorted(path.parent.glob("*imgid2idx.pkl"))
    if len(found) != 1:
        got = ", ".join(file.name for file in found) or "none"
        raise MmptFileNotFoundError(
            f"{path.name} is a bottom_up_h5, whose image ids are in {named.name} next to it; got {got}, expected it"
        )
    return found[0]


def _read_index(path: Path, allow_pickle: bool) -> dict[int, str]:
    if not allow_pickle:
        raise MmptValueError(
            f"{path.name} has the image ids and contains pickled objects, which are read only with allow_pickle=True "
            "(--allow-pickle). Only plain values are then read from it, and no code in it is run"
        )
    if path.stat().st_size > MAX_BYTES:
        raise MmptValueError(f"{path.name} has {path.stat().st_size} bytes, expected up to {MAX_BYTES}")
    try:
        index = load_pickle(path.read_bytes())
    except ValueError as error:
        raise MmptValueError(f"{path.name}: {error}") from None
    if not isinstance(index, dict) or not all(type(row) is int for row in index.values()):
        raise MmptValueError(
            f"{path.name} is not a dict of image id -> row, as tools/detection_features_converter.py writes"
        )
    ids = {row: str(image_id) for image_id, row in index.items()}
    if len(ids) < len(index):
        raise MmptValueError(f"{path.name} has one row for several images, expected one row for each")
    return ids


def _position(
    name: str, entry: Entry, image_id: str | None, decode: Callable[[Mapping[str, NDArray[Any]], str], Regions]
) -> Found | Rejected:
    if entry.key is None:
        return Rejected(name, entry.error or "")
    try:
        key = text_of(entry.key, "the group's name")
    except ValueError as error:
        return Rejected(f"{name}, group {entry.key[:60]!r}", str(error))
    where = f"{name}, group {key!r:.200}" if image_id is None else f"{name}, row {key}"
    image_id = key if image_id is None else image_id
    if entry.error is not None:
        return Rejected(where, entry.error, image_id)
    return found_or_rejected(where, image_id, lambda: decode(_arrays(entry), image_id))


def _arrays(entry: Entry) -> dict[str, NDArray[Any]]:
    return {
        field: raw_array(blob, plain_dtype(dtype), shape)
        for (field, dtype, shape), blob in zip(entry.header["arrays"], entry.blobs, strict=True)
    }


def _regions(
    arrays: Mapping[str, NDArray[Any]], image_id: str, *, layout: _Layout, sizes: ImageSizes | None, whole_image: bool
) -> Regions:
    if not layout.names:
        return regions_of_item(arrays, image_id)
    given: dict[str, Any] = {layout.names[name]: array for name, array in arrays.items()}
    if "features" not in given:
        raise MmptValueError(f"there are no features, only {', '.join(arrays) or 'nothing'}")
    features = float_array(given["features"], "features")
    if features.ndim != 2:
        raise MmptValueError(f"features have shape {features.shape}, expected (regions, feature)")
    rest = {name: given[name] for name in ("class_probs", "scores", "labels") if name in given}
    probs = rest.get("class_probs")
    if probs is not None and probs.ndim == 1:  # forks store the detector's confidence in this dataset
        rest["scores"] = rest.pop("class_probs")
    boxes = _boxes(given, len(features), whole_image)
    if "num_boxes" in given or layout.options["layout"] == "rows":
        keep = _count(given, features, boxes)
        features, boxes, rest = features[:keep], boxes[:keep], {name: array[:keep] for name, array in rest.items()}
    for name in ("class_probs", "scores"):
        if name in rest:
            rest[name] = float_array(rest[name], name).astype(np.float32, copy=False)
    if "labels" in rest:
        rest["labels"] = _whole(rest["labels"])
    size = _size(given, image_id, sizes)
    if whole_image or "spatial" in given or (boxes.size and float(boxes.max()) <= PIXEL_EVIDENCE):
        return Regions(features=features, boxes=check_boxes(boxes), image_id=image_id, **size, **rest)
    if not size:
        raise MmptValueError(
            "the boxes are in pixels and the file has no image sizes; give a file with them as "
            "image_sizes_path (--image-sizes), such as COCO's annotations"
        )
    return Regions.from_pixels(features, boxes, image_id=image_id, **size, **rest)


def _boxes(given: Mapping[str, Any], count: int, whole_image: bool) -> NDArray[Any]:
    """Return (regions, 4) boxes; those of `spatial_features` are normalised, others may be in pixels."""
    if whole_image:
        return np.tile(np.asarray([0, 0, 1, 1], np.float32), (count, 1))
    boxes = given.get("spatial", given.get("boxes"))
    if boxes is None:
        raise MmptValueError(f"there are no boxes, only {', '.join(given)}")
    if boxes.ndim != 2 or boxes.shape[0] != count or boxes.shape[1] < 4:
        raise MmptValueError(f"boxes have shape {boxes.shape}, expected ({count}, 4) for {count} rows of features")
    return float_array(boxes if boxes.dtype.kind == "f" else boxes.astype(np.float32), "boxes")[:, :4].astype(
        np.float32
    )


def _count(given: Mapping[str, Any], features: NDArray[Any], boxes: NDArray[Any]) -> int:
    """Return the number of regions, leaving out rows of zeros that pad a table."""
    if "num_boxes" in given:
        count = whole_number(given["num_boxes"], "num_boxes", MAX_REGIONS)
        if count > len(features):
            raise MmptValueError(f"num_boxes is {count}, but there are {len(features)} rows")
        return count
    used = np.flatnonzero(features.any(axis=1) | ("boxes" in given and boxes.any(axis=1)))
    if not len(used):
        raise MmptValueError("every row is zero: the script that wrote the file failed on this image")
    return int(used[-1]) + 1


def _whole(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as integers; VisDial's script stores them as floats."""
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.floor(labels)).all()):
        raise MmptValueError("classes are not integers")
    return labels.astype(np.int64)


def _size(given: Mapping[str, Any], image_id: str, sizes: ImageSizes | None) -> dict[str, int]:
    if "size" in given and given["size"].shape == (2,):  # (height, width), as VinVL's converters write it
        given = {**given, "height": given["size"][0], "width": given["size"][1]}
    if "width" in given and "height" in given:
        return {side: whole_number(given[side], f"image {side}", MAX_SIDE) for side in ("width", "height")}
    if sizes is None:
        return {}
    width, height = size_of_image(sizes, image_id)
    return {"width": width, "height": height}
