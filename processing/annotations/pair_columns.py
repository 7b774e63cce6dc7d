"""The columns of a pair table and what each holds, and a table made of rows that were checked one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.bad_rows import ROW_ERRORS, BadRows
from mmpt.processing.text_files import BadEntry

Row = Mapping[str, Any]
LARGEST = 2**53  # up to which whole numbers are exact in float64
PIECE_ROWS = 50_000


class Column(NamedTuple):
    """What a column holds.

    Args:
        feature: its type in `datasets`.
        fits: whether a value that is not None may stand in it.
        expected: what may stand in it, in words.
    """

    feature: Any
    fits: Callable[[Any], bool]
    expected: str


def build_pairs(
    source: str | Path,
    unit: str,
    entries: Iterable[tuple[object, Any]],
    to_rows: Callable[[Any], Iterable[Row]],
    columns: Sequence[str],
    bad: BadRows | None = None,
) -> Dataset:
    """Return a pair table of all rows that the entries of a file give.

    Args:
        source: what is read, for errors.
        unit: what the file calls an entry, for errors: line, annotation.
        entries: each with its place in the file; a `BadEntry` is a bad row.
        to_rows: makes the rows of one entry; raises what it likes where the entry is bad.
        columns: names of the table's columns, each in every row.
        bad: what becomes of bad rows; by default they are an error.

    Raises:
        ValueError: if entries are bad or there is none. It counts the bad ones and tells the place of the first.
    """
    features = Features({name: COLUMNS[name].feature for name in columns})
    table: dict[str, list[Any]] = {name: [] for name in columns}
    pieces: list[pa.Table] = []
    bad = BadRows(source) if bad is None else bad
    for place, entry in entries:
        if isinstance(entry, BadEntry):
            bad.add(f"{unit} {place}", entry.reason, entry.content)
            continue
        try:
            for row in to_rows(entry):
                try:
                    check_row(row)
                except ROW_ERRORS as error:  # the others of the entry are kept
                    bad.add(f"{unit} {place}", error, entry)
                    continue
                for name, values in table.items():
                    values.append(row[name])
                if len(table["text"]) == PIECE_ROWS:
                    pieces.append(_take(table, features))
        except ROW_ERRORS as error:
            bad.add(f"{unit} {place}", error, entry)
    bad.finish()
    pieces.append(_take(table, features))
    pairs = Dataset(pa.concat_tables(pieces))
    if not len(pairs):
        faults = bad.summary()
        raise MmptValueError(
            f"{source} has no pair of a text and an image, expected at least one" + (f":\n{faults}" if faults else "")
        )
    return pairs


def check_row(row: Row) -> None:
    """Check every value of a row, and that those that belong together fit.

    Raises:
        ValueError: if one does not.
    """
    for name, value in row.items():
        column = COLUMNS[name]
        if not column.fits(value) if value is not None else name in REQUIRED_COLUMNS:
            raise MmptValueError(f"{name} is {value!r:.80}, expected {column.expected}")
    answers, scores = row.get("answers"), row.get("answer_scores")
    if answers is not None and scores is not None and len(answers) != len(scores):
        raise MmptValueError(f"{len(answers)} answers have {len(scores)} scores, expected one for each")
    choices, label = row.get("choices"), row.get("label")
    if choices is not None and label is not None and label >= len(choices):
        raise MmptValueError(
            f"label is {label}, expected the place of the right one among {len(choices)} choices, from 0"
        )
    for phrase in row.get("phrases") or ():
        if row["text"][phrase["start"] : phrase["end"]] != phrase["text"]:
            raise MmptValueError(f"phrase {phrase['text']!r} is not at {phrase['start']}..{phrase['end']} of the text")


def as_id(value: object) -> str:
    """Return an id as a string; ids are strings or whole numbers, and stay as they are written.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MmptValueError(f"id is {value!r:.80}, expected a string or a whole number")


def _take(table: dict[str, list[Any]], features: Features) -> pa.Table:
    """Return the rows as an Arrow table, which needs far less memory, and empty the lists."""
    piece = pa.Table.from_pydict(table, schema=features.arrow_schema)
    for values in table.values():
        values.clear()
    return piece


def _is_string(value: Any) -> bool:
    # A lone surrogate is no text: neither Arrow nor a tokenizer takes it.
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def _is_text(value: Any) -> bool:
    return _is_string(value) and not value.isspace() and value != ""


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _are(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, (list, tuple)) and all(map(fits, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST  # so not NaN


def _is_score(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_box(value: Any) -> bool:
    return _are(_is_number)(value) and len(value) == 4 and value[0] <= value[2] and value[1] <= value[3]


def _is_phrase(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == PHRASE.keys()
        and _is_text(value["text"])
        and _is_label(value["start"])
        and _is_label(value["end"])
        and _is_string(value["entity_id"])
        and _are(_is_string)(value["types"])
        and _are(_is_box)(value["boxes"])
    )


STRING = Value("string")
BOX = List(Value("float64"))
PHRASE = {
    "text": STRING,
    "start": Value("int64"),
    "end": Value("int64"),
    "entity_id": STRING,
    "types": List(STRING),
    "boxes": List(BOX),
}
TEXT = Column(STRING, _is_text, "a string that is not blank")
TEXTS = Column(List(STRING), _are(_is_text), "a list of strings that are not blank")

COLUMNS = {
    "text": TEXT,
    "image_id": TEXT,
    "second_image_id": TEXT,  # of a text about two images
    "text_pair": TEXT,
    "example_id": TEXT,
    "question_id": TEXT,
    "group": TEXT,  # of rows that are right together or not at all
    "label": Column(Value("int64"), _is_label, "a whole number from 0 on"),
    "label_name": TEXT,
    "answers": Column(List(STRING), _are(_is_string), "a list of strings"),
    "answer_scores": Column(List(Value("float64")), _are(_is_score), "a list of numbers in 0..1"),
    "choices": Column(TEXTS.feature, lambda value: _are(_is_text)(value) and len(value) > 1, "two texts or more"),
    "box": Column(BOX, _is_box, "x1 y1 x2 y2 in pixels, with x1 <= x2 and y1 <= y2"),
    "phrases": Column(List(PHRASE), _are(_is_phrase), f"a list of phrases, each with {', '.join(PHRASE)}"),
    "split": TEXT,
    "hard_negative_image_ids": TEXTS,
    "hard_negative_texts": TEXTS,
}
REQUIRED_COLUMNS = ("text", "image_id")
ID_COLUMNS = ("image_id", "second_image_id", "example_id", "question_id", "group")
IMAGE_COLUMNS = ("image_id", "second_image_id")
