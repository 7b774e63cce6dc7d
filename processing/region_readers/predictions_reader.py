"""Reader of scene_graph_benchmark's predictions.tsv whose objects have features (TEST.OUTPUT_FEATURE)."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.region_readers.detected_objects import (
    boxes_in_pixels,
    read_objects,
    scores_and_labels,
    size_in_item,
)
from mmpt.processing.region_readers.field_decoding import base64_array, shown, text_of
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.image_sizes import ImageSizes, size_of_image
from mmpt.processing.region_readers.tsv_reader import MAX_LINE, SAMPLED_LINES, recognise_dtype, tsv_lines
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected

FORMAT = "vinvl_predictions"


def open_predictions(
    path: Path,
    class_names: Sequence[str] | None = None,
    sizes: ImageSizes | None = None,
    dtype: str | None = None,
) -> FileSource:
    """Open a predictions.tsv; its positions are its lines.

    Args:
        class_names: class names in the order of their numbers; without them regions get no labels.
        sizes: image sizes, for lines without image_w and image_h.
        dtype: dtype of the features; None recognises it by the first lines.

    Raises:
        ValueError: if the features are plausible in two dtypes.
    """
    note = "given by the caller"
    if dtype is None:
        dtype, note = _feature_dtype(path)
    numbers = None if class_names is None else {name: number for number, name in enumerate(class_names)}

    def read(start: int) -> Iterator[Found | Rejected]:
        for number, line in tsv_lines(path, start):
            yield _position(f"{path.name}, line {number}", line, numbers, sizes, dtype or "float32")

    origin = file_origin(path, FORMAT)
    notes = []
    if dtype is not None:
        origin["dtype"] = dtype
        notes.append(f"{dtype} features ({note})")
    if numbers is None:
        notes.append("class names of the objects are skipped, give class_names (--class-names) to number them")
    return FileSource({"format": FORMAT}, origin, read, notes=tuple(notes))


def is_objects_line(fields: Sequence[bytes]) -> bool:
    """Return whether the second field of a line is JSON with a list of objects."""
    try:
        item = json.loads(fields[1])
    except (ValueError, RecursionError):
        return False
    objects = item.get("objects") if isinstance(item, dict) else item
    return isinstance(objects, list) and all(isinstance(found, dict) and "rect" in found for found in objects)


def _feature_dtype(path: Path) -> tuple[str | None, str]:
    for (_, line), _ in zip(tsv_lines(path, 0), range(SAMPLED_LINES), strict=False):
        try:
            _, objects = read_objects((line or b"").partition(b"\t")[2], path.name)
            data = b"".join(base64.b64decode(found["feature"], validate=True) for found in objects)
        except (KeyError, ValueError, TypeError):
            continue
        if data:
            return recognise_dtype(path.name, data, len(objects))
    return None, ""


def _position(
    where: str, line: bytes | None, numbers: Mapping[str, int] | None, sizes: ImageSizes | None, dtype: str
) -> Found | Rejected:
    if line is None:
        return Rejected(where, f"the line has more than {MAX_LINE} bytes; is this a feature file?")
    name, _, text = line.partition(b"\t")
    try:
        image_id = text_of(name, "the image id")
    except ValueError as error:
        return Rejected(where, str(error))
    return found_or_rejected(where, image_id, lambda: _regions(text, image_id, numbers, sizes, dtype))


def _regions(
    text: bytes, image_id: str, numbers: Mapping[str, int] | None, sizes: ImageSizes | None, dtype: str
) -> Regions:
    item, objects = read_objects(text, "the second column")
    if not objects:
        raise MmptValueError("the list of objects is empty: no region was found in the image")
    features = [found.get("feature") for found in objects]
    missing = [number for number, feature in enumerate(features) if not isinstance(feature, str)]
    if missing:
        raise MmptValueError(
            f"object {missing[0]} has no 'feature' but {shown(features[missing[0]])}, expected base64 text in each "
            "(scene_graph_benchmark writes it with TEST.OUTPUT_FEATURE True)"
        )
    rows = [base64_array(feature, "feature", 1, None, (dtype,)) for feature in features if feature is not None]
    widths = {row.shape[1] for row in rows}
    if len(widths) > 1:
        raise MmptValueError(f"the features of the objects have dimensions {sorted(widths)}, expected one dimension")
    size: dict[str, Any] = size_in_item(item, "the line")
    if not size:
        if sizes is None:
            raise MmptValueError(
                "the boxes are in pixels, and the line has no image_w and image_h; give a file with sizes as "
                "image_sizes_path (--image-sizes)"
            )
        size["width"], size["height"] = size_of_image(sizes, image_id)
    rest = scores_and_labels(objects, "the line", numbers)
    matrix = np.concatenate(rows)
    return Regions.from_pixels(
        matrix.astype(np.float32) if matrix.dtype.itemsize == 8 else matrix,
        boxes_in_pixels(objects, "the line"),
        image_id=image_id,
        **size,
        **rest,
    )
