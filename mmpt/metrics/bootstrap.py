"""Percentile intervals of the bootstrap (Efron 1979): units are drawn again with replacement, as many as there were."""

from collections.abc import Callable, Iterator

import numpy as np

DRAWS = 1000
CONFIDENCE = 0.95
CELLS = 2_000_000  # of the largest table of counts held at once

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Gives (draws, measures): those of `counts` (draws, kinds) units of each of the `kinds` (kinds, columns)."""


def bootstrap(units: np.ndarray, statistic: Statistic, seed: int) -> np.ndarray:
    """Return each measure's value and the ends of its interval, (measures, 3).

    Equal units are one kind, and a draw is how many units it has of each kind: the same distribution as drawing units,
    at the price of the kinds. The order of the units changes nothing. A draw where a measure is undefined (NaN) is left
    out of that measure's interval.

    Args:
        units: (units, columns), what is drawn again: an example, a group or a query.
        statistic: gives the measures, for the units as they are and for all draws.
    """
    kinds, often = np.unique(units, axis=0, return_counts=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(often[None].astype(float), kinds)[0]
        drawn = np.concatenate([statistic(counts, kinds) for counts in _draw(often, seed)])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
    return np.stack([value, low, high], axis=1)


def ratios(counts: np.ndarray, numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return sum of numerators / sum of denominators over the drawn units.

    counts: (draws, kinds); numerators: (kinds, measures); denominators: (kinds,); returns (draws, measures).
    """
    return (counts @ numerators) / (counts @ denominators)[:, None]


def _draw(often: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield (draws, kinds) tables of counts, `DRAWS` rows in all."""
    generator = np.random.default_rng(seed)
    units, kinds = int(often.sum()), len(often)
    step = max(1, CELLS // kinds)
    kind_of = np.repeat(np.arange(kinds), often)
    for start in range(0, DRAWS, step):
        draws = min(step, DRAWS - start)
        if kinds * 8 < units:  # a binomial number a kind costs more than an index a unit, but there are fewer
            yield generator.multinomial(units, often / units, size=draws).astype(float)
        else:
            table = np.empty((draws, kinds))
            for row in table:
                row[:] = np.bincount(kind_of[generator.integers(units, size=units)], minlength=kinds)
            yield table
