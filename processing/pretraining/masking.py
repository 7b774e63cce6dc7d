"""Token masking, region masking and the keyed draws that decide them.

Everything random about an example is a function of (seed, epoch, example id), so that batches, ranks, workers and
accumulation cannot change it.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.processing.box_overlap import pairwise_iou

Array = NDArray[Any]


class Draw(IntEnum):
    """Independent random streams, one per decision."""

    CORRUPTION = 0
    MISMATCH = 1
    REPLACED_PART = 2
    HARD_NEGATIVE = 3
    PARTNER = 4
    TOKENS = 5
    TOKEN_REPLACEMENT = 6
    RANDOM_TOKEN = 7
    REGIONS = 8
    STEP_OBJECTIVE = 9


class KeyedRandom:
    """Uniform random numbers that depend only on (seed, epoch, example id, decision, position).

    A counter-based generator: number j of a stream is splitmix64's finaliser (Steele et al. 2014) of key and j. A whole
    batch is drawn at once, and a number does not depend on the padding.

    Args:
        seed: of the run.
        epochs: (batch,) epoch of each example, or one for all.
        example_ids: (batch,).
    """

    def __init__(self, seed: int, epochs: Array | int, example_ids: Array) -> None:
        keys = _mix(np.full(len(example_ids), seed & _MAX, dtype=np.uint64) + _GOLDEN)
        keys = _mix(keys + _as_uint64(np.asarray(epochs)) * _GOLDEN)
        self.keys = _mix(keys + _as_uint64(np.asarray(example_ids)) * _GOLDEN)

    def uniform(self, draw: Draw, count: int = 1) -> Array:
        """Return (batch, count) float64 in [0, 1)."""
        stream = _mix(self.keys + np.uint64((draw + 1) * int(_GOLDEN) & _MAX))
        places = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        return (_mix(stream[:, None] + places) >> np.uint64(11)) * 2.0**-53


def mask_tokens(
    input_ids: Array,
    maskable: Array,
    mask_id: int,
    ordinary_ids: Array,
    probability: float,
    draws: KeyedRandom,
    words: Array | None = None,
    later_ids: Array | None = None,
) -> tuple[Array, Array]:
    """Mask tokens as BERT does: of the selected 80 % become [MASK], 10 % an ordinary token, 10 % stay.

    Unlike BERT's, a random token is of the kind that it replaces: no piece that continues a word begins one.

    Args:
        input_ids: (batch, tokens).
        maskable: (batch, tokens), bool; never a special token. A row with any gets at least one masked.
        ordinary_ids: ids that a random replacement is drawn from.
        later_ids: ids of pieces that only continue a word; they alone replace each other.
        words: (batch, tokens), number of the word a token belongs to; its tokens then share selection and fate.

    Returns:
        The corrupted ids and the labels, both (batch, tokens); labels are -100 where nothing is predicted.
    """
    length = input_ids.shape[1]
    chance, fate = draws.uniform(Draw.TOKENS, length), draws.uniform(Draw.TOKEN_REPLACEMENT, length)
    if words is not None:
        first = _first_of_word(words)
        chance, fate = np.take_along_axis(chance, first, 1), np.take_along_axis(fate, first, 1)
    selected = select(maskable, chance, probability)
    chosen = draws.uniform(Draw.RANDOM_TOKEN, length)
    random_ids = ordinary_ids[(chosen * len(ordinary_ids)).astype(np.int64)]
    if later_ids is not None and len(later_ids):
        later = later_ids[(chosen * len(later_ids)).astype(np.int64)]
        random_ids = np.where(np.isin(input_ids, later_ids), later, random_ids)
    corrupted = np.where(selected & (fate < 0.8), mask_id, input_ids)
    corrupted = np.where(selected & (fate >= 0.8) & (fate < 0.9), random_ids, corrupted)
    return corrupted, np.where(selected, input_ids, IGNORED)


def select_regions(
    maskable: Array, probability: float, draws: KeyedRandom, boxes: Array | None = None, overlap: float | None = None
) -> Array:
    """Return which regions are masked, (batch, regions) bool; a row with any maskable region gets at least one.

    Args:
        maskable: (batch, regions), bool; never padding or a whole-image region.
        boxes: (batch, regions, 4), needed with `overlap`.
        overlap: also mask regions whose IoU with a masked one is above this, so that it cannot be read off its
            neighbour (12-in-1's and ViLBERT's papers; none of the released code does it).
    """
    masked = select(maskable, draws.uniform(Draw.REGIONS, maskable.shape[1]), probability)
    if overlap is not None and boxes is not None:
        covered = (pairwise_iou(boxes, boxes) > overlap) & masked[:, None, :]
        masked = masked | (covered.any(-1) & maskable)
    return masked


def select(maskable: Array, chance: Array, probability: float) -> Array:
    """Return where `chance` is below `probability`, or the place of the lowest chance where that is nowhere."""
    selected = maskable & (chance < probability)
    lowest = np.where(maskable, chance, np.inf).min(1, keepdims=True, initial=np.inf)
    forced = ~selected.any(1, keepdims=True) & maskable & (chance == lowest)
    return selected | forced


_MAX = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _as_uint64(numbers: Array) -> Array:
    return numbers.astype(np.int64).astype(np.uint64)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _first_of_word(words: Array) -> Array:
    """Return (batch, tokens), the place of the first token of each token's word; words stand together."""
    starts = np.ones_like(words, dtype=bool)
    starts[:, 1:] = words[:, 1:] != words[:, :-1]
    places = np.broadcast_to(np.arange(words.shape[1]), words.shape)
    return np.maximum.accumulate(np.where(starts, places, 0), axis=1)
