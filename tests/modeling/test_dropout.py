"""Dropout with four elements a random number: its statistics, its gradient, and torch's own where it is not used."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmpt.modeling_mmpt.dropout import MmptDropout, apply_dropout

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_is_zero_and_the_rest_is_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(400, 501, dtype=dtype, requires_grad=True)
    dropped = apply_dropout(hidden, p, training=True)
    zero = dropped == 0
    error = (p * (1 - p) / hidden.numel()) ** 0.5
    assert abs(zero.double().mean() - p) < 4 * error
    assert dropped.dtype == dtype
    torch.testing.assert_close(dropped[~zero].double().mean().item(), 1 / (1 - p), rtol=5e-3, atol=0)
    lanes = zero.flatten()[: zero.numel() // 4 * 4].view(-1, 4).double()
    assert (lanes.mean(0) - p).abs().max() < 8 * error  # each of the four of a number is as likely as the others
    assert (torch.corrcoef(lanes.T) - torch.eye(4)).abs().max() < 0.02  # and does not tell about them
    dropped.sum().backward()
    assert torch.equal(hidden.grad, dropped.detach())


@given(st.lists(st.integers(0, 7), min_size=0, max_size=3))
def test_every_shape_is_taken(shape: list[int]) -> None:
    dropped = apply_dropout(torch.ones(shape), 0.5, training=True)
    assert dropped.shape == torch.Size(shape)
    assert set(dropped.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything_are_dropped_exactly(p: float) -> None:
    hidden = torch.randn(50, 50)
    assert torch.equal(MmptDropout(p)(hidden), nn.Dropout(p)(hidden))


def test_evaluation_changes_nothing_and_a_seed_repeats() -> None:
    hidden, layer = torch.randn(20, 30), MmptDropout(0.3)
    assert layer.eval()(hidden) is hidden or torch.equal(layer(hidden), hidden)
    layer.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(hidden))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_gradients_are_those_of_a_product() -> None:
    torch.manual_seed(3)
    hidden = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)

    def run(values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return apply_dropout(values, 0.4, training=True)

    assert torch.autograd.gradcheck(run, (hidden,))
