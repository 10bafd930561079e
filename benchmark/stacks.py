"""How many cells train together. On a processor a fixed few; on another device as many as make a cell's step cheaper, measured there.

A cell's record does not depend on the choice (on the CPU bit for bit), so that it may differ between machines and runs.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from benchmark.cells import Recipe
    from benchmark.training import Job

CPU = 4  # two to eight cells are alike there (docs/speed_stack.md); fewer leave smaller pieces to a sweep that is interrupted
HANDED = 64  # cells that a worker is handed at a time where it finds out by itself how many to train together
WORTH = 0.95  # a stack of twice the cells must bring a cell's step down to this share of what it took
STEPS, BURSTS = 8, 4  # that are timed: steps where each is told of, else times that some are

Item = TypeVar("Item")
_found: dict[tuple, int] = {}  # what this worker has measured: one device, a few recipes and image shapes


def even(items: list[Item], size: int) -> list[list[Item]]:
    """Cut a list into as few parts of at most ``size`` as possible, of nearly equal length."""
    parts = -(-len(items) // size)
    return [items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts)]


def fastest(jobs: list[Job], recipe: Recipe, device: str) -> int:
    """Return how many of these jobs to train together on this device, at least 2; measured once a worker, recipe and image shape.

    ``jobs`` are trained for a few steps and thrown away: a loss that remembers its calls must not be trained for real afterwards.
    """
    data = jobs[0].data
    kind = (recipe.digest, data.images.shape[1:], len(data.classes), device)
    if kind not in _found:
        _found[kind] = double(lambda count: step_seconds(jobs, recipe, device, count), len(jobs))
    return _found[kind]


def double(seconds: Callable[[int], float | None], most: int) -> int:
    """Return the number of cells, 2, 4, 8, ... up to ``most``, from which on twice as many gain nothing.

    ``seconds(count)`` is what a step of that many takes, or None where they do not fit into memory.
    """
    best, cost = 2, seconds(2)
    for count in itertools.takewhile(lambda count: count <= most, (2**power for power in itertools.count(2))):
        taken = seconds(count)
        if cost is None or taken is None or taken / count > WORTH * cost / best:
            break
        best, cost = count, taken
    return best


def step_seconds(jobs: list[Job], recipe: Recipe, device: str, count: int) -> float | None:
    """Return the median seconds of a step of ``count`` cells (the jobs in turn), or None when they do not fit or do not train."""
    import torch

    from benchmark.cells import Recipe
    from benchmark.training import reading, train

    # A few steps and the evaluation after them, which needs memory, too. The first ones prepare, the last one validates. On a card steps are
    # told when the losses are read, so many at a time.
    told = reading(device)
    steps = max(STEPS, BURSTS * told)
    short = Recipe.model_validate({**recipe.model_dump(), "steps": steps, "validations": 1})
    marks: list[float] = []

    def on_step(step: int, losses: list[float]) -> None:
        if step % told == 0:
            marks.append(time.perf_counter())

    try:
        train(list(itertools.islice(itertools.cycle(jobs), count)), short, on_step=on_step, device=device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    if len(marks) < steps // told:  # all cells failed
        return None
    return statistics.median(b - a for a, b in itertools.pairwise(marks[:-1])) / told
