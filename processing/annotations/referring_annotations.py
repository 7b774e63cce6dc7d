"""Referring expressions of RefCOCO, RefCOCO+ and RefCOCOg."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.annotations.annotation_files import (
    entries_of,
    format_image_id,
    image_stems,
    index_entries,
    nested_entries,
    read_json,
)
from mmpt.processing.annotations.bad_rows import BadRows
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs
from mmpt.processing.region_readers.restricted_pickle import load_pickle
from mmpt.processing.text_files import file_suffix, read_bytes


def read_refcoco(
    refs: str | Path,
    *,
    instances: str | Path | None = None,
    split: str | None = None,
    image_id_format: str | None = None,
    allow_pickle: bool = False,
    errors: str | Path | None = None,
) -> Dataset:
    """Read the references of RefCOCO, RefCOCO+ or RefCOCOg, one row an expression.

    Args:
        refs: `refs(unc).p` or its like, or the same list as JSON.
        instances: `instances.json` with the boxes; by default the one beside `refs`.
        split: keep only this one (train, val, testA, ...).
        image_id_format: makes the image's id of its number; by default its file's name without the ending.
        allow_pickle: read a pickled file, of lists, dicts, strings and numbers only: one that names anything else is
            refused, and nothing in it is run.
        errors: the file that bad references are written to, which are then left out; by default one is an error.

    Returns:
        text, image_id, example_id (the expression's number), box, split.
    """
    path = Path(refs)
    entries = read_json(path) if file_suffix(path) == ".json" else _read_pickle(path, allow_pickle)
    if not isinstance(entries, list):
        raise MmptValueError(f"{path} holds a {type(entries).__name__}, expected a list of references")
    file = path.parent / "instances.json" if instances is None else Path(instances)
    if not file.is_file():
        raise MmptFileNotFoundError(f"{str(file)!r}, with the boxes of the references, is not a file; give instances=")
    data = read_json(file)
    bad = BadRows(path, errors)
    stems, boxes = image_stems(file, data, bad), _read_boxes(file, data, bad)
    splits = {str(ref.get("split")) for ref in entries if isinstance(ref, dict)}
    if split is not None and split not in splits:
        raise MmptValueError(f"{path} has no split {split!r}, expected one of {', '.join(sorted(splits)) or 'none'}")

    def to_rows(entry: Any) -> Iterator[Row]:
        sentence, ref = entry
        number, annotation = ref["image_id"], ref["ann_id"]
        if annotation not in boxes or number not in stems:
            raise MmptValueError(
                f"image {number!r} with annotation {annotation!r} is not in {file}; is it of this corpus?"
            )
        if split in (None, ref["split"]):
            yield {
                "text": sentence["sent"],
                "image_id": stems[number] if image_id_format is None else format_image_id(number, image_id_format),
                "example_id": as_id(sentence["sent_id"]),
                "box": boxes[annotation],
                "split": ref["split"],
            }

    columns = ("text", "image_id", "example_id", "box", "split")
    sentences = nested_entries(path, entries, "sentences", "sentence")
    return build_pairs(path, "reference", sentences, to_rows, columns, bad)


def _read_pickle(path: Path, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise MmptValueError(
            f"{path} is a pickled file, which could hold more than data; give allow_pickle=True (--allow-pickle) to "
            "read lists, dicts, strings and numbers of it, or turn it into JSON"
        )
    try:
        data = read_bytes(path)
        # Python 2 wrote the files. Bytes that are no UTF-8 become what no text may hold, so that they are an error
        # where they are used, and only there.
        value = load_pickle(data, text_encoding="utf-8")
        _refuse_unfolding(value, len(data))
    except ValueError as error:
        raise MmptValueError(f"{path} is refused: {error}") from error
    return value


def _refuse_unfolding(value: Any, size: int) -> None:
    """Refuse a pickle that names one container again and again, and so holds more than any memory when it is read.

    Raises:
        ValueError: if its values are more than its bytes; each of an honest file takes two at least.
    """
    left, waiting = size, [value]
    while waiting:
        item = waiting.pop()
        left -= 1 + (len(item) >> 6 if isinstance(item, (str, bytes)) else 0)
        if left < 0:
            raise MmptValueError(f"its {size:,} bytes unfold into more values than that, expected plain data")
        if isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)


def _read_boxes(path: Path, data: Any, bad: BadRows) -> dict[Any, list[float]]:
    def to_item(annotation: Any) -> tuple[Any, list[float]]:
        x, y, width, height = annotation["bbox"]
        return annotation["id"], [x, y, x + width, y + height]

    annotations = entries_of(path, data, "annotations")
    return index_entries(path, "annotation", annotations, to_item, "'id' and 'bbox' of four numbers", bad)
