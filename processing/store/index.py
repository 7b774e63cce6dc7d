"""On-disk index of a region store from image id to row, 12 bytes per image plus the ids."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.store.format import publish

SCHEMA = pa.schema([("image_id", pa.large_string()), ("hash", pa.uint64()), ("row", pa.uint32())])


class IdIndex:
    """Image ids in row order, with lookup by binary search over their hashes.

    Args:
        ids: (rows,), the ids in row order.
        hashes: (rows,), the sorted hashes of the ids.
        rows: (rows,), the row number of each hash.
    """

    def __init__(self, ids: pa.Array, hashes: NDArray[np.uint64], rows: NDArray[np.uint32]) -> None:
        self.ids = ids
        self.hashes = hashes
        self.rows = rows
        # With a damaged offset Arrow reads outside the file and the process crashes; NumPy slices stay in bounds.
        _, offsets, data = ids.buffers()
        self._offsets = np.frombuffer(offsets, np.int64, len(ids) + 1) if offsets else np.zeros(1, np.int64)
        self._data = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return map(self.id_of, range(len(self)))

    def id_of(self, row: int) -> str:
        """Return the id of a row.

        Raises:
            ValueError: if the index is damaged at that row.
        """
        if row < len(self):
            try:
                return self._data[self._offsets[row] : self._offsets[row + 1]].tobytes().decode()
            except UnicodeDecodeError:
                pass
        raise MmptValueError(f"the index is damaged at row {row} of {len(self)}; run `mmpt validate --repair`")

    def row(self, image_id: object) -> int | None:
        """Return the row of an id, or None if the store lacks it."""
        if not isinstance(image_id, str):
            return None
        try:
            wanted = id_hash(image_id)
        except UnicodeEncodeError:  # stores reject ids with lone surrogates
            return None
        position = int(self.hashes.searchsorted(wanted))
        while position < len(self.hashes) and self.hashes[position] == wanted:
            row = int(self.rows[position])
            if self.id_of(row) == image_id:
                return row
            position += 1
        return None

    def duplicates(self) -> list[str]:
        """Return ids that occur in more than one row, in row order."""
        positions = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        positions = positions[np.argsort(self.rows[positions])]
        pairs = ((self.id_of(int(self.rows[p])), self.id_of(int(self.rows[p + 1]))) for p in positions)
        return [one for one, other in pairs if one == other]

    @classmethod
    def build(cls, columns: Iterable[pa.Array]) -> "IdIndex":
        """Build the index of concatenated id columns."""
        ids = pa.concat_arrays(
            [pa.array([], pa.large_string()), *(column.cast(pa.large_string()) for column in columns)]
        )
        unsorted = np.fromiter(map(id_hash, chain.from_iterable(_blocks(ids))), np.uint64, len(ids))
        order = np.argsort(unsorted, kind="stable").astype(np.uint32)
        return cls(ids, unsorted[order], order)

    def write(self, file: Path) -> None:
        """Write the index atomically."""
        temporary = file.with_name(f"{file.name}.tmp")
        batch = pa.record_batch([self.ids, pa.array(self.hashes), pa.array(self.rows)], schema=SCHEMA)
        with temporary.open("wb") as target, pa.ipc.new_file(target, SCHEMA) as writer:
            writer.write_batch(batch)
        publish(temporary, file)

    @classmethod
    def read(cls, file: Path, rows: int) -> "IdIndex":
        """Memory-map an index.

        Raises:
            ValueError: if it is damaged, or its number of rows differs from `rows`.
        """
        with pa.memory_map(str(file)) as source:
            try:
                reader = pa.ipc.open_file(source)
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
                if not reader.schema.equals(SCHEMA) or [batch.num_rows for batch in batches] != [rows]:
                    raise MmptValueError(
                        f"{file} is damaged: it is not an index of {rows} rows; run `mmpt validate --repair`"
                    )
                (batch,) = batches
                batch.validate()
            except (pa.ArrowException, OSError) as error:
                raise MmptValueError(f"{file} is damaged ({error}); run `mmpt validate --repair`") from None
        if any(column.null_count for column in batch.columns):
            raise MmptValueError(f"{file} is damaged: it has gaps; run `mmpt validate --repair`")
        ids, hashes, rows_of_hashes = batch.columns
        return cls(ids, hashes.to_numpy(), rows_of_hashes.to_numpy())


def id_hash(image_id: str) -> np.uint64:
    """Return 64 bits of the BLAKE2 hash of an id."""
    return np.frombuffer(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "<u8")[0]


def _blocks(ids: pa.Array) -> Iterator[list[str]]:
    for start in range(0, len(ids), 4096):
        yield ids.slice(start, 4096).to_pylist()
