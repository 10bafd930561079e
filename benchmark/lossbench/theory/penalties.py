"""The region-size penalties by themselves: where each would lead if nothing else pulled, and how hard it
pulls on tiny regions (C2, C8).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

EPS = 1e-10


def dice_size(ph: Array, yh: Array) -> Array:
    """Return D_B = sum_k log(ph_k + yh_k) over the last axis: strictly concave, so every minimum is a corner
    of the simplex.
    """
    return np.log(np.asarray(ph) + np.asarray(yh)).sum(axis=-1)


def kl_size(ph: Array, yh: Array) -> Array:
    """Return KL(yh || ph) over the last axis, CE's own size term: convex, zero at the true proportions."""
    ph, yh = np.clip(ph, EPS, None), np.asarray(yh, dtype=float)
    return (yh * np.log(np.where(yh > 0, yh, 1) / ph)).sum(axis=-1)


def l1_size(ph: Array, yh: Array) -> Array:
    """Return mean_k |ph_k - yh_k| over the last axis, the size term of CE + L1."""
    return np.abs(np.asarray(ph) - np.asarray(yh)).mean(axis=-1)


def binary(ph: Array) -> Array:
    """Return the two-class proportions (..., 2), background first, of foreground proportions (...)."""
    ph = np.asarray(ph, dtype=float)
    return np.stack([1 - ph, ph], axis=-1)


def corner_value(yh: Array, k: int) -> float:
    """Return D_B where class k takes every pixel: sum log yh + log(1 + 1 / yh_k). The largest class gives the
    least.
    """
    return float(np.log(yh).sum() + np.log1p(1 / yh[k]))


def dice_slope(r: Array) -> Array:
    """Return d log(ph + yh) / d ln r = r / (1 + r) of the foreground term: the same for every yh."""
    return np.asarray(r) / (1 + np.asarray(r))


def kl_slope(r: Array, yh: float) -> Array:
    """Return d KL / d ln r = (ph - yh) / (1 - ph) with ph = r yh: of the order of yh."""
    ph = np.asarray(r) * yh
    return (ph - yh) / (1 - ph)


def l1_slope(r: Array, yh: float) -> Array:
    """Return d |ph - yh| / d ln r = ph sign(ph - yh): of the order of yh."""
    ph = np.asarray(r) * yh
    return ph * np.sign(ph - yh)


def l1_gradient_bound(weight: float, temperature: float) -> float:
    """Return the largest gradient of the L1 term on one pixel's logit, in units of 1 / N (that of CE is at
    most 1): weight T / 4.
    """
    return weight * temperature / 4
