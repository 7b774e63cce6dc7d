"""Attention and layers: against torch's own attention, and packed keys against padded ones."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mmpt.modeling_mmpt import layers
from mmpt.modeling_mmpt import unpadding as packing
from mmpt.modeling_mmpt.layers import MmptAttention, MmptCoAttentionLayer, MmptFeedForward, MmptLayer
from mmpt.processing.pretraining.layout import pretraining_layout
from tests.factories.models import tiny_backbone, tiny_batch, tiny_config, tiny_labels, tiny_pretraining

PACKED = "packed_reference"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What flash attention computes, one row of the batch at a time; queries, keys: (batch, heads, length, size)."""
    if cu_seq_lens_q is not None:
        # Rows lie one behind the other in the only row of the batch.
        assert attention_mask is None
        assert len(query) == len(key) == 1
        assert cu_seq_lens_q.dtype == cu_seq_lens_k.dtype == torch.int32
        query_sizes, key_sizes = cu_seq_lens_q.diff().tolist(), cu_seq_lens_k.diff().tolist()
        assert sum(query_sizes) == query.shape[2]
        assert sum(key_sizes) == key.shape[2]
        assert max(query_sizes) <= max_length_q
        assert max(key_sizes) <= max_length_k
        rows = zip(query.split(query_sizes, 2), key.split(key_sizes, 2), value.split(key_sizes, 2), strict=True)
        return torch.cat([_attend(*row, scaling) for row in rows], dim=1), None
    if attention_mask is None:
        return _attend(query, key, value, scaling), None
    assert attention_mask.dim() == 2
    # The library takes the queries to be padded like the keys, and leaves zeros in padding.
    output = query.new_zeros(query.shape).transpose(1, 2)
    for row, keep in enumerate(attention_mask.bool()):
        parts = (part[row : row + 1, :, keep] for part in (query, key, value))
        output[row, keep] = _attend(*parts, scaling)[0]
    return output, None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2)


@pytest.fixture
def packed() -> Iterator[str]:
    """The name of a stand-in for flash attention, which needs a GPU."""
    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED, flash_attention_mask)
    yield PACKED
    for registry in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        del type(registry)._global_mapping[PACKED]


def test_attention_agrees_with_torch():
    config = tiny_config("single")
    ours, theirs = (
        MmptAttention(config, 16, 10, 16, 4),
        nn.MultiheadAttention(16, 4, kdim=10, vdim=10, batch_first=True),
    )
    with torch.no_grad():
        for source, name in ((ours.query, "q_proj"), (ours.key, "k_proj"), (ours.value, "v_proj")):
            getattr(theirs, f"{name}_weight").copy_(source.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    config._attn_implementation = "eager"
    draw = torch.Generator().manual_seed(0)
    hidden, context = torch.randn(2, 5, 16, generator=draw), torch.randn(2, 3, 10, generator=draw)
    padded = torch.tensor([[False, False, True], [False, False, False]])
    additive = torch.zeros(2, 1, 1, 3).masked_fill(padded[:, None, None], torch.finfo(torch.float32).min)
    output, weights = ours(hidden, context, additive)
    expected, expected_weights = theirs(hidden, context, context, key_padding_mask=padded, average_attn_weights=False)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_layer_agrees_with_torch():
    config = tiny_config("single", layer_norm_eps=1e-5)
    config._attn_implementation = "sdpa"
    ours = MmptLayer(config, 16, 2, 24).eval()
    theirs = nn.TransformerEncoderLayer(16, 2, 24, activation="gelu", batch_first=True).eval()
    attention, feed_forward = ours.attention, ours.feed_forward
    projections = (attention.query, attention.key, attention.value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([layer.weight for layer in projections]),
            "self_attn.in_proj_bias": torch.cat([layer.bias for layer in projections]),
            **_state("self_attn.out_proj", attention.output),
            **_state("linear1", feed_forward.up),
            **_state("linear2", feed_forward.down),
            **_state("norm1", ours.attention_layer_norm),
            **_state("norm2", feed_forward.layer_norm),
        }
    )
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(hidden, None), theirs(hidden), atol=1e-5, rtol=1e-5)


def _state(name: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in layer.state_dict().items()}


def test_feed_forward_of_zero_weights_is_the_norm_of_its_input():
    block = MmptFeedForward(tiny_config("single"), 16, 24)
    for parameter in (block.down.weight, block.down.bias):
        nn.init.zeros_(parameter)
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(hidden), F.layer_norm(hidden, (16,), eps=1e-12))


@pytest.mark.parametrize("shared", [False, True])
def test_both_directions_of_co_attention_read_the_states_from_before(shared: bool):
    widths = {"region_hidden_size": 16, "region_num_attention_heads": 2} if shared else {}
    config = tiny_config("dual", share_co_attention=shared, co_attention_feed_forward=False, **widths)
    config._attn_implementation = "eager"
    layer = MmptCoAttentionLayer(config).eval()
    draw = torch.Generator().manual_seed(0)
    text = torch.randn(2, 5, 16, generator=draw)
    regions = torch.randn(2, 3, config.region_hidden_size, generator=draw)
    new_text, new_regions, *_ = layer(text, regions, None, None)
    back = layer.text_attention if shared else layer.region_attention
    back_norm = layer.text_layer_norm if shared else layer.region_layer_norm
    torch.testing.assert_close(new_text, layer.text_layer_norm(text + layer.text_attention(text, regions, None)[0]))
    torch.testing.assert_close(new_regions, back_norm(regions + back(regions, text, None)[0]))


def test_shared_co_attention_has_one_set_of_weights():
    shared = MmptCoAttentionLayer(
        tiny_config(
            "dual",
            region_hidden_size=16,
            region_num_attention_heads=2,
            share_co_attention=True,
            co_attention_feed_forward=False,
        )
    )
    assert {name.split(".")[0] for name, _ in shared.named_parameters()} == {"text_attention", "text_layer_norm"}


@pytest.mark.parametrize("stream", ["single", "dual"])
@pytest.mark.parametrize("case", ["ragged", "full", "ragged text", "ragged regions", "row without regions"])
def test_packed_keys_agree_with_padded_ones(packed: str, stream: str, case: str):
    batch = tiny_batch()
    if case in ("full", "ragged text"):
        batch["region_attention_mask"] = torch.ones_like(batch["region_attention_mask"])
    if case in ("full", "ragged regions"):
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    if case == "row without regions":
        batch["region_attention_mask"][1] = 0
    expected = tiny_backbone(stream)(**batch)
    actual = tiny_backbone(stream, attention=packed)(**batch)
    text, regions = batch["attention_mask"].bool(), batch["region_attention_mask"].bool()
    regions[:, 0] = True
    torch.testing.assert_close(
        actual.text_last_hidden_state[text], expected.text_last_hidden_state[text], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        actual.region_last_hidden_state[regions], expected.region_last_hidden_state[regions], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_losses_of_packed_keys_agree_with_those_of_padded_ones(
    packed: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MULTIPLE", 1)  # a tiny batch would be rounded up to all of its places
    batch = tiny_batch() | tiny_labels()
    batch |= pretraining_layout(tiny_config(stream), batch)
    expected, actual = (tiny_pretraining(stream, attention=name)(**batch).loss for name in ("sdpa", packed))
    torch.testing.assert_close(actual, expected)


def test_packed_keys_take_holes_and_other_lengths_on_either_side(packed: str):
    config = tiny_config("dual")
    layer = MmptCoAttentionLayer(config).eval()
    draw = torch.Generator().manual_seed(0)
    text, regions = torch.randn(2, 6, 16, generator=draw), torch.randn(2, 3, 12, generator=draw)
    text_keep = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]]).bool()
    region_keep = torch.tensor([[0, 1, 0], [1, 1, 1]]).bool()
    config._attn_implementation = packed
    actual = layer(text, regions, text_keep, region_keep)
    config._attn_implementation = "eager"
    additive = (
        torch.zeros(2, 1, 1, keep.shape[1]).masked_fill(~keep[:, None, None], torch.finfo(torch.float32).min)
        for keep in (text_keep, region_keep)
    )
    expected = layer(text, regions, *additive)
    # Every query is kept, those in padding too: the keys' mask says nothing about them.
    for ours, theirs in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stream", ["single", "dual"])
def test_half_precision_on_a_cpu_is_attended_to_without_the_fused_kernel(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = F.scaled_dot_product_attention
    calls: list[torch.dtype] = []

    def watched(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(query.dtype)
        return fused(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model, batch = tiny_backbone(stream, attention="sdpa"), tiny_batch()
    exact = model(**batch).text_last_hidden_state
    assert calls
    calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(**batch).text_last_hidden_state
        assert not calls
        monkeypatch.setattr(layers, "PLAIN_ATTENTION_KEYS", 0)
        rounded = model(**batch).text_last_hidden_state
    assert set(calls) == {torch.bfloat16}
    valid = batch["attention_mask"].bool()
    error, usual = ((other.float() - exact)[valid].norm() for other in (plain, rounded))
    assert error < 1.5 * usual
