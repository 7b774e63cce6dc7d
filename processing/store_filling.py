"""Filling a region store from a source: what is bad is noted, and an interrupted run goes on where it ended."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpt.configuration.errors import MmptFileExistsError, MmptOSError, MmptValueError
from mmpt.processing.region_source import Found, RegionSource, Rejected
from mmpt.processing.region_store import RegionStore
from mmpt.processing.region_store_format import ERRORS, MANIFEST, canonical_json, publish, read_manifest
from mmpt.processing.region_store_writer import SHARD_BYTES, RegionStoreWriter


@dataclass(frozen=True)
class FillReport:
    """What filling a store came to.

    Args:
        images: images in the store.
        rejected: positions of the source that are not in it; errors.jsonl has their reasons.
        resumed_at: positions that were there from an interrupted run.
    """

    images: int
    rejected: int
    resumed_at: int = 0


def fill_store(
    path: str | Path,
    source: RegionSource,
    *,
    shard_bytes: int = SHARD_BYTES,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FillReport:
    """Write the regions of a source into a store, going on where an interrupted run of the same source ended.

    A position that gives no regions, or regions that no store may hold, becomes a row of errors.jsonl. A store that is
    complete already is left as it is.

    Args:
        shard_bytes: a shard ends with the group in which it reaches this size.
        strict: stop at the first bad position.
        progress: told the number of positions that are done, after each group.

    Raises:
        FileExistsError: if the folder holds a complete store of something else.
        OSError: if the disk is full; the shards before are complete.
        ValueError: if `strict` and a position is bad, or if every one is.
    """
    path = Path(path)
    if (report := _complete_already(path, source)) is not None:
        return report
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
            f"first {writer.position} positions are safe; free some space and run the same again to go on",
        ) from error
    return FillReport(len(writer), errors.count, resumed_at)


def _complete_already(path: Path, source: RegionSource) -> FillReport | None:
    if not (path / MANIFEST).exists() or not read_manifest(path)["complete"]:
        return None
    store = RegionStore.open(path)
    now = {"extractor": dict(source.extractor), "origin": dict(source.origin)}
    there = {"extractor": store.extractor, "origin": store.manifest["origin"]}
    if canonical_json(now) != canonical_json(there):
        raise MmptFileExistsError(
            f"{path} holds a region store of {there}, this would be one of {now}; give another folder"
        )
    rejected = store.manifest["errors"]["rows"] if store.manifest["errors"] else 0
    return FillReport(len(store), rejected, len(store) + rejected)


def _add(writer: RegionStoreWriter, item: Found | Rejected) -> Rejected | None:
    if isinstance(item, Rejected):
        return item
    try:
        writer.add(item.regions, close_full_shard=False)
    except ValueError as error:
        return Rejected(item.where, str(error), item.regions.image_id)
    return None


class _ErrorLog:
    """errors.jsonl, with the rows of an interrupted run up to where it is gone on with."""

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
        """Note a position and why it gave nothing."""
        row = {"position": position, "where": rejected.where, "image_id": rejected.image_id, "reason": rejected.reason}
        self._lines.append(json.dumps(row) + "\n")  # in ASCII: an id may hold what UTF-8 cannot
        self.count += 1
        self.first = self.first or f"{rejected.where}: {rejected.reason}"

    def save(self) -> None:
        """Write what is new, and make sure that it is on the disk."""
        if not self._lines:
            return
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(self._lines)
            file.flush()
            os.fsync(file.fileno())
        self._lines = []
