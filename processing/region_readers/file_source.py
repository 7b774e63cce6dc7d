"""FileSource: the positions of a feature file, one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.configuration.errors import MmptImportError
from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected


@dataclass(frozen=True)
class FileSource:
    """A feature file as a RegionSource; a position that cannot be read is rejected, and the next one goes on.

    Args:
        extractor: the format, and how its labels and class probabilities count the classes.
        origin: which file it is.
        read: yields the positions from a given one on.
        total: number of positions, where it is known without reading them.
        class_names: names of the classes that labels and class probabilities count.
        notes: what the file was taken for and why, and what of it is passed over; for a person to read.
    """

    extractor: Mapping[str, Any]
    origin: Mapping[str, Any]
    read: Callable[[int], Iterator[Found | Rejected]]
    total: int | None = None
    class_names: Sequence[str] | None = None
    notes: Sequence[str] = ()

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the positions from `start` on, each as a group of its own."""
        for position in self.read(start):
            yield [position]


def file_origin(path: Path, file_format: str) -> dict[str, Any]:
    """Return what tells a file from another one: a store's writing goes on only with the same."""
    return {"file": path.name, "bytes": path.stat().st_size, "format": file_format}


def found_or_rejected(where: str, image_id: str | None, decode: Callable[[], Regions]) -> Found | Rejected:
    """Return what `decode` gives, or its ValueError as the reason of a rejection."""
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are found where they are checked
            return Found(where, decode())
    except ValueError as error:
        return Rejected(where, str(error), image_id)


def require_module(module: str, extra: str) -> None:
    """Check that a library which only some formats need is installed.

    Raises:
        ModuleNotFoundError: if it is not.
    """
    if find_spec(module) is None:
        raise MmptImportError(f'{module} is needed to read this file; pip install "mmpt[{extra}]"', name=module)
