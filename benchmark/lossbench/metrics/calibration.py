"""Do the probabilities mean what they say? NLL, Brier score and calibration errors over many images at once.

Everything comes from one fine histogram per foreground class: pixels, true pixels and summed probability in
60,000 narrow cells of p. Equal-width and adaptive bins are sums of cells, so any number of pixels is one
vectorised pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from lossbench.metrics.arrays import mean

BINS = 15

# A multiple of BINS, so that every bin is a whole number of cells.
CELLS = 4000 * BINS

MARGIN = 4
"""Pixels around the true objects that still belong to the foreground region of `ece_fg`."""

SMALLEST = 1e-12
"""A probability of exactly 0 for the true class costs 27.6 nats instead of infinity."""


@dataclass(frozen=True)
class Histogram:
    """Cells of one foreground class: pixels, pixels of the class, summed probability, each (CELLS,)."""

    pixels: np.ndarray
    true: np.ndarray
    summed: np.ndarray

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.pixels + other.pixels, self.true + other.true, self.summed + other.summed)

    def equal_width(self) -> np.ndarray:
        """Return (3, BINS): pixels, true pixels and summed probability of each of 15 equal bins."""
        return np.stack([self.pixels, self.true, self.summed]).reshape(3, BINS, -1).sum(axis=2)

    def equal_mass(self) -> np.ndarray:
        """Return the same for bins of equal numbers of pixels; equal probabilities stay together."""
        cells = np.flatnonzero(self.pixels)
        pixels = self.pixels[cells]
        # A cell belongs to the bin in which its middle pixel lies.
        middle = np.cumsum(pixels) - pixels / 2
        bins = np.minimum((middle * BINS / max(pixels.sum(), 1)).astype(np.int64), BINS - 1)
        parts = (pixels, self.true[cells], self.summed[cells])
        return np.stack([np.bincount(bins, part, minlength=BINS) for part in parts])


@dataclass(frozen=True)
class Tally:
    """Sums over images: scores of the pixels; a histogram a foreground class, everywhere and near objects."""

    pixels: int
    nll: float
    brier: float
    everywhere: tuple[Histogram, ...]
    near: tuple[Histogram, ...]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.pixels + other.pixels,
            self.nll + other.nll,
            self.brier + other.brier,
            tuple(map(add, self.everywhere, other.everywhere)),
            tuple(map(add, self.near, other.near)),
        )


def tally(
    prob: np.ndarray, masks: np.ndarray, valid: np.ndarray | None = None, near: np.ndarray | None = None
) -> Tally:
    """Sum up a stack: `prob` (N, K, *S) float, `masks` (N, *S) class ids.

    `valid` (N, *S) is False on void pixels, which are left out; `near` is what `near_objects` returns.
    """
    near = near_objects(masks, valid) if near is None else near
    keep = (lambda a: a.reshape(-1)) if valid is None else (lambda a: a[valid])
    # Flat from here on: calibration does not ask where a pixel lies.
    labels = keep(masks)
    close = np.flatnonzero(keep(near))
    # The probability of the true class, gathered class by class: no one-hot copy of the masks.
    chosen = np.zeros(labels.shape, dtype=np.float32)
    brier, everywhere, nearby = 0.0, [], []
    for c in range(prob.shape[1]):
        p, true = keep(prob[:, c]), labels == c
        np.copyto(chosen, p, where=true)
        # Differences in float32, sums in float64: a million pixels keep their digits.
        off = np.subtract(p, true, dtype=np.float32)
        brier += float(np.multiply(off, off, out=off).sum(dtype=np.float64))
        # The background is well calibrated by its size alone.
        if c > 0:
            cell = _cells(p)
            everywhere.append(_histogram(cell, p, true))
            nearby.append(_histogram(cell[close], p[close], true[close]))
    nll = -float(np.log(np.maximum(chosen, SMALLEST)).sum(dtype=np.float64))
    return Tally(len(labels), nll, brier, tuple(everywhere), tuple(nearby))


def scores(tallies: Sequence[Tally], names: Sequence[str]) -> dict[str, float]:
    """Return nll, brier, ece, ece_fg, ece_adaptive and the numbers of pixels behind them; lower is better.

    nll: mean over pixels of -ln p(true class), in nats. brier: mean of sum_k (p_k - y_k)^2, in 0..2. ece: sum
    over 15 equal bins of |summed probability - true pixels| / all pixels, the mean over foreground classes
    (class-wise calibration error: 0 in expectation when p is the true posterior). ece_fg: the same over the
    foreground region, the true objects and 4 px around them, where the background cannot swamp it; the region
    depends on the truth alone, so every network is judged on the same pixels. ece_adaptive: bins of equal
    numbers of pixels. `ece:name` is that of one class, where there are several. NaN with n_pixels = 0, or
    n_pixels_fg = 0 when no image holds an object. `names` are those of all classes, background first.
    """
    t = reduce(add, tallies)
    each = {
        "ece": [calibration_error(h.equal_width()) for h in t.everywhere],
        "ece_fg": [calibration_error(h.equal_width()) for h in t.near],
        "ece_adaptive": [calibration_error(h.equal_mass()) for h in t.everywhere],
    }
    out = {"nll": t.nll, "brier": t.brier}
    out = {name: value / t.pixels if t.pixels else float("nan") for name, value in out.items()}
    out |= {name: mean(values) for name, values in each.items()}
    # With a single foreground class its score is the score.
    if len(names) > 2:
        for name, values in each.items():
            out |= {f"{name}:{kind}": value for kind, value in zip(names[1:], values, strict=True)}
    return out | {"n_pixels": t.pixels, "n_pixels_fg": int(t.near[0].pixels.sum())}


def calibration_error(binned: np.ndarray) -> float:
    """Return sum_b |summed_b - true_b| / sum_b pixels_b of the (3, bins) of a Histogram; NaN without any."""
    pixels, true, summed = binned
    total = pixels.sum()
    return float(np.abs(summed - true).sum() / total) if total else float("nan")


def reliability_rows(tallies: Sequence[Tally], names: Sequence[str]) -> list[dict]:
    """Return the reliability diagram: class, region (all|fg), bin, low, high, n, probability, frequency.

    A bin that holds no pixel has n = 0 and NaN for its mean probability and its frequency of the class.
    """
    rows = []
    t = reduce(add, tallies)
    # Both regions, since in the whole image the background outweighs everything.
    for region, histograms in (("all", t.everywhere), ("fg", t.near)):
        for name, histogram in zip(names[1:], histograms, strict=True):
            for b, (n, true, summed) in enumerate(histogram.equal_width().T.tolist()):
                place = {"class": name, "region": region, "bin": b, "low": b / BINS, "high": (b + 1) / BINS}
                values = (summed / n, true / n) if n else (float("nan"), float("nan"))
                rows.append(place | {"n": int(n), "probability": values[0], "frequency": values[1]})
    return rows


def _cells(p: np.ndarray) -> np.ndarray:
    # Bins are (low, high], as in Guo et al. 2017; p = 0 belongs to the first.
    cell = np.ceil(p * np.float32(CELLS)).astype(np.int32)
    return np.clip(cell, 1, CELLS, out=cell) - 1


def _histogram(cell: np.ndarray, p: np.ndarray, true: np.ndarray) -> Histogram:
    pixels, hits = np.bincount(cell, minlength=CELLS), np.bincount(cell[true], minlength=CELLS)
    return Histogram(pixels.astype(float), hits.astype(float), np.bincount(cell, p, CELLS))


def near_objects(masks: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Return which pixels lie in the square of MARGIN pixels around a true object, (N, *S) bool."""
    # Only the truth decides, so that all networks are judged on the same pixels.
    near = masks > 0 if valid is None else (masks > 0) & valid
    for axis in range(1, masks.ndim):
        # Shifted copies, joined: a sixth of the time of a maximum filter.
        source, near = np.moveaxis(near, axis, 0), near.copy()
        target = np.moveaxis(near, axis, 0)
        for step in range(1, MARGIN + 1):
            target[step:] |= source[:-step]
            target[:-step] |= source[step:]
    return near
