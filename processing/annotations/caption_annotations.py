"""Captions: COCO, Karpathy's splits, Flickr, Visual Genome's regions, Conceptual Captions, LAVIS."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.annotation_files import (
    entries_of,
    file_stem,
    format_image_id,
    image_stems,
    nested_entries,
    path_image_id,
    read_json,
    read_objects,
)
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs
from mmpt.processing.text_files import read_lines

TOKEN_LINE = re.compile(r"(?P<example>(?P<image>[^\t]+)#\d+)\t(?P<caption>.*)", re.DOTALL)
# One line of the file that is passed around lacks the second bar.
RESULTS_LINE = re.compile(r"(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*(?:\||\s)\s*(?P<caption>.*)", re.DOTALL)
RESULTS_HEADER = re.compile(r"image_name\s*\|\s*comment_number\s*\|\s*comment\s*")
WEB_LINE = re.compile(r"(?P<caption>[^\t]+)\t(?P<url>https?://[^\t]+?)\s*")
LAST_NUMBER = re.compile(r"(\d+)\D*")


def read_coco_captions(
    path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None
) -> Dataset:
    """Read `captions_*.json` of COCO.

    Args:
        image_id_format: makes the image's id of its number; by default its file's name without the ending.
        errors: the file that bad rows are written to, which are then left out; by default a bad row is an error.

    Returns:
        text, image_id, example_id (the caption's number).
    """
    path = Path(path)
    data = read_json(path)
    bad = BadRows(path, errors)
    stems = image_stems(path, data, bad)

    def to_rows(annotation: Any) -> Iterator[Row]:
        number = annotation["image_id"]
        if number not in stems:
            raise MmptValueError(f"image {number!r} is not among the {len(stems)} images of the file")
        image_id = stems[number] if image_id_format is None else format_image_id(number, image_id_format)
        yield {"text": annotation["caption"], "image_id": image_id, "example_id": as_id(annotation["id"])}

    annotations = enumerate(entries_of(path, data, "annotations"))
    return build_pairs(path, "annotation", annotations, to_rows, ("text", "image_id", "example_id"), bad)


def read_karpathy_captions(
    path: str | Path,
    *,
    split: str | None = None,
    image_id_format: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read `dataset_coco.json`, `dataset_flickr30k.json` or `dataset_flickr8k.json` of Karpathy's splits.

    Args:
        split: keep only this one (train, restval, val, test).
        image_id_format: makes the image's id of COCO's number, and elsewhere of the last number in the file's name; by
            default the file's name without the ending.
        errors: as in `read_coco_captions`.

    Returns:
        text, image_id, example_id (sentid), split.
    """
    path = Path(path)
    images = entries_of(path, read_json(path), "images")
    splits = {str(image.get("split")) for image in images if isinstance(image, dict)}
    if split is not None and split not in splits:
        raise MmptValueError(f"{path} has no split {split!r}, expected one of {', '.join(sorted(splits)) or 'none'}")

    def to_rows(entry: Any) -> Iterator[Row]:
        sentence, image = entry
        if split not in (None, image["split"]):
            return
        stem = file_stem(image["filename"])
        yield {
            "text": sentence["raw"],
            "image_id": stem
            if image_id_format is None
            else format_image_id(image["cocoid"] if "cocoid" in image else _last_number(stem), image_id_format),
            "example_id": as_id(sentence["sentid"]),
            "split": image["split"],
        }

    sentences = nested_entries(path, images, "sentences", "sentence")
    columns = ("text", "image_id", "example_id", "split")
    return build_pairs(path, "image", sentences, to_rows, columns, BadRows(path, errors))


def read_flickr30k_captions(
    path: str | Path,
    *,
    image_id_format: str | None = None,
    encoding: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read the captions of Flickr30k: lines `1000092795.jpg#0<tab>caption`, or `results.csv`, which has bars.

    Args:
        image_id_format: makes the image's id of its number; by default its file's name without the ending.
        encoding: that of the file; by default UTF-8, or what a byte order mark names.
        errors: as in `read_coco_captions`.

    Returns:
        text, image_id, example_id (`1000092795.jpg#0`).
    """
    path = Path(path)
    has_bars = bool(RESULTS_HEADER.fullmatch(next(read_lines(path, encoding), (1, ""))[1]))

    def to_rows(line: str) -> Iterator[Row]:
        found = (RESULTS_LINE if has_bars else TOKEN_LINE).fullmatch(line)
        if not found:
            expected = "image.jpg| number| caption" if has_bars else "image.jpg#number, a tab and the caption"
            raise MmptValueError(f"expected {expected}")
        yield {
            "text": found["caption"],
            "image_id": flickr_image_id(found["image"], image_id_format),
            "example_id": f"{found['image']}#{found['number']}" if has_bars else found["example"],
        }

    lines = read_lines(path, encoding)
    if has_bars:
        next(lines)
    return build_pairs(path, "line", lines, to_rows, ("text", "image_id", "example_id"), BadRows(path, errors))


def read_visual_genome_regions(
    path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None
) -> Dataset:
    """Read `region_descriptions.json` of Visual Genome.

    Args:
        image_id_format: makes the image's id of its number; by default the number.
        errors: as in `read_coco_captions`.

    Returns:
        text, image_id, example_id (the region's number), box.
    """
    path = Path(path)

    def to_rows(entry: Any) -> Iterator[Row]:
        region, _ = entry
        number = region["image_id"]
        x, y = region["x"], region["y"]
        yield {
            "text": region["phrase"],
            "image_id": as_id(number) if image_id_format is None else format_image_id(number, image_id_format),
            # The first version of the file calls it id.
            "example_id": as_id(region["region_id"] if "region_id" in region else region["id"]),
            "box": [x, y, x + region["width"], y + region["height"]],
        }

    regions = nested_entries(path, read_objects(path), "regions", "region")
    columns = ("text", "image_id", "example_id", "box")
    return build_pairs(path, "image", regions, to_rows, columns, BadRows(path, errors))


def read_conceptual_captions(
    path: str | Path,
    *,
    image_id_format: str | None = None,
    encoding: str | None = None,
    errors: str | Path | None = None,
) -> Dataset:
    """Read `Train_GCC-training.tsv` of Conceptual Captions: `caption<tab>URL`, without a header.

    The images have no ids in the file.

    Args:
        image_id_format: makes the image's id of its line's number, from 0: "{:09d}" gives the keys of img2dataset. By
            default the URL.
        encoding: as in `read_flickr30k_captions`.
        errors: as in `read_coco_captions`.

    Returns:
        text, image_id.
    """

    def to_rows(entry: tuple[int, str]) -> Iterator[Row]:
        number, line = entry
        found = WEB_LINE.fullmatch(line)
        if not found:
            raise MmptValueError("expected a caption, a tab and a URL")
        url = found["url"]
        image_id = url if image_id_format is None else format_image_id(number - 1, image_id_format)
        yield {"text": found["caption"], "image_id": image_id}

    path = Path(path)
    lines = ((line[0], line) for line in read_lines(path, encoding))
    return build_pairs(path, "line", lines, to_rows, ("text", "image_id"), BadRows(path, errors))


def read_lavis_captions(
    path: str | Path, *, image_id_format: str | None = None, errors: str | Path | None = None
) -> Dataset:
    """Read the captions of BLIP and LAVIS: a list of `image` (a path) and `caption` (one or a list of them).

    Args:
        image_id_format: makes the image's id of the last number in its file's name; by default the path without the
            ending, as `mmpt extract` calls it. `image_id` of the file, which no store knows, is not read.
        errors: as in `read_coco_captions`.

    Returns:
        text, image_id.
    """
    path = Path(path)

    def to_rows(entry: Any) -> Iterator[Row]:
        image, captions = entry["image"], entry["caption"]
        if captions == []:
            raise MmptValueError("caption is an empty list, expected a text or a list of them")
        for caption in captions if isinstance(captions, list) else [captions]:
            image_id = path_image_id(image)
            if image_id_format is not None:
                image_id = format_image_id(_last_number(file_stem(image)), image_id_format)
            yield {"text": caption, "image_id": image_id}

    entries = enumerate(read_objects(path))
    return build_pairs(path, "entry", entries, to_rows, ("text", "image_id"), BadRows(path, errors))


def flickr_image_id(name: str, image_id_format: str | None) -> str:
    """Return the id of an image of Flickr30k, whose files are called by a number."""
    stem = file_stem(name) if name.endswith(".jpg") else name
    if image_id_format is None:
        return stem
    return format_image_id(int(stem) if stem.isdecimal() else stem, image_id_format)


def _last_number(stem: str) -> int:
    found = list(LAST_NUMBER.finditer(stem))
    if not found:
        raise MmptValueError(f"image {stem!r} has no number in its name, which image_id_format needs")
    return int(found[-1][1])
