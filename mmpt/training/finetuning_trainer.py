"""FineTuningTrainer: the checked Trainer for a downstream task, with its metric, predictions and learning rates."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers.trainer_utils import EvalLoopOutput

from mmpt.configuration.errors import MmptTypeError, MmptValueError
from mmpt.modeling_mmpt.unpadding import without_layout
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL, without_labels
from mmpt.processing.tasks.dataset import TaskDataset
from mmpt.tasks.layer_rates import parameter_groups
from mmpt.tasks.predictions import Prediction, label_numbers
from mmpt.tasks.table import Task
from mmpt.training.base_trainer import CheckedTrainer
from mmpt.training.trainer_arguments import REFUSED_BY_FINE_TUNING, check_label_names

GROUP = 16
"""Rows whose retrieval loss is evaluated together."""


class FineTuningTrainer(CheckedTrainer):
    """Train a model of a downstream task on a `TaskDataset`, and measure it by the task's metric.

    - Evaluation logs `eval_loss` and every measure of the task, over all processes, each example counted once; what
      was predicted is then in `predictions`, a row each.
    - The learning rate may fall from the head to the embeddings, and the head have one of its own.
    - Accumulation takes the mean of the micro-batches' losses.
    - `eval_loss` does not depend on the batch size or the processes: it is the mean over all examples, weighed as the
      task's loss weighs them. That of retrieval, where a batch's rows are each other's negatives, is taken in groups of
      at most 16 rows in the order of the table.
    - `label_smoothing_factor` is the model's own `label_smoothing`, with its class weights.
    - With `compute_metrics`, and in `predict`, logits and labels are gathered as `transformers.Trainer` does.

    Args:
        task: the row of the table of tasks.
        layer_decay: factor of the learning rate for each level below the head.
        head_factor: factor of the head's learning rate.

    Further arguments are those of `transformers.Trainer`, unless `mmpt.training.trainer_arguments` refuses them;
    `data_collator` is a `TaskDataCollator` with labels.
    """

    refusals = REFUSED_BY_FINE_TUNING

    def __init__(self, *args: Any, task: Task, layer_decay: float = 1.0, head_factor: float = 1.0, **kwargs: Any):
        self.task = task
        self.layer_decay = layer_decay
        self.head_factor = head_factor
        super().__init__(*args, **kwargs)
        self._check_optimizers()
        self._smooth_labels(self.model)
        self.label_smoother = None  # transformers' knows neither class weights nor soft labels
        self.label_names = ["labels"]
        check_label_names(type(self).__name__, self.args.label_names, self.label_names)
        for table in self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]:
            if table is not None:
                _check_table(table)
        self.predictions: list[Prediction] = []
        self._by_row: dict[int, Prediction] = {}
        self._eval_loss = torch.zeros(2, dtype=torch.float64)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Return a new model, with the smoothing that the arguments name."""
        model = super().call_model_init(trial)
        self._smooth_labels(model)
        return model

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return transformers' DataLoader; no labels are asked of a table that has none."""
        _check_table(test_dataset)
        collator: Any = self.data_collator
        if not self._has_labels(test_dataset):
            self.data_collator = without_labels(collator)
        try:
            return super().get_test_dataloader(test_dataset)
        finally:
            self.data_collator = collator

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
            chosen = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, learner)
            optimizer_class, options = chosen
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

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """Predict a batch; examples that only fill up the last batch of several processes are not counted."""
        inputs = self._prepare_inputs(inputs)  # type: ignore[assignment]
        state, rows, labels = self.accelerator.gradient_state, len(inputs["rows"]), inputs.get("labels")
        own = rows
        if self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0:
            own = min(max(state.remainder - self.accelerator.process_index * rows, 0), rows)
            inputs = {name: value[: max(own, 1)] for name, value in without_layout(inputs).items()}
        loss = None
        with torch.no_grad(), self.compute_loss_context_manager():
            if labels is None:
                output = model(**{name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL})
            else:
                count = self._get_num_items_in_batch([inputs], self.args.device)
                loss, output = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=count)
                loss = loss.detach().mean()
        if own:
            if self.task.rank is None:
                self._keep(inputs, output)
            if loss is not None:
                weighs_rows = self.compute_loss_func is not None
                total = own if weighs_rows else self._unwrapped.loss_denominator(inputs["labels"])
                if total:
                    self._eval_loss += torch.tensor([float(loss) * total, total], dtype=torch.float64)
        if prediction_loss_only:
            return loss, None, None
        ignored = {
            "loss",
            *(self._unwrapped.config.keys_to_ignore_at_inference if ignore_keys is None else ignore_keys),
        }
        logits = tuple(_with_rows(value, rows) for name, value in output.items() if name not in ignored)
        return loss, logits[0] if len(logits) == 1 else logits, labels

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Run transformers' loop, and add the exact loss and the task's measures."""
        dataset: Any = dataloader.dataset
        _check_table(dataset)
        self._by_row, self._eval_loss = {}, torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        has_labels = self._has_labels(dataset)
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
        if not has_labels:
            return output
        if self.task.rank is not None and self.compute_loss_func is None:
            self._eval_loss = self._loss_of_groups(dataset)
        measures = self.task.score(self.predictions, dataset, label_numbers(self._unwrapped.config))
        total, count = torch.stack(gather_object([self._eval_loss])).sum(0).tolist()
        prefix = kwargs.get("metric_key_prefix", "eval")
        return self.with_measures(output, prefix, {"loss": total / count if count else 0.0, **measures})

    @property
    def _unwrapped(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _keep(self, inputs: Mapping[str, Tensor], output: Any) -> None:
        decoded = self.task.predict(output, inputs, self._unwrapped.config)
        self._by_row |= dict(zip(inputs["rows"].tolist(), decoded, strict=True))

    def _loss_of_groups(self, dataset: TaskDataset) -> Tensor:
        """Return (2,), the sum of the loss of groups of rows that are each other's negatives, by rows, and the rows.

        Groups are of the table, not of a batch, and each process takes its share of them.
        """
        groups = torch.arange(len(dataset)).tensor_split(math.ceil(len(dataset) / GROUP))
        sums = torch.zeros(2, dtype=torch.float64)
        for group in groups[self.accelerator.process_index :: self.accelerator.num_processes]:
            inputs = self.data_collator([dataset[row] for row in group.tolist()])
            output = self._forward({k: v for k, v in inputs.items() if k not in NOT_FOR_THE_MODEL})
            sums += torch.tensor([float(output.loss) * len(group), len(group)], dtype=torch.float64)
        return sums

    def _has_labels(self, dataset: Any) -> bool:
        """Return whether the table has what the task learns from; a class may be given by its name."""
        names = {name for column in self.task.label_columns for name in (column, f"{column}_name")}
        return not names or not names.isdisjoint(dataset.table.column_names)

    def _check_optimizers(self) -> None:
        if self.optimizer is not None and (self.layer_decay != 1 or self.head_factor != 1):
            raise MmptValueError(
                f"{type(self).__name__} does not take optimizers with layer_decay={self.layer_decay} and "
                f"head_factor={self.head_factor}: the optimiser has its learning rates already; pass "
                "optimizer_cls_and_kwargs, or leave the two out"
            )

    def _smooth_labels(self, model: Any) -> None:
        """Set the smoothing of the model's own loss to what the arguments name.

        Raises:
            ValueError: if the task has no classes to smooth, or the model has another smoothing already.
        """
        factor = self.args.label_smoothing_factor
        if not factor:
            return
        if not self.task.models["single"].has_class_loss:
            raise MmptValueError(
                f"{type(self).__name__} does not take label_smoothing_factor={factor} for this task: its labels are "
                "not classes, which alone can be smoothed; leave it at 0"
            )
        if not 0 <= factor < 1:
            raise MmptValueError(f"label_smoothing_factor is {factor}, expected 0 or more and less than 1")
        if model.config.label_smoothing not in (0, factor):
            raise MmptValueError(
                f"label_smoothing_factor is {factor} and the model's label_smoothing {model.config.label_smoothing}; "
                "give one of them"
            )
        model.config.label_smoothing = factor

    def _forward(self, inputs: dict[str, Tensor]) -> Any:
        with torch.no_grad(), self.compute_loss_context_manager():
            return self._unwrapped(**self._prepare_inputs(inputs))


def _check_table(dataset: Any) -> None:
    if not isinstance(dataset, TaskDataset):
        raise MmptTypeError(
            f"the evaluation rows are a {type(dataset).__name__}, expected a TaskDataset, because the task's measures "
            "read its table; for some of its rows take TaskDataset(table.select(rows), regions, columns)"
        )


def _with_rows(value: Tensor, rows: int) -> Tensor:
    """Return a tensor with so many rows, the last one repeated: every process gathers the same number."""
    return value if len(value) == rows else torch.cat([value, value[-1:].expand(rows - len(value), *value.shape[1:])])
