"""The intervals: against scipy's bootstrap, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmpt.metrics.bootstrap import bootstrap, ratios


def mean(counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    return ratios(counts, kinds, np.ones(len(kinds)))


@pytest.mark.parametrize("values", ["few kinds", "all different"])
def test_the_interval_of_a_mean_is_that_of_scipy(values: str) -> None:
    draw = np.random.default_rng(3)
    units = draw.integers(0, 2, 400).astype(float) if values == "few kinds" else draw.gamma(2.0, size=400)
    value, low, high = bootstrap(units[:, None], mean, seed=0)[0]
    theirs = stats.bootstrap((units,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert value == pytest.approx(units.mean())
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        _, low, high = bootstrap((draw.random((200, 1)) < 0.7).astype(float), mean, seed=trial)[0]
        held += low <= 0.7 <= high
    assert (
        0.90 <= held / 300 <= 0.98
    )  # 0.95 give or take three standard errors, a little less for the percentile method


def test_groups_drawn_together_give_a_wider_interval_than_their_rows() -> None:
    right = np.repeat(np.random.default_rng(0).integers(0, 2, 50), 8).astype(float)  # the rows of a group agree
    groups = np.stack([right.reshape(50, 8).sum(1), np.full(50, 8)], axis=1)
    _, low, high = bootstrap(groups, lambda counts, kinds: ratios(counts, kinds[:, :1], kinds[:, 1]), seed=0)[0]
    _, row_low, row_high = bootstrap(right[:, None], mean, seed=0)[0]
    assert (high - low) / (row_high - row_low) == pytest.approx(np.sqrt(8), rel=0.15)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40), st.randoms())
def test_the_order_of_units_has_no_effect_and_the_interval_contains_the_value(values: list[float], shuffle) -> None:
    one = bootstrap(np.array(values)[:, None], mean, seed=0)
    mixed = shuffle.sample(values, len(values))
    assert np.array_equal(one, bootstrap(np.array(mixed)[:, None], mean, seed=0))
    value, low, high = one[0]
    assert min(values) <= low <= value + 1e-12
    assert value - 1e-12 <= high <= max(values)


def test_a_draw_that_leaves_a_measure_undefined_is_left_out() -> None:
    units = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # two of three units have nothing to divide by
    assert bootstrap(units, lambda c, k: ratios(c, k[:, :1], k[:, 1]), seed=0).tolist() == [[1.0, 1.0, 1.0]]
