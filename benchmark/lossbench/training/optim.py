"""How weights change: the schedule of the learning rate, and AdamW and SGD for all cells of a stack at once.

PyTorch's optimisers know one rate a parameter group, so that a rate a cell would cost a group a cell with
every layer in it. Here all weights of a stack are one vector, and what changes from step to step is looked up
by the step's index on the device: a step is a dozen operations for any number of cells and layers, on a CPU
for each piece that the cache holds, and none of them waits. Bit for bit the weights that ``torch.optim``
gives on a CPU (tests hold it)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lossbench.experiment.cells import Recipe
from lossbench.networks.stack import Stack

BETAS, EPS = (0.9, 0.999), 1e-8  # of AdamW


def learning_rate(recipe: Recipe, step: int, top: float) -> float:
    """Return the rate of a step (0-based) under a schedule with the peak ``top``: a function of the step
    alone, never of a loss value.

    one_cycle: half a cosine from 1/25 of the rate up to it over the first 30 %, then half a cosine down to
    1/10,000 of it. poly: rate * (1 - t)^0.9. wsd: linear over the warm-up, then constant, then times
    1 - sqrt(u), u going from 0 to 1 over the last fifth (Hägele et al. 2024), so that all lengths share the
    rates of their first steps.
    """
    if recipe.schedule == "wsd":
        begin = recipe.decay_begins
        if step < recipe.warmup:
            return top * (step + 1) / recipe.warmup
        return top if step < begin else top * (1 - math.sqrt((step - begin) / (recipe.steps - begin)))
    t = step / max(recipe.steps - 1, 1)  # 0 at the first step, 1 at the last
    if recipe.schedule == "constant":
        return top
    if recipe.schedule == "poly":
        return top * (1 - t) ** 0.9
    low, high, phase = (top / 25, top, t / 0.3) if t < 0.3 else (top, top * 1e-4, (t - 0.3) / 0.7)
    return low + (high - low) * (1 - math.cos(math.pi * phase)) / 2


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): ``tops`` are the cells' peak rates."""

    def __init__(self, stack: Stack, recipe: Recipe, tops: list[float]):
        self.stack, self.tops = stack, tops
        # Per step and cell: what a weight is multiplied by, the size of the step (minus), and the root of the
        # bias correction, which is the same for all cells.
        self.kept, self.sizes = self._tables(recipe)
        self.roots = _table(stack, recipe, tops[:1], lambda step, rate: (1 - BETAS[1] ** (step + 1)) ** 0.5)
        self.mean, self.square = torch.zeros_like(stack.values), torch.zeros_like(stack.values)
        self.state = [self.mean, self.square]

    def _tables(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        kept = _table(self.stack, recipe, self.tops, lambda step, rate: 1 - rate * recipe.weight_decay)
        sizes = _table(self.stack, recipe, self.tops, lambda step, rate: -rate / (1 - BETAS[0] ** (step + 1)))
        return kept, sizes

    def follow(self, recipe: Recipe) -> None:
        """Take the rates of another length of the same trunk, up to its last step."""
        for table, rows in zip((self.kept, self.sizes), self._tables(recipe), strict=True):
            table[: len(rows)].copy_(rows)

    def __call__(self, step: Tensor) -> None:
        """Change the weights by the stack's gradients; ``step`` is one index on the device."""
        stack = self.stack
        kept, root, size = (_row(table, step) for table in (self.kept, self.roots, self.sizes))
        for piece in stack.pieces:
            vectors = stack.values, stack.slopes, self.mean, self.square
            values, slopes, mean, square = (vector[piece] for vector in vectors)
            # The order of operations is PyTorch's own, so that the weights are, too: decay, then the step.
            values.mul_(stack.each(kept, piece))
            mean.lerp_(slopes, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(slopes, slopes, value=1 - BETAS[1])
            below = square.sqrt().div_(root).add_(EPS)
            values.add_(torch.mul(stack.each(size, piece), mean).div_(below))


class SGD:
    """Stochastic gradient descent with weight decay in the gradient and Nesterov's momentum, if any."""

    def __init__(self, stack: Stack, recipe: Recipe, tops: list[float]):
        self.stack, self.recipe, self.tops = stack, recipe, tops
        self.sizes = self._table(recipe)
        self.mean = torch.zeros_like(stack.values)
        self.state = [self.mean]

    def _table(self, recipe: Recipe) -> Tensor:
        return _table(self.stack, recipe, self.tops, lambda step, rate: -rate)

    def follow(self, recipe: Recipe) -> None:
        """Take the rates of another length of the same trunk, up to its last step."""
        rows = self._table(recipe)
        self.sizes[: len(rows)].copy_(rows)

    def __call__(self, step: Tensor) -> None:
        """Change the weights by the stack's gradients; ``step`` is one index on the device."""
        stack, decay, momentum = self.stack, self.recipe.weight_decay, self.recipe.momentum
        size = _row(self.sizes, step)
        for piece in stack.pieces:
            values, slopes, mean = (vector[piece] for vector in (stack.values, stack.slopes, self.mean))
            slopes = slopes.add(values, alpha=decay) if decay else slopes
            if momentum:
                mean.mul_(momentum).add_(slopes)
                slopes = slopes.add(mean, alpha=momentum)
            values.addcmul_(stack.each(size, piece), slopes)


def optimizer(stack: Stack, recipe: Recipe, tops: list[float]) -> AdamW | SGD:
    """Return the recipe's optimiser."""
    return (AdamW if recipe.optimizer == "adamw" else SGD)(stack, recipe, tops)


def clip(stack: Stack, limit: float | None) -> Tensor:
    """Return the norm of each cell's gradient, (K,), after scaling each cell's gradient down to the limit
    where one is set.

    Without a limit, too, a cell whose norm is infinite gets a gradient that is nowhere a number, as from
    ``clip_grad_norm_``."""
    norms = stack.norms(stack.slopes)
    factor = ((math.inf if limit is None else limit) / (norms + 1e-6)).clamp(max=1.0)
    for piece in stack.pieces:
        stack.slopes[piece].mul_(stack.each(factor, piece))
    return norms


def _table(stack: Stack, recipe: Recipe, tops: list[float], value: Callable[[int, float], float]) -> Tensor:
    """Return value(step, rate) for each step and cell, (steps, K), as numbers like the weights; (steps, 1)
    where all cells have one rate.
    """
    tops = tops[:1] if len(set(tops)) == 1 else tops
    # In double precision, as PyTorch computes these numbers; cells of one peak share a column.
    columns = {
        top: [value(step, learning_rate(recipe, step, top)) for step in range(recipe.steps)]
        for top in set(tops)
    }
    made = {top: torch.tensor(column, dtype=torch.float64) for top, column in columns.items()}
    return torch.stack([made[top] for top in tops], 1).to(stack.values)


def _row(table: Tensor, step: Tensor) -> Tensor:
    return table.index_select(0, step)[0]
