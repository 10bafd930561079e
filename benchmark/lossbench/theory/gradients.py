"""Who pulls how hard: gradient mass of foreground and background, of small and large objects, and the noise
of the loss (C4, C5, C11).

Masses are sums of |d loss / d logit| over pixels, for a sigmoid prediction p (N,) of a binary truth y (N,).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def dice_gradient(p: Array, y: Array, total: float | None = None, score: float | None = None) -> Array:
    """Return d(1 - Dice) / d logit of every pixel: -(2 - D) / S on the foreground, +D / S on the background,
    times p (1
    - p).

    S = sum p + sum y and D are those of the image, or of the batch it is part of where ``total`` and
    ``score`` give them.
    """
    total = p.sum() + y.sum() if total is None else total
    score = 2 * (p * y).sum() / total if score is None else score
    # p (1 - p) is the slope of the sigmoid: pixels that are sure of themselves hardly pull.
    return np.where(y > 0, -(2 - score), score) / total * p * (1 - p)


def ce_gradient(p: Array, y: Array) -> Array:
    """Return d CE / d logit of every pixel: (p - y) / N."""
    return (p - y) / len(p)


def masses(gradient: Array, y: Array) -> tuple[float, float]:
    """Return the gradient mass on the foreground and on the background."""
    return float(np.abs(gradient[y > 0]).sum()), float(np.abs(gradient[y == 0]).sum())


def dice_mass_ratio(p0: float, yh: float) -> float:
    """Return foreground over background mass of Dice at a constant prediction: 1 + yh / (p0 (1 - yh)); never
    below
    1.
    """
    return 1 + yh / (p0 * (1 - yh))


def ce_mass_ratio(p0: float, yh: float) -> float:
    """Return foreground over background mass of CE at a constant prediction: yh (1 - p0) / ((1 - yh) p0)."""
    return yh * (1 - p0) / ((1 - yh) * p0)


def object_mass(n: int, pixels: int, front: float, back: float, over: str) -> float:
    """Return the foreground mass of an object of n pixels, predicted as ``front`` inside and ``back``
    outside.

    ``over`` is "image" (Dice of its own image), "batch" (Dice over a batch that is large beside it, in units
    of its common 1 / S, D), or "ce". Only ratios between objects mean anything.
    """
    y = np.zeros(pixels)
    y[:n] = 1
    # The pixels of each side are alike, so that only their number matters.
    p = np.where(y > 0, front, back)
    if over == "image":
        return masses(dice_gradient(p, y), y)[0]
    if over == "batch":
        return masses(dice_gradient(p, y, total=1.0, score=0.0), y)[0]
    return masses(ce_gradient(p, y), y)[0]


def dice_loss_sd(n: Array, share: float = 0.1, errors: str = "area") -> Array:
    """Return the standard deviation of the Dice loss of one image, to first order in the number of errors.

    Errors are independent with chance ``share`` on the n object pixels and as many beside it ("area"), or on
    a rim of 2 sqrt(pi n) pixels ("perimeter"): missed and added pixels m, a ~ Binomial; loss = (m + a) / (2 n
    - m + a). Slopes on log n: -1/2 and -3/4.
    """
    n = np.asarray(n, dtype=float)
    places = n if errors == "area" else np.sqrt(np.pi * n)  # for misses, and as many for additions
    mean = places * share
    spread = places * share * (1 - share)
    whole = 2 * n  # the expected denominator: misses and additions cancel
    by_missed = (whole + 2 * mean) / whole**2
    by_added = (whole - 2 * mean) / whole**2
    return np.sqrt(spread * (by_missed**2 + by_added**2))


def ce_loss_sd(n: Array, share: float = 0.1, pixels: int = 16384) -> Array:
    """Return the standard deviation of CE when each rim pixel in error costs one unit: sqrt(perimeter share
    (1 - share)) / N ~ n^(1/4).
    """
    return np.sqrt(2 * np.sqrt(np.pi * np.asarray(n, dtype=float)) * share * (1 - share)) / pixels
