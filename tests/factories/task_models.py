"""Tiny models of the downstream tasks, with batches and labels for them."""

from typing import Any

import torch
from torch import Tensor

from mmpt.modeling_mmpt.task_base import MmptTaskModel
from mmpt.modeling_mmpt.task_models import MODELS
from mmpt.processing.tasks.collator import layout_of_rows
from tests.factories.models import BATCH, REGION_COUNTS, REGIONS, STREAMS, tiny_batch, tiny_config

CLASSES, CHOICES = 3, 4
TASKS = (
    "QuestionAnswering",
    "SequenceClassification",
    "ImagesAndTextClassification",
    "MultipleChoice",
    "ImageAndTextRetrieval",
    "Grounding",
    "RegionToPhraseAlignment",
)
DECIDING = TASKS[:4]
"""The tasks whose decision each modality can make by itself."""

CASES = [(stream, task) for stream in STREAMS for task in TASKS]
DECIDING_CASES = [(stream, task) for stream in STREAMS for task in DECIDING]


def task_class(stream: str, task: str) -> type[MmptTaskModel]:
    """Return the class of a task."""
    return MODELS[f"Mmpt{stream.capitalize()}StreamFor{task}"]


def tiny_task(stream: str, task: str, seed: int = 0, **overrides: Any) -> MmptTaskModel:
    """Return a model in evaluation mode, whose weights are large enough that every input matters."""
    torch.manual_seed(seed)
    config = tiny_config(stream, **{"num_labels": CLASSES, "region_type_embedding": "own", **overrides})
    model = task_class(stream, task)(config)
    return model.eval()


def task_batch(task: str, seed: int = 0) -> dict[str, Tensor]:
    """Return the inputs of a task, ragged; what is padding holds random numbers."""
    batch = tiny_batch(seed)
    if task == "ImagesAndTextClassification":
        second = tiny_batch(seed + 100)
        return {k: torch.stack([v, second[k]], 1) if "region" in k else v for k, v in batch.items()}
    if task == "MultipleChoice":
        others = [tiny_batch(seed + 100 + choice) for choice in range(CHOICES - 1)]
        return {
            k: v if "region" in k else torch.stack([v, *(other[k] for other in others)], 1) for k, v in batch.items()
        }
    if task == "RegionToPhraseAlignment":
        batch["phrase_positions"] = torch.tensor([[1, 3], [2, -100], [-100, -100]])
    return batch


def task_layout(config: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the layout of a task's batch, as the collator writes it."""
    masks = {name: batch[name] for name in ("attention_mask", "region_attention_mask")}
    return layout_of_rows(config, masks)


def task_labels(task: str, seed: int = 0) -> Tensor:
    """Return labels of a task for its batch."""
    draw = torch.Generator().manual_seed(seed)
    if task == "QuestionAnswering":
        return torch.rand(BATCH, CLASSES, generator=draw)
    padding = torch.arange(REGIONS) >= torch.tensor(REGION_COUNTS)[:, None]
    if task == "Grounding":
        return torch.rand(BATCH, REGIONS, generator=draw).masked_fill(padding, -100.0)
    if task == "RegionToPhraseAlignment":
        labels = torch.full((BATCH, 2, REGIONS), -100.0)
        labels[0, 0], labels[0, 1] = torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0, 0, 0, 1.0])
        labels[1, 0] = torch.tensor([0, 1.0, 0, 0])
        return labels
    return torch.tensor([0, 1, 2])
