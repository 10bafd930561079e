"""The statistics on plain arrays, so that each can be checked by hand and by simulation without any table.

A *group* holds the paired differences of one data set variant, one value a block. Every estimate is a
weighted sum of group means,

    estimate = sum_g w_g mean(d_g),

with w_g = 1/G for a mean over data sets and w_g = (x_g - mean x) / sum (x - mean x)^2 for a slope along a
dose axis x. So one interval, one bootstrap and one power calculation serve both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

Groups = Sequence[np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of group means with its standard error and Welch-Satterthwaite degrees of freedom (nan
    where unknown).
    """

    value: float
    se: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the t interval; (nan, nan) where no group was measured twice."""
        if not self.df > 0:
            return float("nan"), float("nan")
        half = _t_quantile(0.5 + level / 2, self.df) * self.se
        return self.value - half, self.value + half


def estimate(groups: Groups, weights: Sequence[float]) -> Estimate:
    """Return sum_g w_g mean(d_g); its variance is sum_g w_g^2 s_g^2 / n_g with s_g^2 of each group's own
    (ddof = 1).

    A group with a single block has no variance of its own and takes the pooled one of the others; without
    any, se is nan.
    """
    w = np.asarray(weights, dtype=float)
    n = np.array([len(g) for g in groups], dtype=float)
    means = np.array([np.mean(g) for g in groups])
    free = n - 1
    squares = np.array([np.sum((g - m) ** 2) for g, m in zip(groups, means, strict=True)])
    value = float(w @ means)
    if free.sum() == 0:
        return Estimate(value, float("nan"), 0.0)
    pooled = squares.sum() / free.sum()
    variances = np.where(free > 0, squares / np.maximum(free, 1), pooled)
    parts = w**2 * variances / n
    total = parts.sum()
    if total == 0:
        return Estimate(value, 0.0, float(free.sum()))
    own = free > 0
    df = total**2 / np.sum(parts[own] ** 2 / free[own]) if parts[own].any() else free.sum()
    return Estimate(value, float(np.sqrt(total)), float(min(df, free.sum())))


def mean_weights(groups: Groups) -> np.ndarray:
    """Return the weights of a mean over data sets: each counts the same, however many blocks it has."""
    return np.full(len(groups), 1 / len(groups))


def slope_weights(x: Sequence[float]) -> np.ndarray:
    """Return the weights that turn group means into their least-squares slope on x; needs two different
    values.
    """
    centred = np.asarray(x, dtype=float) - np.mean(x)
    spread = centred @ centred
    if spread == 0:
        raise ValueError("a slope needs at least two different values of x")
    return centred / spread


def bca_interval(
    groups: Groups, weights: Sequence[float], level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval; blocks are drawn within their own data
    set.

    Efron 1987; the acceleration is that of the empirical influence values of a stratified mean (Davison &
    Hinkley 1997,
    5.3). With fewer than about ten blocks it is too narrow (see tests/analysis/test_simulation.py), so the t
    interval leads.
    """
    from scipy.special import ndtr, ndtri

    w = np.asarray(weights, dtype=float)
    if sum(len(g) for g in groups) < 2 or max(len(g) for g in groups) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    centre = float(sum(wg * np.mean(g) for wg, g in zip(w, groups, strict=True)))
    drawn = np.zeros(resamples)
    influence = []
    for wg, group in zip(w, groups, strict=True):
        g = np.asarray(group, dtype=float)
        drawn += wg * g[rng.integers(0, len(g), size=(resamples, len(g)))].mean(axis=1)
        influence.append(wg * (g - g.mean()) / len(g))
    spread = np.concatenate(influence)
    power = np.sum(spread**2)
    # Rounding in the last digit would otherwise decide between "below" and "equal" and shift the bias
    # correction.
    if power <= (1e-12 * max(1e-300, np.abs(drawn).max())) ** 2:
        return centre, centre
    tolerance = 1e-12 * np.abs(drawn - centre).max()
    below = (
        np.sum(drawn < centre - tolerance) + 0.5 * np.sum(np.abs(drawn - centre) <= tolerance)
    ) / resamples
    bias = ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    skew = np.sum(spread**3) / (6 * power**1.5)
    ends = ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    levels = ndtr(bias + (bias + ends) / (1 - skew * (bias + ends)))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)


def hierarchical_interval(
    units: Sequence[Groups], level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of the mean over independent data sets: data sets are drawn, then blocks
    within each.

    ``units[u]`` holds the groups of one independent data set (a synthetic ladder is one unit with several
    groups)."""
    if len(units) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(units)))
    chosen = rng.integers(0, len(units), size=(resamples, len(units)))
    for u, groups in enumerate(units):
        # A fresh draw of blocks for each of the places that the unit may fill in a resample.
        means = np.zeros((resamples, len(units)))
        for group in groups:
            g = np.asarray(group, dtype=float)
            means += g[rng.integers(0, len(g), size=(resamples, len(units), len(g)))].mean(axis=2) / len(
                groups
            )
        drawn += np.where(chosen == u, means, 0.0)
    low, high = np.quantile(drawn.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def superiority(differences: np.ndarray) -> float:
    """Return P(A > B): the share of blocks where A is ahead, ties half (Bouthillier et al. 2021)."""
    d = np.asarray(differences)
    return float(np.mean(d > 0) + 0.5 * np.mean(d == 0))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's step-down adjusted p-values; a test that could not be run (nan) counts as p = 1 and stays
    nan.
    """
    p = np.asarray(p_values, dtype=float)
    filled = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(filled, kind="stable")
    stepped = np.maximum.accumulate(filled[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


def tost(found: Estimate, margin: float) -> float:
    """Return the p-value of the two one-sided t tests against |effect| >= margin (Schuirmann 1987); small
    means equivalent.
    """
    if not found.df > 0 or not margin > 0:
        return float("nan")
    if found.se == 0 and found.df < 2:  # as in ``beyond``
        return float("nan")
    if found.se == 0:
        return 0.0 if abs(found.value) < margin else 1.0
    from scipy.special import stdtr

    return float(stdtr(found.df, (abs(found.value) - margin) / found.se))


def beyond(found: Estimate, margin: float) -> float:
    """Return the one-sided p-value against |effect| <= margin: small means that the effect is shown to be
    larger.
    """
    if not found.df > 0:
        return float("nan")
    if (
        found.se == 0 and found.df < 2
    ):  # two equal values, say two collapses, do not show that there is no spread
        return float("nan")
    if found.se == 0:
        return 0.0 if abs(found.value) > margin else 1.0
    from scipy.special import stdtr

    return float(stdtr(found.df, (margin - abs(found.value)) / found.se))


def t_test(found: Estimate) -> float:
    """Return the two-sided p-value of estimate / se on its degrees of freedom; nan where unknown."""
    if not found.df > 0:
        return float("nan")
    if found.se == 0:
        return 1.0 if found.value == 0 else 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(found.df, -abs(found.value) / found.se))


def minimum_detectable(found: Estimate, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true effect that a two-sided t test with this se and df finds with this power."""
    if not found.df > 0:
        return float("nan")
    return found.se * _detectable_in_se(round(found.df, 2), alpha, power)


@lru_cache(maxsize=4096)
def _detectable_in_se(df: float, alpha: float, power: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    critical = _t_quantile(1 - alpha / 2, df)

    def lacking(shift: float) -> float:
        # The chance of a significant result on the wrong side is below 1e-4 wherever power is .5 or more.
        return nctdtr(df, shift, critical) - (1 - power)

    high = critical
    while lacking(high) > 0:  # the noncentral t fails far out, so the bracket grows in small steps
        high *= 1.1
    return float(brentq(lacking, 0.0, high))


@lru_cache(maxsize=4096)
def _t_quantile(probability: float, df: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


# --- What is shown about a ranking or a maximum by paired t tests of its parts: bounds that hold whatever
# the rest may be. Noise swaps losses that are nearly tied and raises a maximum, and no resampling tells
# that from a truth (in simulations of losses that were equal, bootstrap intervals of either kind spoke of
# disagreement or regret in a third of the studies). So only what is shown pair by pair counts here: a
# pair of losses is in another order by the second metric, a loss lies so much below another one on some
# data set. Values are oriented: larger is better. Groups: one array (blocks, losses, columns) a data set.


def discordant(groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, share) of every pair of losses on every data set, most certain first: is it in another order
    by the second column?

    p is the larger one of two two-sided paired t tests, 1 where the means do not have opposite signs,
    Holm-adjusted over all pairs and data sets; share is what the pair, if discordant, takes from the mean
    rank agreement: 2 / pairs / data sets."""
    p, share = [], []
    for group in groups:
        i, j = np.triu_indices(group.shape[1], 1)
        mean, se, df = _paired(group[:, i] - group[:, j])
        opposite = mean[:, 0] * mean[:, 1] < 0
        both = (2 * _upper(np.abs(mean), se, df)).max(axis=1)
        p.append(np.where(opposite, np.minimum(both, 1), 1.0))
        share.append(np.full(len(i), 2 / len(i) / len(groups)))
    adjusted, whole = holm(np.concatenate(p)), np.concatenate(share)
    order = np.argsort(adjusted, kind="stable")
    return adjusted[order], whole[order]


def agreement_below(shown: tuple[np.ndarray, np.ndarray], null: float) -> float:
    """Return the one-sided p-value: small means that so many pairs are shown to be discordant that the mean
    tau is below ``null``.
    """
    p, share = shown
    enough = np.flatnonzero(1 - np.cumsum(share) < null - 1e-12)
    return float(p[enough[0]]) if len(enough) else 1.0


def agreement_at_most(shown: tuple[np.ndarray, np.ndarray], alpha: float) -> float:
    """Return the upper bound of the mean tau, of confidence 1 - alpha."""
    p, share = shown
    return float(1 - share[p <= alpha].sum())


def regret_above(groups: Groups, losses: Sequence[int], null: float) -> float:
    """Return the one-sided p-value: small means that each of ``losses`` is shown to lie more than ``null``
    below some loss on some data set.

    Bonferroni over the rivals and data sets of a loss, the largest of these p-values over the losses
    (intersection-union)."""
    found = []
    for loss in losses:
        mean, se, df = _behind(groups, loss)
        found.append(min(1.0, len(mean) * float(_upper(mean - null, se, df).min())))
    return max(found)


def regret_below(groups: Groups, losses: Sequence[int], null: float) -> float:
    """Return the one-sided p-value: small means that one of ``losses`` is shown to lie less than ``null``
    below every loss on every data set.
    """
    found = []
    for loss in losses:
        mean, se, df = _behind(groups, loss)
        found.append(float(_upper(null - mean, se, df).max()))
    return min(1.0, len(found) * min(found))


def regret_interval(groups: Groups, losses: Sequence[int], level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the smallest largest regret of ``losses`` that belongs to both tests."""
    alpha = (1 - level) / 2
    lows, highs = [], []
    for loss in losses:
        mean, se, df = _behind(groups, loss)
        lows.append(np.max(mean - stdtrit(df, 1 - alpha / len(mean)) * se))
        highs.append(np.max(mean + stdtrit(df, 1 - alpha / len(losses)) * se))
    return max(0.0, float(min(lows))), max(0.0, float(min(highs)))


def _behind(groups: Groups, loss: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, standard error and degrees of freedom of how far a loss is behind each other one on each
    data set.
    """
    parts = [_paired(np.delete(g[..., 0], loss, axis=1) - g[:, [loss], 0]) for g in groups]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _paired(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(d)
    return d.mean(axis=0), d.std(axis=0, ddof=1) / np.sqrt(n), np.full(d.shape[1:], n - 1.0)


def _upper(excess: np.ndarray, se: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the one-sided p-values of t = excess / se; without any spread an excess of nothing shows
    nothing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(se > 0, excess / se, np.where(excess > 0, np.inf, -np.inf))
    return stdtr(df, -t)
