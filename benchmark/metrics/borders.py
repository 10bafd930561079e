"""Which pixels of a mask lie at its border, or within some distance of the background: read off its foreground alone.

Only foreground pixels are visited, which makes rare objects cheap. Distances to the background are looked up row by row:
a pixel is near the background when, in one of the rows around it, the nearest background pixel is close enough.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Rows = tuple[tuple[tuple[int, ...], int], ...]
"""A neighbourhood as rows along the last axis: (offset along the other axes, reach to both sides), all in pixels."""


@lru_cache(maxsize=64)
def cross(axes: int) -> Rows:
    """Return the 4 or 6 face neighbours."""
    offsets = [tuple(sign * (a == b) for b in range(axes - 1)) for a in range(axes - 1) for sign in (-1, 1)]
    return (((0,) * (axes - 1), 1), *((offset, 0) for offset in offsets))


@lru_cache(maxsize=64)
def ball(radius: float, spacing: tuple[float, ...]) -> Rows:
    """Return the pixels within `radius`, in units of `spacing`; a hair's breadth more, so that 3 x 0.1 is within 0.3."""
    *others, last = spacing
    reach = [int(radius / s * (1 + 1e-9)) for s in others]
    rows = []
    for offset in np.ndindex(*(2 * r + 1 for r in reach)):
        offset = tuple(int(o) - r for o, r in zip(offset, reach, strict=True))
        left = (radius * (1 + 1e-9)) ** 2 - sum((o * s) ** 2 for o, s in zip(offset, others, strict=True))
        if left >= 0:
            rows.append((offset, int(left**0.5 / last)))
    return tuple(rows)


class Foreground:
    """The foreground pixels of N boolean masks (N, *S) inside a margin of background.

    index (n,) positions in the flat stack, ascending; image (n,) and place (n, D) the same as image number and coordinates.
    """

    def __init__(self, masks: np.ndarray, margin: tuple[int, ...]):
        """`margin`: for every axis but the last, the farthest offset that `exposed` will be asked for."""
        self.index = np.flatnonzero(masks)
        self.image, *place = np.unravel_index(self.index, masks.shape)
        self.place = np.stack(place, axis=1)
        margin = (*margin, 1)
        shape = [n + 2 * m for n, m in zip(masks.shape[1:], margin, strict=True)]
        self.strides = np.array([int(np.prod(shape[axis:])) for axis in range(len(shape) + 1)])
        self.framed = self.image * self.strides[0] + (self.place + margin) @ self.strides[1:]
        # Steps along the last axis from each pixel to the nearest background pixel of its row; 0 on background.
        first = np.flatnonzero(np.diff(self.framed, prepend=-2) > 1)
        length = np.diff(first, append=len(self.framed))
        since = np.arange(len(self.framed)) - np.repeat(first, length)
        self.run = np.zeros(len(masks) * self.strides[0], dtype=np.int32)
        self.run[self.framed] = np.minimum(since + 1, np.repeat(length, length) - since)

    def exposed(self, rows: Rows) -> np.ndarray:
        """Return (n,) whether one of the pixels around each foreground pixel, given as `rows`, is background."""
        out = np.zeros(len(self.index), dtype=bool)
        for offset, reach in rows:
            step = sum(o * s for o, s in zip(offset, self.strides[1:-1].tolist(), strict=True))
            out |= self.run[self.framed + step] <= reach
        return out
