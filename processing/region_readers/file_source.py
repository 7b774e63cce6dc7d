"""FileSource: a feature file as a region source."""

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
    """A feature file as a `RegionSource`; unreadable positions are rejected and reading continues.

    Args:
        extractor: the format, and the label space of labels and class probabilities.
        origin: identity of the file.
        read: yields the positions from a given one on.
        total: number of positions, or None if it is unknown before reading.
        class_names: names of the classes in labels and class probabilities.
        notes: messages to the user: the recognised format and why, and what is skipped.
    """

    extractor: Mapping[str, Any]
    origin: Mapping[str, Any]
    read: Callable[[int], Iterator[Found | Rejected]]
    total: int | None = None
    class_names: Sequence[str] | None = None
    notes: Sequence[str] = ()

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the positions from `start` on as groups of one."""
        for position in self.read(start):
            yield [position]


def file_origin(path: Path, file_format: str) -> dict[str, Any]:
    """Return the identity of a file; a store can be resumed only with the same file."""
    return {"file": path.name, "bytes": path.stat().st_size, "format": file_format}


def found_or_rejected(where: str, image_id: str | None, decode: Callable[[], Regions]) -> Found | Rejected:
    """Return the result of `decode`, or its ValueError as a rejection."""
    try:
        with np.errstate(all="ignore"):  # a later check reports numbers that are not finite
            return Found(where, decode())
    except ValueError as error:
        return Rejected(where, str(error), image_id)


def require_module(module: str, extra: str) -> None:
    """Check that an optional library is installed.

    Raises:
        ModuleNotFoundError: if it is not.
    """
    if find_spec(module) is None:
        raise MmptImportError(f'{module} is needed to read this file; pip install "mmpt[{extra}]"', name=module)
