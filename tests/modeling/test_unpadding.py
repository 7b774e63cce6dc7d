"""Sequences without padding: the places that are kept, and no others, with values and gradients of the padded way."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt import unpadding
from mmpt.modeling_mmpt.unpadding import Layout, layout_of, make_layout
from mmpt.processing.pretraining.layout import pretraining_layout
from tests.factories.models import STREAMS, tiny_backbone, tiny_batch, tiny_labels, tiny_pretraining

MULTIPLE = 4


@pytest.fixture(autouse=True, scope="module")
def few_at_a_time() -> Iterator[None]:
    with patch.object(unpadding, "MULTIPLE", MULTIPLE):
        yield


@st.composite
def masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks (batch, length) of valid and of read places, holes and empty rows among them."""
    batch, length = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    flags = st.lists(st.booleans(), min_size=batch * length, max_size=batch * length)
    valid, read = (np.array(draw(flags)).reshape(batch, length) for _ in range(2))
    return valid, read


def laid_out(valid: np.ndarray, read: np.ndarray, reads_all: bool = False) -> tuple[Layout | None, Tensor]:
    """Return the layout, and True at the places that are needed."""
    parts = make_layout("text", valid, read)
    needed = valid | read
    needed[np.arange(len(valid)), valid.argmax(1)] = True
    return layout_of("text", parts, torch.from_numpy(valid), reads_all), torch.from_numpy(needed)


@settings(deadline=None)
@given(masks())
def test_what_is_packed_is_what_a_mask_selects(both: tuple[np.ndarray, np.ndarray]) -> None:
    layout, needed = laid_out(*both)
    count = min(-(-int(needed.sum()) // MULTIPLE) * MULTIPLE, needed.numel())
    if layout is None:
        assert count <= len(needed)
        return
    keep = torch.zeros(needed.numel(), dtype=torch.bool)
    keep[layout.computed.numbers] = True
    keep = keep.view(needed.shape)
    assert (keep | ~needed).all()
    assert keep.sum() == len(layout.computed.numbers) == count
    hidden = torch.arange(1.0, 1 + 3 * keep.numel()).view(*keep.shape, 3)
    torch.testing.assert_close(layout.pack(hidden), hidden[keep])
    torch.testing.assert_close(layout.unpack(layout.pack(hidden), only_read=False), hidden * keep[..., None])
    assert layout.read is not None
    read = layout.unpack(layout.read.select(layout.pack(hidden)), only_read=True)
    valid, wanted = (torch.from_numpy(mask) for mask in both)
    wanted[torch.arange(len(valid)), valid.int().argmax(1)] = True
    torch.testing.assert_close(read[wanted], hidden[wanted])
    assert (read[~keep] == 0).all()


@settings(deadline=None)
@given(masks(), st.integers(1, 3))
def test_heads_are_split_and_joined_as_of_padded_rows(both: tuple[np.ndarray, np.ndarray], heads: int) -> None:
    layout, _ = laid_out(*both)
    if layout is None:
        return
    some = layout.computed
    draw = torch.Generator().manual_seed(0)
    packed = torch.randn(len(some.numbers), 2 * heads, generator=draw, dtype=torch.double, requires_grad=True)
    split = some.split_heads(packed, 2)
    batch, width = some.grid.shape
    assert split.shape == (batch, heads, width, 2)
    rows = split.transpose(1, 2).flatten(2)  # (batch, width, heads * 2)
    own = torch.zeros(batch * width, dtype=torch.bool)
    own[some.slots] = True
    own = own.view(batch, width)
    torch.testing.assert_close(rows[own], packed)
    torch.testing.assert_close(some.join_heads(rows), packed)
    assert not (layout.attended & ~own).any()
    assert torch.equal(layout.attended[own], torch.from_numpy(both[0]).flatten()[some.numbers])
    there = own[:, None, :, None]
    assert torch.autograd.gradcheck(lambda one: some.split_heads(one, 2) * there, packed)
    assert torch.autograd.gradcheck(some.join_heads, rows.detach().requires_grad_())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
def test_valid_places_are_those_of_a_padded_batch(stream: str, attention: str) -> None:
    model, batch = tiny_backbone(stream, attention=attention), tiny_batch()
    batch["attention_mask"][1] = torch.tensor([0, 0, 1, 1, 0])  # padded on both sides
    batch["region_attention_mask"][2] = 0
    padded, packed = model(**batch), model(**batch, **pretraining_layout(model.config, batch))
    assert not torch.equal(padded.text_last_hidden_state, packed.text_last_hidden_state)
    torch.testing.assert_close(packed.pooler_output, padded.pooler_output, atol=1e-5, rtol=1e-5)
    for name, states in (("attention_mask", "text"), ("region_attention_mask", "region")):
        valid = batch[name].bool()
        found, expected = packed[f"{states}_last_hidden_state"], padded[f"{states}_last_hidden_state"]
        torch.testing.assert_close(found[valid], expected[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_row_depends_on_no_other(stream: str, attention: str, fusion: str) -> None:
    more = {"fusion": fusion} if fusion == "early" else {"fusion": fusion, "objective_weights": {"mlm": 1.0}}
    model, batch = tiny_backbone(stream, attention=attention, **more), tiny_batch()
    batch["attention_mask"][1] = 0  # as if there were no text: every key is masked
    layout = pretraining_layout(model.config, batch)
    before = model(**batch, **layout)
    batch["region_features"][0] = 1e4
    batch["input_ids"][0] = batch["input_ids"][0].flip(0)
    after = model(**batch, **layout)
    assert not torch.equal(after.region_last_hidden_state[0], before.region_last_hidden_state[0])
    for name in ("text_last_hidden_state", "region_last_hidden_state", "pooler_output"):
        torch.testing.assert_close(after[name][1:], before[name][1:], rtol=0, atol=0)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_layout_that_was_cut_as_loaders_cut_batches_is_not_used(stream: str) -> None:
    model, batch = tiny_pretraining(stream), tiny_batch() | tiny_labels()
    whole = batch | pretraining_layout(model.config, batch)
    for rows in (slice(0, 2), slice(2, 3)):
        expected = model(**{name: value[rows] for name, value in batch.items()}).loss
        torch.testing.assert_close(model(**{name: value[rows] for name, value in whole.items()}).loss, expected)
    # accelerate joins the batches of all processes, and gives each its rows.
    joined = {name: torch.cat([value, value])[len(batch["input_ids"]) :][:3] for name, value in whole.items()}
    torch.testing.assert_close(model(**joined).loss, model(**batch).loss)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_layout_of_another_batch_is_refused(stream: str) -> None:
    model, batch = tiny_pretraining(stream), tiny_batch() | tiny_labels()
    layout = pretraining_layout(model.config, batch)
    with pytest.raises(MmptValueError, match=r"of other masks.*layout_"):
        model(**batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}, **layout)
    labels = torch.full_like(batch["mlm_labels"], -100)
    labels[2, 3] = 1
    with patch.object(unpadding, "MULTIPLE", 1):
        layout = pretraining_layout(model.config, batch)
    with pytest.raises(MmptValueError, match="labels of tokens at other places"):
        model(**batch | {"mlm_labels": labels}, **layout)


@pytest.mark.parametrize("stream", STREAMS)
def test_joined_batches_are_refused(stream: str) -> None:
    model, batch = tiny_pretraining(stream), tiny_batch() | tiny_labels()
    whole = batch | pretraining_layout(model.config, batch)
    with pytest.raises(MmptValueError, match="or batches are joined"):
        model(**{name: torch.cat([value, value]) for name, value in whole.items()})


@pytest.mark.parametrize("stream", STREAMS)
def test_a_replica_of_data_parallel_uses_no_layout(stream: str) -> None:
    model, batch = tiny_pretraining(stream), tiny_batch() | tiny_labels()
    whole = batch | pretraining_layout(model.config, batch)
    chunks = {name: value.chunk(2)[0] for name, value in whole.items()}
    rows = {name: chunks[name] for name in batch}
    expected = model(**rows).loss
    model._is_replica = True  # as torch.nn.parallel.replicate marks it
    torch.testing.assert_close(model(**chunks).loss, expected)
