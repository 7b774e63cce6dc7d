"""Attention, feed-forward and the two kinds of encoder layer; all post-norm, as in BERT."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptDualStreamConfig
from mmpt.modeling_mmpt.dropout import MmptDropout, apply_dropout
from mmpt.modeling_mmpt.unpadding import Layout, Places, PooledPlaces

PLAIN_ATTENTION_KEYS = 200
"""Up to so many keys, half precision on a CPU is attended to without the fused kernel."""


class MmptAttention(nn.Module):
    """Multi-head attention of `hidden` to `context`, with the output projection but without residual and norm.

    Self-attention passes the same tensor twice.

    Args:
        query_size: width of `hidden`, and of the output.
        context_size: width of `context`.
        inner_size: width of all heads together.
    """

    is_causal = False

    def __init__(self, config: MmptConfig, query_size: int, context_size: int, inner_size: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = inner_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout_prob = config.attention_probs_dropout_prob
        self.query = nn.Linear(query_size, inner_size)
        self.key = nn.Linear(context_size, inner_size)
        self.value = nn.Linear(context_size, inner_size)
        self.output = nn.Linear(inner_size, query_size)

    def forward(
        self,
        hidden: Tensor,
        context: Tensor,
        attention_mask: Tensor | None,
        queries: Places | None = None,
        keys: Places | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (batch, queries, query_size) and the weights (batch, heads, queries, keys), None unless eager.

        Args:
            queries: of `hidden`, where it is unpadded: (places, query_size), and so is what is returned.
            keys: of `context`, where it is unpadded.
        """
        if torch.is_autocast_enabled(hidden.device.type):
            # Once, and not by each of the three projections.
            dtype, same = torch.get_autocast_dtype(hidden.device.type), context is hidden
            hidden = hidden.to(dtype)
            context = hidden if same else context.to(dtype)
        query = self._split_heads(self.query(hidden), queries)
        key, value = (self._split_heads(project(context), keys) for project in (self.key, self.value))
        batch, _, length, _ = query.shape
        itself = context is hidden and queries is keys
        if not itself and isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
            # A two-dimensional mask means flash attention. The library unpads queries with the keys' mask, which is
            # right for self-attention only: here only the keys are unpadded, and every query is kept.
            query, key, value, packed = _pack_keys(query, key, value, attention_mask)
            kwargs, attention_mask = {**kwargs, **packed}, None
        backend = self.config._attn_implementation or "eager"
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(backend, eager_attention_forward)
        if backend == "sdpa" and _fused_is_slow(query, key):
            attend = plain_attention_forward
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout_prob if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        attended = attended.reshape(batch, length, -1)
        return self.output(attended if queries is None else queries.join_heads(attended)), weights

    def _split_heads(self, projected: Tensor, places: Places | None) -> Tensor:
        """Return (batch, heads, length, head_dim)."""
        if places is not None:
            return places.split_heads(projected, self.head_dim)
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class MmptFeedForward(nn.Module):
    """Linear, activation, Linear, dropout, residual, LayerNorm."""

    def __init__(self, config: MmptConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down = nn.Linear(intermediate_size, hidden_size)
        self.dropout = MmptDropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.layer_norm(hidden + self.dropout(self.down(self.activation(self.up(hidden)))))


class MmptLayer(GradientCheckpointingLayer):
    """BERT's layer: self-attention and feed-forward over one sequence."""

    def __init__(self, config: MmptConfig, hidden_size: int, num_heads: int, intermediate_size: int) -> None:
        super().__init__()
        self.attention = MmptAttention(config, hidden_size, hidden_size, hidden_size, num_heads)
        self.dropout = MmptDropout(config.hidden_dropout_prob)
        self.attention_layer_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = MmptFeedForward(config, hidden_size, intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None,
        places: Places | None = None,
        read: Places | PooledPlaces | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return (batch, length, hidden).

        Args:
            places: of `hidden`, where it is unpadded: (places, hidden), and so is what is returned.
            read: some of them, which are alone in what is returned.
        """
        asked, queries = hidden, places
        if read is not None:
            asked, queries = read.select(hidden), read if isinstance(read, Places) else None
            attention_mask = _of_any_query(attention_mask)
        attended, _ = self.attention(asked, hidden, attention_mask, queries=queries, keys=places, **kwargs)
        return self.feed_forward(self.attention_layer_norm(asked + self.dropout(attended)))


def run_layers(layers: Any, hidden: Tensor, attention_mask: Any, layout: Layout | None, **kwargs: Any) -> Tensor:
    """Return `hidden` after the layers, in its own shape."""
    for layer in layers:
        hidden = layer(hidden, attention_mask, None if layout is None else layout.computed, **kwargs)
    return hidden


def run_last_layers(
    layers: Any, hidden: Tensor, attention_mask: Any, layout: Layout | None, pooled: PooledPlaces | None, **kwargs: Any
) -> Tensor:
    """Return (batch, length, hidden) after the last layers of a stream, zero where nothing is read.

    The very last one is computed where its output is read alone: what no head reads costs nothing.

    Args:
        layout: of `hidden`, where it is unpadded.
        pooled: where it is not, the places that are read; None for all.
    """
    read = pooled if layout is None else layout.read
    if layers:
        hidden = run_layers(layers[:-1], hidden, attention_mask, layout, **kwargs)
        hidden = layers[-1](hidden, attention_mask, None if layout is None else layout.computed, read, **kwargs)
    if layout is not None:
        return layout.unpack(hidden, only_read=len(layers) > 0)
    return pooled.unpack(hidden) if pooled is not None and layers else hidden


def _of_any_query(mask: Any) -> Any:
    """Return a mask (batch, 1, queries, keys) for another number of queries: all attend to the same keys."""
    return mask[:, :, :1] if isinstance(mask, Tensor) and mask.dim() == 4 else mask


class MmptCoAttentionLayer(GradientCheckpointingLayer):
    """Text attends to regions and regions to text; both directions read the states from before the layer.

    ViLBERT: a set of weights a direction, then a feed-forward block a stream. LXMERT: one shared set, no feed-forward.
    """

    def __init__(self, config: MmptDualStreamConfig) -> None:
        super().__init__()
        text_size, region_size = config.hidden_size, config.region_hidden_size or config.hidden_size
        inner = (
            config.co_attention_hidden_size or config.hidden_size,
            config.co_attention_num_heads or config.num_attention_heads,
        )
        self.text_attention = MmptAttention(config, text_size, region_size, *inner)
        self.text_layer_norm = nn.LayerNorm(text_size, eps=config.layer_norm_eps)
        if not config.share_co_attention:
            self.region_attention = MmptAttention(config, region_size, text_size, *inner)
            self.region_layer_norm = nn.LayerNorm(region_size, eps=config.layer_norm_eps)
        if config.co_attention_feed_forward:
            region_intermediate_size = config.region_intermediate_size or config.intermediate_size
            self.text_feed_forward = MmptFeedForward(config, text_size, config.intermediate_size)
            self.region_feed_forward = MmptFeedForward(config, region_size, region_intermediate_size)
        self.dropout = MmptDropout(config.hidden_dropout_prob)
        self.shared = config.share_co_attention
        self.has_feed_forward = config.co_attention_feed_forward

    def of_text(self) -> list[nn.Module]:
        """Return the modules that the text returned depends on and the regions returned do not."""
        own = [] if self.shared else [self.text_attention, self.text_layer_norm]
        return [*own, self.text_feed_forward] if self.has_feed_forward else own

    def of_regions(self) -> list[nn.Module]:
        """Return the modules that the regions returned depend on and the text returned does not."""
        own = [] if self.shared else [self.region_attention, self.region_layer_norm]
        return [*own, self.region_feed_forward] if self.has_feed_forward else own

    def forward(
        self,
        text: Tensor,
        regions: Tensor,
        text_mask: Tensor | None,
        region_mask: Tensor | None,
        text_places: Places | None = None,
        region_places: Places | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return text, regions and the weights of text to regions (batch, heads, tokens, regions) and back.

        Args:
            text_mask: for regions as queries and text as keys.
            region_mask: for text as queries and regions as keys.
            text_places: of `text`, where it is unpadded; `region_places` the same of `regions`.
        """
        region_attention = self.text_attention if self.shared else self.region_attention
        region_layer_norm = self.text_layer_norm if self.shared else self.region_layer_norm
        text_update, text_to_region = self.text_attention(
            text, regions, region_mask, queries=text_places, keys=region_places, **kwargs
        )
        region_update, region_to_text = region_attention(
            regions, text, text_mask, queries=region_places, keys=text_places, **kwargs
        )
        text = self.text_layer_norm(text + self.dropout(text_update))
        regions = region_layer_norm(regions + self.dropout(region_update))
        if self.has_feed_forward:
            text, regions = self.text_feed_forward(text), self.region_feed_forward(regions)
        return text, regions, text_to_region, region_to_text


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention spelled out; the reference that the other backends agree with."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling  # (batch, heads, queries, keys)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = apply_dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def plain_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """What `eager_attention_forward` computes, from the mask that PyTorch's fused attention takes: True where valid."""
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(~attention_mask, lowest)
    return eager_attention_forward(module, query, key, value, attention_mask, **kwargs)[0], None


def _fused_is_slow(query: Tensor, key: Tensor) -> bool:
    """Whether PyTorch's fused attention takes longer than two products and a softmax.

    So it is in half precision on a CPU: backward through 76 keys takes four times as long (docs/performance.md).
    """
    half = query.dtype in (torch.bfloat16, torch.float16)
    return half and query.device.type == "cpu" and key.shape[2] <= PLAIN_ATTENTION_KEYS


def _pack_keys(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor | int]]:
    """Lay the rows of a batch one behind the other, without padded keys, as variable-length attention wants them.

    Args:
        mask: (batch, keys), 1 where valid.
    """
    batch, _, queries, _ = query.shape
    keep = mask.bool()
    lengths = keep.sum(-1, dtype=torch.int32)
    query = query.transpose(1, 2).flatten(0, 1)  # (batch * queries, heads, head_dim)
    key, value = key.transpose(1, 2)[keep], value.transpose(1, 2)[keep]  # (valid keys, heads, head_dim)
    packed = {
        "cu_seq_lens_q": torch.arange(batch + 1, dtype=torch.int32, device=query.device) * queries,
        "cu_seq_lens_k": nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)),
        "max_length_q": queries,
        "max_length_k": mask.shape[-1],
    }
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, length, head_dim)
    return query, key, value, packed
