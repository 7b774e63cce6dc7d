"""Reader of VOLTA's HDF5 files: one group an image."""

from collections.abc import Iterator
from pathlib import Path

from mmpt.processing.region_readers.container_process import Container, Entry
from mmpt.processing.region_readers.field_decoding import plain_dtype, raw_array, text_of
from mmpt.processing.region_readers.file_source import FileSource, file_origin, found_or_rejected
from mmpt.processing.region_readers.item_decoding import FIELD_NAMES, regions_of_item
from mmpt.processing.region_source import Found, Rejected
from mmpt.processing.regions import Regions


def open_volta_h5(path: Path) -> FileSource:
    """Open an HDF5 file; its positions are the groups at its root, in the order of their names."""
    container = Container("hdf5", path, {"wanted": FIELD_NAMES})

    def read(start: int) -> Iterator[Found | Rejected]:
        for entry in container.entries(start):
            yield _position(path.name, entry)

    total = container.facts()["total"]
    origin = {**file_origin(path, "volta_h5"), "entries": total}
    return FileSource({"format": "volta_h5", "label_space": "no_background"}, origin, read, total)


def _position(name: str, entry: Entry) -> Found | Rejected:
    if entry.key is None:
        return Rejected(name, entry.error or "")
    try:
        image_id = text_of(entry.key, "the group's name")
    except ValueError as error:
        return Rejected(f"{name}, group {entry.key[:60]!r}", str(error))
    where = f"{name}, group {image_id!r:.200}"
    if entry.error is not None:
        return Rejected(where, entry.error, image_id)
    return found_or_rejected(where, image_id, lambda: _regions(entry, image_id))


def _regions(entry: Entry, image_id: str) -> Regions:
    arrays = {
        field: raw_array(blob, plain_dtype(dtype), shape)
        for (field, dtype, shape), blob in zip(entry.header["arrays"], entry.blobs, strict=True)
    }
    return regions_of_item(arrays, image_id)
