"""Predicting a whole image from overlapping tiles: where they lie, how they are weighted, how they are
joined.

Places and weights are those of MONAI's SlidingWindowInferer in its Gaussian mode, so that scores can be
compared.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

OVERLAP = 0.25  # of a tile's side

SIGMA = 0.125  # standard deviation of the weights, as a share of a tile's side

LEAST = 1e-3  # weight of a tile's corner


@dataclass(frozen=True)
class Tiling:
    """The tiles of ``side`` that cover an image of ``extent``.

    An image that is smaller than a tile is padded by ``margins`` (before, after) along each axis; ``starts``
    are the tiles' first pixels along each axis of the padded image.
    """

    extent: tuple[int, ...]
    side: tuple[int, ...]
    margins: tuple[tuple[int, int], ...]
    starts: tuple[tuple[int, ...], ...]

    @cached_property
    def places(self) -> list[tuple[slice, ...]]:
        """The tiles as slices of the padded image (*S)."""
        corners = itertools.product(*self.starts)
        return [tuple(slice(c, c + s) for c, s in zip(corner, self.side, strict=True)) for corner in corners]

    @property
    def padded(self) -> tuple[int, ...]:
        """The size (*S) of the image with its margins."""
        return tuple(e + sum(m) for e, m in zip(self.extent, self.margins, strict=True))

    @property
    def inside(self) -> tuple[slice, ...]:
        """The image within its margins."""
        return tuple(slice(low, low + e) for (low, _), e in zip(self.margins, self.extent, strict=True))

    @property
    def total(self) -> np.ndarray:
        """The weights of all tiles at each pixel of the padded image."""
        total = np.zeros(self.padded, np.float32)
        for place in self.places:
            total[place] += tile_weights(self.side)
        return total

    def pad(self, image: np.ndarray) -> np.ndarray:
        """Return an image (C, *S) reflected beyond its border, as far as the tiles reach."""
        return np.pad(image, [(0, 0), *self.margins], "reflect") if any(map(any, self.margins)) else image


@lru_cache(maxsize=1024)
def tile(extent: tuple[int, ...], side: int | tuple[int, ...], overlap: float = OVERLAP) -> Tiling:
    """Return the tiles that cover an image (*S) of ``extent``; the last of a row is moved inside the
    image.
    """
    sides = (side,) * len(extent) if isinstance(side, int) else tuple(side)
    margins, starts = [], []  # of each axis by itself: the tiles are their product
    for length, wanted in zip(extent, sides, strict=True):
        missing = max(wanted - length, 0)
        margins.append((missing // 2, missing - missing // 2))
        starts.append(_starts(length + missing, wanted, overlap))
    return Tiling(tuple(extent), sides, tuple(margins), tuple(starts))


def _starts(length: int, side: int, overlap: float) -> tuple[int, ...]:
    """Return the first pixels of the tiles along one axis."""
    stride = max(1, int(side * (1 - overlap)))
    count = math.ceil((length - side) / stride) + 1
    return tuple(min(n * stride, length - side) for n in range(count))


@lru_cache(maxsize=16)
def tile_weights(side: tuple[int, ...]) -> np.ndarray:
    """Return the weights (*side) of a tile's pixels, float32: exp(-x^2 / 2 sigma^2) along each axis, at least
    0.001.

    ``x`` is the distance to the middle of the tile and sigma an eighth of its side.
    """
    weights = np.ones((), np.float32)
    for length in side:
        x = np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
        weights = weights[..., None] * np.exp(-(x**2) / np.float32(2 * (SIGMA * length) ** 2))
    weights = np.maximum(weights, max(float(weights.min()), LEAST))
    weights.flags.writeable = False  # it is handed out again and again
    return weights
