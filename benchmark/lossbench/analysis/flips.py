"""The exact sign-flip test of n numbers, one a seed; its interval, equivalence and power all come from it.

Where two losses are equal, the difference of a seed may as well have the other sign (Fisher 1935). Flipping
the signs of the subset S of the numbers x lowers their sum by 2 sum_S x, so that the flipped sum is at least
the observed one just where the mean of the subset is at most zero. With a null c the same holds for c. Hence

    P(sum at least as large | c) = (1 + #{subsets: mean <= c}) / 2^n,

where the one is the empty subset. The 2^n - 1 means of the other subsets, sorted, are all there is to know:
the p-value of any null is a count among them, the interval lies between two of them, and so neither can
contradict the other (Hartigan 1969). With n <= 5 the 95 % interval is unbounded: no outcome reaches .05.

A null other than zero, and so interval and equality, takes the numbers to scatter alike to both sides of
their mean. Those of a rare event do not (``events``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ALPHA = 0.05

EXACT_UP_TO = 16  # seeds, of which all 2^16 flips are counted

DRAWS = 100_000  # flips drawn beyond

POWER = 0.8


class Sided:
    """What follows from the one-sided p-values ``above`` and ``below`` of a null, whatever they count."""

    def above(self, null: float = 0.0) -> float:
        """Return the one-sided p-value: small means that the truth is shown to be above ``null``."""
        raise NotImplementedError

    def below(self, null: float = 0.0) -> float:
        """Return the one-sided p-value: small means that the truth is shown to be below ``null``."""
        raise NotImplementedError

    def p(self, null: float = 0.0) -> float:
        """Return the two-sided p-value against ``null``."""
        return min(1.0, 2 * min(self.above(null), self.below(null)))

    def equal(self, margin: float) -> float:
        """Return the p-value of two one-sided tests (Schuirmann 1987): small means |truth| < margin."""
        return max(self.above(-margin), self.below(margin))

    def smallest_equal(self, margin: float) -> float:
        """Return the smallest p-value that ``equal`` can give: each half of it is one-sided."""
        return self.smallest_p / 2

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p-value that so many numbers can give."""
        raise NotImplementedError

    def beyond(self, margin: float) -> float:
        """Return the two-sided p-value against |truth| <= margin: small means that it is shown to be
        larger.
        """
        return min(1.0, 2 * min(self.above(margin), self.below(-margin)))


@dataclass(frozen=True)
class Both(Sided):
    """Two tests of one question, each of which errs at another end: a null is rejected where both reject it.

    The estimate is that of the first."""

    first: Sided
    second: Sided

    @property
    def estimate(self) -> float:
        return self.first.estimate

    @property
    def n(self) -> int:
        return self.first.n

    @property
    def sd(self) -> float:
        return self.first.sd

    @property
    def smallest_p(self) -> float:
        return max(self.first.smallest_p, self.second.smallest_p)

    def smallest_equal(self, margin: float) -> float:
        return max(self.first.smallest_equal(margin), self.second.smallest_equal(margin))

    def above(self, null: float = 0.0) -> float:
        return max(self.first.above(null), self.second.above(null))

    def below(self, null: float = 0.0) -> float:
        return max(self.first.below(null), self.second.below(null))

    def equal(self, margin: float) -> float:
        return max(self.first.equal(margin), self.second.equal(margin))

    def beyond(self, margin: float) -> float:
        return max(self.first.beyond(margin), self.second.beyond(margin))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the nulls that one of both keeps, and those between."""
        lows, highs = zip(self.first.interval(level), self.second.interval(level), strict=True)
        return min(lows), max(highs)


@dataclass(frozen=True)
class Flips(Sided):
    """The sorted means of subsets of n numbers, out of ``total`` flips (the empty subset among them)."""

    estimate: float
    n: int
    sd: float  # of the n numbers, ddof = 1
    means: np.ndarray
    total: int

    def above(self, null: float = 0.0) -> float:
        return (1 + int(np.searchsorted(self.means, null + self._tie, side="right"))) / self.total

    def below(self, null: float = 0.0) -> float:
        at_least = len(self.means) - np.searchsorted(self.means, null - self._tie, side="left")
        return (1 + int(at_least)) / self.total

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return all nulls whose two-sided p-value is above 1 - level; ends may be infinite."""
        # A null is kept at the lower end while more than (1 - level) / 2 of all flips lie at or below it.
        cut = _cut(self.total, level)
        if not 1 <= cut <= len(self.means):
            return -np.inf, np.inf
        return float(self.means[cut - 1]), float(self.means[-cut])

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p-value that so many seeds can give."""
        return smallest_p(self.n)

    @property
    def _tie(self) -> float:
        """Means that are equal on paper differ in their last digits and must count as equal."""
        return 1e-9 * max(abs(self.means[0]), abs(self.means[-1]), 1e-300) if len(self.means) else 0.0


def flips(numbers: Sequence[float]) -> Flips:
    """Return the sign-flip test of the mean of ``numbers``, shape (n,), n > 0."""
    x = np.asarray(numbers, dtype=float)
    subsets = _subsets(len(x))
    means = np.sort(subsets @ x / subsets.sum(axis=1))
    sd = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
    return Flips(float(x.mean()), len(x), sd, means, len(subsets) + 1)


def two_sided(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value against zero of each row; shape (rows, seeds), nan for a missing seed,
    nan for a row without any.
    """
    p = np.full(len(differences), np.nan)
    there = ~np.isnan(differences)
    # Rows that miss the same seeds share their flips; nearly always all do.
    for held in np.unique(there[there.any(axis=1)], axis=0):
        rows = (there == held).all(axis=1)
        subsets = _subsets(int(held.sum()))
        means = differences[rows][:, held] @ subsets.T / subsets.sum(axis=1)
        tie = 1e-9 * np.maximum(np.abs(means).max(axis=1, keepdims=True), 1e-300)
        fewer = np.minimum((means <= tie).sum(axis=1), (means >= -tie).sum(axis=1))
        p[rows] = np.minimum(1.0, 2 * (1 + fewer) / (len(subsets) + 1))
    return p


def all_flips(n: int) -> np.ndarray:
    """Return which of n signs each flip turns, shape (flips, n), the one that turns none first."""
    return np.vstack([np.zeros(n), _subsets(n)])


@lru_cache(maxsize=64)
def _subsets(n: int, exact_up_to: int = EXACT_UP_TO, draws: int = DRAWS) -> np.ndarray:
    """Return which numbers are in each non-empty subset, shape (subsets, n): all of them, or random ones."""
    if n <= exact_up_to:
        return (np.arange(1, 2**n)[:, None] >> np.arange(n) & 1).astype(float)
    drawn = np.random.default_rng(0).integers(0, 2, size=(draws, n), dtype=np.int8)
    return drawn[drawn.any(axis=1)].astype(float)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p-value of a sign-flip test of n numbers: 2 / 2^n."""
    return max(min(1.0, 2.0 ** (1 - n)), 2 / (DRAWS + 1)) if n > 0 else 1.0


def seeds_needed(tests: int = 1, alpha: float = ALPHA) -> int:
    """Return the seeds with which the smallest of ``tests`` p-values can fall below alpha after Holm."""
    n = 1
    while smallest_p(n) * tests >= alpha:
        n += 1
    return n


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's step-down adjusted p-values; a test that could not be run (nan) counts as 1, stays
    nan.
    """
    p = np.asarray(p_values, dtype=float)
    filled = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(filled, kind="stable")
    stepped = np.maximum.accumulate(filled[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


@lru_cache(maxsize=256)
def detectable(n: int, tests: int = 1, power: float = POWER) -> float:
    """Return the smallest true mean, in standard deviations, that the test finds with this power.

    The test itself is simulated: n normal numbers, significant where p * ``tests`` < .05 (Holm's first step).
    It finds a shift d where the lower end of its interval lies above -d; inf where no outcome could.
    """
    lower, _ = _ends(n, 1 - ALPHA / tests)
    return float(np.quantile(-lower, power)) if np.isfinite(lower).all() else float("inf")


@lru_cache(maxsize=256)
def equal_within(n: int, tests: int = 1, power: float = POWER) -> float:
    """Return the smallest margin, in standard deviations, within which a true mean of zero is shown to lie
    with this power; inf where no outcome could.
    """
    lower, upper = _ends(n, 1 - 2 * ALPHA / tests)
    furthest = np.maximum(-lower, upper)
    return float(np.quantile(furthest, power)) if np.isfinite(furthest).all() else float("inf")


def _ends(n: int, level: float, draws: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the intervals of ``draws`` samples of n standard normal numbers."""
    # A sample of the flips does for the power of many seeds; all of them would take minutes.
    subsets = _subsets(n, exact_up_to=12, draws=4095)
    cut = _cut(len(subsets) + 1, level)
    if not 1 <= cut <= len(subsets):
        return np.array([-np.inf]), np.array([np.inf])
    rng = np.random.default_rng(0)
    size = subsets.sum(axis=1)
    lower, upper = [], []
    for _ in range(0, draws, 500):
        means = rng.normal(size=(500, n)) @ subsets.T / size
        means.partition((cut - 1, len(subsets) - cut), axis=1)
        lower.append(means[:, cut - 1])
        upper.append(means[:, -cut])
    return np.concatenate(lower), np.concatenate(upper)


def _cut(total: int, level: float) -> int:
    """Return how many of ``total`` flips an interval leaves out at each end."""
    return int(np.floor((1 - level) / 2 * total + 1e-9))
