"""LXMERT's own JSON files: questions of VQA and GQA, statements of NLVR2, sentences to pre-train on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import has_key, read_objects
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs
from mmpt.processing.annotations.statement_annotations import TRUTH


def read_lxmert_questions(path: str | Path, *, errors: str | Path | None = None) -> Dataset:
    """Read LXMERT's `train.json`, `minival.json`, ... of VQA or GQA, whose images are called as in its features.

    Args:
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Returns:
        text, image_id, question_id, and where the file has them: answers and answer_scores.
    """
    path = Path(path)
    questions = read_objects(path)
    has_answers = has_key(questions, "label")

    def to_rows(question: Any) -> Iterator[Row]:
        row = {
            "text": question["sent"],
            "image_id": as_id(question["img_id"]),
            "question_id": as_id(question["question_id"]),
        }
        if has_answers:
            row |= _answers(question["label"])
        yield row

    columns = ("text", "image_id", "question_id", *(["answers", "answer_scores"] if has_answers else []))
    return build_pairs(path, "question", enumerate(questions), to_rows, columns, BadRows(path, errors))


def read_lxmert_nlvr2(path: str | Path, *, errors: str | Path | None = None) -> Dataset:
    """Read LXMERT's `train.json`, `valid.json` or `test.json` of NLVR2.

    Args:
        errors: as in `read_lxmert_questions`.

    Returns:
        text, image_id (the left image), second_image_id, example_id (the identifier), and where the file has them:
        label (1 true, 0 false) and label_name.
    """
    path = Path(path)
    statements = read_objects(path)
    has_labels = has_key(statements, "label")
    names = {number: name for name, number in TRUTH.items()}

    def to_rows(statement: Any) -> Iterator[Row]:
        row = {
            "text": statement["sent"],
            "image_id": as_id(statement["img0"]),
            "second_image_id": as_id(statement["img1"]),
            "example_id": as_id(statement["identifier"] if "identifier" in statement else statement["uid"]),
        }
        if has_labels:
            label = statement["label"]
            if label not in names:
                raise MmptValueError(f"label is {label!r:.80}, expected 0 or 1")
            row |= {"label": int(label), "label_name": names[label]}
        yield row

    columns = ("text", "image_id", "second_image_id", "example_id", *(["label", "label_name"] if has_labels else []))
    return build_pairs(path, "statement", enumerate(statements), to_rows, columns, BadRows(path, errors))


def read_lxmert_pretraining(path: str | Path, *, errors: str | Path | None = None) -> Dataset:
    """Read LXMERT's `mscoco_train.json`, `mscoco_minival.json` or `vgnococo.json`: all sentences about an image.

    Args:
        errors: as in `read_lxmert_questions`.

    Returns:
        text, image_id, example_id (`image_source_number`, as LXMERT calls it), answers and answer_scores, which only
        questions have.
    """
    path = Path(path)

    def to_rows(image: Any) -> Iterator[Row]:
        image_id, answered = as_id(image["img_id"]), image.get("labelf", {})
        for source, texts in image["sentf"].items():
            labels = answered.get(source)
            if labels is not None and len(labels) != len(texts):
                raise MmptValueError(f"{source} has {len(labels)} labels of {len(texts)} sentences, expected as many")
            for number, text in enumerate(texts):
                yield {
                    "text": text,
                    "image_id": image_id,
                    "example_id": f"{image_id}_{source}_{number:03d}",
                    **(_answers(labels[number]) if labels else {"answers": None, "answer_scores": None}),
                }

    columns = ("text", "image_id", "example_id", "answers", "answer_scores")
    return build_pairs(path, "image", enumerate(read_objects(path)), to_rows, columns, BadRows(path, errors))


def _answers(label: Any) -> Row:
    if not isinstance(label, dict):
        raise MmptValueError(f"label is {label!r:.80}, expected the scores of the answers by their words")
    return {"answers": list(label), "answer_scores": list(label.values())}
