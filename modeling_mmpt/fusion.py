"""Decisions as probabilities, and the rules that combine them (Kittler et al. 1998, On combining classifiers)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.input_checks import AXES, check_tensors, refuse_unknown_inputs

DECISIONS = ("joint", "text", "regions")
"""Who decides: both modalities together, and each by itself."""

LATE_DECISIONS = ("text", "regions")


@dataclass
class FusedDecision:
    """What the decisions say together.

    Args:
        logits: (batch, classes), whose softmax (classes) or sigmoid (answers) is the combined probability.
        weights: (batch, decisions), in the order of the decisions that were combined; each row sums to 1. Where the
            rule is "max", 1 for the decision that gave the predicted class its probability.
    """

    logits: Tensor
    weights: Tensor


class MmptWeightedMean(nn.Module):
    """The mean of probabilities with one learned weight a decision; equal weights at the start."""

    def __init__(self, decisions: int) -> None:
        super().__init__()
        self.weight_logits = nn.Parameter(torch.zeros(decisions))

    def forward(self, log_probs: Tensor, present: list[int]) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (batch, ...) and weights (batch, decisions); log_probs: (batch, decisions, ...).

        Args:
            present: which of the module's decisions are given; the others' weight goes to these.
        """
        log_weights = self.weight_logits[present].log_softmax(0)
        spread = log_weights.view(1, -1, *(1,) * (log_probs.dim() - 2))
        return (log_probs + spread).logsumexp(1), log_weights.exp().expand(log_probs.shape[0], -1)


class MmptDecisionFusion(nn.Module):
    """Combine the decisions of `fusion="late"` or `"hybrid"`.

    Args:
        late_rule: "mean", "max", "product" or "learned", for text and regions.
        hybrid: weigh the joint decision against the combined late one, by learned weights.
        answers: each class is a question of its own (sigmoid), as in question answering with binary cross-entropy;
            else the classes exclude each other (softmax).
    """

    def __init__(self, late_rule: str, hybrid: bool, answers: bool) -> None:
        super().__init__()
        self.answers = answers
        self.rule = None if late_rule == "learned" else RULES[late_rule]
        self.late = MmptWeightedMean(len(LATE_DECISIONS)) if late_rule == "learned" else None
        self.hybrid = MmptWeightedMean(2) if hybrid else None

    def forward(self, decisions: Mapping[str, Tensor]) -> FusedDecision:
        """Combine logits (batch, classes) by the name of the decision; a modality that was not given has none.

        Weights follow the order of `DECISIONS`, of which the given ones count.
        """
        late_names = [name for name in LATE_DECISIONS if name in decisions]
        outcomes = {name: log_outcomes(logits, self.answers) for name, logits in decisions.items()}
        combined, weights = self._combine_late(torch.stack([outcomes[name] for name in late_names], 1), late_names)
        if self.hybrid is not None:
            # The weighted mean needs a distribution, which neither a maximum nor a product is.
            combined = combined.log_softmax(-1)
            combined, halves = self.hybrid(torch.stack([outcomes["joint"], combined], 1), [0, 1])
            weights = torch.cat([halves[:, :1], halves[:, 1:] * weights], 1)
        return FusedDecision(to_logits(combined, self.answers), weights)

    def _combine_late(self, log_probs: Tensor, names: list[str]) -> tuple[Tensor, Tensor]:
        if self.late is not None:
            return self.late(log_probs, [LATE_DECISIONS.index(name) for name in names])
        assert self.rule is not None
        return self.rule(log_probs, self.answers)


class MmptLateFusion(nn.Module):
    """Two separately trained models, one of texts and one of images, whose decisions are combined.

    Each gets the batch without the other modality. The image's model must have a pooled vector of regions: train it
    with `fusion="late"`, or with `pooled_fusion` "mul" or "sum".

    Args:
        text_model: a model of this package that classifies or answers.
        region_model: another for the same classes, for images alone.
        rule: "mean", "max", "product" or "learned"; the learned weights are this module's only parameters of its own.

    Raises:
        ValueError: if the models do not decide the same thing.
    """

    def __init__(self, text_model: PreTrainedModel, region_model: PreTrainedModel, rule: str = "mean") -> None:
        super().__init__()
        if rule not in (*RULES, "learned"):
            raise MmptValueError(f"rule is {rule!r}, expected one of {', '.join((*RULES, 'learned'))}")
        labels = [sorted((model.config.id2label or {}).items()) for model in (text_model, region_model)]
        if labels[0] != labels[1]:
            raise MmptValueError(
                f"the models have other labels, {labels[0][:5]!r} and {labels[1][:5]!r}, expected the same in one order"
            )
        kinds = [getattr(model, "decides_answers", None) for model in (text_model, region_model)]
        if None in kinds or kinds[0] != kinds[1]:
            raise MmptValueError(
                f"got {type(text_model).__name__} and {type(region_model).__name__}, expected two models for question "
                "answering with one answer_loss, or two for classification"
            )
        self.text_model, self.region_model = text_model, region_model
        self.fusion = MmptDecisionFusion(rule, hybrid=False, answers=bool(kinds[0]))

    def forward(self, **batch: Any) -> FusedDecision:
        """Return the combined decision on a batch of both modalities; labels in it are not read."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        refuse_unknown_inputs(self, {name: value for name, value in inputs.items() if name not in AXES}, AXES)
        given = {name: value for name, value in inputs.items() if name in AXES and value is not None}
        if not given:
            raise MmptValueError("got no input, expected text (input_ids) and regions (region_features)")
        check_tensors(given)
        logits = {
            "text": self.text_model(**{k: v for k, v in inputs.items() if not is_of_regions(k)}).logits,
            "regions": self.region_model(**{k: v for k, v in inputs.items() if is_of_regions(k)}).logits,
        }
        if logits["text"].shape != logits["regions"].shape:
            rows = [len(each) for each in logits.values()]
            raise MmptValueError(f"got {rows[0]} texts and regions of {rows[1]} images, expected one text an image")
        return self.fusion(logits)


def is_of_regions(name: str) -> bool:
    """Return whether an input of the models belongs to the regions; the others belong to the text."""
    return "region" in name


def log_outcomes(logits: Tensor, answers: bool) -> Tensor:
    """Return log-probabilities: (batch, classes), or (batch, answers, 2) of yes and no."""
    logits = logits.float()
    if answers:
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], -1)
    return logits.log_softmax(-1)


def to_logits(log_probs: Tensor, answers: bool) -> Tensor:
    """Return what `log_outcomes` undoes, up to a constant a row where the classes exclude each other."""
    return log_probs[..., 0] - log_probs[..., 1] if answers else log_probs


def _mean(log_probs: Tensor, answers: bool) -> tuple[Tensor, Tensor]:
    return log_probs.logsumexp(1) - math.log(log_probs.shape[1]), _equal_weights(log_probs)


def _product(log_probs: Tensor, answers: bool) -> tuple[Tensor, Tensor]:
    return log_probs.sum(1), _equal_weights(log_probs)


def _max(log_probs: Tensor, answers: bool) -> tuple[Tensor, Tensor]:
    combined, winner = log_probs.max(1)  # (batch, classes), or (batch, answers, 2)
    if answers:
        combined, winner = combined[..., 0] - combined[..., 1], winner[..., 0]
    best = winner.gather(1, combined.argmax(1, keepdim=True)).squeeze(1)  # (batch,)
    weights = F.one_hot(best, log_probs.shape[1]).to(log_probs.dtype)
    return log_probs.amax(1), weights


def _equal_weights(log_probs: Tensor) -> Tensor:
    batch, decisions = log_probs.shape[:2]
    return log_probs.new_full((batch, decisions), 1 / decisions)


RULES: dict[str, Callable[[Tensor, bool], tuple[Tensor, Tensor]]] = {"mean": _mean, "max": _max, "product": _product}
"""The rules without parameters: from log-probabilities (batch, decisions, ...) to combined ones and weights."""
