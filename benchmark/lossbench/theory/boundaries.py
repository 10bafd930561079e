"""Uncertain outlines: what volume each loss asks for when the rim of an object, or its whole boundary, is
uncertain (claim C6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Volumes:
    """Relative volume bias (predicted / expected true - 1) of the best mask for Dice and of CE cut at one
    half.
    """

    dice: float
    ce: float
    threshold_holds: bool  # does Dice's mask contain just the pixels with posterior above D* / 2?


def uncertain_rim(core: int, rim: int, eta: float) -> Volumes:
    """Return the biases for a certain core and a rim of independent pixels, each foreground with probability
    eta.

    Y ~ Binomial(rim, eta) rim pixels are true; a mask with s of them scores E[2 (core + s Y / rim) / (2 core
    + s + Y)]."""
    y = np.arange(rim + 1)
    chance = _binomial(rim, eta)
    s = np.arange(rim + 1)[:, None]
    total = 2 * core + s + y
    # An empty mask on an empty truth counts as right.
    score = np.where(total > 0, 2 * (core + s * y / rim) / np.maximum(total, 1), 1.0) @ chance
    best = int(np.argmax(score))
    expected = core + rim * eta
    # CE's probability is eta all over the rim, so its cut takes all of it or none.
    half = rim if eta > 0.5 else 0
    return Volumes(
        (core + best) / expected - 1,
        (core + half) / expected - 1,
        bool((best > 0) == (eta > score.max() / 2)),
    )


@dataclass(frozen=True)
class Shifted:
    """Relative volume bias under a shifted boundary: Dice of each image, Dice of a large batch, CE cut at one
    half, CE's soft volume.
    """

    image: float
    batch: float
    ce: float
    soft: float


def shifted_boundary(spread: float) -> Shifted:
    """Return the biases when the true object is a disc of radius G ~ N(1, spread) (a negative radius is no
    object).

    A mask is a disc of radius rho. Dice of the image, max E[2 min(rho, G)^2 / (rho^2 + G^2)], is best where
    E[sign(G - rho) G^2 / (rho^2 + G^2)^2] = 0; Dice of a batch, max 2 E[min(rho, G)^2] / (rho^2 + E[G^2]),
    where P(G > rho) (rho^2 + E[G^2]) = E[min(rho, G)^2]. CE's probability at a distance is P(G > distance):
    cut at one half it is the disc of the median radius, and summed it is E[G^2] itself.
    """
    # Larger radii are too rare to count.
    top = 1 + 9 * spread

    def mean(f, low: float, high: float) -> float:
        x, w = _NODES
        g = low + (high - low) * (x + 1) / 2
        density = np.exp(-(((g - 1) / spread) ** 2) / 2) / (spread * math.sqrt(2 * math.pi))
        return float((high - low) / 2 * np.sum(w * f(g) * density))

    true = mean(lambda g: g**2, 0, 1) + mean(lambda g: g**2, 1, top)

    def image(rho: float) -> float:
        pull = lambda g: g**2 / (rho**2 + g**2) ** 2  # noqa: E731
        return mean(pull, rho, top) - mean(pull, 0, rho)

    def batch(rho: float) -> float:
        above = mean(np.ones_like, rho, top)
        both = mean(lambda g: g**2, 0, rho) + rho**2 * above
        return above * (rho**2 + true) - both

    return Shifted(_root(image) ** 2 / true - 1, _root(batch) ** 2 / true - 1, 1 / true - 1, 0.0)


_NODES = np.polynomial.legendre.leggauss(200)


def _root(falling, low: float = 0.3, high: float = 2.0) -> float:
    """Return where a function that falls through zero does so, by bisection."""
    # Each round halves the interval: 80 leave less than a float can tell.
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _binomial(n: int, chance: float) -> np.ndarray:
    """Return P(Y = 0 ... n) of a binomial, in logs so that n may be large."""
    if chance in (0, 1):
        return np.eye(n + 1)[n if chance else 0]
    k = np.arange(n + 1)
    factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    logs = (
        factorial[n] - factorial[k] - factorial[n - k] + k * math.log(chance) + (n - k) * math.log1p(-chance)
    )
    return np.exp(logs)
