"""What a training step sees: images of one size as they are, or patches of whole images. Which, where and in
what order follows from data set, seed and step; no loss has a say.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from lossbench.base import seeds
from lossbench.data.container import Data
from lossbench.data.patches import Patches
from lossbench.data.ragged import Ragged
from lossbench.experiment.cells import Cell, Recipe
from lossbench.metrics.surface import signed_distances

USUAL = 64  # pixels of a patch's side, where images differ in size and the recipe names none

Batch = tuple[Tensor, Tensor, Tensor | None]  # images (B, C, *S), masks (B, *S), distances (B, classes, *S)


def side_of(recipe: Recipe, data: Data) -> tuple[int, ...] | None:
    """Return the sides of the patches that a recipe draws from a data set; None where images of one size are
    taken as they are.
    """
    patch, whole = recipe.patch, not isinstance(data.images, Ragged)
    if patch is None:
        side = data.shape if whole else (USUAL,) * data.dims
    else:
        side = (patch,) * data.dims if isinstance(patch, int) else patch
    # An image as large as the patch is simply the image.
    return None if whole and side == data.shape and recipe.sampler == "uniform" else side


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
        self.masks = shared(np.asarray(data.masks)).to(device)
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
        # One place that every step overwrites: what a graph on a card replays reads from there.
        self.images = torch.zeros(recipe.batch, patches.data.channels, *self.side, device=device)
        self.masks = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.distances = None
        if mapped:
            self.distances = torch.zeros(recipe.batch, self.classes, *self.side, device=device)
        self.feed(0)

    def feed(self, done: int) -> None:
        """Make the batch of the step after ``done`` steps ready."""
        where = self.images_of[done], self.corners[done]
        masks = self.patches.masks_at(*where)
        self.images.copy_(torch.from_numpy(self.patches.images_at(*where)))
        self.masks.copy_(torch.from_numpy(masks))
        if self.distances is not None:
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
