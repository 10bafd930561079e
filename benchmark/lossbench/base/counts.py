"""What three counts of pixels say of one image: true pixels T, predicted P, shared TP.

Both halves need these formulas: scoring makes means of them, and tables work them out again from the counts
that a record keeps.
"""

from __future__ import annotations

import numpy as np

FLOOR = 0.5
"""Half a pixel, put under both sizes before the logarithm, so that a missed object is far but finite."""


def ratio(top: np.ndarray, bottom: np.ndarray, otherwise: float) -> np.ndarray:
    """Return top / bottom, and `otherwise` where the bottom is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=float), np.asarray(bottom, dtype=float))
    return np.divide(top, bottom, out=np.full(top.shape, float(otherwise)), where=bottom != 0)


def overlap(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return Dice, IoU, precision and recall for counts `shared` (TP), `predicted` (P) and `size` (T).

    dice = 2 TP / (P + T), iou = TP / (P + T - TP), precision = TP / P, recall = TP / T: in 0..1, higher is
    better. A missed object (P = 0) scores 0 in each, precision included. Where the class is absent (T = 0)
    there is nothing to overlap with: NaN.
    """
    # Counts beyond 2^53 do not occur, so floats hold them exactly.
    shared, predicted, size = (np.asarray(a, dtype=float) for a in (shared, predicted, size))
    scores = {
        "dice": ratio(2 * shared, predicted + size, 0.0),
        "iou": ratio(shared, predicted + size - shared, 0.0),
        "precision": ratio(shared, predicted, 0.0),
        "recall": ratio(shared, size, 0.0),
    }
    # Absent from the truth: not 0, not 1, but undefined.
    return {name: np.where(size == 0, np.nan, values) for name, values in scores.items()}


# Asked of the function, so that a score that is added there is known here.
OVERLAPS = tuple(overlap(*np.ones((3, 1))))
"""The names of these scores."""


def log_ratio(predicted: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return ln(max(predicted, 1/2) / max(size, 1/2)): 0 is right, positive is too large."""
    return np.log(np.maximum(predicted, FLOOR)) - np.log(np.maximum(size, FLOOR))


def size_per_image(predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return per image P / T, its log and |P - T| / T; NaN where the class is absent (T = 0)."""
    predicted, size = np.asarray(predicted, dtype=float), np.asarray(size, dtype=float)
    return {
        "size_ratio": ratio(predicted, size, np.nan),
        "log_size_image": np.where(size == 0, np.nan, log_ratio(predicted, size)),
        "size_error": ratio(np.abs(predicted - size), size, np.nan),
    }


def marks(predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return `missed`, NaN where the class is absent, and `false_alarms`, NaN where it is present."""
    absent = size == 0
    return {
        "missed": np.where(absent, np.nan, predicted == 0),
        "false_alarms": np.where(absent, predicted > 0, np.nan),
    }


def soft_sizes(soft: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return how the summed probabilities of single images compare with their true sizes."""
    return {f"{name}_soft": values for name, values in size_per_image(soft, size).items()}


def per_image(shared: np.ndarray, predicted: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return all that the counts of single images say: overlaps, misses, false alarms, sizes.

    `dice_all` is Dice where the class is present, and 1 or 0 where it is absent and nothing or something is
    marked.
    """
    shared, predicted, size = (np.asarray(a, dtype=float) for a in (shared, predicted, size))
    scores = overlap(shared, predicted, size)
    return {
        **scores,
        "dice_all": np.where(size == 0, predicted == 0, scores["dice"]),
        **marks(predicted, size),
        **{f"{name}_hard": values for name, values in size_per_image(predicted, size).items()},
    }
