"""Convert the arguments of pipeline functions to one example per row."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt.configuration.errors import MmptValueError

Example = dict[str, Any]
CHARACTERS_PER_TOKEN = 5


def is_many(value: Any) -> bool:
    """Return whether a value is a list of texts or images; a string or a tuple is a single value."""
    return isinstance(value, Sequence) and not isinstance(value, str | tuple)


def example_rows(columns: Mapping[str, Any]) -> list[Example]:
    """Return one example per row of the list columns; single values are repeated for every row.

    Raises:
        ValueError: if lists have different lengths, or a text is not a string or a pair.
    """
    lengths = {name: len(value) for name, value in columns.items() if is_many(value)}
    if len(set(lengths.values())) > 1:
        given = " and ".join(f"{length} for {name}" for name, length in lengths.items())
        raise MmptValueError(f"got {given}, expected lists of equal length, or a single value to use with all")
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
    """Return (choices, length), the sort key that gives batches one number of choices and little padding."""
    choices = example.get("choices", ())
    regions = len(example.get("regions", ())) + len(example.get("second_regions", ()))
    characters = len(example.get("text", "")) + sum(map(len, choices))
    return len(choices), characters + CHARACTERS_PER_TOKEN * regions


def spans_of(text: str, phrases: Sequence[Any]) -> list[dict[str, int]]:
    """Return the character span of each phrase in a text, end excluded.

    Raises:
        ValueError: if a phrase does not occur exactly once in the text, or a span is outside of it.
    """
    spans = []
    for phrase in phrases:
        if isinstance(phrase, str):
            count = text.count(phrase)
            if count != 1:
                raise MmptValueError(
                    f"the caption {text!r} has the phrase {phrase!r} {count} times, expected once; give (start, end) "
                    "of its characters"
                )
            phrase = (text.index(phrase), text.index(phrase) + len(phrase))
        start, end = phrase
        if not 0 <= start < end <= len(text):
            raise MmptValueError(f"phrase ({start}, {end}) is not in the {len(text)} characters of {text!r}")
        spans.append({"start": start, "end": end})
    return spans
