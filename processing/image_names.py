"""File names of images joined with the ids of a store: what `mmpt extract` calls `trip one/a.JPG` is `trip one/a`."""

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import pyarrow as pa
from datasets import Dataset

from mmpt.processing.annotations.pair_columns import IMAGE_COLUMNS

logger = logging.getLogger(__name__)

ENDING = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?|ppm|npy|npz)$", re.IGNORECASE)


def join_image_names(pairs: Dataset, store_ids: Collection[str], source: str) -> Dataset:
    """Return a pair table with the store's ids where its own are file names of the same images.

    An id that the store has stays. Another is looked for with / instead of \\, without its ending, without the ending
    of the store's id, and without the folders in front. It is taken only if no other id of the table is the same image.

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
    taken = {image_id for image_id in named if image_id in store_ids}
    endless = _without_endings(store_ids)
    found: dict[str, str] = {}
    twice: set[str] = set()
    for image_id in missing:
        store_id = next((form for form in _forms(image_id, endless) if form in store_ids), None)
        if store_id is None:
            continue
        if store_id in taken:
            twice.add(store_id)
        taken.add(store_id)
        found[image_id] = store_id
    found = {image_id: store_id for image_id, store_id in found.items() if store_id not in twice}
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


def _forms(image_id: str, endless: dict[str, str | None]) -> Iterator[str]:
    """Yield what the store could call an image, the likeliest first."""
    path = image_id.strip().replace("\\", "/").removeprefix("./")
    while path:
        for form in (path, ENDING.sub("", path)):
            yield form
            if (whole := endless.get(form)) is not None:
                yield whole
        path = path.partition("/")[2]


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
