"""What pre-training and fine-tuning share: complete checkpoints, a JSON log, epochs told, and a stop at NaN."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import TrainerCallback, TrainingArguments

from mmpt.checkpoint_push import PushingTrainer
from mmpt.checkpoints import MARKER, last_complete_checkpoint, mark_complete, unmark, why_incomplete
from mmpt.configuration.errors import MmptFloatingPointError, MmptValueError
from mmpt.configuration.pretrained import refuse_code

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


class CheckedTrainer(PushingTrainer):
    """transformers' Trainer with complete checkpoints, a JSON log and a stop at a loss that is not finite.

    - Checkpoints are marked when complete; resuming skips or refuses the others, and those of an earlier run in the
      same folder.
    - A loss that is not finite stops the run, and is never saved.
    - The training data and its sampler are told which epoch begins.

    Arguments are those of `transformers.Trainer`.
    """

    train_sampler: Sampler | None = None
    _parameter_count: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise MmptValueError(
                f"got {self.args.n_gpu} GPUs in one process, expected one; launch with torchrun --nproc_per_node "
                f"{self.args.n_gpu}, or name one GPU in CUDA_VISIBLE_DEVICES"
            )
        self.output_dir = Path(str(self.args.output_dir))
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
                raise MmptValueError(
                    f"there is no complete checkpoint in {self.output_dir} to resume from; train without resuming"
                )
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint:
            reason = why_incomplete(Path(resume_from_checkpoint))
            if reason is not None:
                raise MmptValueError(f"cannot resume: {reason}; resume from an older checkpoint")
        elif self.is_world_process_zero():
            unmark(self.output_dir)
        with refuse_code(resume_from_checkpoint or self.output_dir):
            result = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self._stop_unless_finite(result.training_loss, {})
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the event, and stop at a loss that is not finite."""
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
        if self.args.should_save:
            (folder / MARKER).unlink(missing_ok=True)  # while its files are written again it is not complete
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save and folder.is_dir():
            mark_complete(folder)

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

    def __init__(self, trainer: CheckedTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        targets: list[Any] = [self.trainer.train_dataset, self.trainer.train_sampler]
        epoch = int(state.epoch or 0)
        for target in targets:
            if hasattr(target, "set_epoch"):
                target.set_epoch(epoch)
