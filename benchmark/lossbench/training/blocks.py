"""The jobs of a training, one for each cell, and the blocks that they form: what all cells of one data set
variant and seed share is the batches, their augmentation, the images that are scored, the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossbench.base import seeds
from lossbench.data import splitting
from lossbench.data.container import Data
from lossbench.data.patches import side_of
from lossbench.experiment.cells import Cell
from lossbench.networks.build import Network
from lossbench.networks.initial import prior_bias, weights_hash
from lossbench.training.batches import (
    Batch,
    Draws,
    Images,
    Windows,
    as_bytes,
    augment,
    batches_of,
    draw,
)
from lossbench.training.predict import Tiles


@dataclass(frozen=True)
class Job:
    """One cell, ready to train: its data in memory, and its loss as a function of logits and target.

    Jobs that are trained together share a recipe."""

    cell: Cell
    data: Data
    loss: Callable[..., Tensor]
    weights: dict[str, Tensor] | None = None  # of a file that training starts from

    @property
    def needs(self) -> tuple[str, ...]:
        """What the loss asks for beside logits and target: ``progress``, ``distance_map``, ..."""
        return self.cell.loss.needs


@dataclass
class Trained:
    """What training left of one cell."""

    certificate: dict[str, str]  # of the pairing: hashes of start, order, split and data
    stack: int  # cells that were trained together
    weights: dict[str, Tensor] = field(default_factory=dict)
    best: tuple[float, int] = (-1.0, 0)  # validation Dice and its step
    curves: dict[str, list] = field(default_factory=dict)  # name -> one value a validation
    train_loss: list[float] = field(default_factory=list)  # one value a step, up to one that is not finite
    grad_norm: list[float] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)  # what the last weights predict; see ``outcome``
    grad_fg_share: float = math.nan  # of the last step after which the images were looked at
    not_finite_at: int | None = None  # step, from 1
    error: str | None = None  # what the loss raised
    cost: dict[str, float] = field(default_factory=dict)  # by the names of a record


@dataclass(frozen=True)
class Block:
    """Everything that chance decides of a training, and the images on which it is scored."""

    batches: Images | Windows
    draws: Draws
    during: Tiles  # validation images that are looked at while training goes on
    later: Tiles  # those that are added after the last step
    test: Tiles
    start: dict[str, Tensor]
    frequency: Tensor  # (classes,): share of the pixels that training shows
    marks: dict[str, str]  # of the certificate: all but the order
    augment_seed: int
    # Where there are several raters: the class (256,) and the shares (256, classes) of each code.
    tables: tuple[Tensor, Tensor] | None = None

    @property
    def ignore_index(self) -> int | None:
        """What marks void, padding included."""
        return self.batches.ignore_index

    def batch(self, step: Tensor) -> Batch:
        """Return images, masks and distances of the batch of a step; ``step``, one index on the device, is
        not waited for.
        """
        return augment(*self.batches.at(step), self.draws.at(step))

    def target(self, masks: Tensor, shares: bool = False) -> Tensor:
        """Return what a loss is shown of masks or codes (B, *S): class ids; of several raters, if it takes
        ``shares``, those of the classes (B, classes, *S).
        """
        if self.tables is None:
            return masks
        majority, each = self.tables
        return each[masks].movedim(-1, 1).contiguous() if shares else majority[masks]

    def certificate(self, steps: int) -> dict[str, str]:
        """Return the proof of pairing of a training of so many steps: two cells with equal hashes had the
        same start, the same batches and the same split.
        """
        # The order of batches and the seed of their augmentation decide together what every step sees.
        seen = self.batches.drawn(steps) + str(self.augment_seed).encode()
        return {**self.marks, "order": sha256(seen).hexdigest()[:16]}


def blocks_of(jobs: list[Job], device: str) -> dict[str, Block]:
    """Return the block of each data set and seed among the jobs, by the name that their cells have for it."""
    # Of a block's jobs the first stands for all: they share data, seed and recipe.
    first = {job.cell.block: job for job in reversed(jobs)}
    mapped = {job.cell.block for job in jobs if "distance_map" in job.needs}
    return {name: _block(job, device, name in mapped) for name, job in first.items()}


def network_of(job: Job) -> Network:
    """Return the network of a job's recipe, for what it sees of the job's data."""
    data, side = job.data, side_of(job.cell.recipe, job.data)
    return Network(job.cell.network, data.channels, len(data.classes), side or data.shape)


def _block(job: Job, device: str, mapped: bool) -> Block:
    cell, data, recipe = job.cell, job.data, job.cell.recipe
    batches = batches_of(cell, data, mapped, device)
    # One stream for each thing that chance decides, none of which knows the loss.
    init_seed, augment_seed = (seeds.integer(what, cell.stream, cell.seed) for what in ("init", "augment"))
    chance = torch.Generator().manual_seed(augment_seed)
    bias = prior_bias(batches.frequency) if recipe.head == "prior" else None
    start = network_of(job).start(init_seed, bias, job.weights, str(recipe.weights))
    during, later, test = _scored(job)
    return Block(
        batches=batches,
        draws=draw(recipe.augment, recipe.steps, recipe.batch, data.dims, chance, device),
        during=Tiles(data, during, side_of(recipe, data), mapped),
        later=Tiles(data, later, side_of(recipe, data), mapped),
        test=Tiles(data, test, side_of(recipe, data)),
        start=start,
        frequency=torch.from_numpy(batches.frequency.astype(np.float32)).to(device),
        marks=_marks(start, data, batches.frequency),
        augment_seed=augment_seed,
        tables=_tables(data, device),
    )


def _tables(data: Data, device: str) -> tuple[Tensor, Tensor] | None:
    if data.ratings is None:
        return None
    classes = len(data.classes)
    majority = torch.from_numpy(data.ratings.majority(classes)).to(device).long()
    return majority, torch.from_numpy(data.ratings.shares(classes)).to(device)


def _scored(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the validation images that are looked at during training, those that are added at its end, and
    the test images, as far as the budgets of pixels allow.
    """
    data, name = job.data, job.cell.stream
    during = splitting.within(data, "val", splitting.DURING, name)
    after = splitting.within(data, "val", splitting.VALIDATION, name)
    if job.cell.recipe.all_test:
        return during, np.setdiff1d(after, during), data.split["test"]
    return during, np.setdiff1d(after, during), splitting.within(data, "test", splitting.TEST, name)


def _marks(start: dict[str, Tensor], data: Data, frequency: np.ndarray) -> dict[str, str]:
    split = b"".join(name.encode() + as_bytes(data.split[name]) for name in sorted(data.split))
    return {
        "init": weights_hash(start),
        "order": "",  # its place; it depends on the length
        "split": sha256(split).hexdigest()[:16],
        "data": data.fingerprint,
        "frequency": sha256(frequency.tobytes()).hexdigest()[:16],
    }
