"""What a run tells the person who started it: what begins, a line a log step, what came out and what to do next."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from mmpt import __version__
from mmpt.commands.progress import duration
from mmpt.hub.measures import Headline
from mmpt.hub.model_card import Rows
from mmpt.processing.pairs.checks import find_leakage
from mmpt.recipe.recipe import Recipe

_UNTOLD = ("_count", "_total", "_low", "_high", "_runtime", "_per_second", "total_flos")
"""Ends of the names of an event that log.jsonl has, and a line on the screen does not."""


def opening(recipe: Recipe, trainer: Any, tables: Sequence[Rows], checkpoint: Path | None) -> str:
    """Return what is said of a run before its first step."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    source = recipe.model.from_pretrained
    weights = "new weights" if source is None else f"weights from {source}"
    rows = ", ".join(f"{len(table.texts):,} for {table.role}" for table in tables)
    length = f"{args.max_steps:,} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    processes = "" if args.world_size == 1 else f", {args.world_size} processes"
    lines = [
        f"mmpt {__version__}: {recipe.command}",
        f"model: {type(model).__name__}, {model.num_parameters():,} parameters, {weights}",
        f"rows: {rows}",
        *([leakage(tables)] if len(tables) > 1 else []),
        f"training: {length} of {batch:,} rows on {args.device} in {precision}{processes}",
        f"writes: {recipe.output_dir}",
    ]
    return "\n".join(lines + ([] if checkpoint is None else [f"resumes: {checkpoint}"]))


def leakage(tables: Sequence[Rows]) -> str:
    """Return the sentence about what training and evaluation, the first two tables, share."""
    train, evaluation = (
        {"text": table.texts, "image_id": table.image_ids}
        | ({"second_image_id": table.second_image_ids} if table.second_image_ids else {})
        for table in tables[:2]
    )
    return str(find_leakage(train, evaluation))


def closing(recipe: Recipe, headlines: Sequence[Headline], seconds: float | None) -> str:
    """Return what is said of a run behind its last step."""
    took = "" if seconds is None else f" in {duration(seconds)}"
    measures = ", ".join(map(str, headlines)) or "nothing was measured: the recipe has no rows to evaluate on"
    return f"trained{took}: {measures}\nnext: {_next_command(recipe)}"


def resume_command(recipe: Recipe) -> str:
    """Return the command line that goes on with a run that was stopped."""
    words = shlex.split(recipe.command)
    asked = [
        place
        for place, word in enumerate(words)
        if word.split("=")[0].replace("-", "_").endswith("resume_from_checkpoint")
    ]
    for place in reversed(asked):
        del words[place : place + (1 if "=" in words[place] else 2)]
    kept = [word for word in words if word != "--overwrite"]
    return shlex.join([*kept, "--resume_from_checkpoint", "last"])


def report_progress(trainer: Any) -> None:
    """Replace transformers' progress reports, which print every event as a dict between their bars."""
    if any(trainer.pop_callback(each) for each in (ProgressCallback, PrinterCallback)):
        bars = sys.stderr.isatty() and not trainer.args.disable_tqdm
        trainer.add_callback(_Bars() if bars else _Lines())


class _Bars(ProgressCallback):
    """transformers' bars on a terminal, with a line for each event."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and (line := event_line(logs, state)):
            self.training_bar.write(line)


class _Lines(TrainerCallback):
    """A line on the error stream for each event, and no bars."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not (line := event_line(logs, state)):
            return
        done = state.global_step - self._first
        if "loss" in logs and done > 0 and state.global_step < state.max_steps:
            left = (state.max_steps - state.global_step) * (time.monotonic() - self._start) / done
            line += f", {duration(left)} left"
        print(line, file=sys.stderr, flush=True)


def event_line(logs: Mapping[str, Any], state: Any) -> str:
    """Return an event as a person reads it; empty for the one at the end, which the closing lines tell."""
    if "train_runtime" in logs:
        return ""
    told = {name: value for name, value in logs.items() if name != "epoch" and not name.endswith(_UNTOLD)}
    values = [f"{name} {value:.4g}" for name, value in told.items() if isinstance(value, int | float)]
    epoch = "" if state.epoch is None else f" (epoch {state.epoch:.2f})"
    return f"step {state.global_step:,} of {state.max_steps:,}{epoch}: {', '.join(values)}" if values else ""


def _next_command(recipe: Recipe) -> str:
    folder = shlex.quote(str(recipe.output_dir))
    if recipe.task is None:
        return f"mmpt finetune RECIPE --from_pretrained {folder}   (mmpt recipes lists some)"
    if recipe.data.store is None:
        return f"mmpt evaluate {folder} --out {folder}/scores --gallery 20"
    return f"mmpt predict {folder} --pairs TABLE --store {shlex.quote(recipe.data.store)}"
