"""The shapes that scenes are made of: finite families of templates, so that a posterior over shape and place can be
summed exactly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from benchmark.errors import UserError

CUT = 3.0  # a shifted boundary is drawn from a normal distribution truncated here, in standard deviations
SIZE_LEVELS = 9


@dataclass(frozen=True)
class Outline:
    """How labels follow from the geometry: ``rim`` (share of the expected area), ``rim_probability``, or
    ``boundary_shift`` (sigma / radius).
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
    """T templates on one tile, each cut to its bounding box, which is placed at a uniformly drawn corner so that it
    lies inside the tile.

    ``appearance[t]`` is the noise-free intensity at unit contrast; ``rank[t]`` orders the pixels from the inside out
    (the n first are the object); ``probability[t]`` is p(label = 1 | template, place) per pixel; ``size[t]`` the
    expected area; ``weight[t]`` the prior.
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
        """Return one label drawn for template ``t``; ``uniform`` drives the shift of the whole boundary, ``rng`` the
        pixels of the rim.
        """
        rank, area = self.rank[t], self.nominal[t]
        if self.outline.boundary_shift:
            scale = max(0.0, 1 + self.outline.boundary_shift * ndtri(ndtr(-CUT) + uniform * (1 - 2 * ndtr(-CUT))))
            return rank + 0.5 <= area * scale**self.growth
        if self.outline.rim:
            return rng.random(rank.shape) < self.probability[t]
        return rank < area


def sizes(mean: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whole areas and their probabilities: log-uniform over a factor ``ratio``, with mean ``mean`` to within a
    percent.

    A single area that rounding would change by more than a percent becomes a mixture of the two whole areas around it.
    """
    if ratio == 1:
        low = np.floor(mean)
        if mean >= 1 and abs(mean - np.round(mean)) <= 0.01 * mean:
            return np.array([np.round(mean)], int), np.ones(1)
        areas, weights = np.array([low, low + 1], int), np.array([low + 1 - mean, mean - low])
    else:
        levels = np.geomspace(1, ratio, SIZE_LEVELS)
        scales = mean / levels.mean() * np.linspace(0.8, 1.25, 2001)
        means = np.round(scales[:, None] * levels).mean(1)
        areas = np.round(scales[np.abs(means - mean).argmin()] * levels).astype(int)
        areas, counts = np.unique(areas, return_counts=True)
        weights = counts / SIZE_LEVELS
    if areas[0] < 1:
        raise UserError(f"scenes: an object would have less than one pixel (mean {mean:.3g}, factor {ratio:g}); "
                        "raise 'foreground' or 'size', or lower 'objects' or 'size_ratio'")  # fmt: skip
    return areas, weights


def family(shape: str, tile: tuple[int, ...], mean: float, ratio: float, outline: Outline) -> Family:
    """Return the templates of one kind of object with mean area ``mean`` on a tile; raises UserError when they do not
    fit.
    """
    areas, chances = sizes(mean, ratio)
    distances = {"blob": _blob_distances, "vessel": _vessel_distances}[shape]
    found: dict[str, list] = {"appearance": [], "rank": [], "probability": [], "nominal": [], "size": [], "weight": []}
    for area, chance in zip(areas, chances, strict=True):
        variants, growth = distances(tile, float(area), outline.spread(len(tile)), few=len(areas) > 2)
        for distance, radius in variants:
            template = _template(distance, radius, int(area), outline, growth, shape, tile)
            for key, value in zip(found, (*template, chance / len(variants)), strict=True):
                found[key].append(value)
    numbers = {key: np.asarray(found.pop(key)) for key in ("nominal", "size", "weight")}
    return Family(tile=tile, outline=outline, growth=growth, **found, **numbers)


def _template(distance, radius, area, outline, growth, shape, tile):
    """Return appearance, rank, p(label), nominal area and expected area of one template, cut to its bounding box."""
    order = np.argsort(distance, axis=None, kind="stable")
    rank = np.empty(distance.size, np.int32)
    rank[order] = np.arange(distance.size, dtype=np.int32)
    rank = rank.reshape(distance.shape)
    per_pixel = area ** (1 / growth) / radius  # so that radius_of(n) is the distance at which n pixels lie inside
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
        eta = outline.rim_probability
        core = round(area * (1 - outline.rim))
        outer = core + round((area - core) / eta)
        probability = np.where(rank < core, 1.0, np.where(rank < outer, eta, 0.0))
        appearance = (1 - eta) * ramp(core) + eta * ramp(outer)
    else:
        probability = (rank < area).astype(float)
        appearance = ramp(area)
    used = (appearance > 0) | (probability > 0)
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(used))
    cut = [s.stop - s.start for s in box]
    if any(c > t for c, t in zip(cut, tile, strict=True)) or probability.sum() < area * 0.97:
        needed, there = ("x".join(map(str, extent)) for extent in (cut, tile))
        raise UserError(
            f"scenes: a {shape} of {area} pixels with its edge needs {needed} pixels, but its tile has {there}; "
            "lower 'foreground' (or 'size_ratio', 'boundary_shift', 'rim') or raise 'size'"
        )
    return appearance[box].astype(np.float32), rank[box], probability[box], nominal, probability.sum()


def shift_probability(rank: np.ndarray, nominal: float, sigma: float, growth: int) -> np.ndarray:
    """Return p(label = 1) by rank when the boundary's scale is 1 + sigma e with e a normal truncated at 3: p(nominal
    scale^growth >= rank + 1/2).
    """
    needed = (((rank + 0.5) / nominal) ** (1 / growth) - 1) / sigma
    tail = ndtr(-CUT)
    return np.clip((ndtr(-needed) - tail) / (1 - 2 * tail), 0, 1)


def _unbiased_area(ranks: np.ndarray, area: float, sigma: float, growth: int) -> float:
    """Return the nominal area whose expected area after the shift is ``area`` (as far as the canvas reaches)."""
    low, high = area * 0.3, area * 1.2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if shift_probability(ranks, middle, sigma, growth).sum() < area else (low, middle)
    return (low + high) / 2


def _grid(tile: tuple[int, ...], centre: tuple[float, ...]) -> list[np.ndarray]:
    """Return coordinates on a canvas a little larger than the tile (so that what is too large is noticed) around a
    fixed sub-pixel centre.
    """
    reach = [t // 2 + 5 for t in tile]
    return np.meshgrid(*(np.arange(-r, r) - c for r, c in zip(reach, centre, strict=True)), indexing="ij", sparse=True)


def _blob_distances(tile, area: float, spread: float, few: bool):
    """Return (distance, radius) of a ball and of ellipsoids of the same volume, less elongated where room is scarce."""
    dims = len(tile)
    radius = (area / np.pi) ** 0.5 if dims == 2 else (0.75 * area / np.pi) ** (1 / 3)
    room = (min(tile) / 2 - 2.5) / spread
    long = float(np.clip(room / radius, 1.0, 1.3))  # half-axis along the direction, in radii
    wide = long ** (-1 / (dims - 1))
    axes = [tuple(float(i == j) for j in range(dims)) for i in range(dims)]
    if dims == 2 and not few:
        axes += [(0.5**0.5, 0.5**0.5), (0.5**0.5, -(0.5**0.5))]
    grid = _grid(tile, (0.31, 0.43, 0.37)[:dims])
    square = sum(g * g for g in grid)
    found = [(np.sqrt(square), radius)]
    for axis in axes if long > 1.02 else []:
        along = sum(g * a for g, a in zip(grid, axis, strict=True)) ** 2
        found.append((np.sqrt(along / long**2 + (square - along) / wide**2), radius))
    return found, dims


def _vessel_distances(tile, area: float, spread: float, few: bool):
    """Return (distance from the centre line, half-width) of bent lines in 2-D and of straight tubes in 3-D, at least
    three times as long as wide.
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
        raise UserError(f"scenes: a vessel of {area:.0f} pixels is not elongated in {there}; lower 'foreground' or raise 'size'")
    grid = _grid(tile, (0.31, 0.43, 0.37)[:dims])
    if dims == 2:
        angles = np.arange(4 if few else 8) * np.pi / (4 if few else 8)
        lines = [((np.cos(a), np.sin(a)), bend) for a in angles for bend in ((1,) if few else (-1, 1))]
    else:
        steps = [d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)]
        lines = [(tuple(np.array(d) / np.linalg.norm(d)), 0) for d in steps]
    found = []
    for direction, bend in lines:
        along = sum(g * d for g, d in zip(grid, direction, strict=True))
        if dims == 2:
            across = grid[1] * direction[0] - grid[0] * direction[1] - bend * 0.8 * along**2 / length + bend * 0.1 * length
        else:
            across = np.sqrt(np.maximum(sum(g * g for g in grid) - along**2, 0))
        found.append((np.hypot(across, np.maximum(np.abs(along) - length / 2 + half * 0.5, 0)), half))
    return found, dims - 1
