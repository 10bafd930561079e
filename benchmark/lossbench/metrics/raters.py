"""Several raters of one image: how far they agree, which no network can be expected to exceed, and the soft
label that they make together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lossbench.metrics.arrays import as_array, check_masks, class_names, mean, mean_over_classes


def agreement(
    raters: np.ndarray, *, classes: Sequence[str], ignore_index: int | None = None
) -> dict[str, float]:
    """Return how far R raters agree on one image: name -> value; higher is better.

    raters: (R, *S) class ids, R >= 2; pixels that any of them left void count for nothing. classes: names of
    all classes, background first.

    dice: mean over the foreground classes of `dice:class`, the mean Dice over the pairs of raters of whom one
    at least marked the class; NaN where nobody did. kappa: Fleiss' kappa of the pixels, (P - Q) / (1 - Q),
    with P the share of pairs of raters who agree on a pixel and Q the same for labels dealt at random, the
    sum of the squared shares of the classes (Fleiss 1971); 0 is chance, 1 is perfect, NaN where all labels
    are one class. Raises ValueError for fewer than two raters and for labels that are no class.
    """
    raters = as_array("raters", raters)
    if raters.ndim < 2 or len(raters) < 2:
        raise ValueError(f"raters must have the shape (R, *S) with R >= 2, got {raters.shape}")
    names = class_names(classes)
    check_masks(raters, len(names), ignore_index, "raters")
    labels = raters.reshape(len(raters), -1)
    if ignore_index is not None:
        labels = labels[:, (labels != ignore_index).all(axis=0)]
    marks = [labels == c for c in range(len(names))]
    each = {name: _pairwise_dice(mark) for name, mark in zip(names[1:], marks[1:], strict=True)}
    return {
        "dice": mean_over_classes(list(each.values())),
        **{f"dice:{name}": value for name, value in each.items()},
        "kappa": _fleiss(np.stack([mark.sum(axis=0) for mark in marks]), len(raters)),
        "n_raters": len(raters),
        "n_pixels": labels.shape[1],
    }


def shares(raters: np.ndarray, *, classes: int, ignore_index: int | None = None) -> np.ndarray:
    """Return the share of each class among the raters of each pixel, (C, *S) float32: a target for
    ``ce_soft``, ``dice_soft`` and ``jaccard_soft``.

    raters: (R, *S) class ids, R >= 1. A rater who left a pixel void has no say there; all shares are 0 where
    nobody has. Raises ValueError for labels that are no class."""
    raters = as_array("raters", raters)
    check_masks(raters, classes, ignore_index, "raters")
    votes = np.stack([(raters == c).sum(axis=0) for c in range(classes)])
    if ignore_index is not None and 0 <= ignore_index < classes:
        votes[ignore_index] = 0
    return (votes / np.maximum(votes.sum(axis=0), 1)).astype(np.float32)


def closeness(
    labels: np.ndarray, raters: np.ndarray, *, classes: Sequence[str], ignore_index: int | None = None
) -> float:
    """Return the mean Dice of a mask (*S) with each of R raters (R, *S) of one image: over the raters, then
    over the foreground classes, on the scale of `dice` in `agreement`; NaN where nobody marked any.
    """
    count = len(class_names(classes))
    raters = raters.reshape(len(raters), -1)
    valid = slice(None) if ignore_index is None else (raters != ignore_index).all(axis=0)
    raters, labels = raters[:, valid], labels.reshape(-1)[valid]
    each = []
    for c in range(1, count):
        marks, own = raters == c, labels == c
        size = marks.sum(axis=1) + own.sum()
        each.append(mean((2 * (marks & own).sum(axis=1) / np.maximum(size, 1))[size > 0]))
    return mean_over_classes(each)


def _pairwise_dice(marks: np.ndarray) -> float:
    """Return the mean Dice over the pairs of raters; `marks` (R, pixels) says where each sees the class."""
    size = marks.sum(axis=1)
    pairs = [(a, b) for a, b in combinations(range(len(marks)), 2) if size[a] + size[b]]
    return mean([2 * np.count_nonzero(marks[a] & marks[b]) / (size[a] + size[b]) for a, b in pairs])


def _fleiss(votes: np.ndarray, raters: int) -> float:
    """Return Fleiss' kappa of `votes` (classes, pixels): how many raters gave each class."""
    votes = votes.astype(float)
    # Ordered pairs of raters with the same label, among all.
    agreed = mean(((votes**2).sum(axis=0) - raters) / (raters * (raters - 1)))
    chance = float(np.square(votes.sum(axis=1) / max(votes.sum(), 1)).sum())
    return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")
