"""Add to a complete store the images that were added to its source, or repaired there, since it was written.

New images are written into a separate store in the subfolder `update`, which is joined to the store when complete.
Both steps can be interrupted at any point; the next run resumes.
"""

import json
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmpt.configuration.errors import MmptValueError
from mmpt.processing.store.format import (
    ERRORS,
    FACTS,
    INDEX,
    MANIFEST,
    file_entry,
    listed,
    open_shard,
    publish,
    read_manifest,
    write_manifest,
)
from mmpt.processing.store.index import IdIndex
from mmpt.processing.store.merge import copy_shard
from mmpt.processing.store.region_store import RegionStore
from mmpt.processing.store.source import Found, RegionSource, Rejected

UPDATE = "update"
_JOIN = "join.json"  # exists in UPDATE once its store is complete and ready to join
# Keys of an origin that change when images or rows are added to the same folder or file.
_CHANGING = {
    *("total", "ids_sha256", "bytes", "entries", "files", "names_crc32", "shards_crc32", "index_crc32", "predictions"),
    *("sizes", "rows"),
}

Position = tuple[int, Found | Rejected]


@runtime_checkable
class ListedSource(Protocol):
    """A region source that knows its image ids without reading the images."""

    @property
    def ids(self) -> Sequence[str | None]:
        """The image's id at each position; None where it is not known."""
        ...

    def read(self, numbers: Sequence[int]) -> Iterator[list[Found | Rejected]]:
        """Yield only these positions, in groups as `groups` does."""
        ...


@dataclass
class MissingImages:
    """The positions of a source whose image a store lacks, as a region source.

    Args:
        numbers: numbers of these positions in the source, as far as they have been read.
    """

    source: RegionSource
    store: RegionStore
    numbers: list[int] = field(default_factory=list)

    @property
    def extractor(self) -> Mapping[str, Any]:
        """Extractor of the source."""
        return self.source.extractor

    @property
    def class_names(self) -> Sequence[str] | None:
        """Class names of the source."""
        return self.source.class_names

    @property
    def origin(self) -> Mapping[str, Any]:
        """Origin of the source, and the number of images in the store."""
        return {"update": dict(self.source.origin), "images": len(self.store)}

    @property
    def total(self) -> int | None:
        """None, because the number is unknown before the source is read."""
        return None

    def groups(self, start: int) -> Iterator[list[Found | Rejected]]:
        """Yield the positions from the `start`-th missing one on."""
        self.numbers.clear()
        if isinstance(self.source, ListedSource):
            ids = enumerate(self.source.ids)
            self.numbers.extend(number for number, each in ids if each is None or each not in self.store)
            yield from self.source.read(self.numbers[start:])
            return
        for group in _missing(self.source, self.store):
            before = len(self.numbers)
            self.numbers.extend(number for number, _ in group)
            rest = [item for _, item in group[max(0, start - before) :]]
            if rest:
                yield rest


def _missing(source: RegionSource, there: Container[str]) -> Iterator[list[Position]]:
    """Yield the positions missing from a store by reading the whole source; duplicate images are rejected again."""
    seen: set[str] = set()
    number = 0
    for group in source.groups(0):
        kept: list[Position] = []
        for item in group:
            image_id = item.regions.image_id if isinstance(item, Found) else item.image_id
            if image_id is not None and image_id in there:
                if image_id in seen and isinstance(item, Found):
                    reason = f"image {image_id!r} was added before, expected each image once"
                    kept.append((number, Rejected(item.where, reason, image_id)))
                seen.add(image_id)
            else:
                kept.append((number, item))
            number += 1
        if kept:
            yield kept


def is_same_source(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two origins are the same folder or file, ignoring images that were added to it."""
    parts = now.get("shard", [0, 1])
    fixed = [{key: value for key, value in origin.items() if key not in _CHANGING} for origin in (before, now)]
    return fixed[0] == fixed[1] and list(parts) == [0, 1]


def new_errors(missing: MissingImages, path: Path) -> list[dict[str, Any]]:
    """Return the errors of an `update` store with position numbers of the original source."""
    return [{**row, "position": missing.numbers[row["position"]]} for row in read_errors(path)]


def read_errors(path: Path) -> list[dict[str, Any]]:
    """Return the rows of errors.jsonl, or an empty list if the file does not exist."""
    file = path / ERRORS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def begin_join(path: Path, origin: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> None:
    """Mark the folder `update` as ready to join, with the origin and errors that the joined store will have."""
    (path / UPDATE).mkdir(exist_ok=True)
    temporary = path / UPDATE / f"{_JOIN}.tmp"
    temporary.write_text(json.dumps({"origin": dict(origin), "errors": list(errors)}), encoding="utf-8")
    publish(temporary, path / UPDATE / _JOIN)


def finish_join(path: Path) -> None:
    """Join the folder `update` to the store if it is complete; the caller must hold the lock of the store.

    An interrupted join is repeated.

    Raises:
        ValueError: if the new images differ from those of the store in extractor, classes or arrays.
    """
    note = path / UPDATE / _JOIN
    if not note.is_file():
        return
    wanted = json.loads(note.read_text(encoding="utf-8"))
    manifest = read_manifest(path)
    if manifest["origin"] == wanted["origin"] and manifest["complete"] and not _is_new(path, manifest):
        shutil.rmtree(path / UPDATE)  # already joined; only the folder was left
        return
    facts = {name: manifest[name] for name in FACTS}
    shards = list(manifest["shards"])
    more = RegionStore.open(path / UPDATE) if (path / UPDATE / MANIFEST).exists() else None
    if more is not None:
        _check_fits(path, manifest, more)
    rest = {"origin": wanted["origin"], "shard_bytes": manifest["shard_bytes"]}
    write_manifest(path, facts, **rest, complete=False, index=None, errors=None, shards=shards, position=_rows(shards))
    added = [] if more is None else more.manifest["shards"]
    shards += [copy_shard(path / UPDATE, entry, path, number) for number, entry in enumerate(added, len(shards))]
    index = IdIndex.build(batch.ids for entry in shards for batch in open_shard(path, entry))
    index.write(path / INDEX)
    write_errors(path, wanted["errors"])
    rest["errors"] = file_entry(path / ERRORS, len(wanted["errors"])) if wanted["errors"] else None
    write_manifest(path, facts, **rest, complete=True, index=file_entry(path / INDEX, len(index)), shards=shards)
    shutil.rmtree(path / UPDATE)


def write_errors(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write errors.jsonl, or remove it if there are no rows."""
    if not rows:
        (path / ERRORS).unlink(missing_ok=True)
        return
    temporary = path / f"{ERRORS}.tmp"
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
    publish(temporary, path / ERRORS)


def _is_new(path: Path, manifest: Mapping[str, Any]) -> bool:
    """Return whether the folder `update` was made for the current state of the store."""
    file = path / UPDATE / MANIFEST
    return not file.exists() or read_manifest(path / UPDATE)["origin"]["images"] == _rows(manifest["shards"])


def _rows(shards: Sequence[Mapping[str, Any]]) -> int:
    return sum(entry["rows"] for entry in shards)


def _check_fits(path: Path, manifest: Mapping[str, Any], more: RegionStore) -> None:
    """Raise if new images differ from those of the store in a shared property."""
    before = {name: manifest[name] for name in FACTS}
    now = {name: more.manifest[name] for name in FACTS}
    if manifest["complete"]:
        before["arrays"], now["arrays"] = listed(RegionStore.open(path).arrays), listed(more.arrays)
    for name, value in before.items():
        if value != now[name]:
            shutil.rmtree(path / UPDATE)
            raise MmptValueError(
                f"{path} has {name} {value!r:.200}, the new images have {now[name]!r:.200}, expected the same; write "
                "them into another folder"
            )
