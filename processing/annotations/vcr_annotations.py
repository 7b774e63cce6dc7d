"""Visual Commonsense Reasoning (Zellers et al. 2019): questions with four answers, and answers with four reasons."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import format_image_id, has_key, path_image_id, read_json_lines
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import Row, build_pairs


def read_vcr(
    path: str | Path,
    *,
    rationales: bool = False,
    image_id_format: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read `train.jsonl`, `val.jsonl` or `test.jsonl` of VCR.

    A reference to objects becomes the name of their regions, by its place in `objects` from 1: [0, 2] of two persons
    and a car is "person 1 and car 3".

    Args:
        rationales: choose the reason for the right answer, which stands behind the question, instead of the answer.
        image_id_format: makes the image's id of its path without the ending; by default that path, as in
            "lsmdc_1054_Harry_Potter/1054_00.06.04.000-00.06.08.000@0", as `mmpt extract` calls it.
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Returns:
        text, image_id, example_id (annot_id), choices, and where the file has it: label (the place of the right one).

    Raises:
        ValueError: also if rationales are asked for where the right answers are not known.
    """
    path = Path(path)
    lines = list(read_json_lines(path))
    kind = "rationale" if rationales else "answer"
    has_labels = has_key((entry for _, entry in lines), f"{kind}_label")
    if rationales and not has_key((entry for _, entry in lines), "answer_label"):
        raise MmptValueError(f"{path} has no answer_label, the right answers that rationales are reasons for")

    def to_rows(entry: Any) -> Iterator[Row]:
        objects, name = entry["objects"], path_image_id(entry["img_fn"])
        text = _words(entry["question"], objects)
        if rationales:
            text = f"{text} {_words(entry['answer_choices'][entry['answer_label']], objects)}"
        row = {
            "text": text,
            "image_id": name if image_id_format is None else format_image_id(name, image_id_format),
            "example_id": entry["annot_id"],
            "choices": [_words(choice, objects) for choice in entry[f"{kind}_choices"]],
        }
        if has_labels:
            row |= {"label": entry[f"{kind}_label"]}
        yield row

    columns = ("text", "image_id", "example_id", "choices", *(["label"] if has_labels else []))
    return build_pairs(path, "line", lines, to_rows, columns, BadRows(path, errors))


def _words(tokens: Any, objects: Sequence[str]) -> str:
    """Return tokens as a text; a list of numbers among them refers to objects."""
    words = []
    for token in tokens:
        if isinstance(token, list):
            for number in token:
                if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(objects):
                    raise MmptValueError(f"object {number!r:.80} is not among the {len(objects)} objects")
            words.append(" and ".join(f"{objects[number]} {number + 1}" for number in token))
        elif isinstance(token, str):
            words.append(token)
        else:
            raise MmptValueError(f"token is {token!r:.80}, expected a word or a list of the numbers of objects")
    return " ".join(words)
