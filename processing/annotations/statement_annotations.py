"""Statements that are true or false of images: NLVR, NLVR2 and SNLI-VE."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import format_image_id, has_key, read_json_lines
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.caption_annotations import flickr_image_id
from mmpt.processing.annotations.pair_columns import Row, build_pairs

TRUTH = {"false": 0, "true": 1}
ENTAILMENT = {"contradiction": 0, "neutral": 1, "entailment": 2}  # the order of ViLBERT and VOLTA
NLVR_SPLITS = ("train", "dev", "test")
NLVR2_IDENTIFIER = re.compile(r"(?P<pair>(?P<split>[^-]+)-\d+-\d+)-\d+")
SNLI_VE_IMAGE = ("Flickr30K_ID", "Flikr30kID")  # releases spell it differently


def read_nlvr_statements(
    path: str | Path,
    *,
    split: str | None = None,
    image_id_format: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read `train.json`, `dev.json` or `test.json` of NLVR, one example a line.

    The identifier tells the label to who knows the corpus, so it names examples and is never a model's input.

    Args:
        split: by default the file's name.
        image_id_format: makes the image's id of the identifier `n-m`; by default `split-n-m`.
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Returns:
        text, image_id, example_id (the identifier), split, and where the file has them: label (1 true, 0 false) and
        label_name.
    """
    path = Path(path)
    split = split or path.stem
    if split not in NLVR_SPLITS:
        raise MmptValueError(f"{path} is of no split that is known, got {split!r}; give split=, one of {NLVR_SPLITS}")
    lines = list(read_json_lines(path))
    has_labels = has_key((example for _, example in lines), "label")

    def to_rows(example: Any) -> Iterator[Row]:
        identifier = example["identifier"]
        image_id = f"{split}-{identifier}" if image_id_format is None else format_image_id(identifier, image_id_format)
        yield {
            "text": example["sentence"],
            "image_id": image_id,
            "example_id": identifier,
            **(_label(str(example["label"]).lower(), TRUTH) if has_labels else {}),
            "split": split,
        }

    columns = ("text", "image_id", "example_id", *(["label", "label_name"] if has_labels else []), "split")
    return build_pairs(path, "line", lines, to_rows, columns, BadRows(path, errors))


def read_nlvr2_statements(
    path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None
) -> Dataset:
    """Read a file of NLVR2, one example of two images a line; that of the hidden test set has no labels.

    Args:
        image_id_format: makes an image's id of its file's name without the ending, as "nlvr2_{}" does; by default
            that name, "dev-850-0-img0".
        errors: as in `read_nlvr_statements`.

    Returns:
        text, image_id (the left image), second_image_id, example_id (the identifier), split, and where the file has
        them: label (1 true, 0 false) and label_name.
    """
    path = Path(path)
    lines = list(read_json_lines(path))
    has_labels = has_key((example for _, example in lines), "label")

    def to_rows(example: Any) -> Iterator[Row]:
        identifier = example["identifier"]
        found = NLVR2_IDENTIFIER.fullmatch(identifier)
        if not found:
            raise MmptValueError(f"identifier is {identifier!r}, expected split-set-pair-sentence as in 'dev-850-0-1'")
        names = [f"{found['pair']}-img{side}" for side in (0, 1)]
        left, right = (name if image_id_format is None else format_image_id(name, image_id_format) for name in names)
        yield {
            "text": example["sentence"],
            "image_id": left,
            "second_image_id": right,
            "example_id": identifier,
            **(_label(str(example["label"]).lower(), TRUTH) if has_labels else {}),
            "split": found["split"],
        }

    labels = ["label", "label_name"] if has_labels else []
    columns = ("text", "image_id", "second_image_id", "example_id", *labels, "split")
    return build_pairs(path, "line", lines, to_rows, columns, BadRows(path, errors))


def read_snli_ve(path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None) -> Dataset:
    """Read a file of SNLI-VE, whose images stand for the premises and are those of Flickr30k.

    The premise's caption is left out: a model would read from it what it should see.

    Args:
        image_id_format: makes the image's id of its number; by default the number.
        errors: as in `read_nlvr_statements`.

    Returns:
        text (the hypothesis), image_id, example_id (pairID), label (0 contradiction, 1 neutral, 2 entailment),
        label_name.
    """

    def to_rows(example: Any) -> Iterator[Row]:
        image = next((str(example[key]) for key in SNLI_VE_IMAGE if key in example), None)
        if image is None:
            raise MmptValueError(f"expected the image under {' or '.join(SNLI_VE_IMAGE)}")
        yield {
            "text": example["sentence2"],
            "image_id": flickr_image_id(image, image_id_format),
            "example_id": example["pairID"],
            **_label(example["gold_label"], ENTAILMENT),
        }

    columns = ("text", "image_id", "example_id", "label", "label_name")
    path = Path(path)
    return build_pairs(path, "line", read_json_lines(path), to_rows, columns, BadRows(path, errors))


def _label(name: Any, labels: Mapping[str, int]) -> Row:
    if name not in labels:
        raise MmptValueError(f"label is {name!r}, expected {' or '.join(labels)}")
    return {"label": labels[name], "label_name": name}
