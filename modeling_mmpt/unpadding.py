"""A batch of sequences without its padding: the places that are computed, laid one behind the other.

The collator knows every length and label, so it decides: `make_layout` writes into the batch which places are computed
and where the last states are read. Here the model only gathers by it, and no shape depends on what a tensor holds.
Projections, feed-forward blocks and norms then run over (places, size). Only attention needs rows, of the longest row's
width. All tensors of a layout are flat. So loaders that cut or join batches by rows do not trip over them, and a layout
that was cut is recognised by its length and ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmpt.configuration.configuration_mmpt import MmptConfig, MmptSingleStreamConfig
from mmpt.configuration.errors import MmptValueError
from mmpt.modeling_mmpt.input_checks import LAYOUT_PARTS, values_are_known

Array = NDArray[Any]

MULTIPLE = 16
"""Numbers of places are multiples of it: a matrix product is prepared anew for every new number of rows."""

WIDTHS = 4
"""The longest row's width is a multiple of it, for the same reason."""


def make_layout(name: str, valid: Array, read: Array | None = None) -> dict[str, Tensor]:
    """Return the layout of one kind of sequence, by the names that the models read; empty where it would be no use.

    The names begin with `layout_` and the sequence's own. `places` (places, 2): number in the flat batch, and in the
    rows closed up, (batch, width). `grid` (batch * width, 2): number among the places, and 1 where it is attended to.
    `read` (read places, 2) and `read_grid` (batch * read width, 1): the same for the places that are read.

    Args:
        name: "text", "regions", or "joint" for both in one sequence.
        valid: (batch, length), False in padding.
        read: (batch, length), True where the last state is read beside each row's first valid place, which is pooled.
    """
    read = np.zeros_like(valid) if read is None else read.copy()
    read[np.arange(len(valid)), valid.argmax(1)] = True
    keep = _filled(valid | read, np.ones_like(valid))
    places = np.flatnonzero(keep)
    if len(places) <= len(valid):
        return {}
    read = _filled(read, keep)
    slots, grid = _closed_up(keep)
    read_slots, read_grid = _closed_up(read)
    attended = np.zeros(grid.size, bool)
    attended[slots] = valid[keep]
    numbers = keep.cumsum().reshape(keep.shape) - 1
    parts = {
        "places": [places, slots],
        "grid": [grid, attended],
        "read": [numbers[read], read_slots],
        "read_grid": [read_grid],
    }
    return {
        f"layout_{name}_{part}": torch.from_numpy(np.stack(arrays, 1).astype(np.int64))
        for part, arrays in parts.items()
    }


def batch_layout(
    config: MmptConfig,
    attention_mask: Array,
    region_attention_mask: Array,
    read_tokens: Array | None = None,
    read_regions: Array | None = None,
) -> dict[str, Tensor]:
    """Return the layout of a batch, for the sequences that a model encodes; see `make_layout`.

    Args:
        config: of the model.
        attention_mask: (batch, tokens).
        region_attention_mask: (batch, regions).
        read_tokens: (batch, tokens), True where the last state is read beside the first; `read_regions` the same.
    """
    text, regions = attention_mask.astype(bool), region_attention_mask.astype(bool)
    regions[~regions.any(1), 0] = True  # of an image without regions, the model makes one
    read_tokens = np.zeros_like(text) if read_tokens is None else read_tokens
    read_regions = np.zeros_like(regions) if read_regions is None else read_regions
    layout: dict[str, Tensor] = {}
    is_single = isinstance(config, MmptSingleStreamConfig)
    if is_single and config.fusion != "late":
        both = np.concatenate([read_tokens, read_regions], 1)
        both[:, text.shape[1]] = True  # pooled in some configurations
        layout |= make_layout("joint", np.concatenate([text, regions], 1), both)
    if not is_single or config.fusion != "early":
        layout |= make_layout("text", text, read_tokens) | make_layout("regions", regions, read_regions)
    return layout


def labelled_places(name: str, labelled: Array) -> dict[str, Tensor]:
    """Return which places a head is run on: those with a label, and others up to a multiple of `MULTIPLE`.

    Args:
        name: "tokens" or "regions".
        labelled: (batch, length), True where there is a label.
    """
    chosen = np.flatnonzero(_filled(labelled, np.ones_like(labelled)))
    return {f"layout_labelled_{name}": torch.from_numpy(chosen)}


def _filled(needed: Array, among: Array) -> Array:
    """Return `needed` (batch, length) with some more of `among`, up to a multiple of `MULTIPLE` places."""
    others = (among & ~needed).T  # by place: no row becomes the longest by far
    taken = others & (others.cumsum().reshape(others.shape) <= -needed.sum() % MULTIPLE)
    return needed | taken.T


def _closed_up(keep: Array) -> tuple[Array, Array]:
    """Return the slot of each place of `keep` (batch, length) in (batch, width), and the place in each slot.

    A shorter row repeats its own last place: what is masked there must not be another row's.
    """
    counts = keep.sum(1)
    width = -(-max(int(counts.max()), 1) // WIDTHS) * WIDTHS
    slots = (np.arange(len(keep))[:, None] * width + keep.cumsum(1) - 1)[keep]
    starts = counts.cumsum() - counts
    grid = starts[:, None] + np.minimum(np.arange(width), counts[:, None] - 1)
    return slots, grid.flatten()


@dataclass
class Places:
    """Some places of a batch of sequences, laid one behind the other.

    Args:
        numbers: (places,), where they are among those that they are taken from.
        slots: (places,), each in (batch, width) with its rows closed up.
        grid: (batch, width), the place in each slot; repeated where a row is shorter.
    """

    numbers: Tensor
    slots: Tensor
    grid: Tensor
    _indices: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def select(self, hidden: Tensor) -> Tensor:
        """Return (places, size) of what they are taken from, (numbers, size)."""
        return _Collect.apply(hidden, self.numbers)

    def split_heads(self, packed: Tensor, head_dim: int) -> Tensor:
        """Return (batch, heads, width, head_dim) of (places, heads * head_dim).

        What attention makes of a shorter row's end must go nowhere: masked as keys, left out as queries.
        """
        (batch, width), heads = self.grid.shape, packed.shape[-1] // head_dim
        if heads not in self._indices:
            each = torch.arange(heads, device=packed.device)
            sources = self.grid[:, None] * heads + each[:, None]
            rows, ranks = self.slots // width, self.slots % width
            slots = (rows[:, None] * heads + each) * width + ranks[:, None]
            self._indices[heads] = (sources.flatten(), slots.flatten())
        vectors = _Spread.apply(packed.reshape(-1, head_dim), *self._indices[heads])
        return vectors.view(batch, heads, width, head_dim)

    def join_heads(self, attended: Tensor) -> Tensor:
        """Return (places, size) of (batch, width, size)."""
        return _Collect.apply(attended.flatten(0, 1), self.slots)


@dataclass
class Layout:
    """The places of a kind of sequence that are computed, and those among them that are read.

    Args:
        shape: (batch, length) of the sequences.
        computed: taken from the flat batch.
        attended: (batch, width), True where other places attend to a slot.
        read: taken from `computed`; None reads all of them.
    """

    shape: tuple[int, int]
    computed: Places
    attended: Tensor
    read: Places | None

    def pack(self, hidden: Tensor) -> Tensor:
        """Return (places, size) of (batch, length, size)."""
        return self.computed.select(hidden.flatten(0, 1))

    def unpack(self, packed: Tensor, only_read: bool) -> Tensor:
        """Return (batch, length, size) of the places that are computed, or read, zero at all other places."""
        numbers = self.computed.numbers
        if self.read is not None and only_read:
            numbers = numbers[self.read.numbers]
        batch, length = self.shape
        return packed.new_zeros(batch * length, packed.shape[1]).index_copy(0, numbers, packed).unflatten(0, self.shape)


@dataclass(frozen=True)
class PooledPlaces:
    """The places of a padded batch that are pooled.

    Args:
        numbers: (batch, places), in each row.
        length: of the rows.
    """

    numbers: Tensor
    length: int

    def select(self, hidden: Tensor) -> Tensor:
        """Return (batch, places, size) of (batch, length, size)."""
        return hidden.gather(1, self._index(hidden))

    def unpack(self, states: Tensor) -> Tensor:
        """Return (batch, length, size) of (batch, places, size), zero at all other places."""
        whole = states.new_zeros(states.shape[0], self.length, states.shape[2])
        return whole.scatter(1, self._index(states), states)

    def _index(self, hidden: Tensor) -> Tensor:
        return self.numbers[..., None].expand(-1, -1, hidden.shape[-1])


def pooled_places(parts: list[Tensor], firsts: list[Tensor | None]) -> PooledPlaces:
    """Return the first valid place of each part of a sequence, text and regions, say.

    Args:
        parts: (batch, length, size) each.
        firsts: as `first_places` returns them, one for each part.
    """
    places, start = [], 0
    for part, first in zip(parts, firsts, strict=True):
        zeros = torch.zeros(part.shape[0], dtype=torch.long, device=part.device)
        places.append((zeros if first is None else first) + start)
        start += part.shape[1]
    return PooledPlaces(torch.stack(places, 1), start)


def layout_of(name: str, given: Mapping[str, Tensor], valid: Tensor, reads_all: bool) -> Layout | None:
    """Return the layout of one kind of sequence out of a batch; None where the batch has none, or one that was cut.

    Args:
        name: "text", "regions" or "joint".
        given: the batch's tensors whose names begin with `layout_`.
        valid: (batch, length), False in padding.
        reads_all: every state is read, and not those alone that the layout says.

    Raises:
        MmptValueError: on a CPU, if the layout is that of other masks.
    """
    parts = [given.get(f"layout_{name}_{part}") for part in LAYOUT_PARTS]
    if any(part is None for part in parts):
        return None
    places, grid, read, read_grid = (part for part in parts if part is not None)
    batch = valid.shape[0]
    if not is_whole(given, batch):
        return None
    attended = grid[:, 1].bool().view(batch, -1)
    numbers = places[:, 0]
    if values_are_known(places) and not (
        torch.equal(attended.sum(1), valid.sum(1)) and bool((numbers[1:] > numbers[:-1]).all())
    ):
        raise MmptValueError(
            f"the batch's layout_{name}_... is of other masks than the batch has; leave the inputs whose names begin "
            "with layout_ out where masks are changed or batches are joined, or collate the examples together"
        )
    return Layout(
        (batch, valid.shape[1]),
        Places(places[:, 0], places[:, 1], grid[:, 0].view(batch, -1)),
        attended,
        None if reads_all else Places(read[:, 0], read[:, 1], read_grid[:, 0].view(batch, -1)),
    )


def without_layout(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch without its layout, for other rows than those that it was made of."""
    return {name: value for name, value in given.items() if not name.startswith("layout_")}


def is_whole(given: Mapping[str, Tensor], batch: int) -> bool:
    """Return whether a batch has a layout, which was not cut to as many entries as there are rows, as all else was."""
    counts = [len(places) for name, places in given.items() if name.endswith("_places")]
    return bool(counts) and min(counts) > batch


def places_of_labels(reads: str, labelled: Tensor, given: Mapping[str, Tensor]) -> Tensor | None:
    """Return the numbers of the places, in the flat batch, that a head is run on.

    By the layout; without one, where the labels are, which a GPU has to be waited for. None, for all rows, where a
    head reads pairs and there is a layout.

    Args:
        reads: "tokens", "regions" or "pair".
        labelled: (batch, tokens or regions) or (batch,).

    Raises:
        MmptValueError: on a CPU, if there are labels that the layout does not know of.
    """
    if not is_whole(given, labelled.shape[0]):
        return labelled.flatten().nonzero().squeeze(1)
    if reads == "pair":
        return None
    chosen = given[f"layout_labelled_{reads}"]
    if values_are_known(chosen) and labelled.flatten()[chosen].sum() != labelled.sum():
        raise MmptValueError(
            f"there are labels of {reads} at other places than layout_labelled_{reads} has; leave the inputs whose "
            "names begin with layout_ out where labels are changed"
        )
    return chosen


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
