"""The curves of a run: losses and metrics by name, drawn from its log."""

import json
import logging
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.objectives import OBJECTIVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

Series = dict[str, dict[int, float]]
"""Where a number was measured ("train", "eval", "eval <set>") -> step -> number."""

# Longest first: mrc_kl_loss is not the kl_loss of mrc.
_NAMES = "|".join(sorted(OBJECTIVES, key=len, reverse=True))
_KEY = re.compile(rf"(?P<eval>eval_)?(?:(?P<set>\w+?)_)?(?P<objective>{_NAMES})_(?P<metric>\w+)")
# By which downstream tasks are judged; a run of one has no objectives.
_TASK_METRICS = (
    *("vqa_accuracy", "accuracy", "balanced_accuracy", "consistency", "grounding_accuracy", "phrase_recall_at_1"),
    *("text_to_image_recall_at_1", "image_to_text_recall_at_1"),
)
_TRAIN_COLOUR, _EVAL_COLOURS = "#4477AA", ("#CC3311", "#228833", "#AA3377", "#CCBB44")
_SMOOTH_FROM = 40  # points from which a train line is drawn faint, below its moving average
_COLUMNS = 3


def warn_without_matplotlib() -> None:
    """Warn that no curves will be drawn where matplotlib is not installed; a run calls it before it trains."""
    if find_spec("matplotlib") is None:
        logger.warning("no curves will be drawn, because matplotlib is not installed: pip install 'mmpt[plots]'")


def plot_curves(log_path: Path, png: Path) -> bool:
    """Draw a panel for each loss and each metric of a run's log.

    Args:
        log_path: JSON lines, one a log event with "step" and numbers like "loss", "mlm_loss", "eval_itm_accuracy".
        png: file to write.

    Returns:
        Whether it was drawn; False where matplotlib is not installed (see `warn_without_matplotlib`).

    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if no event of the log has a loss, or a line before the last is not JSON.
    """
    events = _read(log_path)
    panels = _panels(events)
    if not panels:
        raise MmptValueError(
            f"{log_path} has no loss in {len(events)} events, expected keys like mlm_loss; did the run log?"
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(12, 0.5 + 2.9 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)  # Agg without pyplot: no display, no global state
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, (key, series) in zip(grid, panels.items(), strict=False):
        _draw(axes, key, series)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(png)
    return True


def _read(log_path: Path) -> list[dict[str, Any]]:
    events = []
    lines = log_path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise MmptValueError(f"{log_path}, line {number} is not JSON: {error}") from None
            logger.warning("%s ends in the middle of an event; it was left out", log_path)
    return events


def _panels(events: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Series]:
    """Return (objective, metric) -> series, in drawing order; ("", "loss") is the total loss."""
    found: dict[tuple[str, str], Series] = {}
    for event in events:
        for key, value in event.items():
            place = _place(key)
            if place is None or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            objective, metric, where = place
            # A run that went on from a checkpoint logs some steps again; the later number holds.
            found.setdefault((objective, metric), {}).setdefault(where, {})[event["step"]] = value
    order = ["", *OBJECTIVES]
    return dict(sorted(found.items(), key=lambda item: (item[0][1] != "loss", order.index(item[0][0]), item[0][1])))


def _place(key: str) -> tuple[str, str, str] | None:
    """Return (objective, metric, where it was measured) of a key of the log, or None if it is neither."""
    if key in ("loss", "eval_loss"):
        return "", "loss", "eval" if key == "eval_loss" else "train"
    if key.startswith("eval_") and key.removeprefix("eval_") in _TASK_METRICS:
        return "", key.removeprefix("eval_"), "eval"
    match = _KEY.fullmatch(key)
    if match is None or match["metric"] == "count" or (match["set"] and not match["eval"]):
        return None
    where = " ".join(filter(None, ("eval", match["set"]))) if match["eval"] else "train"
    return match["objective"], match["metric"], where


def _draw(axes: "Axes", key: tuple[str, str], series: Series) -> None:
    objective, metric = key
    if metric == "loss":
        title, unit = "total loss", "weighted sum of the losses"
        if objective:
            title, unit = OBJECTIVES[objective].title, OBJECTIVES[objective].unit
        title = f"{title[0].upper()}{title[1:]}"
    else:
        title = f"{objective.upper().replace('_', '-')} {metric.replace('_', ' ')}".strip()
        unit = "share right" if metric.endswith("accuracy") else metric.replace("_", " ")
    if train := series.get("train"):
        steps, values = zip(*sorted(train.items()), strict=True)
        smooth = len(steps) >= _SMOOTH_FROM
        axes.plot(steps, values, color=_TRAIN_COLOUR, alpha=0.4 if smooth else 1, lw=1 if smooth else 1.6,
                  label=None if smooth else "train")  # fmt: skip
        if smooth:
            axes.plot(steps, _moving_average(values), color=_TRAIN_COLOUR, lw=1.8, label="train (moving average)")
    evaluations = sorted(where for where in series if where != "train")
    for number, where in enumerate(evaluations):
        colour = _EVAL_COLOURS[number % len(_EVAL_COLOURS)]
        steps, values = zip(*sorted(series[where].items()), strict=True)
        axes.plot(steps, values, "o", color=colour, ms=5, mec="white", mew=0.8, label=f"{where}, last {values[-1]:.3g}")
    if key == ("itm", "accuracy"):
        axes.axhline(0.5, color="#888888", lw=1, ls=":", label="guessing")
    if metric != "loss" and all(0 <= value <= 1 for points in series.values() for value in points.values()):
        axes.set_ylim(-0.02, 1.05)  # a share: panels are compared at a glance
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e5e5e5", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _moving_average(values: Sequence[float]) -> list[float]:
    """Return the mean of the values around each one, over a twentieth of the run."""
    half = max(1, len(values) // 40)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]
