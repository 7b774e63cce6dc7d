"""Questions and answers: VQA v2, GQA, Visual Genome, A-OKVQA, TextVQA, VizWiz, LLaVA."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import (
    entries_of,
    file_stem,
    format_image_id,
    has_key,
    index_entries,
    nested_entries,
    path_image_id,
    read_json,
    read_objects,
)
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs
from mmpt.processing.annotations.plain_words import on_one_line

logger = logging.getLogger(__name__)

# What the official accuracy gives an answer that so many of ten people gave: the mean, over the ten ways of leaving one
# person out, of min(1, matches / 3).
SOFT_SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)
PEOPLE = 10
ENOUGH_PEOPLE = 3  # in A-OKVQA an answer that three people gave is right
IMAGE_TOKEN = "<image>"  # where LLaVA's questions show the image


def read_vqa(
    questions: str | Path,
    *,
    annotations: str | Path | None = None,
    image_id_format: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read the questions of VQA v2, with their answers if there are any.

    Args:
        questions: `v2_OpenEnded_mscoco_*_questions.json`.
        annotations: `v2_mscoco_*_annotations.json` of the same split. If it has answers of some of the questions only,
            the others are left out, and a warning counts them.
        image_id_format: makes the image's id of its number; by default the name of COCO's file without the ending,
            as "COCO_train2014_000000458752".
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Returns:
        text, image_id, question_id, split, and with annotations: answers (all ten, as they were given) and
        answer_scores (of each, 0.3 to 1).

    Raises:
        ValueError: also if the annotations are of none of the questions.
    """
    path = Path(questions)
    data = read_json(path)
    bad = BadRows(path, errors)
    asked = entries_of(path, data, "questions")
    split = data.get("data_subtype")
    if not isinstance(split, str):
        raise MmptValueError(f"{path} has data_subtype {split!r}, expected the name of a split such as 'train2014'")
    answered = None
    if annotations is not None:
        answered = _read_answers(Path(annotations), bad)
        asked = _with_answers(path, asked, Path(annotations), answered)
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
            image, answers = answered[question_id]
            if image != number:
                raise MmptValueError(f"question {question_id!r} is of image {number!r}, its answers of {image!r}")
            row |= {"answers": answers, "answer_scores": soft_scores(answers)}
        yield row

    columns = ("text", "image_id", "question_id", "split")
    if answered is not None:
        columns += ("answers", "answer_scores")
    return build_pairs(path, "question", enumerate(asked), to_rows, columns, bad)


def soft_scores(answers: list[str]) -> list[float]:
    """Return for each of the ten answers to a question what VQA's accuracy gives a model that says it.

    Raises:
        ValueError: if they are not ten.
    """
    if len(answers) != PEOPLE:
        raise MmptValueError(f"got {len(answers)} answers, expected {PEOPLE}")
    lines = [on_one_line(answer) for answer in answers]
    counts = Counter(lines)
    return [SOFT_SCORES[min(counts[line], len(SOFT_SCORES) - 1)] for line in lines]


def read_gqa(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read a file of questions of GQA.

    Args:
        image_id_format: makes the image's id of what GQA calls it, a string; by default that string.
        errors: as in `read_vqa`.

    Returns:
        text, image_id, question_id, and where the file has answers: answers (the one) and answer_scores (1).
    """
    path = Path(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise MmptValueError(f"{path} holds a {type(data).__name__}, expected an object of questions by their ids")
    has_answers = has_key(data.values(), "answer")

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
    entries = ((entry[0], entry) for entry in data.items())
    return build_pairs(path, "question", entries, to_rows, columns, BadRows(path, errors))


def read_visual_genome_questions(
    path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None
) -> Dataset:
    """Read `question_answers.json` of Visual Genome.

    Args:
        image_id_format: makes the image's id of its number; by default the number.
        errors: as in `read_vqa`.

    Returns:
        text, image_id, question_id, answers (the one, as it is written: "Green.") and answer_scores (1).
    """
    path = Path(path)

    def to_rows(entry: Any) -> Iterator[Row]:
        question, image = entry
        number = question["image_id"] if "image_id" in question else image["id"]
        yield {
            "text": question["question"],
            "image_id": as_id(number) if image_id_format is None else format_image_id(number, image_id_format),
            "question_id": as_id(question["qa_id"]),
            "answers": [question["answer"]],
            "answer_scores": [1.0],
        }

    questions = nested_entries(path, read_objects(path), "qas", "question")
    columns = ("text", "image_id", "question_id", "answers", "answer_scores")
    return build_pairs(path, "image", questions, to_rows, columns, BadRows(path, errors))


def read_aokvqa(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read `aokvqa_v1p0_train.json`, `_val.json` or `_test.json` of A-OKVQA.

    Args:
        image_id_format: makes the image's id of its number; by default the name of the file of COCO 2017 without the
            ending, as "000000299207".
        errors: as in `read_vqa`.

    Returns:
        text, image_id, question_id, choices, split, and where the file has them: label (the place of the right choice),
        answers (all ten) and answer_scores (a third for each person who said so, up to 1).
    """
    path = Path(path)
    questions = read_objects(path)
    has_labels, has_answers = has_key(questions, "correct_choice_idx"), has_key(questions, "direct_answers")

    def to_rows(question: Any) -> Iterator[Row]:
        row = {
            "text": question["question"],
            "image_id": format_image_id(question["image_id"], image_id_format or "{:012d}"),
            "question_id": as_id(question["question_id"]),
            "choices": question["choices"],
            "split": question["split"],
        }
        if has_labels:
            row |= {"label": question["correct_choice_idx"]}
        if has_answers:
            answers = question["direct_answers"]
            counts = Counter(map(on_one_line, answers))
            row |= {
                "answers": answers,
                "answer_scores": [min(1.0, counts[on_one_line(answer)] / ENOUGH_PEOPLE) for answer in answers],
            }
        yield row

    columns = ("text", "image_id", "question_id", "choices", "split", *(["label"] if has_labels else []))
    columns += ("answers", "answer_scores") if has_answers else ()
    return build_pairs(path, "question", enumerate(questions), to_rows, columns, BadRows(path, errors))


def read_textvqa(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read `TextVQA_0.5.1_train.json`, `_val.json` or `_test.json` of TextVQA.

    Args:
        image_id_format: makes the image's id of what TextVQA calls it, a string; by default that string.
        errors: as in `read_vqa`.

    Returns:
        text, image_id, question_id, split, and where the file has them: answers (all ten) and answer_scores.
    """
    path = Path(path)
    questions = entries_of(path, read_json(path), "data")
    has_answers = has_key(questions, "answers")

    def to_rows(question: Any) -> Iterator[Row]:
        image = as_id(question["image_id"])
        row = {
            "text": question["question"],
            "image_id": image if image_id_format is None else format_image_id(image, image_id_format),
            "question_id": as_id(question["question_id"]),
            "split": question["set_name"],
        }
        if has_answers:
            row |= {"answers": question["answers"], "answer_scores": soft_scores(question["answers"])}
        yield row

    columns = ("text", "image_id", "question_id", "split", *(["answers", "answer_scores"] if has_answers else []))
    return build_pairs(path, "question", enumerate(questions), to_rows, columns, BadRows(path, errors))


def read_vizwiz(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read `train.json`, `val.json` or `test.json` of VizWiz-VQA, which has one question an image.

    Args:
        image_id_format: makes the image's id of its file's name without the ending, "VizWiz_train_00000000"; by default
            that name.
        errors: as in `read_vqa`.

    Returns:
        text, image_id, question_id (the file's name without the ending), and where the file has them: answers (all ten)
        and answer_scores.
    """
    path = Path(path)
    questions = read_objects(path)
    has_answers = has_key(questions, "answers")

    def to_rows(question: Any) -> Iterator[Row]:
        image = file_stem(question["image"])
        row = {
            "text": question["question"],
            "image_id": image if image_id_format is None else format_image_id(image, image_id_format),
            "question_id": image,
        }
        if has_answers:
            answers = [answer["answer"] for answer in question["answers"]]
            row |= {"answers": answers, "answer_scores": soft_scores(answers)}
        yield row

    columns = ("text", "image_id", "question_id", *(["answers", "answer_scores"] if has_answers else []))
    return build_pairs(path, "question", enumerate(questions), to_rows, columns, BadRows(path, errors))


def read_llava(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read the conversations of LLaVA: a row for each question and the reply to it.

    Conversations without an image are no pairs; a warning counts them.

    Args:
        image_id_format: makes the image's id of its path without the ending, "coco/train2017/000000033471"; by default
            that path, as `mmpt extract` calls it.
        errors: as in `read_vqa`.

    Returns:
        text (the question, without the place of the image), image_id, question_id (the conversation's id and the number
        of the question in it), answers (the reply) and answer_scores (1).
    """
    path = Path(path)
    entries = [(place, entry) for place, entry in enumerate(read_objects(path))]
    shown = [(place, entry) for place, entry in entries if not (isinstance(entry, dict) and "image" not in entry)]
    if len(shown) < len(entries):
        logger.warning("%s: left out %d conversations without an image", path, len(entries) - len(shown))

    def to_rows(entry: Any) -> Iterator[Row]:
        turns, image = entry["conversations"], path_image_id(entry["image"])
        said = [turn["from"] for turn in turns]
        if not turns or len(turns) % 2 or said != ["human", "gpt"] * (len(turns) // 2):
            raise MmptValueError(
                f"conversation is of {', '.join(map(str, said)) or 'no turns'}, expected human, gpt, human, gpt, ..."
            )
        for number in range(0, len(turns), 2):
            yield {
                "text": turns[number]["value"].replace(IMAGE_TOKEN, "").strip(),
                "image_id": image if image_id_format is None else format_image_id(image, image_id_format),
                "question_id": f"{as_id(entry['id'])}-{number // 2}",
                "answers": [turns[number + 1]["value"]],
                "answer_scores": [1.0],
            }

    columns = ("text", "image_id", "question_id", "answers", "answer_scores")
    return build_pairs(path, "conversation", shown, to_rows, columns, BadRows(path, errors))


def _read_answers(path: Path, bad: BadRows) -> dict[Any, tuple[Any, list[str]]]:
    """Return (image, answers) of each question."""
    return index_entries(
        path,
        "annotation",
        entries_of(path, read_json(path), "annotations"),
        lambda entry: (entry["question_id"], (entry["image_id"], [answer["answer"] for answer in entry["answers"]])),
        "'question_id', 'image_id' and 'answers'",
        bad,
    )


def _with_answers(path: Path, asked: list[Any], annotations: Path, answered: dict[Any, Any]) -> list[Any]:
    """Return the questions that have answers, and those that are bad in any case."""

    def has_answers(question: Any) -> bool:
        try:
            return question["question_id"] in answered
        except (LookupError, TypeError):
            return True  # a bad row

    kept = [question for question in asked if has_answers(question)]
    if asked and not kept:
        raise MmptValueError(
            f"none of the {len(asked):,} questions of {path} has answers among the {len(answered):,} annotations of "
            f"{annotations}; are both files of the same split?"
        )
    if len(kept) < len(asked):
        logger.warning(
            "%s: %d of %d questions have answers in %s; the others are left out",
            path,
            len(kept),
            len(asked),
            annotations,
        )
    if len(answered) > len(kept):
        logger.warning("%s: %d annotations are of no question", annotations, len(answered) - len(kept))
    return kept
