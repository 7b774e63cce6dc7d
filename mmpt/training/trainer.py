"""MmptTrainer: transformers' Trainer with named losses, exact denominators and checkpoints that are complete."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.objectives import IGNORED, OBJECTIVES, is_labelled
from mmpt.processing.pretraining.epochs import NumberedRows, give_epochs
from mmpt.processing.pretraining.sampling import EpochSampler
from mmpt.training.base_trainer import LOG_NAME as LOG_NAME
from mmpt.training.base_trainer import CheckedTrainer
from mmpt.training.base_trainer import MmptTrainingArguments as MmptTrainingArguments
from mmpt.training.trainer_arguments import REFUSED_BY_PRE_TRAINING, check_label_names


class MmptTrainer(CheckedTrainer):
    """Train a pre-training model on a `PairDataset` with an `MmptDataCollator`.

    - Each objective's loss is its sum over the selected elements of all micro-batches and processes of a step, divided
      by their number: splitting a batch changes nothing.
    - `<objective>_loss`, `_count` and its metric are logged in training and, with the prefix, in evaluation.
    - Checkpoints are marked when complete; resuming skips or refuses the others, and those of an earlier run in the
      same folder.
    - `train_sampling_strategy="group_by_length"` puts texts of like length into one step, so that little is padded.
    - A loss that is not finite stops the run, and is never saved.

    - With `compute_metrics`, and in `predict`, logits are gathered with a row an example; see docs/training.md.

    Arguments are those of `transformers.Trainer`, as far as `mmpt.training.trainer_arguments` does not refuse them.
    """

    loss_is_scaled_for_ga = True
    refusals = REFUSED_BY_PRE_TRAINING
    _align_logits = False
    _train_sums: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        unwrapped: Any = self.model
        self.objective_weights: dict[str, float] = unwrapped.config.objective_weights
        self.objectives = [name for name in OBJECTIVES if name in self.objective_weights]
        # Evaluation computes a loss only where all of these are in the batch; the collator makes exactly these.
        self.label_names = [f"{name}_labels" for name in self.objectives]
        check_label_names(type(self).__name__, self.args.label_names, self.label_names)
        self._train_sums = self._zero_sums()
        self._eval_sums = self._zero_sums()

    def get_train_dataloader(self) -> DataLoader:
        """Return transformers' DataLoader; what an attempt with larger batches added up is forgotten."""
        self._train_sums = self._zero_sums()
        return super().get_train_dataloader()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Return the micro-batches of a step and, by objective, how many elements they select over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        # Added up on the device, which would have to be waited for to read a number.
        totals: Any = torch.zeros(len(self.objectives), device=device)
        for batch in batches:
            counts = [is_labelled(batch[f"{name}_labels"]).sum() for name in self.objectives]
            totals += torch.stack(counts).to(totals)
        totals = self.accelerator.reduce(totals, reduction="sum")
        return batches, dict(zip(self.objectives, totals, strict=True))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Mapping[str, Tensor] | None = None,  # type: ignore[override]
    ) -> Any:
        """Return the loss and keep the sums of each objective's loss and metric for the log."""
        align = self._align_logits and not model.training
        outputs = model(**inputs, loss_denominators=num_items_in_batch, align_logits=align)
        self._add_up(self._train_sums if model.training else self._eval_sums, outputs, num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None:
            # The denominators count all processes, and DistributedDataParallel averages gradients over them.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Evaluate a batch; examples that only fill up the last batch of several processes are not counted."""
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0:
            rows = len(inputs["region_features"])
            own = min(max(state.remainder - self.accelerator.process_index * rows, 0), rows)
            for name in self.label_names:
                inputs[name][own:] = IGNORED
        self._align_logits = not prediction_loss_only
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Run transformers' loop and add each objective's exact loss, metric and count."""
        self._eval_sums = self._zero_sums()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        named = self._drain(self._eval_sums)
        self._eval_sums = self._zero_sums()
        total = sum(self.objective_weights[name] * named[f"{name}_loss"] for name in self.objectives)
        return self.with_measures(output, prefix, named | {"loss": total})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objectives' losses, metrics and counts since the last log; stop at a loss that is not finite."""
        if "loss" in logs:
            logs.update(self._drain(self._train_sums))
            self._train_sums = self._zero_sums()
        super().log(logs, start_time)

    def _get_dataloader(self, dataset: Any, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        """Return a loader whose examples know epoch and step, whatever wraps them; evaluation stays at epoch 0."""
        if not isinstance(dataset, IterableDataset):
            dataset = NumberedRows(dataset)
        elif is_training and self.args.train_sampling_strategy == "group_by_length":
            raise MmptValueError(
                "train_sampling_strategy is 'group_by_length', and the training data is a stream, whose order is its "
                "own; use 'random'"
            )
        loader = super()._get_dataloader(dataset, *args, is_training=is_training, **kwargs)
        give_epochs(loader, for_evaluation=not is_training)
        return loader

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(dataset.dataset if isinstance(dataset, NumberedRows) else dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        # Processes share a batch, or have one each.
        processes = 1 if self.accelerator.split_batches else self.args.world_size
        per_step = self._train_batch_size * processes * self.args.gradient_accumulation_steps
        by_length = self.args.train_sampling_strategy == "group_by_length"
        self.train_sampler = EpochSampler(dataset, seed, per_step, group_by_length=by_length)
        return self.train_sampler

    def _zero_sums(self) -> Tensor:
        """Return (objectives, 3): sums of losses, of metrics, and counts; float64, for they grow over an epoch."""
        device = self.args.device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        return torch.zeros(len(self.objectives), 3, dtype=dtype, device=device)

    def _add_up(self, sums: Tensor, outputs: Any, denominators: Mapping[str, Tensor] | None) -> None:
        rows = []
        for name in self.objectives:
            count = outputs[f"{name}_count"].detach().to(sums.dtype)
            divided_by = count if denominators is None else denominators[name].to(count)
            metric = outputs[f"{name}_{OBJECTIVES[name].metric_name}"].detach().to(sums.dtype)
            loss = outputs[f"{name}_loss"].detach().to(sums.dtype)
            rows.append(torch.stack([loss * divided_by, metric * count, count]))
        sums += torch.stack(rows)

    def _drain(self, sums: Tensor) -> dict[str, float]:
        """Return the means over all processes by name."""
        totals: Any = self.accelerator.reduce(sums, reduction="sum")
        named: dict[str, float] = {}
        for name, (loss, metric, count) in zip(self.objectives, totals.tolist(), strict=True):
            named[f"{name}_loss"] = loss / max(count, 1)
            named[f"{name}_{OBJECTIVES[name].metric_name}"] = metric / max(count, 1)
            named[f"{name}_count"] = int(count)
        return named

    def broken_parts(self, logs: Mapping[str, float]) -> str:
        """Return the objectives whose loss is not finite since the last event."""
        logs = logs if any(f"{name}_loss" in logs for name in self.objectives) else self._drain(self._train_sums)
        broken = [name for name in self.objectives if not math.isfinite(logs.get(f"{name}_loss", 0.0))]
        return f" (objectives that are not finite: {', '.join(broken) or 'not told apart'})"
