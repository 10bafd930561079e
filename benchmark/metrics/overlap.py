"""Overlap of two masks from three counts: the true size, the predicted size, and the pixels they share."""

from __future__ import annotations

import numpy as np

from .arrays import ratio


def overlap(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return Dice, IoU, precision and recall for pixel counts TP = `shared`, TP + FP = `predicted`, TP + FN = `size`.

    dice = 2 TP / (2 TP + FP + FN), iou = TP / (TP + FP + FN), precision = TP / (TP + FP), recall = TP / (TP + FN).
    All are in 0..1, higher is better. A missed object (nothing predicted) scores 0 in each, precision included.
    Where the class is absent from the truth (size 0) there is no object to overlap: NaN, counted by the caller.
    """
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
    """Return the same four scores of the counts summed over all images, false positives on empty images included."""
    scores = overlap(*(np.sum(a, keepdims=True) for a in (shared, predicted, size)))
    return {name: float(values[0]) for name, values in scores.items()}
