"""Why a step of training was not finite: its examples, and the first part of the model that broke."""

import logging
from typing import Any

import torch

from mmpt.training.finite_watch import broken_parameters, broken_rows, first_broken_module

logger = logging.getLogger(__name__)

SHOWN = 4


def why_not_finite(trainer: Any, step: int, what: str) -> str:
    """Return what the error says of the examples and layers of a step, which is run again; empty if unknown.

    Args:
        trainer: a `CheckedTrainer` in training.
        step: the first one that was not finite, counted from 1.
        what: "loss", or the gradients.
    """
    try:
        return _why(trainer, step, what)
    except Exception as error:  # the error that is being explained matters more
        logger.warning("the step that was not finite could not be run again: %s", error)
        return ""


def _why(trainer: Any, step: int, what: str) -> str:
    model = trainer.accelerator.unwrap_model(trainer.model)
    said = []
    weights = broken_parameters(model)
    if weights:
        said.append(f"weights that are not finite: {_some(weights)}")
    for indices in batches_of_step(trainer, step):
        names = example_names(trainer.train_dataset, indices)
        loader = getattr(trainer.train_loader, "base_dataloader", trainer.train_loader)  # it knows epoch and step
        batch = loader.collate_fn([loader.dataset[index] for index in indices])
        rows = broken_rows(batch, len(indices))
        if rows:
            return f" ({'; '.join([*said, f'inputs of {_some([names[row] for row in rows])} are not finite'])})"
        layer, rows = (None, []) if weights else _broken_layer(trainer, model, batch, what, len(indices))
        if layer is not None:
            return f" ({layer}, with the examples {_some([names[row] for row in rows] or names)})"
        said.append(f"examples {_some(names)}")
    return f" ({'; '.join(said)})" if said else ""


def batches_of_step(trainer: Any, step: int) -> list[list[int]]:
    """Return the indices of this process's examples in each micro-batch of a step; empty if they are not known."""
    loader: Any = trainer.train_loader
    accumulation = trainer.args.gradient_accumulation_steps
    sampler = getattr(loader, "batch_sampler", None)
    if sampler is None or not hasattr(loader, "__len__"):
        return []
    steps_in_epoch = max(-(-len(loader) // accumulation), 1)
    epoch, place = divmod(step - 1, steps_in_epoch)
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    parts: list[Any] = [getattr(sampler, "batch_sampler", None), trainer.train_sampler, loader.collate_fn]
    for part in (*parts, getattr(sampler, "sampler", None)):
        set_epoch: Any = getattr(part, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
    first = place * accumulation
    return [list(batch) for number, batch in enumerate(sampler) if first <= number < first + accumulation]


def example_names(dataset: Any, indices: list[int]) -> list[str]:
    """Return the ids of examples where the dataset has some, and their row numbers."""
    table: Any = getattr(dataset, "table", getattr(dataset, "pairs", None))
    column = getattr(table, "column_names", table if isinstance(table, dict) else ())
    key = next((name for name in ("question_id", "example_id", "image_id") if name in column), None)
    return [f"row {int(i)}" if key is None else f"{table[key][int(i)]!r} (row {int(i)})" for i in indices]


def _broken_layer(trainer: Any, model: Any, batch: Any, what: str, rows: int) -> tuple[str | None, list[int]]:
    """Run a batch again, and return the first layer with NaN or with bad gradients, and its rows with NaN."""
    from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL

    batch = trainer._prepare_inputs(dict(batch))
    batch = {name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL}
    with torch.set_grad_enabled(what != "loss"), trainer.compute_loss_context_manager():
        layer, which, output = first_broken_module(model, batch, rows)
    if layer is not None:
        return f"the first layer with NaN is {layer}", which
    loss = output["loss"]
    if not bool(loss.isfinite()):
        return f"the layers are finite, their loss is {float(loss)}", []
    if what == "loss":
        return None, []
    model.zero_grad()
    loss.backward()
    gradients = broken_parameters(model, gradients=True)
    model.zero_grad()
    # Gradients flow from the loss to the inputs: the last parameter is nearest to where they broke.
    return (f"the gradients break at {gradients[-1]}" if gradients else None), []


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
