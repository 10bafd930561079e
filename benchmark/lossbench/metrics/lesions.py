"""Objects instead of pixels: which components are found, which are invented, how well each is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import generate_binary_structure, label

from lossbench.metrics.arrays import mean

QUINTILES = ("recall_q1", "recall_q2", "recall_q3", "recall_q4", "recall_q5")

LESIONS = ("lesion_precision", "lesion_recall", "lesion_f1", "pq", "rq", *QUINTILES)


@dataclass(frozen=True)
class Components:
    """Connected components (8- or 26-neighbours) of N masks: `labels` (N, *S) from 1, `size` of each."""

    labels: np.ndarray
    size: np.ndarray

    def per_image(self) -> np.ndarray:
        """Return (N,) numbers of components; labels rise from image to image."""
        last = self.labels.reshape(len(self.labels), -1).max(axis=1)
        return np.diff(np.maximum.accumulate(last), prepend=0)


@dataclass(frozen=True)
class Matches:
    """True components of one class compared with predicted ones; those of several stacks are simply joined.

    size (T,) true sizes in pixels; hit (T,) touched by any prediction; iou (T,) with the matched predicted
    component, 0 without one; real (P,) predicted components that touch a true one.
    """

    size: np.ndarray
    hit: np.ndarray
    iou: np.ndarray
    real: np.ndarray

    @staticmethod
    def joined(parts: list[Matches]) -> Matches:
        names = ("size", "hit", "iou", "real")
        return Matches(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def components(masks: np.ndarray) -> Components:
    """Label boolean masks (N, *S) in one call; images do not touch each other."""
    # Neighbours within an image, none across the stack.
    structure = generate_binary_structure(masks.ndim, masks.ndim)
    structure[0] = structure[2] = False
    # Label 0 is the background: sizes start at 1.
    labels, number = label(masks, structure)
    return Components(labels, np.bincount(labels.ravel(), minlength=number + 1)[1:])


def match(predicted: Components, true: Components) -> Matches:
    """Compare two labellings of the same stack.

    A component is matched when the intersection over union exceeds one half, which at most one partner can do
    (Kirillov et al. 2019); it is hit when it shares at least one pixel with any component of the other side.
    """
    # Only pixels in both masks can pair components.
    shared = np.flatnonzero((predicted.labels > 0) & (true.labels > 0))
    width = len(predicted.size) + 1
    # A pair of labels as one number.
    codes = true.labels.ravel()[shared].astype(np.int64) * width + predicted.labels.ravel()[shared]
    pairs, number = _counted(codes, (len(true.size) + 1) * width)
    t, p = pairs // width - 1, pairs % width - 1
    pair_iou = number / (true.size[t] + predicted.size[p] - number)
    hit, real = np.zeros(len(true.size), bool), np.zeros(len(predicted.size), bool)
    hit[t], real[p] = True, True
    iou = np.zeros(len(true.size))
    iou[t[pair_iou > 0.5]] = pair_iou[pair_iou > 0.5]
    return Matches(true.size, hit, iou, real)


def _counted(codes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the different codes below `limit`, and how often each occurs; what is cheaper, no difference."""
    # Counting needs an array as long as the largest number; sorting does not.
    if limit > 4 * len(codes) + 1000:
        return np.unique(codes, return_counts=True)
    number = np.bincount(codes)
    there = np.flatnonzero(number)
    return there, number[there]


def lesion_scores(m: Matches) -> dict[str, float]:
    """Return the scores of LESIONS over all objects of a split; in 0..1, higher is better; NaN without any.

    lesion_recall = hit / true objects, lesion_precision = real / predicted objects (0 when none was
    predicted), lesion_f1 their harmonic mean. With TP matched objects and FP, FN the rest: pq = sum of
    matched IoU / (TP + FP/2 + FN/2) (panoptic quality), rq = TP / the same. recall_q1..q5: recall among the
    smallest fifth of the true objects, ..., the largest; objects of equal size share a fifth, so that one can
    be empty (NaN).
    """
    if not len(m.size):
        return dict.fromkeys(LESIONS, float("nan"))
    recall = float(m.hit.mean())
    precision = float(m.real.mean()) if len(m.real) else 0.0
    # The denominator of panoptic quality.
    # TP + FN true objects and TP + FP predicted ones add up to twice of it.
    half = 0.5 * (len(m.size) + len(m.real))  # TP + FP/2 + FN/2
    fifth = np.searchsorted(np.quantile(m.size, (0.2, 0.4, 0.6, 0.8)), m.size, side="left")
    return {
        "lesion_precision": precision,
        "lesion_recall": recall,
        "lesion_f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "pq": float(m.iou.sum()) / half,
        "rq": int((m.iou > 0).sum()) / half,
        **{name: mean(m.hit[fifth == q]) for q, name in enumerate(QUINTILES)},
    }
