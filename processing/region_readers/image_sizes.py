"""Read image sizes from a separate file, for feature files with boxes in pixels but without sizes."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.field_decoding import MAX_SIDE, shown, whole_number

ImageSizes = Mapping[str, tuple[int, int]]
"""Image id -> (width, height) in pixels."""

SUFFIXES = (".tsv", ".json", ".jsonl", ".csv")
_WIDTHS = ("width", "image_w", "image_width", "img_w")
_HEIGHTS = ("height", "image_h", "image_height", "img_h")


def read_image_sizes(path: Path) -> ImageSizes:
    """Return the size of every image in a file.

    * `.tsv`: hw.tsv of scene_graph_benchmark, an id, then `[{"height": ..., "width": ...}]` or "height width".
    * `.json`: COCO's annotations, `images` with `id`, `width`, `height`; `file_name` without its suffix is an id too.
    * `.jsonl`, `.csv`: rows of `image_id`, `width`, `height`.

    Raises:
        ValueError: if the file has another layout, or a size is not an integer number of pixels.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MmptValueError(f"{path.name} ends in {suffix!r}, expected sizes of images in {', '.join(SUFFIXES)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if suffix == ".tsv":
                rows: Iterable[Any] = map(_row_of_line, file)
            elif suffix == ".csv":
                rows = csv.DictReader(file)
            elif suffix == ".jsonl":
                rows = (json.loads(line) for line in file if line.strip())
            else:
                content = json.load(file)
                rows = content.get("images", content) if isinstance(content, dict) else content
            return _sizes(rows, path.name)
    except (UnicodeDecodeError, RecursionError, csv.Error, json.JSONDecodeError) as error:
        raise MmptValueError(f"{path.name} with the image sizes cannot be read: {error}") from None


def size_of_image(sizes: ImageSizes, image_id: str) -> tuple[int, int]:
    """Return (width, height) of an image in pixels.

    Raises:
        ValueError: if the image is not in `sizes`.
    """
    if image_id not in sizes:
        raise MmptValueError(f"the file of sizes has {len(sizes)} images, but not {image_id!r:.60}")
    return sizes[image_id]


def _row_of_line(line: str) -> dict[str, Any]:
    name, _, text = line.rstrip("\r\n").partition("\t")
    if text[:1] in ("[", "{"):
        value = json.loads(text)
        value = value[0] if isinstance(value, list) and value else value
        return {**value, "image_id": name} if isinstance(value, dict) else {}
    height, _, width = text.partition(" ")
    return {"image_id": name, "height": height, "width": width}


def _sizes(rows: Iterable[Any], name: str) -> ImageSizes:
    sizes = {}
    for number, row in enumerate(rows, 1):
        given = row if isinstance(row, dict) else {}
        ids = [given[key] for key in ("image_id", "id") if given.get(key) is not None][:1]
        if isinstance(given.get("file_name"), str):
            ids.append(PurePosixPath(given["file_name"]).with_suffix("").name)
        width, height = (next((given[key] for key in keys if key in given), None) for keys in (_WIDTHS, _HEIGHTS))
        if not ids or width is None or height is None:
            raise MmptValueError(f"{name}, row {number} is {shown(row)}, expected image_id, width and height")
        size = (
            whole_number(width, f"the width in {name}, row {number},", MAX_SIDE),
            whole_number(height, f"the height in {name}, row {number},", MAX_SIDE),
        )
        sizes.update({str(image_id): size for image_id in ids})
    if not sizes:
        raise MmptValueError(f"{name} has no row, expected image_id, width and height of every image")
    return sizes
