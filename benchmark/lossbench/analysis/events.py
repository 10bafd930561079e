"""Numbers of a rare event, one a seed: did more cells of one loss collapse than of another?

Sign flips see what the seeds show. Ten seeds without a collapse have ten differences of zero, all flips of
which are zero, and so "no difference" with certainty; but a loss that collapses in a quarter of its trainings
shows no collapse in ten with p = .06. A difference d of means of zeros and ones is at most one. So where its
mean is c or more, at least a share c of all seeds has a d above zero, and the number of such seeds among n is
at least binomial: P(so few | mean >= c) <= P(Binomial(n, c) <= number seen), the bound of Clopper and Pearson
(1934). The same holds below zero. Whether there is a difference at all sign flips tell, as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, bdtri

from lossbench.analysis.flips import Flips, Sided, flips


@dataclass(frozen=True)
class Events(Sided):
    """The sign-flip test of n numbers, with exact bounds of the means that they leave possible."""

    flipped: Flips
    more: int  # seeds whose number is above zero
    fewer: int  # and below
    largest: float  # what no number can exceed

    @property
    def estimate(self) -> float:
        return self.flipped.estimate

    @property
    def n(self) -> int:
        return self.flipped.n

    @property
    def sd(self) -> float:
        return self.flipped.sd

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p-value of a difference."""
        return self.flipped.smallest_p

    def smallest_equal(self, margin: float) -> float:
        return self._few(0, margin)

    def above(self, null: float = 0.0) -> float:
        if null >= 0:
            return self.flipped.above(null)
        # What is above zero is above all that is less.
        return min(self.flipped.above(0.0), self._few(self.fewer, -null))

    def below(self, null: float = 0.0) -> float:
        if null <= 0:
            return self.flipped.below(null)
        return min(self.flipped.below(0.0), self._few(self.more, null))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return all nulls whose two-sided p-value is above 1 - level."""
        low, high = self.flipped.interval(level)
        tail = (1 - level) / 2
        # Where flips do not exclude zero they say nothing about how far beyond it the truth may be.
        low = low if self.flipped.above() <= tail else -self._most(self.fewer, tail)
        high = high if self.flipped.below() <= tail else self._most(self.more, tail)
        return low, high

    def _few(self, count: int, mean: float) -> float:
        """Return the largest probability of at most ``count`` such seeds where the mean is ``mean`` or
        more.
        """
        return float(bdtr(count, self.n, min(1.0, mean / self.largest)))

    def _most(self, count: int, tail: float) -> float:
        """Return the mean at which so few seeds have a probability of ``tail``."""
        return self.largest * (float(bdtri(count, self.n, tail)) if count < self.n else 1.0)


def events(numbers: np.ndarray, largest: float = 1.0) -> Events:
    """Return the test of ``numbers``, shape (n,), none of which can exceed ``largest``."""
    tie = 1e-9 * largest
    return Events(flips(numbers), int((numbers > tie).sum()), int((numbers < -tie).sum()), largest)
