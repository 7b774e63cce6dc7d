"""What `mmpt pretrain` and `mmpt finetune` share: a locked folder, checks first, training, results, push."""

import contextlib
import json
import logging
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from mmpt.configuration.errors import MmptError, MmptImportError, MmptValueError
from mmpt.hub.measures import Headline, headline_of
from mmpt.hub.model_card import Rows
from mmpt.hub.push import clear_hub_errors, push_folder
from mmpt.recipe.recipe import Recipe
from mmpt.training.base_trainer import LOG_NAME, CheckedTrainer, MmptTrainingArguments
from mmpt.training.curves import plot_curves, warn_without_matplotlib
from mmpt.training.preemption import EXIT_STOPPED, StopSignals
from mmpt.training.process_group import leave_process_group, on_first_process
from mmpt.training.run_folder import STAGING, LockedFolder, RunFolder, check_changes, open_folder
from mmpt.training.run_report import closing, opening, report_progress, resume_command

logger = logging.getLogger(__name__)

_TRACK = ("tensorboard", "trackio")  # of the extra that setup.py calls track
_TIMES = ("loss", "runtime", "samples_per_second", "steps_per_second")
_BEHIND_EXTRAS = ("is not installed", "to be installed", "requires", "pip install")


@dataclass
class PreparedRun:
    """A run that may begin: everything is loaded and built.

    Args:
        tables: the rows by role; "training" is always there.
        regions: what the regions come from; a `RegionStore` has a fingerprint.
        evaluation_names: the measures of an evaluation, without prefix.
        measure: returns the metrics of the trained model, from those of training; called in every process.
        add_metrics: adds what the first process alone measures.
        headlines: the measures, among the metrics, that say what the run is worth.
        write: writes the results that only this kind of run has, and the card; also called before training, without
            metrics, for what fails there fails after days of training too.
    """

    trainer: CheckedTrainer
    tables: Sequence[Rows]
    regions: Any
    evaluation_names: set[str]
    measure: Callable[[dict[str, Any]], dict[str, Any]]
    add_metrics: Callable[[dict[str, Any]], None]
    headlines: Callable[[dict[str, Any]], Sequence[Headline]]
    write: Callable[[Path, dict[str, Any] | None], None]


def carry_out(
    recipe: Recipe,
    make_arguments: Callable[[], MmptTrainingArguments],
    prepare: Callable[[MmptTrainingArguments], PreparedRun],
) -> dict[str, Any]:
    """Train as the recipe says, into its locked folder, and return the final metrics.

    Raises:
        MmptError: before training for bad input or a folder that holds another run; later for a loss that is not
            finite, or a disk that takes no more.
        SystemExit: with code 75, if SIGTERM or Ctrl-C stopped it behind a checkpoint.
    """
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        if os.environ.get("RANK", "0") == "0":
            stack.enter_context(LockedFolder(recipe.output_dir))
        arguments = make_arguments()
        if arguments.enable_jit_checkpoint:
            raise MmptValueError(
                "training.enable_jit_checkpoint has no effect: SIGTERM saves a checkpoint in every run; leave it out"
            )
        _ = arguments.world_size  # the processes find each other
        folder: RunFolder = on_first_process(lambda: open_folder(recipe))
        run = prepare(arguments)
        run.trainer.add_callback(signals)
        report_progress(run.trainer)
        on_first_process(lambda: _begin(recipe, folder, run))
        first = run.trainer.is_world_process_zero()
        if first:
            print(opening(recipe, run.trainer, run.tables, folder.checkpoint), flush=True)
        checkpoint = None if folder.checkpoint is None else str(folder.checkpoint)
        try:
            result = run.trainer.train(resume_from_checkpoint=checkpoint)
        except KeyboardInterrupt:
            logger.warning("stopped at once; go on from the last checkpoint: %s", resume_command(recipe))
            raise
        if signals.stopped:
            _leave_stopped(recipe, run.trainer)
        metrics = run.measure(result.metrics)
        _write(recipe, folder, run, metrics)
        run.trainer.accelerator.wait_for_everyone()
        if first:
            print(closing(recipe, run.headlines(metrics), metrics["train"].get("train_runtime")), flush=True)
        return metrics


def build_trainer(trainer_class: Callable[..., CheckedTrainer], output_dir: Path, **arguments: Any) -> Any:
    """Return a Trainer; where it pushes to a Hub or reports to a tracker that is not there, one error says so.

    Raises:
        MmptImportError: if the package of `report_to` is not installed.
        MmptConnectionError, MmptPermissionError: if the Hub does not answer or refuses the token.
    """
    args = arguments["args"]
    try:
        with clear_hub_errors(output_dir, str(args.hub_model_id or output_dir.absolute().name)):
            return trainer_class(**arguments)
    except (RuntimeError, ImportError) as error:
        if isinstance(error, MmptError) or not any(word in str(error) for word in _BEHIND_EXTRAS):
            raise
        names = args.report_to if isinstance(args.report_to, str) else ", ".join(args.report_to)
        raise MmptImportError(
            f"training.report_to is {names!r}: {error}; {_how_to_install(args.report_to)}, or leave report_to out "
            "(log.jsonl is always written)"
        ) from error


def _how_to_install(reports: str | Sequence[str]) -> str:
    """Return the command that installs trackers; the package's own extra has some of them."""
    names = [reports] if isinstance(reports, str) else reports
    packages = dict.fromkeys("'mmpt[track]'" if name in _TRACK else str(name).replace("_", "-") for name in names)
    return f"pip install {' '.join(packages)}"


def _begin(recipe: Recipe, folder: RunFolder, run: PreparedRun) -> None:
    """Check in the first process all that would only come out after training, then open the folder."""
    args = run.trainer.args
    _check_metric(args, run.evaluation_names)
    warn_without_matplotlib()
    facts: dict[str, Any] = {"processes": args.world_size}
    for rows in run.tables:
        facts[f"{rows.role}_rows"] = {"count": len(rows.texts), "fingerprint": rows.fingerprint}
    if (store := getattr(run.regions, "fingerprint", None)) is not None:
        facts["region_store"] = store
    if folder.checkpoint is not None:
        check_changes(recipe, folder.checkpoint, facts)
    with _same_random_state(), tempfile.TemporaryDirectory() as rehearsal:
        place = Path(rehearsal) / folder.path.resolve().name
        place.mkdir()
        run.write(place, None)
        for path in place.iterdir():
            if (folder.path / path.name).is_dir():
                raise MmptValueError(f"{folder.path / path.name} is a folder, expected to write a file there")
    folder.begin(recipe, facts)


def _check_metric(args: TrainingArguments, names: set[str]) -> None:
    metric = args.metric_for_best_model
    if metric is None or args.eval_strategy == "no":
        return
    known = sorted(names | set(_TIMES))
    if metric.removeprefix("eval_") not in known:
        raise MmptValueError(f"training.metric_for_best_model is {metric!r}, expected one of {', '.join(known)}")


def _leave_stopped(recipe: Recipe, trainer: CheckedTrainer) -> None:
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        logger.warning(
            "stopped at step %d of %d behind a checkpoint in %s; go on with: %s",
            trainer.state.global_step,
            trainer.state.max_steps,
            recipe.output_dir,
            resume_command(recipe),
        )
    leave_process_group()
    raise SystemExit(EXIT_STOPPED)


def _write(recipe: Recipe, folder: RunFolder, run: PreparedRun, metrics: dict[str, Any]) -> None:
    """Save the model and write the results, each file whole; then push, if the arguments say so."""
    trainer = run.trainer
    first = trainer.is_world_process_zero()

    def write(place: Path) -> None:
        run.add_metrics(metrics)
        content = {"headline": headline_of(run.headlines(metrics))} | metrics
        (place / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if any("loss" in event or "eval_loss" in event for event in trainer.state.log_history):
            plot_curves(folder.path / LOG_NAME, place / "curves.png")
        else:
            logger.warning("no curves were drawn: the run ended before its first log event; lower logging_steps")
        run.write(place, metrics)

    model_place = folder.path / STAGING / folder.path.resolve().name
    if first:

        def save_and_write(place: Path) -> None:
            trainer.save_model(str(place), _internal_call=True)
            write(place)

        folder.write_results(save_and_write)
    else:
        trainer.save_model(str(model_place), _internal_call=True)
    if first:
        folder.end()
        push_run(trainer, recipe.output_dir)


def push_run(trainer: CheckedTrainer, output_dir: Path) -> None:
    """Push the folder of a run that has ended, if its arguments say so; nothing of it is lost if the Hub refuses."""
    args = trainer.args
    if args.push_to_hub:
        trainer._finish_current_push()
        name, private = str(trainer.hub_model_id), args.hub_private_repo
        address = push_folder(output_dir, name, private=private, token=args.hub_token, revision=args.hub_revision)
        logger.warning("pushed to %s", address)


@contextlib.contextmanager
def _same_random_state() -> Iterator[None]:
    """Leave the random numbers that training draws as they were."""
    states: Mapping[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
    with torch.random.fork_rng():
        yield
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
