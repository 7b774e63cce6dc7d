"""Dropout. On a CPU four elements share a 64-bit random number: drawing one for each is a tenth of a training step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LANES, LEVELS = 4, 2**16  # of a 64-bit number; a probability is rounded to 1 / 65,536


class MmptDropout(nn.Dropout):
    """`nn.Dropout` that draws as `apply_dropout` does."""

    def forward(self, input: Tensor) -> Tensor:
        return apply_dropout(input, self.p, self.training)


def apply_dropout(hidden: Tensor, p: float, training: bool) -> Tensor:
    """Return `hidden` with each element zero with probability p, the others times 1 / (1 - p), in training."""
    threshold = round(p * LEVELS)
    if hidden.device.type != "cpu" or torch.compiler.is_compiling() or not 0 < threshold < LEVELS or not training:
        return F.dropout(hidden, p, training)
    return _Dropout.apply(hidden, threshold)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, threshold: int) -> Tensor:
        count = hidden.numel()
        numbers = torch.empty(-(-count // LANES), dtype=torch.int64).random_(-(2**63), None)
        keep = numbers.view(torch.int16)[:count].view(hidden.shape) >= threshold - LEVELS // 2
        ctx.scale = LEVELS / (LEVELS - threshold)
        ctx.save_for_backward(keep)
        return _kept(hidden, keep, ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _kept(gradient, keep, ctx.scale), None


def _kept(values: Tensor, keep: Tensor, scale: float) -> Tensor:
    if values.dtype == torch.float32:
        return torch.where(keep, values * scale, 0.0)
    return (values * keep.view(torch.uint8)).mul_(scale)  # several times faster than where, in half precision only
