"""Find damaged or missing files of a region store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.processing.store.format import (
    MANIFEST,
    checked_size,
    manifest_fault,
    open_shard,
    read_manifest,
    sha256,
)


@dataclass(frozen=True)
class Fault:
    """A damaged or missing file of a store.

    Args:
        file: name of the file.
        text: what is wrong with it.
    """

    file: str
    text: str

    def __str__(self) -> str:
        return self.text


def find_faults(path: Path, *, deep: bool) -> list[Fault]:
    """Return the files that are missing or have a wrong size and, if `deep`, those whose checksum does not match.

    Raises:
        FileNotFoundError: if the folder holds no store.
        ValueError: if the manifest cannot be read.
    """
    manifest = read_manifest(path)
    faults = []
    if deep and (text := manifest_fault(path)):
        faults.append(Fault(MANIFEST, text))
    for entry in manifest["shards"]:
        if text := _fault(path, entry, deep):
            damaged = f"; {_damaged_images(path, entry)}" if "sha256" in text else ""
            faults.append(Fault(entry["file"], text + damaged))
    for entry in (manifest["index"], manifest["errors"]):
        if entry is not None and (text := _fault(path, entry, deep)):
            faults.append(Fault(entry["file"], text))
    return faults


def _fault(path: Path, entry: dict[str, Any], deep: bool) -> str | None:
    try:
        file = checked_size(path, entry)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    if deep and (found := sha256(file)) != entry["sha256"]:
        return f"{file.name}: sha256 is {found[:12]}, expected {entry['sha256'][:12]}"
    return None


def _damaged_images(path: Path, entry: dict[str, Any]) -> str:
    """Describe the rows of a shard whose CRC does not match."""
    try:
        batches = open_shard(path, entry)
    except ValueError as error:
        return f"it cannot be read ({error})"
    ids = [repr(batch.ids[row].as_py()) for batch in batches for row in batch.damaged_rows()]
    return f"{len(ids)} of {entry['rows']} images are damaged" + (f": {', '.join(ids[:5])}" if ids else "")
