"""CE and Dice as a matching term plus a region-size term, and the bounds between them (claims C1 to C3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Proportions:
    """What both losses depend on: true and predicted proportions and soft recall of each class, shape (K,)."""

    yh: Array
    ph: Array
    t: Array


def proportions(p: Array, y: Array) -> Proportions:
    """Return the proportions of probabilities p (N, K) and a one-hot truth y (N, K) in which every class
    occurs.
    """
    yh = y.mean(axis=0)
    return Proportions(yh, p.mean(axis=0), (p * y).mean(axis=0) / yh)


def cross_entropy(p: Array, y: Array) -> float:
    """Return -1/N sum_i log p of the true class."""
    return float(-np.log((p * y).sum(axis=1)).mean())


def classwise_cross_entropy(p: Array, y: Array) -> Array:
    """Return WCE_k = -1/n_k sum over class k's pixels of log p_k, shape (K,); CE = sum_k yh_k WCE_k."""
    return -(np.log(p) * y).sum(axis=0) / y.sum(axis=0)


def dice(p: Array, y: Array) -> Array:
    """Return the soft Dice score of each class, 2 sum p y / (sum p + sum y) = 2 yh t / (ph + yh), shape (K,)."""
    return 2 * (p * y).sum(axis=0) / (p.sum(axis=0) + y.sum(axis=0))


def jaccard(p: Array, y: Array) -> Array:
    """Return the soft Jaccard index of each class, D / (2 - D), shape (K,)."""
    both = (p * y).sum(axis=0)
    return both / (p.sum(axis=0) + y.sum(axis=0) - both)


def kl(a: Array, b: Array) -> float:
    """Return KL(a || b) of two distributions; where a is 0 nothing is added."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    held = a > 0
    return float(np.sum(a[held] * np.log(a[held] / b[held])))


def ce_size(p: Array, y: Array) -> float:
    """Return CE's region-size term KL(yh || ph): zero exactly at the true proportions, convex."""
    found = proportions(p, y)
    return kl(found.yh, found.ph)


def ce_matching(p: Array, y: Array) -> float:
    """Return CE's matching term, sum_k yh_k KL(q_k || pi_k).

    q_k is uniform on class k's true region, pi_k = p_k / (N ph_k) where the model puts class k. CE =
    ``ce_size`` + ``ce_matching``.
    """
    q = y / y.sum(axis=0)
    pi = p / p.sum(axis=0)
    return float(sum(share * kl(q[:, k], pi[:, k]) for k, share in enumerate(y.mean(axis=0))))


def dice_matching(p: Array, y: Array) -> float:
    """Return D_F = -sum_k log t_k, the matching term of -sum_k log Dice_k."""
    return float(-np.log(proportions(p, y).t).sum())


def dice_size(p: Array, y: Array) -> float:
    """Return D_B = sum_k log(ph_k + yh_k), the region-size term of -sum_k log Dice_k."""
    found = proportions(p, y)
    return float(np.log(found.ph + found.yh).sum())


def dice_constant(y: Array) -> float:
    """Return what is left: -sum_k log(2 yh_k). -sum_k log Dice_k = ``dice_matching`` + ``dice_size`` + this."""
    return float(-np.log(2 * y.mean(axis=0)).sum())


def size_error_bound(loss: float) -> float:
    """Return the largest ||ph - yh||_1 that a cross-entropy of ``loss`` allows: sqrt(2 CE) (chain rule and
    Pinsker).
    """
    return float(np.sqrt(2 * loss))
