"""Questions and answers of VQA v2 and GQA."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import entries_of, format_image_id, read_json
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs

# What the official accuracy gives an answer that so many of ten people gave: the mean, over the ten ways of leaving one
# person out, of min(1, matches / 3).
SOFT_SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)
PEOPLE = 10


def read_vqa(
    questions: str | Path, *, annotations: str | Path | None = None, image_id_format: str | None = None
) -> Dataset:
    """Read the questions of VQA v2, with their answers if there are any.

    Args:
        questions: `v2_OpenEnded_mscoco_*_questions.json`.
        annotations: `v2_mscoco_*_annotations.json` of the same split.
        image_id_format: makes the image's id of its number; by default the name of COCO's file without the ending,
            as "COCO_train2014_000000458752".

    Returns:
        text, image_id, question_id, split, and with annotations: answers (all ten, as they were given) and
        answer_scores (of each, 0.3 to 1).

    Raises:
        ValueError: also if questions and annotations are not of the same questions.
    """
    path = Path(questions)
    data = read_json(path)
    asked = entries_of(path, data, "questions")
    split = data.get("data_subtype")
    if not isinstance(split, str):
        raise MmptValueError(f"{path} has data_subtype {split!r}, expected the name of a split such as 'train2014'")
    answered = None if annotations is None else _read_answers(Path(annotations), len(asked))
    # test-dev is a part of the test split, and has its images.
    prefix = f"COCO_{split.replace('test-dev', 'test')}_"

    def to_rows(question: Any) -> Iterator[Row]:
        number, question_id = question["image_id"], question["question_id"]
        row = {
            "text": question["question"],
            "image_id": f"{prefix}{number:012d}"
            if image_id_format is None
            else format_image_id(number, image_id_format),
            "question_id": as_id(question_id),
            "split": split,
        }
        if answered is not None:
            if question_id not in answered:
                raise MmptValueError(
                    f"question {question_id!r} has no answers in {annotations}; is it of another split?"
                )
            image, answers = answered[question_id]
            if image != number:
                raise MmptValueError(f"question {question_id!r} is of image {number!r}, its answers of {image!r}")
            row |= {"answers": answers, "answer_scores": soft_scores(answers)}
        yield row

    columns = ("text", "image_id", "question_id", "split")
    if answered is not None:
        columns += ("answers", "answer_scores")
    return build_pairs(path, "question", enumerate(asked), to_rows, columns)


def soft_scores(answers: list[str]) -> list[float]:
    """Return for each of the ten answers to a question what VQA's accuracy gives a model that says it.

    Raises:
        ValueError: if they are not ten.
    """
    if len(answers) != PEOPLE:
        raise MmptValueError(f"got {len(answers)} answers, expected {PEOPLE}")
    counts = Counter(answers)
    return [SOFT_SCORES[min(counts[answer], len(SOFT_SCORES) - 1)] for answer in answers]


def read_gqa(path: str | Path, *, image_id_format: str | None = None) -> Dataset:
    """Read a file of questions of GQA.

    Args:
        image_id_format: makes the image's id of what GQA calls it, a string; by default that string.

    Returns:
        text, image_id, question_id, and where the file has answers: answers (the one) and answer_scores (1).
    """
    path = Path(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise MmptValueError(f"{path} holds a {type(data).__name__}, expected an object of questions by their ids")
    has_answers = any(isinstance(question, dict) and "answer" in question for question in data.values())

    def to_rows(entry: tuple[str, Any]) -> Iterator[Row]:
        question_id, question = entry
        image = as_id(question["imageId"])
        row = {
            "text": question["question"],
            "image_id": image if image_id_format is None else format_image_id(image, image_id_format),
            "question_id": question_id,
        }
        if has_answers:
            row |= {"answers": [question["answer"]], "answer_scores": [1.0]}
        yield row

    columns = ("text", "image_id", "question_id", *(["answers", "answer_scores"] if has_answers else []))
    return build_pairs(path, "question", ((entry[0], entry) for entry in data.items()), to_rows, columns)


def _read_answers(path: Path, questions: int) -> dict[Any, tuple[Any, list[str]]]:
    """Return (image, answers) of each question."""
    entries = entries_of(path, read_json(path), "annotations")
    answered = {}
    for place, entry in enumerate(entries):
        try:
            answers = [answer["answer"] for answer in entry["answers"]]
            answered[entry["question_id"]] = (entry["image_id"], answers)
        except (KeyError, TypeError) as error:
            expected = "'question_id', 'image_id' and 'answers'"
            raise MmptValueError(f"{path}, annotation {place}: got {entry!r:.120}, expected {expected}") from error
    if len(answered) != questions or len(entries) != questions:
        raise MmptValueError(
            f"{path} has {len(entries)} annotations of {len(answered)} questions, expected one of each of the "
            f"{questions} questions; are both files of the same split?"
        )
    return answered
