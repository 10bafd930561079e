"""Exact tests without a distribution: sign flips of paired differences, and of differences between doses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from lossbench.analysis.stats import Groups, mean_weights

EXACT_UP_TO = 32  # blocks; 2^32 sign patterns are counted exactly from two sorted halves of 2^16 sums


def smallest_p(blocks: int) -> float:
    """Return the smallest two-sided p-value that a sign-flip test on this many blocks can give: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - blocks)) if blocks > 0 else 1.0


def blocks_needed(alpha: float = 0.05, tests: int = 1) -> int:
    """Return how many blocks a sign-flip test needs before p < alpha is possible for the smallest of
    ``tests`` under Holm.
    """
    n = 1
    while smallest_p(n) * tests >= alpha:
        n += 1
    return n


def reach(blocks: int, draws: int = 20_000) -> float:
    """Return the smallest p-value that ``sign_flip`` can give: exact up to 32 blocks, one in ``draws`` + 1
    beyond.
    """
    return smallest_p(blocks) if blocks <= EXACT_UP_TO else 1 / (draws + 1)


def sign_flip(
    groups: Groups, weights: Sequence[float] | None = None, draws: int = 20_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of sum_g w_g mean(d_g) when each block's difference may as well have the
    other sign.

    Under the null the two losses of a block are exchangeable, hence so is the sign of their difference
    (Fisher 1935). Exact up to 32 blocks; beyond, ``draws`` random patterns with the observed one counted in,
    (hits + 1) / (draws + 1)."""
    weights = mean_weights(groups) if weights is None else weights
    terms = np.concatenate(
        [w * np.asarray(g, dtype=float) / len(g) for w, g in zip(weights, groups, strict=True)]
    )
    observed = abs(terms.sum())
    # Sums that are equal on paper differ in the last digits; they must count as ties.
    threshold = observed - 1e-9 * np.abs(terms).sum()
    live = terms[terms != 0]
    if len(live) == 0 or threshold <= 0:
        return 1.0
    if len(live) <= EXACT_UP_TO:
        return _exact(np.abs(live), threshold)
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, draws, 2000):
        size = min(2000, draws - start)
        signs = rng.integers(0, 2, size=(size, len(live)), dtype=np.int8) * np.int8(2) - np.int8(1)
        hits += int(np.sum(np.abs(signs @ live) >= threshold))
    return (hits + 1) / (draws + 1)


def _exact(sizes: np.ndarray, threshold: float) -> float:
    """Return the share of the 2^n sign patterns with |sum| >= threshold > 0, by meeting in the middle."""
    middle = len(sizes) // 2
    left, right = _signed_sums(sizes[:middle]), np.sort(_signed_sums(sizes[middle:]))
    above = len(right) - np.searchsorted(right, threshold - left, side="left")
    return float(2 * above.sum() / 2.0 ** len(sizes))  # the patterns below -threshold mirror those above


def _signed_sums(sizes: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def mirrored(ladders: Sequence[tuple[Groups, Sequence[float]]]) -> np.ndarray:
    """Return one weighted difference for each pair of blocks at mirrored doses: highest with lowest, second
    highest with second lowest, ...

    Where no dose matters, each such difference may as well have the other sign, however differently the doses
    scatter; so flipping their signs tests a trend exactly. (Permuting the doses of the blocks does not: with
    four blocks a dose and a spread that grows twentyfold towards the rare end, even a studentised permutation
    test raised false alarms in 14 % of simulated studies.)
    """
    terms = []
    for groups, x in ladders:
        order = np.argsort(x)
        for low, high in zip(order[: len(order) // 2], order[::-1], strict=False):
            pairs = min(len(groups[low]), len(groups[high]))
            rise = np.asarray(groups[high][:pairs], dtype=float) - np.asarray(
                groups[low][:pairs], dtype=float
            )
            terms.append(rise * (x[high] - x[low]) / pairs)
    return np.concatenate(terms)


def trend(ladders: Sequence[tuple[Groups, Sequence[float]]]) -> tuple[float, float]:
    """Return (two-sided p-value, smallest p-value reachable) of a trend along the dose axis, by flipping
    ``mirrored`` differences.
    """
    rises = mirrored(ladders)
    return sign_flip([rises]), reach(len(rises))


# --- Bootstrap of statistics that are no weighted means, rank agreements and largest regrets, whole
# blocks at a time. Such statistics are biased: noise swaps near ties, so that a rank agreement comes out
# too low, and a maximum over noisy means comes out too high. Drawing again adds the same bias once more,
# so the percentile interval lies on the wrong side of it and the basic interval (the estimate minus what
# the drawing adds, Davison & Hinkley 1997, 5.2) on the right one; where the bias is small the percentile
# interval keeps to the possible values. A statement is made only if both make it: the interval is the
# hull of the two, a p-value the larger of the two. Simulations (tests/analysis/test_rankings.py) show
# that this holds its level for differences of two largest regrets, whose biases cancel, and for an
# agreement shown to be high; for an agreement shown to be low and for one regret by itself it does not,
# and ``bounds`` decides.

FEWEST = 3  # blocks of every data set below which nothing is said

DRAWS = 2000

Statistic = Callable[
    [Sequence[np.ndarray]], np.ndarray
]  # one array (draws, ...) of means a data set -> (draws,)


@dataclass(frozen=True)
class Resampled:
    """A statistic of the means, and what it became in each draw; ``drawn`` is empty where some data set has
    too few blocks.
    """

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


def resample(
    groups: Sequence[np.ndarray], statistic: Statistic, draws: int = DRAWS, seed: int = 0
) -> Resampled:
    """Return a statistic of the mean blocks of each data set, and its draws; groups[g]: (blocks, ...).

    Blocks are drawn with replacement within their data set. The mean of n drawn blocks scatters too little,
    by (n - 1) / n, and has the tails of a normal, not of a t distribution; with a handful of seeds both
    matter, so its deviation is widened by sqrt(n / (n - 1)) t / z, where t and z are the .975 quantiles of t
    with n - 1 degrees of freedom and of the normal: the percentile interval of a mean is then its t interval.
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
