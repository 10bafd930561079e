"""Objects instead of pixels: which connected components are found, which are invented, and how well each is
drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import generate_binary_structure, label

from lossbench.metrics.arrays import mean

QUINTILES = ("recall_q1", "recall_q2", "recall_q3", "recall_q4", "recall_q5")

LESIONS = ("lesion_precision", "lesion_recall", "lesion_f1", "pq", "rq", *QUINTILES)


@dataclass(frozen=True)
class Components:
    """Connected components (8- or 26-neighbours) of N masks: pixel positions, their component from 0, sizes,
    images.
    """

    position: np.ndarray
    component: np.ndarray
    size: np.ndarray
    image: np.ndarray
    pixels: int


@dataclass(frozen=True)
class Matches:
    """The comparison of predicted with true components of one class; arrays of several stacks are simply
    joined.

    size (T,) true sizes in pixels; hit (T,) touched by any prediction; iou (T,) with the matched predicted
    component, 0 without one; real (P,) predicted components that touch a true one.
    """

    size: np.ndarray
    hit: np.ndarray
    iou: np.ndarray
    real: np.ndarray

    @staticmethod
    def joined(parts: list[Matches]) -> Matches:
        return Matches(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("size", "hit", "iou", "real"))
        )


def components(masks: np.ndarray) -> Components:
    """Label boolean masks (N, *S) in one call; images do not touch each other."""
    structure = generate_binary_structure(masks.ndim, masks.ndim)
    structure[0] = structure[2] = False
    labels, count = label(masks, structure)
    labels = labels.ravel()
    position = np.flatnonzero(labels)
    component = labels[position].astype(np.int64) - 1
    image = np.zeros(count, dtype=np.int64)
    image[component] = position // int(np.prod(masks.shape[1:]))
    return Components(position, component, np.bincount(component, minlength=count), image, labels.size)


def match(predicted: Components, true: Components) -> Matches:
    """Compare two labellings of the same stack.

    A component is matched when the intersection over union exceeds one half, which at most one partner can do
    (Kirillov et al. 2019); it is hit when it shares at least one pixel with any component of the other side.
    """
    owner = np.full(true.pixels, -1, dtype=np.int64)
    owner[predicted.position] = predicted.component
    partner = owner[true.position]
    shared = partner >= 0
    pair, count = np.unique(
        true.component[shared] * max(len(predicted.size), 1) + partner[shared], return_counts=True
    )
    t, p = pair // max(len(predicted.size), 1), pair % max(len(predicted.size), 1)
    iou_of_pair = count / (true.size[t] + predicted.size[p] - count)
    hit, real, iou = (
        np.zeros(len(true.size), bool),
        np.zeros(len(predicted.size), bool),
        np.zeros(len(true.size)),
    )
    hit[t], real[p] = True, True
    matched = iou_of_pair > 0.5
    iou[t[matched]] = iou_of_pair[matched]
    return Matches(true.size, hit, iou, real)


def lesion_scores(m: Matches) -> dict[str, float]:
    """Return the scores of LESIONS over all objects of a split; in 0..1, higher is better; NaN without true
    objects.

    lesion_recall = hit / true objects, lesion_precision = real / predicted objects (0 when none was
    predicted), lesion_f1 their harmonic mean. With TP matched objects and FP, FN the rest: pq = sum of
    matched IoU / (TP + FP/2 + FN/2) (panoptic quality), rq = TP / the same. recall_q1..q5: recall among the
    smallest fifth of the true objects, ..., the largest; objects of equal size share a fifth, so that one can
    be empty (NaN)."""
    if not len(m.size):
        return dict.fromkeys(LESIONS, float("nan"))
    recall = float(m.hit.mean())
    precision = float(m.real.mean()) if len(m.real) else 0.0
    found = int((m.iou > 0).sum())
    half = 0.5 * (len(m.size) + len(m.real))  # TP + FP/2 + FN/2
    fifth = np.searchsorted(np.quantile(m.size, (0.2, 0.4, 0.6, 0.8)), m.size, side="left")
    return {
        "lesion_precision": precision,
        "lesion_recall": recall,
        "lesion_f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "pq": float(m.iou.sum()) / half,
        "rq": found / half,
        **{name: mean(m.hit[fifth == q]) for q, name in enumerate(QUINTILES)},
    }
