"""Referring expressions of RefCOCO, RefCOCO+ and RefCOCOg."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.annotations.annotation_files import entries_of, format_image_id, image_stems, read_json
from mmpt.processing.annotations.pair_columns import Row, as_id, build_pairs


def read_refcoco(
    refs: str | Path,
    *,
    instances: str | Path | None = None,
    split: str | None = None,
    image_id_format: str | None = None,
    allow_pickle: bool = False,
) -> Dataset:
    """Read the references of RefCOCO, RefCOCO+ or RefCOCOg, one row an expression.

    Args:
        refs: `refs(unc).p` or its like, or the same list as JSON.
        instances: `instances.json` with the boxes; by default the one beside `refs`.
        split: keep only this one (train, val, testA, ...).
        image_id_format: makes the image's id of its number; by default its file's name without the ending.
        allow_pickle: read a pickled file, of lists, dicts, strings and numbers only: one that names anything else is
            refused, and nothing in it is run.

    Returns:
        text, image_id, example_id (the expression's number), box, split.
    """
    path = Path(refs)
    entries = read_json(path) if path.suffix == ".json" else _read_pickle(path, allow_pickle)
    if not isinstance(entries, list):
        raise MmptValueError(f"{path} holds a {type(entries).__name__}, expected a list of references")
    file = path.parent / "instances.json" if instances is None else Path(instances)
    if not file.is_file():
        raise MmptFileNotFoundError(f"{str(file)!r}, with the boxes of the references, is not a file; give instances=")
    data = read_json(file)
    stems, boxes = image_stems(file, data), _read_boxes(file, data)
    splits = {str(ref.get("split")) for ref in entries if isinstance(ref, dict)}
    if split is not None and split not in splits:
        raise MmptValueError(f"{path} has no split {split!r}, expected one of {', '.join(sorted(splits)) or 'none'}")

    def to_rows(ref: Any) -> Iterator[Row]:
        number, annotation = ref["image_id"], ref["ann_id"]
        if annotation not in boxes or number not in stems:
            raise MmptValueError(
                f"image {number!r} with annotation {annotation!r} is not in {file}; is it of this corpus?"
            )
        for sentence in ref["sentences"] if split in (None, ref["split"]) else ():
            yield {
                "text": sentence["sent"],
                "image_id": stems[number] if image_id_format is None else format_image_id(number, image_id_format),
                "example_id": as_id(sentence["sent_id"]),
                "box": boxes[annotation],
                "split": ref["split"],
            }

    columns = ("text", "image_id", "example_id", "box", "split")
    return build_pairs(path, "reference", enumerate(entries), to_rows, columns)


class _DataUnpickler(pickle.Unpickler):
    """Unpickles containers, strings and numbers, which need no name of a class or function."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, expected plain lists, dicts and strings")


def _read_pickle(path: Path, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise MmptValueError(
            f"{path} is a pickled file, which could hold more than data; give allow_pickle=True (--allow-pickle) to "
            "read lists, dicts, strings and numbers of it, or turn it into JSON"
        )
    try:
        # Python 2 wrote the files. Bytes that are no UTF-8 become what no text may hold, so that they are an error
        # where they are used, and only there.
        return _DataUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:  # a broken pickle can raise anything
        raise MmptValueError(f"{path} is refused: {error}") from error


def _read_boxes(path: Path, data: Any) -> dict[Any, list[float]]:
    boxes = {}
    for place, annotation in enumerate(entries_of(path, data, "annotations")):
        try:
            x, y, width, height = annotation["bbox"]
            boxes[annotation["id"]] = [x, y, x + width, y + height]
        except (KeyError, TypeError, ValueError) as error:
            expected = "'id' and 'bbox' of four numbers"
            raise MmptValueError(f"{path}, annotation {place}: got {annotation!r:.120}, expected {expected}") from error
    return boxes
