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


def l1_slope(r: Array, yh: float) -> Array:
    """Return d |ph - yh| / d ln r = ph sign(ph - yh): of the order of yh."""
    ph = np.asarray(r) * yh
    return ph * np.sign(ph - yh)


def size_error_bound(loss: float) -> float:
    """Return the largest ||ph - yh||_1 that a cross-entropy of ``loss`` allows: sqrt(2 CE) (chain rule and
    Pinsker).
    """
    return float(np.sqrt(2 * loss))
