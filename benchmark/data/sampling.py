"""Drawing one part of the split of template scenes: contents of the tiles, places, labels, noise, and the posterior
that follows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmark.data.posterior import assignment, evidence
from benchmark.data.shapes import Family, Outline, family
from benchmark.seeds import stream


def draw(scene, part: str, count: int, seed: int):
    """Return images (n, *S) float32, masks (n, *S) uint8, posterior (n, K, *S) float32 and the expected class
    fractions (K,) of one part.
    """
    kinds, grid, tile = _kinds(scene, part)
    full, bare = _contents(scene, int(np.prod(grid)))
    share = scene.empty_test if part == "test" else scene.empty
    geometry, labels, noise = (stream("scenes", f"{part}/{what}", seed) for what in ("geometry", "labels", "noise"))

    empties = round(share * count)
    is_empty = geometry.permutation(count) < empties
    slots = geometry.random((count, sum(full))).argsort(axis=1)
    kind_of = np.where(is_empty[:, None], np.repeat(np.arange(len(bare)), bare)[slots], np.repeat(np.arange(len(full)), full)[slots])
    which, shifts = (_stratified(kind_of, geometry) for _ in range(2))
    places = geometry.random((*kind_of.shape, scene.dims))

    images = noise.standard_normal((count, *(scene.size,) * scene.dims), np.float32) * np.float32(scene.noise)
    masks = np.zeros(images.shape, np.uint8)
    image_tiles, mask_tiles = (_tiled(array, grid, tile) for array in (images, masks))  # views: writing to them fills the images
    for n, j in np.argwhere(kind_of < len(kinds)):
        class_id, level, objects = kinds[kind_of[n, j]]
        t = int(np.searchsorted(np.cumsum(objects.weight)[:-1], which[n, j], side="right"))
        corner = (places[n, j] * objects.room(t)).astype(int)
        box = tuple(slice(c, c + s) for c, s in zip(corner, objects.appearance[t].shape, strict=True))
        at = (n, *np.unravel_index(j, grid))
        image_tiles[at][box] += np.float32(level) * objects.appearance[t]
        label = objects.draw_label(t, shifts[n, j], labels)
        if class_id:
            mask_tiles[at][box][label] = class_id

    posterior = _posterior(scene, image_tiles.reshape(-1, *tile), kinds, full, bare, empties / count, grid, count)
    expected = _expected(scene, kinds, empties / count)
    if scene.label_noise and part != "test":
        masks, posterior = disturb(masks, posterior, expected, scene.label_noise, labels)
    return images, masks, posterior, expected


def _stratified(kind_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a uniform number for each tile, spread evenly over the tiles of a kind, so that realised sizes keep close
    to their expectation.
    """
    uniform = np.empty(kind_of.shape)
    for kind in np.unique(kind_of):
        here = kind_of == kind
        number = np.count_nonzero(here)
        uniform[here] = (rng.permutation(number) + rng.random(number)) / number
    return uniform


def disturb(masks, posterior, expected, share: float, rng: np.random.Generator):
    """Erase a share of the foreground labels and set as many in the background at random; the posterior follows by the
    same matrix.
    """
    gain = share * expected[1:] / expected[0]  # p(background pixel gets class k)
    uniform = rng.random(masks.shape, np.float32)
    added = np.searchsorted(np.cumsum(gain), uniform, side="right") + 1
    noisy = np.where(masks > 0, np.where(uniform < share, 0, masks), np.where(added <= len(gain), added, 0)).astype(np.uint8)
    if posterior is not None:
        extra = posterior[:, :1] * gain.astype(np.float32).reshape(1, -1, *[1] * (masks.ndim - 1))
        foreground = posterior[:, 1:] * np.float32(1 - share) + extra
        posterior = np.concatenate([1 - foreground.sum(1, keepdims=True), foreground], 1)
    return noisy, posterior


def _kinds(scene, part: str):
    """Return (class id, level, family) of every kind of object, the grid of tiles and the tile's shape."""
    needed = scene.objects * (scene.classes - 1) + scene.distractors
    grid = [1] * scene.dims
    while np.prod(grid) < needed:
        axis = int(np.argmin(grid))
        grid[axis] *= 2
    tile = tuple(scene.size // g for g in grid)
    outline = Outline(scene.rim, scene.rim_probability, scene.boundary_shift, scene.softness)
    scale = scene.size_shift if part == "test" else 1.0
    areas = scene.foreground * scene.pixels / scene.objects * scene.shares() * scale
    make = lru_cache(maxsize=None)(lambda area: family(scene.shape, tile, area, scene.size_ratio, outline))
    kinds: list[tuple[int, float, Family]] = [(k + 1, level, make(a)) for k, (level, a) in enumerate(zip(scene.levels(), areas, strict=True))]
    if scene.distractors:
        kinds.append((0, 0.5 * scene.contrast, make(areas[0])))
    return kinds, tuple(grid), tile


def _contents(scene, tiles: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many tiles hold each kind and, last, nothing: in an image with objects, and in one without."""
    objects = (scene.objects,) * (scene.classes - 1)
    distractors = (scene.distractors,) if scene.distractors else ()
    rest = tiles - sum(objects) - scene.distractors
    return (*objects, *distractors, rest), (*(0,) * len(objects), *distractors, rest + sum(objects))


def _tiled(array: np.ndarray, grid, tile) -> np.ndarray:
    """Return (n, *grid, *tile) as a view of (n, *S)."""
    split = array.reshape(len(array), *(x for pair in zip(grid, tile, strict=True) for x in pair))
    axes = range(1, split.ndim)
    return split.transpose(0, *axes[0::2], *axes[1::2])


def _posterior(scene, tiles, kinds, full, bare, share, grid, count) -> np.ndarray:
    found = [evidence(tiles, objects, level, scene.noise) for _, level, objects in kinds]
    logs = np.stack([*(f[0].reshape(count, -1) for f in found), np.zeros((count, len(tiles) // count))], axis=-1)
    total, holds = assignment(logs, full)
    if share > 0:
        other, bare_holds = assignment(logs, bare)
        with np.errstate(divide="ignore"):
            present = 1 / (1 + np.exp(np.clip(np.log(share) + other - np.log1p(-share) - total, -700, 700)))
        holds = present[:, None, None] * holds + (1 - present)[:, None, None] * bare_holds
    posterior = np.empty((count, scene.classes, *(scene.size,) * scene.dims), np.float32)
    for t, (class_id, _, _) in enumerate(kinds):
        if class_id:
            view = _tiled(posterior[:, class_id], grid, tiles.shape[1:])
            view[...] = (holds[:, :, t].reshape(-1, *[1] * scene.dims) * found[t][1]).reshape(view.shape)
    posterior[:, 0] = np.clip(1 - posterior[:, 1:].sum(1), 0, 1)
    return posterior


def _expected(scene, kinds, empty: float) -> np.ndarray:
    fractions = np.zeros(scene.classes)
    for class_id, _, objects in kinds:
        if class_id:
            fractions[class_id] = (1 - empty) * scene.objects * float(objects.weight @ objects.size) / scene.pixels
    fractions[0] = 1 - fractions.sum()
    return fractions
