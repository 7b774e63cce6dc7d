"""A batch of sequences without its padding: the places that are computed, laid one behind the other.

An encoder whose output is read at some places has no work to do in padding, so that projections, feed-forward blocks
and norms run over (places, size). Only attention needs rows, of the longest row's width.
"""

from typing import Any

import torch
from torch import Tensor

MULTIPLE = 16
"""Numbers of places are multiples of it: a matrix product is prepared anew for every new number of rows."""


class Packing:
    """The places of a batch of sequences that are computed.

    Args:
        needed: (batch, length), True at the places that must be; one or more in each row that is read.
        among: (batch, length), the places from which some more may be taken, up to a multiple of `MULTIPLE`; all by
            default. Those of `needed` are among them.
    """

    def __init__(self, needed: Tensor, among: Tensor | None = None) -> None:
        others = (~needed if among is None else among & ~needed).t()  # by place: no row becomes the longest by far
        taken = others & (others.flatten().cumsum(0).view(others.shape) <= -needed.sum() % MULTIPLE)
        self.keep = keep = needed | taken.t()
        self.shape = keep.shape
        batch = len(keep)
        ranks = keep.cumsum(1) - 1
        self.width = int(ranks.max()) + 1
        """Of the longest row."""
        self.numbers = keep.flatten().cumsum(0) - 1
        self.places = keep.flatten().nonzero().squeeze(1)
        slots = torch.arange(batch, device=keep.device)[:, None] * self.width + ranks
        self.slots = slots.flatten()[self.places]
        """(places,), each in (batch, width) with its rows closed up."""
        # A shorter row ends in its own first place: what is masked there must not be another row's.
        firsts = (self.numbers.view_as(keep)[:, 0] - keep[:, 0].long() + 1).clamp(max=len(self.slots) - 1)
        self.sources = firsts.repeat_interleave(self.width)
        """(batch * width,), the place of each slot; one of the row's own where the row is shorter."""
        self.sources[self.slots] = torch.arange(len(self.slots), device=keep.device)

    def pack(self, hidden: Tensor) -> Tensor:
        """Return (places, ...) of (batch, length, ...)."""
        return hidden.flatten(0, 1).index_select(0, self.places)

    def unpack(self, packed: Tensor) -> Tensor:
        """Return (batch, length, ...) of (places, ...), zero at all other places."""
        whole = packed.new_zeros(self.shape.numel(), *packed.shape[1:])
        return whole.index_copy(0, self.places, packed).unflatten(0, self.shape)

    def close_up(self, mask: Tensor) -> Tensor:
        """Return (batch, width) of the mask (batch, length), False where the row is shorter."""
        closed = mask.new_zeros(len(self.sources)).index_copy(0, self.slots, self.pack(mask))
        return closed.unflatten(0, (self.shape[0], self.width))

    def select(self, packed: Tensor, among: "Packing") -> Tensor:
        """Return (these places, ...) of (places, ...) of another packing, which has these and more."""
        return packed.index_select(0, among.numbers[self.places])

    def split_heads(self, packed: Tensor, head_dim: int) -> Tensor:
        """Return (batch, heads, width, head_dim) of (places, heads * head_dim); repeated where the row is shorter.

        What attention makes of a shorter row's end must go nowhere: masked as keys, left out as queries.
        """
        batch, heads = self.shape[0], packed.shape[-1] // head_dim
        numbers = torch.arange(heads, device=packed.device)
        sources = self.sources.view(batch, 1, self.width) * heads + numbers[:, None]
        rows, ranks = self.slots // self.width, self.slots % self.width
        slots = (rows[:, None] * heads + numbers) * self.width + ranks[:, None]
        vectors = _Spread.apply(packed.reshape(-1, head_dim), sources.flatten(), slots.flatten())
        return vectors.view(batch, heads, self.width, head_dim)

    def join_heads(self, attended: Tensor) -> Tensor:
        """Return (places, size) of (batch, width, size)."""
        return _Collect.apply(attended.flatten(0, 1), self.slots)


class _Spread(torch.autograd.Function):
    """`index_select` with repeated rows, of which only those at `slots` have a gradient."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, sources: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        return vectors.index_select(0, sources)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


class _Collect(torch.autograd.Function):
    """`index_select` without repeated rows, whose gradient need not be added up."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.count = len(vectors)
        return vectors.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        whole = gradient.new_zeros(ctx.count, gradient.shape[1])
        return whole.index_copy_(0, ctx.saved_tensors[0], gradient), None
