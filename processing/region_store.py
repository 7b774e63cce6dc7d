"""The region store: a folder of Arrow shards with one row an image, read by image id without copying.

    store/manifest.json        schema version, feature width, classes, extractor, and each shard's rows, bytes, sha256
    store/shard-00000.arrow    Arrow IPC stream; `datasets.Dataset.from_file` reads it too

The manifest is written last, so that a folder without one was interrupted.
"""

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mmpt.processing.regions import Regions

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

PAYLOADS = {
    "features": np.dtype("<f2"),
    "boxes": np.dtype("<f4"),
    "class_probs": np.dtype("<f2"),
    "labels": np.dtype("<i4"),
    "scores": np.dtype("<f4"),
    "attribute_labels": np.dtype("<i4"),
    "attribute_scores": np.dtype("<f4"),
    "type_ids": np.dtype("<i4"),
}
"""The arrays of an image, each stored as little-endian bytes; those after boxes may be null."""

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("num_regions", pa.int32()),
        *((name, pa.binary()) for name in PAYLOADS),
        ("crc32", pa.uint32()),
    ]
)
REQUIRED = ("image_id", "num_regions", "features", "boxes", "crc32")


class RegionStore(Mapping[str, Regions]):
    """A memory-mapped region store: `store[image_id]` gives `Regions` whose arrays are read-only views of the file.

    Features come as float16, class_probs as float32 that sum to 1. Pickling keeps the path alone, so that a worker
    opens the store again. Made by `RegionStore.open`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.feature_dim: int = manifest["feature_dim"]
        self.num_classes: int | None = manifest["num_classes"]
        self.class_names: list[str] | None = manifest["class_names"]
        self.extractor: dict[str, Any] = manifest["extractor"]
        self.fingerprint: str = manifest["fingerprint"]
        self._manifest = manifest
        self._widths = {"features": (self.feature_dim,), "boxes": (4,), "class_probs": (self.num_classes or 0,)}
        self._batches: list[_Batch] = []
        self._starts: list[int] = []
        ids: list[str] = []
        for entry in manifest["shards"]:
            for batch in _open_shard(path, entry):
                self._starts.append(len(ids))
                self._batches.append(_Batch(batch))
                ids.extend(batch.column(0).to_pylist())
        self._rows = {image_id: row for row, image_id in enumerate(ids)}
        if len(self._rows) < len(ids):
            raise ValueError(f"{path} has {len(ids)} rows of {len(self._rows)} different images: it is damaged")

    @classmethod
    def open(cls, path: str | Path) -> "RegionStore":
        """Open a store, checking that it is complete and that every shard has the size it was written with.

        Raises:
            FileNotFoundError: if the folder, its manifest or a shard is missing.
            ValueError: if the store was written by a newer mmpt, or is damaged.
        """
        return cls(Path(path), _read_manifest(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionStore.open, (self.path.resolve(),)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> Regions:
        row = self._rows.get(image_id)
        if row is None:
            raise KeyError(
                f"image {image_id!r} is not in {self.path} ({len(self)} images, {next(iter(self))!r} is the first). "
                "Was the store built from the same split?"
            )
        number = bisect_right(self._starts, row) - 1
        batch, row = self._batches[number], row - self._starts[number]
        width, height, count = batch.numbers(row)
        arrays: dict[str, Any] = {}
        for key, dtype in PAYLOADS.items():
            payload = batch.payload(key, row)
            if payload is None:
                continue
            shape = (count, *self._widths.get(key, ()))
            if payload.nbytes != dtype.itemsize * math.prod(shape):
                raise self._damaged(image_id, f"{key} are {payload.nbytes} bytes, expected an array of shape {shape}")
            arrays[key] = payload.view(dtype).reshape(shape)
        if "class_probs" in arrays:
            # float16 rounding leaves sums of 1 +- 1e-3; a target of a KL divergence must be a distribution.
            # NumPy takes 30 times as long as torch to widen float16.
            probs = torch.from_numpy(arrays["class_probs"].copy()).float().numpy()
            sums = probs.sum(1, keepdims=True)
            if not (np.abs(sums - 1) < 0.1).all():
                raise self._damaged(image_id, "class_probs do not sum to 1")
            probs /= sums
            arrays["class_probs"] = probs
        return Regions(width=width, height=height, image_id=image_id, **arrays)

    def validate(self, *, deep: bool = False) -> None:
        """Check every shard's size and, if `deep`, every byte against the checksums.

        Raises:
            FileNotFoundError: if a shard is missing.
            ValueError: naming each damaged shard and its first damaged images.
        """
        for entry in self._manifest["shards"]:
            _check_size(self.path, entry)
        if not deep:
            return
        manifest = _read_manifest(self.path)
        stored = manifest.pop("crc32")
        found = crc32(canonical_json(manifest))
        faults = [] if found == stored else [f"{MANIFEST}: crc32 is {found}, expected {stored}"]
        number = 0
        for entry in self._manifest["shards"]:
            damaged, rows = [], 0
            while rows < entry["rows"]:
                damaged.extend(self._batches[number].damaged_images())
                rows += len(self._batches[number])
                number += 1
            found = sha256(self.path / entry["file"])
            if damaged or found != entry["sha256"]:
                fault = f"{entry['file']}: sha256 is {found[:12]}, expected {entry['sha256'][:12]}"
                first = ", ".join(map(repr, damaged[:5]))
                faults.append(f"{fault}; {len(damaged)} of {rows} images are damaged" + (first and f": {first}"))
        if faults:
            raise ValueError(f"{self.path} is damaged. {'. '.join(faults)}. Copy or write the named files again")

    def _damaged(self, image_id: str, fault: str) -> ValueError:
        return ValueError(f"image {image_id!r} in {self.path}: {fault}; it is damaged, validate(deep=True) says where")


class _Batch:
    """One record batch, its columns as NumPy views, made when first read."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._columns: dict[str, Any] = {}

    def __len__(self) -> int:
        return self._batch.num_rows

    def numbers(self, row: int) -> tuple[int | None, int | None, int]:
        """Return width, height and the number of regions."""
        width, height, count = (self._batch.column(index)[row].as_py() for index in (1, 2, 3))
        return width, height, count

    def payload(self, name: str, row: int) -> NDArray[np.uint8] | None:
        """Return the bytes of one array, None where it is null."""
        if name not in self._columns:
            column = self._batch.column(name)
            _, offsets, data = column.buffers()
            valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
            empty = np.empty(0, np.uint8)
            view = empty if data is None else np.frombuffer(data, np.uint8)
            self._columns[name] = (np.frombuffer(offsets, np.int32, len(self) + 1), view, valid)
        offsets, view, valid = self._columns[name]
        if valid is not None and not valid[row]:
            return None
        return view[offsets[row] : offsets[row + 1]]

    def damaged_images(self) -> list[str]:
        """Return the ids of the rows that do not agree with their checksum."""
        ids, checksums = self._batch.column("image_id").to_pylist(), self._batch.column("crc32").to_pylist()
        return [
            image_id
            for row, (image_id, checksum) in enumerate(zip(ids, checksums, strict=True))
            if row_crc(image_id, *self.numbers(row), [self.payload(name, row) for name in PAYLOADS]) != checksum
        ]


def row_crc(image_id: str, width: int | None, height: int | None, count: int, payloads: Sequence[Any]) -> int:
    """Return the checksum of a row: its numbers, then each array's length (-1 for null) and bytes."""
    checksum = crc32(f"{image_id}\0{width}\0{height}\0{count}".encode())
    for payload in payloads:
        checksum = crc32(b"-1" if payload is None else b"%d" % len(payload), checksum)
        checksum = checksum if payload is None else crc32(payload, checksum)
    return checksum


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder, expected a region store")
    if not file.is_file():
        hint = "its writing was interrupted; write it again" if any(path.glob("shard-*")) else "it is no region store"
        raise FileNotFoundError(f"{path} has no {MANIFEST}: {hint}")
    try:
        manifest = json.loads(file.read_bytes())
        version = int(manifest["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}), expected JSON with a schema_version; copy it again") from None
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this mmpt reads up to {SCHEMA_VERSION}; pip install --upgrade mmpt"
        )
    keys = ("feature_dim", "num_classes", "class_names", "extractor", "fingerprint", "shards", "crc32")
    missing = [key for key in keys if key not in manifest]
    if missing:
        raise ValueError(f"{file} lacks {listed(missing)}: it is damaged; copy it again")
    shards = [(entry.get("file"), {"rows", "bytes", "sha256"} <= set(entry)) for entry in manifest["shards"]]
    expected = [(shard_name(number), True) for number in range(len(shards))]  # never a path that leaves the folder
    if shards != expected or not isinstance(manifest["feature_dim"], int):
        raise ValueError(f"{file} has a wrong list of shards or feature_dim: it is damaged; copy it again")
    return manifest


def _check_size(path: Path, entry: dict[str, Any]) -> Path:
    file = path / entry["file"]
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, the manifest lists it; copy the whole store")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{file} has {size} bytes, expected {entry['bytes']}: the copy is incomplete; copy it again")
    return file


def _open_shard(path: Path, entry: dict[str, Any]) -> list[pa.RecordBatch]:
    file = _check_size(path, entry)
    try:
        reader = pa.ipc.open_stream(pa.memory_map(str(file)))
        batches = list(reader) if reader.schema.equals(SCHEMA) else []
        for batch in batches:
            batch.validate()
            batch.column(0).validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy or write it again") from None
    rows = sum(batch.num_rows for batch in batches)
    if rows != entry["rows"] or any(batch.column(name).null_count for batch in batches for name in REQUIRED):
        raise ValueError(
            f"{file} is damaged: {rows} rows can be read, expected {entry['rows']}; copy or write it again"
        )
    return batches


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.arrow"


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "no optional arrays"
