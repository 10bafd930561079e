"""What is shown about a ranking or a maximum by paired t tests of its parts: bounds that hold whatever the rest may be.

Noise swaps losses that are nearly tied and raises a maximum, and no resampling tells that from a truth (in simulations of losses that were equal,
bootstrap intervals of either kind spoke of disagreement or regret in a third of the studies). So only what is shown pair by pair counts here: a
pair of losses is in another order by the second metric, a loss lies so much below another one on some data set. Values are oriented: larger is
better. Groups: one array (blocks, losses, columns) a data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from benchmark.analysis import stats

Groups = Sequence[np.ndarray]


def discordant(groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, share) of every pair of losses on every data set, most certain first: is it in another order by the second column?

    p is the larger one of two two-sided paired t tests, 1 where the means do not have opposite signs, Holm-adjusted over all pairs and data sets;
    share is what the pair, if discordant, takes from the mean rank agreement: 2 / pairs / data sets.
    """
    p, share = [], []
    for group in groups:
        i, j = np.triu_indices(group.shape[1], 1)
        mean, se, df = _paired(group[:, i] - group[:, j])
        opposite = mean[:, 0] * mean[:, 1] < 0
        both = (2 * _upper(np.abs(mean), se, df)).max(axis=1)
        p.append(np.where(opposite, np.minimum(both, 1), 1.0))
        share.append(np.full(len(i), 2 / len(i) / len(groups)))
    adjusted, whole = stats.holm(np.concatenate(p)), np.concatenate(share)
    order = np.argsort(adjusted, kind="stable")
    return adjusted[order], whole[order]


def agreement_below(shown: tuple[np.ndarray, np.ndarray], null: float) -> float:
    """Return the one-sided p-value: small means that so many pairs are shown to be discordant that the mean tau is below ``null``."""
    p, share = shown
    enough = np.flatnonzero(1 - np.cumsum(share) < null - 1e-12)
    return float(p[enough[0]]) if len(enough) else 1.0


def agreement_at_most(shown: tuple[np.ndarray, np.ndarray], alpha: float) -> float:
    """Return the upper bound of the mean tau, of confidence 1 - alpha."""
    p, share = shown
    return float(1 - share[p <= alpha].sum())


def regret_above(groups: Groups, losses: Sequence[int], null: float) -> float:
    """Return the one-sided p-value: small means that each of ``losses`` is shown to lie more than ``null`` below some loss on some data set.

    Bonferroni over the rivals and data sets of a loss, the largest of these p-values over the losses (intersection-union).
    """
    found = []
    for loss in losses:
        mean, se, df = _behind(groups, loss)
        found.append(min(1.0, len(mean) * float(_upper(mean - null, se, df).min())))
    return max(found)


def regret_below(groups: Groups, losses: Sequence[int], null: float) -> float:
    """Return the one-sided p-value: small means that one of ``losses`` is shown to lie less than ``null`` below every loss on every data set."""
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
    """Return mean, standard error and degrees of freedom of how far a loss is behind each other one on each data set."""
    parts = [_paired(np.delete(g[..., 0], loss, axis=1) - g[:, [loss], 0]) for g in groups]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _paired(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(d)
    return d.mean(axis=0), d.std(axis=0, ddof=1) / np.sqrt(n), np.full(d.shape[1:], n - 1.0)


def _upper(excess: np.ndarray, se: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the one-sided p-values of t = excess / se; without any spread an excess of nothing shows nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(se > 0, excess / se, np.where(excess > 0, np.inf, -np.inf))
    return stdtr(df, -t)
