"""What a training step sees: images of one size as they are, or patches of whole images, and how they are
augmented. Which, where and in what order follows from data set, seed and step; no loss has a say.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from lossbench.base import seeds
from lossbench.base.errors import UserError, nearest
from lossbench.data.container import Data
from lossbench.data.patches import Patches, side_of
from lossbench.experiment.cells import Cell
from lossbench.metrics.surface import signed_distances

# Images (B, C, *S), masks (B, *S), distances (B, classes, *S); of several raters masks are codes, which are
# moved as masks are, and looked up when a loss asks.
Batch = tuple[Tensor, Tensor, Tensor | None]


def batches_of(cell: Cell, data: Data, mapped: bool, device: str) -> Images | Windows:
    """Return the batches of a cell's block; ``mapped``: with signed distances of the masks."""
    side = side_of(cell.recipe, data)
    if side is None:
        return Images(cell, data, mapped, device)
    return Windows(cell, Patches(data, side, cell.recipe.sampler, name=cell.stream), mapped, device)


class Images:
    """Batches of images of one size, which all lie on the device."""

    def __init__(self, cell: Cell, data: Data, mapped: bool, device: str):
        recipe, train = cell.recipe, data.split["train"]
        rng = seeds.stream("order", cell.stream, cell.seed)
        self.order = train[batch_order(len(train), recipe.batch, recipe.steps, rng)]
        self.rows = torch.from_numpy(self.order).to(device)
        self.side, self.ignore_index = data.shape, data.ignore_index
        self.images = shared(data.images).to(device)
        self.masks = shared(np.asarray(data.labels)).to(device)
        self.distances = None
        if mapped:
            maps = signed_distances(
                np.asarray(data.masks), len(data.classes), data.spacing, data.ignore_index
            )
            self.distances = torch.from_numpy(maps).to(device)
        # Void pixels lie beyond the classes and are cut off.
        counts = data.counts[train].sum(0).astype(np.float64)
        self.frequency = counts / max(counts.sum(), 1)

    def feed(self, done: int) -> None:
        """Make the batch of the step after ``done`` steps ready; here all lies ready."""

    def at(self, step: Tensor) -> Batch:
        """Return the batch of a step; ``step``, one index on the device, is not waited for."""
        rows = self.rows.index_select(0, step)[0]
        images, masks = self.images.index_select(0, rows), self.masks.index_select(0, rows).long()
        return images, masks, None if self.distances is None else self.distances.index_select(0, rows)

    def drawn(self, steps: int) -> bytes:
        """Return what so many steps see, in bytes."""
        return as_bytes(self.order[:steps])


class Windows:
    """Batches of patches, read from the memory-mapped images one step at a time."""

    def __init__(self, cell: Cell, patches: Patches, mapped: bool, device: str):
        recipe, self.patches = cell.recipe, patches
        drawn = [patches.where(cell.seed, step, recipe.batch) for step in range(recipe.steps)]
        self.images_of, self.corners = (np.stack(part) for part in zip(*drawn, strict=True))
        self.side, self.ignore_index = tuple(patches.side.tolist()), patches.ignore_index
        self.frequency = patches.frequency()
        self.classes = len(patches.data.classes)
        shape = (recipe.batch, *self.side)
        # One place that every step overwrites: what a graph on a GPU replays reads from there.
        self.images = torch.zeros(recipe.batch, patches.data.channels, *self.side, device=device)
        self.masks = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.distances = None
        if mapped:
            self.distances = torch.zeros(recipe.batch, self.classes, *self.side, device=device)
        self.feed(0)

    def feed(self, done: int) -> None:
        """Make the batch of the step after ``done`` steps ready."""
        where = self.images_of[done], self.corners[done]
        masks = self.patches.masks_at(*where, codes=True)
        self.images.copy_(torch.from_numpy(self.patches.images_at(*where)))
        self.masks.copy_(torch.from_numpy(masks))
        if self.distances is not None:
            if self.patches.data.ratings is not None:
                masks = self.patches.masks_at(*where)
            # Of the patch, not cut from maps of the whole masks: those would take four bytes a pixel and
            # class of sets that do not fit into memory, and would tell of borders that nobody sees here.
            spacing = self.patches.data.spacing
            maps = signed_distances(masks, self.classes, spacing, self.ignore_index)
            self.distances.copy_(torch.from_numpy(maps))

    def at(self, step: Tensor) -> Batch:
        """Return the batch that was made ready last."""
        return self.images, self.masks.long(), self.distances

    def drawn(self, steps: int) -> bytes:
        """Return what so many steps see, in bytes."""
        sampler = f"{self.side} {self.patches.sampler}".encode()
        return as_bytes(self.images_of[:steps]) + as_bytes(self.corners[:steps]) + sampler


def batch_order(count: int, batch: int, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Return int64 (steps, batch): places in the training split, every image once before any again."""
    rounds = [generator.permutation(count) for _ in range(math.ceil(steps * batch / count))]
    return np.concatenate(rounds)[: steps * batch].reshape(steps, batch)


def shared(array: np.ndarray) -> Tensor:
    """Return a tensor on the array's own memory, which may be a read-only file that many workers map; nobody
    writes to it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array))


def as_bytes(numbers: np.ndarray) -> bytes:
    """Return whole numbers in bytes, to be hashed."""
    return np.ascontiguousarray(numbers, np.int64).tobytes()


# --- augmentation: a function of a random stream alone, so that every loss sees the same augmented images


AUGMENTATIONS = ("none", "flips", "full")

DEGREES = 15.0  # largest rotation of "full"

# Standard deviations of the intensity change of "full", in units of the image's own spread.
GAIN, OFFSET = 0.15, 0.15


@dataclass(frozen=True)
class Draws:
    """What chance decides of the batches of a training, on the device: a row a step, a column an image.

    ``flips`` int64: which axes are flipped, one bit each, and the highest bit whether the first two are
    swapped; ``angles`` in radians; ``lights`` (steps, batch, 2): gain and offset.
    """

    flips: Tensor | None = None
    angles: Tensor | None = None
    lights: Tensor | None = None

    def at(self, step: Tensor) -> Draws:
        """Return the draws of one step, a tensor of one index."""
        parts = (self.flips, self.angles, self.lights)
        return Draws(*(None if part is None else part.index_select(0, step)[0] for part in parts))


def draw(kind: str, steps: int, batch: int, dims: int, generator: Generator, device: str = "cpu") -> Draws:
    """Return the draws of a whole training; their number depends on the shapes alone.

    - "none" changes nothing;
    - "flips" flips each image along each spatial axis with probability one half and, with probability one
      half, swaps the first two axes if they have one size (together: all flips and quarter turns);
    - "full" adds a rotation of the last two axes by up to 15 degrees (mirrored at the border, masks by
      nearest neighbour) and a random gain and offset of the intensity.

    ``generator`` lives on the CPU.
    """
    if kind == "none":
        return Draws()
    if kind not in AUGMENTATIONS:
        raise UserError(f"unknown augmentation '{kind}'{nearest(kind, AUGMENTATIONS)}")
    flips, angles, lights = [], [], []
    for _ in range(steps):
        flips.append(torch.rand(batch, dims + 1, generator=generator))
        if kind == "full":
            angles.append(torch.rand(batch, generator=generator))
            lights.append(torch.randn(batch, 2, generator=generator))
    # One bit an axis: a step then needs one look-up for each image, whatever is flipped.
    codes = ((torch.stack(flips) < 0.5) * 2 ** torch.arange(dims + 1)).sum(2).to(device)
    if kind == "flips":
        return Draws(codes)
    turns = (torch.stack(angles) * 2 - 1) * (DEGREES * torch.pi / 180)
    return Draws(codes, turns.to(device), (torch.stack(lights) * torch.tensor([GAIN, OFFSET])).to(device))


def augment(
    images: Tensor, masks: Tensor, extra: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return images (N, C, *S), masks (N, *S) and extra (N, K, *S) or None, each image by one transform.

    Signed distances in ``extra`` are kept by these motions. Nothing here waits for the device.
    """
    if draws.flips is not None:
        moved = _sources(masks.shape[1:], draws.flips)

        def flip(batch: Tensor) -> Tensor:
            flat = batch.reshape(len(batch), -1, moved.shape[1])
            return flat.gather(2, moved[:, None].expand_as(flat)).reshape(batch.shape)

        images, masks, extra = flip(images), flip(masks), None if extra is None else flip(extra)
    return (images, masks, extra) if draws.angles is None else _turn_and_light(images, masks, extra, draws)


def _sources(shape: tuple[int, ...], flips: Tensor) -> Tensor:
    """Return where each pixel of each moved image comes from: flat indices (N, pixels)."""
    dims, sources = len(shape), 0
    for axis, size in enumerate(shape):
        here = torch.arange(size, device=flips.device)
        there = torch.where((flips >> axis & 1).bool()[:, None], size - 1 - here, here)  # (N, size)
        sources = sources * size + there.reshape(-1, *[size if other == axis else 1 for other in range(dims)])
    if shape[0] == shape[1]:
        swapped = (flips >> dims).bool().reshape(-1, *[1] * dims)
        sources = torch.where(swapped, sources.transpose(1, 2), sources)
    return sources.reshape(len(flips), -1)


def _turn_and_light(
    images: Tensor, masks: Tensor, extra: Tensor | None, draws: Draws
) -> tuple[Tensor, Tensor, Tensor | None]:
    # One grid for the whole batch: torchvision's transforms turn one image at a time and cannot mirror at the
    # border of a mask.
    angles, lights = draws.angles, draws.lights
    height, width = masks.shape[-2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = torch.stack([cos, -sin * height / width, none, sin * width / height, cos, none], 1)
    matrix = rows.reshape(-1, 2, 3).to(images)
    grid = functional.affine_grid(matrix, [len(masks), 1, height, width], align_corners=False)

    def turn(batch: Tensor, mode: str) -> Tensor:
        flat = batch.reshape(len(batch), -1, height, width)  # the depth of a volume goes with the channels
        turned = functional.grid_sample(flat, grid, mode, "reflection", align_corners=False)
        return turned.reshape(batch.shape)

    gain, offset = (part.reshape(-1, *[1] * (images.ndim - 1)).to(images) for part in lights.unbind(1))
    labels = turn(masks.to(images.dtype), "nearest").round().to(masks.dtype)
    lit = turn(images, "bilinear") * (1 + gain) + offset
    return lit, labels, None if extra is None else turn(extra, "bilinear")
