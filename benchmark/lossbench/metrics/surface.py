"""Distances between the borders of two masks: HD, HD95, ASSD, MASD, surface Dice and boundary IoU; and maps
of the distance to a border, which boundary losses take.

Definitions (those of MONAI, so that numbers can be compared): the border of a mask is the set of its pixels
that have a background pixel among their 4 (2-D) or 6 (3-D) neighbours; beyond the image all is background;
distances run between pixel centres in units of the spacing. HD95 = the larger of the two directed 95th
percentiles (linear interpolation); the percentile of the pooled distances, which other libraries call by the
same name, is another number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from lossbench.metrics.arrays import box_of, count

BAND = 0.02
"""Width of the boundary of boundary IoU, as a share of the image diagonal (Cheng et al. 2021)."""

HAIR = 1 + 1e-9
"""Keeps 3 x 0.1 within a tolerance of 0.3, whatever the order of the roundings."""

# Measured crossovers: all pairs at once, a look at the rows around, or a KD-tree. Only speed depends on them.
_ALL_PAIRS = 150_000
_ROWS = {0: 0, 1: 8, 2: 2}  # by the number of axes across the rows: how far to look


@dataclass(frozen=True)
class Wanted:
    """Which scores are wanted: percentiles of the Hausdorff distance, and tolerances of surface Dice."""

    percentiles: tuple[float, ...] = (95.0,)
    tolerances: tuple[float, ...] = (1.0, 2.0)  # in units of the spacing: px, or mm

    @property
    def distances(self) -> tuple[str, ...]:
        """Return the names of the scores that are distances, for which the diagonal is the worst value."""
        return ("hd", *(f"hd{p:g}" for p in self.percentiles), "assd", "masd")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all scores."""
        return (*self.distances, *(f"nsd_{t:g}" for t in self.tolerances), "boundary_iou")


USUAL = Wanted()
"""The columns of the tables."""


def surface_scores(
    predicted: np.ndarray,
    target: np.ndarray,
    spacing: tuple[float, ...],
    worst: np.ndarray,
    wanted: Wanted = USUAL,
) -> dict[str, np.ndarray]:
    """Score N pairs of boolean masks (N, *S): name -> (N,) float64.

    `worst` (N,) is the image diagonal in units of `spacing`: the distance given to an object that was missed
    (prediction empty, target not), together with 0 for surface Dice and boundary IoU. An image whose target
    is empty gets NaN: it has no border to be near to, and the caller counts it apart.
    """
    return Borders(target, spacing, worst).score(Borders(predicted, spacing, worst), wanted)


class Borders:
    """The borders of N masks, looked for once, so that one truth can be compared with several predictions."""

    def __init__(self, masks: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray):
        self.spacing, self.worst = spacing, worst
        # What is background in all of them has no border, and is not looked at again.
        box = box_of(masks)
        inner = masks[box]
        place = np.unravel_index(np.flatnonzero(edge(inner)), inner.shape)
        # (P, 1 + D), ascending: the image, and the pixel in it.
        self.points = np.stack(place, axis=1) + [cut.start or 0 for cut in box]
        self.number = np.bincount(self.points[:, 0], minlength=len(masks))
        # Images of one data set share their diagonal unless void was padded; one width is one pass.
        # At least one pixel, along the coarsest axis.
        width = np.maximum(BAND * worst, max(spacing))
        self.band = np.zeros_like(masks)
        for radius in np.unique(width):
            images = width == radius
            self.band[box][images] = rim(inner[images], float(radius), spacing)

    def score(
        self, other: Borders, wanted: Wanted = USUAL, images: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Score the M predictions `other` against these borders, the truth: name -> (M,).

        `images` (M,), ascending, says which image each prediction belongs to; None: all of them, in order.
        """
        images = np.arange(len(self.number)) if images is None else images
        # A truth without the class keeps NaN; a miss the worst value; the rest is measured below.
        here = self.number[images] > 0
        out = {name: np.full(len(images), np.nan) for name in wanted.names}
        for name, values in out.items():
            values[here] = self.worst[images][here] if name in wanted.distances else 0.0
        both = np.flatnonzero(here & (other.number > 0))
        if not len(both):
            return out
        # Never an empty union: every border pixel lies in its band.
        mine, theirs = self.band[images[both]], other.band[both]
        shared = count(mine & theirs)
        out["boundary_iou"][both] = shared / (count(mine) + count(theirs) - shared)
        there, back = nearest(_of(other.points, both), _of(self.points, images[both]), self.spacing)
        numbers = other.number[both], self.number[images[both]]
        for name, values in summarise(there, back, *numbers, wanted).items():
            out[name][both] = values
        return out


def _of(points: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the points of some images (ascending), which are numbered anew."""
    rank = np.full(points[-1, 0] + 1, -1)
    rank[images] = np.arange(len(images))
    rank = rank[points[:, 0]]
    return np.column_stack([rank, points[:, 1:]])[rank >= 0]


def summarise(
    there: np.ndarray, back: np.ndarray, n_there: np.ndarray, n_back: np.ndarray, wanted: Wanted = USUAL
) -> dict[str, np.ndarray]:
    """Turn directed distances, prediction to truth and back, into the scores without boundary IoU.

    `there` holds those of all images, one image after the other, `n_there` (M,) how many are each one's, and
    so for `back`; returns name -> (M,).
    """
    ways = _Ordered(there, n_there), _Ordered(back, n_back)
    number = n_there + n_back
    scores = {"hd": np.maximum(*(way.percentile(100) for way in ways))}
    for p in wanted.percentiles:
        scores[f"hd{p:g}"] = np.maximum(*(way.percentile(p) for way in ways))
    total = [way.sum() for way in ways]
    scores["assd"] = (total[0] + total[1]) / number
    scores["masd"] = 0.5 * (total[0] / n_there + total[1] / n_back)
    for t in wanted.tolerances:
        scores[f"nsd_{t:g}"] = sum(way.within(t * HAIR) for way in ways) / number
    return scores


class _Ordered:
    """Distances of M images, those of each in ascending order, one image after the other."""

    def __init__(self, values: np.ndarray, number: np.ndarray):
        self.number, self.start = number, np.cumsum(number) - number
        image = np.repeat(np.arange(len(number)), number)
        self.values = values[np.lexsort((values, image))]

    def percentile(self, p: float) -> np.ndarray:
        """Return np.percentile of each image: between the two nearest values, linearly."""
        place = p / 100 * (self.number - 1)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, self.number - 1)
        below, above = self.values[self.start + low], self.values[self.start + high]
        return below + (above - below) * (place - low)

    def sum(self) -> np.ndarray:
        return np.add.reduceat(self.values, self.start)

    def within(self, limit: float) -> np.ndarray:
        """Return how many values of each image are at most `limit`."""
        return np.add.reduceat(self.values <= limit, self.start, dtype=np.int64)


# Which pixels of a mask lie at its border, or within some distance of the background.


def edge(masks: np.ndarray) -> np.ndarray:
    """Return the pixels of masks (N, *S) with a background pixel among their face neighbours."""
    # A pixel is inside while all its neighbours are in the mask; the image ends in background.
    inside = masks.copy()
    for axis in range(1, masks.ndim):
        source, target = np.moveaxis(masks, axis, 0), np.moveaxis(inside, axis, 0)
        target[1:] &= source[:-1]
        target[:-1] &= source[1:]
        target[0] = target[-1] = False
    return masks & ~inside


def boundary_iou_released(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return (N,) boundary IoU of masks (N, *S) as bowenc0221/boundary-iou-api computes it.

    Its band is what d erosions by a cube of 3 pixels a side take away, d = 2 % of the diagonal in pixels of
    an image, rounded, at least 1: wider along the diagonals than the paper's distance d, and blind
    to the spacing. NaN without a true object, 0 for a miss.
    """
    width = max(1, round(BAND * float(np.sqrt(sum(side**2 for side in target.shape[1:])))))
    cube = np.ones((1, *(3,) * (target.ndim - 1)), dtype=bool)
    mine, theirs = (m & ~binary_erosion(m, cube, iterations=width) for m in (target, predicted))
    axes = tuple(range(1, target.ndim))
    shared, union = (mine & theirs).sum(axes), (mine | theirs).sum(axes)
    return np.where(target.any(axes), shared / np.maximum(union, 1), np.nan)


def rim(masks: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the pixels of masks (N, *S) within `radius`, in units of `spacing`, of a background pixel.

    A pixel is near the background when one of the rows around it holds a background pixel that is near
    enough. Rows are looked at by their reach along the last axis, which grows from step to step.
    """
    # Offsets across the rows, each with its reach along the row.
    rows = ball(radius, spacing)
    margin = [max(abs(offset[axis]) for offset, _ in rows) for axis in range(len(spacing) - 1)]
    last = max(reach for _, reach in rows)
    # Beyond the image all is background.
    outside = np.pad(~masks, ((0, 0), *((m, m) for m in (*margin, last))), constant_values=True)
    width = masks.shape[-1]
    near, out = outside[..., last : last + width].copy(), np.zeros_like(masks)
    for reach in range(last + 1):
        # One step farther to both sides: `near` grows to the reach of the next rows.
        if reach:
            near |= outside[..., last - reach : last - reach + width]
            near |= outside[..., last + reach : last + reach + width]
        for offset in (offset for offset, own in rows if own == reach):
            starts = (m + o for m, o in zip(margin, offset, strict=True))
            sides = zip(starts, masks.shape[1:], strict=False)
            out |= near[(slice(None), *(slice(start, start + side) for start, side in sides))]
    return out & masks


@lru_cache(maxsize=64)
def ball(radius: float, spacing: tuple[float, ...]) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return the pixels within `radius` as rows: (offset along the other axes, reach along the last axis)."""
    *others, last = spacing
    reach = [int(radius / s * HAIR) for s in others]
    rows = []
    for place in np.ndindex(*(2 * r + 1 for r in reach)):
        offset = tuple(int(o) - r for o, r in zip(place, reach, strict=True))
        left = (radius * HAIR) ** 2 - sum((o * s) ** 2 for o, s in zip(offset, others, strict=True))
        if left >= 0:
            rows.append((offset, int(left**0.5 / last)))
    return tuple(rows)


# Distances between two sets of border pixels.


def nearest(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance from each point of `a` to the nearest of `b`, and from each of `b` to that of `a`.

    `a` (n, 1 + D) and `b` (m, 1 + D) are integers, the number of an image and a pixel of it, in ascending
    order; each image has points in both. Only points of one image are near to each other.
    """
    counts = np.bincount(a[:, 0]), np.bincount(b[:, 0])
    few = counts[0] * counts[1] <= _ALL_PAIRS
    there, back = np.empty(len(a)), np.empty(len(b))
    ends = np.cumsum(counts[0]), np.cumsum(counts[1])
    places_a, places_b = a[:, 1:] * spacing, b[:, 1:] * spacing
    for image in np.flatnonzero(few).tolist():
        # Few points: both directions from one matrix.
        own, other = (slice(end[image] - n[image], end[image]) for end, n in zip(ends, counts, strict=True))
        squares = cdist(places_a[own], places_b[other], "sqeuclidean")
        there[own], back[other] = np.sqrt(squares.min(axis=1)), np.sqrt(squares.min(axis=0))
    if not few.all():
        of_a, of_b = ~few[a[:, 0]], ~few[b[:, 0]]
        there[of_a] = _directed(a[of_a], b[of_b], spacing)
        back[of_b] = _directed(b[of_b], a[of_a], spacing)
    return there, back


def _directed(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Look for the nearest point of `b` in the own row of each point of `a`, then in rows farther away.

    Most borders lie close to each other, so that a few rows settle nearly all points; a KD-tree does the
    rest.
    """
    # The box of both sets, so that coordinates start at 0.
    low, high = np.minimum(a.min(axis=0), b.min(axis=0)), np.maximum(a.max(axis=0), b.max(axis=0))
    reach, extent = _ROWS[len(spacing) - 1], high - low + 1
    # Positions along one line, on which rows stand so far apart that no step from one lands in another.
    sides = np.append(extent[:-1] + reach, 3 * extent[-1])
    strides = np.append(np.cumprod(sides[:0:-1])[::-1], 1)
    # Sentinels at both ends spare the question whether there is a neighbour.
    line = np.concatenate([[-(2**62)], (b - low) @ strides, [2**62]])
    start = (a - low) @ strides
    squares, left = np.full(len(a), np.inf), np.arange(len(a))
    for offset, away in _around(spacing[:-1], reach):
        # Rows so far away cannot improve on what is known of the others.
        left = left[squares[left] > away]
        if not len(left):
            return np.sqrt(squares)
        at = start[left] + int(np.dot(offset, strides[1:-1]))
        after = np.searchsorted(line, at)
        # The nearest point of a row is the last before or the first after.
        step = np.minimum(at - line[after - 1], line[after] - at)
        there = np.where(step < extent[-1], (step * spacing[-1]) ** 2 + away, np.inf)
        squares[left] = np.minimum(squares[left], there)
    # Images of whom points are left, so far apart that none is near to another.
    asked = np.zeros(extent[0], bool)
    asked[a[left, 0] - low[0]] = True
    known = b[asked[b[:, 0] - low[0]]]
    apart = (2 * float(np.dot(extent[1:], spacing)), *spacing)
    tree = KDTree(known * apart, leafsize=32, balanced_tree=False, compact_nodes=False)
    squares[left] = tree.query(a[left] * apart)[0] ** 2
    return np.sqrt(squares)


@lru_cache(maxsize=64)
def _around(spacing: tuple[float, ...], reach: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Return the rows around a row, up to `reach` away, as (offset, squared distance), the nearest first."""
    rows = []
    for place in np.ndindex(*(2 * reach + 1 for _ in spacing)):
        offset = tuple(int(o) - reach for o in place)
        rows.append((offset, float(sum((o * s) ** 2 for o, s in zip(offset, spacing, strict=True)))))
    # In the corners of the square, rows outside it could be nearer.
    limit = min((((reach + 1) * s) ** 2 for s in spacing), default=np.inf)
    return tuple(sorted((row for row in rows if row[1] < limit), key=lambda row: row[1]))


# --- signed distance maps: what boundary losses take as data, computed before a training step


def signed_distances(
    masks: np.ndarray, classes: int, spacing: tuple[float, ...], ignore_index: int | None = None
) -> np.ndarray:
    """Return float32 (N, classes, *S): the distance to each class's boundary in units of the spacing,
    negative inside.

    Outside, a pixel holds the distance to the nearest pixel of the class; inside, minus the distance to the
    nearest pixel outside, plus the smallest spacing, so that both sides of a boundary are one step apart
    through zero (Kervadec et al. 2019). A class that is absent or fills the whole image has no boundary and
    gives a map of zeros; void pixels count as outside.
    """
    maps = np.zeros((masks.shape[0], classes, *masks.shape[1:]), np.float32)
    for image, mask in enumerate(masks):
        for kind in range(classes):
            inside = (mask == kind) & (kind != ignore_index)
            if not inside.any() or inside.all():
                continue
            outer = distance_transform_edt(~inside, sampling=spacing)
            inner = distance_transform_edt(inside, sampling=spacing)
            maps[image, kind] = np.where(inside, -(inner - min(spacing)), outer)
    return maps
