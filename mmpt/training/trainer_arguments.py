"""Which arguments of transformers' Trainer this package's trainers refuse: those that would do nothing or mislead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmpt.configuration.errors import MmptValueError

Given = Mapping[str, Any]
"""Fields of TrainingArguments and parameters of Trainer by name; no name is both."""


@dataclass(frozen=True)
class Refusal:
    """An argument that is refused.

    Args:
        name: of the field or parameter.
        applies: whether what was given is refused.
        instead: why, and what to do.
    """

    name: str
    applies: Callable[[Given], Any]
    instead: str


def _reads_our_columns(given: Given) -> bool:
    collator = type(given.get("data_collator")).__module__ or ""
    return bool(given["remove_unused_columns"]) and collator.startswith("mmpt.")


def _is_split(given: Given) -> bool:
    config = given["parallelism_config"]
    return config is not None and any(getattr(config, f"{kind}_size", 1) > 1 for kind in ("tp", "cp", "sp"))


REFUSED_BY_BOTH = (
    Refusal(
        "data_collator",
        lambda given: given.get("data_collator") is None,
        "examples are texts with regions, which the default collator cannot put together; pass "
        "MmptDataCollator(processor, model.config) for pre-training, a TaskDataCollator for a task",
    ),
    Refusal(
        "remove_unused_columns",
        _reads_our_columns,
        "the collator reads columns that the model does not; use False, or MmptTrainingArguments",
    ),
    Refusal(
        "prediction_loss_only",
        lambda given: given["prediction_loss_only"] and given.get("compute_metrics") is not None,
        "compute_metrics would never be called; leave prediction_loss_only out, or compute_metrics",
    ),
    Refusal(
        "use_liger_kernel",
        lambda given: given["use_liger_kernel"],
        "Liger has no kernels for these models; leave it out, or choose attn_implementation and torch_compile",
    ),
    Refusal(
        "parallelism_config",
        _is_split,
        "these models have no tensor, context or sequence parallelism; use data parallelism (torchrun) or fsdp",
    ),
)

REFUSED_BY_PRE_TRAINING = (
    *REFUSED_BY_BOTH,
    Refusal(
        "compute_loss_func",
        lambda given: given.get("compute_loss_func") is not None,
        "it would replace the objectives' losses, which are summed over micro-batches and processes; add an objective "
        "(docs/adding-an-objective.md), or override MmptTrainer.compute_loss",
    ),
    Refusal(
        "label_smoothing_factor",
        lambda given: given["label_smoothing_factor"],
        "the objectives' losses have no smoothing; leave it at 0, or use the objective 'mrc_kl' for soft classes",
    ),
    Refusal(
        "average_tokens_across_devices",
        lambda given: not given["average_tokens_across_devices"],
        "losses are always divided by the elements of all processes; leave it at True",
    ),
    Refusal(
        "length_column_name",
        lambda given: given["length_column_name"] != "length",
        "'group_by_length' measures the texts themselves; leave it out",
    ),
)

REFUSED_BY_FINE_TUNING = (
    *REFUSED_BY_BOTH,
    Refusal(
        "train_sampling_strategy",
        lambda given: given["train_sampling_strategy"] == "group_by_length",
        "only pre-training groups by length; use 'random' or 'sequential'",
    ),
    Refusal(
        "length_column_name",
        lambda given: given["length_column_name"] != "length",
        "fine-tuning does not group by length; leave it out",
    ),
)


def check_arguments(owner: str, given: Given, refusals: tuple[Refusal, ...]) -> None:
    """Raise if an argument is one that the trainer refuses.

    Args:
        owner: the trainer's name, for the message.

    Raises:
        ValueError: naming the argument, its value and what to do.
    """
    for refusal in refusals:
        if refusal.applies(given):
            value = repr(given.get(refusal.name))
            shown = value if len(value) < 60 else f"{value[:57]}..."
            raise MmptValueError(f"{owner} does not take {refusal.name}={shown}: {refusal.instead}")


def check_label_names(owner: str, label_names: list[str] | None, expected: list[str]) -> None:
    """Raise if label names are given that the trainer would not read.

    Raises:
        ValueError: naming them, and those that it reads.
    """
    if label_names is not None and sorted(label_names) != sorted(expected):
        raise MmptValueError(
            f"{owner} does not take label_names={label_names}: the labels of this model are {expected}; leave it out"
        )
