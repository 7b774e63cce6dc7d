"""Masks have the rates they should, and depend on (seed, epoch, example id) only."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmpt.processing.box_overlap import pairwise_iou
from mmpt.processing.pretraining.masking import Draw, KeyedRandom, mask_tokens, select, select_regions
from tests.factories.examples import within

MASK, ORDINARY = 4, np.arange(10, 50)
ROWS, TOKENS = 4000, 20


def draws_for(rows: int, seed: int = 0, epoch: int = 0, first: int = 0) -> KeyedRandom:
    return KeyedRandom(seed, epoch, np.arange(first, first + rows))


@pytest.fixture(scope="module")
def uniform() -> np.ndarray:
    return draws_for(20_000).uniform(Draw.TOKENS, 10)


def test_draws_are_uniform(uniform: np.ndarray) -> None:
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-4
    assert stats.chisquare(np.bincount((uniform * 100).astype(int).ravel(), minlength=100)).pvalue > 1e-4


def test_draws_of_neighbours_are_unrelated(uniform: np.ndarray) -> None:
    other_place, other_row = (uniform[:, :-1], uniform[:, 1:]), (uniform[:-1], uniform[1:])
    others = [KeyedRandom(1, 0, np.arange(20_000)), KeyedRandom(0, 1, np.arange(20_000))]
    seed_and_epoch = [(uniform, other.uniform(Draw.TOKENS, 10)) for other in others]
    streams = [(uniform, draws_for(20_000).uniform(draw, 10)) for draw in Draw if draw != Draw.TOKENS]
    for left, right in (other_place, other_row, *seed_and_epoch, *streams):
        correlation = np.corrcoef(left.ravel(), right.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(left.size)


def test_every_pair_of_streams_is_independent() -> None:
    draws = draws_for(20_000)
    streams = np.stack([draws.uniform(draw)[:, 0] for draw in Draw])
    correlation = np.corrcoef(streams) - np.eye(len(Draw))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
    for left, right in pairwise(streams):
        table = np.histogram2d(left, right, bins=8)[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-4


def test_draws_of_very_different_keys_are_all_different() -> None:
    ids = np.array([0, 1, -1, 2**31, 2**32, 2**62, -(2**62)])
    found = [
        KeyedRandom(seed, epoch, ids).uniform(draw, 2)
        for seed in (0, 1, -1, 2**63)
        for epoch in (0, 1, 10**9)
        for draw in Draw
    ]
    assert len(np.unique(np.concatenate(found))) == np.concatenate(found).size


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(-(2**63), 2**63),
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    epochs=st.lists(st.integers(0, 10**6), min_size=8, max_size=8),
    count=st.integers(1, 12),
    more=st.integers(0, 12),
)
def test_a_draw_depends_on_its_own_key_and_place_alone(
    seed: int, ids: list[int], epochs: list[int], count: int, more: int
) -> None:
    keys = np.array(ids)
    batch = KeyedRandom(seed, np.array(epochs[: len(ids)]), keys).uniform(Draw.REGIONS, count + more)
    for row, example_id in enumerate(ids):
        alone = KeyedRandom(seed, epochs[row], np.array([example_id])).uniform(Draw.REGIONS, count)
        np.testing.assert_array_equal(batch[row, :count], alone[0])


@pytest.fixture(scope="module")
def masked() -> dict[str, Any]:
    """One big draw over rows of 1 to 20 ordinary tokens."""
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 50, (ROWS, TOKENS))
    maskable = np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (ROWS, 1))
    ids[~maskable] = 0
    corrupted, labels = mask_tokens(ids, maskable, MASK, ORDINARY, 0.15, draws_for(ROWS))
    return dict(ids=ids, maskable=maskable, corrupted=corrupted, labels=labels, selected=labels != -100)


def test_labels_are_the_old_ids_of_the_selected_tokens(masked: dict[str, Any]) -> None:
    np.testing.assert_array_equal(masked["labels"][masked["selected"]], masked["ids"][masked["selected"]])
    np.testing.assert_array_equal(masked["corrupted"][~masked["selected"]], masked["ids"][~masked["selected"]])


def test_only_maskable_tokens_are_masked_and_each_row_has_one(masked: dict[str, Any]) -> None:
    assert not (masked["selected"] & ~masked["maskable"]).any()
    assert masked["selected"].any(1).all()


def test_fifteen_per_cent_of_tokens_are_selected(masked: dict[str, Any]) -> None:
    length = masked["maskable"].sum(1)
    selected = masked["selected"].sum(1)
    # A row in which chance selects none has one forced: expected length * 0.15 + 0.85 ** length.
    expected = length * 0.15 + 0.85**length
    spread = np.sqrt((length * 0.15 * 0.85).sum())
    assert abs(selected.sum() - expected.sum()) < 5 * spread
    assert within(
        int((selected > 1).sum()), ROWS, float((1 - 0.85**length - length * 0.15 * 0.85 ** (length - 1)).mean())
    )


def test_of_the_selected_80_per_cent_are_mask_10_random_10_kept(masked: dict[str, Any]) -> None:
    before, after = masked["ids"][masked["selected"]], masked["corrupted"][masked["selected"]]
    total = len(before)
    assert within(int((after == MASK).sum()), total, 0.8)
    # A random token is the old one once in 40 times.
    assert within(int((after == before).sum()), total, 0.1 + 0.1 / 40)
    random = after[(after != MASK) & (after != before)]
    assert within(len(random), total, 0.1 * 39 / 40)
    assert np.isin(random, ORDINARY).all()
    assert stats.chisquare(np.bincount(random - 10, minlength=40)).pvalue > 1e-4


def test_every_place_is_selected_equally_often() -> None:
    ids = np.full((ROWS, TOKENS), 20)
    _, labels = mask_tokens(ids, np.ones_like(ids, bool), MASK, ORDINARY, 0.15, draws_for(ROWS))
    assert stats.chisquare((labels != -100).sum(0)).pvalue > 1e-4


def test_another_epoch_masks_other_tokens() -> None:
    ids = np.full((100, TOKENS), 20)
    first, again, other = (
        mask_tokens(ids, np.ones_like(ids, bool), MASK, ORDINARY, 0.15, draws_for(100, epoch=epoch))[1]
        for epoch in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(1).mean() > 0.9


@st.composite
def token_rows(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    bits = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    ids = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(10, 50, (rows, length))
    return ids, np.array(bits).reshape(rows, length)


@settings(deadline=None, max_examples=80)
@given(
    table=token_rows(),
    probability=st.floats(0, 1),
    seed=st.integers(0, 2**63),
    padding=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_a_row_is_masked_alike_in_any_batch(
    table: tuple[np.ndarray, np.ndarray], probability: float, seed: int, padding: int, order: Any
) -> None:
    ids, maskable = table
    rows, length = ids.shape
    keys = np.arange(rows) + 7
    corrupted, labels = mask_tokens(ids, maskable, MASK, ORDINARY, probability, KeyedRandom(seed, 3, keys))
    selected = labels != -100
    assert not (selected & ~maskable).any()
    np.testing.assert_array_equal(selected.any(1), maskable.any(1))
    np.testing.assert_array_equal(np.where(selected, labels, corrupted), ids)
    assert np.isin(corrupted[selected & (corrupted != ids)], [MASK, *ORDINARY]).all()

    shuffled = order.sample(range(rows), rows)
    wide = np.pad(ids, ((0, 0), (0, padding)))[shuffled]
    wide_maskable = np.pad(maskable, ((0, 0), (0, padding)))[shuffled]
    again, labels_again = mask_tokens(
        wide, wide_maskable, MASK, ORDINARY, probability, KeyedRandom(seed, 3, keys[shuffled])
    )
    np.testing.assert_array_equal(again[:, :length], corrupted[shuffled])
    np.testing.assert_array_equal(labels_again[:, :length], labels[shuffled])
    assert (labels_again[:, length:] == -100).all()


@settings(deadline=None, max_examples=80)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=8), seed=st.integers(0, 2**63))
def test_the_tokens_of_a_word_share_selection_and_fate(lengths: list[int], seed: int) -> None:
    words = np.repeat(np.arange(len(lengths)), lengths)
    words = np.concatenate([[-1], words, [-1]])[None].repeat(20, 0)
    ids = np.full_like(words, 20)
    ordinary = np.arange(30, 40)  # none of them is the token that may be kept
    corrupted, labels = mask_tokens(ids, words >= 0, MASK, ordinary, 0.4, KeyedRandom(seed, 0, np.arange(20)), words)
    fate = np.select([labels == -100, corrupted == MASK, corrupted == ids], [0, 1, 2], 3)
    for word in range(len(lengths)):
        of_word = fate[words == word].reshape(20, -1)
        assert (of_word == of_word[:, :1]).all()
    assert (labels != -100).any(1).all()
    assert (labels[words < 0] == -100).all()


def test_words_are_selected_as_often_as_tokens_are() -> None:
    words = np.repeat(np.arange(10), 3)[None].repeat(ROWS, 0)
    ids = np.full_like(words, 20)
    _, labels = mask_tokens(ids, words >= 0, MASK, ORDINARY, 0.15, draws_for(ROWS), words)
    chosen = int((labels != -100).sum()) // 3
    assert abs(chosen - ROWS * (1.5 + 0.85**10)) < 5 * np.sqrt(ROWS * 10 * 0.15 * 0.85)


def test_the_same_word_number_in_a_second_text_is_another_word() -> None:
    words = np.array([[-1, 0, 0, -1, 0, 0, -1]]).repeat(500, 0)
    ids = np.full_like(words, 20)
    _, labels = mask_tokens(ids, words >= 0, MASK, ORDINARY, 0.5, draws_for(500), words)
    selected = labels != -100
    assert (selected[:, 1] != selected[:, 4]).any()


@pytest.mark.parametrize(("probability", "expected"), [(0.0, [1, 1, 0]), (1.0, [3, 1, 0])])
def test_a_row_has_at_least_one_selected_where_it_can(probability: float, expected: list[int]) -> None:
    maskable = np.array([[True, True, True], [False, True, False], [False, False, False]])
    chance = np.array([[0.7, 0.2, 0.9], [0.1, 0.99, 0.1], [0.5, 0.5, 0.5]])
    selected = select(maskable, chance, probability)
    assert selected.sum(1).tolist() == expected
    assert selected[0, 1]


def test_a_special_token_within_a_word_is_not_masked_with_it() -> None:
    selected = select(np.array([[True, False, True]]), np.array([[0.9, 0.9, 0.95]]), 0.15)
    assert selected.tolist() == [[True, False, False]]


def test_rows_without_tokens_or_regions_are_left_alone() -> None:
    empty = np.zeros((2, 0))
    assert select(empty.astype(bool), empty, 0.15).shape == (2, 0)
    assert select_regions(np.zeros((2, 3), bool), 0.5, draws_for(2)).sum() == 0


def test_fifteen_per_cent_of_regions_are_masked() -> None:
    maskable = np.ones((ROWS, TOKENS), bool)
    masked = select_regions(maskable, 0.15, draws_for(ROWS))
    assert abs(masked.sum() - ROWS * (TOKENS * 0.15 + 0.85**TOKENS)) < 5 * np.sqrt(ROWS * TOKENS * 0.15 * 0.85)
    assert masked.any(1).all()


def test_regions_and_tokens_of_an_example_are_masked_independently() -> None:
    everything = np.ones((ROWS, TOKENS), bool)
    regions = select_regions(everything, 0.15, draws_for(ROWS))
    _, labels = mask_tokens(everything * 20, everything, MASK, ORDINARY, 0.15, draws_for(ROWS))
    correlation = np.corrcoef(regions.ravel(), (labels != -100).ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(regions.size)


def test_iou_by_hand() -> None:
    boxes = np.array([[[0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 1, 2], [5, 5, 6, 6], [1, 1, 1, 1]]], dtype=np.float32)
    iou = pairwise_iou(boxes, boxes)[0]
    # 4 and 4 share 1: 1 / 7. 2 lies in 4: 2 / 4. The second and third only touch. A point has no area.
    np.testing.assert_allclose(iou[0], [1, 1 / 7, 1 / 2, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(iou[1], [1 / 7, 1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(iou, iou.T)
    assert iou[4, 4] == 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_iou_is_the_share_of_cells_that_both_boxes_cover(seed: int) -> None:
    corners = np.sort(np.random.default_rng(seed).integers(0, 12, (6, 2, 2)), axis=1).reshape(6, 4)
    cells = np.zeros((6, 12, 12), bool)
    for box, (left, top, right, bottom) in enumerate(corners):
        cells[box, top:bottom, left:right] = True
    shared = (cells[:, None] & cells[None]).sum((2, 3))
    joined = (cells[:, None] | cells[None]).sum((2, 3))
    expected = np.where(joined > 0, shared / np.maximum(joined, 1), 0)
    boxes = corners.astype(np.float64)
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), expected)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), overlap=st.floats(0, 1), probability=st.floats(0, 1))
def test_neighbours_that_overlap_a_masked_region_are_masked_too(seed: int, overlap: float, probability: float) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.random((3, 8, 2, 2)), axis=2).reshape(3, 8, 4)
    maskable = rng.random((3, 8)) < 0.8
    draws = KeyedRandom(seed, 0, np.arange(3))
    plain = select_regions(maskable, probability, draws)
    masked = select_regions(maskable, probability, draws, boxes, overlap)
    iou = pairwise_iou(boxes, boxes)
    for row in range(3):
        for place in range(8):
            covered = any(iou[row, place, other] > overlap for other in np.flatnonzero(plain[row]))
            assert masked[row, place] == (plain[row, place] or (maskable[row, place] and covered))


def test_a_masked_twin_takes_its_twin_along() -> None:
    boxes = np.array([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.6, 0.6, 1, 1]]]).repeat(200, 0)
    maskable = np.ones((200, 3), bool)
    masked = select_regions(maskable, 0.3, draws_for(200), boxes, 0.4)
    np.testing.assert_array_equal(masked[:, 0], masked[:, 1])
    assert (masked[:, 0] != masked[:, 2]).any()
    maskable[:, 1] = False
    assert not select_regions(maskable, 0.3, draws_for(200), boxes, 0.4)[:, 1].any()
