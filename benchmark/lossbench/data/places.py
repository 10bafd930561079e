"""Where foreground lies, so that a patch can be centred on it without reading a mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lossbench.base.seeds import rng_of

MOST = 1000  # pixels of one class that are kept of one image


@dataclass(frozen=True, eq=False)
class Places:
    """Flat indices of foreground pixels: all of a class in an image, or 1,000 of them drawn at random.

    ``flat`` (M,) integers, image by image and class by class; those of class k in image n begin at
    ``starts[n * (K - 1) + k - 1]``, int64 (N * (K - 1) + 1,), where the one before ends.
    """

    flat: np.ndarray
    starts: np.ndarray
    classes: int

    def of(self, n: int, k: int) -> np.ndarray:
        """Return the kept pixels of class ``k`` in image ``n``."""
        # One flat array and its bounds, rather than lists: it can lie in a file and be mapped.
        at = n * (self.classes - 1) + k - 1
        return self.flat[self.starts[at] : self.starts[at + 1]]


def places_of(mask: np.ndarray, classes: int, name: str) -> list[np.ndarray]:
    """Return the kept pixels of each foreground class of one mask; which, depends on the image's name
    alone.
    """
    # A thousand is enough: neighbouring pixels centre nearly the same patch.
    flat, rng = mask.ravel(), rng_of(f"places {name}")
    kept = []
    for k in range(1, classes):
        pixels = np.flatnonzero(flat == k)
        if len(pixels) > MOST:
            pixels = np.sort(rng.choice(pixels, MOST, replace=False, shuffle=False))
        kept.append(pixels)
    return kept


def gather(images: Iterable[list[np.ndarray]], classes: int) -> Places:
    """Return the places of a data set from those of its images."""
    pixels = [kept for image in images for kept in image]
    starts = np.cumsum([0, *map(len, pixels)])
    return Places(np.concatenate(pixels).astype(np.int64), starts, classes)
