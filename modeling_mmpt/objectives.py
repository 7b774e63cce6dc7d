"""The objectives as rows of one table: what each corrupts and reads, its head, its loss and its metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""A label that is not predicted: this class number, or a row of this number where a label is a vector."""

# Losses and metrics return one number for each selected element; the pre-training heads sum and divide.


def token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the true class. logits: (selected, classes); labels: (selected,); returns (selected,)."""
    return F.cross_entropy(logits.float(), labels, reduction="none")


def kl_divergence(logits: Tensor, probs: Tensor) -> Tensor:
    """KL(detector || model), summed over classes, as UNITER, ViLBERT and VOLTA define it.

    logits, probs: (selected, classes), each row of probs sums to 1; returns (selected,).
    """
    return F.kl_div(logits.float().log_softmax(-1), probs.float(), reduction="none").sum(-1)


def squared_error(predicted: Tensor, features: Tensor) -> Tensor:
    """Squared L2 distance divided by the feature's width. Both (selected, feature); returns (selected,)."""
    return F.mse_loss(predicted.float(), features.float(), reduction="none").mean(-1)


def smooth_l1(predicted: Tensor, features: Tensor) -> Tensor:
    """Huber loss with its bend at 1, mean over the feature's width (LXMERT). Both (selected, feature)."""
    return F.smooth_l1_loss(predicted.float(), features.float(), reduction="none").mean(-1)


def hit(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the most likely class is the label."""
    return (most_likely(logits) == labels).float()


def agreement(logits: Tensor, probs: Tensor) -> Tensor:
    """1 where model and detector have the same most likely class."""
    return (most_likely(logits) == most_likely(probs)).float()


def cosine(predicted: Tensor, features: Tensor) -> Tensor:
    """Cosine of the predicted and the true feature."""
    return F.cosine_similarity(predicted.float(), features.float(), dim=-1)


@dataclass(frozen=True)
class Objective:
    """One row of the table.

    Args:
        corrupts: what the collator changes for it.
        reads: which output of the backbone its head reads.
        target: what its labels are; the collator makes them by this word.
        head: the head's name; objectives may share one.
        output: the output field of the head's predictions.
        loss: numbers for each selected element, from predictions and labels.
        metric: the same for its metric, without gradient.
        metric_name: the metric's name in outputs and logs.
        title: what cards and curves call it.
        unit: of the loss.
    """

    corrupts: Literal["tokens", "regions", "pair"]
    reads: Literal["tokens", "regions", "pair"]
    target: Literal["token", "class", "distribution", "features", "match", "attribute", "answer"]
    head: str
    output: str
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    metric_name: str
    title: str
    unit: str


_NATS = "cross-entropy, nats"

# fmt: off
OBJECTIVES: dict[str, Objective] = {
    "mlm": Objective(
        corrupts="tokens", reads="tokens", target="token", head="token", output="mlm_logits",
        loss=token_cross_entropy, metric=hit, metric_name="accuracy",
        title="masked language modelling", unit=_NATS,
    ),
    "mrc": Objective(
        corrupts="regions", reads="regions", target="class", head="region_class", output="mrc_logits",
        loss=token_cross_entropy, metric=hit, metric_name="accuracy",
        title="masked region classification", unit=_NATS,
    ),
    "mrc_kl": Objective(
        corrupts="regions", reads="regions", target="distribution", head="region_class", output="mrc_logits",
        loss=kl_divergence, metric=agreement, metric_name="agreement",
        title="masked region classification with KL divergence", unit="KL divergence, nats",
    ),
    "mrfr": Objective(
        corrupts="regions", reads="regions", target="features", head="region_feature", output="mrfr_prediction",
        loss=squared_error, metric=cosine, metric_name="cosine",
        title="masked region feature regression", unit="squared error",
    ),
    "itm": Objective(
        corrupts="pair", reads="pair", target="match", head="matching", output="itm_logits",
        loss=token_cross_entropy, metric=hit, metric_name="accuracy",
        title="image-text matching", unit=_NATS,
    ),
    "mrc_attribute": Objective(
        corrupts="regions", reads="regions", target="attribute", head="region_attribute", output="mrc_attribute_logits",
        loss=token_cross_entropy, metric=hit, metric_name="accuracy",
        title="attributes of masked regions", unit=_NATS,
    ),
    "qa": Objective(
        corrupts="pair", reads="pair", target="answer", head="answer", output="qa_logits",
        loss=token_cross_entropy, metric=hit, metric_name="accuracy",
        title="question answering", unit=_NATS,
    ),
}
# fmt: on


def is_labelled(labels: Tensor) -> Tensor:
    """Return True where an element has a label: another number than `IGNORED`, or a row not filled with it.

    labels: (...,) class numbers, or (..., width) vectors of floats; returns (...,).
    """
    if labels.is_floating_point():
        if not labels.shape[-1]:
            return labels.new_zeros(labels.shape[:-1], dtype=torch.bool)
        # Both reductions together take an eighth of a comparison of every number.
        return (labels.amax(-1) != IGNORED) | (labels.amin(-1) != IGNORED)
    return labels != IGNORED


def most_likely(scores: Tensor) -> Tensor:
    """Return the first place of the highest score; (..., classes) to (...,).

    `argmax` says the same, four times slower in half precision on a CPU.
    """
    return scores.max(-1).indices


def mean_over(values: Tensor, denominator: Tensor | int) -> Tensor:
    """Return the sum of `values` over max(denominator, 1): 0 with zero gradients where nothing was selected."""
    count = torch.as_tensor(denominator, device=values.device, dtype=values.dtype)
    return values.sum() / count.clamp(min=1)
