"""Do the probabilities mean what they say? NLL, Brier score and calibration errors over many images at once.

Everything comes from one fine histogram per foreground class: pixels, true pixels and summed probability in
60,000 narrow cells of p. Equal-width and adaptive bins are sums of cells, so any number of pixels is one
vectorised pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

from lossbench.metrics.arrays import check_prob, mean, valid_pixels

BINS = 15

CELLS = 4000 * BINS

MARGIN = 4

"""Pixels around the true objects that still belong to the foreground region of `ece_fg`."""

SMALLEST = 1e-12

"""A probability of exactly 0 for the true class costs 27.6 nats instead of infinity."""


@dataclass(frozen=True)
class Histogram:
    """Cells of one foreground class: pixels, pixels of the class, and summed probability, each (CELLS,)
    float64.
    """

    pixels: np.ndarray
    true: np.ndarray
    summed: np.ndarray

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.pixels + other.pixels, self.true + other.true, self.summed + other.summed)

    def binned(self, bin_of_cell: np.ndarray, bins: int = BINS) -> np.ndarray:
        """Return (3, bins): pixels, true pixels and summed probability of each bin."""
        parts = (self.pixels, self.true, self.summed)
        return np.stack([np.bincount(bin_of_cell, part, minlength=bins) for part in parts])


@dataclass(frozen=True)
class Tally:
    """Sums over images: scores of the pixels; one histogram a foreground class, over all pixels and near
    objects.
    """

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
            tuple(a + b for a, b in zip(self.everywhere, other.everywhere, strict=True)),
            tuple(a + b for a, b in zip(self.near, other.near, strict=True)),
        )


def tally(prob: np.ndarray, masks: np.ndarray, ignore_index: int | None = None) -> Tally:
    """Sum up a stack: `prob` (N, K, *S) float, `masks` (N, *S) class ids; void pixels are left out."""
    valid = valid_pixels(masks, ignore_index)
    keep = (lambda a: a.reshape(-1)) if valid is None else (lambda a: a[valid])
    labels = keep(masks)
    near = keep(_near_objects(masks, valid))
    chosen = np.zeros(labels.shape, dtype=np.float32)
    brier, everywhere, nearby = 0.0, [], []
    for c in range(prob.shape[1]):
        p, true = keep(prob[:, c]), labels == c
        np.copyto(chosen, p, where=true)
        brier += float(np.square(p - true, dtype=np.float32).sum(dtype=np.float64))
        if c > 0:
            everywhere.append(_histogram(p, true))
            nearby.append(_histogram(p[near], true[near]))
    nll = -float(np.log(np.maximum(chosen, SMALLEST)).sum(dtype=np.float64))
    return Tally(len(labels), nll, brier, tuple(everywhere), tuple(nearby))


def scores(t: Tally) -> dict[str, float]:
    """Return nll, brier, ece, ece_fg, ece_adaptive and the numbers of pixels behind them; lower is better in
    each.

    nll: mean over pixels of -ln p(true class), in nats. brier: mean of sum_k (p_k - y_k)^2, in 0..2. ece: sum
    over 15 equal bins of |summed probability - true pixels| / all pixels, the mean over foreground classes
    (class-wise calibration error: 0 in expectation when p is the true posterior). ece_fg: the same over the
    foreground region, the true objects and 4 px around them, where the background cannot swamp it; the region
    depends on the truth alone, so every network is judged on the same pixels. ece_adaptive: bins of equal
    numbers of pixels. NaN with n_pixels = 0, or n_pixels_fg = 0 when no image holds an object.
    """
    near = int(t.near[0].pixels.sum())
    return {
        "nll": t.nll / t.pixels if t.pixels else float("nan"),
        "brier": t.brier / t.pixels if t.pixels else float("nan"),
        "ece": mean([calibration_error(h.binned(_equal_width())) for h in t.everywhere]),
        "ece_fg": mean([calibration_error(h.binned(_equal_width())) for h in t.near]),
        "ece_adaptive": mean([calibration_error(h.binned(_equal_mass(h))) for h in t.everywhere]),
        "n_pixels": t.pixels,
        "n_pixels_fg": near,
    }


def calibration_error(binned: np.ndarray) -> float:
    """Return sum_b |summed_b - true_b| / sum_b pixels_b for the (3, bins) of `Histogram.binned`; NaN without
    pixels.
    """
    pixels, true, summed = binned
    total = pixels.sum()
    return float(np.abs(summed - true).sum() / total) if total else float("nan")


def reliability_rows(t: Tally, classes: tuple[str, ...]) -> list[dict]:
    """Return the reliability diagram as tidy rows: class, region (all|fg), bin, low, high, n, probability,
    frequency.

    A bin that holds no pixel has n = 0 and NaN for its mean probability and its frequency of the class.
    """
    rows = []
    for region, histograms in (("all", t.everywhere), ("fg", t.near)):
        for name, histogram in zip(classes[1:], histograms, strict=True):
            for b, (n, true, summed) in enumerate(histogram.binned(_equal_width()).T.tolist()):
                place = {"class": name, "region": region, "bin": b, "low": b / BINS, "high": (b + 1) / BINS}
                values = (summed / n, true / n) if n else (float("nan"), float("nan"))
                rows.append(place | {"n": int(n), "probability": values[0], "frequency": values[1]})
    return rows


def calibration(prob: np.ndarray, masks: np.ndarray, *, ignore_index: int | None = None) -> dict[str, float]:
    """Check and score `prob` (N, K, *S) against `masks` (N, *S); keys as in `scores`."""
    check_prob(prob, masks, ignore_index)
    return scores(tally(prob, masks, ignore_index))


def _histogram(p: np.ndarray, true: np.ndarray) -> Histogram:
    # Bins are (low, high], as in Guo et al. 2017; p = 0 belongs to the first.
    cell = np.ceil(p * np.float32(CELLS)).astype(np.int64) - 1
    np.clip(cell, 0, CELLS - 1, out=cell)
    pixels = np.bincount(cell, minlength=CELLS).astype(float)
    return Histogram(
        pixels, np.bincount(cell[true], minlength=CELLS).astype(float), np.bincount(cell, p, CELLS)
    )


def _equal_width() -> np.ndarray:
    return np.arange(CELLS) // (CELLS // BINS)


def _equal_mass(histogram: Histogram) -> np.ndarray:
    """Return the bin of each cell by the rank of its middle pixel; pixels of equal probability stay together."""
    total = histogram.pixels.sum()
    middle = np.cumsum(histogram.pixels) - histogram.pixels / 2
    return np.minimum((middle * BINS / max(total, 1)).astype(np.int64), BINS - 1)


def _near_objects(masks: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    near = masks > 0 if valid is None else (masks > 0) & valid
    near = near.astype(np.uint8)
    for axis in range(1, masks.ndim):
        near = maximum_filter1d(near, 2 * MARGIN + 1, axis=axis, mode="constant")
    return near.astype(bool)
