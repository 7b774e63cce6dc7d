"""Merge region stores by copying their shards unchanged into a new store."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptFileExistsError, MmptValueError
from mmpt.processing.store.format import (
    ERRORS,
    FACTS,
    INDEX,
    LOCK,
    MANIFEST,
    file_entry,
    listed,
    publish,
    shard_name,
    write_manifest,
)
from mmpt.processing.store.index import IdIndex
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.writer import take_lock

BLOCK = 1 << 22


def merge_stores(paths: Sequence[str | Path], out: str | Path) -> RegionStore:
    """Copy complete stores of one extractor into a new one, in the given order.

    Raises:
        FileExistsError: if `out` already holds a store.
        ValueError: if a store is not complete, is damaged, or differs from the first in extractor, classes, feature
            dimension or optional arrays; if an image is in two stores.
    """
    stores = [RegionStore.open(path) for path in paths]
    if not stores:
        raise MmptValueError("got no store to merge, expected at least one")
    _check(stores)
    index = IdIndex.build(batch.ids for store in stores for batch in store.batches())
    if again := index.duplicates():
        first = ", ".join(map(repr, again[:5]))
        raise MmptValueError(
            f"{len(again)} images are in more than one of the stores, {first}; expected each image once"
        )
    out = Path(out)
    lock = take_lock(out)
    with lock:
        if (out / MANIFEST).exists():
            raise MmptFileExistsError(f"{out} already holds a region store; give another folder, or delete this one")
        for file in out.glob("shard-*"):  # left by an interrupted merge
            file.unlink()
        shards: list[dict[str, Any]] = []
        for store in stores:
            for entry in store.manifest["shards"]:
                shards.append(copy_shard(store.path, entry, out, len(shards)))
        index.write(out / INDEX)
        write_manifest(
            out,
            {name: stores[0].manifest[name] for name in FACTS},
            origin={"merged": [store.manifest["origin"] for store in stores]},
            complete=True,
            shard_bytes=stores[0].manifest["shard_bytes"],
            index=file_entry(out / INDEX, len(index)),
            errors=_join_errors(stores, out),
            shards=shards,
        )
    (out / LOCK).unlink(missing_ok=True)
    return RegionStore.open(out)


def _check(stores: list[RegionStore]) -> None:
    first = stores[0]
    for store in stores:
        if not store.complete:
            raise MmptValueError(f"{store.path} is not complete: writing was interrupted; finish it before merging")
        for name in FACTS:
            if store.manifest[name] != first.manifest[name]:
                raise MmptValueError(
                    f"{store.path} has {name} {store.manifest[name]!r:.200}, expected {first.manifest[name]!r:.200} as "
                    f"in {first.path}; one store holds one extractor's features"
                )
        if store.arrays != first.arrays:
            raise MmptValueError(
                f"{store.path} has {listed(store.arrays)}, expected {listed(first.arrays)} as in {first.path}"
            )


def copy_shard(source: Path, entry: dict[str, Any], out: Path, number: int) -> dict[str, Any]:
    """Copy a shard, check its checksum while copying, and return its manifest entry under the new number."""
    name = shard_name(number)
    temporary, digest = out / f"{name}.tmp", hashlib.sha256()
    with (source / entry["file"]).open("rb") as reader, temporary.open("wb") as writer:
        while block := reader.read(BLOCK):
            digest.update(block)
            writer.write(block)
    if digest.hexdigest() != entry["sha256"]:
        temporary.unlink()
        raise MmptValueError(
            f"{source / entry['file']} is damaged: its sha256 does not match; run `mmpt validate --repair`"
        )
    publish(temporary, out / name)
    return {**entry, "file": name}


def _join_errors(stores: list[RegionStore], out: Path) -> dict[str, Any] | None:
    rows = 0
    (out / ERRORS).unlink(missing_ok=True)
    for store in stores:
        if store.manifest["errors"]:
            rows += store.manifest["errors"]["rows"]
            with (out / ERRORS).open("ab") as file:
                file.write((store.path / ERRORS).read_bytes())
    return file_entry(out / ERRORS, rows) if rows else None
