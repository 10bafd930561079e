"""Bootstrap of statistics that are no weighted means, rank agreements and largest regrets, whole blocks at a time.

Such statistics are biased: noise swaps near ties, so that a rank agreement comes out too low, and a maximum over noisy means comes out too high.
Drawing again adds the same bias once more, so the percentile interval lies on the wrong side of it and the basic interval (the estimate minus
what the drawing adds, Davison & Hinkley 1997, 5.2) on the right one; where the bias is small the percentile interval keeps to the possible
values. A statement is made only if both make it: the interval is the hull of the two, a p-value the larger of the two. Simulations
(tests/analysis/test_rankings.py) show that this holds its level for differences of two largest regrets, whose biases cancel, and for an agreement
shown to be high; for an agreement shown to be low and for one regret by itself it does not, and ``bounds`` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

FEWEST = 3  # blocks of every data set below which nothing is said
DRAWS = 2000
Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]  # one array (draws, ...) of means a data set -> (draws,)


@dataclass(frozen=True)
class Resampled:
    """A statistic of the means, and what it became in each draw; ``drawn`` is empty where some data set has too few blocks."""

    value: float
    drawn: np.ndarray

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p-value that the draws can give."""
        return 2 / (len(self.drawn) + 1) if len(self.drawn) else 1.0

    def percentiles(self, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval."""
        if not len(self.drawn):
            return float("nan"), float("nan")
        low, high = np.quantile(self.drawn, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the hull of the percentile and the basic interval."""
        low, high = self.percentiles(level)
        return min(low, 2 * self.value - high), max(high, 2 * self.value - low)

    def above(self, null: float) -> float:
        """Return the one-sided p-value: small means that the truth is shown to be above ``null``."""
        return self._share(self.drawn <= null, self.drawn >= 2 * self.value - null)

    def below(self, null: float) -> float:
        """Return the one-sided p-value: small means that the truth is shown to be below ``null``."""
        return self._share(self.drawn >= null, self.drawn <= 2 * self.value - null)

    def p(self, null: float = 0.0) -> float:
        """Return the two-sided p-value."""
        return min(1.0, 2 * min(self.above(null), self.below(null))) if len(self.drawn) else float("nan")

    def p_equal(self, margin: float) -> float:
        """Return the p-value of two one-sided tests against |statistic| >= margin."""
        return max(self.above(-margin), self.below(margin))

    def _share(self, percentile: np.ndarray, basic: np.ndarray) -> float:
        if not len(self.drawn):
            return float("nan")
        return (1 + max(int(percentile.sum()), int(basic.sum()))) / (1 + len(self.drawn))


def resample(groups: Sequence[np.ndarray], statistic: Statistic, draws: int = DRAWS, seed: int = 0) -> Resampled:
    """Return a statistic of the mean blocks of each data set, and its draws; groups[g]: (blocks, ...).

    Blocks are drawn with replacement within their data set. The mean of n drawn blocks scatters too little, by (n - 1) / n, and has the tails of a
    normal, not of a t distribution; with a handful of seeds both matter, so its deviation is widened by sqrt(n / (n - 1)) t / z, where t and z are
    the .975 quantiles of t with n - 1 degrees of freedom and of the normal: the percentile interval of a mean is then its t interval.
    """
    value = float(statistic([np.asarray(g, dtype=float).mean(axis=0)[None] for g in groups])[0])
    if min(len(g) for g in groups) < FEWEST:
        return Resampled(value, np.empty(0))
    rng = np.random.default_rng(seed)
    means = []
    for group in groups:
        g = np.asarray(group, dtype=float)
        n = len(g)
        centre = g.mean(axis=0)
        drawn = np.tensordot(rng.multinomial(n, np.full(n, 1 / n), size=draws) / n, g - centre, axes=1)
        means.append(centre + drawn * np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.975) / ndtri(0.975))
    return Resampled(value, np.asarray(statistic(means), dtype=float))
