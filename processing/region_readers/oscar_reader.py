"""Reader of Oscar's and VinVL's feature files, with the boxes, classes and sizes in the files next to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.detected_objects import (
    boxes_in_pixels,
    read_json,
    read_objects,
    scores_and_labels,
    size_in_item,
)
from mmpt.processing.region_readers.field_decoding import (
    MAX_REGIONS,
    RESNET_WIDTH,
    base64_array,
    text_of,
    whole_number,
)
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.image_sizes import ImageSizes, read_image_sizes, size_of_image
from mmpt.processing.region_readers.oscar_files import PREDICTIONS, find_oscar_files
from mmpt.processing.region_readers.tsv_reader import MAX_LINE, tsv_lines
from mmpt.processing.regions import Regions, check_boxes
from mmpt.processing.store.source import Found, Rejected

WIDTH = RESNET_WIDTH + 6  # the feature, then normalised x1 y1 x2 y2 width height

_Line = tuple[int, bytes | None]


@dataclass(frozen=True)
class _SiblingFiles:
    """Content of the files next to the features: name of the file with objects, image sizes, class name -> number."""

    name: str
    sizes: ImageSizes | None
    numbers: Mapping[str, int] | None


def open_oscar_tsv(path: Path, class_names: Sequence[str] | None = None, sizes: ImageSizes | None = None) -> FileSource:
    """Open a feature.tsv, or a YAML file that lists one; no lineidx is needed, because lines are read in order.

    The file with objects next to it must have the same images in the same order. It gives the scores, the boxes of
    features without boxes and, if `class_names` or a labelmap numbers the classes, the labels.

    Args:
        class_names: class names in the order of their numbers; None reads the labelmap next to the file.
        sizes: image sizes; None reads the hw.tsv next to the file.
    """
    files = find_oscar_files(path)
    if class_names is None and files.class_names is not None:
        class_names = [
            line.partition("\t")[0] for line in files.class_names.read_text(encoding="utf-8").splitlines() if line
        ]
    if sizes is None and files.sizes is not None:
        sizes = read_image_sizes(files.sizes)
    numbers = None if class_names is None else {name: number for number, name in enumerate(class_names)}
    siblings = _SiblingFiles(PREDICTIONS if files.objects is None else files.objects.name, sizes, numbers)

    def read(start: int) -> Iterator[Found | Rejected]:
        others: Iterator[_Line | None] = repeat(None) if files.objects is None else _endless(files.objects, start)
        for (number, line), other in zip(tsv_lines(files.features, start), others, strict=False):
            yield _position(f"{files.features.name}, line {number}", line, other, siblings)

    origin = file_origin(files.features, "oscar_tsv")
    if files.objects is not None:
        origin["predictions"] = files.objects.stat().st_size
    if sizes is not None:
        origin["sizes"] = len(sizes)
    notes = list(files.notes)
    if files.objects is not None and numbers is None:
        notes.append("class names of the objects are skipped, give class_names (--class-names) to number them")
    return FileSource({"format": "oscar_tsv"}, origin, read, class_names=class_names, notes=tuple(notes))


def _endless(path: Path, start: int) -> Iterator[_Line]:
    """Yield the lines of a file, then endless empty lines."""
    number = start
    for number, line in tsv_lines(path, start):
        yield number, line
    while True:
        number += 1
        yield number, b""


def _position(where: str, line: bytes | None, other: _Line | None, siblings: _SiblingFiles) -> Found | Rejected:
    if line is None:
        return Rejected(where, f"the line has more than {MAX_LINE} bytes; is this a feature file?")
    fields = line.split(b"\t")
    try:
        image_id = text_of(fields[0], "the image id")
    except ValueError as error:
        return Rejected(where, str(error))
    return found_or_rejected(where, image_id, lambda: _regions(fields, image_id, other, siblings))


def _regions(fields: list[bytes], image_id: str, other: _Line | None, siblings: _SiblingFiles) -> Regions:
    if len(fields) < 2:
        raise MmptValueError("the line has 1 column, expected an image id, then JSON or num_boxes and base64 features")
    if len(fields) == 2:
        item = read_json(fields[1], dict, "the second column")
        count, text = item.get("num_boxes"), item.get("features")
        if not isinstance(text, str):
            raise MmptValueError(f"features are {type(text).__name__} in the JSON, expected base64 text")
    else:
        count, text = fields[1], fields[-1]
    count = whole_number(count, "num_boxes", MAX_REGIONS)
    rows = _rows(text, count)
    boxes, rest = (None, {}) if other is None else _objects(other, image_id, count, siblings)
    if "width" not in rest and siblings.sizes is not None:
        rest["width"], rest["height"] = size_of_image(siblings.sizes, image_id)
    if rows.shape[1] == WIDTH:
        boxes = check_boxes(rows[:, RESNET_WIDTH : RESNET_WIDTH + 4].astype(np.float32))
        return Regions(features=rows[:, :RESNET_WIDTH], boxes=boxes, image_id=image_id, **rest)
    if boxes is None:
        raise MmptValueError(
            f"the features have dimension {RESNET_WIDTH}, without the 6 numbers of the box, and no {siblings.name} or "
            "label.tsv with boxes is next to the file"
        )
    if "width" not in rest:
        raise MmptValueError(
            f"the boxes of {siblings.name} are in pixels, and the image size is neither there (image_w, image_h) nor "
            "in a hw.tsv next to it; give a file with sizes as image_sizes_path (--image-sizes)"
        )
    return Regions.from_pixels(rows, boxes, image_id=image_id, **rest)


def _rows(text: bytes | str, count: int) -> NDArray[Any]:
    """Return (regions, 2048) features of a line or, if it includes the boxes, (regions, 2054)."""
    plain = base64_size(text) // (count * RESNET_WIDTH)
    fits = plain in (2, 4) and base64_size(text) == plain * count * RESNET_WIDTH
    return base64_array(text, "features", count, RESNET_WIDTH if fits else WIDTH, ("<f4", "<f2"))


def base64_size(text: bytes | str) -> int:
    """Return the number of bytes that a base64 text encodes."""
    data = text.encode() if isinstance(text, str) else text
    return len(data) // 4 * 3 - (len(data) - len(data.rstrip(b"=")))


def _objects(
    other: _Line, image_id: str, count: int, siblings: _SiblingFiles
) -> tuple[NDArray[Any] | None, dict[str, Any]]:
    """Return (boxes in pixels or None, other fields) of a line of the file with objects."""
    number, line = other
    name, _, text = (line or b"").partition(b"\t")
    if name != image_id.encode():
        raise MmptValueError(
            f"{siblings.name}, line {number} is {name[:60]!r}, expected {image_id!r:.60}: both files need the same "
            f"order. Move {siblings.name} away to read the features alone"
        )
    where = f"{siblings.name}, line {number}"
    item, objects = read_objects(text, where, count)
    rest = {**size_in_item(item, where), **scores_and_labels(objects, where, siblings.numbers)}
    return (boxes_in_pixels(objects, where) if all("rect" in found for found in objects) else None), rest
