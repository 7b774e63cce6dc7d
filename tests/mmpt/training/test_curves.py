"""Curves of a run's log."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from mmpt.training.curves import _moving_average, _panels, plot_curves

TRAIN = {
    "step": 10,
    "epoch": 0.1,
    "loss": 3.0,
    "mlm_loss": 2.0,
    "mlm_count": 9,
    "mlm_accuracy": 0.5,
    "mrc_kl_loss": 1.0,
}
EVALUATION = {"step": 10, "eval_loss": 2.5, "eval_mlm_loss": 1.5, "eval_held_out_itm_accuracy": 0.7}


def write(path: Path, *events: Mapping[str, float]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_panels_are_losses_then_metrics_by_objective() -> None:
    panels = _panels([TRAIN, EVALUATION])
    assert list(panels) == [("", "loss"), ("mlm", "loss"), ("mrc_kl", "loss"), ("mlm", "accuracy"), ("itm", "accuracy")]
    assert panels["mlm", "loss"] == {"train": {10: 2.0}, "eval": {10: 1.5}}
    assert panels["itm", "accuracy"] == {"eval held_out": {10: 0.7}}


def test_resumed_run_replaces_the_steps_that_it_repeats() -> None:
    events = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 2, "loss": 3.0}]
    assert _panels(events)["", "loss"] == {"train": {1: 5.0, 2: 3.0}}


def test_number_that_is_not_finite_is_not_drawn() -> None:
    assert _panels([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}])["", "loss"] == {"train": {2: 1.0}}


def test_moving_average_of_a_line_is_the_line() -> None:
    line = [float(i) for i in range(100)]
    assert _moving_average(line)[2:-2] == pytest.approx(line[2:-2])


def test_figure_is_1200_pixels_wide(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    steps = [TRAIN | {"step": step} for step in range(1, 60)]
    log = write(tmp_path / "log.jsonl", *steps, EVALUATION)
    assert plot_curves(log, tmp_path / "curves.png") is True
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width == 1200
        assert len(image.getcolors(maxcolors=2**24) or []) > 10


def test_missing_matplotlib_is_a_hint_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot_curves(write(tmp_path / "log.jsonl", TRAIN), tmp_path / "curves.png") is False
    assert not (tmp_path / "curves.png").exists()


def test_log_without_a_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no loss in 1 events, expected keys like mlm_loss"):
        plot_curves(write(tmp_path / "log.jsonl", {"step": 1, "learning_rate": 0.1}), tmp_path / "curves.png")


def test_half_written_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    log = write(tmp_path / "log.jsonl", TRAIN)
    log.write_text(log.read_text() + '{"step": 20, "lo')
    with caplog.at_level(logging.WARNING, logger="mmpt.training.curves"):
        assert plot_curves(log, tmp_path / "curves.png") is True
    assert "ends in the middle of an event" in caplog.text


def test_broken_line_inside_the_log_is_refused(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", TRAIN)
    log.write_text("nonsense\n" + log.read_text())
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        plot_curves(log, tmp_path / "curves.png")
