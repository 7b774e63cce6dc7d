"""Region stores as Parquet, for the Hub and for streaming.

    folder/data/regions-00000.parquet    one shard of the store; one row group per record batch
    folder/manifest.json                 the facts of the store; rows, bytes and sha256 of each file
    folder/README.md                     the dataset card

Pages have checksums, and rows have a CRC as in the store.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

from mmpt.configuration.errors import MmptFileExistsError, MmptFileNotFoundError, MmptValueError
from mmpt.processing.store.format import (
    FACTS,
    MANIFEST,
    SCHEMA,
    ShardBatch,
    file_entry,
    open_shard,
    read_manifest,
    sha256,
)
from mmpt.processing.store.writer import SHARD_BYTES, RegionStoreWriter

PARQUET_VERSION = 1
_CARD = """---
configs:
- config_name: default
  data_files: data/*.parquet
tags:
- mmpt
- region-features
---

# Region features

{images} images, features of dimension {feature_dim}, {classes}; extracted with `{extractor}`.

```python
from mmpt import RegionStore

store = RegionStore.from_hub("{repo_id}", "regions")
```
"""


def write_parquet(store: str | Path, folder: str | Path) -> None:
    """Write a store as Parquet.

    Raises:
        FileExistsError: if the folder is not empty.
        ValueError: if the store is not complete.
    """
    store, folder = Path(store), Path(folder)
    manifest = _complete_manifest(store)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise MmptFileExistsError(f"{folder} is not empty, expected a new folder")
    (folder / "data").mkdir()
    files = [_write_file(store, entry, number, folder) for number, entry in enumerate(manifest["shards"])]
    (folder / "README.md").write_text(_card(manifest, folder.name), encoding="utf-8")
    (folder / MANIFEST).write_text(_parquet_manifest(manifest, files), encoding="utf-8")


def read_parquet(folder: str | Path, path: str | Path) -> None:
    """Convert Parquet files back to a store at `path`, byte-identical to the original; resumable.

    Raises:
        FileNotFoundError: if the folder has no manifest, or a file is missing.
        ValueError: if the checksum of a file, page or row does not match.
    """
    folder, path = Path(folder), Path(path)
    manifest = read_parquet_manifest(folder)
    writer = RegionStoreWriter(
        path,
        extractor=manifest["extractor"],
        class_names=manifest["class_names"],
        origin=manifest["origin"],
        shard_bytes=manifest["shard_bytes"] or SHARD_BYTES,
        resume=True,
    )
    with writer:
        start = 0
        for entry in manifest["files"]:
            if start + entry["rows"] > writer.position:
                _check_file(folder, entry)
                with (folder / "data" / entry["file"]).open("rb") as file:
                    rows = (
                        batch.row(row) for batch in read_row_groups(file, entry["file"]) for row in range(len(batch))
                    )
                    for number, row in enumerate(rows, start):
                        if number >= writer.position:
                            writer.add_row(row, manifest)
            start += entry["rows"]


def push_store(
    store: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Upload a store as Parquet to a dataset repository and return its address.

    Files are written, uploaded and deleted one at a time, so only one takes disk space. Manifest and card are uploaded
    last: an upload without a manifest was interrupted, and pushing again completes it.

    Raises:
        ValueError: if the store is not complete.
        huggingface_hub.errors.HfHubHTTPError: if the Hub refuses.
    """
    store = Path(store)
    manifest = _complete_manifest(store)
    api = HfApi(token=token)
    count = len(manifest["shards"])
    address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    files = []
    for number, shard in enumerate(manifest["shards"]):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "data").mkdir()
            entry = _write_file(store, shard, number, folder)
            name = f"data/{entry['file']}"
            api.upload_file(
                path_or_fileobj=folder / name,
                path_in_repo=name,
                repo_id=repo_id,
                repo_type="dataset",
                revision=revision,
                commit_message=f"Regions, file {number + 1} of {count}",
            )
        files.append(entry)
    last = {MANIFEST: _parquet_manifest(manifest, files), "README.md": _card(manifest, repo_id)}
    api.create_commit(
        repo_id,
        [CommitOperationAdd(name, text.encode()) for name, text in last.items()],
        repo_type="dataset",
        revision=revision,
        commit_message=f"{_images(manifest)} images",
    )
    return str(address)


def load_store(repo_id: str, path: str | Path, *, token: str | None = None, revision: str | None = None) -> None:
    """Download a pushed store, check every file, and write it to a folder.

    Raises:
        FileNotFoundError: if the repository has no complete store.
        ValueError: if a downloaded file does not match its checksum.
        huggingface_hub.errors.HfHubHTTPError: if the Hub refuses.
    """
    patterns = [MANIFEST, "data/*.parquet"]
    folder = snapshot_download(repo_id, repo_type="dataset", revision=revision, token=token, allow_patterns=patterns)
    read_parquet(folder, path)


def read_parquet_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of Parquet files.

    Raises:
        FileNotFoundError: if there is none, because the folder is something else or writing was interrupted.
        ValueError: if it is damaged, or was written by a newer mmpt.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise MmptFileNotFoundError(
            f"{folder} has no {MANIFEST}, expected a region store as Parquet; was the upload completed?"
        )
    try:
        return check_parquet_manifest(json.loads(file.read_bytes()), str(file))
    except json.JSONDecodeError as error:
        raise MmptValueError(f"{file} is damaged ({error}), expected JSON; download it again") from None


def check_parquet_manifest(manifest: Any, name: str) -> dict[str, Any]:
    """Return a manifest after checking that it has all keys that reading needs.

    Raises:
        ValueError: if a key is missing or wrong, or if it was written by a newer mmpt.
    """
    keys = {*FACTS, "origin", "shard_bytes", "files", "parquet_version"}
    if not isinstance(manifest, dict) or not keys <= set(manifest):
        raise MmptValueError(
            f"{name} is not a manifest of a region store as Parquet, expected the keys {', '.join(sorted(keys))}"
        )
    if manifest["parquet_version"] > PARQUET_VERSION:
        raise MmptValueError(
            f"{name} has version {manifest['parquet_version']}, this mmpt reads up to {PARQUET_VERSION}; pip install "
            "--upgrade mmpt"
        )
    if [entry.get("file") for entry in manifest["files"]] != list(map(_file_name, range(len(manifest["files"])))):
        raise MmptValueError(f"{name} has a wrong list of files: it is damaged; download it again")
    return manifest


def read_row_groups(file: Any, name: str, groups: range | None = None) -> Iterator[ShardBatch]:
    """Yield the row groups of a Parquet file one by one, verifying page checksums.

    Args:
        file: file object open for reading, local or on the Hub.
        name: name of the file in errors.
        groups: numbers of the row groups to read; None reads all.

    Raises:
        ValueError: if a page is damaged.
    """
    try:
        reader = pq.ParquetFile(file, page_checksum_verification=True)
        for group in range(reader.num_row_groups) if groups is None else groups:
            if group >= reader.num_row_groups:
                break
            table = reader.read_row_group(group, use_threads=False).cast(SCHEMA)
            for batch in table.combine_chunks().to_batches():
                yield ShardBatch(batch)
    except (pa.ArrowException, OSError) as error:
        raise MmptValueError(f"{name} is damaged ({error}); download it again") from None


def _complete_manifest(store: Path) -> dict[str, Any]:
    manifest = read_manifest(store)
    if not manifest["complete"]:
        raise MmptValueError(f"{store} is not complete: writing was interrupted; finish it before sharing it")
    return manifest


def _write_file(store: Path, shard: dict[str, Any], number: int, folder: Path) -> dict[str, Any]:
    """Write one shard and return its manifest entry."""
    path = folder / "data" / _file_name(number)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True) as writer:
        for batch in open_shard(store, shard):
            writer.write_batch(batch.arrow)
    return file_entry(path, shard["rows"])


def _check_file(folder: Path, entry: dict[str, Any]) -> None:
    file = folder / "data" / entry["file"]
    if not file.is_file():
        raise MmptFileNotFoundError(f"{file} is missing, the manifest lists it; download it again")
    if file.stat().st_size != entry["bytes"] or sha256(file) != entry["sha256"]:
        raise MmptValueError(f"{file} is damaged: its size or sha256 differs from the manifest; download it again")


def _parquet_manifest(manifest: dict[str, Any], files: list[dict[str, Any]]) -> str:
    facts = {name: manifest[name] for name in (*FACTS, "origin", "shard_bytes", "fingerprint")}
    return json.dumps({"parquet_version": PARQUET_VERSION, **facts, "files": files}, indent=1) + "\n"


def _images(manifest: dict[str, Any]) -> int:
    return sum(entry["rows"] for entry in manifest["shards"])


def _card(manifest: dict[str, Any], repo_id: str) -> str:
    classes = manifest["num_classes"]
    return _CARD.format(
        images=_images(manifest),
        feature_dim=manifest["feature_dim"],
        classes="no classes" if classes is None else f"{classes} classes",
        extractor=json.dumps(manifest["extractor"]),
        repo_id=repo_id,
    )


def _file_name(number: int) -> str:
    return f"regions-{number:05d}.parquet"
