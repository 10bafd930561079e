"""The exact p(class | image) of a scene: sum over every template and place by FFT, and over which tile holds
what by counting.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.special import ndtr, ndtri

from lossbench.base.errors import UserError

CHUNK = 32  # tiles at a time, so that the scores of all templates stay in the processor's cache


def evidence(tiles: np.ndarray, kind: Family, level: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(tile | it holds one object of this kind) - log p(tile | nothing) and p(pixel labelled |
    tile holds one).

    ``tiles`` (B, *tile). With x = level * appearance + noise * white Gaussian, template t at place c has the
    log likelihood ratio (level <x, a_tc> - level^2 |a_t|^2 / 2) / noise^2; places are uniform, templates have
    their prior weight. Both sums run over all places at once as correlations (cyclic, yet exact: no allowed
    place wraps). Shapes (B,) and (B, *tile), float64 and float32.
    """
    parts = [_evidence(tiles[at : at + CHUNK], kind, level, noise) for at in range(0, len(tiles), CHUNK)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _evidence(tiles, kind, level, noise):
    axes = tuple(range(1, tiles.ndim))
    exact = np.float32 if noise >= 0.3 * abs(level) else np.float64
    spectrum = fft.rfftn(tiles.astype(exact), axes=axes)
    count = len(kind.weight)
    best = np.full(len(tiles), -np.inf)
    scores = []
    for t in range(count):
        box = kind.appearance[t].astype(exact)
        template = fft.rfftn(box, kind.tile)
        inner = fft.irfftn(spectrum * template.conj(), kind.tile, axes=axes)
        room = tuple(slice(0, r) for r in kind.room(t))
        score = inner[(slice(None), *room)] * (level / noise**2)
        score += np.log(kind.weight[t] / kind.room(t).prod()) - level**2 * float((box**2).sum()) / (
            2 * noise**2
        )
        scores.append(score)
        best = np.maximum(best, score.max(axis=axes))
    total = np.zeros(len(tiles))
    labelled = np.zeros(spectrum.shape, spectrum.dtype)
    for t in range(count):
        score = scores[t]
        np.subtract(score, best.reshape(-1, *[1] * len(axes)).astype(score.dtype), out=score)
        np.exp(score, out=score)
        total += score.sum(axis=axes, dtype=np.float64)
        label = kind.probability[t].astype(score.dtype)
        labelled += fft.rfftn(score, kind.tile, axes=axes) * fft.rfftn(label, kind.tile)
        scores[t] = None
    inside = fft.irfftn(labelled, kind.tile, axes=axes) / total.reshape(-1, *[1] * len(axes))
    return best + np.log(total), np.clip(inside, 0, 1).astype(np.float32)


def assignment(logs: np.ndarray, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the log evidence of a random arrangement of contents over tiles and the probability that tile j
    holds content t.

    ``logs`` (B, M, T) log evidence of tile j under content t; ``counts`` how many tiles hold each content,
    summing to M; every arrangement is equally likely. Forward and backward sums over the states "how many of
    each content are used". Shapes (B,), (B, M, T).
    """
    batch, tiles, kinds = logs.shape
    forward = [{(0,) * kinds: np.zeros(batch)}]
    for j in range(tiles):
        forward.append(_step(forward[-1], logs[:, j], counts))
    backward: list[dict] = [{} for _ in range(tiles)] + [{tuple(counts): np.zeros(batch)}]
    for j in range(tiles - 1, -1, -1):
        for state in forward[j]:
            terms = [
                logs[:, j, t] + backward[j + 1][after]
                for t, after in _after(state, counts)
                if after in backward[j + 1]
            ]
            if terms:
                backward[j][state] = np.logaddexp.reduce(terms, axis=0)
    total = forward[tiles][tuple(counts)]
    arrangements = forward_count(counts)
    marginal = np.zeros(logs.shape)
    for j in range(tiles):
        for state, before in forward[j].items():
            for t, after in _after(state, counts):
                if after in backward[j + 1]:
                    marginal[:, j, t] += np.exp(before + logs[:, j, t] + backward[j + 1][after] - total)
    return total - np.log(arrangements), marginal


def forward_count(counts: tuple[int, ...]) -> float:
    """Return the number of distinct arrangements of the contents (a multinomial coefficient)."""
    result, used = 1, 0
    for count in counts:
        for i in range(1, count + 1):
            used += 1
            result = result * used // i
    return float(result)


def _after(state: tuple[int, ...], counts: tuple[int, ...]):
    for t, (used, allowed) in enumerate(zip(state, counts, strict=True)):
        if used < allowed:
            yield t, (*state[:t], used + 1, *state[t + 1 :])


def _step(states: dict, logs: np.ndarray, counts: tuple[int, ...]) -> dict:
    terms: dict[tuple, list] = {}
    for state, value in states.items():
        for t, after in _after(state, counts):
            terms.setdefault(after, []).append(value + logs[:, t])
    return {state: np.logaddexp.reduce(values, axis=0) for state, values in terms.items()}


# --- The shapes that scenes are made of: finite families of templates, so that a posterior over shape and
# place can be summed exactly.

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
    """T templates on one tile, each cut to its bounding box, which is placed at a uniformly drawn corner so
    that it lies inside the tile.

    ``appearance[t]`` is the noise-free intensity at unit contrast; ``rank[t]`` orders the pixels from the
    inside out (the n first are the object); ``probability[t]`` is p(label = 1 | template, place) per pixel;
    ``size[t]`` the expected area; ``weight[t]`` the prior.
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
        """Return one label drawn for template ``t``; ``uniform`` drives the shift of the whole boundary,
        ``rng`` the pixels of the rim.
        """
        rank, area = self.rank[t], self.nominal[t]
        if self.outline.boundary_shift:
            scale = max(
                0.0, 1 + self.outline.boundary_shift * ndtri(ndtr(-CUT) + uniform * (1 - 2 * ndtr(-CUT)))
            )
            return rank + 0.5 <= area * scale**self.growth
        if self.outline.rim:
            return rng.random(rank.shape) < self.probability[t]
        return rank < area


def sizes(mean: float, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whole areas and their probabilities: log-uniform over a factor ``ratio``, with mean ``mean`` to
    within a percent.

    A single area that rounding would change by more than a percent becomes a mixture of the two whole areas
    around it."""
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
    """Return the templates of one kind of object with mean area ``mean`` on a tile; raises UserError when
    they do not fit.
    """
    areas, chances = sizes(mean, ratio)
    distances = {"blob": _blob_distances, "vessel": _vessel_distances}[shape]
    found: dict[str, list] = {
        "appearance": [],
        "rank": [],
        "probability": [],
        "nominal": [],
        "size": [],
        "weight": [],
    }
    for area, chance in zip(areas, chances, strict=True):
        variants, growth = distances(tile, float(area), outline.spread(len(tile)), few=len(areas) > 2)
        for distance, radius in variants:
            template = _template(distance, radius, int(area), outline, growth, shape, tile)
            for key, value in zip(found, (*template, chance / len(variants)), strict=True):
                found[key].append(value)
    numbers = {key: np.asarray(found.pop(key)) for key in ("nominal", "size", "weight")}
    return Family(tile=tile, outline=outline, growth=growth, **found, **numbers)


def _template(distance, radius, area, outline, growth, shape, tile):
    """Return appearance, rank, p(label), nominal area and expected area of one template, cut to its bounding
    box.
    """
    order = np.argsort(distance, axis=None, kind="stable")
    rank = np.empty(distance.size, np.int32)
    rank[order] = np.arange(distance.size, dtype=np.int32)
    rank = rank.reshape(distance.shape)
    per_pixel = (
        area ** (1 / growth) / radius
    )  # so that radius_of(n) is the distance at which n pixels lie inside
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
            f"scenes: a {shape} of {area} pixels with its edge needs {needed} pixels, but its tile "
            f"has {there}; "
            "lower 'foreground' (or 'size_ratio', 'boundary_shift', 'rim') or raise 'size'"
        )
    return appearance[box].astype(np.float32), rank[box], probability[box], nominal, probability.sum()


def shift_probability(rank: np.ndarray, nominal: float, sigma: float, growth: int) -> np.ndarray:
    """Return p(label = 1) by rank when the boundary's scale is 1 + sigma e with e a normal truncated at 3:
    p(nominal scale^growth >= rank + 1/2).
    """
    needed = (((rank + 0.5) / nominal) ** (1 / growth) - 1) / sigma
    tail = ndtr(-CUT)
    return np.clip((ndtr(-needed) - tail) / (1 - 2 * tail), 0, 1)


def _unbiased_area(ranks: np.ndarray, area: float, sigma: float, growth: int) -> float:
    """Return the nominal area whose expected area after the shift is ``area`` (as far as the canvas reaches)."""
    low, high = area * 0.3, area * 1.2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if shift_probability(ranks, middle, sigma, growth).sum() < area else (low, middle)
        )
    return (low + high) / 2


def _grid(tile: tuple[int, ...], centre: tuple[float, ...]) -> list[np.ndarray]:
    """Return coordinates on a canvas a little larger than the tile (so that what is too large is noticed)
    around a fixed sub-pixel centre.
    """
    reach = [t // 2 + 5 for t in tile]
    return np.meshgrid(
        *(np.arange(-r, r) - c for r, c in zip(reach, centre, strict=True)), indexing="ij", sparse=True
    )


def _blob_distances(tile, area: float, spread: float, few: bool):
    """Return (distance, radius) of a ball and of ellipsoids of the same volume, less elongated where room is
    scarce.
    """
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
    """Return (distance from the centre line, half-width) of bent lines in 2-D and of straight tubes in 3-D,
    at least three times as long as wide.
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
        raise UserError(
            f"scenes: a vessel of {area:.0f} pixels is not elongated in {there}; lower 'foreground' "
            "or raise 'size'"
        )
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
            across = (
                grid[1] * direction[0]
                - grid[0] * direction[1]
                - bend * 0.8 * along**2 / length
                + bend * 0.1 * length
            )
        else:
            across = np.sqrt(np.maximum(sum(g * g for g in grid) - along**2, 0))
        found.append((np.hypot(across, np.maximum(np.abs(along) - length / 2 + half * 0.5, 0)), half))
    return found, dims - 1


# --- Drawing one part of the split of template scenes: contents of the tiles, places, labels, noise, and
# the posterior that follows.


def disturb(masks, posterior, expected, share: float, rng: np.random.Generator):
    """Erase a share of the foreground labels and set as many in the background at random; the posterior
    follows by the same matrix.
    """
    gain = share * expected[1:] / expected[0]  # p(background pixel gets class k)
    uniform = rng.random(masks.shape, np.float32)
    added = np.searchsorted(np.cumsum(gain), uniform, side="right") + 1
    noisy = np.where(
        masks > 0, np.where(uniform < share, 0, masks), np.where(added <= len(gain), added, 0)
    ).astype(np.uint8)
    if posterior is not None:
        extra = posterior[:, :1] * gain.astype(np.float32).reshape(1, -1, *[1] * (masks.ndim - 1))
        foreground = posterior[:, 1:] * np.float32(1 - share) + extra
        posterior = np.concatenate([1 - foreground.sum(1, keepdims=True), foreground], 1)
    return noisy, posterior
