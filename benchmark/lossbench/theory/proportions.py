"""What losses make of proportions alone, whatever the image: the region-size penalties by themselves, where
each would lead if nothing else pulled (C2, C8), and the loss of a prediction that knows nothing (C7)."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

EPS = 1e-10  # keeps a logarithm finite


# --- the region-size penalties


def dice_size(ph: Array, yh: Array) -> Array:
    """Return D_B = sum_k log(ph_k + yh_k) over the last axis: strictly concave, so every minimum is a corner
    of the simplex.
    """
    return np.log(np.asarray(ph) + np.asarray(yh)).sum(axis=-1)


def kl_size(ph: Array, yh: Array) -> Array:
    """Return KL(yh || ph) over the last axis, CE's own size term: convex, zero at the true proportions."""
    ph, yh = np.clip(ph, EPS, None), np.asarray(yh, dtype=float)
    # 0 log 0 is 0: a class that is absent adds nothing.
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


# --- the loss of a constant p0, and the p0 that each loss likes best


Array = np.ndarray


def cross_entropy(p0: Array, yh: float) -> Array:
    """Return the loss of the constant p0 where a share yh is foreground; least at yh."""
    p0 = np.asarray(p0, dtype=float)
    # log1p keeps the digits of 1 - p0 where p0 is tiny.
    return -yh * np.log(p0) - (1 - yh) * np.log1p(-p0)


def dice(p0: Array, yh: float) -> Array:
    """Return 1 - Dice of the foreground alone; least at 1: all foreground."""
    p0 = np.asarray(p0, dtype=float)
    return 1 - 2 * yh * p0 / (p0 + yh)


def dice_all(p0: Array, yh: float) -> Array:
    """Return 1 - Dice averaged over foreground and background; least exactly at yh."""
    return (dice(p0, yh) + dice(1 - np.asarray(p0, dtype=float), 1 - yh)) / 2


def log_dice_all(p0: Array, yh: float) -> Array:
    """Return -log Dice averaged over foreground and background; least near sqrt(2 yh)."""
    p0 = np.asarray(p0, dtype=float)
    return -(np.log(1 - dice(p0, yh)) + np.log(1 - dice(1 - p0, 1 - yh))) / 2


def dice_squared(p0: Array, yh: float) -> Array:
    """Return V-Net's 1 - 2 sum p y / (sum p^2 + sum y) of the foreground; least at sqrt(yh)."""
    p0 = np.asarray(p0, dtype=float)
    return 1 - 2 * yh * p0 / (p0**2 + yh)


def generalized_dice(p0: Array, yh: float) -> Array:
    """Return Sudre's loss with weights 1 / yh_k^2; it is 1 - 2 yh (1 - yh) for every p0, so nothing pulls in
    any direction.
    """
    p0 = np.asarray(p0, dtype=float)
    front, back = 1 / yh**2, 1 / (1 - yh) ** 2
    overlap = front * yh * p0 + back * (1 - yh) * (1 - p0)
    return 1 - 2 * overlap / (front * (p0 + yh) + back * (2 - p0 - yh))


LOSSES = {
    "cross-entropy": cross_entropy,
    "Dice": dice,
    "Dice with background": dice_all,
    "log-Dice with background": log_dice_all,
    "squared Dice (V-Net)": dice_squared,
    "generalised Dice": generalized_dice,
}


def best_log_dice_all(yh: float) -> float:
    """Return where ``log_dice_all`` is least: the root in (0, 1) of (2 yh - 1) p^2 + (2 yh^2 - 4 yh) p + 2 yh
    - yh^2 =
    0.
    """
    a, b, c = 2 * yh - 1, 2 * yh**2 - 4 * yh, 2 * yh - yh**2
    # At yh = 1/2 the square vanishes.
    if abs(a) < 1e-12:
        return -c / b
    roots = (-b + np.array([1, -1]) * np.sqrt(b * b - 4 * a * c)) / (2 * a)
    return float(next(root for root in roots if 0 < root < 1))


BEST = {
    "cross-entropy": lambda yh: yh,
    "Dice": lambda yh: 1.0,
    "Dice with background": lambda yh: yh,
    "log-Dice with background": best_log_dice_all,
    "squared Dice (V-Net)": np.sqrt,
    # Every p0 is as good as any other.
    "generalised Dice": lambda yh: float("nan"),
}
