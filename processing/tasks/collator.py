"""The collator of the downstream tasks: examples to a batch with the labels of the task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.data.data_collator import DataCollatorMixin

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.input_checks import NOT_FOR_THE_MODEL as NOT_FOR_THE_MODEL
from mmpt.modeling_mmpt.unpadding import batch_layout
from mmpt.processing.batch_checks import check_tokenizer, tokens_of_a_text
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.tasks.encoding import Blank, TaskBatch, TaskEncoder

Example = Mapping[str, Any]
MakeInputs = Callable[[TaskEncoder, Sequence[Example]], TaskBatch]
MakeLabels = Callable[[Sequence[Example], TaskBatch, Mapping[str, int]], dict[str, Tensor]]


@dataclass
class TaskDataCollator(DataCollatorMixin):
    """Make the inputs and the labels of a task; `mmpt.tasks.table` has the functions for each.

    An example is a dict as `TaskDataset` gives it. Beside the model's inputs a batch has `rows` (batch,), the
    examples' numbers, and the layout (`layout_...`), by which the model computes nothing in padding.

    Args:
        processor: tokenizer and region processor.
        config: of the model that the batch is for.
        inputs: makes the inputs.
        labels: makes the labels; None leaves them out.
        max_text_length: tokens a text is cut to, specials included; the model's positions by default.
        blank: the modality that the model is not to see, "text" or "regions".

    Raises:
        ValueError: if the tokenizer does not fit the model, or `max_text_length` is too short; on a call, if examples
            lack what the task needs.
    """

    processor: MmptProcessor
    config: MmptConfig
    inputs: MakeInputs
    labels: MakeLabels | None = None
    max_text_length: int | None = None
    blank: Blank | None = None
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        check_tokenizer(tokenizer, self.config)
        if self.blank not in (None, "text", "regions"):
            raise MmptValueError(f"blank is {self.blank!r}, expected 'text', 'regions' or None")
        max_tokens = tokens_of_a_text(self.max_text_length, tokenizer, self.config)
        self._encoder = TaskEncoder(self.processor, self.config, max_tokens, self.blank)
        self._numbers = {str(name): int(number) for number, name in (self.config.id2label or {}).items()}

    def torch_call(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the batch."""
        if not len(examples):
            raise MmptValueError("got a batch without examples, expected at least one")
        batch = self.inputs(self._encoder, examples)
        labels = {} if self.labels is None else self.labels(examples, batch, self._numbers)
        rows = torch.tensor([example.get("row", place) for place, example in enumerate(examples)])
        return {**batch.tensors, **labels, **layout_of_rows(self.config, batch.tensors), "rows": rows}


def layout_of_rows(config: MmptConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the layout of what a task's model encodes: a row for each choice, or for each image of a pair.

    Empty where nothing is padded: models then find the places that are pooled by themselves.

    Args:
        tensors: the masks, `attention_mask` and `region_attention_mask`, among others.
    """
    text, regions = tensors["attention_mask"].numpy(), tensors["region_attention_mask"].numpy()
    if text.all() and regions.all():
        return {}
    if text.ndim == 3:
        regions, text = regions.repeat(text.shape[1], 0), text.reshape(-1, text.shape[2])
    elif regions.ndim == 3 and config.image_pair == "triplet":
        regions = regions.reshape(len(regions), -1)
    elif regions.ndim == 3:
        text, regions = text.repeat(regions.shape[1], 0), regions.reshape(-1, regions.shape[2])
    return batch_layout(config, text, regions)


def without_labels(collator: TaskDataCollator) -> TaskDataCollator:
    """Return the same collator, which asks for no labels."""
    return replace(collator, labels=None)
