"""Attention between words and regions, and the relevance that is computed from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

METHOD = (
    "gradient-weighted attention: Chefer, Gur and Wolf, Generic Attention-model Explainability for Interpreting "
    "Bi-Modal and Encoder-Decoder Transformers, ICCV 2021"
)
EAGER = "recomputed with eager attention: other implementations return no weights"


@dataclass
class Attention:
    """What attends to what, of one example.

    Args:
        text_to_region: (layers, heads, tokens, regions): how much each token attends to each region. In the single
            stream a row sums to 1 only together with the attention to the text. None with late fusion.
        region_to_text: (layers, heads, regions, tokens).
        relevance_of_tokens: (tokens,), of each token for the decision, by `METHOD`.
        relevance_of_regions: (regions,), of each region.
    """

    text_to_region: NDArray[Any] | None
    region_to_text: NDArray[Any] | None
    relevance_of_tokens: NDArray[Any]
    relevance_of_regions: NDArray[Any]


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Let a model compute attention in the way that returns its weights, and then as before."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend(
    model: Any,
    inputs: dict[str, Tensor],
    score: Callable[[Any], Tensor],
    token: int | None,
    region: int | None,
) -> Attention:
    """Run a model with gradients and return attention and relevance.

    Args:
        inputs: a batch of one row.
        score: from the output to the number that is explained, a logit.
        token: where in the text the decision is read; None if nowhere.
        region: where among the regions it is read; None if nowhere.
    """
    with eager_attention(model), torch.enable_grad():
        features = inputs["region_features"].detach().clone().requires_grad_()
        output = model(**{**inputs, "region_features": features}, output_attentions=True)
        weights = _Weights.of(output)
        weights.add_gradients(score(output))
    tokens, regions = inputs["input_ids"].shape[1], features.shape[1]
    rows = weights.relevance(model.config, tokens, regions)
    read = [place for place in (token, None if region is None else tokens + region) if place is not None]
    relevance = rows[read].sum(0)
    return Attention(
        _stacked(output.text_to_region_attentions),
        _stacked(output.region_to_text_attentions),
        relevance[:tokens].numpy(),
        relevance[tokens:].numpy(),
    )


@dataclass
class _Weights:
    """Attention weights by kind, a tensor a layer; after `add_gradients` the mean over heads, weighted by gradients."""

    joint: list[Tensor] = field(default_factory=list)
    text: list[Tensor] = field(default_factory=list)
    regions: list[Tensor] = field(default_factory=list)
    text_to_region: list[Tensor] = field(default_factory=list)
    region_to_text: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, output: Any) -> "_Weights":
        separate = output.region_attentions and output.region_attentions[0] is not None
        # In the single stream the other tensors are views of the joint ones, which the decision depends on.
        single = output.attentions is not None and output.attentions and _is_joint(output)
        if single or not separate:
            return cls(joint=list(output.attentions or ()))
        names = ("text_attentions", "region_attentions", "text_to_region_attentions", "region_to_text_attentions")
        parts: list[list[Tensor]] = [list(getattr(output, name) or ()) for name in names]
        return cls([], *parts)

    def add_gradients(self, score: Tensor) -> None:
        """Replace each layer's weights by the mean over heads of max(gradient * weight, 0), (queries, keys)."""
        kinds = (self.joint, self.text, self.regions, self.text_to_region, self.region_to_text)
        every = [each for kind in kinds for each in kind]
        asked = [each for each in every if each.requires_grad]
        found = iter(torch.autograd.grad(score, asked, allow_unused=True) if asked else ())
        for kind in kinds:
            for place, weight in enumerate(kind):
                gradient = next(found) if weight.requires_grad else None
                weighed = torch.zeros_like(weight) if gradient is None else (gradient * weight).clamp(min=0)
                kind[place] = weighed[0].float().mean(0).detach().cpu()

    def relevance(self, config: Any, tokens: int, regions: int) -> Tensor:
        """Return (tokens + regions, tokens + regions): of each place (column) for each (row)."""
        if self.joint:
            relevance = torch.eye(tokens + regions)
            for weight in self.joint:
                relevance = relevance + weight @ relevance
            return relevance
        both = _Both(torch.eye(tokens), torch.eye(regions), torch.zeros(tokens, regions), torch.zeros(regions, tokens))
        done = (0, 0)
        stops = zip(config.text_co_attention_layers, config.region_co_attention_layers, strict=True)
        for number, stop in enumerate(stops):
            both.attend_to_themselves(self.text[done[0] : stop[0]], self.regions[done[1] : stop[1]])
            if number < len(self.text_to_region):
                both.attend_to_each_other(self.text_to_region[number], self.region_to_text[number])
            done = stop
        both.attend_to_themselves(self.text[done[0] :], self.regions[done[1] :])
        return torch.cat([torch.cat([both.tt, both.tr], 1), torch.cat([both.rt, both.rr], 1)])


@dataclass
class _Both:
    """Relevance in two streams, of text (t) and regions (r) for each other: equations 5 to 11 of the paper."""

    tt: Tensor
    rr: Tensor
    tr: Tensor
    rt: Tensor

    def attend_to_themselves(self, text: Sequence[Tensor], regions: Sequence[Tensor]) -> None:
        for weight in text:
            self.tr, self.tt = self.tr + weight @ self.tr, self.tt + weight @ self.tt
        for weight in regions:
            self.rt, self.rr = self.rt + weight @ self.rt, self.rr + weight @ self.rr

    def attend_to_each_other(self, text_to_region: Tensor, region_to_text: Tensor) -> None:
        tt, rr = _normalised(self.tt), _normalised(self.rr)
        more = (
            text_to_region @ self.rt,
            region_to_text @ self.tr,
            tt.T @ text_to_region @ rr,
            rr.T @ region_to_text @ tt,
        )
        self.tt, self.rr, self.tr, self.rt = (
            old + new for old, new in zip((self.tt, self.rr, self.tr, self.rt), more, strict=True)
        )


def _normalised(relevance: Tensor) -> Tensor:
    """Return the relevance with rows beside the identity that sum to 1, or to 0 where there is nothing yet."""
    own = torch.eye(len(relevance))
    beside = relevance - own
    sums = beside.sum(-1, keepdim=True)
    return beside / sums.masked_fill(sums == 0, 1) + own


def _is_joint(output: Any) -> bool:
    """Return whether `attentions` are those of text and regions in one sequence."""
    text = output.text_attentions
    return bool(text) and output.attentions[0].shape[-1] > text[0].shape[-1]


def _stacked(weights: Sequence[Tensor] | None) -> NDArray[np.float32] | None:
    """Return (layers, heads, queries, keys) of a batch of one row; None where there are none."""
    if not weights or weights[0] is None:
        return None
    return torch.stack([each[0] for each in weights]).detach().float().cpu().numpy()
