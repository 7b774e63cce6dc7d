"""A region source made of a list, and regions to put into it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.processing.regions import Regions
from mmpt.processing.store.source import Found, Rejected


def tiny_regions(number: int, **changes: Any) -> Regions:
    """Two regions whose every number depends on `number`; an image takes 1,200 bytes of features."""
    rng = np.random.default_rng(number)
    values: dict[str, Any] = dict(
        features=rng.normal(size=(2, 300)),
        boxes=np.sort(rng.random((2, 2, 2)), axis=1).reshape(2, 4),
        class_probs=rng.dirichlet(np.ones(4), 2),
        scores=rng.random(2),
        image_id=f"image {number}",
    )
    return Regions(**(values | changes))


class ListSource:
    """A source whose positions are in a list: regions, or the reason why there are none."""

    def __init__(
        self,
        items: Sequence[Regions | str],
        group: int = 1,
        model: str = "a detector",
        stop_at: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.items = items
        self.group = group
        self.extractor: Mapping[str, Any] = {"model": model}
        self.origin: Mapping[str, Any] = {"file": "list.tsv", "rows": len(items)}
        self.class_names: Sequence[str] | None = None
        self.total: int | None = len(items)
        self._stop_at, self._error = stop_at, error

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        for first in range(start, len(self.items), self.group):
            if self._stop_at is not None and first >= self._stop_at and self._error is not None:
                raise self._error
            numbered = enumerate(self.items[first : first + self.group], first)
            yield [self._item(number, item) for number, item in numbered]

    def _item(self, number: int, item: Regions | str) -> Found | Rejected:
        where = f"list.tsv, line {number + 1}"
        return Rejected(where, item) if isinstance(item, str) else Found(where, item)


def contents(path: Path) -> dict[str, bytes]:
    """Return every file of a folder by its name."""
    return {file.name: file.read_bytes() for file in path.iterdir()}
