"""Scenes of irregular regions: level sets of smooth random fields, whose area in each image is set to the
pixel.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from lossbench.base.errors import UserError
from lossbench.base.seeds import stream
from lossbench.data.posterior import disturb, sizes


def draw(scene, part: str, count: int, seed: int):
    """Return images, masks, None (no posterior: the sum over fields has no closed form) and expected class
    fractions of one part.

    Class after class takes the pixels where its own random field is highest among those still free, exactly
    as many as its share says; a distractor region, of the mean area of a class, comes last, looks half as
    bright as the first class and is background.
    """
    geometry, labels, noise = (
        stream("scenes", f"{part}/{what}", seed) for what in ("geometry", "labels", "noise")
    )
    share = scene.empty_test if part == "test" else scene.empty
    empties = round(share * count)
    is_empty = geometry.permutation(count) < empties
    mean = scene.foreground * scene.pixels * (scene.size_shift if part == "test" else 1.0)
    areas, chances = sizes(mean, scene.size_ratio)
    if areas[-1] > 0.95 * scene.pixels:
        region = f"{areas[-1]} of {scene.pixels} pixels"
        raise UserError(
            f"scenes: a region of {region} leaves no background; lower 'foreground' or 'size_ratio'"
        )
    area = geometry.choice(areas, count, p=chances) * ~is_empty
    shares = np.tile(scene.shares(), (count, 1))
    if scene.proportions == "varying":
        shares = geometry.dirichlet(np.ones(scene.classes - 1), count)
    bounds = np.round(np.cumsum(np.c_[np.zeros(count), shares], axis=1) * area[:, None]).astype(int)
    wanted = np.diff(bounds, axis=1)

    space = (scene.size,) * scene.dims
    masks = np.zeros((count, scene.pixels), np.uint8)
    clean = np.zeros((count, scene.pixels), np.float32)
    for k, level in enumerate([*scene.levels(), *[0.5 * scene.contrast] * scene.distractors]):
        height = _smooth(geometry.standard_normal((count, *space), np.float32), scene.size / 10).reshape(
            count, -1
        )
        height[clean != 0] = -np.inf
        order = np.argsort(-height, axis=1, kind="stable")
        number = (
            wanted[:, k]
            if k < scene.classes - 1
            else np.full(count, max(1, round(mean / (scene.classes - 1))))
        )
        for n in range(count):
            at = order[n, : number[n]]
            clean[n, at] = level
            if k < scene.classes - 1:
                masks[n, at] = k + 1
    images = (
        _smooth(clean.reshape(count, *space), scene.softness / 2)
        if scene.softness
        else clean.reshape(count, *space)
    )
    images = images + np.float32(scene.noise) * noise.standard_normal(images.shape, np.float32)
    masks = masks.reshape(count, *space)
    expected = np.zeros(scene.classes)
    weights = (
        np.full(scene.classes - 1, 1 / (scene.classes - 1))
        if scene.proportions == "varying"
        else scene.shares()
    )
    expected[1:] = weights * float(areas @ chances) / scene.pixels * (1 - empties / count)
    expected[0] = 1 - expected.sum()
    if scene.label_noise and part != "test":
        masks, _ = disturb(masks, None, expected, scene.label_noise, labels)
    return images.astype(np.float32), masks, None, expected


def _smooth(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return the images convolved (periodically) with a Gaussian of ``sigma`` pixels."""
    axes = tuple(range(1, images.ndim))
    shape = images.shape[1:]
    frequencies = [fft.fftfreq(s) for s in shape[:-1]] + [fft.rfftfreq(shape[-1])]
    square = sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij", sparse=True))
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * square).astype(np.float32)
    return fft.irfftn(fft.rfftn(images, axes=axes) * kernel, shape, axes=axes)
