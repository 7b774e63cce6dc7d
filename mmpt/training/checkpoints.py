"""Complete checkpoints: how one is marked, found and refused."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from mmpt.processing.store.format import sha256

logger = logging.getLogger(__name__)

MARKER = "complete.json"


def mark_complete(folder: Path) -> None:
    """Write, last and atomically, the size and digest of every file of a checkpoint."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in _files_of(folder)
    }
    temporary = folder / f"{MARKER}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(_marker_text(files))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MARKER)


def why_incomplete(folder: Path) -> str | None:
    """Return what is missing from a checkpoint or damaged in it, or None if it is as it was written.

    A marker of version 0.1.0 has sizes and no digests: of such a checkpoint the sizes are compared, with a warning.
    """
    if not folder.is_dir():
        return f"{folder} is not a folder"
    try:
        return _why_damaged(folder)
    except OSError as error:
        return f"{folder} cannot be read ({error})"


def unmark(output_dir: Path) -> None:
    """Take the marker from every checkpoint of an earlier run: a new run in its folder never resumes from them."""
    for marker in sorted(output_dir.glob(f"checkpoint-*/{MARKER}")):
        logger.warning("%s is from an earlier run, and is not resumed from any more", marker.parent)
        marker.unlink()


def checkpoints_of(output_dir: Path) -> list[Path]:
    """Return the folders `checkpoint-<step>` of a run, complete or not, the newest first."""
    folders = [path for path in output_dir.glob("checkpoint-*") if path.is_dir() and step_of(path) is not None]
    return sorted(folders, key=lambda path: step_of(path) or 0, reverse=True)


def step_of(folder: Path) -> int | None:
    """Return the step of a folder `checkpoint-<step>`, or None if it has another name."""
    prefix, _, step = folder.name.rpartition("-")
    return int(step) if prefix == "checkpoint" and step.isascii() and step.isdigit() else None


def processes_of(folder: Path) -> int:
    """Return how many processes wrote a checkpoint: each saves its random state."""
    return max(len(list(folder.glob("rng_state_*.pth"))), 1)


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest complete checkpoint of a run; warn of each damaged or incomplete one that is skipped."""
    for folder in checkpoints_of(output_dir):
        reason = why_incomplete(folder)
        if reason is None:
            return folder
        logger.warning("passing over an incomplete checkpoint: %s", reason)
    return None


def _why_damaged(folder: Path) -> str | None:
    marker = folder / MARKER
    if not marker.exists():
        return f"{folder} has no {MARKER}: saving it was interrupted"
    files = _read_marker(marker)
    if files is None:
        return f"{marker} is damaged"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{folder} lacks {name}"
        if path.stat().st_size != expected["size"]:
            return f"{path} has {path.stat().st_size} bytes, expected {expected['size']}"
    unknown = next((path for path in _files_of(folder) if str(path.relative_to(folder)) not in files), None)
    if unknown is not None:
        return f"{unknown} was not there when the checkpoint was saved"
    if not all("sha256" in expected for expected in files.values()):
        logger.warning(
            "%s was saved by version 0.1.0, without digests: only the sizes of its files were checked", folder
        )
        return None
    damaged = next((name for name, expected in files.items() if sha256(folder / name) != expected["sha256"]), None)
    return None if damaged is None else f"{folder / damaged} is damaged: its digest is not the one that was saved"


def _files_of(folder: Path) -> list[Path]:
    """Return the files that count: not the marker, and nothing that a system or an interpreter leaves behind."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if path.is_file() and parts[0] not in (MARKER, f"{MARKER}.tmp"):
            found.append(path)
    return found


def _marker_text(files: dict[str, dict[str, Any]]) -> str:
    """Return the only text that a marker of these files has."""
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1)


def _read_marker(marker: Path) -> dict[str, dict[str, Any]] | None:
    """Return {name: {"size", "sha256"}}, without digests where version 0.1.0 wrote it; None if it is damaged."""
    try:
        text = marker.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not content:
        return None
    if all(type(size) is int for size in content.values()):
        return (
            {name: {"size": size} for name, size in content.items()} if text == json.dumps(content, indent=1) else None
        )
    files = content.get("files")
    if not isinstance(files, dict) or not files or not all(isinstance(each, dict) for each in files.values()):
        return None
    if any(
        {key: type(value) for key, value in each.items()} != {"size": int, "sha256": str} for each in files.values()
    ):
        return None
    return files if text == _marker_text(files) else None
