"""What the functions of the pipeline are given, as one example a row."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.configuration.errors import MmptValueError

Example = dict[str, Any]
LETTERS_A_TOKEN = 5


def is_many(value: Any) -> bool:
    """Return whether a value is a list of texts or images; a string is one, and a tuple belongs together."""
    return isinstance(value, Sequence) and not isinstance(value, str | tuple)


def example_rows(columns: Mapping[str, Any]) -> list[Example]:
    """Return one example a row of the columns that are lists; a single value goes with every row.

    Raises:
        ValueError: if lists have different lengths, or a text is none.
    """
    lengths = {name: len(value) for name, value in columns.items() if is_many(value)}
    if len(set(lengths.values())) > 1:
        given = " and ".join(f"{length} for {name}" for name, length in lengths.items())
        raise MmptValueError(f"got {given}, expected as many of each, or a single one to go with all")
    count = next(iter(lengths.values()), 1)
    examples: list[Example] = [
        {name: value[row] if name in lengths else value for name, value in columns.items()} for row in range(count)
    ]
    for example in examples:
        text = example.get("text", "")
        if isinstance(text, tuple) and len(text) == 2:
            example["text"], example["text_pair"] = text
        elif not isinstance(text, str):
            raise MmptValueError(f"got {text!r:.60} for a text, expected a string or a tuple of two")
    return examples


def size_of(example: Example) -> tuple[int, int]:
    """Return (choices, length): a batch has one number of choices and little padding if its examples are alike."""
    choices = example.get("choices", ())
    regions = len(example.get("regions", ())) + len(example.get("second_regions", ()))
    letters = len(example.get("text", "")) + sum(map(len, choices))
    return len(choices), letters + LETTERS_A_TOKEN * regions


def spans_of(text: str, phrases: Sequence[Any]) -> list[dict[str, int]]:
    """Return the letters of each phrase of a text, end excluded.

    Raises:
        ValueError: if the text does not have a phrase, or has it twice.
    """
    spans = []
    for phrase in phrases:
        if isinstance(phrase, str):
            count = text.count(phrase)
            if count != 1:
                raise MmptValueError(
                    f"the caption {text!r} has the phrase {phrase!r} {count} times, expected once; give (start, end) "
                    "of the letters that are meant"
                )
            phrase = (text.index(phrase), text.index(phrase) + len(phrase))
        start, end = phrase
        if not 0 <= start < end <= len(text):
            raise MmptValueError(f"phrase ({start}, {end}) is not in the {len(text)} letters of {text!r}")
        spans.append({"start": start, "end": end})
    return spans
