"""Pair tables of one's own: CSV, TSV, JSON, JSON lines, Parquet and datasets, their columns renamed to ours."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, load_from_disk

from mmpt.configuration.errors import MmptFileNotFoundError, MmptTypeError, MmptValueError
from mmpt.processing.annotations.annotation_files import file_stem, path_image_id, read_json, read_json_lines
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import (
    COLUMNS,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    REQUIRED_COLUMNS,
    TEXT,
    Row,
    as_id,
    build_pairs,
)
from mmpt.processing.annotations.plain_words import (
    label_word,
    label_words,
    number_of,
    plain_name,
    read_plain,
    values_of,
)
from mmpt.processing.region_extraction.image_loading import SUFFIXES
from mmpt.processing.text_files import file_suffix, read_delimited, read_lines

logger = logging.getLogger(__name__)

DELIMITED = (".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
OTHER_NAMES = {
    "text": ("caption", "sentence", "sent", "question"),
    "image_id": ("image", "img_id", "file_name", "filename"),
}
LESS_USUAL_NAMES = {
    "text": ("description", "statement", "expression", "hypothesis", "query"),
    "image_id": ("image_path", "image_name", "image_file", "img", "photo", "picture", "path", "file"),
    "answers": ("answer",),
}
"""Taken where none of the names before is there, and one of these alone."""
KNOWN_NAMES = frozenset((*COLUMNS, *(name for names in OTHER_NAMES.values() for name in names), "answer"))
BATCH_ROWS = 1000


def read_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    image_id_stem: bool = False,
    encoding: str | None = None,
    separator: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read a table of pairs from a file that ends in .csv, .tsv, .json (a list or lines), .jsonl or .parquet.

    A text file may be compressed (.csv.gz), its columns separated by commas, semicolons or tabs, whatever its suffix.
    Columns that a pair table has are kept, whatever else the file has is left out. A text file has no types: columns
    of numbers and lists are JSON there, and an empty field is none. Words may stand there plainly: `answers` as yes|no,
    `box` as four numbers, and `label` as a word, whose number is then its place among the sorted words. Elsewhere
    `text` may be a list of texts, which are a row each.

    Args:
        columns: our names by the file's names, {"headline": "text"}. Where it does not name them, `text` may be called
            caption, sentence, sent or question, `image_id` image, img_id, file_name or filename, and `answers` answer,
            in any case; `LESS_USUAL_NAMES` are taken where these are not there.
        label_names: the words of the labels in order. `label` may then be a word or a number, and `label_name` is
            added.
        image_id_stem: take folders and ending off the images' ids: train/7.jpg -> 7. By default a column `image_id`
            stays as it is, and a column of files' names loses the endings of images, as `mmpt extract` calls them:
            train/7.jpg -> train/7.
        encoding: that of a text file; by default UTF-8, or what a byte order mark names.
        separator: of the columns of a text file, one character or "tab"; by default the header tells.
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if columns are missing or unclear, or rows are bad.
    """
    path = _table_file(path)
    bad = BadRows(path, errors)
    if file_suffix(path) == ".parquet":
        return _pairs_of_dataset(path, Dataset(_read_parquet(path)), columns, label_names, image_id_stem, bad)
    unit, names, entries = _open_text(path, encoding, separator, KNOWN_NAMES | set(columns or ()))
    chosen = choose_columns(path, names, columns)
    has_types = file_suffix(path) not in DELIMITED
    return _build(path, unit, chosen, lambda: entries, label_names, image_id_stem, bad, has_types)


def column_names(path: str | Path, encoding: str | None = None, separator: str | None = None) -> list[str]:
    """Return the names of a table's columns, as the file has them.

    Raises:
        FileNotFoundError, ValueError: as `read_table`.
    """
    path = _table_file(path)
    if file_suffix(path) == ".parquet":
        return _read_parquet(path).column_names
    return _open_text(path, encoding, separator, KNOWN_NAMES)[1]


def _table_file(path: str | Path) -> Path:
    """Return the file of a table, or that in a folder of images."""
    path = Path(path)
    if path.is_dir():
        path = metadata_of(path) or path
    if not path.is_file():
        raise MmptFileNotFoundError(f"table of pairs {str(path)!r} is not a file")
    if file_suffix(path) not in TABLE_SUFFIXES:
        raise MmptValueError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(TABLE_SUFFIXES)}")
    return path


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MmptValueError(f"{path} is no Parquet file, or a damaged one ({reason}); copy it again") from error


def _open_text(
    path: Path, encoding: str | None, separator: str | None, known: Collection[str]
) -> tuple[str, list[str], list[tuple[int, Any]]]:
    """Return what a text file calls its rows, the names of its columns, and the rows with their places."""
    if file_suffix(path) in DELIMITED:
        return "line", *read_delimited(path, encoding, known, separator)
    if separator is not None:
        raise MmptValueError(f"separator is {separator!r}, but {path} is no CSV; leave it out")
    lines = file_suffix(path) == ".jsonl" or not next(read_lines(path, encoding), (1, ""))[1].lstrip().startswith("[")
    entries = list(read_json_lines(path, encoding)) if lines else list(enumerate(read_json(path, encoding)))
    names = list(dict.fromkeys(name for _, entry in entries if isinstance(entry, dict) for name in entry))
    return "line" if lines else "row", names, entries


def read_dataset(
    dataset: Dataset | str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    image_id_stem: bool = False,
    errors: str | Path | None = None,
) -> Dataset:
    """Read a table of pairs from a `datasets.Dataset`, or from the folder of one that `save_to_disk` wrote.

    Args:
        columns: as in `read_table`.
        label_names: as in `read_table`; by default those of a `ClassLabel`.
        image_id_stem: as in `read_table`.
        errors: as in `read_table`.

    Raises:
        FileNotFoundError: if the folder holds no dataset.
        TypeError: if it is neither.
        ValueError: if columns are missing or unclear, rows are bad, or it has splits.
    """
    source = "the dataset"
    if isinstance(dataset, (str, Path)):
        source = str(dataset)
        dataset = _load(source)  # type: ignore[assignment]
    if isinstance(dataset, DatasetDict):
        raise MmptValueError(f"{source} has the splits {', '.join(map(repr, dataset))}; choose one of them")
    if not isinstance(dataset, Dataset):
        raise MmptTypeError(f"{source} is a {type(dataset).__name__}, expected a datasets.Dataset or the folder of one")
    return _pairs_of_dataset(source, dataset, columns, label_names, image_id_stem, BadRows(source, errors))


def _load(folder: str) -> Any:
    """Return the dataset of a folder; its JSON and Arrow files may be damaged in any way."""
    try:
        return load_from_disk(folder)
    except FileNotFoundError as error:
        raise MmptFileNotFoundError(f"{folder} holds no dataset that save_to_disk wrote: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MmptValueError(f"{folder} is a dataset that is damaged ({reason:.300}); copy or save it again") from error


def metadata_of(folder: Path) -> Path | None:
    """Return the table of the texts in a folder of images, as Hugging Face calls it; None if there is none."""
    files = (folder / f"metadata{suffix}" for suffix in (".jsonl", ".csv", ".parquet"))
    return next((file for file in files if file.is_file()), None)


def choose_columns(source: str | Path, names: Iterable[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the file's name of each of our columns that it has.

    Raises:
        ValueError: if it has no text or image_id, or it is unclear which column it is.
    """
    names = list(names)
    listed = ", ".join(map(repr, names)) or "none"
    chosen: dict[str, str] = {}
    for name, ours in (columns or {}).items():
        if name not in names:
            turned = f"; write {ours}={name}, its name first" if ours in names and name in COLUMNS else ""
            raise MmptValueError(f"{source} has no column {name!r}, got {listed}{turned}")
        if ours not in COLUMNS:
            raise MmptValueError(f"a pair table has no column {ours!r}, expected one of {', '.join(COLUMNS)}")
        if ours in chosen:
            raise MmptValueError(
                f"{source}: columns {chosen[ours]!r} and {name!r} are both to be {ours!r}, expected one"
            )
        chosen[ours] = name
    free = [name for name in names if name not in chosen.values()]
    chosen = {name: name for name in free if name in COLUMNS} | chosen
    for ours in COLUMNS:
        if ours in chosen:
            continue
        for wanted in ((ours,), OTHER_NAMES.get(ours, ()), LESS_USUAL_NAMES.get(ours, ())):
            found = [name for name in free if plain_name(name) in wanted and name not in chosen.values()]
            if found:
                break
        if len(found) == 1:
            chosen[ours] = found[0]
        elif found or ours in REQUIRED_COLUMNS:
            fault = f"{' and '.join(map(repr, found))} could both be" if found else "none of its columns is"
            if not found and any(Path(name).suffix.lower() in SUFFIXES for name in names):
                listed += "; its first line looks like a row, expected the names of the columns there"
            raise MmptValueError(
                f"{source}: {fault} {ours!r}, got {listed}; say which: columns={{name: {ours!r}}} "
                f"(--columns NAME={ours})"
            )
    return {ours: chosen[ours] for ours in COLUMNS if ours in chosen}


def _pairs_of_dataset(
    source: str | Path,
    dataset: Dataset,
    columns: Mapping[str, str] | None,
    label_names: Sequence[str] | None,
    image_id_stem: bool,
    bad: BadRows,
) -> Dataset:
    chosen = choose_columns(source, dataset.column_names, columns)
    wanted = dataset.select_columns(list(chosen.values()))
    try:
        wanted.data.validate(full=True)  # what is no UTF-8, or lies outside the file, would break reading later
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MmptValueError(f"{source} is damaged ({error}); copy or save it again") from error
    label = wanted.features.get(chosen.get("label", ""))
    if label_names is None and isinstance(label, ClassLabel):
        label_names = label.names
    return _build(source, "row", chosen, lambda: enumerate(iterate_rows(wanted)), label_names, image_id_stem, bad)


def iterate_rows(dataset: Dataset) -> Iterator[Row]:
    """Yield the rows as they are stored; an image, say, is not decoded."""
    for batch in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
        yield from batch.to_pylist()  # type: ignore[union-attr]


def _from_text(column: str, field: str) -> Any:
    if field == "" and column not in REQUIRED_COLUMNS:
        return None
    if COLUMNS[column] is TEXT or column == "label":
        return field
    field = read_plain(column, field)
    if not isinstance(field, str):
        return field
    try:
        return json.loads(field)
    except (ValueError, RecursionError) as error:
        raise MmptValueError(f"{column} is {field!r:.80}, expected {COLUMNS[column].expected}, as JSON") from error


def _build(
    source: str | Path,
    unit: str,
    chosen: Mapping[str, str],
    entries: Callable[[], Iterable[tuple[object, Any]]],
    label_names: Sequence[str] | None,
    image_id_stem: bool,
    bad: BadRows,
    has_types: bool = True,
) -> Dataset:
    if label_names is not None and "label" not in chosen:
        raise MmptValueError(f"{source} has no column 'label' that label_names could name")
    if label_names is None and "label" in chosen and "choices" not in chosen:
        label_names = label_words(values_of(entries(), chosen["label"]))
        _warn_of_case(source, label_names or [])
    shorten = file_stem if image_id_stem else None
    if shorten is None and chosen["image_id"] != "image_id":
        shorten = path_image_id
    shared = _shared_names(entries(), chosen) if shorten is path_image_id else set()
    whole_ids: dict[str, str] = {}

    def image_id(value: Any) -> str:
        whole = as_id(value)
        if shorten is None or whole in shared:
            return whole
        stem = shorten(whole)
        if image_id_stem and whole_ids.setdefault(stem, whole) != whole:
            raise MmptValueError(
                f"images {whole_ids[stem]!r} and {whole!r} would both be {stem!r}; leave image_id_stem out"
            )
        return stem

    def to_rows(entry: Any) -> Iterator[Row]:
        row = {ours: entry[name] if ours in REQUIRED_COLUMNS else entry.get(name) for ours, name in chosen.items()}
        if not has_types:
            row = {ours: _from_text(ours, value) for ours, value in row.items()}
        for ours, value in row.items():
            row[ours] = value = read_plain(ours, value)
            if value is not None and ours in IMAGE_COLUMNS:
                row[ours] = image_id(value)
            elif value is not None and ours in ID_COLUMNS:
                row[ours] = as_id(value)
            elif value is not None and ours == "hard_negative_image_ids":
                row[ours] = [image_id(each) for each in value]
        if label_names is not None:
            row |= _label(row["label"], label_names)
        elif "label" in row:
            row["label"] = number_of(row["label"], row.get("choices"))
        texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
        if not texts:
            raise MmptValueError("text is an empty list, expected a text or a list of them")
        for text in texts:
            yield row | {"text": text}

    names = chosen.keys() | ({"label_name"} if label_names is not None else set())
    pairs = build_pairs(source, unit, entries(), to_rows, [name for name in COLUMNS if name in names], bad)
    if "box" in names:
        _refuse_shares(source, pairs)
    return pairs


def _refuse_shares(source: str | Path, pairs: Dataset) -> None:
    """Refuse boxes that are shares of their images, which as pixels would lie in a corner."""
    boxes = [box for box in pairs["box"] if box is not None and box[2] > box[0] and box[3] > box[1]]
    if boxes and all(min(box) >= 0 and max(box) <= 1 for box in boxes):
        raise MmptValueError(
            f"{source}: every box lies within 0..1, {boxes[0]} say, expected pixels; multiply x by the image's width "
            "and y by its height"
        )


def _warn_of_case(source: str | Path, words: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for word in words:
        if (other := first.setdefault(word.casefold(), word)) != word:
            logger.warning("%s: the labels %r and %r differ in case alone and are two classes", source, other, word)


def _shared_names(entries: Iterable[tuple[object, Any]], chosen: Mapping[str, str]) -> set[str]:
    """Return the files' names that would not differ when shortened, as of 7.jpg and 7.png."""
    wholes: dict[str, set[str]] = {}
    for _, entry in entries:
        for ours in IMAGE_COLUMNS:
            name = entry.get(chosen.get(ours, "")) if isinstance(entry, dict) else None
            if isinstance(name, str):
                wholes.setdefault(path_image_id(name), set()).add(name)
    return {name for names in wholes.values() if len(names) > 1 for name in names}


def _label(value: Any, names: Sequence[str]) -> Row:
    """Return a label and its name; the value is one of the two, or None."""
    if value is None:
        return {"label": None, "label_name": None}
    word = value if value in names else label_word(value)
    number = list(names).index(word) if word in names else number_of(value, None)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
        raise MmptValueError(f"label is {value!r:.80}, expected 0..{len(names) - 1} or one of {', '.join(names)}")
    return {"label": number, "label_name": names[number]}
