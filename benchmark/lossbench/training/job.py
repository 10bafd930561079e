"""Training a stack of cells from the identical start on the identical batches: a pure function from jobs to
results.

No files, no printing, no global state. No weight is shared between the cells of a stack, so each gets exactly
the gradient that it would have alone, and a cell that turns not-finite does not touch its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Job:
    """One cell, ready to train: its loss as a function, what that needs, its data in memory, and its seed."""

    loss: Callable[..., Tensor]
    needs: tuple[str, ...]
    data: Any  # lossbench.data.container.Data
    data_name: str
    seed: int
    learning_rate: float | None = None  # peak of the schedule; None: the recipe's


@dataclass
class Trained:
    """What training left of one cell."""

    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    curves: dict[str, list[float]]
    certificate: dict[str, str]
    seconds: float
    stack: int
    cpu_seconds: float = 0.0
    not_finite_at: int | None = None
    error: str | None = None
    best: tuple[float, int] = (-1.0, 0)  # validation Dice and its step
    train_loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # "val", "test", "test_best": probabilities (N, classes, *S)
