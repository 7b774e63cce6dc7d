"""Tables as people write them: answers and labels in plain words, lists with |, headers in any case."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SEPARATOR = "|"
WORD_LISTS = ("answers", "choices", "hard_negative_texts", "hard_negative_image_ids")
"""Columns that hold lists of words."""

NUMBER = re.compile(r"[-+]?\d+(?:\.0*)?")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_BOX = re.compile(r"[-+\d.eE]+(?:[\s,;]+[-+\d.eE]+){3}")


def plain_name(name: str) -> str:
    """Return a header as ours are written: ' Image ID' -> image_id."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def read_plain(column: str, field: Any) -> Any:
    """Return what a cell of plain words holds; one that is no such is returned as it is.

    Args:
        column: our name of the column.
        field: text; JSON, which begins with a bracket, stays as it is. A value of a file with types may be a number.
    """
    if column in WORD_LISTS and isinstance(field, int | float):
        return [str(field).lower()]  # True is true, as JSON writes it
    if not isinstance(field, str) or field.lstrip().startswith("["):
        return field
    if column in WORD_LISTS:
        return [word.strip() for word in field.split(SEPARATOR)]
    if column == "box" and _BOX.fullmatch(field.strip()):
        try:
            return [float(number) for number in re.split(r"[\s,;]+", field.strip())]
        except ValueError:
            return field
    return field


def on_one_line(answer: str) -> str:
    """Return an answer without line breaks, tabs and outer spaces, as the official evaluation of VQA compares it."""
    return re.sub(r"\r\n|[\r\n\t]", " ", answer).strip()


def label_word(value: Any) -> Any:
    """Return a label as a word, true and false too; None stays."""
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value).strip()


def label_words(values: Iterable[Any]) -> list[str] | None:
    """Return the different words of a column of labels, sorted; None if some are numbers: no word is right there."""
    labels = {value for value in values if value is not None and value != "" and not isinstance(value, list | dict)}
    if not labels or any(_is_number(label) for label in labels):
        return None
    return sorted({label_word(label) for label in labels})


def number_of(value: Any, choices: Any) -> Any:
    """Return the number of a label without names: a whole one, or the place of a word among the choices.

    A number that can be a place is one, also where a choice is written like it: tables that this package writes have
    places.
    """
    words: list[Any] = list(choices) if isinstance(choices, Sequence) else []
    number = int(float(value)) if isinstance(value, str | float) and NUMBER.fullmatch(str(value).strip()) else None
    if isinstance(value, str) and value in words and (number is None or not 0 <= number < len(words)):
        return words.index(value)
    if number is not None:
        return number
    return float(value) if isinstance(value, str) and _is_number(value) else value


def values_of(entries: Iterable[tuple[object, Any]], name: str) -> Iterator[Any]:
    """Yield a column of a file's entries; an entry that is no row has none."""
    return (entry.get(name) for _, entry in entries if isinstance(entry, Mapping))


def _is_number(label: Any) -> bool:
    if isinstance(label, str):
        return _DECIMAL.fullmatch(label.strip()) is not None
    return isinstance(label, int | float) and not isinstance(label, bool)
