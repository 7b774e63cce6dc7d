"""The dataset of a downstream task: rows of a table joined with the regions of their images."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import datasets
from torch.utils.data import Dataset

from mmpt.configuration.errors import MmptIndexError, MmptTypeError, MmptValueError
from mmpt.processing.annotations.pair_columns import IMAGE_COLUMNS, REQUIRED_COLUMNS
from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.processing.regions import Regions

NAMING_COLUMNS = ("question_id", "example_id")
"""What an example is called by, the first of these that the table has; else by its row."""


class TaskDataset(Dataset[dict[str, Any]]):
    """Rows of a table with the regions of their images, read when they are asked for.

    A row is a dict of the table's columns, those that are null left out, with `row` (its number), `regions`, and
    `second_regions` where the table has a `second_image_id`; where it has `phrases`, also with `most_regions`, the
    largest number of regions that an image of the table has.

    Args:
        table: a `datasets.Dataset` with the columns of a pair table, or columns by name.
        regions: regions by image id, a `RegionStore` or a dict.
        columns: further columns that the task's input needs; none of them may be null.

    Raises:
        TypeError: if `table` is neither.
        ValueError: if it is empty or lacks a column.
        MissingRegionsError: a ValueError, if images have no regions.
    """

    def __init__(
        self,
        table: datasets.Dataset | Mapping[str, Sequence[Any]],
        regions: Mapping[str, Regions],
        columns: Sequence[str] = (),
    ) -> None:
        if isinstance(table, Mapping):
            table = datasets.Dataset.from_dict(dict(table))
        if not isinstance(table, datasets.Dataset):
            raise MmptTypeError(
                f"the table is a {type(table).__name__}, expected a datasets.Dataset or a dict of columns"
            )
        for name in (*REQUIRED_COLUMNS, *columns):
            if name not in table.column_names:
                raise MmptValueError(f"the table has no column {name!r}, got {', '.join(table.column_names) or 'none'}")
        if not len(table):
            raise MmptValueError("the table is empty, expected at least one row")
        self.table = table.with_format(None)
        self.regions = regions
        for name in (*REQUIRED_COLUMNS, *columns):
            row = next((row for row, value in enumerate(self.column(name)) if value is None), None)
            if row is not None:
                raise MmptValueError(f"column {name!r} is null in row {row}, expected a value in every row")
        self._check_images()
        self._most_regions: int | None = None
        if "phrases" in self.table.column_names:
            shown = dict.fromkeys(self.column("image_id"))
            self._most_regions = max(len(regions[image_id].features) for image_id in shown)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise MmptIndexError(f"row {int(index)} is not in this table, expected 0..{len(self) - 1}")
        item = {name: value for name, value in self.table[int(index)].items() if value is not None}
        item |= {"row": int(index), "regions": self.regions[item["image_id"]]}
        if "second_image_id" in item:
            item["second_regions"] = self.regions[item["second_image_id"]]
        if self._most_regions is not None:
            item["most_regions"] = self._most_regions
        return item

    def column(self, name: str) -> list[Any]:
        """Return a column, null where a row has no value; all null where the table has no such column."""
        return list(self.table[name]) if name in self.table.column_names else [None] * len(self)

    @cached_property
    def pairs(self) -> set[tuple[str, str]]:
        """Every text of the table with the id of its image."""
        return set(zip(self.column("text"), self.column("image_id"), strict=True))

    def ids(self) -> list[str]:
        """Return what each row is called by: question_id, else example_id, else its number.

        Raises:
            ValueError: if two rows are called the same.
        """
        name = next((name for name in NAMING_COLUMNS if name in self.table.column_names), None)
        names = [
            str(row) if value is None else str(value) for row, value in enumerate(self.column(name or "question_id"))
        ]
        seen: dict[str, int] = {}
        for row, value in enumerate(names):
            if seen.setdefault(value, row) != row:
                raise MmptValueError(
                    f"{name} {value!r} is in rows {seen[value]} and {row}, expected one row each: predictions are told "
                    "apart by it; rename the column, and rows are called by their number"
                )
        return names

    def _check_images(self) -> None:
        wanted = list(
            dict.fromkeys(value for name in IMAGE_COLUMNS for value in self.column(name) if value is not None)
        )
        missing = [image_id for image_id in wanted if image_id not in self.regions]
        if missing:
            raise MissingRegionsError(missing, len(wanted))
