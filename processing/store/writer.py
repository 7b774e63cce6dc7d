"""Crash-safe and resumable writer of region stores that checks every number."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptFileExistsError, MmptRuntimeError, MmptValueError
from mmpt.processing.regions import Regions, check_boxes
from mmpt.processing.store.format import (
    ERRORS,
    INDEX,
    LOCK,
    MANIFEST,
    OPTIONAL,
    PAYLOADS,
    SCHEMA,
    canonical_json,
    file_entry,
    listed,
    open_shard,
    publish,
    read_manifest,
    row_crc,
    shard_name,
    write_manifest,
)
from mmpt.processing.store.index import IdIndex, id_hash

logger = logging.getLogger(__name__)

SHARD_BYTES = 500_000_000
BATCH_BYTES = 16_000_000  # rows held in memory before they are written
PROBABILITY_TOLERANCE = 2e-3  # largest total error of 1,600 float16 roundings


class RegionStoreWriter:
    """Write a region store image by image; as a context manager, complete it on exit unless an error occurs.

    After an interruption the store keeps its complete shards; later images must be written again.

    Args:
        path: folder of the store; created if it does not exist.
        extractor: what made the regions (model, revision, settings), as JSON; part of the store's fingerprint.
        class_names: names of the classes in `class_probs` and `labels`, background included.
        origin: identity of the file or images, as JSON; saved in the manifest.
        shard_bytes: size in bytes at which a shard is closed.
        resume: keep the complete shards of an interrupted run; `position` is where to continue in the source.

    Raises:
        FileExistsError: if the folder already holds a complete store.
        RuntimeError: if another writer is active in the folder.
        TypeError: if extractor or origin cannot be written as JSON.
        ValueError: if the interrupted run to resume was started with other arguments.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        extractor: Mapping[str, Any],
        class_names: Sequence[str] | None = None,
        origin: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.position = 0
        self._facts: dict[str, Any] = {
            "feature_dim": None,
            "num_classes": None if class_names is None else len(class_names),
            "class_names": None if class_names is None else list(class_names),
            "extractor": json.loads(canonical_json(dict(extractor))),
        }
        self._origin: dict[str, Any] = json.loads(canonical_json(dict(origin or {})))
        self._shard_bytes = shard_bytes
        self._optional: frozenset[str] | None = None
        self._finished = np.empty(0, np.uint64)  # hashes of the ids in finished shards, sorted
        self._ids: set[str] = set()  # ids in the current shard
        self._rows: list[dict[str, Any]] = []
        self._rows_bytes = self._shard_rows = 0
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._stream: Any = None
        self._lock = take_lock(self.path)
        try:
            self._take_folder(resume)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "RegionStoreWriter":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.close()
        else:
            self.abandon()

    def __len__(self) -> int:
        """Return the number of images added so far, including those of a resumed run."""
        return len(self._finished) + len(self._ids)

    def add(self, regions: Regions, *, close_full_shard: bool = True) -> None:
        """Add the regions of one image; an error leaves the store unchanged.

        Args:
            close_full_shard: close the shard if it is now full; if False, the caller calls `finish_shard`.

        Raises:
            ValueError: if the image has no id, was added before, has a number that is not finite (also after conversion
                to float16), a box that is inverted or outside 0..1, or class_probs that are not a distribution; if it
                differs from earlier images in feature dimension, classes or optional arrays.
        """
        if not self._lock.is_locked:
            raise MmptValueError(f"{self.path} is closed; add all images before closing it")
        facts = self._facts
        image_id = self._checked_id(regions.image_id)
        name = f"image {image_id!r}"
        if facts["feature_dim"] not in (None, regions.feature_dim):
            raise MmptValueError(
                f"{name}: features have dimension {regions.feature_dim}, expected {facts['feature_dim']} as in earlier "
                "images; one store holds one extractor's features"
            )
        arrays: dict[str, NDArray[Any] | None] = dict.fromkeys(PAYLOADS)
        arrays["features"] = _finite(regions.features, PAYLOADS["features"], f"{name}: features")
        arrays["boxes"] = check_boxes(regions.boxes, f"{name}: boxes")
        for key in OPTIONAL:
            value = getattr(regions, key)
            if value is not None:
                arrays[key] = _checked_optional(key, value, f"{name}: {key}", facts["num_classes"])
        present = frozenset(key for key in OPTIONAL if arrays[key] is not None)
        if len(regions) and self._optional not in (None, present):
            raise MmptValueError(
                f"{name} has {listed(present)}, expected {listed(self._optional or ())} as in earlier images; "
                "an objective that reads an array needs it for every image"
            )

        payloads = {
            key: None if array is None else np.ascontiguousarray(array, PAYLOADS[key]).tobytes()
            for key, array in arrays.items()
        }
        checksum = row_crc(image_id, regions.width, regions.height, len(regions), tuple(payloads.values()))
        row = {"image_id": image_id, "width": regions.width, "height": regions.height, "num_regions": len(regions)}
        facts["feature_dim"] = regions.feature_dim
        if arrays["class_probs"] is not None:
            facts["num_classes"] = arrays["class_probs"].shape[1]
        if len(regions):
            self._optional = present
        self._append({**row, **payloads, "crc32": checksum})
        if close_full_shard and self.shard_is_full:
            self.finish_shard()

    def add_row(self, row: Mapping[str, Any], facts: Mapping[str, Any], *, close_full_shard: bool = True) -> None:
        """Add a row of another store unchanged.

        Args:
            facts: feature_dim and num_classes of that store.
            close_full_shard: as in `add`.

        Raises:
            ValueError: if the CRC of the row does not match, or its image was added before.
        """
        numbers = (row["image_id"], row["width"], row["height"], row["num_regions"])
        if row_crc(*numbers, [row[name] for name in PAYLOADS]) != row["crc32"]:
            raise MmptValueError(f"the row of image {row['image_id']!r} is damaged: its crc32 does not match")
        self._checked_id(row["image_id"])
        self._facts |= {name: facts[name] for name in ("feature_dim", "num_classes")}
        self._append(dict(row))
        if close_full_shard and self.shard_is_full:
            self.finish_shard()

    @property
    def shard_is_full(self) -> bool:
        """Whether the current shard has reached `shard_bytes`."""
        written = 0 if self._file is None else self._file.tell()
        return written >= self._shard_bytes or (written + self._rows_bytes >= self._shard_bytes)

    def finish_shard(self, position: int | None = None) -> None:
        """Close the current shard and record it in the manifest, so that it survives an interruption.

        Args:
            position: number of source positions processed, from which a resumed run continues; None means the number
                of images added.
        """
        self._write_rows()
        if self._file is None:
            return
        self._stream.close()
        self._file.close()
        path = self.path / shard_name(len(self._shards))
        publish(Path(self._file.name), path)
        self._shards.append(file_entry(path, self._shard_rows))
        hashes = np.fromiter(map(id_hash, self._ids), np.uint64, len(self._ids))
        self._finished = np.sort(np.concatenate([self._finished, hashes]))
        self._ids = set()
        self._file, self._stream, self._shard_rows = None, None, 0
        self.position = len(self) if position is None else position
        self._note(complete=False)

    def close(self, rejected: int = 0) -> None:
        """Complete the store: write the remaining rows, the index and the manifest.

        Args:
            rejected: number of rows in errors.jsonl, which is listed in the manifest if it is above 0.

        Raises:
            ValueError: if no image was added.
        """
        if not self._lock.is_locked:
            return
        try:
            if not len(self):
                raise MmptValueError(f"{self.path}: no image was added, expected at least one")
            self.finish_shard()
            columns = (batch.ids for entry in self._shards for batch in open_shard(self.path, entry))
            index = IdIndex.build(columns)
            index.write(self.path / INDEX)
            errors = self.path / ERRORS
            self._note(
                complete=True,
                index=file_entry(self.path / INDEX, len(index)),
                errors=file_entry(errors, rejected) if rejected else None,
            )
        finally:
            self._lock.release()
        (self.path / LOCK).unlink(missing_ok=True)  # safe: the complete manifest now rejects every other writer

    def abandon(self) -> None:
        """Discard the current shard and keep the complete ones; a writer with `resume` continues from there."""
        if self._file is not None:
            with suppress(OSError):  # on a full disk, flushing the buffer fails too
                self._file.close()
            Path(self._file.name).unlink()
        self._lock.release()

    def _take_folder(self, resume: bool) -> None:
        before = read_manifest(self.path) if (self.path / MANIFEST).exists() else None
        if before is not None and before["complete"]:
            self._lock.release()
            (self.path / LOCK).unlink(missing_ok=True)
            raise MmptFileExistsError(
                f"{self.path} already holds a region store; give another folder, or delete this one"
            )
        kept: list[dict[str, Any]] = before["shards"] if before is not None and resume else []
        names = {entry["file"] for entry in kept}
        left = [file for file in self.path.glob("shard-*.arrow") if file.name not in names]
        if left and not resume:
            logger.warning("%s: replacing %d shards of an interrupted run", self.path, len(left))
        if before is not None and not kept:
            (self.path / MANIFEST).unlink()
        for file in (*left, *self.path.glob("*.tmp")):
            file.unlink()
        if before is not None and kept:
            self._resume(before)

    def _resume(self, before: dict[str, Any]) -> None:
        """Load the complete shards of an interrupted run."""
        now = {name: self._facts[name] for name in ("extractor", "class_names")} | {"origin": self._origin}
        for name, value in now.items():
            if before[name] != value:
                raise MmptValueError(
                    f"{self.path} was started with {name} {before[name]!r:.200}, now it is {value!r:.200}; delete the "
                    "folder to start over"
                )
        self._facts = {name: before[name] for name in self._facts}
        self._shard_bytes, self.position = before["shard_bytes"], before["position"]
        for entry in before["shards"]:
            for batch in open_shard(self.path, entry):
                hashes = np.fromiter(map(id_hash, batch.ids.to_pylist()), np.uint64, len(batch))
                self._finished = np.concatenate([self._finished, hashes])
                for row in range(len(batch) if self._optional is None else 0):
                    if batch.numbers(row)[2]:
                        self._optional = frozenset(k for k in OPTIONAL if batch.payload(k, row) is not None)
                        break
            self._shards.append(entry)
        self._finished.sort()

    def _checked_id(self, image_id: str | None) -> str:
        if not isinstance(image_id, str) or not image_id:
            raise MmptValueError(f"image_id is {image_id!r}, expected a non-empty string; set Regions.image_id")
        try:
            wanted = id_hash(image_id)
        except UnicodeEncodeError:
            raise MmptValueError(f"image_id {image_id!r} cannot be written as UTF-8, expected valid text") from None
        if image_id in self._ids or (self._holds(wanted) and self._is_finished(image_id)):
            raise MmptValueError(f"image {image_id!r} was added before, expected each image once")
        return image_id

    def _holds(self, wanted: np.uint64) -> bool:
        position = int(self._finished.searchsorted(wanted))
        return position < len(self._finished) and self._finished[position] == wanted

    def _is_finished(self, image_id: str) -> bool:
        """Search the finished shards for an id whose hash matches, because two ids may share a hash."""
        batches = (batch for entry in self._shards for batch in open_shard(self.path, entry))
        return any(batch.ids.index(image_id).as_py() >= 0 for batch in batches)

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._rows_bytes += sum(len(row[name]) for name in PAYLOADS if row[name] is not None)
        self._ids.add(row["image_id"])
        if self._rows_bytes >= min(BATCH_BYTES, self._shard_bytes):
            self._write_rows()

    def _write_rows(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            self._file = (self.path / f"{shard_name(len(self._shards))}.tmp").open("wb")
            self._stream = pa.ipc.new_stream(self._file, SCHEMA)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._shard_rows += len(self._rows)
        self._rows, self._rows_bytes = [], 0

    def _note(self, *, complete: bool, index: Any = None, errors: Any = None) -> None:
        rest = {} if complete else {"position": self.position}
        write_manifest(
            self.path,
            self._facts,
            origin=self._origin,
            complete=complete,
            shard_bytes=self._shard_bytes,
            index=index,
            errors=errors,
            shards=self._shards,
            **rest,
        )


def take_lock(path: Path) -> FileLock:
    """Create the folder and lock it against a second writer.

    Raises:
        RuntimeError: if another process holds the lock.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MmptRuntimeError(f"{path} is being written by another process, expected one writer per store") from None
    return lock


def _finite(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        stored = np.asarray(values).astype(dtype)
    bad = np.argwhere(~np.isfinite(stored))
    if len(bad):
        given = values[tuple(bad[0])]
        limit = f", which {dtype.name} (up to {np.finfo(dtype).max:g}) cannot hold" if np.isfinite(given) else ""
        raise MmptValueError(
            f"{name} of region {bad[0][0]} contain {given:g}{limit}; expected finite numbers ({len(bad)} are not)"
        )
    return stored


def _checked_optional(key: str, values: NDArray[Any], name: str, num_classes: int | None) -> NDArray[Any]:
    """Return an optional array in its stored dtype after checking its values."""
    stored = _finite(values, PAYLOADS[key], name) if PAYLOADS[key].kind == "f" else _whole(values, name)
    if key == "class_probs":
        _check_probs(values, name, num_classes)
    elif key in ("scores", "attribute_scores") and len(stored) and (stored.min() < 0 or stored.max() > 1):
        raise MmptValueError(f"{name} run from {stored.min():g} to {stored.max():g}, expected confidences in 0..1")
    elif key == "labels" and num_classes is not None and len(stored) and stored.max() >= num_classes:
        raise MmptValueError(f"{name} run up to {stored.max()}, expected 0..{num_classes - 1} ({num_classes} classes)")
    return stored


def _whole(values: NDArray[Any], name: str) -> NDArray[Any]:
    stored = values.astype(np.int32)
    if len(stored) and ((stored != values).any() or stored.min() < 0):
        wrong = values[(stored != values) | (stored < 0)][0]
        raise MmptValueError(f"{name} contain {wrong}, expected integers from 0")
    return stored


def _check_probs(probs: NDArray[Any], name: str, num_classes: int | None) -> None:
    if num_classes not in (None, probs.shape[1]):
        raise MmptValueError(f"{name} have {probs.shape[1]} classes, expected {num_classes}")
    if not len(probs):
        return
    if probs.min() < 0:
        raise MmptValueError(f"{name} contain {probs.min():g}, expected probabilities from 0; logits need a softmax")
    sums = probs.sum(1, dtype=np.float64)
    off = np.flatnonzero(np.abs(sums - 1) > PROBABILITY_TOLERANCE)
    if len(off):
        raise MmptValueError(
            f"{name} of region {off[0]} sum to {sums[off[0]]:.4g}, expected 1 ({len(off)} of {len(sums)} regions are "
            "off); a detector with sigmoid scores needs a softmax over its classes"
        )
