"""What pre-training and fine-tuning share: complete checkpoints, a JSON log, epochs told, and a stop at NaN."""

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, has_length, rotate_checkpoints

from mmpt.configuration.errors import (
    MmptError,
    MmptFloatingPointError,
    MmptImportError,
    MmptOSError,
    MmptValueError,
)
from mmpt.configuration.pretrained import refuse_code
from mmpt.hub.checkpoint_push import PushingTrainer
from mmpt.processing.pretraining.epochs import EpochCallback
from mmpt.training.argument_values import check_schedule, check_training_values
from mmpt.training.checkpoints import last_complete_checkpoint, mark_complete, unmark, why_incomplete
from mmpt.training.finite_watch import FiniteWatch, broken_parameters
from mmpt.training.not_finite import why_not_finite
from mmpt.training.preemption import StopSignals, spare_workers
from mmpt.training.process_group import on_first_process
from mmpt.training.run_files import clear_write_errors, replacing
from mmpt.training.trainer_arguments import Refusal, check_arguments

logger = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"

SMALLEST_SCALE = 1e-4
"""Of fp16's loss scaler, which begins at 65,536 and halves at each step that it skips."""


@dataclass
class MmptTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that training on pairs needs.

    Args:
        remove_unused_columns: False; the collator reads columns that the model does not.
        logging_nan_inf_filter: False; a loss that is not finite is to be seen, and it stops the run.
        report_to: "none"; every run writes log.jsonl, and any integration of transformers can be named.
    """

    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False
    report_to: str | list[str] | None = "none"

    def __post_init__(self) -> None:
        check_training_values(vars(self))
        try:
            super().__post_init__()
        except (MmptError, OSError):
            raise
        except ImportError as error:
            raise MmptImportError(f"these training arguments need a package that is not installed: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MmptValueError(str(error)) from error
        check_schedule(self)


class CheckedTrainer(PushingTrainer):
    """transformers' Trainer with complete checkpoints, a JSON log and a stop at a loss that is not finite.

    - Checkpoints are marked when complete; resuming skips or refuses the others, and those of an earlier run in the
      same folder. What is logged after resuming is what the whole run would have logged.
    - A loss that is not finite stops the run, and is never saved.
    - The training data and its sampler are told which epoch begins.

    Arguments are those of `transformers.Trainer`.
    """

    train_sampler: Sampler | None = None
    train_loader: Any = None
    refusals: tuple[Refusal, ...] = ()
    _parameter_count: int | None = None
    _train_sums: Tensor | None = None
    _resumed_from: Path | None = None
    _summed_from_the_start = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = signature(Trainer).bind(*args, **kwargs).arguments
        if given.get("args") is None:
            given["args"] = MmptTrainingArguments(output_dir="tmp_trainer")  # the folder that Trainer takes
        fields_of = {item.name: getattr(given["args"], item.name) for item in fields(given["args"])}
        check_arguments(type(self).__name__, {**fields_of, **given}, self.refusals)
        _check_evaluation(given["args"], given.get("eval_dataset"))
        super().__init__(**given)
        if self.args.n_gpu > 1:
            raise MmptValueError(
                f"got {self.args.n_gpu} GPUs in one process, expected one; launch with torchrun --nproc_per_node "
                f"{self.args.n_gpu}, or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        self.output_dir = Path(str(self.args.output_dir))
        self._watch = FiniteWatch(self.args.device)
        self.add_callback(_EpochCallback(self))
        self.add_callback(_SumsCallback(self))
        if self.is_world_process_zero():
            self.add_callback(JsonLogCallback(self.output_dir))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; True resumes from the newest complete checkpoint of the output folder.

        "last" does the same, and starts from the beginning where there is none yet.

        Raises:
            ValueError: if there is no complete checkpoint, or the one that was named is not complete.
        """
        asked = resume_from_checkpoint
        chosen = on_first_process(lambda: self._choose_checkpoint(asked)) if asked else None
        if chosen is None and self.is_world_process_zero():
            unmark(self.output_dir)
        self._resumed_from = None if chosen is None else Path(chosen)
        self._watch = FiniteWatch(self.args.device)  # of this run alone
        with refuse_code(chosen or self.output_dir):
            result = super().train(resume_from_checkpoint=chosen, **kwargs)
        self._stop_unless_finite({})
        return result._replace(training_loss=result.metrics.get("train_loss", result.training_loss))

    def _choose_checkpoint(self, asked: str | bool) -> str | None:
        if asked is not True and asked != "last":
            reason = why_incomplete(Path(str(asked)))
            if reason is not None:
                raise MmptValueError(f"cannot resume: {reason}; resume from an older checkpoint")
            return str(asked)
        found = last_complete_checkpoint(self.output_dir)
        if found is None and asked is True:
            raise MmptValueError(
                f"there is no complete checkpoint in {self.output_dir} to resume from; train without resuming"
            )
        if found is None:
            logger.warning("there is no complete checkpoint in %s yet: starting from step 0", self.output_dir)
        return None if found is None else str(found)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the event, and stop at a loss that is not finite."""
        if "train_loss" in logs and self._summed_from_the_start:  # transformers divides by the steps since resuming
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 0.001)
        super().log(logs, start_time)
        if "loss" in logs:
            self._stop_unless_finite(logs)

    def get_train_dataloader(self) -> Any:
        """Return transformers' loader, and keep it: it knows which examples a step had."""
        self.train_loader = super().get_train_dataloader()
        return self.train_loader

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run transformers' step, and watch its loss."""
        loss = super().training_step(*args, **kwargs)
        self._watch.see_loss(loss, self.state.global_step + 1)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Watch the norm; a fused optimiser then leaves the weights as they were before the step that broke."""
        norm = super()._get_grad_norm(*args, **kwargs)
        # fp16's scaler skips steps with infinite gradients and lowers its scale: that is its work.
        if norm is not None and self.accelerator.scaler is None:
            self._watch.see_norm(norm, self.state.global_step + 1)
            optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
            if any(group.get("fused") for group in optimizer.param_groups):
                optimizer.found_inf = self._watch.found
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return transformers' estimate, six a parameter and token; the parameters are counted once, not every step."""
        if self._parameter_count is None:
            self._parameter_count = self.model.num_parameters(exclude_embeddings=True)  # type: ignore[union-attr]
        return 6 * inputs["input_ids"].numel() * self._parameter_count

    def broken_parts(self, logs: Mapping[str, float]) -> str:
        """Return what an error says beside a loss that is not finite: which part of it is to blame; empty if unknown.

        Args:
            logs: the event that the loss is from.
        """
        return ""

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """Return epoch and batch to resume at.

        transformers would train one more step where all are done, and takes a stream without a length to be in its
        first pass.
        """
        found = super()._init_training_state(max_steps, steps_per_epoch, epochs, checkpoint, trial)
        if self.state.global_step >= max_steps:
            return epochs, 0
        if checkpoint is None or self.args.ignore_data_skip or has_length(self.train_dataset):
            return found
        saved = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text())
        share, epoch = math.modf(saved["epoch"])  # transformers takes a pass to have as many batches as the run
        return int(epoch), round(share * saved["max_steps"] * self.args.gradient_accumulation_steps)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._stop_unless_finite({}, broken_parameters(model))
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.is_dir():
            shutil.rmtree(folder)  # nothing of an earlier save is left in it
        self.accelerator.wait_for_everyone()
        # Older checkpoints are deleted once this one is complete, not before.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with clear_write_errors(folder):
                super()._save_checkpoint(model, trial)
                self._save_running_sums(folder)
                self.accelerator.wait_for_everyone()
                if self.args.should_save and folder.is_dir():
                    mark_complete(folder)
        except MmptOSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load as transformers does; a state that does not fit is one error, and a scalar's becomes a vector's."""
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:
            if isinstance(error, MmptError) or "size of optimizer's group" not in str(error):
                raise
            raise MmptValueError(
                f"{checkpoint} holds the optimiser of a run in which other weights learn, so it cannot go on here; an "
                "early version of mmpt also trained weights that no loss reads. Begin a new run with its weights: "
                f"model.from_pretrained={checkpoint}"
            ) from error
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        for weight, state in optimizer.state.items() if checkpoint is not None else ():
            for name, value in state.items():
                if name != "step" and isinstance(value, Tensor) and value.ndim == 0 and weight.shape == (1,):
                    state[name] = value.reshape(1)  # of a checkpoint from before `log_scale` was a vector

    def _save_running_sums(self, folder: Path) -> None:
        """Save what was added up since the last log event, which is not logged yet, in the file of this process."""
        if not folder.is_dir():
            return
        sums = {
            "loss": float(self._tr_loss),
            "logged_loss": self._total_loss_scalar if self._summed_from_the_start else None,
            "logged_step": self._globalstep_last_logged,
            "parts": None if self._train_sums is None else self._train_sums.tolist(),
        }
        (folder / self._sums_name).write_text(json.dumps(sums), encoding="utf-8")

    def _load_running_sums(self) -> None:
        """Take up the sums of the checkpoint that training resumes from; an older one has none."""
        self._summed_from_the_start = self._resumed_from is None
        path = None if self._resumed_from is None else self._resumed_from / self._sums_name
        if path is None or not path.is_file():
            return
        sums = json.loads(path.read_text(encoding="utf-8"))
        self._tr_loss += sums["loss"]
        self._globalstep_last_logged = sums["logged_step"]
        if self._train_sums is not None and sums["parts"] is not None:
            self._train_sums = torch.tensor(sums["parts"], dtype=self._train_sums.dtype, device=self._train_sums.device)
        if sums["logged_loss"] is not None:
            self._total_loss_scalar, self._summed_from_the_start = sums["logged_loss"], True

    @property
    def _sums_name(self) -> str:
        return f"running_sums_{self.args.process_index}.json"

    def with_measures(self, output: EvalLoopOutput, prefix: str, measures: Mapping[str, float]) -> EvalLoopOutput:
        """Return the output with measures of our own; one of the same name by the user's `compute_metrics` stays."""
        metrics = dict(output.metrics or {})
        loss = f"{prefix}_loss"
        own = {f"{prefix}_{name}": value for name, value in measures.items()}
        return output._replace(metrics=metrics | {k: v for k, v in own.items() if k == loss or k not in metrics})

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        """Return transformers' DataLoader; `dataloader_drop_last` is of training, every row is evaluated."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            loader = super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            self.args.dataloader_drop_last = drop_last
        if any(isinstance(callback, StopSignals) for callback in self.callback_handler.callbacks):
            spare_workers(loader)
        return loader

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Return the rows in their order, however training goes; several processes deal them out themselves."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None  # type: ignore[arg-type]

    def _stop_unless_finite(self, logs: Mapping[str, float], weights: Sequence[str] = ()) -> None:
        """Raise the same error in every process if one of them has seen something that is not finite.

        Args:
            logs: the event that is logged, if one is.
            weights: names of weights that are not finite.
        """
        found = self._watch.look()
        if not found and weights:
            found = [(self.state.global_step, f"weight {weights[0]}", math.nan)]
        scaler = self.accelerator.scaler
        if not found and scaler is not None and scaler.get_scale() < SMALLEST_SCALE:
            found = [(self.state.global_step, "gradient", math.inf)]  # the scaler has skipped dozens of steps
        seen: list[Any] = gather_object(found) if self.args.world_size > 1 else found
        if not seen:
            return
        # A bad loss makes every process's gradients bad: it goes before them.
        step, what, value = min(seen, key=lambda each: (each[0], each[1] != "loss"))
        parts = self.broken_parts(logs)
        own = why_not_finite(self, step, what) if any(each[:2] == (step, what) for each in found) else ""
        reasons = [reason for reason in gather_object([own]) if reason] if self.args.world_size > 1 else [own]
        raise MmptFloatingPointError(
            f"the {what} is {value} at step {step}{parts}{''.join(reasons[:1])}; nothing was saved since the last "
            "complete checkpoint. Lower the learning rate, clip gradients (max_grad_norm), or train in fp32 or bf16 "
            "instead of fp16"
        )


class JsonLogCallback(TrainerCallback):
    """Append every log event to log.jsonl; a resumed run begins it with the events up to its checkpoint."""

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / LOG_NAME

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as path:
            path.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with clear_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            size = file.tell()
            try:
                file.write(_line({"step": state.global_step, **logs}))
                file.flush()
            except OSError:
                os.truncate(self.path, size)  # no half of a line stays
                raise


def _check_evaluation(args: TrainingArguments | None, eval_dataset: Any) -> None:
    """Refuse arguments that ask for evaluation where there is nothing to evaluate on."""
    if args is None or eval_dataset is not None:
        return
    for name, asked in (("eval_strategy", args.eval_strategy != "no"), ("eval_on_start", args.eval_on_start)):
        if asked:
            value = getattr(args, name)
            raise MmptValueError(
                f"{name} is {getattr(value, 'value', value)!r}, but there is no evaluation data; give some "
                f"(eval_dataset; data.eval_pairs of a recipe), or leave {name} out"
            )


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps({"step": event["step"]} | dict(event)) + "\n"


class _EpochCallback(EpochCallback):
    """Give the epoch to the sampler as well: accelerate forwards it only through some of its wrappers."""

    def __init__(self, trainer: CheckedTrainer) -> None:
        super().__init__()
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)  # MmptTrainer's loader gives the epoch by itself
        self.is_on = True

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        if hasattr(self.trainer.train_sampler, "set_epoch"):
            self.trainer.train_sampler.set_epoch(self._next_epoch)  # type: ignore[union-attr]
        super().on_epoch_begin(args, state, control, train_dataloader, **kwargs)


class _SumsCallback(TrainerCallback):
    """Take up running sums where training begins: transformers has just set its own to zero."""

    def __init__(self, trainer: CheckedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._load_running_sums()
