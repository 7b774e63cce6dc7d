"""Names of a model's classes or answers, taken from training data and saved as `id2label` in its configuration."""

from collections import Counter
from collections.abc import Sequence

import datasets
import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.plain_words import on_one_line
from mmpt.processing.annotations.statement_annotations import ENTAILMENT, TRUTH


def truth_names(table: datasets.Dataset, min_count: int) -> list[str]:
    """Return the class names of the table, or "false" and "true" if it has none."""
    return class_names(table, min_count) if "label_name" in table.column_names else list(TRUTH)


def entailment_names(table: datasets.Dataset, min_count: int) -> list[str]:
    """Return the class names of the table, or contradiction, neutral and entailment if it has none."""
    return class_names(table, min_count) if "label_name" in table.column_names else list(ENTAILMENT)


def class_names(table: datasets.Dataset, min_count: int) -> list[str]:
    """Return the names of the classes in the order of their numbers: `label_name`, or the number if there is none.

    Raises:
        ValueError: if the table has no labels, a class has two names, a name is not one line of printable characters,
            or two classes have the same name.
    """
    labels = _column(table, "label")
    names = table["label_name"] if "label_name" in table.column_names else [None] * len(labels)
    known: dict[int, str] = {}
    for label, name in zip(labels, names, strict=True):
        if label is not None and name is not None and known.setdefault(label, name) != name:
            raise MmptValueError(f"label {label} is named {known[label]!r} and {name!r}, expected one name per class")
    found = [label for label in labels if label is not None]
    if not found:
        raise MmptValueError("column 'label' is null in every row, expected a class in every row")
    listed = [known.get(label, str(label)) for label in range(max(found) + 1)]
    broken = next((name for name in listed if not name.isprintable()), None)
    if broken is not None:
        raise MmptValueError(f"a class is named {broken!r}, expected one line of printable characters")
    if len(set(listed)) < len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise MmptValueError(f"two classes are named {twice!r}, expected a unique name for each")
    return listed


def answer_names(table: datasets.Dataset, min_count: int) -> list[str]:
    """Return the answers, each on one line, that are given to at least `min_count` questions, the most frequent first.

    Raises:
        ValueError: if there is none.
    """
    counts: Counter[str] = Counter()
    for answers in _column(table, "answers"):
        counts.update({on_one_line(answer) for answer in answers or ()})
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    names = [answer for answer in ordered if counts[answer] >= min_count]
    if not names:
        raise MmptValueError(
            f"no answer occurs in {min_count} questions or more, expected some; lower min_answer_count"
        )
    return names


def balanced_weights(numbers: Sequence[int], classes: int) -> list[float]:
    """Return rows / (classes * rows of the class) for each class.

    Raises:
        ValueError: if a class has no row.
    """
    counts = np.bincount(np.asarray(numbers), minlength=classes)
    if not counts.all():
        raise MmptValueError(
            f"class {int(counts.argmin())} has no row in the training data, so class_weights 'balanced' is not "
            "defined; give the weights as a list"
        )
    return (counts.sum() / (classes * counts)).tolist()


def _column(table: datasets.Dataset, name: str) -> Sequence:
    if name not in table.column_names:
        raise MmptValueError(f"the table has no column {name!r}, which the task trains on; got {table.column_names}")
    return table[name]
