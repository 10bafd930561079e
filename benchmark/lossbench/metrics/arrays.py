"""Checks and array helpers that every metric shares, so that a wrong input is refused once, in a sentence.

Shapes: N images, K classes with the background first, S one to three spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np

LIMITS = 1e-6, 1e6  # of a spacing; beyond them squares of distances lose their digits

CHUNK = 4_000_000  # pixels looked at together: bounds the memory of large sets, never changes a result

MANY = 20_000  # pixels of an image, from which on numpy counts faster image by image than along an axis

SUM = 0.01  # how far the probabilities of a pixel may be from one: more than the rounding of half precision


def as_array(name: str, value: Any) -> np.ndarray:
    """Return `value`, an array, tensor or list of numbers, as a numpy array; ValueError for anything else."""
    # Memory maps too: nothing is copied.
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:  # bfloat16, ragged lists
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    # Bool, signed and unsigned integers, floats.
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be an array of numbers, got {type(value).__name__}")
    return array


def check_masks(masks: np.ndarray, classes: int, ignore_index: int | None, name: str = "masks") -> None:
    """Raise ValueError unless every entry of `masks` is a class id below `classes` or `ignore_index`."""
    if masks.dtype.kind not in "uib":
        raise ValueError(f"{name} must hold integer class ids, got dtype {masks.dtype}")
    if masks.size == 0:
        raise ValueError(f"there is no pixel in {name}: shape {masks.shape}")
    # Void may have any number, also one that is no class.
    seen = masks if ignore_index is None else masks[masks != ignore_index]
    if not seen.size:
        return
    low, high = seen.min(), seen.max()
    if low < 0 or high >= classes:
        wrong = high if high >= classes else low
        # The two numbers by which data sets mark what nobody has labelled.
        hint = f"; ignore_index={wrong} if it marks unlabelled pixels" if wrong in (255, -1) else ""
        raise ValueError(
            f"class id {wrong} in {name}: with {classes} classes the last is {classes - 1}{hint}"
        )


def check_prob(prob: np.ndarray, masks: np.ndarray, ignore_index: int | None) -> None:
    """Raise ValueError unless `prob` (N, K, *S) holds probabilities, K >= 2, and fits `masks` (N, *S)."""
    if prob.ndim < 3 or prob.shape[1] < 2:
        raise ValueError(f"prob must have the shape (N, K, *S) with K >= 2, got {prob.shape}")
    if prob.shape[:1] + prob.shape[2:] != masks.shape:
        raise ValueError(
            f"prob {prob.shape} does not fit masks {masks.shape}: expected (N, K, *S) and (N, *S)"
        )
    if prob.dtype.kind != "f":
        raise ValueError(f"prob must hold probabilities, got dtype {prob.dtype}")
    check_masks(masks, prob.shape[1], ignore_index)
    # The sums are needed anyway. Of many classes half precision would round the sum away from one.
    total = prob.sum(axis=1, dtype=np.promote_types(prob.dtype, np.float32))
    # One look at the sums finds NaN and infinity too, and costs a tenth of isfinite over the array.
    if not np.isfinite(total.sum(dtype=np.float64)):
        raise ValueError(
            "prob holds values that are not finite; score such a network as collapsed, not by its numbers"
        )
    # Logits are the commonest mistake; a rounding below 0 is none.
    low, high = prob.min(), prob.max()
    if low < -1e-4 or high > 1 + 1e-4:
        raise ValueError(
            f"prob must hold probabilities in 0..1 (apply the softmax first), got {low:.4g} to {high:.4g}"
        )
    # Under void anything may stand, zeros of a padding for instance.
    wrong = np.abs(total - 1) > SUM
    if wrong.any() and (wrong if ignore_index is None else wrong & (masks != ignore_index)).any():
        worst = total[wrong][0]
        raise ValueError(
            f"the probabilities of a pixel must sum to one over the classes, got {worst:.4g}; one sigmoid a "
            "class is not a softmax: score each class by itself, with (1 - p, p)"
        )


def check_tau(tau: float | None) -> None:
    """Raise ValueError unless a threshold is None (argmax) or a number in 0..1."""
    # Written so that NaN is refused too, and True, which is a number to Python.
    number = isinstance(tau, Real) and not isinstance(tau, bool)
    if tau is not None and not (number and 0 <= tau <= 1):
        raise ValueError(f"a threshold must lie in 0..1, got {tau!r}")


def check_spacing(spacing: Sequence[float] | float | None, axes: int) -> tuple[float, ...]:
    """Return one positive spacing per spatial axis; None means 1 px everywhere."""
    values = (1.0,) * axes if spacing is None else tuple(float(s) for s in np.atleast_1d(spacing))
    if len(values) != axes or not all(s > 0 for s in values):
        raise ValueError(f"spacing must hold {axes} positive numbers, one per spatial axis, got {values}")
    if not all(LIMITS[0] <= s <= LIMITS[1] for s in values):
        raise ValueError(
            f"spacing is the size of a pixel, between {LIMITS[0]:g} and {LIMITS[1]:g}, got {values}"
        )
    return values


def class_names(classes: Iterable[str] | None, count: int | None = None) -> tuple[str, ...]:
    """Return `count` different names, or as many as there are; None gives `count` class ids as text."""
    if classes is not None and not isinstance(classes, Iterable):
        near = f"; range({classes}) names them by number" if isinstance(classes, int) else ""
        raise ValueError(f"classes must be the names of all classes, background first, got {classes!r}{near}")
    # A class without a name is called by its number.
    names = tuple(str(c) for c in range(count)) if classes is None else tuple(map(str, classes))
    if count is not None and len(names) != count:
        raise ValueError(f"{len(names)} class names for {count} classes: {names}")
    # Scores go by name: of two that are called alike one would be lost.
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if doubled:
        raise ValueError(f"two classes are called '{doubled[0]}'; give each its own name")
    return names


def label_type(classes: int) -> type:
    """Return the smallest dtype that holds the ids of so many classes."""
    return np.uint8 if classes <= 256 else np.uint16 if classes <= 65536 else np.uint32


def valid_pixels(masks: np.ndarray, ignore_index: int | None) -> np.ndarray | None:
    """Return a boolean array that is False on void pixels; None where there are none, the cheaper case."""
    if ignore_index is None:
        return None
    valid = masks != ignore_index
    # Most images have no void; None spares them a pass over every mask.
    return None if valid.all() else valid


def diagonals(masks: np.ndarray, valid: np.ndarray | None, spacing: tuple[float, ...]) -> np.ndarray:
    """Return (N,) image diagonals in units of `spacing`: longer than any distance inside, so the worst value.

    The extent is that of the valid pixels, so that padding an image with void changes nothing.
    """
    full = np.sqrt(sum((n * s) ** 2 for n, s in zip(masks.shape[1:], spacing, strict=True)))
    out = np.full(len(masks), full)
    if valid is None:
        return out
    axes = range(1, masks.ndim)
    squares = np.zeros(len(masks))
    for axis, step in zip(axes, spacing, strict=True):
        # First and last valid pixel along each axis.
        hit = valid.any(axis=tuple(a for a in axes if a != axis))
        first, last = hit.argmax(axis=1), hit.shape[1] - 1 - hit[:, ::-1].argmax(axis=1)
        squares += ((last - first + 1) * step) ** 2
    return np.where(valid.reshape(len(masks), -1).any(axis=1), np.sqrt(squares), full)


def box_of(masks: np.ndarray) -> tuple[slice, ...]:
    """Return the slices (N, *S) of the smallest box that holds every true pixel of boolean masks (N, *S).

    It is one for all images; a box without any pixel has one pixel a side.
    """
    # The images first: along the first axis numpy is fastest.
    hit, box = masks.any(axis=0), [slice(None)]
    for axis in range(hit.ndim):
        places = np.flatnonzero(hit.any(axis=tuple(a for a in range(hit.ndim) if a != axis)))
        box.append(slice(places[0], places[-1] + 1) if len(places) else slice(0, 1))
    return tuple(box)


def count(masks: np.ndarray) -> np.ndarray:
    """Return (N,) numbers of true pixels of masks (N, *S)."""
    if masks[:1].size < MANY:
        return np.count_nonzero(masks.reshape(len(masks), -1), axis=1)
    return np.array([np.count_nonzero(mask) for mask in masks], np.int64)


def mean(values: np.ndarray) -> float:
    """Return the mean, or NaN (no warning) when there is nothing to average; the n stands beside it."""
    # np.mean of nothing warns; here it is a result like any other.
    values = np.asarray(values, dtype=float)
    return float(values.mean()) if values.size else float("nan")


def mean_over_classes(values: Sequence[float]) -> float:
    """Return the mean over the classes for which the value exists (the others have n = 0)."""
    values = np.asarray(values, dtype=float)
    return mean(values[~np.isnan(values)])


def stacks(prob: Any, masks: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (prob (n, K, *S), masks (n, *S)) in the order given: parts of two arrays, or one image a time.

    `prob` and `masks` are arrays over all images, or iterables with one array an image, whose sizes may
    differ; an iterable is read only once and never held, so that whole images fit in memory.
    """
    if isinstance(prob, np.ndarray) or hasattr(prob, "detach"):
        prob, masks = as_array("prob", prob), as_array("masks", masks)
        # As many whole images as the bound allows, but at least one.
        step = max(1, CHUNK // max(int(np.prod(masks.shape[1:])), 1))
        for start in range(0, max(len(masks), 1), step):
            yield prob[start : start + step], masks[start : start + step]
        return
    if hasattr(prob, "__len__") and hasattr(masks, "__len__") and len(prob) != len(masks):
        raise ValueError(f"{len(prob)} predictions for {len(masks)} masks")
    for p, mask in zip(prob, masks, strict=True):
        yield as_array("prob", p)[None], as_array("masks", mask)[None]
