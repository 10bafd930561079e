"""Scenes of irregular regions: level sets of smooth random fields, with an exact area in each image."""

from __future__ import annotations

import numpy as np
from scipy import fft

from lossbench.base.errors import UserError
from lossbench.data.posterior import disturb
from lossbench.data.templates import sizes


def draw(scene, part: str, count: int, streams):
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
