"""What the counts of pixels of many images say of overlap and region size."""

from __future__ import annotations

import numpy as np

from lossbench.base.counts import FLOOR, log_ratio, overlap, size_per_image
from lossbench.metrics.arrays import mean

MOST = 4.0
"""Where the clipped size ratio ends: a companion of the logarithm that no floor and no outlier can move."""


def pooled(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return the same four scores of the counts summed over all images, those without the class included."""
    # The same formulas, on one image that is all images.
    scores = overlap(*(np.sum(a, keepdims=True) for a in (shared, predicted, size)))
    return {name: float(values[0]) for name, values in scores.items()}


def empty_images(
    dice: np.ndarray, predicted: np.ndarray, size: np.ndarray, pixels: np.ndarray
) -> dict[str, float]:
    """Return what the images without the class say, in 0..1; `pixels` (N,) are the valid pixels of each.

    dice_all: mean Dice over all images, where one without the class counts 1 if nothing is marked, else 0.
    false_alarms, fp_area: among the images without the class, the share with any mark, and the mean share of
    their pixels that is marked; NaN where every image holds the class. An image that is void everywhere is
    in none of them.
    """
    # Void everywhere: neither holds the class nor is known to be without it.
    present, empty = size > 0, (size == 0) & (pixels > 0)
    alarm = predicted[empty] > 0
    return {
        "dice_all": mean(np.concatenate([dice[present], ~alarm])),
        "false_alarms": mean(alarm),
        "fp_area": mean(predicted[empty] / pixels[empty]),
    }


def size_aggregate(predicted: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return how the sizes of a split compare; NaN when no image holds the class.

    size_ratio, size_clipped, log_size_ratio: of the totals over all images, so that what is predicted on
    images without the class counts as too large; size_clipped = min(ratio, 4). log_size_image, size_error:
    means over the images that hold the class. n_floored, n_floored_images: how many of the logarithms behind
    log_size_ratio (0 or 1) and log_size_image rest on the floor of half a pixel.
    """
    predicted, size = np.asarray(predicted, dtype=float), np.asarray(size, dtype=float)
    present = size > 0
    # Over all images: false marks on empty ones are part of the bias.
    total, truth = predicted.sum(), size.sum()
    quotient = total / truth if present.any() else float("nan")
    images = size_per_image(predicted[present], size[present])
    return {
        "size_ratio": float(quotient),
        "size_clipped": float(np.minimum(quotient, MOST)),
        "log_size_ratio": float(log_ratio(total, truth)) if present.any() else float("nan"),
        "log_size_image": mean(images["log_size_image"]),
        "size_error": mean(images["size_error"]),
        "n_floored": int(present.any() and total < FLOOR),
        "n_floored_images": int((predicted[present] < FLOOR).sum()),
    }
