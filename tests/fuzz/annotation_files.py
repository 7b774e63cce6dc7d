"""A small file of every annotation layout, with three entries or more, and where its entries lie."""

import copy
import gzip
import json
import pickle
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from tests.factories import annotations as tiny
from tests.processing.annotations import test_annotations as corpora

TABLE = [
    {"image_id": "0007", "caption": "a cat", "label": 1, "answers": ["yes", "no"], "box": [1, 2, 30, 40]},
    {"image_id": "b/ü 2.jpg", "caption": "Ein Weg, grün", "label": 0, "answers": ["2"], "box": [0, 0, 1.5, 2]},
    {"image_id": "图", "caption": 'a "dog"', "label": None, "answers": None, "box": None},
]
LINES = (".jsonl", ".csv", ".tsv", ".txt", ".token")


class Layout(NamedTuple):
    """A layout and a file of it.

    Args:
        format: its name among `ANNOTATION_FORMATS`.
        path: the file or folder that is read.
        data: what a JSON file holds; None where it is something else.
        key: of the list of entries at its top; None where the top is that list.
        options: that it is read with.
    """

    format: str
    path: Path
    data: Any = None
    key: str | None = None
    options: dict[str, Any] = {}


def write_layouts(folder: Path) -> dict[str, Layout]:
    """Write a file of each layout into the folder; return them by a name of its own."""
    found = {}
    for name, (format, path) in tiny.layouts(folder).items():
        data = key = None
        if path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            key = next((each for each in ("images", "data") if isinstance(data, dict) and each in data), None)
            _repeat(data, key)
            _write(path, data)
        elif path.suffix == ".jsonl":
            path.write_text(path.read_text(encoding="utf-8") * 3, encoding="utf-8")
        found[name] = Layout(format, path, data, key)
    as_json: dict[str, tuple[str, Any, str | None]] = {
        "captions_train2014": ("coco_captions", corpora.COCO, "annotations"),
        "val_balanced": ("gqa", corpora.GQA, None),
        "region_descriptions": ("visual_genome", corpora.GENOME, None),
        "vqa_questions": ("vqa", corpora.VQA_QUESTIONS, "questions"),
        "pairs": ("table", [{name: each[name] for name in each} for each in TABLE], None),
    }
    for name, (format, given, key) in as_json.items():
        data = copy.deepcopy(given)
        _repeat(data, key)
        found[name] = Layout(format, _write(folder / f"{name}.json", data), data, key)
    answers = _write(folder / "vqa_answers.json", corpora.VQA_ANNOTATIONS)
    found["vqa_answered"] = found["vqa_questions"]._replace(options={"annotations": answers})
    (folder / "refs").mkdir()
    _write(folder / "refs" / "instances.json", corpora.INSTANCES)
    refs = folder / "refs" / "refs(unc).json"
    found["refs"] = Layout("refcoco", _write(refs, corpora.REFS), copy.deepcopy(corpora.REFS))
    (folder / "refs" / "refs(unc).p").write_bytes(pickle.dumps(corpora.REFS))
    found["refs_pickled"] = Layout("refcoco", folder / "refs" / "refs(unc).p", options={"allow_pickle": True})
    found["entities"] = Layout("flickr30k_entities", corpora.entities(folder / "entities"))
    lines = {
        "train.json": ("nlvr", [corpora.NLVR] * 3),
        "dev.json": ("nlvr2", [corpora.NLVR2] * 3),
        "snli_ve_dev.jsonl": ("snli_ve", [corpora.SNLI_VE] * 3),
        "pairs.jsonl": ("table", TABLE),
    }
    for name, (format, rows) in lines.items():
        found[name] = Layout(format, corpora.write_lines(folder / name, *rows))
    token = folder / "results.token"
    token.write_text("".join(f"100009279{n}.jpg#0\tTwo men , ü .\n" for n in range(3)), encoding="utf-8")
    found["token"] = Layout("flickr30k", token)
    for suffix, separator in ((".csv", ","), (".tsv", "\t"), ("_de.csv", ";")):
        found[f"pairs{suffix}"] = Layout("table", folder / f"pairs{suffix}")
        found[f"pairs{suffix}"].path.write_text(delimited(TABLE, separator), encoding="utf-8")
    (folder / "pairs.csv.gz").write_bytes(gzip.compress(delimited(TABLE, ",").encode()))
    found["pairs.csv.gz"] = Layout("table", folder / "pairs.csv.gz")
    pq.write_table(pa.Table.from_pylist(TABLE), folder / "pairs.parquet")
    found["pairs.parquet"] = Layout("table", folder / "pairs.parquet")
    Dataset.from_list(TABLE).save_to_disk(folder / "dataset")
    found["dataset"] = Layout("dataset", folder / "dataset")
    return found


def delimited(rows: list[dict[str, Any]], separator: str) -> str:
    """Return rows as CSV: lists are JSON, and everything is in quotes that needs them."""

    def cell(value: Any) -> str:
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        return f'"{text.replace(chr(34), chr(34) * 2)}"' if separator in text or '"' in text else text

    return "".join(f"{separator.join(map(cell, row))}\n" for row in [list(rows[0]), *(each.values() for each in rows)])


def copy_of(layout: Layout, folder: Path) -> Layout:
    """Return the layout with a copy of its files in an empty folder."""
    source = layout.path if layout.path.is_dir() else layout.path.parent
    beside = layout.format == "refcoco" or layout.path.is_dir()
    if beside:
        shutil.copytree(source, folder / source.name)
        path = folder / source.name if layout.path.is_dir() else folder / source.name / layout.path.name
    else:
        path = Path(shutil.copy(layout.path, folder / layout.path.name))
    options = {name: value for name, value in layout.options.items() if name != "annotations"}
    if "annotations" in layout.options:
        options["annotations"] = Path(shutil.copy(layout.options["annotations"], folder / "answers.json"))
    return layout._replace(path=path, options=options)


def entries_of(data: Any, key: str | None) -> Any:
    return data if key is None else data[key]


def _repeat(data: Any, key: str | None) -> None:
    """Make the entries three or more; a mapping by ids has ids of its own."""
    entries = entries_of(data, key)
    if isinstance(entries, dict):
        entries |= {f"{name}9": copy.deepcopy(entry) for name, entry in list(entries.items())}
        return
    while len(entries) < 3:
        entries.append(copy.deepcopy(entries[0]))


def _write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
