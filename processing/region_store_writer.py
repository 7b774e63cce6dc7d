"""The writer of region stores: checks every number, and completes a store or leaves none."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mmpt.processing.region_store import (
    MANIFEST,
    PAYLOADS,
    SCHEMA,
    SCHEMA_VERSION,
    canonical_json,
    listed,
    row_crc,
    sha256,
    shard_name,
)
from mmpt.processing.regions import Regions, check_boxes

logger = logging.getLogger(__name__)

LOCK = "writer.lock"
SHARD_BYTES = 500_000_000
BATCH_BYTES = 16_000_000  # rows held in memory before they are written
PROBABILITY_TOLERANCE = 2e-3  # what 1,600 float16 roundings can add up to

OPTIONAL = tuple(PAYLOADS)[2:]


class RegionStoreWriter:
    """Write a region store, image by image; a context manager that completes the store unless an error leaves it.

    Args:
        path: the store's folder; made if it does not exist.
        extractor: what made the regions (model, revision, settings), as JSON; part of the store's fingerprint.
        class_names: names of the classes that `class_probs` and `labels` count, background included.
        shard_bytes: a shard is closed once it holds this many bytes.

    Raises:
        FileExistsError: if the folder holds a store already.
        RuntimeError: if another writer is at work in the folder.
        TypeError: if the extractor cannot be written as JSON.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        extractor: Mapping[str, Any],
        class_names: Sequence[str] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.path = Path(path)
        self._extractor: dict[str, Any] = json.loads(canonical_json(dict(extractor)))
        self._class_names = None if class_names is None else list(class_names)
        self._num_classes = None if class_names is None else len(class_names)
        self._shard_bytes = shard_bytes
        self._feature_dim: int | None = None
        self._optional: frozenset[str] | None = None
        self._ids: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._rows_bytes = self._shard_rows = 0
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._stream: Any = None
        self._lock = self._take_folder()

    def __enter__(self) -> "RegionStoreWriter":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.close()
            return
        if self._file is not None:
            with suppress(OSError):  # on a full disk, what is left cannot be written either
                self._file.close()
            Path(self._file.name).unlink()
        self._lock.release()

    def add(self, regions: Regions) -> None:
        """Add the regions of one image; after an error the store is as it was before.

        Raises:
            ValueError: if the image has no id, was added before, has a number that is not finite (in float16 too), a
                box that is inverted or not in 0..1, class_probs that are no distribution, or does not fit the images
                before it in feature width, classes or optional arrays.
        """
        if not self._lock.is_locked:
            raise ValueError(f"{self.path} is closed, expected all images to be added before")
        image_id = self._checked_id(regions.image_id)
        name = f"image {image_id!r}"
        if self._feature_dim not in (None, regions.feature_dim):
            raise ValueError(
                f"{name}: features are {regions.feature_dim} numbers wide, expected {self._feature_dim} as in the "
                "images before; one store holds one extractor's features"
            )
        arrays: dict[str, NDArray[Any] | None] = dict.fromkeys(PAYLOADS)
        arrays["features"] = _finite(regions.features, PAYLOADS["features"], f"{name}: features")
        arrays["boxes"] = check_boxes(regions.boxes, f"{name}: boxes")
        for key in OPTIONAL:
            value = getattr(regions, key)
            if value is not None:
                arrays[key] = _checked_optional(key, value, f"{name}: {key}", self._num_classes)
        present = frozenset(key for key in OPTIONAL if arrays[key] is not None)
        if len(regions) and self._optional not in (None, present):
            raise ValueError(
                f"{name} has {listed(present)}, expected {listed(self._optional or ())} as in the images before; "
                "an objective that reads an array needs it for every image"
            )

        payloads = {
            key: None if array is None else np.ascontiguousarray(array, PAYLOADS[key]).tobytes()
            for key, array in arrays.items()
        }
        checksum = row_crc(image_id, regions.width, regions.height, len(regions), tuple(payloads.values()))
        row = {"image_id": image_id, "width": regions.width, "height": regions.height, "num_regions": len(regions)}
        self._rows.append({**row, **payloads, "crc32": checksum})
        self._rows_bytes += sum(len(payload) for payload in payloads.values() if payload is not None)
        self._ids.add(image_id)
        self._feature_dim = regions.feature_dim
        if len(regions):
            self._optional = present
        if arrays["class_probs"] is not None:
            self._num_classes = arrays["class_probs"].shape[1]
        if self._rows_bytes >= min(BATCH_BYTES, self._shard_bytes):
            self._write_rows()

    def close(self) -> None:
        """Write what is left and the manifest; the store is complete then.

        Raises:
            ValueError: if no image was added.
        """
        if not self._lock.is_locked:
            return
        try:
            if not self._ids:
                raise ValueError(f"{self.path}: no image was added, expected at least one")
            self._write_rows()
            self._finish_shard()
            self._write_manifest()
        finally:
            self._lock.release()
        (self.path / LOCK).unlink(missing_ok=True)  # safe: from here on the manifest refuses every other writer

    def _take_folder(self) -> FileLock:
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"{self.path} is being written by another process, expected one writer a store"
            ) from None
        if (self.path / MANIFEST).exists():
            lock.release()
            (self.path / LOCK).unlink(missing_ok=True)
            raise FileExistsError(f"{self.path} holds a region store already; give another folder, or delete this one")
        left = [*self.path.glob("shard-*.arrow"), *self.path.glob("shard-*.arrow.tmp")]
        if left:
            logger.warning("%s: replacing %d shards of an interrupted writing", self.path, len(left))
        for file in left:
            file.unlink()
        return lock

    def _checked_id(self, image_id: str | None) -> str:
        if not isinstance(image_id, str) or not image_id:
            raise ValueError(f"image_id is {image_id!r}, expected a non-empty string; set Regions.image_id")
        try:
            image_id.encode()
        except UnicodeEncodeError:
            raise ValueError(f"image_id {image_id!r} cannot be written as UTF-8, expected valid text") from None
        if image_id in self._ids:
            raise ValueError(f"image {image_id!r} was added before, expected each image once")
        return image_id

    def _write_rows(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            self._file = (self.path / f"{shard_name(len(self._shards))}.tmp").open("wb")
            self._stream = pa.ipc.new_stream(self._file, SCHEMA)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._shard_rows += len(self._rows)
        self._rows, self._rows_bytes = [], 0
        if self._file.tell() >= self._shard_bytes:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._stream.close()
        self._file.close()
        path = self.path / shard_name(len(self._shards))
        _publish(Path(self._file.name), path)
        entry = {"file": path.name, "rows": self._shard_rows, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self._shards.append(entry)
        self._file, self._stream, self._shard_rows = None, None, 0

    def _write_manifest(self) -> None:
        facts = {
            "feature_dim": self._feature_dim,
            "num_classes": self._num_classes,
            "class_names": self._class_names,
            "extractor": self._extractor,
        }
        fingerprint = hashlib.sha256(canonical_json(facts)).hexdigest()
        manifest = {"schema_version": SCHEMA_VERSION, **facts, "fingerprint": fingerprint, "shards": self._shards}
        manifest["crc32"] = crc32(canonical_json(manifest))
        temporary = self.path / f"{MANIFEST}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, ensure_ascii=False)
            file.write("\n")
        _publish(temporary, self.path / MANIFEST)


def _finite(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        stored = np.asarray(values).astype(dtype)
    bad = np.argwhere(~np.isfinite(stored))
    if len(bad):
        given = values[tuple(bad[0])]
        limit = f", which {dtype.name} (up to {np.finfo(dtype).max:g}) cannot hold" if np.isfinite(given) else ""
        raise ValueError(
            f"{name} of region {bad[0][0]} hold {given:g}{limit}; expected finite numbers ({len(bad)} are not)"
        )
    return stored


def _checked_optional(key: str, values: NDArray[Any], name: str, num_classes: int | None) -> NDArray[Any]:
    """Return an optional array in the type it is stored with."""
    stored = _finite(values, PAYLOADS[key], name) if PAYLOADS[key].kind == "f" else _whole(values, name)
    if key == "class_probs":
        _check_probs(values, name, num_classes)
    elif key in ("scores", "attribute_scores") and len(stored) and (stored.min() < 0 or stored.max() > 1):
        raise ValueError(f"{name} run from {stored.min():g} to {stored.max():g}, expected confidences in 0..1")
    elif key == "labels" and num_classes is not None and len(stored) and stored.max() >= num_classes:
        raise ValueError(f"{name} run up to {stored.max()}, expected 0..{num_classes - 1} ({num_classes} classes)")
    return stored


def _whole(values: NDArray[Any], name: str) -> NDArray[Any]:
    stored = values.astype(np.int32)
    if len(stored) and ((stored != values).any() or stored.min() < 0):
        wrong = values[(stored != values) | (stored < 0)][0]
        raise ValueError(f"{name} hold {wrong}, expected whole numbers from 0 on")
    return stored


def _check_probs(probs: NDArray[Any], name: str, num_classes: int | None) -> None:
    if num_classes not in (None, probs.shape[1]):
        raise ValueError(f"{name} have {probs.shape[1]} classes, expected {num_classes}")
    if not len(probs):
        return
    if probs.min() < 0:
        raise ValueError(f"{name} hold {probs.min():g}, expected probabilities from 0 on; logits need a softmax")
    sums = probs.sum(1, dtype=np.float64)
    off = np.flatnonzero(np.abs(sums - 1) > PROBABILITY_TOLERANCE)
    if len(off):
        raise ValueError(
            f"{name} of region {off[0]} sum to {sums[off[0]]:.4g}, expected 1 ({len(off)} of {len(sums)} regions are "
            "off); a detector with sigmoid scores needs a softmax over its classes"
        )


def _publish(temporary: Path, final: Path) -> None:
    """Put a complete file in its place so that a crash leaves the old state or the new one."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    if os.name == "posix":  # a folder cannot be opened elsewhere
        folder = os.open(final.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
