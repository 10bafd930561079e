"""Synthetic scenes whose truth is known: every factor of the study is a parameter, and most carry the exact
posterior of each pixel.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from lossbench.base import specs
from lossbench.base.errors import UserError
from lossbench.base.seeds import stream
from lossbench.catalogue.registry import dataset
from lossbench.data import irregular
from lossbench.data.container import SPLITS, Data, container
from lossbench.data.posterior import Family, Outline, assignment, disturb, evidence, family

RANGES = {
    "foreground": (1e-6, 0.6), "noise": (1e-3, 1e3), "contrast": (1e-3, 1e3), "softness": (0, 50),
    "objects": (1, 64), "size_ratio": (1, 1000), "size_shift": (0.01, 100), "distractors": (0, 64),
    "rim": (0, 1), "rim_probability": (0.01, 0.99), "boundary_shift": (0, 0.5), "label_noise": (0, 0.9),
    "empty": (0, 1), "empty_test": (0, 1), "classes": (2, 32), "class_ratio": (1, 1000),
    "dims": (2, 3), "size": (16, 1024), "n_train": (1, 10**6), "n_val": (1, 10**6), "n_test": (1, 10**6),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The checked parameters of ``scenes``; see there for their meaning."""

    foreground: float
    noise: float
    contrast: float
    shape: str
    objects: int
    size_ratio: float
    size_shift: float
    softness: float
    rim: float
    rim_probability: float
    boundary_shift: float
    empty: float
    empty_test: float
    classes: int
    class_ratio: float
    proportions: str
    distractors: int
    label_noise: float
    dims: int
    size: int
    counts: tuple[int, int, int]

    @property
    def pixels(self) -> int:
        return self.size**self.dims

    def shares(self) -> np.ndarray:
        """Return the share of each foreground class in the foreground: a geometric series from common to
        rare.
        """
        series = np.geomspace(1, 1 / self.class_ratio, self.classes - 1)
        return series / series.sum()

    def levels(self) -> np.ndarray:
        """Return the noise-free intensity of each foreground class: c, -c, 2c, -2c, ...; the background is 0."""
        k = np.arange(self.classes - 1)
        return self.contrast * (k // 2 + 1) * np.where(k % 2, -1, 1)


@dataset("scenes", version=1, family="synthetic", cite="this suite", objective="imbalance with known truth")
def scenes(
    *,
    seed,
    foreground: float = 0.01,
    noise: float = 0.6,
    contrast: float = 1.0,
    shape: Literal["blob", "vessel", "field"] = "blob",
    objects: int = 1,
    size_ratio: float = 1.0,
    size_shift: float = 1.0,
    softness: float = 2.0,
    rim: float = 0.0,
    rim_probability: float = 0.4,
    boundary_shift: float = 0.0,
    empty: float = 0.0,
    empty_test: float | None = None,
    classes: int = 2,
    class_ratio: float = 1.0,
    proportions: Literal["fixed", "varying"] = "fixed",
    distractors: int = 0,
    label_noise: float = 0.0,
    dims: int = 2,
    size: int = 64,
    n_train: int = 200,
    n_val: int = 50,
    n_test: int = 100,
) -> Data:
    """Return scenes of objects at random places under white Gaussian noise, in 2-D or 3-D.

    The model, in the order of drawing: an image is empty with the given share; its tiles (one, unless there
    are several objects) hold objects, distractors or nothing in random arrangement; each object takes a
    template (shape, size) and a place at random, all inside its tile; the intensity is ``level * appearance +
    noise * N(0, 1)``; the label follows from the geometry alone. ``posterior`` is the exact p(class | whole
    image) of this model, for shapes 'blob' and 'vessel', under the size and emptiness of the image's own part
    of the split.

    - ``foreground``: expected fraction of foreground pixels in an image that is not empty, all foreground
      classes together;
    - ``noise``: standard deviation of the noise; ``contrast``: intensity of the first class over the
    background (0);
    - ``shape``: 'blob' (balls and ellipsoids), 'vessel' (bent lines, tubes), 'field' (level sets of random
      fields; no posterior);
    - ``objects``: objects of each foreground class in an image; ``size_ratio``: largest over smallest object,
      log-uniform (1 = one size);
    - ``size_shift``: factor on the object size (pixels) in the test images; ``softness``: width in pixels of
      the ramp at the edge;
    - ``rim``: share of the expected area that lies in an uncertain rim whose pixels are labelled
      independently with ``rim_probability``;
    - ``boundary_shift``: sigma / radius of a random shift of the whole labelled boundary (normal, cut at 3
      sigma) that the image does not show;
    - ``empty``, ``empty_test``: share of images without object in train and validation, and in test (None: as
      in train);
    - ``classes``: number of classes with the background; ``class_ratio``: pixels of the most common over the
      rarest foreground class; ``proportions``: 'varying' draws the split among foreground classes for each
      image from Dirichlet(1) (shape 'field' only);
    - ``distractors``: objects of half the contrast that are background; ``label_noise``: share of foreground
      labels of train and validation that are erased, as many being set at random in the background, so that
      the expected fraction stays; test labels are clean.
    """
    given = {key: value for key, value in locals().items() if key != "seed"}
    scene = _checked(given)
    draw = irregular.draw if scene.shape == "field" else draw_split
    parts = [draw(scene, part, count, seed) for part, count in zip(SPLITS, scene.counts, strict=True)]
    images, masks = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    posterior = None if parts[0][2] is None else np.concatenate([p[2] for p in parts])
    ends = np.cumsum((0, *scene.counts))
    split = {part: np.arange(ends[i], ends[i + 1]) for i, part in enumerate(SPLITS)}
    names = (
        ("background", "foreground")
        if classes == 2
        else ("background", *(f"class_{k}" for k in range(1, classes)))
    )
    exact = "p(class | image), exact for the generative process of the image's own part"
    truth = {
        "expected": {part: p[3].tolist() for part, p in zip(SPLITS, parts, strict=True)},
        "posterior": None if posterior is None else exact,
    }
    card = {
        "licence": "generated, no rights attached",
        "citation": "",
        "url": "",
        "source": "generated from (name, parameters, seed)",
    }
    return container(
        name=canonical(scenes, given), images=images[:, None], masks=masks, split=split, classes=names,
        posterior=posterior, card=card, truth=truth,
    )  # fmt: skip


def canonical(function, given: dict[str, Any]) -> str:
    """Return the spec string of a builder's call: only what differs from its defaults, sorted."""
    plain = lambda value: list(value) if isinstance(value, tuple) else value  # noqa: E731
    defaults = {key: plain(p.default) for key, p in inspect.signature(function).parameters.items()}
    return specs.render(function.__name__, {key: v for key, v in given.items() if plain(v) != defaults[key]})


def _checked(given: dict[str, Any]) -> Scene:
    """Return the scene, or raise UserError for the first parameter out of range or at odds with another."""
    given = {**given, "empty_test": given["empty"] if given["empty_test"] is None else given["empty_test"]}
    for key, (low, high) in RANGES.items():
        if (
            isinstance(given[key], bool)
            or not isinstance(given[key], int | float)
            or not low <= given[key] <= high
        ):
            raise UserError(f"scenes: '{key}' must lie between {low:g} and {high:g}, got {given[key]!r}")
    if given["size"] % 4:
        raise UserError(f"scenes: 'size' must be divisible by 4, got {given['size']}")
    if given["rim"] and given["boundary_shift"]:
        raise UserError("scenes: choose one kind of uncertain boundary, 'rim' or 'boundary_shift', not both")
    if given["shape"] == "field":
        for key, plain in (("rim", 0), ("boundary_shift", 0), ("objects", 1)):
            if given[key] != plain:
                raise UserError(f"scenes: '{key}' needs shape 'blob' or 'vessel', not 'field'")
    elif given["shape"] not in ("blob", "vessel"):
        raise UserError(f"scenes: 'shape' must be one of 'blob', 'vessel', 'field', got {given['shape']!r}")
    elif given["proportions"] == "varying":
        raise UserError("scenes: proportions='varying' needs shape='field', whose regions can take any share")
    counts = tuple(given.pop(f"n_{part}") for part in SPLITS)
    return Scene(**given, counts=counts)


# --- Drawing one part of the split of template scenes: contents of the tiles, places, labels, noise, and
# the posterior that follows.


def draw_split(scene, part: str, count: int, seed: int):
    """Return images (n, *S) float32, masks (n, *S) uint8, posterior (n, K, *S) float32 and the expected class
    fractions (K,) of one part.
    """
    kinds, grid, tile = _kinds(scene, part)
    full, bare = _contents(scene, int(np.prod(grid)))
    share = scene.empty_test if part == "test" else scene.empty
    geometry, labels, noise = (
        stream("scenes", f"{part}/{what}", seed) for what in ("geometry", "labels", "noise")
    )

    empties = round(share * count)
    is_empty = geometry.permutation(count) < empties
    slots = geometry.random((count, sum(full))).argsort(axis=1)
    kind_of = np.where(
        is_empty[:, None],
        np.repeat(np.arange(len(bare)), bare)[slots],
        np.repeat(np.arange(len(full)), full)[slots],
    )
    which, shifts = (_stratified(kind_of, geometry) for _ in range(2))
    places = geometry.random((*kind_of.shape, scene.dims))

    images = noise.standard_normal((count, *(scene.size,) * scene.dims), np.float32) * np.float32(scene.noise)
    masks = np.zeros(images.shape, np.uint8)
    image_tiles, mask_tiles = (
        _tiled(array, grid, tile) for array in (images, masks)
    )  # views: writing to them fills the images
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

    posterior = _posterior(
        scene, image_tiles.reshape(-1, *tile), kinds, full, bare, empties / count, grid, count
    )
    expected = _expected(scene, kinds, empties / count)
    if scene.label_noise and part != "test":
        masks, posterior = disturb(masks, posterior, expected, scene.label_noise, labels)
    return images, masks, posterior, expected


def _stratified(kind_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a uniform number for each tile, spread evenly over the tiles of a kind, so that realised sizes
    keep close to their expectation.
    """
    uniform = np.empty(kind_of.shape)
    for kind in np.unique(kind_of):
        here = kind_of == kind
        number = np.count_nonzero(here)
        uniform[here] = (rng.permutation(number) + rng.random(number)) / number
    return uniform


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
    kinds: list[tuple[int, float, Family]] = [
        (k + 1, level, make(a)) for k, (level, a) in enumerate(zip(scene.levels(), areas, strict=True))
    ]
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
    logs = np.stack(
        [*(f[0].reshape(count, -1) for f in found), np.zeros((count, len(tiles) // count))], axis=-1
    )
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
            fractions[class_id] = (
                (1 - empty) * scene.objects * float(objects.weight @ objects.size) / scene.pixels
            )
    fractions[0] = 1 - fractions.sum()
    return fractions
