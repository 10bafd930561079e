"""What all cells of one data set variant and seed share: images on the device, the order of the batches,
their augmentation, the start.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from lossbench.base import seeds
from lossbench.data.augment import Draws, augment, draw
from lossbench.data.container import Data
from lossbench.metrics.distances import signed_distances
from lossbench.networks.build import Network
from lossbench.networks.head import prior_bias
from lossbench.networks.weights import weights_hash
from lossbench.training.job import Job


@dataclass(frozen=True)
class Block:
    """Images (N, C, *S) and masks (N, *S) of all splits, and everything that chance decides of a training, a
    row a step; on one device.
    """

    images: Tensor
    masks: Tensor
    order: Tensor  # int64 (steps, batch): images of the training split
    draws: Draws
    splits: dict[str, Tensor]  # int64: the images of "val" and "test"
    start: dict[str, Tensor]
    frequency: Tensor  # (classes,): share of the training pixels
    marks: dict[str, str]  # of the certificate: all but the order
    augment_seed: int
    distances: Tensor | None  # (N, classes, *S)

    def batch(self, step: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return images, masks and distances of the batch of a step; ``step``, one index on the device, is
        not waited for.
        """
        rows = self.order.index_select(0, step)[0]
        images, masks = self.images.index_select(0, rows), self.masks.index_select(0, rows).long()
        distances = None if self.distances is None else self.distances.index_select(0, rows)
        return augment(images, masks, distances, self.draws.at(step))

    def certificate(self, steps: int) -> dict[str, str]:
        """Return the proof of pairing of a training of so many steps: two cells with equal hashes had the
        same start, the same batches and the same split.
        """
        # The order of batches and the seed of their augmentation decide together what every step sees.
        batches = _bytes(self.order[:steps].cpu().numpy()) + str(self.augment_seed).encode()
        return {**self.marks, "order": sha256(batches).hexdigest()[:16]}

    @cached_property
    def held_out(self) -> dict[str, Tensor]:
        """The images of validation and test."""
        return {name: self.images.index_select(0, rows) for name, rows in self.splits.items()}

    @cached_property
    def truth(self) -> Tensor:
        """The masks of the validation images."""
        return self.masks.index_select(0, self.splits["val"]).long()


def batch_order(count: int, batch: int, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Return int64 (steps, batch): places in the training split, every image once before any again."""
    rounds = [generator.permutation(count) for _ in range(math.ceil(steps * batch / count))]
    return np.concatenate(rounds)[: steps * batch].reshape(steps, batch)


def blocks_of(jobs: list[Job], device: str) -> dict[str, Block]:
    """Return the block of each data set and seed among the jobs, by the name that their cells have for it."""
    # Of a block's jobs the first stands for all: they share data, seed and recipe.
    first = {job.cell.block: job for job in reversed(jobs)}
    mapped = {job.cell.block for job in jobs if "distance_map" in job.needs}
    return {name: _block(job, device, name in mapped) for name, job in first.items()}


def network_of(job: Job) -> Network:
    """Return the network of a job's recipe, for the images of its data."""
    return Network(
        job.cell.network, job.data.images.shape[1], len(job.data.classes), job.data.masks.shape[1:]
    )


def _block(job: Job, device: str, mapped: bool) -> Block:
    cell, data, recipe = job.cell, job.data, job.cell.recipe
    train, masks, classes = data.split["train"], np.asarray(data.masks), len(data.classes)
    dims = masks.ndim - 1
    # One stream for each thing that chance decides, none of which knows the loss.
    init_seed, augment_seed = (seeds.integer(what, cell.data.text, cell.seed) for what in ("init", "augment"))
    ordering = seeds.stream("order", cell.data.text, cell.seed)
    order = train[batch_order(len(train), recipe.batch, recipe.steps, ordering)]
    chance = torch.Generator().manual_seed(augment_seed)
    # Void pixels lie beyond the classes and are cut off.
    counts = np.bincount(masks[train].reshape(-1), minlength=classes)[:classes].astype(np.float64)
    frequency = counts / max(counts.sum(), 1)
    bias = prior_bias(frequency) if recipe.head == "prior" else None
    start = network_of(job).start(init_seed, bias, job.weights, str(recipe.weights))
    distances = signed_distances(masks, classes, data.spacing, data.ignore_index) if mapped else None
    return Block(
        images=_shared(data.images).to(device),
        masks=_shared(masks).to(device),
        order=torch.from_numpy(order).to(device),
        draws=draw(recipe.augment, recipe.steps, recipe.batch, dims, chance, device),
        splits={name: torch.from_numpy(data.split[name]).to(device) for name in ("val", "test")},
        start=start,
        frequency=torch.from_numpy(frequency.astype(np.float32)).to(device),
        marks=_marks(start, data),
        augment_seed=augment_seed,
        distances=None if distances is None else torch.from_numpy(distances).to(device),
    )


def _shared(array: np.ndarray) -> Tensor:
    """Return a tensor on the array's own memory, which may be a read-only file that many workers map; nobody
    writes to it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array))


def _marks(start: dict[str, Tensor], data: Data) -> dict[str, str]:
    split = b"".join(name.encode() + _bytes(data.split[name]) for name in sorted(data.split))
    return {
        "init": weights_hash(start),
        "order": "",  # its place; it depends on the length
        "split": sha256(split).hexdigest()[:16],
        "data": data.fingerprint,
    }


def _bytes(numbers: np.ndarray) -> bytes:
    return np.ascontiguousarray(numbers, np.int64).tobytes()
