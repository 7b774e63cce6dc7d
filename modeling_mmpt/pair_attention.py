"""Two encoded pairs that attend to each other: UNITER's head for NLVR2."""

import torch
from torch import Tensor, nn

from mmpt.configuration.configuration_mmpt import MmptConfig
from mmpt.modeling_mmpt.dropout import MmptDropout
from mmpt.modeling_mmpt.embeddings import attend_to_some_region
from mmpt.modeling_mmpt.layers import MmptAttention
from mmpt.modeling_mmpt.modeling_base import MmptModelOutput, key_mask, text_mask


class MmptAttentionPool(nn.Module):
    """A mean of states by weights that a score of each gives (UNITER)."""

    def __init__(self, config: MmptConfig) -> None:
        super().__init__()
        self.score = nn.Linear(config.hidden_size, 1)
        self.dropout = MmptDropout(config.attention_probs_dropout_prob)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (batch, hidden); mask: (batch, length), True where a state counts."""
        scores = self.score(hidden).relu().squeeze(-1).masked_fill(~mask, torch.finfo(hidden.dtype).min)
        weights = self.dropout(scores.softmax(1))
        return (weights[:, :, None] * hidden).sum(1)


class MmptPairAttention(nn.Module):
    """The states of each pair attend to those of the other, and are pooled by attention (Chen et al. 2020, UNITER).

    Reads the joint view: text and regions in the single stream, the text stream in the dual.
    """

    def __init__(self, config: MmptConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.first_to_second = MmptAttention(config, size, size, size, config.num_attention_heads)
        self.second_to_first = MmptAttention(config, size, size, size, config.num_attention_heads)
        self.merge = nn.Linear(2 * size, size)
        self.dropout = MmptDropout(config.hidden_dropout_prob)
        self.pool = MmptAttentionPool(config)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (batch, 2 * hidden) from states (2 * batch, length, hidden), a pair in rows 2i and 2i + 1.

        Args:
            mask: (2 * batch, length), True where a state counts.
        """
        (first, second), (first_mask, second_mask) = hidden.unflatten(0, (-1, 2)).unbind(1), _halves(mask)
        first_keys = key_mask(self.config, second, first_mask, first)
        second_keys = key_mask(self.config, first, second_mask, second)
        seen_by_first, _ = self.first_to_second(first, second, second_keys)
        seen_by_second, _ = self.second_to_first(second, first, first_keys)
        pooled = []
        for seen, own, own_mask in ((seen_by_first, first, first_mask), (seen_by_second, second, second_mask)):
            merged = self.dropout(self.merge(torch.cat([seen, own], -1)).relu())
            pooled.append(self.pool(merged, own_mask))
        return torch.cat(pooled, -1)


def joint_mask(states: MmptModelOutput, inputs: dict[str, Tensor | None]) -> Tensor:
    """Return (batch, length), True where the joint view of a backbone has a token or a region."""
    text, joint = states.text_last_hidden_state, states.last_hidden_state
    assert text is not None
    assert joint is not None
    mask = text_mask(inputs.get("attention_mask"), text, inputs.get("task_ids") is not None)
    if joint.shape[1] == text.shape[1]:
        return mask
    regions = inputs.get("region_attention_mask")
    if regions is None:
        regions = mask.new_ones(mask.shape[0], joint.shape[1] - text.shape[1])
    return torch.cat([mask, attend_to_some_region(regions)], 1)


def _halves(mask: Tensor) -> tuple[Tensor, ...]:
    return mask.unflatten(0, (-1, 2)).unbind(1)
