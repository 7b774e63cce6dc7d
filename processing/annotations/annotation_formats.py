"""The formats of annotations by name, and the one that a file or folder is of."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptFileNotFoundError, MmptTypeError, MmptValueError
from mmpt.processing.annotations.annotation_files import read_json, read_lines
from mmpt.processing.annotations.caption_annotations import (
    read_coco_captions,
    read_flickr30k_captions,
    read_visual_genome_regions,
)
from mmpt.processing.annotations.flickr30k_entities import read_flickr30k_entities
from mmpt.processing.annotations.pair_tables import DELIMITERS, read_dataset, read_table
from mmpt.processing.annotations.question_annotations import read_gqa, read_vqa
from mmpt.processing.annotations.referring_annotations import read_refcoco
from mmpt.processing.annotations.statement_annotations import (
    SNLI_VE_IMAGE,
    read_nlvr2_statements,
    read_nlvr_statements,
    read_snli_ve,
)

ANNOTATION_FORMATS: Mapping[str, Callable[..., Dataset]] = {
    "coco_captions": read_coco_captions,
    "flickr30k": read_flickr30k_captions,
    "flickr30k_entities": read_flickr30k_entities,
    "visual_genome": read_visual_genome_regions,
    "vqa": read_vqa,
    "gqa": read_gqa,
    "nlvr": read_nlvr_statements,
    "nlvr2": read_nlvr2_statements,
    "snli_ve": read_snli_ve,
    "refcoco": read_refcoco,
    "table": read_table,
    "dataset": read_dataset,
}
FLICKR30K_LINE = re.compile(r"[^\t]+\.jpg#\d+\t.*", re.DOTALL)


def read_annotations(path: str | Path, format: str | None = None, **options: Any) -> Dataset:
    """Read an annotation file or folder into a pair table.

    Args:
        format: one of `ANNOTATION_FORMATS`; by default it is recognised from what the file holds.
        options: those of the format's function.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if the format's function has no such option.
        ValueError: if the format is unknown or unclear, or the file is bad.
    """
    path = Path(path)
    if not path.exists():
        raise MmptFileNotFoundError(f"annotations {str(path)!r} are not there")
    format = recognise_format(path) if format is None else format
    if format not in ANNOTATION_FORMATS:
        raise MmptValueError(f"annotation format is {format!r}, expected one of {', '.join(ANNOTATION_FORMATS)}")
    reader = ANNOTATION_FORMATS[format]
    taken = inspect.signature(reader).parameters
    for name in options:
        if name not in taken:
            raise MmptTypeError(f"annotation format {format!r} takes no {name}; it is of another format (format=...)")
    return reader(path, **options)


def recognise_format(path: str | Path) -> str:
    """Return the name of the format that a file or folder is of.

    Raises:
        ValueError: if it could be none or several.
    """
    path = Path(path)
    if path.is_dir():
        found = _format_of_folder(path)
    elif path.suffix in (".p", ".pkl"):
        found = "refcoco"
    elif path.suffix in (*DELIMITERS, ".parquet"):
        found = "table"
    else:
        found = _format_of_text(path)
    if found is None:
        raise MmptValueError(
            f"{path} is in no format that can be recognised; give format=, one of {', '.join(ANNOTATION_FORMATS)}"
        )
    return found


def _format_of_folder(path: Path) -> str | None:
    if (path / "Sentences").is_dir() and (path / "Annotations").is_dir():
        return "flickr30k_entities"
    return "dataset" if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file() else None


def _format_of_text(path: Path) -> str | None:
    first = next(read_lines(path), (1, ""))[1]
    if FLICKR30K_LINE.fullmatch(first):
        return "flickr30k"
    if not first.lstrip().startswith(("{", "[")):
        return None
    try:
        data = json.loads(first)
    except (ValueError, RecursionError):
        data = read_json(path)  # not a line an object, but one over many lines
    if isinstance(data, list):
        return _format_of_list(data)
    return _format_of_object(path, data)


def _format_of_list(data: list[Any]) -> str | None:
    keys = data[0].keys() if data and isinstance(data[0], dict) else set()
    if "regions" in keys:
        return "visual_genome"
    if {"ref_id", "ann_id", "sentences"} <= keys:
        return "refcoco"
    return "table" if keys else None


def _format_of_object(path: Path, data: dict[str, Any]) -> str | None:
    keys = data.keys()
    first = next(iter(data.values()), None)
    if isinstance(first, dict) and "imageId" in first:
        return "gqa"
    if isinstance(data.get("questions"), list):
        return "vqa"
    if isinstance(data.get("annotations"), list):
        entry = next((entry for entry in data["annotations"] if isinstance(entry, dict)), {})
        if "answers" in entry:
            raise MmptValueError(
                f"{path} holds answers of VQA; give the file of the questions, and this as annotations="
            )
        if "bbox" in entry and "caption" not in entry:
            raise MmptValueError(
                f"{path} holds boxes without texts; give the file of the references, and this as instances="
            )
        return "coco_captions"
    if {"identifier", "sentence"} <= keys:
        # NLVR has the objects of its images, NLVR2 where its two images are.
        return "nlvr" if "structured_rep" in keys else "nlvr2" if "left_url" in keys else None
    if "gold_label" in keys and not keys.isdisjoint(SNLI_VE_IMAGE):
        return "snli_ve"
    flat = bool(data) and not any(isinstance(value, (dict, list)) for value in data.values())
    return "table" if flat or path.suffix == ".jsonl" else None
