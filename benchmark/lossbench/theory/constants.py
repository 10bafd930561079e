"""What each loss makes of a prediction that knows nothing: the loss of a constant p0, and the p0 it likes
best (claim C7).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def cross_entropy(p0: Array, yh: float) -> Array:
    """Return the loss of the constant p0 where a share yh is foreground; least at yh."""
    p0 = np.asarray(p0, dtype=float)
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
    "generalised Dice": lambda yh: float("nan"),
}
