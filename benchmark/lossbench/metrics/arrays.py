"""Checks and small array helpers that every metric shares, so that a wrong shape is refused once, in one
sentence.
"""

from __future__ import annotations

import numpy as np


def check_masks(masks: np.ndarray, classes: int, ignore_index: int | None) -> None:
    """Raise ValueError unless every entry of `masks` is a class id below `classes` or `ignore_index`."""
    if masks.dtype.kind not in "uib":
        raise ValueError(f"masks must hold integer class ids, got dtype {masks.dtype}")
    if masks.size == 0:
        raise ValueError(f"masks are empty: shape {masks.shape}")
    seen = masks if ignore_index is None else masks[masks != ignore_index]
    if seen.size and (seen.min() < 0 or seen.max() >= classes):
        wrong = seen.max() if seen.max() >= classes else seen.min()
        raise ValueError(
            f"masks hold the class id {wrong}; with {classes} classes the ids are 0..{classes - 1}"
        )


def check_prob(prob: np.ndarray, masks: np.ndarray, ignore_index: int | None) -> None:
    """Raise ValueError unless `prob` (N, K, *S) is finite, K >= 2, and fits `masks` (N, *S)."""
    if prob.ndim < 3 or prob.shape[1] < 2:
        raise ValueError(f"prob must have the shape (N, K, *S) with K >= 2, got {prob.shape}")
    if prob.shape[:1] + prob.shape[2:] != masks.shape:
        raise ValueError(
            f"prob {prob.shape} does not fit masks {masks.shape}: expected (N, K, *S) and (N, *S)"
        )
    # One sum is enough to find any NaN or infinity, and costs a tenth of isfinite over the array.
    if not np.isfinite(prob.sum(dtype=np.float64)):
        raise ValueError(
            "prob holds values that are not finite; score such a network as collapsed, not by its numbers"
        )
    low, high = prob.min(initial=0), prob.max(initial=0)
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(
            f"prob must hold probabilities in 0..1 (apply the softmax first), got {low:.4g} to {high:.4g}"
        )
    check_masks(masks, prob.shape[1], ignore_index)


def check_spacing(spacing: tuple[float, ...] | None, axes: int) -> tuple[float, ...]:
    """Return one positive spacing per spatial axis; None means 1 px everywhere."""
    spacing = (1.0,) * axes if spacing is None else tuple(float(s) for s in np.atleast_1d(spacing))
    if len(spacing) != axes or not all(0 < s < np.inf for s in spacing):
        raise ValueError(f"spacing must hold {axes} positive numbers, one per spatial axis, got {spacing}")
    return spacing


def class_names(classes: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """Return `count` names; None gives the class ids as text."""
    if classes is None:
        return tuple(str(c) for c in range(count))
    if len(classes) != count:
        raise ValueError(f"{len(classes)} class names for {count} classes: {tuple(classes)}")
    return tuple(classes)


def valid_pixels(masks: np.ndarray, ignore_index: int | None) -> np.ndarray | None:
    """Return a boolean array that is False on void pixels, or None when there are none (the common, cheaper
    case).
    """
    if ignore_index is None:
        return None
    valid = masks != ignore_index
    return None if valid.all() else valid


def diagonals(masks: np.ndarray, valid: np.ndarray | None, spacing: tuple[float, ...]) -> np.ndarray:
    """Return (N,) image diagonals in units of `spacing`: longer than any distance inside, hence the worst
    value.

    The extent is that of the valid pixels, so that padding an image with void changes nothing.
    """
    full = np.sqrt(sum((n * s) ** 2 for n, s in zip(masks.shape[1:], spacing, strict=True)))
    out = np.full(len(masks), full)
    if valid is None:
        return out
    axes = range(1, masks.ndim)
    squares = np.zeros(len(masks))
    for axis, step in zip(axes, spacing, strict=True):
        hit = valid.any(axis=tuple(a for a in axes if a != axis))
        first, last = hit.argmax(axis=1), hit.shape[1] - 1 - hit[:, ::-1].argmax(axis=1)
        squares += ((last - first + 1) * step) ** 2
    return np.where(valid.reshape(len(masks), -1).any(axis=1), np.sqrt(squares), full)


def mean(values: np.ndarray) -> float:
    """Return the mean, or NaN (no warning) when there is nothing to average; the caller stores the n beside
    it.
    """
    values = np.asarray(values, dtype=float)
    return float(values.mean()) if values.size else float("nan")


def mean_over_classes(values: list[float] | np.ndarray) -> float:
    """Return the mean over the classes for which the value exists (the others have n = 0)."""
    values = np.asarray(values, dtype=float)
    return mean(values[~np.isnan(values)])


def ratio(top: np.ndarray, bottom: np.ndarray, otherwise: float) -> np.ndarray:
    """Return top / bottom, and `otherwise` where the bottom is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=float), np.asarray(bottom, dtype=float))
    return np.divide(top, bottom, out=np.full(top.shape, float(otherwise)), where=bottom != 0)
