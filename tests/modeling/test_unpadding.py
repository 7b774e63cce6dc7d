"""Sequences without padding: the places that are kept, and no others, with values and gradients of the padded way."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpt.modeling_mmpt import unpadding as packing
from mmpt.modeling_mmpt.unpadding import Packing
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch

MULTIPLE = 4


@pytest.fixture(autouse=True, scope="module")
def few_at_a_time() -> Iterator[None]:
    with patch.object(packing, "MULTIPLE", MULTIPLE):
        yield


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Return (batch, length) with one place or more, holes and empty rows among them."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    places = draw(st.lists(st.booleans(), min_size=batch * length, max_size=batch * length).filter(any))
    return torch.tensor(places).view(batch, length)


@settings(deadline=None)
@given(masks())
def test_what_is_packed_is_what_a_mask_selects(needed: Tensor) -> None:
    some = Packing(needed)
    keep = some.keep
    assert (keep | ~needed).all()
    assert keep.sum() == min(-(-int(needed.sum()) // MULTIPLE) * MULTIPLE, needed.numel())
    hidden = torch.arange(1.0, 1 + 3 * keep.numel()).view(*keep.shape, 3)
    packed = some.pack(hidden)
    torch.testing.assert_close(packed, hidden[keep])
    torch.testing.assert_close(some.unpack(packed), hidden * keep[..., None])
    closed = some.close_up(keep)
    assert closed.shape == (len(keep), some.width)
    assert closed.sum(1).tolist() == keep.sum(1).tolist()
    assert torch.equal(closed, closed.sort(dim=1, descending=True).values)


@settings(deadline=None)
@given(masks(), st.data())
def test_places_of_a_packing_are_found_in_a_larger_one(needed: Tensor, data: st.DataObject) -> None:
    whole = Packing(needed)
    places = whole.keep.nonzero().tolist()
    some = data.draw(st.lists(st.sampled_from(places), min_size=1, unique_by=tuple))
    read = torch.zeros_like(needed)
    read[tuple(torch.tensor(some).t())] = True
    hidden = torch.arange(1.0, 1 + needed.numel()).view(*needed.shape, 1)
    part = Packing(read, whole.keep)
    assert (whole.keep | ~part.keep).all()
    assert (part.keep | ~read).all()
    torch.testing.assert_close(part.select(whole.pack(hidden), whole), hidden[part.keep])


@settings(deadline=None)
@given(masks(), st.integers(1, 3))
def test_heads_are_split_and_joined_as_of_padded_rows(needed: Tensor, heads: int) -> None:
    some = Packing(needed)
    keep, closed = some.keep, some.close_up(some.keep)
    draw = torch.Generator().manual_seed(0)
    packed = torch.randn(int(keep.sum()), 2 * heads, generator=draw, dtype=torch.double, requires_grad=True)
    split = some.split_heads(packed, 2)
    assert split.shape == (len(keep), heads, some.width, 2)
    rows = split.transpose(1, 2).flatten(2)  # (batch, width, heads * 2)
    torch.testing.assert_close(rows[closed], packed)
    torch.testing.assert_close(some.join_heads(rows), packed)
    there = closed[:, None, :, None]
    assert torch.autograd.gradcheck(lambda one: some.split_heads(one, 2) * there, packed)
    grid = rows.detach().requires_grad_()
    assert torch.autograd.gradcheck(some.join_heads, grid)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_valid_places_are_those_of_a_padded_batch(stream: str, attention: str) -> None:
    model, batch = tiny_backbone(stream, attention=attention), tiny_batch()
    batch["attention_mask"][1] = torch.tensor([0, 0, 1, 1, 0])  # padded on both sides
    batch["region_attention_mask"][2] = 0
    read = {name: torch.zeros_like(batch[mask]).bool() for name, mask in MASKS.items()}
    for name, mask in MASKS.items():
        read[name] |= batch[mask].bool()
        read[name][:, 0] = True  # the place that is pooled, in padding in row 1
    padded, packed = model(**batch), model(**batch, **read)
    torch.testing.assert_close(packed.pooler_output, padded.pooler_output, atol=1e-5, rtol=1e-5)
    for name, states in (("read_tokens", "text_last_hidden_state"), ("read_regions", "region_last_hidden_state")):
        torch.testing.assert_close(packed[states][read[name]], padded[states][read[name]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("late", [False, True])
def test_a_row_depends_on_no_other(stream: str, attention: str, late: bool) -> None:
    model, batch = tiny_backbone(stream, attention=attention), tiny_batch()
    batch["attention_mask"][1] = 0  # as if there were no text: every key is masked
    read = {name: torch.zeros_like(batch[mask]).bool() for name, mask in MASKS.items()}
    for places in read.values():
        places[:, 0] = True
    with patch.object(packing, "MULTIPLE", 1):
        before = model(**batch, **read, late=late)
        batch["region_features"][0] = 1e4
        batch["input_ids"][0] = batch["input_ids"][0].flip(0)
        after = model(**batch, **read, late=late)
    assert not torch.equal(after.region_last_hidden_state[0], before.region_last_hidden_state[0])
    for name in ("text_last_hidden_state", "region_last_hidden_state", "pooler_output"):
        torch.testing.assert_close(after[name][1:], before[name][1:], rtol=0, atol=0)


@pytest.mark.parametrize("missing", ["read_tokens", "read_regions"])
@pytest.mark.parametrize("stream", STREAMS)
def test_nothing_is_packed_where_one_modality_says_nothing(stream: str, missing: str) -> None:
    model, batch = tiny_backbone(stream), tiny_batch()
    read = {name: torch.ones_like(batch[mask]).bool() for name, mask in MASKS.items() if name != missing}
    torch.testing.assert_close(model(**batch, **read).last_hidden_state, model(**batch).last_hidden_state)


MASKS = {"read_tokens": "attention_mask", "read_regions": "region_attention_mask"}
