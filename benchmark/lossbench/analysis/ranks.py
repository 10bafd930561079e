"""All losses at once: do two metrics rank them alike, and how far below the best does a loss fall at worst?

A metric of few seeds does not even agree with itself. So the agreement of two metrics is judged against that
of each with itself, both between different seeds, and against what it would be if both ordered every pair of
losses alike; a regret against regrets of the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lossbench.analysis import flips

SPLITS = 500  # halves of the seeds, drawn where there are more of them


class Agreement(NamedTuple):
    """Rank agreement of two metrics, and the most that noise leaves of it."""

    tau: float
    ceiling: float


def pair_orders(scores: np.ndarray) -> np.ndarray:
    """Return the order of each pair of losses, scaled; scores: (..., losses) -> (..., pairs).

    The product of two of them, summed over pairs, is Kendall's tau-b = sum sign(a_i - a_j) sign(b_i - b_j) /
    sqrt(untied pairs of a * untied pairs of b) (Kendall 1945). All zero where all losses tie."""
    i, j = np.triu_indices(scores.shape[-1], 1)
    order = np.sign(scores[..., i] - scores[..., j])
    untied = np.abs(order).sum(axis=-1, keepdims=True)
    return order / np.sqrt(np.maximum(untied, 1))


def tau_b(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of two scores of the same losses, (..., losses) -> (...)."""
    return (pair_orders(a) * pair_orders(b)).sum(axis=-1)


def split_halves(scores: np.ndarray) -> Agreement:
    """Return the agreement of two metrics between halves of the seeds, mean over data sets and splits.

    scores: (seeds, variants, losses, 2), larger is better. tau is that of one metric on one half with the
    other on the other half; the ceiling is the geometric mean of each metric's agreement with itself. No tau
    is larger in expectation (Cauchy-Schwarz), and tau is as large only where both metrics rank by the same
    truth and resolve the same pairs equally well (``agreement_by_seed`` asks for order alone)."""
    both, first, second = [], [], []
    for half in halves(len(scores)):
        one, other = (
            pair_orders(_by_metric(scores[half].mean(axis=0))),
            pair_orders(_by_metric(scores[~half].mean(axis=0))),
        )
        first.append((one[0] * other[0]).sum(axis=-1).mean())
        second.append((one[1] * other[1]).sum(axis=-1).mean())
        crossed = (one[0] * other[1] + one[1] * other[0]) / 2
        both.append(crossed.sum(axis=-1).mean())
    ceiling = np.sqrt(max(np.mean(first), 0.0) * max(np.mean(second), 0.0))
    return Agreement(float(np.mean(both)), float(ceiling))


@dataclass(frozen=True)
class Order(flips.Both):
    """Do two metrics order the losses alike? Tau minus a share of what it would be if they did.

    What it would be is known between two references only: with the signs of other seeds, which is never too
    large in expectation (the first test), and the ceiling, which is never too small (the second).
    """

    tau: float  # between single seeds
    tau_alike: float  # the same if every pair of losses had the same order by both


def order(scores: np.ndarray, share: float) -> Order:
    """Return the test of tau against ``share`` of what it would be if both metrics ordered every pair of
    losses alike; scores as in ``split_halves``.
    """
    alike, ceiling = (flips.flips(own) for own in agreement_by_seed(scores, share))
    tau, tau_alike, *_ = map(_off_diagonal, _between_seeds(*pair_orders(_by_metric(scores))))
    return Order(alike, ceiling, tau, tau_alike)


def agreement_by_seed(scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return n numbers, one a seed, whose mean is tau - share * (what tau would be if every pair of losses
    had the same order by both metrics), and n whose mean is tau - share * ceiling.

    Here the halves are single seeds: tau-b of one metric on a seed with the other on another seed, mean over
    all pairs of seeds. What a seed contributes are the jackknife's pseudo-values (Tukey 1958), n * whole -
    (n - 1) * without. Of single seeds, a smooth mean over pairs, their sign-flip test keeps its level in
    simulation; of halves, whose means jump from one order to another, it does not."""
    n = len(scores)
    matrices = _between_seeds(*pair_orders(_by_metric(scores)))
    whole = _excess(matrices, np.arange(n), share)
    # The signs of ``alike`` stay those of the whole: pairs whose sign hangs on one seed weigh next to
    # nothing, and would only make the numbers jump.
    without = np.array([_excess(matrices, np.delete(np.arange(n), seed), share) for seed in range(n)])
    alike, ceiling = (n * whole - (n - 1) * without).T
    return alike, ceiling


def _by_metric(scores: np.ndarray) -> np.ndarray:
    return np.moveaxis(scores, -1, 0)


def _between_seeds(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Return tau-b of a on one seed with b on another, what it would be if every pair of losses had the same
    order by both, and that of a with a and of b with b; mean over variants, shape (seeds, seeds) each.

    a, b: (seeds, variants, pairs), the order of each pair by either metric. Where the means over seeds of a
    pair's order are p and q, tau is the sum of p q, and of |p q| if all signs agreed. The signs are taken
    from the other seeds: of the same two they would make the sum too large."""
    both = np.einsum("svp,tvp->stvp", a, b)
    # Without seed s and seed t; rounded, since a sum that is zero on paper would have a sign.
    signs = [np.sign(np.round(own.sum(axis=0) - own[:, None] - own[None, :], 9)) for own in (a, b)]
    own = [np.einsum("svp,tvp->st", one, one) / one.shape[1] for one in (a, b)]
    return [both.sum(axis=3).mean(axis=2), (both * signs[0] * signs[1]).sum(axis=3).mean(axis=2), *own]


def _excess(matrices: list[np.ndarray], seeds: np.ndarray, share: float) -> np.ndarray:
    """Return tau above a share of what it would be if all signs agreed, and above a share of the ceiling."""
    both, alike, first, second = (_off_diagonal(matrix[np.ix_(seeds, seeds)]) for matrix in matrices)
    ceiling = np.sqrt(max(first, 0.0) * max(second, 0.0))
    return both - share * np.array([alike, ceiling])


def _off_diagonal(matrix: np.ndarray) -> float:
    n = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / max(n * (n - 1), 1))


def halves(n: int) -> Iterator[np.ndarray]:
    """Yield every way to deal n seeds into two halves, or ``SPLITS`` random ones, as masks of the first."""
    count = n // 2
    # Of 12 seeds there are 462 splits, fewer than SPLITS; of 13 there are 1,716.
    dealt = list(combinations(range(n), count)) if n <= 12 else []
    if 2 * count == n:  # each split else comes twice, once from either side
        dealt = dealt[: len(dealt) // 2]
    if not dealt:
        rng = np.random.default_rng(0)
        dealt = [rng.permutation(n)[:count] for _ in range(SPLITS)]
    for chosen in dealt:
        mask = np.zeros(n, dtype=bool)
        mask[list(chosen)] = True
        yield mask


def regret_by_seed(scores: np.ndarray, loss: int) -> np.ndarray:
    """Return how far a loss falls below the best of all, at worst over the variants, within each seed.

    scores: (seeds, variants, losses), larger is better. Noise alone makes it larger than zero, alike for two
    losses that are alike; so it is compared between losses and never with zero."""
    return (scores.max(axis=2) - scores[:, :, loss]).max(axis=1)


class Regrets(flips.Sided):
    """Is each of some losses shown to fall more than a null below some rival, on some variant?

    scores: (seeds, variants, losses), larger is better, nan where missing. Every contrast of a loss with a
    rival on a variant is a mean over seeds. The largest of their t values is judged by flipping the signs of
    whole seeds, all contrasts at once (max-T, Westfall and Young 1993), so that the number of contrasts costs
    no power and their dependence no validity.
    """

    def __init__(self, scores: np.ndarray, losses: tuple[int, ...]):
        self.contrasts = []  # one array (seeds, variants * rivals) a loss
        for loss in losses:
            behind = np.delete(scores, loss, axis=2) - scores[:, :, [loss]]
            behind = behind.reshape(len(scores), -1)
            # Where a variant was never trained with both losses there is no contrast.
            self.contrasts.append(behind[:, ~np.isnan(behind).all(axis=0)])
        self.n = len(scores)
        self.signs = 1 - 2 * flips.all_flips(self.n)  # the observed signs come first
        # The best loss of all has nothing above it: no regret, not a negative one.
        worst = [max(0.0, float(np.nanmean(behind, axis=0).max())) for behind in self.contrasts]
        self.estimate = min(worst)
        self.chosen = int(np.argmin(worst))  # which of the losses falls behind least

    def above(self, null: float = 0.0) -> float:
        """Return the p-value against a regret of at most ``null`` of some of the losses."""
        return max(self._above(behind, null) for behind in self.contrasts)

    def below(self, null: float = 0.0) -> float:
        """Return the p-value against regrets of at least ``null`` of all of the losses."""
        # A loss must be shown to stay within the null in all of its contrasts, hence the largest p of each
        # loss.
        shown = [
            max(flips.flips(own[~np.isnan(own)]).below(null) for own in behind.T) for behind in self.contrasts
        ]
        # One of the losses is enough, so Bonferroni over them.
        return min(1.0, len(shown) * min(shown))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the nulls that are not rejected, by halving: of both ends the one that keeps more."""
        spread = max(float(np.nanmax(np.abs(behind))) for behind in self.contrasts) + 1e-12
        low = _edge(lambda null: self.above(null) > (1 - level) / 2, spread)
        high = -_edge(lambda null: self.below(-null) > (1 - level) / 2, spread)
        return max(0.0, low), max(0.0, high)

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p-value that so many seeds can give."""
        return flips.smallest_p(self.n)

    def _above(self, behind: np.ndarray, null: float) -> float:
        there = ~np.isnan(behind)
        d = np.where(there, behind - null, 0.0)
        count = there.sum(axis=0)
        mean = self.signs @ d / count
        # The mean square does not change with the signs, the variance about the mean does.
        variance = np.maximum((d**2).sum(axis=0) / count - mean**2, 1e-18)
        t = (mean * np.sqrt(count / variance)).max(axis=1)
        return float(np.mean(t >= t[0] * (1 - 1e-9 * np.sign(t[0]))))


def _edge(kept, spread: float) -> float:
    """Return the smallest null in +-spread that is kept, where all larger ones are; -inf if all are."""
    low, high = -spread, spread
    if kept(low):
        return -np.inf
    # Leaves a trillionth of the range.
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high
