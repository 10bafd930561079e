"""Distances between the borders of two masks, all from one pass: HD, HD95, ASSD, MASD, surface Dice and
boundary IoU.

Definitions (those of MONAI, so that numbers can be compared): the border of a mask is the set of its pixels
that have a background pixel among their 4 (2-D) or 6 (3-D) neighbours; beyond the image all is background;
distances run between pixel centres in units of the spacing. HD95 = the larger of the two directed 95th
percentiles (linear interpolation); the percentile of the pooled distances, which other libraries call by the
same name, is another number."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

TOLERANCES = {"nsd_1": 1.0, "nsd_2": 2.0}

"""Surface Dice: name -> tolerance in units of the spacing (px, or mm)."""

DISTANCES = ("hd", "hd95", "assd", "masd")

SURFACE = (*DISTANCES, *TOLERANCES, "boundary_iou")

BAND = 0.02

"""Width of the boundary of boundary IoU, as a share of the image diagonal (Cheng et al. 2021)."""

# Measured crossovers: all pairs at once, a KD-tree, or a distance map of the whole box. Only speed depends on
# them.
_ALL_PAIRS = 150_000

_MAP_PIXELS_PER_POINT = {2: 4, 3: 2}  # by number of axes


def surface_scores(
    predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray
) -> dict[str, np.ndarray]:
    """Score N pairs of boolean masks (N, *S): name -> (N,) float64 for every name in SURFACE.

    `worst` (N,) is the image diagonal in units of `spacing`: the distance given to an object that was missed
    (prediction empty, target not), together with 0 for surface Dice and boundary IoU. An image whose target
    is empty gets NaN: it has no border to be near to, and the caller counts it apart.
    """
    return Borders(target, spacing, worst).score(Borders(predicted, spacing, worst))


class Borders:
    """The border pixels of N masks, found once, so that one truth can be compared with several predictions."""

    def __init__(self, masks: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray):
        self.spacing, self.worst, self.shape = spacing, worst, masks.shape
        width = np.maximum(BAND * worst, max(spacing))
        # Images of one data set share their diagonal unless void was padded; one width keeps the pass over
        # them whole.
        widths = np.unique(width)
        pixels = Foreground(masks, tuple(int(widths[-1] / s * (1 + 1e-9)) + 1 for s in spacing[:-1]))
        edge = pixels.exposed(cross(masks.ndim - 1))
        cuts = np.searchsorted(pixels.image[edge], np.arange(len(masks) + 1))
        points = pixels.place[edge]
        self.points = [points[a:b] for a, b in itertools.pairwise(cuts)]
        self.present = np.diff(cuts) > 0
        band = edge
        for w in widths:
            near = pixels.exposed(ball(float(w), spacing))
            band = band | (near if len(widths) == 1 else near & (width == w)[pixels.image])
        self.band = pixels.index[band]
        self.band_size = np.bincount(pixels.image[band], minlength=len(masks))

    def score(self, other: Borders, images: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Score the M predictions `other` against these borders, the truth: name -> (M,).

        `images` (M,) says which image each prediction belongs to; None: all of them, in order.
        """
        images = np.arange(self.shape[0]) if images is None else images
        wanted = self.present[images]
        out = {name: np.full(len(images), np.nan) for name in SURFACE}
        for name in SURFACE:
            out[name][wanted] = self.worst[images][wanted] if name in DISTANCES else 0.0
        both = np.flatnonzero(wanted & other.present)
        out["boundary_iou"][both] = self._band_iou(other, images)[both]
        for m in both:
            there, back = nearest(other.points[m], self.points[images[m]], self.spacing)
            for name, value in summarise(there, back).items():
                out[name][m] = value
        return out

    def _band_iou(self, other: Borders, images: np.ndarray) -> np.ndarray:
        pixels = int(np.prod(self.shape[1:]))
        mark = np.zeros(self.shape[0] * pixels, dtype=bool)
        mark[self.band] = True
        owner = other.band // pixels
        shared = np.bincount(owner[mark[images[owner] * pixels + other.band % pixels]], minlength=len(images))
        return shared / np.maximum(self.band_size[images] + other.band_size - shared, 1)


def summarise(there: np.ndarray, back: np.ndarray) -> dict[str, float]:
    """Turn the directed distances (prediction to truth, truth to prediction) into the scores, without
    boundary IoU.
    """
    there, back = np.sort(there), np.sort(back)
    count = len(there) + len(back)
    scores = {
        "hd": float(max(there[-1], back[-1])),
        "hd95": max(_percentile95(there), _percentile95(back)),
        "assd": float(there.sum() + back.sum()) / count,
        "masd": 0.5 * float(there.sum() / len(there) + back.sum() / len(back)),
    }
    for name, tolerance in TOLERANCES.items():
        # The hair's breadth keeps 3 x 0.1 within a tolerance of 0.3 whatever the order of the roundings.
        limit = tolerance * (1 + 1e-9)
        scores[name] = float(there.searchsorted(limit, "right") + back.searchsorted(limit, "right")) / count
    return scores


def nearest(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance from each point of `a` to the nearest of `b`, and from each of `b` to the nearest
    of `a`.

    `a` (n, D) and `b` (m, D) are integer pixel coordinates; the three ways differ only in what they cost.
    """
    if len(a) * len(b) <= _ALL_PAIRS:
        squares = cdist(a * spacing, b * spacing, "sqeuclidean")
        return np.sqrt(squares.min(axis=1)), np.sqrt(squares.min(axis=0))
    low = np.minimum(a.min(axis=0), b.min(axis=0))
    box = np.maximum(a.max(axis=0), b.max(axis=0)) - low + 1
    if np.prod(box) <= _MAP_PIXELS_PER_POINT.get(len(box), 0) * (len(a) + len(b)):
        return _mapped(a - low, b - low, box, spacing), _mapped(b - low, a - low, box, spacing)
    a, b = a * spacing, b * spacing
    return _tree(b).query(a)[0], _tree(a).query(b)[0]


def _percentile95(ordered: np.ndarray) -> float:
    """np.percentile(ordered, 95) for sorted values, without its overhead (four times the rest of a small
    pair).
    """
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _tree(points: np.ndarray) -> KDTree:
    return KDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)


def _mapped(a: np.ndarray, b: np.ndarray, box: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    away = np.ones(box, dtype=bool)
    away[tuple(b.T)] = False
    return distance_transform_edt(away, sampling=spacing)[tuple(a.T)]


# --- Which pixels of a mask lie at its border, or within some distance of the background: read off its
# foreground alone. Only foreground pixels are visited, which makes rare objects cheap. Distances to the
# background are looked up row by row: a pixel is near the background when, in one of the rows around it,
# the nearest background pixel is close enough.

Rows = tuple[tuple[tuple[int, ...], int], ...]

"""A neighbourhood as rows along the last axis: (offset along the other axes, reach to both sides), all in pixels."""


@lru_cache(maxsize=64)
def cross(axes: int) -> Rows:
    """Return the 4 or 6 face neighbours."""
    offsets = [tuple(sign * (a == b) for b in range(axes - 1)) for a in range(axes - 1) for sign in (-1, 1)]
    return (((0,) * (axes - 1), 1), *((offset, 0) for offset in offsets))


@lru_cache(maxsize=64)
def ball(radius: float, spacing: tuple[float, ...]) -> Rows:
    """Return the pixels within `radius`, in units of `spacing`; a hair's breadth more, so that 3 x 0.1 is
    within 0.3.
    """
    *others, last = spacing
    reach = [int(radius / s * (1 + 1e-9)) for s in others]
    rows = []
    for offset in np.ndindex(*(2 * r + 1 for r in reach)):
        offset = tuple(int(o) - r for o, r in zip(offset, reach, strict=True))
        left = (radius * (1 + 1e-9)) ** 2 - sum((o * s) ** 2 for o, s in zip(offset, others, strict=True))
        if left >= 0:
            rows.append((offset, int(left**0.5 / last)))
    return tuple(rows)


class Foreground:
    """The foreground pixels of N boolean masks (N, *S) inside a margin of background.

    index (n,) positions in the flat stack, ascending; image (n,) and place (n, D) the same as image number
    and coordinates."""

    def __init__(self, masks: np.ndarray, margin: tuple[int, ...]):
        """`margin`: for every axis but the last, the farthest offset that `exposed` will be asked for."""
        self.index = np.flatnonzero(masks)
        self.image, *place = np.unravel_index(self.index, masks.shape)
        self.place = np.stack(place, axis=1)
        margin = (*margin, 1)
        shape = [n + 2 * m for n, m in zip(masks.shape[1:], margin, strict=True)]
        self.strides = np.array([int(np.prod(shape[axis:])) for axis in range(len(shape) + 1)])
        self.framed = self.image * self.strides[0] + (self.place + margin) @ self.strides[1:]
        # Steps along the last axis from each pixel to the nearest background pixel of its row; 0 on
        # background.
        first = np.flatnonzero(np.diff(self.framed, prepend=-2) > 1)
        length = np.diff(first, append=len(self.framed))
        since = np.arange(len(self.framed)) - np.repeat(first, length)
        self.run = np.zeros(len(masks) * self.strides[0], dtype=np.int32)
        self.run[self.framed] = np.minimum(since + 1, np.repeat(length, length) - since)

    def exposed(self, rows: Rows) -> np.ndarray:
        """Return (n,) whether one of the pixels around each foreground pixel, given as `rows`, is background."""
        out = np.zeros(len(self.index), dtype=bool)
        for offset, reach in rows:
            step = sum(o * s for o, s in zip(offset, self.strides[1:-1].tolist(), strict=True))
            out |= self.run[self.framed + step] <= reach
        return out
