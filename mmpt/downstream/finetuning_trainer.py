"""FineTuningTrainer: the checked Trainer for a downstream task, with its metric, predictions and learning rates."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from mmpt.checked_trainer import CheckedTrainer
from mmpt.downstream.decoding import Prediction, label_numbers
from mmpt.downstream.layer_rates import parameter_groups
from mmpt.downstream.tasks import Task
from mmpt.processing.task_collator import NOT_FOR_THE_MODEL, without_labels


class FineTuningTrainer(CheckedTrainer):
    """Train a model of a downstream task on a `TaskDataset`, and measure it by the task's metric.

    - Evaluation logs `eval_loss` and every measure of the task, over all processes, each example counted once; what
      was predicted is then in `predictions`, a row each.
    - The learning rate may fall from the head to the embeddings, and the head have one of its own.
    - Accumulation takes the mean of the micro-batches' losses.

    Args:
        task: the row of the table of tasks.
        layer_decay: factor of the learning rate for each level below the head.
        head_factor: factor of the head's learning rate.

    Further arguments are those of `transformers.Trainer`; `data_collator` is a `TaskDataCollator` with labels.
    """

    def __init__(self, *args: Any, task: Task, layer_decay: float = 1.0, head_factor: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.task = task
        self.layer_decay = layer_decay
        self.head_factor = head_factor
        self.label_names = ["labels"]
        self.predictions: list[Prediction] = []
        self._by_row: dict[int, Prediction] = {}
        self._eval_loss = torch.zeros(2)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser that the arguments name, with the learning rate of each depth."""
        if self.layer_decay == 1 and self.head_factor == 1:
            return super().create_optimizer(model)
        if self.optimizer is None:
            learner: Any = self.model if model is None else model
            groups = parameter_groups(
                learner,
                self.get_decay_parameter_names(learner),
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                layer_decay=self.layer_decay,
                head_factor=self.head_factor,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, learner)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the model's loss on what of the batch is for the model."""
        inputs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Predict a batch; examples that only fill up the last batch of several processes are not counted."""
        inputs = self._prepare_inputs(inputs)  # type: ignore[assignment]
        state, rows = self.accelerator.gradient_state, len(inputs["rows"])
        own = rows
        if self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0:
            own = min(max(state.remainder - self.accelerator.process_index * rows, 0), rows)
            inputs = {name: value[: max(own, 1)] for name, value in inputs.items()}
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, output = self.compute_loss(model, inputs, return_outputs=True)
        if own:
            if self.task.rank is None:
                self._keep(inputs, output)
            self._eval_loss += torch.tensor([float(loss) * own, own])
        return loss.detach(), None, None

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Run transformers' loop, and add the exact loss and the task's measures."""
        self._by_row, self._eval_loss = {}, torch.zeros(2)
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        dataset: Any = dataloader.dataset
        if self.task.rank is not None:
            self._by_row = self.task.rank(
                self._forward,
                without_labels(self.data_collator),  # type: ignore[arg-type]
                dataset,
                self.args.per_device_eval_batch_size,
                (self.accelerator.process_index, self.accelerator.num_processes),
            )
        # Every process gets all predictions, and so finds the same checkpoint the best.
        gathered = dict(gather_object(list(self._by_row.items())))
        self.predictions = [gathered[row] for row in range(len(dataset))]
        measures = self.task.score(self.predictions, dataset, label_numbers(self._unwrapped.config))
        total, count = torch.stack(gather_object([self._eval_loss])).sum(0).tolist()
        prefix = kwargs.get("metric_key_prefix", "eval")
        named = {f"{prefix}_{name}": value for name, value in {"loss": total / count, **measures}.items()}
        return output._replace(metrics=dict(output.metrics or {}) | named)

    @property
    def _unwrapped(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _keep(self, inputs: Mapping[str, Tensor], output: Any) -> None:
        decoded = self.task.decode(output, inputs, self._unwrapped.config)
        self._by_row |= dict(zip(inputs["rows"].tolist(), decoded, strict=True))

    def _forward(self, inputs: dict[str, Tensor]) -> Any:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self._unwrapped(**self._prepare_inputs(inputs))
