"""Synthetic scenes whose truth is known: every factor of the study is a parameter, and most carry the exact
posterior of each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy import fft

from lossbench.base.errors import UserError
from lossbench.base.seeds import stream
from lossbench.base.specs import canonical, without_seed
from lossbench.catalogue.registry import dataset
from lossbench.data.container import SPLITS, Data, class_names, container
from lossbench.data.posterior import assignment, disturb, evidence
from lossbench.data.shapes import Family, Outline, family, sizes

# What each number may be. Bounds are wide: they keep out mistakes, not experiments.
RANGES = {
    "foreground": (1e-6, 0.6),
    "noise": (1e-3, 1e3),
    "contrast": (1e-3, 1e3),
    "softness": (0, 50),
    "objects": (1, 64),
    "size_ratio": (1, 1000),
    "size_shift": (0.01, 100),
    "distractors": (0, 64),
    "rim": (0, 1),
    "rim_probability": (0.01, 0.99),
    "boundary_shift": (0, 0.5),
    "label_noise": (0, 0.9),
    "empty": (0, 1),
    "empty_test": (0, 1),
    "classes": (2, 32),
    "class_ratio": (1, 1000),
    "dims": (2, 3),
    "size": (16, 1024),
    "n_train": (1, 10**6),
    "n_val": (1, 10**6),
    "n_test": (1, 10**6),
}

ONLY_TEMPLATES = {
    "rim": 0,
    "boundary_shift": 0,
    "objects": 1,
}  # what 'field' cannot have, and its plain value


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

    def empty_share(self, part: str) -> float:
        return self.empty_test if part == "test" else self.empty

    def shares(self) -> np.ndarray:
        """Return each foreground class's share of the foreground: a geometric series from common to rare."""
        series = np.geomspace(1, 1 / self.class_ratio, self.classes - 1)
        return series / series.sum()

    def levels(self) -> np.ndarray:
        """Return the noise-free intensity of each foreground class: c, -c, 2c, -2c, ... (background: 0)."""
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
    - ``distractors``: objects of half the contrast that are background;
    - ``label_noise``: share of foreground labels of train and validation that are erased, as many being set
      at random in the background, so that the expected fraction stays; test labels are clean;
    - ``dims``, ``size``: axes of an image and pixels along each; ``n_train``, ``n_val``, ``n_test``: images.
    """
    given = without_seed(locals())
    scene, spec = _checked(given), canonical(scenes, given)
    # More images add to fewer, and noisy labels stand on the same images as clean ones.
    level = canonical(scenes, {key: value for key, value in given.items() if key not in NO_LEVEL})
    # Both return the same four things of one part of the split.
    draw = _draw_regions if scene.shape == "field" else _draw
    parts = [
        draw(scene, part, count, _streams(level, part, seed))
        for part, count in zip(SPLITS, scene.counts, strict=True)
    ]
    images, masks, posteriors, expected = zip(*parts, strict=True)
    ends = np.cumsum((0, *scene.counts))
    exact = "p(class | image), exact for the generative process of the image's own part"
    return container(
        name=spec,
        images=np.concatenate(images)[:, None],
        masks=np.concatenate(masks),
        split={part: np.arange(ends[i], ends[i + 1]) for i, part in enumerate(SPLITS)},
        classes=class_names(classes),
        posterior=None if posteriors[0] is None else np.concatenate(posteriors),
        card={**UNLIMITED, "source": "generated from (name, parameters, seed)"},
        truth={
            "expected": {part: fractions.tolist() for part, fractions in zip(SPLITS, expected, strict=True)},
            "posterior": None if posteriors[0] is None else exact,
        },
    )


NO_LEVEL = ("n_train", "n_val", "n_test", "label_noise")  # parameters that no random stream knows

UNLIMITED = {"licence": "generated, no rights attached", "citation": "", "url": ""}


def _streams(level: str, part: str, seed: int) -> list[np.random.Generator]:
    """Return the random streams of geometry, labels and noise of one part of the split.

    They depend on the data set's name and level, so that the levels of a ladder are independent.
    """
    return [stream("scenes", f"{level}/{part}/{what}", seed) for what in ("geometry", "labels", "noise")]


def _checked(given: dict[str, Any]) -> Scene:
    """Return the scene, or raise UserError for the first parameter out of range or at odds with another."""
    # None stands for "as in training"; from here on there is a number.
    given = {**given, "empty_test": given["empty"] if given["empty_test"] is None else given["empty_test"]}
    for key, (low, high) in RANGES.items():
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UserError(f"scenes: '{key}' must lie between {low:g} and {high:g}, got {value!r}")
    if given["size"] % 4:
        raise UserError(f"scenes: 'size' must be divisible by 4, got {given['size']}")
    if given["rim"] and given["boundary_shift"]:
        raise UserError("scenes: choose one kind of uncertain boundary, 'rim' or 'boundary_shift', not both")
    if given["shape"] == "field":
        for key, plain in ONLY_TEMPLATES.items():
            if given[key] != plain:
                raise UserError(f"scenes: '{key}' needs shape 'blob' or 'vessel', not 'field'")
    elif given["shape"] not in ("blob", "vessel"):
        raise UserError(f"scenes: 'shape' must be one of 'blob', 'vessel', 'field', got {given['shape']!r}")
    elif given["proportions"] == "varying":
        raise UserError("scenes: proportions='varying' needs shape='field', whose regions can take any share")
    counts = tuple(given.pop(f"n_{part}") for part in SPLITS)
    return Scene(**given, counts=counts)


# --- Scenes of templates: contents of the tiles, places, labels, noise, and the posterior that follows.


@dataclass(frozen=True)
class Kind:
    """One kind of object: what it is labelled as (0: a distractor), its intensity, its templates."""

    class_id: int
    level: float
    objects: Family


def _draw(scene: Scene, part: str, count: int, streams):
    """Return images (n, *S), masks (n, *S) uint8, posterior (n, K, *S), expected class fractions (K,)."""
    geometry, labels, noise = streams
    # What can be drawn, then what is drawn where, then the drawing itself.
    kinds, grid, tile = _kinds(scene, part)
    full, bare = _contents(scene, int(np.prod(grid)))
    # Exact rather than drawn for each image: the share of empty images is a factor of the study.
    empties = round(scene.empty_share(part) * count)
    is_empty = geometry.permutation(count) < empties
    # A random arrangement: sorting random numbers shuffles the tiles of every image at once.
    slots = geometry.random((count, sum(full))).argsort(axis=1)
    with_objects, without = (np.repeat(np.arange(len(numbers)), numbers)[slots] for numbers in (full, bare))
    kind_of = np.where(is_empty[:, None], without, with_objects)
    which, shifts = (_stratified(kind_of, geometry) for _ in range(2))
    places = geometry.random((*kind_of.shape, scene.dims))

    images = noise.standard_normal((count, *(scene.size,) * scene.dims), np.float32) * np.float32(scene.noise)
    masks = np.zeros(images.shape, np.uint8)
    # Views: writing to a tile fills its image.
    image_tiles, mask_tiles = (_tiled(array, grid, tile) for array in (images, masks))
    # kind_of counts "nothing" as one more kind, the last.
    for n, j in np.argwhere(kind_of < len(kinds)):
        kind = kinds[kind_of[n, j]]
        t = int(np.searchsorted(np.cumsum(kind.objects.weight)[:-1], which[n, j], side="right"))
        # Every place at which the template lies inside its tile is equally likely.
        corner = (places[n, j] * kind.objects.room(t)).astype(int)
        extent = kind.objects.appearance[t].shape
        box = tuple(slice(c, c + s) for c, s in zip(corner, extent, strict=True))
        at = (n, *np.unravel_index(j, grid))
        image_tiles[at][box] += np.float32(kind.level) * kind.objects.appearance[t]
        label = kind.objects.draw_label(t, shifts[n, j], labels)
        if kind.class_id:  # a distractor is seen and not labelled
            mask_tiles[at][box][label] = kind.class_id

    tiles = image_tiles.reshape(-1, *tile)
    posterior = _posterior(scene, tiles, kinds, full, bare, empties / count, grid, count)
    expected = _expected(scene, kinds, empties / count)
    # Test labels are clean: a network is judged by the truth, however it was taught.
    if scene.label_noise and part != "test":
        masks, posterior = disturb(masks, posterior, expected, scene.label_noise, labels)
    return images, masks, posterior, expected


def _stratified(kind_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a uniform number for each tile, spread evenly over the tiles of a kind.

    So realised sizes keep close to their expectation.
    """
    uniform = np.empty(kind_of.shape)
    for kind in np.unique(kind_of):
        here = kind_of == kind
        number = np.count_nonzero(here)
        uniform[here] = (rng.permutation(number) + rng.random(number)) / number
    return uniform


def _kinds(scene: Scene, part: str) -> tuple[list[Kind], tuple[int, ...], tuple[int, ...]]:
    """Return every kind of object, the grid of tiles (powers of two) and the tile's shape."""
    needed = scene.objects * (scene.classes - 1) + scene.distractors
    grid = [1] * scene.dims  # powers of two, by which most image sizes can be divided
    while np.prod(grid) < needed:
        grid[int(np.argmin(grid))] *= 2
    if scene.size % max(grid):
        tiles = "x".join(map(str, grid))
        raise UserError(
            f"scenes: {needed} objects need {tiles} tiles; 'size' must be divisible by {max(grid)}"
        )
    tile = tuple(scene.size // g for g in grid)
    # All kinds share one outline, so that classes differ in level and size alone.
    outline = Outline(scene.rim, scene.rim_probability, scene.boundary_shift, scene.softness)
    # Only the test moves: the posterior of its images knows the shift, a network does not.
    scale = scene.size_shift if part == "test" else 1.0
    areas = scene.foreground * scene.pixels / scene.objects * scene.shares() * scale
    # Classes of one area share their templates.
    make = lru_cache(maxsize=None)(lambda area: family(scene.shape, tile, area, scene.size_ratio, outline))
    levels = zip(scene.levels(), areas, strict=True)
    kinds = [Kind(k, level, make(area)) for k, (level, area) in enumerate(levels, 1)]
    if scene.distractors:
        # As large as the first class and half as bright: only brightness sets it apart.
        kinds.append(Kind(0, 0.5 * scene.contrast, make(areas[0])))
    return kinds, tuple(grid), tile


def _contents(scene: Scene, tiles: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many tiles hold each kind and, last, nothing, in images with and without objects."""
    objects = (scene.objects,) * (scene.classes - 1)
    distractors = (scene.distractors,) if scene.distractors else ()
    rest = tiles - sum(objects) - scene.distractors
    return (*objects, *distractors, rest), (*(0,) * len(objects), *distractors, rest + sum(objects))


def _tiled(array: np.ndarray, grid, tile) -> np.ndarray:
    """Return (n, *grid, *tile) as a view of (n, *S)."""
    split = array.reshape(len(array), *(x for pair in zip(grid, tile, strict=True) for x in pair))
    axes = range(1, split.ndim)
    return split.transpose(0, *axes[0::2], *axes[1::2])


def _posterior(scene: Scene, tiles, kinds, full, bare, empty: float, grid, count: int) -> np.ndarray:
    """Return p(class | image) (n, K, *S): what each tile shows, weighted by what it probably holds."""
    shown = [evidence(tiles, kind.objects, kind.level, scene.noise) for kind in kinds]
    nothing = np.zeros((count, len(tiles) // count))
    logs = np.stack([*(log.reshape(count, -1) for log, _ in shown), nothing], axis=-1)
    total, holds = assignment(logs, full)
    if empty > 0:
        # Weigh "the image has objects" against "it is empty", by Bayes' rule on the log scale.
        other, bare_holds = assignment(logs, bare)
        with np.errstate(divide="ignore"):
            odds = np.log(empty) + other - np.log1p(-empty) - total
        present = 1 / (1 + np.exp(np.clip(odds, -700, 700)))
        holds = present[:, None, None] * holds + (1 - present)[:, None, None] * bare_holds
    posterior = np.empty((count, scene.classes, *(scene.size,) * scene.dims), np.float32)
    for t, kind in enumerate(kinds):
        if kind.class_id:
            view = _tiled(posterior[:, kind.class_id], grid, tiles.shape[1:])
            held = holds[:, :, t].reshape(-1, *[1] * scene.dims)
            view[...] = (held * shown[t][1]).reshape(view.shape)
    # Rounding may take the sum of the others a little above one.
    posterior[:, 0] = np.clip(1 - posterior[:, 1:].sum(1), 0, 1)
    return posterior


def _expected(scene: Scene, kinds: list[Kind], empty: float) -> np.ndarray:
    """Return the expected fraction of each class."""
    fractions = np.zeros(scene.classes)
    for kind in kinds:
        if kind.class_id:
            area = scene.objects * float(kind.objects.weight @ kind.objects.size)
            fractions[kind.class_id] = (1 - empty) * area / scene.pixels
    fractions[0] = 1 - fractions.sum()
    return fractions


# --- irregular regions: level sets of smooth random fields, with an exact area in each image


def _draw_regions(scene, part: str, count: int, streams):
    """Return images, masks, None (the sum over fields has no closed form) and expected class fractions.

    Class after class takes the pixels where its own random field is highest among those still free, exactly
    as many as its share says. A distractor region, of the mean area of a class, comes last, looks half as
    bright as the first class and is background.
    """
    geometry, labels, noise = streams
    empties = round(scene.empty_share(part) * count)
    is_empty = geometry.permutation(count) < empties
    mean = scene.foreground * scene.pixels * (scene.size_shift if part == "test" else 1.0)
    areas, chances = sizes(mean, scene.size_ratio)
    if areas[-1] > 0.95 * scene.pixels:
        region = f"a region of {areas[-1]} of {scene.pixels} pixels leaves no background"
        raise UserError(f"scenes: {region}; lower 'foreground' or 'size_ratio'")
    # An empty image draws its area all the same, so that emptiness moves no other draw.
    area = geometry.choice(areas, count, p=chances) * ~is_empty
    shares, weights = np.tile(scene.shares(), (count, 1)), scene.shares()
    if scene.proportions == "varying":
        shares = geometry.dirichlet(np.ones(scene.classes - 1), count)
        weights = np.full(scene.classes - 1, 1 / (scene.classes - 1))
    wanted = _whole_parts(shares, area)
    other = np.full((count, scene.distractors), max(1, round(mean / (scene.classes - 1))))

    clean, masks = _regions(scene, np.hstack([wanted, other]), geometry)
    # A ramp as wide as ``softness`` pixels, about: two standard deviations.
    images = _smooth(clean, scene.softness / 2) if scene.softness else clean
    images = images + np.float32(scene.noise) * noise.standard_normal(images.shape, np.float32)
    expected = np.zeros(scene.classes)
    expected[1:] = weights * float(areas @ chances) / scene.pixels * (1 - empties / count)
    expected[0] = 1 - expected.sum()
    if scene.label_noise and part != "test":
        masks, _ = disturb(masks, None, expected, scene.label_noise, labels)
    return images.astype(np.float32), masks, None, expected


def _whole_parts(shares: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Return pixels (images, classes) that sum to each image's area exactly."""
    # Rounding bounds rather than parts: the parts then sum to the whole.
    bounds = np.cumsum(np.c_[np.zeros(len(area)), shares], axis=1) * area[:, None]
    return np.diff(np.round(bounds).astype(int), axis=1)


def _regions(scene, wanted: np.ndarray, geometry: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities without noise and masks; ``wanted`` (images, classes and distractors) in pixels."""
    count = len(wanted)
    space = (scene.size,) * scene.dims
    clean = np.zeros((count, scene.pixels), np.float32)
    masks = np.zeros((count, scene.pixels), np.uint8)
    for k, level in enumerate([*scene.levels(), *[0.5 * scene.contrast] * scene.distractors]):
        # A tenth of the image is the size of a bump; its level set is a region with a natural outline.
        field = geometry.standard_normal((count, *space), np.float32)
        height = _smooth(field, scene.size / 10).reshape(count, -1)
        height[clean != 0] = -np.inf  # taken by an earlier class
        order = np.argsort(-height, axis=1, kind="stable")
        for n in range(count):
            region = order[n, : wanted[n, k]]
            clean[n, region] = level
            if k < scene.classes - 1:
                masks[n, region] = k + 1
    return clean.reshape(count, *space), masks.reshape(count, *space)


def _smooth(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return the images convolved (periodically) with a Gaussian of ``sigma`` pixels."""
    axes = tuple(range(1, images.ndim))
    shape = images.shape[1:]
    frequencies = [fft.fftfreq(s) for s in shape[:-1]] + [fft.rfftfreq(shape[-1])]
    square = sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij", sparse=True))
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * square).astype(np.float32)
    return fft.irfftn(fft.rfftn(images, axes=axes) * kernel, shape, axes=axes)
