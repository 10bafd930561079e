"""Where to cut a probability: the threshold chosen on validation images, and the best cuts of a known
posterior.
"""

from __future__ import annotations

import numpy as np

from lossbench.metrics.arrays import check_prob, valid_pixels

GRID = (np.arange(1, 100) / 100).astype(np.float32)

"""The thresholds that are tried: 0.01, 0.02, ..., 0.99."""


def labels_at(prob: np.ndarray, tau: float | np.ndarray | None) -> np.ndarray:
    """Return class ids (N, *S) from `prob` (N, K, *S).

    tau None: argmax over all classes. Otherwise a pixel is foreground iff 1 - p_background > tau, and then of
    the most probable foreground class; tau is one number, or one per image (N,).
    """
    if tau is None:
        if prob.shape[1] == 2:  # the same as argmax, ten times as fast
            return (prob[:, 1] > prob[:, 0]).astype(np.uint8)
        return prob.argmax(axis=1).astype(np.uint8)
    tau = np.asarray(tau, dtype=np.float32)
    tau = tau.reshape(-1, *(1,) * (prob.ndim - 2)) if tau.ndim else tau
    return np.where(1 - prob[:, 0] > tau, winners(prob), 0).astype(np.uint8)


def winners(prob: np.ndarray) -> np.ndarray | int:
    """Return the most probable foreground class of each pixel (N, *S); plainly 1 when there is only one."""
    return 1 if prob.shape[1] == 2 else (1 + prob[:, 1:].argmax(axis=1)).astype(np.uint8)


def choose_threshold(
    prob: np.ndarray, masks: np.ndarray, *, ignore_index: int | None = None
) -> tuple[float, np.ndarray]:
    """Return (tau, curve): the threshold on GRID with the best mean Dice, and the mean Dice at each (99,).

    The mean runs over the pairs (image, foreground class) in which the class is present, in binary and
    multi-class sets alike. Of several best thresholds the one nearest to 0.5 is taken, so that a flat curve
    does not choose an extreme. Without any present pair: 0.5 and a curve of NaN. `prob` (N, K, *S), `masks`
    (N, *S); void pixels are left out.

    Cost: one histogram over (image, class, threshold) instead of 99 thresholded copies.
    """
    check_prob(prob, masks, ignore_index)
    images, classes, steps = len(masks), prob.shape[1], len(GRID) + 1
    valid = valid_pixels(masks, ignore_index)
    winner = winners(prob)
    passed = _passed(1 - prob[:, 0]).reshape(images, -1)
    slot = (
        np.arange(images)[:, None] * classes + np.broadcast_to(winner, masks.shape).reshape(images, -1)
    ) * steps
    slot = slot + passed
    agree = masks == winner
    if valid is not None:
        slot, agree = slot[valid.reshape(images, -1)], agree[valid]
    predicted = _above(slot, images, classes)
    shared = _above(slot.ravel()[agree.ravel()], images, classes)
    size = np.stack([(masks == c).reshape(images, -1).sum(axis=1) for c in range(1, classes)], axis=1)
    present = size > 0
    if not present.any():
        return 0.5, np.full(len(GRID), np.nan)
    curve = (2 * shared / np.maximum(predicted + size[..., None], 1))[present].mean(axis=0)
    best = np.flatnonzero(curve >= curve.max() - 1e-12)
    return round(float(GRID[best[np.abs(GRID[best] - 0.5).argmin()]]), 2), curve


def _passed(q: np.ndarray) -> np.ndarray:
    """Return how many thresholds of GRID each value exceeds, exactly as `q > tau` in float32 would count."""
    bounds = np.concatenate([[-np.inf], GRID, [np.inf, np.inf]]).astype(np.float32)
    count = np.clip((q * 100).astype(np.int64), 0, len(GRID))
    # Rounding in q * 100 can be off by one at a threshold; the comparison decides.
    count += q > bounds[count + 1]
    count -= q <= bounds[count]
    return count


def _above(slot: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Return (images, foreground classes, thresholds) counts of the pixels that exceed each threshold."""
    steps = len(GRID) + 1
    counts = np.bincount(slot.ravel(), minlength=images * classes * steps).reshape(images, classes, steps)
    return counts[:, 1:, ::-1].cumsum(axis=2)[:, :, -2::-1]


def bayes_ce(posterior: np.ndarray) -> np.ndarray:
    """Return the class ids (N, *S) that minimise the expected error rate under `posterior` (N, K, *S): its
    argmax.

    Cross-entropy's optimum is the posterior itself, and this is its prediction at 0.5 / argmax.
    """
    return labels_at(posterior, None)


def bayes_dice(posterior: np.ndarray, *, over: str = "image") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (labels (N, *S), thresholds (N,), D* (N,)): the predictions with the largest soft-Dice-of-means.

    For q = 1 - p_background the best region of any size k holds the k largest q, and its Dice is D_k = 2 sum
    of these q / (k + sum of all q); D* = max_k D_k is found by sorting, and its region is {q > D*/2}
    (Nordström et al. 2022). This is the ratio of expectations, the optimum of soft Dice; the expected ratio
    differs from it by terms that vanish as objects grow. over="image": each image has its own D*; "batch":
    one D* for the sums over all images. With several foreground classes the region is theirs together, and
    each pixel gets the likeliest."""
    if over not in ("image", "batch"):
        raise ValueError(f"over must be 'image' or 'batch', got {over!r}")
    q = (1 - posterior[:, 0].astype(np.float64)).reshape(len(posterior), -1)
    q = q.reshape(1, -1) if over == "batch" else q
    ordered = -np.sort(-q, axis=1)
    size = np.arange(1, q.shape[1] + 1)
    total = q.sum(axis=1, keepdims=True)
    dice = 2 * np.cumsum(ordered, axis=1) / (size + total)
    best = dice.max(axis=1)
    best = np.broadcast_to(best, len(posterior)) if over == "batch" else best
    region = q.reshape(len(posterior), -1) > best[:, None] / 2
    labels = np.where(region.reshape(posterior[:, 0].shape), winners(posterior), 0).astype(np.uint8)
    return labels, best / 2, best
