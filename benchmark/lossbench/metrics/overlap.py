"""Overlap of two masks from three counts: the true size, the predicted size, and the pixels they share."""

from __future__ import annotations

import numpy as np

from lossbench.metrics.arrays import mean, ratio


def overlap(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return Dice, IoU, precision and recall for pixel counts TP = `shared`, TP + FP = `predicted`, TP + FN =
    `size`.

    dice = 2 TP / (2 TP + FP + FN), iou = TP / (TP + FP + FN), precision = TP / (TP + FP), recall = TP / (TP +
    FN). All are in 0..1, higher is better. A missed object (nothing predicted) scores 0 in each, precision
    included. Where the class is absent from the truth (size 0) there is no object to overlap: NaN, counted by
    the caller."""
    shared, predicted, size = (np.asarray(a, dtype=float) for a in (shared, predicted, size))
    absent = size == 0
    scores = {
        "dice": ratio(2 * shared, predicted + size, 0.0),
        "iou": ratio(shared, predicted + size - shared, 0.0),
        "precision": ratio(shared, predicted, 0.0),
        "recall": ratio(shared, size, 0.0),
    }
    return {name: np.where(absent, np.nan, values) for name, values in scores.items()}


def pooled(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return the same four scores of the counts summed over all images, false positives on empty images
    included.
    """
    scores = overlap(*(np.sum(a, keepdims=True) for a in (shared, predicted, size)))
    return {name: float(values[0]) for name, values in scores.items()}


# --- Region size: predicted over true, hard (pixels of the mask) and soft (sum of the probabilities), as
# signed logs.

FLOOR = 0.5

"""Half a pixel, put under both sizes before the logarithm, so that a missed object is far but finite."""


def log_ratio(predicted: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return ln(max(predicted, 1/2) / max(size, 1/2)): 0 is right, positive is too large, symmetric in the
    two.
    """
    return np.log(np.maximum(predicted, FLOOR)) - np.log(np.maximum(size, FLOOR))


def size_per_image(predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return per image the ratio, its log and the relative error |P - T| / T; NaN where the class is absent
    (T = 0).
    """
    predicted, size = np.asarray(predicted, dtype=float), np.asarray(size, dtype=float)
    absent = size == 0
    return {
        "size_ratio": ratio(predicted, size, np.nan),
        "log_size_image": np.where(absent, np.nan, log_ratio(predicted, size)),
        "size_error": ratio(np.abs(predicted - size), size, np.nan),
    }


def size_aggregate(predicted: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return the split's total predicted over its total true size, its log, and the two means over present
    images.

    The totals run over all images, so that what is predicted on empty images counts as too large. When no
    image holds the class there is nothing to compare with: NaN.
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
