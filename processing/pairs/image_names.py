"""File names of images joined with the ids of a store: what `mmpt extract` calls `trip one/a.JPG` is `trip one/a`."""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from mmpt.processing.annotations.annotation_formats import read_annotations
from mmpt.processing.annotations.pair_columns import IMAGE_COLUMNS

logger = logging.getLogger(__name__)

ENDING = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?|ppm|npy|npz)$", re.IGNORECASE)


def read_pairs(path: str | Path, store_ids: Collection[str], format: str | None = None, **options: Any) -> Dataset:
    """Read an annotation file or folder into a pair table with the ids of a store.

    Args:
        store_ids: a `RegionStore`, or the ids of one.
        format: one of `ANNOTATION_FORMATS`; the content tells by default.
        options: those of `read_annotations`.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `read_annotations`.
    """
    return join_image_names(read_annotations(path, format, **options), store_ids, str(path))


def join_image_names(pairs: Dataset, store_ids: Collection[str], source: str) -> Dataset:
    """Return a pair table with the store's ids where its own are file names of the same images.

    An id that the store has stays. Another is looked for with / instead of a backslash, without its ending, and as the
    store's id without its ending; then without the folders in front, if no other id of the table has the same name.

    Args:
        pairs: as `read_annotations` gives it.
        store_ids: a `RegionStore`, or the ids of one.
        source: the table, for what is logged.
    """
    columns = [name for name in (*IMAGE_COLUMNS, "hard_negative_image_ids") if name in pairs.column_names]
    named = dict.fromkeys(image_id for name in columns for image_id in _flat(pairs[name]))
    missing = [image_id for image_id in named if image_id not in store_ids]
    if not missing:
        return pairs
    endless = _without_endings(store_ids)
    found = _find(missing, store_ids, endless)
    # Two folders may have files of one name: without its folder a name must be that of one image alone.
    taken = {*(image_id for image_id in named if image_id in store_ids), *found.values()}
    bare = {
        image_id: found_id
        for folders in range(1, 1 + max(image_id.count("/") + image_id.count("\\") for image_id in missing))
        for image_id, found_id in _find(missing, store_ids, endless, folders).items()
    }
    counts = Counter(store_id for image_id, store_id in bare.items() if image_id not in found)
    found |= {
        image_id: store_id
        for image_id, store_id in bare.items()
        if image_id not in found and store_id not in taken and counts[store_id] == 1
    }
    if not found:
        return pairs
    one, other = next(iter(found.items()))
    logger.warning(
        "%s: %d image ids are file names of images in the store, and are read as its ids (%r is %r)",
        *(source, len(found), one, other),
    )
    table: Any = pairs.with_format("arrow")[:]
    for name in columns:
        values = [_renamed(value, found) for value in table.column(name).to_pylist()]
        kind = table.schema.field(name).type
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(values, kind))
    return Dataset(table)


def _find(
    image_ids: Iterable[str], store_ids: Collection[str], endless: dict[str, str | None], folders: int = 0
) -> dict[str, str]:
    """Return the store's id of each image that it has without so many folders in front, by the table's id."""
    found = {}
    for image_id in image_ids:
        parts = image_id.strip().replace("\\", "/").removeprefix("./").split("/")[folders:]
        path = "/".join(parts)
        whole = endless.get(ENDING.sub("", path))
        for form in (path, ENDING.sub("", path), *([] if whole is None else [whole])):
            if form and form in store_ids:
                found[image_id] = form
                break
    return found


def _without_endings(store_ids: Iterable[str]) -> dict[str, str | None]:
    """Return the store's ids that end as files do, by what stands before it; None where two are the same."""
    found: dict[str, str | None] = {}
    for store_id in store_ids:
        form = ENDING.sub("", store_id)
        if form != store_id:
            found[form] = None if form in found else store_id
    return found


def _renamed(value: Any, found: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [found.get(each, each) for each in value]
    return found.get(value, value)


def _flat(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        else:
            yield from value or ()
