"""Base class of the metrics: each example counts once, also over several processes; counts and intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
import pyarrow as pa
from datasets import Features, Value

from mmpt.configuration.errors import MmptValueError
from mmpt.metrics.metric_inputs import as_ids

CLOSE, CLOSE_TO_ZERO = 1e-2, 1e-3  # tolerance for the effect of different padding in half precision


class MmptMetric(evaluate.Metric):
    """A metric of rows with ids.

    `add_batch` and `compute` take all names of `inputs`, and `ids`, the example id of each row. A repeated id counts
    once, because the end of a distributed evaluation is padded with its first examples. A repeated id with a different
    prediction or reference is an error. A single process may leave out ids; each row is then an example.

    With several processes, each adds its own rows; `compute` returns the measures in process 0 and None in the others.
    Processes exchange rows through files, so all need the same `cache_dir` on a shared file system and the same
    `experiment_id`, which no other run may use. Every process must call `compute`, even without rows.

    Measures are numbers by name: `<name>`, `<name>_low` and `<name>_high` (95 % bootstrap interval), `<name>_total`
    (number of cases) and, if cases are right or wrong, `<name>_correct`.

    Args:
        seed: seed of the bootstrap.
        timeout: seconds to wait for the other processes.
    """

    inputs: ClassVar[Mapping[str, Any]] = {}
    """Columns of a row in addition to its id: name -> feature of `datasets`, as `prepare` returns them."""
    key: ClassVar[tuple[str, ...]] = ("ids",)
    """Columns that together identify a row."""

    def __init__(
        self,
        config_name: str | None = None,
        *,
        num_process: int = 1,
        process_id: int = 0,
        experiment_id: str | None = None,
        cache_dir: str | None = None,
        seed: int = 0,
        timeout: float = 100,
    ) -> None:
        if num_process > 1 and experiment_id is None:
            raise MmptValueError(
                f"experiment_id is None with {num_process} processes; give one that they share and no other run uses"
            )
        super().__init__(
            config_name,
            keep_in_memory=num_process == 1,
            cache_dir=cache_dir,
            num_process=num_process,
            process_id=process_id,
            seed=seed,
            experiment_id=experiment_id,
            timeout=timeout,
        )
        self.info.format = "arrow"  # set here, because MetricInfo rejects it together with lists
        self._experiment = experiment_id
        self._evaluations = 0
        self._rows = 0
        self._has_ids: bool | None = None

    def prepare(self, **inputs: Any) -> dict[str, Sequence[Any]]:
        """Check a batch of `inputs` and return name of an input -> the value to keep of each row."""
        raise NotImplementedError

    def measure(self, rows: dict[str, pa.Array], **options: Any) -> dict[str, float]:
        """Return the measures of the rows, which are distinct examples."""
        raise NotImplementedError

    def add_batch(self, **batch: Any) -> None:
        """Add rows.

        Raises:
            ValueError: if an input is missing, lengths differ, or a value is bad.
        """
        names = [*self.inputs, *(["ids"] if self.key == ("ids",) else [])]
        unknown = sorted(set(batch) - set(names))
        missing = [name for name in self.inputs if batch.get(name) is None]
        if unknown or missing:
            raise MmptValueError(
                f"{self.name} got {sorted(batch)}, expected {names} (ids may be left out in one process)"
            )
        ids = batch.pop("ids", None)
        kept = self.prepare(**batch)
        if self.key == ("ids",):
            kept["ids"] = self._ids(ids, len(next(iter(kept.values()))))
        lengths = {name: len(values) for name, values in kept.items()}
        if len(set(lengths.values())) > 1:
            raise MmptValueError(f"{self.name} got batches of different length: {lengths}")
        self._rows += next(iter(lengths.values()))
        super().add_batch(**kept)

    def add(self, *, prediction: Any = None, reference: Any = None, **one: Any) -> None:
        """Add one row."""
        batch = {"predictions": prediction, "references": reference, **one}
        self.add_batch(**{name: [value] for name, value in batch.items() if value is not None})

    def compute(self, **given: Any) -> dict[str, float] | None:
        """Add the given rows, if any, return the measures of all rows, and reset the metric.

        Raises:
            ValueError: if there are no rows, or one id has two predictions or references.
        """
        batch = {name: given.pop(name) for name in (*self.inputs, "ids") if name in given}
        if any(value is not None for value in batch.values()):
            self.add_batch(**batch)
        if self.writer is None:
            if self.num_process == 1:
                raise MmptValueError(
                    f"{self.name} has no predictions: add_batch was never called, or the data are empty"
                )
            super().add_batch(**{name: [] for name in self._feature_names()})  # the others wait for this process
        try:
            return super().compute(**given)
        finally:
            self._evaluations += 1
            self._rows, self._has_ids = 0, None
            if self.num_process > 1:
                # A process that starts the next evaluation early must not overwrite files that process 0 still reads.
                self.info.experiment_id = f"{self._experiment}-{self._evaluations}"

    def _info(self) -> evaluate.MetricInfo:
        features = {**self.inputs, **{name: Value("string") for name in self.key}}
        return evaluate.MetricInfo(description=self.__doc__ or "", citation="", features=Features(features))

    def _compute(self, **given: Any) -> dict[str, float]:
        names = self._feature_names()
        rows = {name: given.pop(name) for name in names}
        rows = {name: column.combine_chunks() for name, column in rows.items()}
        if not len(rows[names[0]]):
            raise MmptValueError(f"{self.name} has no predictions: the data are empty")
        return self.measure(self._each_once(rows), **given)

    def _each_once(self, rows: dict[str, pa.Array]) -> dict[str, pa.Array]:
        codes = np.zeros(len(rows[self.key[0]]), dtype=np.int64)
        for name in self.key:
            numbers, values = encode(rows[name])
            codes = codes * len(values) + numbers
        _, first, own = np.unique(codes, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[own] != np.arange(len(codes)))
        if not len(again):
            return rows
        for name, column in rows.items():
            before, after = column.take(first[own[again]]).to_pylist(), column.take(again).to_pylist()
            for row, one, other in zip(again, before, after, strict=True):
                if not _same(one, other):
                    example = ", ".join(repr(rows[key][int(row)].as_py()) for key in self.key)
                    raise MmptValueError(
                        f"{self.name}: {' and '.join(self.key)} {example} came twice with different {name}, {one} and "
                        f"{other}; give each example a unique id, and evaluate without dropout"
                    )
        return {name: column.take(np.sort(first)) for name, column in rows.items()}

    def _ids(self, ids: Any, rows: int) -> list[str]:
        if ids is None and self.num_process > 1:
            raise MmptValueError(
                f"{self.name} got no ids with {self.num_process} processes; give the examples' ids, because the tail "
                "of a distributed evaluation repeats examples"
            )
        if self._has_ids not in (None, ids is not None):
            raise MmptValueError(
                f"{self.name} got ids in one batch and none in another; give them in every batch or never"
            )
        self._has_ids = ids is not None
        return [str(self._rows + row) for row in range(rows)] if ids is None else as_ids("ids", ids)


def report(name: str, value: np.ndarray, total: float, correct: float | None = None) -> dict[str, float]:
    """Return a measure as numbers by name.

    Args:
        value: (3,), the value and the lower and upper end of its interval.
        total: number of cases.
        correct: number of right cases, for a measure of right and wrong cases.
    """
    middle, low, high = value.tolist()
    measures: dict[str, float] = {name: middle, f"{name}_low": low, f"{name}_high": high}
    if correct is not None:
        measures[f"{name}_correct"] = int(correct)
    return measures | {f"{name}_total": int(total)}


def encode(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return (index of each row's value among the distinct values, the distinct values)."""
    encoded = column.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE_TO_ZERO)
    return one == other
