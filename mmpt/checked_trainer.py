"""What pre-training and fine-tuning share: complete checkpoints, a JSON log, epochs told, and a stop at NaN."""

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from mmpt.checkpoints import last_complete_checkpoint, mark_complete, unmark, why_incomplete
from mmpt.configuration.errors import MmptFloatingPointError, MmptOSError, MmptValueError
from mmpt.process_group import on_first_process
from mmpt.run_files import clear_write_errors, replacing

logger = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"


@dataclass
class MmptTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults that training on pairs needs.

    Args:
        remove_unused_columns: False; the collator reads columns that the model does not.
        logging_nan_inf_filter: False; a loss that is not finite is to be seen, and it stops the run.
        prediction_loss_only: True; evaluation adds up losses and metrics itself instead of gathering logits.
        report_to: "none"; every run writes log.jsonl, and any integration of transformers can be named.
    """

    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False
    prediction_loss_only: bool = True
    report_to: str | list[str] | None = "none"


class CheckedTrainer(Trainer):
    """transformers' Trainer with complete checkpoints, a JSON log and a stop at a loss that is not finite.

    - Checkpoints are marked when complete; resuming skips or refuses the others, and those of an earlier run in the
      same folder. What is logged after resuming is what the whole run would have logged.
    - A loss that is not finite stops the run, and is never saved.
    - The training data and its sampler are told which epoch begins.

    Arguments are those of `transformers.Trainer`.
    """

    train_sampler: Sampler | None = None
    _parameter_count: int | None = None
    _train_sums: Tensor | None = None
    _resumed_from: Path | None = None
    _summed_from_the_start = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise MmptValueError(
                f"got {self.args.n_gpu} GPUs in one process, expected one; launch with torchrun --nproc_per_node "
                f"{self.args.n_gpu}, or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        self.output_dir = Path(str(self.args.output_dir))
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
        result = super().train(resume_from_checkpoint=chosen, **kwargs)
        self._stop_unless_finite(result.training_loss, {})
        return result._replace(training_loss=result.metrics.get("train_loss", result.training_loss))

    def _choose_checkpoint(self, asked: str | bool) -> str | None:
        if asked is not True and asked != "last":
            reason = why_incomplete(Path(asked))
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
            self._stop_unless_finite(logs["loss"], logs)

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

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._stop_unless_finite(float(self._tr_loss), {})
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            self._stop_unless_finite(math.nan, {})
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

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, num_train_epochs: int, *args: Any, **kwargs: Any
    ) -> tuple[int, int]:
        """Restore the state as transformers does, which would train one more step where all are done."""
        begin = super()._init_training_state(max_steps, steps_per_epoch, num_train_epochs, *args, **kwargs)
        return (num_train_epochs, 0) if self.state.global_step >= max_steps else begin

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

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push as transformers does, which takes weights and configuration out of a checkpoint and forgets the code."""
        if self.is_world_process_zero():
            for file in Path(checkpoint_folder).glob("*.py"):
                shutil.copy(file, self.output_dir)
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self) -> None:
        """Wait for pushes as transformers does, and say which of them failed: it does not."""
        super()._finish_current_push()
        pushes = getattr(self, "push_in_progress", None)
        for job in [] if pushes is None else pushes.jobs:
            if (error := job.exception()) is not None:
                logger.warning("a checkpoint was not pushed: %s", error)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Return the rows in their order, however training goes; several processes deal them out themselves."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None  # type: ignore[arg-type]

    def _stop_unless_finite(self, loss: float, logs: Mapping[str, float]) -> None:
        if math.isfinite(loss):
            return
        raise MmptFloatingPointError(
            f"the loss is {loss} at step {self.state.global_step}{self.broken_parts(logs)}; nothing was saved since "
            "the last complete checkpoint. Lower the learning rate, clip gradients (max_grad_norm), or train in fp32 "
            "or bf16 instead of fp16"
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


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps({"step": event["step"]} | dict(event)) + "\n"


class _EpochCallback(TrainerCallback):
    """Tell the training data which epoch begins: accelerate forwards it only through some of its wrappers."""

    def __init__(self, trainer: CheckedTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        targets: list[Any] = [self.trainer.train_dataset, self.trainer.train_sampler]
        epoch = int(state.epoch or 0)
        for target in targets:
            if hasattr(target, "set_epoch"):
                target.set_epoch(epoch)


class _SumsCallback(TrainerCallback):
    """Take up running sums where training begins: transformers has just set its own to zero."""

    def __init__(self, trainer: CheckedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._load_running_sums()
