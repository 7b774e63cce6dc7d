"""Captions of COCO, Flickr30k and the regions of Visual Genome."""

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
    read_json,
    read_lines,
)
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs

TOKEN_LINE = re.compile(r"(?P<example>(?P<image>[^\t]+)#\d+)\t(?P<caption>.*)", re.DOTALL)


def read_coco_captions(path: str | Path, *, image_id_format: str | None = None) -> Dataset:
    """Read `captions_*.json` of COCO.

    Args:
        image_id_format: makes the image's id of its number; by default its file's name without the ending.

    Returns:
        text, image_id, example_id (the caption's number).
    """
    path = Path(path)
    data = read_json(path)
    stems = image_stems(path, data)

    def to_rows(annotation: Any) -> Iterator[Row]:
        number = annotation["image_id"]
        if number not in stems:
            raise MmptValueError(f"image {number!r} is not among the {len(stems)} images of the file")
        image_id = stems[number] if image_id_format is None else format_image_id(number, image_id_format)
        yield {"text": annotation["caption"], "image_id": image_id, "example_id": as_id(annotation["id"])}

    annotations = enumerate(entries_of(path, data, "annotations"))
    return build_pairs(path, "annotation", annotations, to_rows, ("text", "image_id", "example_id"))


def read_flickr30k_captions(path: str | Path, *, image_id_format: str | None = None) -> Dataset:
    """Read the token file of Flickr30k, with lines `1000092795.jpg#0<tab>caption`.

    Args:
        image_id_format: makes the image's id of its number; by default its file's name without the ending.

    Returns:
        text, image_id, example_id (what stands in front of the tab).
    """

    def to_rows(line: str) -> Iterator[Row]:
        found = TOKEN_LINE.fullmatch(line)
        if not found:
            raise MmptValueError("expected image.jpg#number, a tab and the caption")
        image_id = flickr_image_id(found["image"], image_id_format)
        yield {"text": found["caption"], "image_id": image_id, "example_id": found["example"]}

    return build_pairs(path, "line", read_lines(Path(path)), to_rows, ("text", "image_id", "example_id"))


def read_visual_genome_regions(path: str | Path, *, image_id_format: str | None = None) -> Dataset:
    """Read `region_descriptions.json` of Visual Genome.

    Args:
        image_id_format: makes the image's id of its number; by default the number.

    Returns:
        text, image_id, example_id (the region's number), box.
    """
    path = Path(path)
    images = read_json(path)
    if not isinstance(images, list):
        raise MmptValueError(f"{path} holds a {type(images).__name__}, expected a list of images with 'regions'")

    def to_rows(image: Any) -> Iterator[Row]:
        for region in image["regions"]:
            number = region["image_id"]
            x, y = region["x"], region["y"]
            yield {
                "text": region["phrase"],
                "image_id": as_id(number) if image_id_format is None else format_image_id(number, image_id_format),
                # The first version of the file calls it id.
                "example_id": as_id(region["region_id"] if "region_id" in region else region["id"]),
                "box": [x, y, x + region["width"], y + region["height"]],
            }

    return build_pairs(path, "image", enumerate(images), to_rows, ("text", "image_id", "example_id", "box"))


def flickr_image_id(name: str, image_id_format: str | None) -> str:
    """Return the id of an image of Flickr30k, whose files are called by a number."""
    stem = file_stem(name) if name.endswith(".jpg") else name
    if image_id_format is None:
        return stem
    return format_image_id(int(stem) if stem.isdecimal() else stem, image_id_format)
