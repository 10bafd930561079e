"""The best that any network could do: Gaussian pixels, infinitely many, and the prediction that each loss
prefers (C8 to C11, C14).

A pixel shows x ~ N(0, 1) if background, N(d, 1) if foreground; a share yh is foreground. Every mask worth
having is x > some cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Mask:
    """A mask x > cut: relative size r = predicted / true, Dice score, and the posterior tau at its edge."""

    r: float
    dice: float
    tau: float


@dataclass(frozen=True)
class Pixels:
    """A population of pixels: separation d of the two classes in standard deviations, foreground share yh."""

    d: float
    yh: float

    def posterior(self, x: Array) -> Array:
        """Return P(foreground | x)."""
        return 1 / (1 + np.exp(-self._logit(x)))

    def cut_at(self, tau: float) -> float:
        """Return the x at which the posterior is tau."""
        return (math.log(tau / (1 - tau)) - math.log(self.yh / (1 - self.yh)) + self.d**2 / 2) / self.d

    def mask(self, cut: float) -> Mask:
        """Return what the mask x > cut scores."""
        hit, alarm = self.yh * _above(cut - self.d), (1 - self.yh) * _above(cut)
        return Mask((hit + alarm) / self.yh, 2 * hit / (hit + alarm + self.yh), float(self.posterior(cut)))

    def ce_mask(self) -> Mask:
        """Return CE's mask: the posterior, cut at one half."""
        return self.mask(self.cut_at(0.5))

    def dice_mask(self) -> Mask:
        """Return the mask of the highest Dice score; its edge lies at tau = D* / 2, found by iterating that
        condition.
        """
        tau = 0.25
        for _ in range(500):
            tau = self.mask(self.cut_at(tau)).dice / 2
        return self.mask(self.cut_at(tau))

    def matched_mask(self) -> Mask:
        """Return the mask whose size is right (r = 1), by bisection."""
        # Far outside both classes: at the lower cut all is marked, at the upper one nothing.
        low, high = -10.0, self.d + 10.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.mask(middle).r > 1 else (low, middle)
        return self.mask((low + high) / 2)

    def balanced_mask(self) -> Mask:
        """Return the mask of CE weighted by inverse class frequency: x > d / 2, whatever yh; r is at most 1 /
        yh.
        """
        return self.mask(self.d / 2)

    def grid(self, points: int = 4001) -> tuple[Array, Array]:
        """Return x on a grid and the share of pixels at each, for sums over the population."""
        # Nine standard deviations beyond both means: what lies outside adds nothing.
        x = np.linspace(-9, self.d + 9, points)
        density = (1 - self.yh) * np.exp(-(x**2) / 2) + self.yh * np.exp(-((x - self.d) ** 2) / 2)
        return x, density / density.sum()

    def _logit(self, x: Array) -> Array:
        return math.log(self.yh / (1 - self.yh)) + self.d * np.asarray(x) - self.d**2 / 2


def fitted(
    pixels: Pixels, size_term: str = "none", weight: float = 1.0, temperature: float = 1.0
) -> tuple[Mask, float]:
    """Return the mask at 0.5 and the soft relative size of the logistic model sigmoid(a x + b) with the least
    CE + weight x size term.

    ``size_term``: "none"; "l1" |ph - yh| and "kl" (Bernoulli KL, truth first) of ph = mean sigmoid(T z);
    "dice" the sum over both classes of log(ph + yh), D_B. The CE part is always at T = 1.
    """
    from scipy.optimize import minimize

    x, share = pixels.grid()
    eta, yh = pixels.posterior(x), pixels.yh

    def total(ab: Array) -> float:
        z = ab[0] * x + ab[1]
        ce = share @ (np.logaddexp(0, z) - eta * z)
        # The search may wander to where every pixel, or none, is foreground.
        ph = float(np.clip(share @ _sigmoid(temperature * z), 1e-12, 1 - 1e-12))
        extra = {
            "none": 0.0,
            "l1": abs(ph - yh),
            "kl": yh * math.log(yh / ph) + (1 - yh) * math.log((1 - yh) / (1 - ph)),
            "dice": math.log(ph + yh) + math.log(2 - ph - yh),
        }[size_term]
        return float(ce + weight * extra)

    start = np.array([pixels.d, pixels._logit(0.0)])
    # The absolute value has a kink, so a method without gradients, from a few starts.
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 8000, "maxfev": 8000}
    runs = [
        minimize(total, start + np.array([0.0, shift]), method="Nelder-Mead", options=options)
        for shift in (0.0, 1.0, -1.0)
    ]
    a, b = min(runs, key=lambda run: run.fun).x
    return pixels.mask(-b / a), float(share @ _sigmoid(a * x + b) / yh)


def _sigmoid(z: Array) -> Array:
    # The same function, without an exponential that overflows.
    return 0.5 * (1 + np.tanh(z / 2))


def _above(z: float) -> float:
    """Return P(a standard normal > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))
