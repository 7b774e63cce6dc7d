"""Formats of predecessors' feature files: names, recognition by content, and opening."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.region_readers.array_files_reader import open_array_files, recognise_array_files
from mmpt.processing.region_readers.file_source import FileSource
from mmpt.processing.region_readers.hdf5_reader import H5_FORMATS, open_h5, recognise_h5
from mmpt.processing.region_readers.image_sizes import read_image_sizes
from mmpt.processing.region_readers.lmdb_reader import open_pickled_lmdb, open_uniter_lmdb, recognise_lmdb
from mmpt.processing.region_readers.oscar_files import has_features
from mmpt.processing.region_readers.oscar_reader import open_oscar_tsv
from mmpt.processing.region_readers.predictions_reader import is_objects_line, open_predictions
from mmpt.processing.region_readers.tar_reader import is_tar, open_shards
from mmpt.processing.region_readers.tsv_reader import COLUMNS, MAX_LINE, open_tsv

FORMATS = {
    "bottom_up_tsv": "bottom-up attention's TSV: 6 columns, width before height",
    "lxmert_tsv": "LXMERT's TSV: 10 columns, height before width",
    "volta_tsv": "VOLTA's TSV: LXMERT's columns, then cls_prob, attrs, classes",
    "oscar_tsv": "Oscar's and VinVL's features.tsv or X.feature.tsv, with predictions.tsv or X.label.tsv next to it",
    "vinvl_predictions": "scene_graph_benchmark's predictions.tsv: objects with rect, class, conf and feature",
    "uniter_lmdb": "UNITER's LMDB of arrays, compressed or not",
    "pickled_lmdb": "ViLBERT's, VOLTA's and MMF's LMDB of pickled items",
    "volta_h5": "VOLTA's HDF5 file: one group per image",
    "bottom_up_h5": "HDF5 of bottom-up-attention-vqa: image_features and spatial_features, imgid2idx.pkl next to it",
    "meshed_memory_h5": "HDF5 of meshed-memory: <id>_features, <id>_boxes, <id>_cls_prob at the root",
    "visdial_h5": "VisDial's HDF5: image_id, features, boxes, one row per image",
    "npz_folder": "a folder of .npz files, UNITER's or openvqa's",
    "npy_folder": "a folder of .npy files with features alone (VisualBERT)",
    "pickled_npy_folder": "a folder of .npy files with pickled dicts (ViLBERT)",
    "mmf_folder": "MMF's folder: <id>.npy with features, <id>_info.npy with a pickled dict of boxes and sizes",
    "webdataset": "tar shards of WebDataset: npy, npz and json files of each image (a tar file, or a folder of them)",
}
"""Name of a format -> description."""

PICKLED = ("pickled_lmdb", "pickled_npy_folder", "mmf_folder")
DTYPES = ("float16", "float32", "float64")
_SIZED = (
    "oscar_tsv",
    "vinvl_predictions",
    "bottom_up_h5",
    "meshed_memory_h5",
    "visdial_h5",
)  # formats with boxes in pixels and sizes in another file
_TYPED = (*COLUMNS, "vinvl_predictions")
_BOXLESS = ("npy_folder", "visdial_h5")
_LINES = 10  # lines inspected to recognise the format of a TSV; more than one, because some may be damaged


def open_features(
    path: str | Path,
    format: str | None = None,
    *,
    allow_pickle: bool = False,
    num_boxes_path: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    dtype: str | None = None,
    boxes: str | None = None,
    image_sizes_path: str | Path | None = None,
) -> FileSource:
    """Open a predecessor's feature file; the `notes` of the source name the recognised format and why.

    Args:
        format: one of FORMATS; None recognises it by content.
        allow_pickle: read the pickled formats. Only arrays, numbers, strings, lists and dicts are read from them; no
            code in them is run.
        num_boxes_path: UNITER's nbb_*.json with the number of regions to keep of each image (uniter_lmdb only).
        class_names: names of the classes in the file's labels; needed to give Oscar's predictions labels.
        dtype: "float16", "float32" or "float64", dtype of base64 features in a TSV; None recognises it.
        boxes: "whole_image" uses the whole image as box of every region in a file without boxes.
        image_sizes_path: file with image sizes, for boxes in pixels (see `read_image_sizes`).

    Raises:
        FileNotFoundError: if the file does not exist.
        ModuleNotFoundError: if the format needs lmdb, msgpack or h5py and it is not installed.
        ValueError: if the format is unknown, the file cannot be opened, or it is pickled without `allow_pickle`.
    """
    path = Path(path)
    if not path.exists():
        raise MmptFileNotFoundError(
            f"{path} does not exist; expected a feature file, an LMDB folder or a folder of arrays"
        )
    name = recognise_format(path) if format is None else format
    if name not in FORMATS:
        raise MmptValueError(f"format is {name!r}, expected one of {', '.join(FORMATS)}")
    if name in PICKLED and not allow_pickle:
        raise MmptValueError(
            f"{path.name} is a {name}: it contains pickled objects, which are read only with allow_pickle=True. Only "
            "arrays and plain values are then read from them, and no code in them is run"
        )
    if num_boxes_path is not None and name != "uniter_lmdb":
        raise MmptValueError(f"num_boxes_path was given for a {name}, expected it for a uniter_lmdb only")
    if path.is_dir() != name.endswith("_folder") and not name.endswith("_lmdb") and name != "webdataset":
        raise MmptValueError(f"{path.name} is a {'folder' if path.is_dir() else 'file'}, which a {name} is not")
    if dtype is not None and (dtype not in DTYPES or name not in _TYPED):
        raise MmptValueError(
            f"dtype {dtype!r} was given for a {name}, expected {', '.join(DTYPES)} for a {', '.join(_TYPED)}"
        )
    if boxes not in (None, "whole_image") or (boxes is not None and name not in _BOXLESS):
        raise MmptValueError(
            f"boxes {boxes!r} was given for a {name}, expected 'whole_image' for a {' or '.join(_BOXLESS)}"
        )
    if image_sizes_path is not None and name not in _SIZED:
        raise MmptValueError(f"image_sizes_path was given for a {name}, expected it for a {', '.join(_SIZED)}")
    sizes = None if image_sizes_path is None else read_image_sizes(Path(image_sizes_path))
    if num_boxes_path is None and name == "uniter_lmdb":
        num_boxes_path = _counts_beside(path)
    if name in COLUMNS:
        source = open_tsv(path, name, dtype)
    elif name == "oscar_tsv":
        source = open_oscar_tsv(path, class_names, sizes)
    elif name == "vinvl_predictions":
        source = open_predictions(path, class_names, sizes, dtype)
    elif name == "webdataset":
        source = open_shards(path, allow_pickle)
    elif name == "uniter_lmdb":
        source = open_uniter_lmdb(path, None if num_boxes_path is None else Path(num_boxes_path))
    elif name == "pickled_lmdb":
        source = open_pickled_lmdb(path)
    elif name in H5_FORMATS:
        source = open_h5(path, name, sizes=sizes, boxes=boxes, allow_pickle=allow_pickle)
    else:
        source = open_array_files(path, name, boxes)
    how = "given by the caller" if format is not None else "recognised by its content"
    notes = (f"{path.name}: {name} ({how}; {FORMATS[name]})", *source.notes)
    return replace(source, class_names=source.class_names if class_names is None else class_names, notes=notes)


def _counts_beside(path: Path) -> Path | None:
    """Return the nbb_*.json that UNITER's preparation writes next to an LMDB: `nbb_X.json` belongs to `feat_X`.

    Raises:
        ValueError: if several files may belong to it.
    """
    found = sorted(path.parent.glob("nbb_*.json"))
    same = [file for file in found if file.stem.removeprefix("nbb_") == path.name.partition("_")[2]] or found
    if len(same) > 1:
        names = ", ".join(file.name for file in same)
        raise MmptValueError(
            f"next to {path.name} are {names}; give the one that belongs to it as num_boxes_path (--num-boxes-path)"
        )
    return same[0] if same else None


def recognise_format(path: str | Path) -> str:
    """Recognise the format of a feature file by its content.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it has none of the formats.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return recognise_lmdb(path)
        shards = any(file.name.lower().endswith((".tar", ".tar.gz", ".tgz")) for file in path.iterdir())
        return "webdataset" if shards else recognise_array_files(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return "oscar_tsv"
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        if head.startswith(b"\x89HDF\r\n\x1a\n"):
            return recognise_h5(path)
        if is_tar(head, path):
            return "webdataset"
        if head[16:20] in (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde"):
            return recognise_lmdb(path)
        return _format_of_lines(path, file)


def _format_of_lines(path: Path, file: BinaryIO) -> str:
    seen = []
    for _ in range(_LINES):
        line = file.readline(MAX_LINE).rstrip(b"\r\n")
        fields = line.split(b"\t")
        name = _format_of_fields(fields)
        if name is not None:
            return name
        if len(fields) == 2 and (has_features(line) or is_objects_line(fields)):
            if has_features(line):
                return "vinvl_predictions"
            raise MmptValueError(
                f"{path.name} contains boxes and classes without features, as label.tsv and predictions.tsv of "
                "scene_graph_benchmark; give the feature.tsv next to it, or write TEST.OUTPUT_FEATURE's predictions.tsv"
            )
        if line:
            seen.append(len(fields))
    tables = ", ".join(f"{len(columns)} columns ({name})" for name, columns in COLUMNS.items())
    raise MmptValueError(
        f"{path.name} is not HDF5, LMDB or TSV of {tables} or of an image id with JSON or base64 (oscar_tsv); "
        f"its first lines have {seen or 'no'} columns. Is it compressed?"
    )


def _format_of_fields(fields: list[bytes]) -> str | None:
    for name, columns in COLUMNS.items():
        values = dict(zip(columns, fields, strict=False))
        numbers = [value for column, value in values.items() if column in _NUMBERS]
        if len(fields) == len(columns) and all(value.isdigit() for value in numbers):
            return name
    if len(fields) == 2:
        try:
            item = json.loads(fields[1])
        except (ValueError, RecursionError):
            return None
        return "oscar_tsv" if isinstance(item, dict) and {"num_boxes", "features"} <= item.keys() else None
    return "oscar_tsv" if len(fields) > 2 and fields[1].isdigit() and len(fields[-1]) > 100 else None


_NUMBERS = ("img_h", "img_w", "image_h", "image_w", "num_boxes")
