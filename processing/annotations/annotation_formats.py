"""The formats of annotations by name, and the one that a file or folder is of."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptFileNotFoundError, MmptTypeError, MmptValueError
from mmpt.processing.annotations.annotation_files import has_key, read_json
from mmpt.processing.annotations.bad_rows import errors_beside
from mmpt.processing.annotations.caption_annotations import (
    RESULTS_HEADER,
    WEB_LINE,
    read_coco_captions,
    read_conceptual_captions,
    read_flickr30k_captions,
    read_karpathy_captions,
    read_lavis_captions,
    read_visual_genome_regions,
)
from mmpt.processing.annotations.flickr30k_entities import read_flickr30k_entities
from mmpt.processing.annotations.lxmert_annotations import (
    read_lxmert_nlvr2,
    read_lxmert_pretraining,
    read_lxmert_questions,
)
from mmpt.processing.annotations.pair_tables import (
    DELIMITED,
    OTHER_NAMES,
    column_names,
    metadata_of,
    read_dataset,
    read_table,
)
from mmpt.processing.annotations.question_annotations import (
    read_aokvqa,
    read_gqa,
    read_llava,
    read_textvqa,
    read_visual_genome_questions,
    read_vizwiz,
    read_vqa,
)
from mmpt.processing.annotations.referring_annotations import read_refcoco
from mmpt.processing.annotations.statement_annotations import (
    SNLI_VE_IMAGE,
    read_nlvr2_statements,
    read_nlvr_statements,
    read_snli_ve,
)
from mmpt.processing.annotations.vcr_annotations import read_vcr
from mmpt.processing.placeholders import refuse_placeholder
from mmpt.processing.text_files import file_suffix, read_lines

ANNOTATION_FORMATS: Mapping[str, Callable[..., Dataset]] = {
    "coco_captions": read_coco_captions,
    "karpathy": read_karpathy_captions,
    "flickr30k": read_flickr30k_captions,
    "flickr30k_entities": read_flickr30k_entities,
    "visual_genome": read_visual_genome_regions,
    "visual_genome_questions": read_visual_genome_questions,
    "conceptual_captions": read_conceptual_captions,
    "lavis": read_lavis_captions,
    "llava": read_llava,
    "vqa": read_vqa,
    "gqa": read_gqa,
    "aokvqa": read_aokvqa,
    "textvqa": read_textvqa,
    "vizwiz": read_vizwiz,
    "vcr": read_vcr,
    "nlvr": read_nlvr_statements,
    "nlvr2": read_nlvr2_statements,
    "snli_ve": read_snli_ve,
    "refcoco": read_refcoco,
    "lxmert_questions": read_lxmert_questions,
    "lxmert_nlvr2": read_lxmert_nlvr2,
    "lxmert_pretraining": read_lxmert_pretraining,
    "table": read_table,
    "dataset": read_dataset,
}
FLICKR30K_LINE = re.compile(r"[^\t]+\.jpg(?:\.\d+)?#\d+\t.*", re.DOTALL)
# Formats that are lists of objects, by the keys that all their objects have. The first that fits is taken.
LISTS: Mapping[str, frozenset[str]] = {
    "visual_genome": frozenset({"regions"}),
    "visual_genome_questions": frozenset({"qas"}),
    "refcoco": frozenset({"ref_id", "ann_id", "sentences"}),
    "lxmert_pretraining": frozenset({"img_id", "sentf"}),
    "lxmert_nlvr2": frozenset({"img0", "img1", "sent"}),
    "lxmert_questions": frozenset({"img_id", "sent", "question_id"}),
    "llava": frozenset({"conversations"}),
    "aokvqa": frozenset({"question", "image_id", "question_id", "choices", "split"}),
    "vizwiz": frozenset({"image", "question", "answers", "answerable"}),
}
# Files of a corpus that have no texts about images, by keys of their objects, with what to give instead.
TEXTLESS: Mapping[frozenset[str], str] = {
    frozenset({"boxes", "segms", "names"}): "VCR's metadata of an image; give val.jsonl or its like",
    frozenset({"image_id", "objects"}): "Visual Genome's objects; give region_descriptions.json",
    frozenset({"image_id", "relationships"}): "Visual Genome's relationships; give region_descriptions.json",
    frozenset({"image_id", "attributes"}): "Visual Genome's attributes; give region_descriptions.json",
    frozenset({"image_id", "url", "coco_id", "flickr_id"}): "Visual Genome's images; give region_descriptions.json",
}
TEXT_NAMES = ("text", *OTHER_NAMES["text"])
LOOKED_AT = 100  # entries by which a format is recognised
TEST_KEYS = frozenset({"img_id", "sent", "question_id", "question_type", "answer_type"})  # of LXMERT, without labels


def read_annotations(
    path: str | Path,
    format: str | None = None,
    *,
    strict: bool = True,
    errors: str | Path | None = None,
    **options: Any,
) -> Dataset:
    """Read an annotation file or folder into a pair table.

    Args:
        format: one of `ANNOTATION_FORMATS`; by default it is recognised from what the file holds.
        strict: a bad row is an error. If False, bad rows are left out, counted in a warning and written to `errors`
            with their places and reasons.
        errors: by default `errors.jsonl` beside the annotations.
        options: those of the format's function.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if the format's function has no such option.
        ValueError: if the format is unknown or unclear, or the file is bad.
    """
    path = Path(path)
    if not path.exists():
        raise MmptFileNotFoundError(f"annotations {str(path)!r} are not there")
    if path.is_file():
        refuse_placeholder(path)
    if strict and errors is not None:
        raise MmptValueError(f"errors is {str(errors)!r}, which bad rows are written to where strict is False")
    if format is None and options.get("separator") is not None and file_suffix(path) in DELIMITED:
        format = "table"
    chosen = recognise_format(path, options.get("encoding")) if format is None else format
    if chosen not in ANNOTATION_FORMATS:
        raise MmptValueError(f"annotation format is {chosen!r}, expected one of {', '.join(ANNOTATION_FORMATS)}")
    reader = ANNOTATION_FORMATS[chosen]
    taken = inspect.signature(reader).parameters
    for name in options:
        if name not in taken:
            raise MmptTypeError(f"annotation format {chosen!r} takes no {name}; it is of another format (format=...)")
    if not strict:
        options["errors"] = errors_beside(path) if errors is None else errors
    try:
        return reader(path, **options)
    except MmptValueError as error:
        if format is not None:
            raise
        read_as = (inspect.getdoc(reader) or "").splitlines()[0].removeprefix("Read ").rstrip(".:")
        raise MmptValueError(
            f"{error}\n{path.name} was recognised as {chosen!r} ({read_as}); format= (--format) names another layout"
        ) from error


def options_that_fit(
    path: str | Path, format: str | None, wanted: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those of the wanted options that the reader of a file takes; of `columns`, those that the file has.

    Args:
        format: one of `ANNOTATION_FORMATS`; the content tells by default.
        options: others that the file is read with.
    """
    path = Path(path)
    if not wanted or not path.exists():
        return {}
    chosen = format or ("table" if "separator" in options else recognise_format(path, options.get("encoding")))
    taken = inspect.signature(ANNOTATION_FORMATS[chosen]).parameters if chosen in ANNOTATION_FORMATS else {}
    fitting = {name: value for name, value in wanted.items() if name in taken}
    if "columns" in fitting and chosen == "table":
        names = column_names(path, options.get("encoding"), options.get("separator"))
        fitting["columns"] = {name: ours for name, ours in fitting["columns"].items() if name in names}
    return {name: value for name, value in fitting.items() if value}


def recognise_format(path: str | Path, encoding: str | None = None) -> str:
    """Return the name of the format that a file or folder is of.

    Args:
        encoding: that of a text file; by default UTF-8, or what a byte order mark names.

    Raises:
        ValueError: if it could be none or several.
    """
    path = Path(path)
    suffix = file_suffix(path)
    if path.is_dir():
        found = _format_of_folder(path)
    elif suffix in (".p", ".pkl"):
        found = "refcoco"
    elif suffix == ".parquet":
        found = "table"
    else:
        found = _format_of_text(path, suffix, encoding)
    if found is None:
        excel = "; it looks like a table of Excel, save it as CSV" if suffix in (".xlsx", ".xls", ".ods") else ""
        raise MmptValueError(
            f"{path} is in no format that can be recognised{excel}; "
            f"give format=, one of {', '.join(ANNOTATION_FORMATS)}"
        )
    return found


def _format_of_folder(path: Path) -> str | None:
    if (path / "Sentences").is_dir() and (path / "Annotations").is_dir():
        return "flickr30k_entities"
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return "dataset"
    return "table" if metadata_of(path) else None


def _format_of_text(path: Path, suffix: str, encoding: str | None) -> str | None:
    lines = [line for _, line in islice(read_lines(path, encoding), LOOKED_AT)]
    first = lines[0] if lines else ""
    if FLICKR30K_LINE.fullmatch(first) or RESULTS_HEADER.fullmatch(first):
        return "flickr30k"
    if suffix not in (".json", ".jsonl") and WEB_LINE.fullmatch(first):
        return "conceptual_captions"
    if suffix in DELIMITED and (suffix != ".txt" or re.search("[,;\t|]", first)):
        return "table"
    if suffix != ".jsonl" and not first.lstrip().startswith(("{", "[")):
        return None
    objects = [found for line in lines if isinstance(found := _loads(line), dict)]
    data = _loads(first)
    one_a_line = isinstance(data, dict) and len(lines) > 1
    if data is None:
        try:
            data = read_json(path, encoding)  # one object over many lines
        except MmptValueError:
            one_a_line = 2 * len(objects) >= len(lines)
            if not one_a_line:
                raise
    if isinstance(data, list):
        entries = [entry for entry in data[:LOOKED_AT] if isinstance(entry, dict)]
        return _most_frequent([_format_of_entry(path, entry) for entry in entries])
    found = objects if one_a_line else [data] if isinstance(data, dict) else []
    return _most_frequent([_format_of_object(path, suffix, each) for each in found])


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _most_frequent(formats: Iterable[str | None]) -> str | None:
    """Return the format that most entries are of, so that a bad one among them changes nothing."""
    votes = Counter(filter(None, formats))
    # A bad entry may look like a row of some table.
    return max(votes, key=lambda name: (votes[name], name != "table"), default=None)


def _format_of_entry(path: Path, entry: dict[str, Any]) -> str:
    """Return the format of the list that an object stands in."""
    keys = entry.keys()
    _refuse_textless(path, entry)
    if {"img_id", "sent", "question_id"} <= keys and not isinstance(entry.get("label"), dict):
        return "lxmert_questions" if keys <= TEST_KEYS else "table"
    for name, wanted in LISTS.items():
        if wanted <= keys:
            return name
    if {"image", "question"} <= keys and str(entry["image"]).startswith("VizWiz_"):
        return "vizwiz"
    if {"image", "caption"} <= keys and ("image_id" in keys or isinstance(entry["caption"], list)):
        return "lavis"
    return "table"


def _format_of_object(path: Path, suffix: str, data: dict[str, Any]) -> str | None:
    """Return the format of a file that is one object, or has one a line."""
    keys = data.keys()
    _refuse_textless(path, data)
    first = next(iter(data.values()), None)
    if isinstance(first, dict) and "imageId" in first:
        return "gqa"
    if isinstance(first, dict) and {"width", "height", "objects"} <= first.keys():
        raise MmptValueError(f"{path} holds GQA's scene graphs, which have no texts; give the file of the questions")
    if isinstance(data.get("questions"), list):
        return "vqa"
    if isinstance(data.get("data"), list) and _any_has(data["data"], "set_name"):
        return "textvqa"
    if isinstance(data.get("data"), dict) and "dialogs" in data["data"]:
        raise MmptValueError(f"{path} holds dialogues of VisDial, which are not read yet; make a table of them")
    if isinstance(data.get("images"), list) and _any_has(data["images"], "sentences"):
        return "karpathy"
    if isinstance(data.get("annotations"), list):
        entry = next((entry for entry in data["annotations"] if isinstance(entry, dict)), {})
        if "answers" in entry:
            raise MmptValueError(
                f"{path} holds answers of VQA; give the file of the questions, and this as annotations= (--annotations)"
            )
        if "bbox" in entry and "caption" not in entry:
            raise MmptValueError(
                f"{path} holds boxes without texts; give the file of the references, and this as instances= "
                "(--instances)"
            )
        return "coco_captions"
    if {"identifier", "sentence"} <= keys:
        # NLVR has the objects of its images, NLVR2 where its two images are.
        return "nlvr" if "structured_rep" in keys else "nlvr2" if "left_url" in keys else None
    if {"answer_choices", "img_fn"} <= keys:
        return "vcr"
    if "gold_label" in keys and not keys.isdisjoint(SNLI_VE_IMAGE):
        return "snli_ve"
    flat = bool(data) and not any(isinstance(value, (dict, list)) for value in data.values())
    return "table" if flat or suffix == ".jsonl" else None


def _any_has(entries: list[Any], key: str) -> bool:
    return has_key(entries[:LOOKED_AT], key)


def _refuse_textless(path: Path, entry: dict[str, Any]) -> None:
    if not entry.keys().isdisjoint(TEXT_NAMES):
        return
    for wanted, what in TEXTLESS.items():
        if wanted <= entry.keys():
            raise MmptValueError(f"{path} holds no texts about images: it is {what}")
