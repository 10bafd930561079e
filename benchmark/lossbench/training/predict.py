"""What a trained stack says of whole images: tile by tile, joined, and handed on image by image, so that the
predictions of all images never lie in memory together.

Places and weights of tiles are those of MONAI's SlidingWindowInferer in its Gaussian mode, so that scores can
be compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from lossbench.data.container import VOID, Data
from lossbench.metrics import Truth
from lossbench.metrics.surface import signed_distances
from lossbench.networks.stack import Stack

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


HELD = 2**18  # pixels of images that are handed on together: 64 of 64 x 64

# Pixels of tiles that a cell infers at once; by the eight of a training step it would be a quarter slower.
AT_ONCE = 2**17

# Called with a cell, the first of some tiles and that cell's logits of them (n, classes, *side).
OnTiles = Callable[[int, int, Tensor], None]


class Tiles:
    """The tiles of some images of a data set, image after image; ``side`` None: each image is one tile.

    Images of equal size that follow each other form a group, of no more than 2^18 pixels where it holds
    several: what is handed on together.
    """

    def __init__(
        self, data: Data, index: np.ndarray, side: tuple[int, ...] | None = None, mapped: bool = False
    ):
        self.data, self.index, self.mapped = data, index, mapped
        extents = [tuple(extent) for extent in data.sizes[index].tolist()]
        self.tilings = [tile(extent, side or extent) for extent in extents]
        counts = [len(tiling.places) for tiling in self.tilings]
        self.first = np.cumsum([0, *counts])  # of each image, its first tile
        self._image: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._masks: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0))
        self._maps: dict[int, np.ndarray] = {}
        self._truth: tuple[tuple[int, int], Truth] | None = None

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def void(self) -> int:
        """What marks padding in the masks of tiles."""
        return VOID if self.data.ignore_index is None else self.data.ignore_index

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """First image and end of each group."""
        out: list[tuple[int, int]] = []
        for i, tiling in enumerate(self.tilings):
            begin = out[-1][0] if out else 0
            area = int(np.prod(tiling.extent))
            if out and tiling.extent == self.tilings[begin].extent and (i + 1 - begin) * area <= HELD:
                out[-1] = begin, i + 1
            else:
                out.append((i, i + 1))
        return out

    def place(self, t: int) -> tuple[int, int]:
        """Return the image of a tile, and which of that image's tiles it is."""
        i = int(np.searchsorted(self.first, t, "right")) - 1
        return i, t - int(self.first[i])

    def images(self, begin: int, end: int) -> np.ndarray:
        """Return tiles (n, C, *side); beyond the last tile, the last one again."""
        return np.stack([self._tile(min(t, len(self) - 1)) for t in range(begin, end)])

    def _tile(self, t: int) -> np.ndarray:
        i, k = self.place(t)
        if self._image[0] != i:  # the tiles of an image follow each other
            self._image = i, self.tilings[i].pad(np.asarray(self.data.images[int(self.index[i])]))
        return self._image[1][(slice(None), *self.tilings[i].places[k])]

    def masks(self, begin: int, end: int) -> np.ndarray:
        """Return the masks (n, *side) of tiles, void where an image is padded; codes of several raters."""
        if self._masks[0] != (begin, end):  # all cells look at the same tiles, one after the other
            tiles = map(self.place, range(begin, min(end, len(self))))
            self._masks = (begin, end), np.stack([self._mask(i, k) for i, k in tiles])
        return self._masks[1]

    def _mask(self, i: int, k: int) -> np.ndarray:
        mask, tiling = np.asarray(self.data.labels[int(self.index[i])]), self.tilings[i]
        if any(map(any, tiling.margins)):
            mask = np.pad(mask, tiling.margins, constant_values=self.void)
        return mask[tiling.places[k]]

    def distances(self, begin: int, end: int) -> np.ndarray | None:
        """Return signed distances (n, classes, *side) of tiles, computed once; None where no loss asks."""
        if self.mapped and begin not in self._maps:
            masks, data = self.masks(begin, end), self.data
            if data.ratings is not None:
                masks = data.ratings.majority(len(data.classes))[masks]
            self._maps[begin] = signed_distances(masks, len(data.classes), data.spacing, self.void)
        return self._maps.get(begin)

    def truth(self, group: tuple[int, int]) -> Truth:
        """Return the masks (n, *S) of the images of a group, and what metrics look at in them."""
        if self._truth is None or self._truth[0] != group:  # all cells look at one group after the other
            masks = np.stack([np.asarray(self.data.masks[int(n)]) for n in self.index[slice(*group)]])
            self._truth = group, Truth(masks, spacing=self.data.spacing, ignore_index=self.void)
        return self._truth[1]


@torch.no_grad()
def predict(
    stack: Stack, sets: list[Tiles], batch: int, on_tiles: OnTiles | None = None
) -> Iterator[tuple[int, tuple[int, int], Tensor]]:
    """Yield (cell, group, logits (n, classes, *S)) for each cell and each group of that cell's own images.

    Tiles of all images are batched together, so many that no number depends on the stack; ``on_tiles`` gets
    ``batch`` of them at a time."""
    # Cells of one block share their images.
    sources = list({id(own): own for own in sets if len(own)}.values())
    cells = {id(own): [cell for cell, other in enumerate(sets) if other is own] for own in sources}
    joined, longest = [_Joined(own) for own in sources], max(map(len, sources), default=0)
    pixels = max((int(np.prod(own.tilings[0].side)) for own in sources), default=1)
    several = batch * max(AT_ONCE // (batch * pixels), 1)
    for begin in range(0, longest, several):
        end = min(begin + several, longest)
        shown = {id(own): torch.from_numpy(own.images(begin, end)).to(stack.device) for own in sources}
        if len(sources) == 1:
            x = shown[id(sources[0])]
            x = x.repeat(1, len(stack), *[1] * (x.ndim - 2))
        else:
            # A cell without images is shown another's.
            x = torch.cat([shown[id(own if len(own) else sources[0])] for own in sets], 1)
        logits = stack.infer(x).transpose(0, 1).float()
        for own, join in zip(sources, joined, strict=True):
            count = min(end, len(own)) - begin
            if count <= 0:
                continue
            mine = cells[id(own)]
            part = (logits if len(mine) == len(sets) else logits[mine])[:, :count]
            for number, cell in enumerate(mine if on_tiles else ()):
                for first in range(0, count, batch):
                    on_tiles(cell, begin + first, part[number, first : first + batch])
            for group, whole in join.take(begin, part):
                yield from ((cell, group, whole[number]) for number, cell in enumerate(mine))


class _Joined:
    """Tiles on their way to whole images, for all cells that look at the same."""

    def __init__(self, tiles: Tiles):
        self.tiles, self.groups = tiles, iter(tiles.groups)
        self.group = next(self.groups, (0, 0))
        self.sums: Tensor | None = None  # (K, classes, *padded) of the image that is being joined
        self.total: tuple[Tiling | None, Tensor] = (None, torch.empty(0))  # the weights at each pixel
        self.ready: list[Tensor] = []  # (K, classes, *S) of the group's images so far

    def take(self, begin: int, logits: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Add tiles (K, n, classes, *side), and yield each group that is complete: (K, n, classes, *S)."""
        for t in range(logits.shape[1]):
            i, k = self.tiles.place(begin + t)
            whole = self._joined(self.tiles.tilings[i], k, logits[:, t])
            if whole is None:
                continue
            self.ready.append(whole)
            if i + 1 == self.group[1]:
                yield self.group, torch.stack(self.ready, 1)
                self.ready, self.group = [], next(self.groups, (0, 0))

    def _joined(self, tiling: Tiling, k: int, logits: Tensor) -> Tensor | None:
        """Add one tile of an image; return the image's logits (K, classes, *S) with its last one."""
        if len(tiling.places) > 1:
            if k == 0:
                self.sums = logits.new_zeros(*logits.shape[:2], *tiling.padded)
            self.sums[(..., *tiling.places[k])] += _on_device(tiling.side, logits.device) * logits
            if k + 1 < len(tiling.places):
                return None
            if self.total[0] != tiling:  # images of one size share it
                self.total = tiling, torch.from_numpy(tiling.total).to(logits)
            # Sums and weights apart, divided once: the same as averaging, tile by tile.
            logits = self.sums.div_(self.total[1])
        return logits[(..., *tiling.inside)]


@lru_cache(maxsize=16)
def _on_device(side: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(tile_weights(side).copy()).to(device)
