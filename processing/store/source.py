"""Region sources, from which a region store is filled position by position."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmpt.processing.regions import Regions


@dataclass(frozen=True)
class Found:
    """The regions at one position of a source.

    Args:
        where: name of the position in errors, such as "train.tsv, line 12".
    """

    where: str
    regions: Regions


@dataclass(frozen=True)
class Rejected:
    """A position of a source without usable regions.

    Args:
        where: name of the position in errors.
        reason: what was found, what was expected, and what to do.
        image_id: id of the image, if it could be read.
    """

    where: str
    reason: str
    image_id: str | None = None


class RegionSource(Protocol):
    """A feature file, or images with an extractor. Every reading gives the same positions in the same order."""

    @property
    def extractor(self) -> Mapping[str, Any]:
        """What made the features, as JSON; stores can be merged only if it is equal."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """Identity of the file or images (name, bytes, format), as JSON; a resumed run requires the same."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes in `class_probs` and `labels`, background included, or None if unknown."""
        ...

    @property
    def total(self) -> int | None:
        """Number of positions, or None if it is unknown before reading."""
        ...

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the positions from `start` on in groups, each position exactly once and in order.

        A shard of a store ends only between two groups, so a resumed run sees the same groups. Positions before
        `start` are skipped without decoding.
        """
        ...
