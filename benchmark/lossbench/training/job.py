"""What training takes and what it leaves: a job for each cell in, a result for each cell out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lossbench.data.container import Data
from lossbench.experiment.cells import Cell


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
