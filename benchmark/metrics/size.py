"""Region size: predicted over true, hard (pixels of the mask) and soft (sum of the probabilities), as signed logs."""

from __future__ import annotations

import numpy as np

from .arrays import mean, ratio

FLOOR = 0.5
"""Half a pixel, put under both sizes before the logarithm, so that a missed object is far but finite."""


def log_ratio(predicted: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return ln(max(predicted, 1/2) / max(size, 1/2)): 0 is right, positive is too large, symmetric in the two."""
    return np.log(np.maximum(predicted, FLOOR)) - np.log(np.maximum(size, FLOOR))


def size_per_image(predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return per image the ratio, its log and the relative error |P - T| / T; NaN where the class is absent (T = 0)."""
    predicted, size = np.asarray(predicted, dtype=float), np.asarray(size, dtype=float)
    absent = size == 0
    return {
        "size_ratio": ratio(predicted, size, np.nan),
        "log_size_image": np.where(absent, np.nan, log_ratio(predicted, size)),
        "size_error": ratio(np.abs(predicted - size), size, np.nan),
    }


def size_aggregate(predicted: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return the split's total predicted over its total true size, its log, and the two means over present images.

    The totals run over all images, so that what is predicted on empty images counts as too large. When no image holds
    the class there is nothing to compare with: NaN.
    """
    present = np.asarray(size) > 0
    if not present.any():
        return dict.fromkeys(("size_ratio", "log_size_ratio", "log_size_image", "size_error"), float("nan"))
    images = size_per_image(predicted, size)
    total, truth = float(np.sum(predicted)), float(np.sum(size))
    return {
        "size_ratio": total / truth,
        "log_size_ratio": float(log_ratio(total, truth)),
        "log_size_image": mean(images["log_size_image"][present]),
        "size_error": mean(images["size_error"][present]),
    }
