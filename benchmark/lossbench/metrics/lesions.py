"""Objects instead of pixels: which components are found, which are invented, how well each is drawn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lossbench.metrics.arrays import mean

QUINTILES = ("recall_q1", "recall_q2", "recall_q3", "recall_q4", "recall_q5")

LESIONS = ("lesion_precision", "lesion_recall", "lesion_f1", "pq", "rq", *QUINTILES)


@dataclass(frozen=True)
class Components:
    """Connected components (8- or 26-neighbours) of N masks (N, *S), as runs: pixels in a row.

    starts, ends (R,): first place of each run, and the first behind it, on a line of all rows with a gap of
    one place after each; owner (R,): its component, from 0; size (components,): pixels; images (components,):
    the image that each lies in, ascending.
    """

    starts: np.ndarray
    ends: np.ndarray
    owner: np.ndarray
    size: np.ndarray
    images: np.ndarray
    number: int

    def per_image(self) -> np.ndarray:
        """Return (N,) numbers of components."""
        return np.bincount(self.images, minlength=self.number)


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
    """Find the components of boolean masks (N, *S); images do not touch each other."""
    *rows, width = masks.shape
    # False before the first row and after each, so that a run begins and ends where neighbours differ.
    line = np.zeros(masks.size // width * (width + 1) + 1, bool)
    line[1:].reshape(*rows, width + 1)[..., :-1] = masks
    starts, ends = np.flatnonzero(line[1:] != line[:-1]).reshape(-1, 2).T
    place = np.unravel_index(starts // (width + 1), rows)
    strides = np.cumprod([1, *rows[:1:-1]])[::-1] * (width + 1)
    steps = list(itertools.product((-1, 0, 1), repeat=len(rows) - 1))
    pairs = [np.empty((2, 0), np.int64)]
    # Half of the neighbouring rows: each pair of rows is looked at from one side.
    for step in steps[: len(steps) // 2]:
        inside = np.ones(len(starts), bool)
        for axis, move in enumerate(step, start=1):
            inside &= (place[axis] + move >= 0) & (place[axis] + move < rows[axis])
        runs, shift = np.flatnonzero(inside), int(np.dot(step, strides))
        # Runs touch also by a corner, that is where one begins right behind the other's end.
        first = np.searchsorted(ends, starts[runs] + shift, "left")
        behind = np.searchsorted(starts, ends[runs] + shift, "right")
        pairs.append(np.stack(_spread(runs, first, behind)))
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(starts),) * 2)
    number, owner = connected_components(graph, directed=False) if len(starts) else (0, starts)
    size = np.bincount(owner, ends - starts, number).astype(np.int64)
    images = np.empty(number, np.int64)
    images[owner] = place[0]
    return Components(starts, ends, owner, size, images, len(masks))


def _spread(runs: np.ndarray, first: np.ndarray, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs: each run with every number from `first` to before `behind`."""
    number = np.maximum(behind - first, 0)
    begin = np.cumsum(number) - number
    return np.repeat(runs, number), np.arange(number.sum()) + np.repeat(first - begin, number)


def match(predicted: Components, true: Components) -> Matches:
    """Compare the components of two stacks of one shape.

    A component is matched when the intersection over union exceeds one half, which at most one partner can do
    (Kirillov et al. 2019); it is hit when it shares at least one pixel with any component of the other side.
    """
    runs = np.arange(len(true.starts))
    first = np.searchsorted(predicted.ends, true.starts, "right")
    behind = np.searchsorted(predicted.starts, true.ends, "left")
    one, other = _spread(runs, first, behind)
    shared = np.minimum(true.ends[one], predicted.ends[other]) - np.maximum(
        true.starts[one], predicted.starts[other]
    )
    # A pair of components as one number.
    width = max(len(predicted.size), 1)
    codes = true.owner[one].astype(np.int64) * width + predicted.owner[other]
    pairs, back = np.unique(codes, return_inverse=True)
    number = np.bincount(back, shared, len(pairs))
    t, p = pairs // width, pairs % width
    pair_iou = number / (true.size[t] + predicted.size[p] - number)
    hit, real = np.zeros(len(true.size), bool), np.zeros(len(predicted.size), bool)
    hit[t], real[p] = True, True
    iou = np.zeros(len(true.size))
    iou[t[pair_iou > 0.5]] = pair_iou[pair_iou > 0.5]
    return Matches(true.size, hit, iou, real)


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
