"""Percentile confidence intervals by bootstrap: resampling units with replacement (Efron 1979)."""

from collections.abc import Callable, Iterator

import numpy as np

DRAWS = 1000
CONFIDENCE = 0.95
CELLS = 2_000_000  # largest number of counts in memory at once

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of counts (draws, kinds) and kinds (kinds, columns) that returns measures (draws, measures)."""


def bootstrap(units: np.ndarray, statistic: Statistic, seed: int) -> np.ndarray:
    """Return (measures, 3): the value of each measure, and the lower and upper end of its interval.

    Equal units form one kind, and a draw is represented by its number of units of each kind. This has the same
    distribution as drawing units, but the cost depends on the number of kinds. The order of the units has no effect.
    A draw for which a measure is undefined (NaN) is left out of the interval of that measure.

    Args:
        units: (units, columns), the resampled units: examples, groups or queries.
        statistic: computes the measures of the original units and of all draws.
        seed: seed of the draws.
    """
    kinds, often = np.unique(units, axis=0, return_counts=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(often[None].astype(float), kinds)[0]
        drawn = np.concatenate([statistic(counts, kinds) for counts in _draw(often, seed)])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
    return np.stack([value, low, high], axis=1)


def ratios(counts: np.ndarray, numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return sum of numerators / sum of denominators over the units of each draw.

    counts: (draws, kinds); numerators: (kinds, measures); denominators: (kinds,); returns (draws, measures).
    """
    return (counts @ numerators) / (counts @ denominators)[:, None]


def _draw(often: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield (draws, kinds) arrays of counts, `DRAWS` rows in total."""
    generator = np.random.default_rng(seed)
    units, kinds = int(often.sum()), len(often)
    step = max(1, CELLS // kinds)
    kind_of = np.repeat(np.arange(kinds), often)
    for start in range(0, DRAWS, step):
        draws = min(step, DRAWS - start)
        if kinds * 8 < units:  # one binomial number per kind is slower than one index per unit, unless kinds are few
            yield generator.multinomial(units, often / units, size=draws).astype(float)
        else:
            table = np.empty((draws, kinds))
            for row in table:
                row[:] = np.bincount(kind_of[generator.integers(units, size=units)], minlength=kinds)
            yield table
