"""Complete checkpoints: how one is marked, found and refused."""

import json
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

MARKER = "complete.json"


def mark_complete(folder: Path) -> None:
    """Write, last and atomically, the names and sizes of all files of a checkpoint."""
    sizes = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(MARKER)
    }
    temporary = folder / f"{MARKER}.tmp"
    with temporary.open("w") as file:
        json.dump(sizes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MARKER)


def why_incomplete(folder: Path) -> str | None:
    """Return what a checkpoint lacks, or None if it is complete."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    marker = folder / MARKER
    if not marker.exists():
        return f"{folder} has no {MARKER}: saving it was interrupted"
    try:
        sizes = json.loads(marker.read_text())
    except ValueError:
        return f"{marker} cannot be read"
    for name, size in sizes.items():
        path = folder / name
        if not path.exists():
            return f"{folder} lacks {name}"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes, expected {size}"
    return None


def unmark(output_dir: Path) -> None:
    """Take the marker from every checkpoint of an earlier run: a new run in its folder never resumes from them."""
    for marker in sorted(output_dir.glob(f"checkpoint-*/{MARKER}")):
        logger.warning("%s is from an earlier run, and is not resumed from any more", marker.parent)
        marker.unlink()


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest complete `checkpoint-<step>` of a run, passing over incomplete ones with a warning."""
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        reason = why_incomplete(folder)
        if reason is None:
            return folder
        logger.warning("passing over an incomplete checkpoint: %s", reason)
    return None
