"""On-disk format of a region store: its files, the columns of a shard, the manifest and the checksums.

    store/manifest.json        schema version, feature dimension, classes, extractor; size and sha256 of each file
    store/shard-00000.arrow    Arrow IPC stream; `datasets.Dataset.from_file` reads it too
    store/index.arrow          ids in row order, and row numbers in the order of the ids' hashes
    store/errors.jsonl         rejected positions of the source with the reason; absent if there are none

The manifest is written after each shard. It has `"complete": true` once the index is written too.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError

SCHEMA_VERSION = 2  # version 1 had no index, no errors.jsonl, and no manifest before the last shard
MANIFEST = "manifest.json"
INDEX = "index.arrow"
ERRORS = "errors.jsonl"
LOCK = "writer.lock"

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
"""Arrays of an image, each stored as little-endian bytes; those after boxes may be null."""

OPTIONAL = tuple(PAYLOADS)[2:]

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
FACTS = ("feature_dim", "num_classes", "class_names", "extractor")
"""Properties shared by all images of a store, from which its fingerprint is computed."""

UNKNOWN = -(2**31)  # represents null in a column of widths or heights


class ShardBatch:
    """A record batch whose columns become NumPy views when first read."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.arrow = batch
        self._columns: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.arrow.num_rows

    @property
    def ids(self) -> pa.Array:
        """The image ids."""
        return self.arrow.column(0)

    def numbers(self, row: int) -> tuple[int | None, int | None, int]:
        """Return width, height and the number of regions."""
        if "numbers" not in self._columns:
            filled = (self.arrow.column(index).fill_null(UNKNOWN) for index in (1, 2, 3))
            self._columns["numbers"] = [column.to_numpy() for column in filled]
        width, height, count = (column.item(row) for column in self._columns["numbers"])
        return None if width == UNKNOWN else width, None if height == UNKNOWN else height, count

    def payload(self, name: str, row: int) -> NDArray[np.uint8] | None:
        """Return the bytes of one array, or None if it is null."""
        if name not in self._columns:
            column = self.arrow.column(name)
            _, offsets, data = column.buffers()
            valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
            empty = np.empty(0, np.uint8)
            view = empty if data is None else np.frombuffer(data, np.uint8)
            self._columns[name] = (np.frombuffer(offsets, np.int32, len(self) + 1), view, valid)
        offsets, view, valid = self._columns[name]
        if valid is not None and not valid[row]:
            return None
        return view[offsets[row] : offsets[row + 1]]

    @property
    def present(self) -> list[str]:
        """Names of the arrays that at least one row has."""
        if "present" not in self._columns:
            self._columns["present"] = [n for n in PAYLOADS if self.arrow.column(n).null_count < len(self)]
        return self._columns["present"]

    def row(self, row: int) -> dict[str, Any]:
        """Return a row as stored, with arrays as bytes."""
        width, height, count = self.numbers(row)
        numbers = {"image_id": self.ids[row].as_py(), "width": width, "height": height, "num_regions": count}
        payloads = {name: self.payload(name, row) for name in PAYLOADS}
        arrays = {name: None if value is None else value.tobytes() for name, value in payloads.items()}
        return {**numbers, **arrays, "crc32": self.arrow.column("crc32")[row].as_py()}

    def damaged_rows(self) -> list[int]:
        """Return the numbers of the rows whose CRC does not match."""
        ids, checksums = self.ids.to_pylist(), self.arrow.column("crc32").to_pylist()
        return [
            row
            for row, (image_id, checksum) in enumerate(zip(ids, checksums, strict=True))
            if row_crc(image_id, *self.numbers(row), [self.payload(name, row) for name in PAYLOADS]) != checksum
        ]


def read_batches(file: Path) -> list[ShardBatch]:
    """Memory-map a shard.

    Raises:
        ValueError: if its columns are not those of a shard, or Arrow finds it invalid.
    """
    with pa.memory_map(str(file)) as source:  # batches stay valid after the file handle is closed
        try:
            reader = pa.ipc.open_stream(source)
            if not reader.schema.equals(SCHEMA):
                raise MmptValueError(f"{file} is damaged (its columns are not those of a region store); copy it again")
            batches = list(reader)
            for batch in batches:
                batch.validate()
                batch.column(0).validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise MmptValueError(f"{file} is damaged ({error}); copy or write it again") from None
    for name in REQUIRED:
        if any(batch.column(name).null_count for batch in batches):
            raise MmptValueError(f"{file} is damaged ({name} has gaps); copy or write it again")
    return [ShardBatch(batch) for batch in batches]


def open_shard(path: Path, entry: dict[str, Any]) -> list[ShardBatch]:
    """Memory-map the shard of a manifest entry, checking its size and number of rows."""
    file = checked_size(path, entry)
    batches = read_batches(file)
    rows = sum(map(len, batches))
    if rows != entry["rows"]:
        raise MmptValueError(f"{file} is damaged: {rows} rows can be read, expected {entry['rows']}; copy it again")
    return batches


def row_crc(image_id: str, width: int | None, height: int | None, count: int, payloads: Sequence[Any]) -> int:
    """Return the CRC-32 of a row: its numbers, then each array's length (-1 for null) and bytes."""
    checksum = crc32(f"{image_id}\0{width}\0{height}\0{count}".encode())
    for payload in payloads:
        checksum = crc32(b"-1" if payload is None else b"%d" % len(payload), checksum)
        checksum = checksum if payload is None else crc32(payload, checksum)
    return checksum


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a store; one of version 1 gets the keys it lacks.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no store.
        ValueError: if the manifest is damaged, or was written by a newer mmpt.
    """
    file = path / MANIFEST
    if not path.is_dir():
        raise MmptFileNotFoundError(f"{path} is not a folder, expected a region store")
    if not file.is_file():
        hint = "writing was interrupted; write it again" if any(path.glob("shard-*")) else "it is not a region store"
        raise MmptFileNotFoundError(f"{path} has no {MANIFEST}: {hint}")
    try:
        manifest = json.loads(file.read_bytes())
        version = int(manifest["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise MmptValueError(
            f"{file} is damaged ({error!r}), expected JSON with a schema_version; copy it again"
        ) from None
    if version > SCHEMA_VERSION:
        raise MmptValueError(
            f"{path} has schema version {version}, this mmpt reads up to {SCHEMA_VERSION}; pip install --upgrade mmpt"
        )
    if version == 1:
        manifest = {"origin": {}, "complete": True, "index": None, "errors": None, "shard_bytes": None, **manifest}
    keys = (*FACTS, "fingerprint", "origin", "complete", "index", "errors", "shard_bytes", "shards", "crc32")
    missing = [key for key in keys if key not in manifest]
    if missing:
        raise MmptValueError(f"{file} lacks {listed(missing)}: it is damaged; copy it again")
    shards = [(entry.get("file"), {"rows", "bytes", "sha256"} <= set(entry)) for entry in manifest["shards"]]
    expected = [(shard_name(number), True) for number in range(len(shards))]  # so no path can leave the folder
    if shards != expected or not isinstance(manifest["feature_dim"], int):
        raise MmptValueError(f"{file} has a wrong list of shards or feature_dim: it is damaged; copy it again")
    for name, wanted in (("index", INDEX), ("errors", ERRORS)):
        entry = manifest[name]
        if entry is not None and not (entry.get("file") == wanted and {"rows", "bytes", "sha256"} <= set(entry)):
            raise MmptValueError(f"{file} has a wrong entry for {wanted}: it is damaged; copy it again")
    return manifest


def manifest_fault(path: Path) -> str | None:
    """Return how a manifest differs from its checksum, or None if it matches."""
    raw = (path / MANIFEST).read_bytes()
    manifest = json.loads(raw)
    stored = manifest.pop("crc32")
    found = crc32(canonical_json(manifest))
    if found != stored:
        return f"{MANIFEST}: crc32 is {found}, expected {stored}"
    if raw != manifest_text({**manifest, "crc32": stored}).encode():
        return f"{MANIFEST}: its white space was changed"
    return None


def write_manifest(path: Path, facts: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Write and return a manifest of `facts` (the keys of FACTS), their fingerprint, the rest and a checksum."""
    fingerprint = hashlib.sha256(canonical_json(facts)).hexdigest()
    manifest = {"schema_version": SCHEMA_VERSION, **facts, "fingerprint": fingerprint, **rest}
    manifest["crc32"] = crc32(canonical_json(manifest))
    temporary = path / f"{MANIFEST}.tmp"
    temporary.write_text(manifest_text(manifest), encoding="utf-8", newline="\n")
    publish(temporary, path / MANIFEST)
    return manifest


def manifest_text(manifest: dict[str, Any]) -> str:
    """Return the text of the file: readable, and deterministic for a given manifest."""
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def checked_size(path: Path, entry: dict[str, Any]) -> Path:
    """Return a file that the manifest lists.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if its size differs from that in the manifest.
    """
    file = path / entry["file"]
    if not file.is_file():
        raise MmptFileNotFoundError(f"{file} is missing, the manifest lists it; copy the whole store")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise MmptValueError(
            f"{file} has {size} bytes, expected {entry['bytes']}: the copy is incomplete; copy it again"
        )
    return file


def file_entry(file: Path, rows: int) -> dict[str, Any]:
    """Return the manifest entry of a file."""
    return {"file": file.name, "rows": rows, "bytes": file.stat().st_size, "sha256": sha256(file)}


def publish(temporary: Path, final: Path) -> None:
    """Move a complete file into place atomically: a crash leaves the old state or the new one."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    if os.name == "posix":  # other systems cannot open a folder
        folder = os.open(final.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


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
