"""The shapes that scenes are made of: finitely many templates, so that a posterior can be summed exactly."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from lossbench.base.errors import UserError

CUT = 3.0  # standard deviations at which the normal distribution of a shifted boundary is cut

SIZE_LEVELS = 9  # of objects whose size varies

CENTRE = (
    0.31,
    0.43,
    0.37,
)  # of every template, between pixels, so that no two pixels are equally far from it


@dataclass(frozen=True)
class Outline:
    """How labels follow from the geometry.

    ``rim``: share of the expected area whose pixels are labelled with ``rim_probability``;
    ``boundary_shift``: sigma / radius of a shift of the whole boundary; ``softness``: width in pixels of the
    ramp at the edge.
    """

    rim: float = 0.0
    rim_probability: float = 0.4
    boundary_shift: float = 0.0
    softness: float = 2.0

    def spread(self, dims: int) -> float:
        """Return the largest labelled radius over the expected one."""
        outside = self.rim * (1 / self.rim_probability - 1)
        return (1 + outside) ** (1 / dims) * (1 + CUT * self.boundary_shift)


@dataclass(frozen=True, eq=False)
class Family:
    """T templates on one tile, each cut to its bounding box, which is placed anywhere inside the tile.

    - ``appearance[t]``: the noise-free intensity at unit contrast;
    - ``rank[t]``: the order of the pixels from the inside out (the n first are the object);
    - ``probability[t]``: p(label = 1 | template, place) of each pixel;
    - ``nominal[t]``: the area that a boundary without a shift encloses; ``size[t]``: the expected area;
    - ``weight[t]``: the prior; ``growth``: the power of the radius with which the area grows.
    """

    tile: tuple[int, ...]
    appearance: list[np.ndarray]
    rank: list[np.ndarray]
    probability: list[np.ndarray]
    nominal: np.ndarray
    size: np.ndarray
    weight: np.ndarray
    outline: Outline
    growth: int

    def room(self, t: int) -> np.ndarray:
        """Return how many places template ``t`` has along each axis."""
        return np.asarray(self.tile) - self.appearance[t].shape + 1

    def draw_label(self, t: int, uniform: float, rng: np.random.Generator) -> np.ndarray:
        """Return one label; ``uniform`` shifts the boundary, ``rng`` draws the pixels of a rim."""
        rank, area = self.rank[t], self.nominal[t]
        if self.outline.boundary_shift:
            normal = ndtri(ndtr(-CUT) + uniform * (1 - 2 * ndtr(-CUT)))
            scale = max(0.0, 1 + self.outline.boundary_shift * normal)
            return rank + 0.5 <= area * scale**self.growth
        if self.outline.rim:  # each pixel by itself
            return rng.random(rank.shape) < self.probability[t]
        return rank < area


def family(shape: str, tile: tuple[int, ...], mean: float, ratio: float, outline: Outline) -> Family:
    """Return the templates of one kind of object of mean area ``mean``; UserError if they do not fit."""
    distances = {"blob": _blob_distances, "vessel": _vessel_distances}[shape]
    # Every size comes in every shape, and all shapes of a size are equally likely.
    areas, chances = sizes(mean, ratio)
    templates, weights = [], []
    for area, chance in zip(areas, chances, strict=True):
        variants, growth = distances(tile, float(area), outline.spread(len(tile)), few=len(areas) > 2)
        for distance, radius in variants:
            templates.append(_template(distance, radius, int(area), outline, growth, shape, tile))
            weights.append(chance / len(variants))
    appearance, rank, probability, nominal, expected = zip(*templates, strict=True)
    return Family(
        tile=tile,
        appearance=list(appearance),
        rank=list(rank),
        probability=list(probability),
        nominal=np.asarray(nominal),
        size=np.asarray(expected),
        weight=np.asarray(weights),
        outline=outline,
        growth=growth,
    )


def sizes(mean: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whole areas and their probabilities: log-uniform over a factor ``ratio``, the mean right to 1 %.

    A single area that rounding would change by more becomes a mixture of the two whole areas around it.
    """
    if ratio == 1:
        low = np.floor(mean)
        if mean >= 1 and abs(mean - np.round(mean)) <= 0.01 * mean:
            return np.array([np.round(mean)], int), np.ones(1)
        areas, weights = np.array([low, low + 1], int), np.array([low + 1 - mean, mean - low])
    else:
        # The scale whose rounded areas come closest to the mean.
        levels = np.geomspace(1, ratio, SIZE_LEVELS)
        scales = mean / levels.mean() * np.linspace(0.8, 1.25, 2001)
        means = np.round(scales[:, None] * levels).mean(1)
        areas = np.round(scales[np.abs(means - mean).argmin()] * levels).astype(int)
        areas, counts = np.unique(areas, return_counts=True)
        weights = counts / SIZE_LEVELS
    if areas[0] < 1:
        raise UserError(
            f"scenes: an object would have less than one pixel (mean {mean:.3g}, factor {ratio:g}); "
            "raise 'foreground' or 'size', or lower 'objects' or 'size_ratio'"
        )
    return areas, weights


def _template(distance, radius, area: int, outline: Outline, growth: int, shape: str, tile):
    """Return appearance, rank, p(label), nominal and expected area of one template in its bounding box."""
    # Rank rather than distance decides the label, so that the area is exact to the pixel.
    order = np.argsort(distance, axis=None, kind="stable")
    rank = np.empty(distance.size, np.int32)
    rank[order] = np.arange(distance.size, dtype=np.int32)
    rank = rank.reshape(distance.shape)
    per_pixel = area ** (1 / growth) / radius  # n pixels lie within n ** (1 / growth) / per_pixel
    soft = max(outline.softness, 1e-3)

    def ramp(count: float) -> np.ndarray:
        edge = count ** (1 / growth) / per_pixel
        return np.clip(0.5 + (edge - distance) / soft, 0, 1) if count > 0 else np.zeros_like(distance)

    nominal = float(area)
    if outline.boundary_shift:
        nominal = _unbiased_area(rank.ravel(), area, outline.boundary_shift, growth)
        probability = shift_probability(rank, nominal, outline.boundary_shift, growth)
        appearance = ramp(nominal)
    elif outline.rim:
        # A certain core, and a rim that is labelled with probability eta; the image shows their mixture.
        eta = outline.rim_probability
        core = round(area * (1 - outline.rim))
        outer = core + round((area - core) / eta)
        probability = np.where(rank < core, 1.0, np.where(rank < outer, eta, 0.0))
        appearance = (1 - eta) * ramp(core) + eta * ramp(outer)
    else:
        probability = (rank < area).astype(float)
        appearance = ramp(area)
    # Beyond the box the template shows nothing and labels nothing; the posterior sums only over it.
    box = _bounding_box((appearance > 0) | (probability > 0))
    cut = [side.stop - side.start for side in box]
    if any(c > t for c, t in zip(cut, tile, strict=True)) or probability.sum() < area * 0.97:
        needed, there = ("x".join(map(str, extent)) for extent in (cut, tile))
        raise UserError(
            f"scenes: a {shape} of {area} pixels with its edge needs {needed} pixels, but its tile has "
            f"{there}; lower 'foreground' (or 'size_ratio', 'boundary_shift', 'rim') or raise 'size'"
        )
    return appearance[box].astype(np.float32), rank[box], probability[box], nominal, probability.sum()


def _bounding_box(used: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(index.min(), index.max() + 1) for index in np.nonzero(used))


def shift_probability(rank: np.ndarray, nominal: float, sigma: float, growth: int) -> np.ndarray:
    """Return p(label = 1) by rank for a boundary of scale 1 + sigma e, e normal and cut at 3.

    p(nominal scale^growth >= rank + 1/2).
    """
    needed = (((rank + 0.5) / nominal) ** (1 / growth) - 1) / sigma
    tail = ndtr(-CUT)
    return np.clip((ndtr(-needed) - tail) / (1 - 2 * tail), 0, 1)


def _unbiased_area(ranks: np.ndarray, area: float, sigma: float, growth: int) -> float:
    """Return the nominal area whose expected area after the shift is ``area``, by bisection."""
    # The expectation grows with the nominal area, so thirty halvings fix it to a billionth.
    low, high = area * 0.3, area * 1.2
    for _ in range(30):
        middle = (low + high) / 2
        if shift_probability(ranks, middle, sigma, growth).sum() < area:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _grid(tile: tuple[int, ...]) -> list[np.ndarray]:
    """Return coordinates around CENTRE on a canvas a little larger than the tile: what is too large shows."""
    reach = [t // 2 + 5 for t in tile]
    axes = (np.arange(-r, r) - c for r, c in zip(reach, CENTRE, strict=False))
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def _blob_distances(tile, area: float, spread: float, few: bool):
    """Return (distance, radius) of a ball and of ellipsoids of its volume, rounder where room is scarce."""
    dims = len(tile)
    radius = (area / np.pi) ** 0.5 if dims == 2 else (0.75 * area / np.pi) ** (1 / 3)
    # Two and a half pixels are left for the ramp at the edge.
    room = (min(tile) / 2 - 2.5) / spread
    long = float(np.clip(room / radius, 1.0, 1.3))  # half-axis along the direction, in radii
    wide = long ** (-1 / (dims - 1))
    axes = [tuple(float(i == j) for j in range(dims)) for i in range(dims)]
    if dims == 2 and not few:
        axes += [(0.5**0.5, 0.5**0.5), (0.5**0.5, -(0.5**0.5))]
    grid = _grid(tile)
    square = sum(g * g for g in grid)
    blobs = [(np.sqrt(square), radius)]
    for axis in axes if long > 1.02 else []:
        along = sum(g * a for g, a in zip(grid, axis, strict=True)) ** 2
        blobs.append((np.sqrt(along / long**2 + (square - along) / wide**2), radius))
    return blobs, dims


def _vessel_distances(tile, area: float, spread: float, few: bool):
    """Return (distance from the centre line, half-width) of bent lines in 2-D, of straight tubes in 3-D.

    They are at least three times as long as wide.
    """
    dims = len(tile)
    longest = 0.8 * min(tile)
    if dims == 2:
        width = max(2.0, (area / 12) ** 0.5)
        length = min(area / width, longest)
        half = area / length / 2
    else:
        half = max(1.0, (area / (12 * np.pi * 2)) ** (1 / 3))
        length = min(area / (np.pi * half**2), longest)
        half = (area / length / np.pi) ** 0.5
    if length < 6 * half * 0.99 and length >= longest:
        there = "x".join(map(str, tile))
        mend = "lower 'foreground' or raise 'size'"
        raise UserError(f"scenes: a vessel of {area:.0f} pixels is not elongated in {there}; {mend}")
    grid = _grid(tile)
    across = _from_bent_line if dims == 2 else _from_straight_line
    vessels = []
    for direction, bend in _directions(dims, few):
        along = sum(g * d for g, d in zip(grid, direction, strict=True))
        beyond = np.maximum(np.abs(along) - length / 2 + half * 0.5, 0)
        vessels.append((np.hypot(across(grid, direction, along, bend, length), beyond), half))
    return vessels, dims - 1


def _directions(dims: int, few: bool) -> list[tuple]:
    """Return (unit vector, bend) of the lines."""
    if dims == 2:
        count, bends = (4, (1,)) if few else (8, (-1, 1))
        angles = np.arange(count) * np.pi / count
        return [((np.cos(a), np.sin(a)), bend) for a in angles for bend in bends]
    # The 13 directions between neighbouring voxels, each once.
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    return [(tuple(np.array(step) / np.linalg.norm(step)), 0) for step in steps]


def _from_bent_line(grid, direction, along, bend: int, length: float) -> np.ndarray:
    beside = grid[1] * direction[0] - grid[0] * direction[1]
    return beside - bend * 0.8 * along**2 / length + bend * 0.1 * length


def _from_straight_line(grid, direction, along, bend: int, length: float) -> np.ndarray:
    return np.sqrt(np.maximum(sum(g * g for g in grid) - along**2, 0))
