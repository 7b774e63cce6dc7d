"""Region sources: what a region store is filled from, position by position."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmpt.processing.regions import Regions


@dataclass(frozen=True)
class Found:
    """The regions at one position of a source.

    Args:
        where: what an error calls the position: "train.tsv, line 12", say.
    """

    where: str
    regions: Regions


@dataclass(frozen=True)
class Rejected:
    """A position of a source that gives no regions.

    Args:
        where: what an error calls the position.
        reason: what was got, what was expected, and what to do.
        image_id: the image's id, where it could be read.
    """

    where: str
    reason: str
    image_id: str | None = None


class RegionSource(Protocol):
    """A feature file, or images and an extractor: the same positions in the same order whenever it is read."""

    @property
    def extractor(self) -> Mapping[str, Any]:
        """What made the features, as JSON; stores that may be merged agree in it."""
        ...

    @property
    def origin(self) -> Mapping[str, Any]:
        """Which file or images these are (name, bytes, format), as JSON; a resumed run must find the same."""
        ...

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes that `class_probs` and `labels` count, background included; None if not known."""
        ...

    @property
    def total(self) -> int | None:
        """Number of positions, where it is known without reading them."""
        ...

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the positions from `start` on, each exactly once and in order, in groups that belong together.

        A shard of a store ends only between two groups, so that a resumed run meets the same groups. Positions before
        `start` are passed over without being decoded.
        """
        ...
