"""Complete checkpoints: damage of every kind is noticed, and an older marker still counts."""

import json
import logging
from pathlib import Path

import pytest

from mmpt.training.checkpoints import MARKER, last_complete_checkpoint, mark_complete, processes_of, why_incomplete
from tests.runs.chaos import flip_often


def checkpoint(folder: Path, step: int = 4) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"):
        (path / name).write_bytes(name.encode() * (step + 3))
    mark_complete(path)
    return path


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    assert flip_often(checkpoint(tmp_path), 1000) == 1000


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b"7", b'"text"', b"true", b"\xff\xfe\x00", b"\0" * 600, b"[" * 100_000,
     b'{"files": {}}', b'{"files": {"model.safetensors": null}, "sha256": ""}', b'{"a": true}', b'{"files": 3}'],
)  # fmt: skip
def test_a_marker_that_is_no_marker_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = checkpoint(tmp_path)
    (path / MARKER).write_bytes(content)
    assert why_incomplete(path) == f"{path / MARKER} is damaged"


@pytest.mark.parametrize("name", ["model.safetensors", "rng_state_1.pth"])
def test_a_file_that_is_missing_zeroed_cut_or_too_many_is_named(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path)
    content = (path / name).read_bytes()
    (path / name).unlink()
    assert why_incomplete(path) == f"{path} lacks {name}"
    (path / name).write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes, expected {len(content)}" in str(why_incomplete(path))
    (path / name).write_bytes(b"\0" * len(content))
    assert "its digest is not the one that was saved" in str(why_incomplete(path))
    (path / name).write_bytes(content)
    (path / "rng_state_2.pth").write_bytes(b"")
    assert "rng_state_2.pth was not there when" in str(why_incomplete(path))
    (path / "rng_state_2.pth").unlink()
    (path / ".DS_Store").write_bytes(b"left by a system")
    assert why_incomplete(path) is None


def test_a_damaged_checkpoint_is_passed_over_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = checkpoint(tmp_path, 4), checkpoint(tmp_path, 10)
    (newer / MARKER).write_text("null")
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(tmp_path) == older
    assert f"{newer / MARKER} is damaged" in caplog.text


def test_a_marker_of_the_first_version_counts_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = checkpoint(tmp_path)
    sizes = {each.name: each.stat().st_size for each in sorted(path.iterdir()) if each.name != MARKER}
    (path / MARKER).write_text(json.dumps(sizes, indent=1))
    with caplog.at_level(logging.WARNING):
        assert why_incomplete(path) is None
    assert "without digests" in caplog.text
    (path / "optimizer.pt").write_bytes(b"")
    assert "has 0 bytes" in str(why_incomplete(path))


def test_the_processes_of_a_checkpoint_are_counted(tmp_path: Path) -> None:
    assert processes_of(checkpoint(tmp_path)) == 2
    (tmp_path / "one").mkdir()
    assert processes_of(tmp_path / "one") == 1
