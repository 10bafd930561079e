"""Distances between the borders of two masks, all from one pass: HD, HD95, ASSD, MASD, surface Dice and boundary IoU.

Definitions (those of MONAI, so that numbers can be compared): the border of a mask is the set of its pixels that have a
background pixel among their 4 (2-D) or 6 (3-D) neighbours; beyond the image all is background; distances run between
pixel centres in units of the spacing. HD95 = the larger of the two directed 95th percentiles (linear interpolation);
the percentile of the pooled distances, which other libraries call by the same name, is another number.
"""

from __future__ import annotations

import itertools

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

# Measured crossovers: all pairs at once, a KD-tree, or a distance map of the whole box. Only speed depends on them.
_ALL_PAIRS = 150_000
_MAP_PIXELS_PER_POINT = {2: 4, 3: 2}  # by number of axes
_NEIGHBOURS = 120


def surface_scores(predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray) -> dict[str, np.ndarray]:
    """Score N pairs of boolean masks (N, *S): name -> (N,) float64 for every name in SURFACE.

    `worst` (N,) is the image diagonal in units of `spacing`: the distance given to an object that was missed
    (prediction empty, target not), together with 0 for surface Dice and boundary IoU. An image whose target is empty
    gets NaN: it has no border to be near to, and the caller counts it apart.
    """
    return Borders(target, spacing, worst).score(Borders(predicted, spacing, worst))


class Borders:
    """The border pixels of N masks, found once, so that one truth can be compared with several predictions."""

    def __init__(self, masks: np.ndarray, spacing: tuple[float, ...], worst: np.ndarray):
        self.spacing, self.worst, self.shape = np.asarray(spacing, dtype=float), worst, masks.shape
        width = np.maximum(BAND * worst, self.spacing.max())
        # Images of one data set share their diagonal unless void was padded; one width keeps the pass over them whole.
        widths = np.unique(width)
        self.present = masks.reshape(len(masks), -1).any(axis=1)
        frame = _Frame(masks, _reach(widths[-1], spacing))
        edge = ~frame.interior(_cross(masks.ndim - 1))
        image, points = frame.locate(frame.index[edge])
        cuts = np.searchsorted(image, np.arange(len(masks) + 1))
        self.points = [points[a:b] for a, b in itertools.pairwise(cuts)]
        band = edge.copy()
        for w in widths:
            offsets = ball(w, spacing)
            outer = ~frame.interior(offsets) if len(offsets) <= _NEIGHBOURS else frame.near(w, spacing)
            band |= outer if len(widths) == 1 else outer & (width == w)[frame.image]
        self.band = frame.original(frame.index[band])
        self.band_size = np.bincount(frame.image[band], minlength=len(masks))

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
    """Turn the directed distances (prediction to truth, truth to prediction) into the scores, without boundary IoU."""
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


def nearest(a: np.ndarray, b: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance from each point of `a` to the nearest of `b`, and from each of `b` to the nearest of `a`.

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


def ball(radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the integer offsets (M, D), nearest first, that lie within `radius` (in units of `spacing`), without 0."""
    reach = _reach(radius, spacing)
    grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, len(reach))
    length = np.sqrt(((grid * np.asarray(spacing)) ** 2).sum(axis=1))
    order = np.argsort(length, kind="stable")[1:]
    return grid[order][length[order] <= radius * (1 + 1e-9)]


class _Frame:
    """N masks, cropped to their joint box and framed with background, read through their foreground pixels only."""

    def __init__(self, masks: np.ndarray, margin: np.ndarray):
        self.full, axes = masks.shape, range(1, masks.ndim)
        margin = np.maximum(margin, 1)
        some = masks.any(axis=0)
        self.low, high = np.zeros(len(margin), dtype=int), np.zeros(len(margin), dtype=int)
        if some.any():
            hits = [np.flatnonzero(some.any(axis=tuple(a - 1 for a in axes if a != axis))) for axis in axes]
            self.low, high = np.array([h[0] for h in hits]), np.array([h[-1] + 1 for h in hits])
        self.margin = margin
        self.shape = (len(masks), *(high - self.low + 2 * margin))
        self.masks = np.zeros(self.shape, dtype=bool)
        inner = tuple(slice(m, m + n) for m, n in zip(margin, high - self.low, strict=True))
        box = tuple(slice(a, b) for a, b in zip(self.low, high, strict=True))
        self.masks[(slice(None), *inner)] = masks[(slice(None), *box)]
        self.flat = self.masks.ravel()
        self.index = np.flatnonzero(self.flat)
        self.image = self.index // int(np.prod(self.shape[1:]))

    def interior(self, offsets: np.ndarray) -> np.ndarray:
        """Return, per foreground pixel, whether all its neighbours at `offsets` are foreground."""
        strides = np.array([int(np.prod(self.shape[axis + 1 :])) for axis in range(1, len(self.shape))])
        inside = np.ones(len(self.index), dtype=bool)
        for step in offsets @ strides:
            inside &= self.flat[self.index + step]
        return inside

    def near(self, distance: float, spacing: tuple[float, ...]) -> np.ndarray:
        """Return the opposite of `interior` of a ball, by distance maps: cheaper once the ball is large."""
        maps = np.concatenate([distance_transform_edt(m, sampling=spacing).ravel() for m in self.masks])
        return maps[self.index] <= distance * (1 + 1e-9)

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return image numbers and pixel coordinates in the uncropped image."""
        image, *place = np.unravel_index(index, self.shape)
        return image, np.stack(place, axis=1) - self.margin + self.low

    def original(self, index: np.ndarray) -> np.ndarray:
        """Return flat positions in the uncropped stack."""
        image, points = self.locate(index)
        return np.ravel_multi_index((image, *points.T), self.full)


def _reach(radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    return np.floor(radius / np.asarray(spacing) * (1 + 1e-9)).astype(int)


def _cross(axes: int) -> np.ndarray:
    return np.concatenate([np.eye(axes, dtype=int), -np.eye(axes, dtype=int)])


def _percentile95(ordered: np.ndarray) -> float:
    """np.percentile(ordered, 95) for sorted values, without its overhead (four times the rest of a small pair)."""
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _tree(points: np.ndarray) -> KDTree:
    return KDTree(points, balanced_tree=False, compact_nodes=False)


def _mapped(a: np.ndarray, b: np.ndarray, box: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    away = np.ones(box, dtype=bool)
    away[tuple(b.T)] = False
    return distance_transform_edt(away, sampling=spacing)[tuple(a.T)]
