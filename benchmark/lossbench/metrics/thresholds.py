"""Where to cut a probability: the threshold that validation chooses, and the best cuts of a posterior."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lossbench.metrics.arrays import check_prob, check_tau, count, label_type, stacks, valid_pixels

GRID = (np.arange(1, 100) / 100).astype(np.float32)
"""The thresholds that are tried: 0.01, 0.02, ..., 0.99."""


def labels_at(prob: np.ndarray, tau: float | None) -> np.ndarray:
    """Return class ids (N, *S) from `prob` (N, K, *S).

    tau None: argmax over all classes. Otherwise a pixel is foreground iff 1 - p_background > tau, and then of
    the most probable foreground class. ValueError for a tau outside 0..1.
    """
    check_tau(tau)
    # float32, as the probabilities are: the comparison decides as in training code.
    if tau is not None:
        return np.where(1 - prob[:, 0] > np.float32(tau), winners(prob), 0).astype(label_type(prob.shape[1]))
    if prob.shape[1] == 2:  # the same as argmax, ten times as fast
        return (prob[:, 1] > prob[:, 0]).astype(np.uint8)
    return prob.argmax(axis=1).astype(label_type(prob.shape[1]))


def winners(prob: np.ndarray) -> np.ndarray | int:
    """Return the most probable foreground class of each pixel (N, *S); plainly 1 when there is only one."""
    return 1 if prob.shape[1] == 2 else (1 + prob[:, 1:].argmax(axis=1)).astype(label_type(prob.shape[1]))


def choose_threshold(
    prob: np.ndarray | Iterable[np.ndarray],
    masks: np.ndarray | Iterable[np.ndarray],
    *,
    by: str = "dice",
    ignore_index: int | None = None,
) -> tuple[float, np.ndarray]:
    """Return (tau, curve): the threshold on GRID with the best mean Dice, and the mean Dice at each (99,).

    prob: (N, K, *S) and masks: (N, *S), or one array an image, whose sizes may differ. The mean runs over the
    pairs of image and foreground class. by="dice": over those in which the class is present; "dice_all": over
    all, and a pair without the class counts 1 where nothing of it is marked, else 0. Of several best
    thresholds the one nearest to 0.5 is taken, so that a flat curve does not choose an extreme. Without any
    pair: 0.5 and a curve of NaN. Void pixels are left out.

    Cost: one histogram over (image, class, threshold) instead of 99 thresholded copies.
    """
    search = ThresholdSearch(by=by, ignore_index=ignore_index)
    for p, m in stacks(prob, masks):
        search.add(p, m)
    return search.best()


class ThresholdSearch:
    """`choose_threshold` for images that come a few at a time; options as there."""

    def __init__(self, *, by: str = "dice", ignore_index: int | None = None):
        if by not in ("dice", "dice_all"):
            raise ValueError(f"by must be 'dice' or 'dice_all', got {by!r}")
        self.by, self.ignore_index = by, ignore_index
        self.total, self.pairs = np.zeros(len(GRID)), 0

    def add(self, prob: np.ndarray, masks: np.ndarray) -> None:
        """Take some images of one size: `prob` (n, K, *S), `masks` (n, *S)."""
        check_prob(prob, masks, self.ignore_index)
        dice, counted = _dice_at(prob, masks, self.ignore_index, self.by == "dice_all")
        # Sums, so that no image need be kept.
        self.total += dice[counted].sum(axis=0)
        self.pairs += int(counted.sum())

    def best(self) -> tuple[float, np.ndarray]:
        """Return (tau, curve) over all images that were added."""
        if not self.pairs:
            return 0.5, np.full(len(GRID), np.nan)
        # Equal up to rounding counts as equal: the order of the images must not choose.
        curve = self.total / self.pairs
        best = np.flatnonzero(curve >= curve.max() - 1e-12)
        return round(float(GRID[best[np.abs(GRID[best] - 0.5).argmin()]]), 2), curve


def _dice_at(
    prob: np.ndarray, masks: np.ndarray, ignore_index: int | None, empty: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return Dice (N, K - 1, 99) at each threshold, and which pairs (N, K - 1) of image and class count."""
    images, classes = prob.shape[:2]
    valid, winner = valid_pixels(masks, ignore_index), winners(prob)
    # One slot an image, class and number of thresholds passed.
    owner = np.arange(images).reshape(-1, *(1,) * (masks.ndim - 1)) * classes
    slot = (owner + winner) * (len(GRID) + 1) + _passed(1 - prob[:, 0])
    # A pixel is shared at every threshold that it passes, if its winner is right.
    agree = masks == winner
    seen = np.ones_like(agree) if valid is None else valid
    predicted = _above(slot[seen], images, classes)
    shared = _above(slot[agree & seen], images, classes)
    size = np.stack([count((masks == c) & seen) for c in range(1, classes)], axis=1)[..., None]
    dice = np.where(size > 0, 2 * shared / np.maximum(predicted + size, 1), predicted == 0)
    # Void everywhere is no image without the class.
    present, scored = size[..., 0] > 0, seen.reshape(images, -1).any(axis=1)
    return dice, present | (scored[:, None] & empty)


def _passed(q: np.ndarray) -> np.ndarray:
    """Return how many thresholds of GRID each value exceeds, exactly as `q > tau` in float32 would count."""
    bounds = np.concatenate([[-np.inf], GRID, [np.inf, np.inf]]).astype(np.float32)
    number = np.clip((q * 100).astype(np.int64), 0, len(GRID))
    # Rounding in q * 100 can be off by one at a threshold; the comparison decides.
    number += q > bounds[number + 1]
    number -= q <= bounds[number]
    return number


def _above(slot: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Return (images, foreground classes, thresholds) counts of the pixels that exceed each threshold."""
    steps = len(GRID) + 1
    # Summed from the top: what passes 50 thresholds passes the 49 below too.
    counts = np.bincount(slot, minlength=images * classes * steps).reshape(images, classes, steps)
    return counts[:, 1:, ::-1].cumsum(axis=2)[:, :, -2::-1]


def bayes_ce(posterior: np.ndarray) -> np.ndarray:
    """Return the class ids (N, *S) that minimise the expected error rate under `posterior` (N, K, *S).

    That is its argmax: cross-entropy's optimum is the posterior itself, and this is its prediction at 0.5.
    """
    return labels_at(posterior, None)


def bayes_dice(posterior: np.ndarray, *, over: str = "image") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (labels (N, *S), thresholds (N,), D* (N,)): the predictions with the largest soft-Dice-of-means.

    For q = 1 - p_background the best region of any size k holds the k largest q, and its Dice is D_k = 2 sum
    of these q / (k + sum of all q); D* = max_k D_k is found by sorting, and its region is {q > D*/2}
    (Nordström et al. 2022). This is the ratio of expectations, the optimum of soft Dice; the expected ratio
    differs from it by terms that vanish as objects grow. over="image": each image has its own D*; "batch":
    one D* for the sums over all images. With several foreground classes the region is theirs together, and
    each pixel gets the likeliest.
    """
    if over not in ("image", "batch"):
        raise ValueError(f"over must be 'image' or 'batch', got {over!r}")
    q = (1 - posterior[:, 0].astype(np.float64)).reshape(len(posterior), -1)
    # All images as one, or each by itself.
    pools = q.reshape(1, -1) if over == "batch" else q
    ordered = -np.sort(-pools, axis=1)
    size = np.arange(1, pools.shape[1] + 1)
    dice = 2 * np.cumsum(ordered, axis=1) / (size + pools.sum(axis=1, keepdims=True))
    best = np.broadcast_to(dice.max(axis=1), len(posterior))
    region = (q > best[:, None] / 2).reshape(posterior[:, 0].shape)
    labels = np.where(region, winners(posterior), 0).astype(label_type(posterior.shape[1]))
    return labels, best / 2, best
