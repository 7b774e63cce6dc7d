"""Pair tables written as files that `read_table` reads back without a loss."""

import csv
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.annotations.pair_tables import BATCH_ROWS, iterate_rows
from mmpt.processing.store.format import publish


def write_pairs(pairs: Dataset, path: str | Path) -> None:
    """Write a pair table; the kind of file is that of the suffix. A crash leaves the old file or the new one.

    In CSV and TSV, numbers and lists are JSON, and no value is an empty field.

    Raises:
        ValueError: if the suffix is not one of `WRITERS`.
    """
    path = Path(path)
    check_table_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        WRITERS[path.suffix.lower()](pairs, temporary)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_table_suffix(path: Path) -> None:
    """Check that a table can be written under a name.

    Raises:
        ValueError: if its suffix is not one of `WRITERS`.
    """
    if path.suffix.lower() not in WRITERS:
        raise MmptValueError(f"got {str(path)!r}, expected a name that ends in {', '.join(WRITERS)}")


def _write_delimited(pairs: Dataset, path: Path, separator: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(pairs.column_names)
        for row in iterate_rows(pairs):
            writer.writerow([_to_text(value) for value in row.values()])


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_json_lines(pairs: Dataset, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in iterate_rows(pairs):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(pairs: Dataset, path: Path) -> None:
    schema = pairs.features.arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for batch in pairs.with_format("arrow").iter(batch_size=BATCH_ROWS):
            writer.write_table(batch.cast(schema))  # type: ignore[union-attr]


WRITERS: Mapping[str, Callable[[Dataset, Path], None]] = {
    ".csv": lambda pairs, path: _write_delimited(pairs, path, ","),
    ".tsv": lambda pairs, path: _write_delimited(pairs, path, "\t"),
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
