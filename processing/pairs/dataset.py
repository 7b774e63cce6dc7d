"""The pair dataset: captions joined with the regions of their images, and partners for mismatched pairs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mmpt.configuration.errors import MmptIndexError, MmptTypeError, MmptValueError
from mmpt.processing.regions import Regions

if TYPE_CHECKING:
    import datasets

    PairTable = datasets.Dataset | Mapping[str, Sequence[Any]]

STRING_COLUMNS = ("text", "image_id", "text_pair")
LIST_COLUMNS = ("hard_negative_image_ids", "hard_negative_texts")
REQUIRED_COLUMNS = ("text", "image_id")
STRING_TYPE = pa.large_string()
LIST_TYPE = pa.large_list(STRING_TYPE)
SCAN_ROWS = 65_536  # rows looked at together when no drawn candidate can be a partner


class MissingRegionsError(MmptValueError):
    """Images of a pair table have no regions.

    Args:
        missing_ids: all ids without regions, each once, in the table's order.
        wanted: number of different images in the table.
    """

    def __init__(self, missing_ids: list[str], wanted: int) -> None:
        covered = 1000 * (wanted - len(missing_ids)) // wanted / 10  # rounded down: 100 % means all
        first = ", ".join(map(repr, missing_ids[:5])) + (", ..." if len(missing_ids) > 5 else "")
        super().__init__(
            f"{len(missing_ids)} of {wanted} images in the pair table have no regions (coverage {covered} %): {first}. "
            "All are in missing_ids of this error. Extract or import their regions, or drop their rows"
        )
        self.missing_ids = missing_ids
        self.wanted = wanted

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingRegionsError, (self.missing_ids, self.wanted)


class StepIndex(int):
    """A row number that carries the optimiser step it is drawn for."""

    step: int

    def __new__(cls, row: int, step: int) -> "StepIndex":
        index = super().__new__(cls, row)
        index.step = step
        return index

    def __reduce__(self) -> tuple[Any, ...]:  # pickled to the workers of a DataLoader
        return StepIndex, (int(self), self.step)


class PairDataset(Dataset[dict[str, Any]]):
    """Rows of a pair table with the regions of their images, read when they are asked for.

    Columns of the table: `text` and `image_id`; optionally `text_pair` (a second text, or null),
    `hard_negative_image_ids` and `hard_negative_texts` (lists of what makes a mismatched pair that is hard; or null).

    Args:
        pairs: a `datasets.Dataset`, or columns by name.
        regions: regions by image id, a `RegionStore` or a dict.
        for_evaluation: stay at epoch 0, so that every evaluation sees the same masks.

    Raises:
        TypeError: if `pairs` is neither.
        ValueError: if the table is empty, lacks a column, or an id or text is no string or empty.
        MissingRegionsError: a ValueError, if images (those of hard negatives too) have no regions.
    """

    def __init__(self, pairs: "PairTable", regions: Mapping[str, Regions], *, for_evaluation: bool = False) -> None:
        self.pairs = pairs
        self.regions = regions
        self.for_evaluation = for_evaluation
        # Workers that outlive an epoch see a new epoch only in shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._columns = read_pair_columns(pairs)
        images = self._columns["image_id"].combine_chunks().dictionary_encode()
        texts = self._columns["text"].combine_chunks().dictionary_encode()
        self._check_regions(images.dictionary)
        self._images = images.indices.to_numpy()
        self._texts = texts.indices.to_numpy()
        self._text_count = len(texts.dictionary)
        self._true_pairs = np.unique(self._pair_codes(self._images, self._texts))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise MmptIndexError(f"row {int(index)} is not in this table, expected 0..{len(self) - 1}")
        row = {name: column[int(index)].as_py() for name, column in self._columns.items()}
        item = {name: value for name, value in row.items() if value is not None}
        item |= {"example_id": int(index), "epoch": int(self._epoch), "regions": self.regions[row["image_id"]]}
        item["pair_table"] = self
        if isinstance(index, StepIndex):
            item["step"] = index.step
        return item

    def __getstate__(self) -> dict[str, Any]:
        # The columns would travel whole; a Dataset on disk travels as the name of its file.
        return {name: value for name, value in self.__dict__.items() if name != "_columns"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._columns = read_pair_columns(self.pairs)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that everything random of an example depends on; workers that run see it too."""
        if not self.for_evaluation:
            self._epoch.fill_(epoch)

    def text_lengths(self) -> NDArray[np.int64]:
        """Return (rows,) the length of each text in characters, second text included: what rows are grouped by."""
        columns = [self._columns[name] for name in ("text", "text_pair") if name in self._columns]
        lengths = [pc.call_function("utf8_length", [column]).fill_null(0).to_numpy() for column in columns]
        return np.asarray(sum(lengths), dtype=np.int64)

    def text_of(self, row: int) -> str:
        """Return the text of a row."""
        return self._columns["text"][row].as_py()

    def text_pair_of(self, row: int) -> str | None:
        """Return the second text of a row, if it has one."""
        return self._columns["text_pair"][row].as_py() if "text_pair" in self._columns else None

    def regions_of(self, row: int) -> Regions:
        """Return the regions of a row's image."""
        return self.regions[self._columns["image_id"][row].as_py()]

    def partners(
        self, rows: NDArray[np.int64], replace_image: NDArray[np.bool_], uniforms: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return for each row a row of the whole table whose image or text makes a mismatched pair with it.

        A partner has another image and another text, and the pair that would result is no row of the table. The first
        of the drawn candidates that is one is taken; if none is, the table is scanned on from the last of them.

        Args:
            rows: (rows,) that need a partner.
            replace_image: (rows,), whether the partner's image replaces the row's, or else its text.
            uniforms: (rows, tries), random numbers in 0..1 (1 excluded), the candidates.

        Returns:
            (rows,), -1 where the table has no partner.
        """
        candidates = (uniforms * len(self)).astype(np.int64)  # (rows, tries)
        good = self._mismatches(rows[:, None], replace_image[:, None], candidates)
        partners = candidates[np.arange(len(rows)), good.argmax(1)]
        for place in np.flatnonzero(~good.any(1)):
            partners[place] = self._scan(rows[place], replace_image[place], candidates[place, -1] + 1)
        return partners

    def _mismatches(self, rows: Any, replace_image: Any, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which candidates are partners of their row; the arguments broadcast."""
        images, texts = self._images[rows], self._texts[rows]
        other_images, other_texts = self._images[candidates], self._texts[candidates]
        result = self._pair_codes(
            np.where(replace_image, other_images, images), np.where(replace_image, texts, other_texts)
        )
        place = np.searchsorted(self._true_pairs, result).clip(max=len(self._true_pairs) - 1)
        return (other_images != images) & (other_texts != texts) & (self._true_pairs[place] != result)

    def _scan(self, row: np.int64, replace_image: np.bool_, start: np.int64) -> int:
        for offset in range(0, len(self), SCAN_ROWS):
            candidates = (start + np.arange(offset, min(offset + SCAN_ROWS, len(self)))) % len(self)
            good = self._mismatches(row, replace_image, candidates)
            if good.any():
                return int(candidates[good.argmax()])
        return -1

    def _pair_codes(self, images: NDArray[Any], texts: NDArray[Any]) -> NDArray[np.int64]:
        return images.astype(np.int64) * self._text_count + texts

    def _check_regions(self, image_ids: pa.Array) -> None:
        wanted = image_ids
        negatives = self._columns.get("hard_negative_image_ids")
        if negatives is not None:
            wanted = pa.concat_arrays([wanted, negatives.combine_chunks().flatten()]).unique()
        missing = [image_id for image_id in wanted.to_pylist() if image_id not in self.regions]
        if missing:
            raise MissingRegionsError(missing, len(wanted))


def read_pair_columns(pairs: "PairTable") -> dict[str, pa.ChunkedArray]:
    """Return the columns that a pair may have, checked, in Arrow's types; those of a Dataset on disk stay there.

    Raises:
        TypeError: if `pairs` is no table.
        ValueError: if it is empty, lacks a column, or an id or text is no string or empty.
    """
    if not isinstance(pairs, Mapping) and not hasattr(pairs, "with_format"):
        raise MmptTypeError(
            f"the pair table is a {type(pairs).__name__}, expected a datasets.Dataset or a dict of columns"
        )
    names = list(pairs) if isinstance(pairs, Mapping) else list(pairs.column_names)
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise MmptValueError(
                f"the pair table has no column {name!r}, got {', '.join(map(str, names)) or 'none'}; rename a column, "
                "or choose one split of a DatasetDict"
            )
    known = [name for name in (*STRING_COLUMNS, *LIST_COLUMNS) if name in names]
    if isinstance(pairs, Mapping):
        columns = {name: _from_python(name, pairs[name]) for name in known}
    else:
        table: Any = pairs.select_columns(known).with_format("arrow")[:]
        columns = {name: table.column(name) for name in known}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise MmptValueError(
            f"the columns of the pair table have different lengths, {lengths}; expected one row a pair"
        )
    if not lengths["text"]:
        raise MmptValueError("the pair table is empty, expected at least one row")
    return {name: _checked(name, column) for name, column in columns.items()}


def _from_python(name: str, values: Sequence[Any]) -> pa.ChunkedArray:
    is_list = name in LIST_COLUMNS
    for row, value in enumerate(values):
        if value is None:
            continue
        fits = isinstance(value, (list, tuple)) and all(map(_is_text, value)) if is_list else _is_text(value)
        if not fits:
            raise MmptValueError(f"column {name!r} holds {value!r:.80} in row {row}, expected {_expected(name)}")
    return pa.chunked_array([list(values)], LIST_TYPE if is_list else STRING_TYPE)


def _is_text(value: object) -> bool:
    # A lone surrogate is no text: neither Arrow nor a tokenizer takes it.
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _checked(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as large strings, or lists of them, none empty; null only where a pair may lack the column."""
    if pa.types.is_null(column.type) or name not in LIST_COLUMNS:
        kind = column.type
    else:
        kind = getattr(column.type, "value_type", None)
    if kind not in (pa.null(), pa.string(), pa.large_string(), pa.string_view()):
        raise MmptValueError(f"column {name!r} holds {column.type}, {column[0]} in row 0; expected {_expected(name)}")
    column = column.cast(LIST_TYPE if name in LIST_COLUMNS else STRING_TYPE)
    if name in REQUIRED_COLUMNS and column.null_count:
        row = column.is_null().index(True).as_py()
        raise MmptValueError(f"column {name!r} is null in row {row}, expected {_expected(name)}")
    is_list = name in LIST_COLUMNS
    strings = column.combine_chunks().flatten().fill_null("") if is_list else column
    place = pc.call_function("utf8_trim_whitespace", [strings]).index("").as_py()
    if place >= 0:
        row = column.combine_chunks().value_parent_indices()[place].as_py() if is_list else place
        raise MmptValueError(
            f"column {name!r} holds {column[row].as_py()!r:.80} in row {row}, expected {_expected(name)}"
        )
    return column


def _expected(name: str) -> str:
    return "a list of non-empty strings" if name in LIST_COLUMNS else "a non-empty string"
