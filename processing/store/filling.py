"""Fill a region store from a source: record bad positions, and resume an interrupted run."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptFileExistsError, MmptOSError, MmptValueError
from mmpt.processing.store.format import ERRORS, LOCK, MANIFEST, canonical_json, publish, read_manifest
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.source import Found, RegionSource, Rejected
from mmpt.processing.store.update import (
    UPDATE,
    ListedSource,
    MissingImages,
    begin_join,
    finish_join,
    is_same_source,
    new_errors,
    read_errors,
)
from mmpt.processing.store.writer import SHARD_BYTES, RegionStoreWriter, take_lock


@dataclass(frozen=True)
class FillReport:
    """Counts after filling a store.

    Args:
        images: images in the store.
        rejected: positions of the source that are not in it; errors.jsonl has their reasons.
        resumed_at: positions that were there from an interrupted run.
        added: images that a complete store did not have, because they were repaired or added since.
        gone: ids in the store that its source no longer has; their regions stay.
    """

    images: int
    rejected: int
    resumed_at: int = 0
    added: int = 0
    gone: Sequence[str] = ()


def fill_store(
    path: str | Path,
    source: RegionSource,
    *,
    shard_bytes: int = SHARD_BYTES,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FillReport:
    """Write the regions of a source into a store, resuming an interrupted run of the same source.

    A position without valid regions becomes a row of errors.jsonl. If the store is already complete, only the images
    that it lacks are added: those that are new in the folder or file, and rejected ones that have been repaired.

    Args:
        shard_bytes: size in bytes after which a shard ends, with the group in which it is reached.
        strict: stop at the first bad position.
        progress: called after each group with the number of positions processed.

    Raises:
        FileExistsError: if the folder holds a store of another source or extractor.
        OSError: if the disk is full; shards finished before stay complete.
        ValueError: if every position is bad or, with `strict`, if one is.
    """
    path = Path(path)
    options: dict[str, Any] = {"shard_bytes": shard_bytes, "strict": strict, "progress": progress}
    if not (path / MANIFEST).exists():
        return _fill(path, source, **options)
    if (path / UPDATE).exists():
        with take_lock(path):
            finish_join(path)
        (path / LOCK).unlink(missing_ok=True)
    manifest = read_manifest(path)
    _check_same_source(path, manifest, source)
    if not manifest["complete"]:
        if manifest["origin"] == _plain(source.origin):
            return _fill(path, source, **options)
        _complete_as_it_is(path, manifest)
    if manifest["origin"] == _plain(source.origin) and not read_errors(path):
        images = len(RegionStore.open(path))
        report = FillReport(images, 0, images)
    else:
        with take_lock(path):
            report = _update(path, source, options)
        (path / LOCK).unlink(missing_ok=True)
    if isinstance(source, ListedSource):
        there = set(source.ids)
        report = replace(report, gone=[each for each in RegionStore.open(path) if each not in there])
    return report


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts in the form they have in a manifest."""
    return json.loads(canonical_json(dict(facts)))


def _fill(
    path: Path,
    source: RegionSource,
    *,
    shard_bytes: int,
    strict: bool,
    progress: Callable[[int], None] | None,
    may_be_empty: bool = False,
) -> FillReport:
    """Write the regions of a source into a new store, or resume an interrupted one.

    Args:
        may_be_empty: accept a source without any regions; the result is then only errors.jsonl, without a store.
    """
    writer = RegionStoreWriter(
        path,
        extractor=source.extractor,
        class_names=source.class_names,
        origin=source.origin,
        shard_bytes=shard_bytes,
        resume=True,
    )
    position = resumed_at = writer.position
    try:
        with writer:
            errors = _ErrorLog(path / ERRORS, position)
            for group in source.groups(position):
                for item in group:
                    rejected = _add(writer, item)
                    if rejected is not None:
                        if strict:
                            raise MmptValueError(f"{rejected.where}: {rejected.reason}")
                        errors.add(position, rejected)
                    position += 1
                if writer.shard_is_full:
                    errors.save()
                    writer.finish_shard(position)
                if progress is not None:
                    progress(position)
            errors.save()
            if not len(writer) and may_be_empty:
                writer.abandon()
                return FillReport(0, errors.count, resumed_at)
            if not len(writer):
                first = f": {errors.first}" if errors.first else "; it is empty"
                raise MmptValueError(f"{path}: none of the {position} positions of the source gave regions{first}")
            writer.finish_shard(position)
            if not errors.count:
                (path / ERRORS).unlink(missing_ok=True)
            writer.close(rejected=errors.count)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(path).free
        raise MmptOSError(
            errno.ENOSPC,
            f"the disk of {path} is full: {free / 1e6:.0f} MB are free, a shard takes {shard_bytes / 1e6:.0f} MB. The "
            f"first {writer.position} positions are saved; free some space and run the same command again to continue",
        ) from error
    return FillReport(len(writer), errors.count, resumed_at)


def _check_same_source(path: Path, manifest: Mapping[str, Any], source: RegionSource) -> None:
    """Raise if the store is of another extractor or of other images."""
    before, now = manifest["extractor"], _plain(source.extractor)
    if before != now:
        names = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        made, asked = (", ".join(f"{key} {one.get(key)!r:.80}" for key in names[:4]) for one in (before, now))
        raise MmptFileExistsError(
            f"{path} holds a store made by {made}, asked for {asked}; give another folder, or delete this one"
        )
    origin = _plain(source.origin)
    if manifest["origin"] != origin and not is_same_source(manifest["origin"], origin):
        raise MmptFileExistsError(
            f"{path} holds a region store of {_described(manifest['origin'])}, this would be one of "
            f"{_described(origin)}; give another folder"
        )


def _described(origin: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r:.80}" for key, value in list(origin.items())[:4])


def _complete_as_it_is(path: Path, manifest: Mapping[str, Any]) -> None:
    """Complete an interrupted store whose source has changed since; the missing images are added afterwards."""
    writer = RegionStoreWriter(
        path,
        extractor=manifest["extractor"],
        class_names=manifest["class_names"],
        origin=manifest["origin"],
        shard_bytes=manifest["shard_bytes"],
        resume=True,
    )
    with writer:
        errors = _ErrorLog(path / ERRORS, writer.position)
        if not errors.count:
            (path / ERRORS).unlink(missing_ok=True)
        writer.close(rejected=errors.count)


def _update(path: Path, source: RegionSource, options: Mapping[str, Any]) -> FillReport:
    """Add the images of the source that a complete store lacks."""
    store = RegionStore.open(path)
    before, same = read_errors(path), store.manifest["origin"] == _plain(source.origin)
    missing = MissingImages(source, store)
    folder = path / UPDATE
    begun = read_manifest(folder) if (folder / MANIFEST).exists() else {"complete": True}
    if folder.exists() and (begun["complete"] or begun["origin"] != _plain(missing.origin)):
        shutil.rmtree(folder)
    report = _fill(folder, missing, **options, may_be_empty=True)
    errors = new_errors(missing, folder)
    if same:  # keep rows rejected for a reason outside the position itself, such as a duplicate image
        read = set(missing.numbers)
        errors = sorted(
            [*(row for row in before if row["position"] not in read), *errors], key=lambda row: row["position"]
        )
    there = len(store)
    del store
    if same and not report.images and errors == before:
        shutil.rmtree(folder)
    else:
        begin_join(path, source.origin, errors)
        finish_join(path)
    return FillReport(there + report.images, len(errors), there + len(errors), report.images)


def _add(writer: RegionStoreWriter, item: Found | Rejected) -> Rejected | None:
    if isinstance(item, Rejected):
        return item
    try:
        writer.add(item.regions, close_full_shard=False)
    except ValueError as error:
        return Rejected(item.where, str(error), item.regions.image_id)
    return None


class _ErrorLog:
    """Append to errors.jsonl, keeping the rows of an interrupted run up to the position of resuming."""

    def __init__(self, path: Path, position: int) -> None:
        self._path = path
        self._lines: list[str] = []  # not saved yet
        self.count = 0
        self.first = ""
        if not path.exists():
            return
        kept = []
        if position:
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if not line.endswith("\n") or json.loads(line)["position"] >= position:
                    break
                kept.append(line)
        temporary = path.with_name(f"{ERRORS}.tmp")
        temporary.write_text("".join(kept), encoding="utf-8", newline="\n")
        publish(temporary, path)
        self.count = len(kept)

    def add(self, position: int, rejected: Rejected) -> None:
        """Record a position and why it was rejected."""
        row = {"position": position, "where": rejected.where, "image_id": rejected.image_id, "reason": rejected.reason}
        self._lines.append(json.dumps(row) + "\n")  # ASCII, because an id may hold a lone surrogate
        self.count += 1
        self.first = self.first or f"{rejected.where}: {rejected.reason}"

    def save(self) -> None:
        """Write new rows and flush them to disk."""
        if not self._lines:
            return
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(self._lines)
            file.flush()
            os.fsync(file.fileno())
        self._lines = []
