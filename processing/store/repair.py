"""Repair a region store: rewrite only damaged files, from a source or without the damaged rows."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmpt.configuration.errors import MmptFileNotFoundError, MmptValueError
from mmpt.processing.regions import Regions
from mmpt.processing.store.format import (
    ERRORS,
    FACTS,
    INDEX,
    LOCK,
    MANIFEST,
    SCHEMA,
    ShardBatch,
    checked_size,
    file_entry,
    manifest_fault,
    open_shard,
    publish,
    read_batches,
    read_manifest,
    write_manifest,
)
from mmpt.processing.store.index import IdIndex
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.source import Found, RegionSource
from mmpt.processing.store.validation import Fault, find_faults
from mmpt.processing.store.writer import SHARD_BYTES, RegionStoreWriter, take_lock

SCRATCH = "repair"  # folder in the store; if a repair is killed it remains until the next repair removes it


class Repair:
    """Result of a repair.

    Args:
        faults: the damaged files.

    Attributes:
        mended: ids of the images whose rows were rewritten from the source.
        dropped: ids of the images removed from the store; None if the id is lost too.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self.mended: list[str] = []
        self.dropped: list[str | None] = []


def repair_store(path: str | Path, source: Mapping[str, Regions] | RegionSource | None = None) -> Repair:
    """Rewrite the damaged files of a store.

    Keep rows whose CRC matches. Re-read the others from `source`. Drop rows that it lacks, or all of them without a
    source, and list them in errors.jsonl. If `source` is a copy of the store or the original feature file, a repaired
    shard is byte-identical to the original.

    Args:
        source: another store, a mapping of image id to regions, or a feature file.

    Raises:
        FileNotFoundError: if the folder does not exist.
        RuntimeError: if another process is writing the store.
        ValueError: if the manifest is damaged and the source is not a copy of the store.
    """
    path = Path(path)
    if not path.is_dir():
        raise MmptFileNotFoundError(f"{path} is not a folder, expected a region store")
    with take_lock(path):
        _repair_manifest(path, source)
        manifest = read_manifest(path)
        repair = Repair(find_faults(path, deep=True))
        names = {fault.file for fault in repair.faults}
        ids = None if INDEX in names or manifest["index"] is None else _index(path, manifest)
        start = 0
        for number, entry in enumerate(manifest["shards"]):
            rows = entry["rows"]
            if entry["file"] in names:
                expected = None if ids is None else [ids.id_of(row) for row in range(start, start + rows)]
                manifest["shards"][number] = _write_again(path, manifest, entry, expected, source, repair)
            start += rows
        if repair.faults:
            _note(path, manifest, repair, errors_damaged=ERRORS in names)
    (path / LOCK).unlink(missing_ok=True)
    return repair


def _repair_manifest(path: Path, source: Any) -> None:
    try:
        read_manifest(path)
        fault = manifest_fault(path)
    except (ValueError, FileNotFoundError) as error:
        fault = str(error)
    if fault is None:
        return
    files = {file.name for file in path.glob("shard-*.arrow")}
    if not isinstance(source, RegionStore) or {entry["file"] for entry in source.manifest["shards"]} != files:
        raise MmptValueError(f"{path}: {fault}. Only a copy of the store can repair a manifest: --source COPY")
    shutil.copyfile(source.path / MANIFEST, path / f"{MANIFEST}.tmp")
    publish(path / f"{MANIFEST}.tmp", path / MANIFEST)


def _index(path: Path, manifest: dict[str, Any]) -> IdIndex:
    rows = sum(entry["rows"] for entry in manifest["shards"])
    return IdIndex.read(checked_size(path, manifest["index"]), rows)


def _write_again(
    path: Path,
    manifest: dict[str, Any],
    entry: dict[str, Any],
    expected: list[str] | None,
    source: Mapping[str, Regions] | RegionSource | None,
    repair: Repair,
) -> dict[str, Any]:
    """Rewrite one shard and return its manifest entry."""
    good = _good_rows(path / entry["file"])
    if expected is None:  # the index is lost too, so only the readable rows are known
        wanted: list[str] = list(good)
        repair.dropped.extend([None] * (entry["rows"] - len(good)))
    else:
        wanted = expected
    found = _from_source(source, {image_id for image_id in wanted if image_id not in good})
    scratch = path / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    writer = RegionStoreWriter(
        scratch,
        extractor=manifest["extractor"],
        class_names=manifest["class_names"],
        shard_bytes=manifest["shard_bytes"] or SHARD_BYTES,
    )
    with writer:
        for image_id in wanted:
            value = good.get(image_id, found.get(image_id))
            if value is None:
                repair.dropped.append(image_id)
                continue
            if isinstance(value, Regions):
                _check_width(value, manifest, image_id)
                writer.add(value, close_full_shard=False)
            else:
                writer.add_row(value, manifest, close_full_shard=False)
            if image_id not in good:
                repair.mended.append(image_id)
        rows = len(writer)
        writer.finish_shard()
        writer.abandon()
    shard = scratch / "shard-00000.arrow"
    if not rows:
        with shard.open("wb") as file:
            pa.ipc.new_stream(file, SCHEMA).close()
    publish(shard, path / entry["file"])
    shutil.rmtree(scratch)
    return file_entry(path / entry["file"], rows)


def _good_rows(file: Path) -> dict[str, dict[str, Any]]:
    """Return image id -> row for the readable rows of a shard whose CRC matches."""
    try:
        batches: list[ShardBatch] = read_batches(file) if file.is_file() else []
    except ValueError:
        return {}
    rows = {}
    for batch in batches:
        damaged = set(batch.damaged_rows())
        for row in range(len(batch)):
            if row not in damaged:
                rows[batch.ids[row].as_py()] = batch.row(row)
    return rows


def _from_source(source: Mapping[str, Regions] | RegionSource | None, wanted: set[str]) -> dict[str, Any]:
    if source is None or not wanted:
        return {}
    if isinstance(source, RegionStore):
        return {image_id: source.raw_row(image_id) for image_id in wanted if image_id in source}
    if isinstance(source, Mapping):
        return {image_id: source[image_id] for image_id in wanted if image_id in source}
    items = (item for group in source.groups(0) for item in group if isinstance(item, Found))
    return {str(item.regions.image_id): item.regions for item in items if item.regions.image_id in wanted}


def _check_width(regions: Regions, manifest: dict[str, Any], image_id: str) -> None:
    if regions.feature_dim != manifest["feature_dim"]:
        raise MmptValueError(
            f"the source has features of dimension {regions.feature_dim} for image {image_id!r}, the store has "
            f"{manifest['feature_dim']}; give the source that the store was made from"
        )


def _note(path: Path, manifest: dict[str, Any], repair: Repair, *, errors_damaged: bool) -> None:
    """Rewrite errors.jsonl, index and manifest."""
    errors = path / ERRORS
    lines = errors.read_text(encoding="utf-8", errors="replace").splitlines() if errors.exists() else []
    if errors_damaged:
        lines = [line for line in lines if _is_json(line)]
    for image_id in repair.dropped:
        row = {"position": None, "where": str(path), "image_id": image_id, "reason": "damaged, dropped by a repair"}
        lines.append(json.dumps(row))
    if lines:
        errors.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    index = IdIndex.build(batch.ids for entry in manifest["shards"] for batch in open_shard(path, entry))
    complete = manifest["complete"]
    if complete:
        index.write(path / INDEX)
    write_manifest(
        path,
        {name: manifest[name] for name in FACTS},
        origin=manifest["origin"],
        complete=complete,
        shard_bytes=manifest["shard_bytes"],
        index=file_entry(path / INDEX, len(index)) if complete else None,
        errors=file_entry(errors, len(lines)) if lines and complete else None,
        shards=manifest["shards"],
        **({} if complete else {"position": manifest["position"]}),
    )


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
