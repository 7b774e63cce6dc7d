"""MmptTrainer: transformers' Trainer with named losses, exact denominators and checkpoints that are complete."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from mmpt.checkpoints import MARKER, last_complete_checkpoint, mark_complete, unmark, why_incomplete
from mmpt.modeling_mmpt.objectives import IGNORED, OBJECTIVES, is_labelled
from mmpt.processing.sampling import EpochSampler

LOG_NAME = "log.jsonl"


@dataclass
class MmptTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that pre-training on pairs needs.

    Args:
        remove_unused_columns: False; the collator reads columns that the model does not.
        logging_nan_inf_filter: False; a loss that is not finite is to be seen, and it stops the run.
        prediction_loss_only: True; evaluation adds up losses and metrics by objective instead of gathering logits.
        report_to: "none"; every run writes log.jsonl, and any integration of transformers can be named.
    """

    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False
    prediction_loss_only: bool = True
    report_to: str | list[str] | None = "none"


class MmptTrainer(Trainer):
    """Train a pre-training model on a `PairDataset` with an `MmptDataCollator`.

    - Each objective's loss is its sum over the selected elements of all micro-batches and processes of a step, divided
      by their number: splitting a batch changes nothing.
    - `<objective>_loss`, `_count` and its metric are logged in training and, with the prefix, in evaluation.
    - Checkpoints are marked when complete; resuming skips or refuses the others, and those of an earlier run in the
      same folder.
    - `train_sampling_strategy="group_by_length"` puts texts of like length into one step, so that little is padded.
    - A loss that is not finite stops the run, and is never saved.

    Arguments are those of `transformers.Trainer`.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"got {self.args.n_gpu} GPUs in one process, expected one; launch with torchrun --nproc_per_node "
                f"{self.args.n_gpu}, or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        unwrapped: Any = self.model
        self.objective_weights: dict[str, float] = unwrapped.config.objective_weights
        self.objectives = [name for name in OBJECTIVES if name in self.objective_weights]
        self.output_dir = Path(str(self.args.output_dir))
        # Evaluation computes a loss only where all of these are in the batch; the collator makes exactly these.
        self.label_names = [f"{name}_labels" for name in self.objectives]
        self.train_sampler: EpochSampler | None = None
        self._parameter_count: int | None = None
        self._train_sums = self._zero_sums()
        self._eval_sums = self._zero_sums()
        self.add_callback(_EpochCallback(self))
        if self.is_world_process_zero():
            self.add_callback(JsonLogCallback(self.output_dir))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; True resumes from the newest complete checkpoint of the output folder.

        Raises:
            ValueError: if there is no complete checkpoint, or the one that was named is not complete.
        """
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(self.output_dir)
            if found is None:
                raise ValueError(
                    f"there is no complete checkpoint in {self.output_dir} to resume from; train without resuming"
                )
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint:
            reason = why_incomplete(Path(resume_from_checkpoint))
            if reason is not None:
                raise ValueError(f"cannot resume: {reason}; resume from an older checkpoint")
        elif self.is_world_process_zero():
            unmark(self.output_dir)
        result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self._stop_unless_finite(result.training_loss, {})
        return result

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Return the micro-batches of a step and, by objective, how many elements they select over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [sum(int(is_labelled(batch[f"{name}_labels"]).sum()) for batch in batches) for name in self.objectives]
        totals = self.accelerator.reduce(torch.tensor(counts, dtype=torch.float, device=device), reduction="sum")
        return batches, dict(zip(self.objectives, totals, strict=True))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Mapping[str, Tensor] | None = None,  # type: ignore[override]
    ) -> Any:
        """Return the loss and keep the sums of each objective's loss and metric for the log."""
        outputs = model(**inputs, loss_denominators=num_items_in_batch)
        self._add_up(self._train_sums if model.training else self._eval_sums, outputs, num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None:
            # The denominators count all processes, and DistributedDataParallel averages gradients over them.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return transformers' estimate, six a parameter and token; the parameters are counted once, not every step."""
        if self._parameter_count is None:
            self._parameter_count = self.model.num_parameters(exclude_embeddings=True)  # type: ignore[union-attr]
        return 6 * inputs["input_ids"].numel() * self._parameter_count

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Evaluate a batch; examples that only fill up the last batch of several processes are not counted."""
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0:
            rows = len(inputs["region_features"])
            own = min(max(state.remainder - self.accelerator.process_index * rows, 0), rows)
            for name in self.label_names:
                inputs[name][own:] = IGNORED
        return super().prediction_step(model, inputs, *args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Run transformers' loop and add each objective's exact loss, metric and count."""
        self._eval_sums = self._zero_sums()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        named = self._drain(self._eval_sums)
        self._eval_sums = self._zero_sums()
        total = sum(self.objective_weights[name] * named[f"{name}_loss"] for name in self.objectives)
        exact = {f"{prefix}_{name}": value for name, value in (named | {"loss": total}).items()}
        return output._replace(metrics=dict(output.metrics or {}) | exact)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objectives' losses, metrics and counts since the last log; stop at a loss that is not finite."""
        if "loss" in logs:
            logs.update(self._drain(self._train_sums))
            self._train_sums = self._zero_sums()
            super().log(logs, start_time)
            self._stop_unless_finite(logs["loss"], logs)
        else:
            super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._stop_unless_finite(float(self._tr_loss), {})
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            self._stop_unless_finite(math.nan, {})
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (folder / MARKER).unlink(missing_ok=True)  # while its files are written again it is not complete
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save and folder.is_dir():
            mark_complete(folder)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        per_step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        by_length = self.args.train_sampling_strategy == "group_by_length"
        self.train_sampler = EpochSampler(dataset, seed, per_step, group_by_length=by_length)
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Return the rows in their order, however training goes; several processes deal them out themselves."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None  # type: ignore[arg-type]

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

    def _stop_unless_finite(self, loss: float, logs: Mapping[str, float]) -> None:
        if math.isfinite(loss):
            return
        broken = [name for name in self.objectives if not math.isfinite(logs.get(f"{name}_loss", 0.0))]
        raise FloatingPointError(
            f"the loss is {loss} at step {self.state.global_step} (objectives that are not finite: "
            f"{', '.join(broken) or 'not told apart'}); nothing was saved since the last complete checkpoint. Lower "
            "the learning rate, clip gradients (max_grad_norm), or train in fp32 or bf16 instead of fp16"
        )


class JsonLogCallback(TrainerCallback):
    """Append every log event to log.jsonl; a resumed run drops the events behind the step that it resumes from."""

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / LOG_NAME

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if state.global_step and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= state.global_step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinity for one that was cut when the run was killed."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


class _EpochCallback(TrainerCallback):
    """Tell the training data which epoch begins: accelerate forwards it only through some of its wrappers."""

    def __init__(self, trainer: MmptTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        targets: list[Any] = [self.trainer.train_dataset, self.trainer.train_sampler]
        epoch = int(state.epoch or 0)
        for target in targets:
            if hasattr(target, "set_epoch"):
                target.set_epoch(epoch)
