"""One task on a worker: open the data, train a stack of cells, score them, write their records.

A task is pure and may be repeated: what is recorded is not trained again, and a record would be the same
bytes. How many cells train together changes no number, so a worker may find out by itself what is fastest.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import LossSpec, get_dataset, get_loss
from lossbench.engine.worker import emit
from lossbench.experiment.cells import Cell, Recipe
from lossbench.store.store import Store

HANDED = 64  # cells in a task whose worker finds out by itself how many to train together

WORTH = 0.95  # a stack of twice the cells must bring a cell's step down to this share of what it took

# Steps that are timed: single ones where each is reported, else bursts between two reports.
STEPS, BURSTS = 8, 4

KEPT = 4  # data sets that a worker keeps open

Item = TypeVar("Item")

_open_data: OrderedDict[tuple, Any] = OrderedDict()

_sizes: dict[tuple, int] = {}  # (recipe, shape of an image, classes, device) -> what this worker has measured


def payload(
    cells: list[Cell],
    results: Path,
    extra_files: Iterable[str],
    provenance: dict,
    device: str = "cpu",
    size: int | None = None,
) -> dict:
    """Return what a worker needs to train these cells, as plain JSON values.

    ``size``: how many of them to train together; None: as many as are worth it."""
    return {
        "results": str(results),
        "extra_files": [str(Path(file).resolve()) for file in extra_files],
        "provenance": provenance,
        "device": device,
        "size": size,
        "cells": [cell.to_json() for cell in cells],
    }


def run_stack(task: dict) -> dict:
    """Train the cells of one payload that nobody has recorded or is training; return the outcome of each."""
    store, extra_files = Store(task["results"]), tuple(task["extra_files"])
    cells = [Cell.from_json(facts, extra_files) for facts in task["cells"]]
    outcomes: dict[str, str] = {}
    # Whatever another worker holds or has recorded is left to it; the sweep waits for it at the end.
    with store.claim(cell.pair for cell in cells) as mine:
        todo = [cell for cell in cells if cell.pair in mine]
        for stack in even(todo, _size(todo, task)) if todo else []:
            outcomes |= _train_stack(stack, task, store)
    busy = [cell.key for cell in cells if cell.pair not in mine and not store.has(*cell.pair)]
    return {"outcomes": outcomes, "busy": busy}


def _train_stack(cells: list[Cell], task: dict, store: Store) -> dict[str, str]:
    import torch

    from lossbench.training.train import train

    threads = int(os.environ.get("LOSSBENCH_THREADS", "1"))
    torch.set_num_threads(threads)
    recipe, jobs = cells[0].recipe, jobs_of(cells, task["extra_files"])
    _check_shape(jobs[0].data, recipe)

    def on_step(step: int, losses: list[float]) -> None:
        for cell, loss in zip(cells, losses, strict=True):
            emit("step", cell=cell.key, step=step, steps=recipe.steps, loss=loss)

    trained = train(jobs, on_step=on_step, device=task["device"])
    outcomes = {}
    for job, result in zip(jobs, trained, strict=True):
        cell = job.cell
        if result.error:
            error = f"loss '{cell.loss.label}': {result.error}"
            store.write_error(*cell.pair, error=error, kind="error", **_named(cell))
            outcomes[cell.key] = "failed"
        else:
            began = time.perf_counter()  # scoring is each cell's own cost
            facts = {**task["provenance"], "threads": threads, "device": task["device"]}
            record = _record(job, result, facts)
            record["cost"]["seconds"] += time.perf_counter() - began
            store.write(record)
            outcomes[cell.key] = record["outcome"]
        emit("cell", cell=cell.key, outcome=outcomes[cell.key], seconds=result.seconds)
    return outcomes


def jobs_of(cells: list[Cell], extra_files: Iterable[str] = ()) -> list[Any]:
    """Return the jobs of these cells; a data set is opened once a worker."""
    from lossbench.training.job import Job

    files = tuple(extra_files)
    return [Job(cell, _open(cell, files), get_loss(cell.loss, files)) for cell in cells]


def _open(cell: Cell, extra_files: tuple[str, ...]) -> Any:
    name = (cell.data.text, cell.seed, extra_files)
    if name not in _open_data:
        _open_data[name] = get_dataset(cell.data, cell.seed, extra_files)
        while len(_open_data) > KEPT:
            _open_data.popitem(last=False)
    _open_data.move_to_end(name)
    return _open_data[name]


def _check_shape(data: Any, recipe: Recipe) -> None:
    levels, shape = len(recipe.widths), data.masks.shape[1:]
    step = 2 ** (levels - 1)
    if any(side % step for side in shape):
        raise UserError(
            f"images of {'x'.join(map(str, shape))} do not fit a network of {levels} levels: every side must "
            f"be divisible by {step}"
        )


# What a record says


def _record(job: Any, trained: Any, provenance: dict) -> dict:
    from lossbench.training.outcome import score

    scored = score(job, trained)
    return {
        **job.cell.public.to_json(),
        "certificate": trained.certificate,
        "cost": {"seconds": trained.seconds, "cpu_seconds": trained.cpu_seconds, "stack": trained.stack},
        "provenance": {**provenance, **_libraries(job.cell.loss)},
        **scored,
    }


def _named(cell: Cell) -> dict:
    """Return what an error record says of its cell."""
    facts = cell.public.to_json()
    return {"cell": facts["cell"], "loss_label": facts["loss_label"], "family": facts["family"]}


def _libraries(loss: LossSpec) -> dict:
    """Return the versions of other libraries that a loss came from, and the arguments that the adapter set
    beside those given.
    """
    terms = [term for term in loss.terms if term.library]
    if not terms:
        return {}
    from lossbench.catalogue import adapters

    versions = {term.library: adapters.version(term.library) for term in terms}
    return {
        "loss_libraries": versions,
        "loss_injected": {f"{t.library}:{t.name}": adapters.injected(t.library, t.name) for t in terms},
    }


# How many cells train together


def even(items: list[Item], size: int) -> list[list[Item]]:
    """Cut a list into as few parts of at most ``size`` as possible, of nearly equal length."""
    parts = -(-len(items) // size)
    return [items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts)]


def _size(cells: list[Cell], task: dict) -> int:
    """Return how many of these cells to train together."""
    if task["size"] or not cells[0].recipe.stacked or len(cells) < 3:
        return task["size"] or len(cells)
    return fastest(jobs_of(cells, task["extra_files"]), task["device"])


def fastest(jobs: list[Any], device: str) -> int:
    """Return how many of these jobs to train together on this device, at least 2; measured once a worker,
    recipe and image shape.

    ``jobs`` are trained for a few steps and thrown away: a loss that remembers its calls must not be trained
    for real afterwards."""
    data = jobs[0].data
    kind = (jobs[0].cell.recipe.digest, data.images.shape[1:], len(data.classes), device)
    if kind not in _sizes:
        _sizes[kind] = double(lambda count: step_seconds(jobs, device, count), len(jobs))
    return _sizes[kind]


def double(seconds: Callable[[int], float | None], most: int) -> int:
    """Return the number of cells, 2, 4, 8, ... up to ``most``, from which on twice as many gain nothing.

    ``seconds(count)`` is what a step of that many takes, or None where they do not fit into memory.
    """
    best, cost = 2, seconds(2)
    while 2 * best <= most:
        taken = seconds(2 * best)
        if cost is None or taken is None or taken / (2 * best) > WORTH * cost / best:
            break
        best, cost = 2 * best, taken
    return best


def step_seconds(jobs: list[Any], device: str, count: int) -> float | None:
    """Return the median seconds of a step of ``count`` cells (the jobs in turn), or None when they do not fit
    or do not train.
    """
    import torch

    from lossbench.training.train import reading, train

    # A few steps and the evaluation after them, which needs memory, too: the first ones prepare, the last one
    # validates. On a card steps are reported when the losses are read, so many at a time.
    burst = reading(device)
    steps = max(STEPS, BURSTS * burst)
    short = jobs[0].cell.recipe.model_copy(update={"steps": steps, "validations": 1})
    jobs = [replace(job, cell=replace(job.cell, recipe=short)) for job in jobs]
    marks: list[float] = []

    def on_step(step: int, losses: list[float]) -> None:
        if step % burst == 0:
            marks.append(time.perf_counter())

    try:
        train(list(itertools.islice(itertools.cycle(jobs), count)), on_step=on_step, device=device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    if len(marks) < steps // burst:  # all cells failed
        return None
    return statistics.median(b - a for a, b in itertools.pairwise(marks[:-1])) / burst
