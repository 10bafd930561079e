"""One task on a worker: build the data, train a stack of cells, score them, write their records; what is
recorded is not trained again.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lossbench.base.errors import UserError
from lossbench.base.protocol import PROTOCOL
from lossbench.engine import run
from lossbench.experiment.cells import Cell, Recipe

if TYPE_CHECKING:
    from lossbench.experiment.cells import Recipe
    from lossbench.training.job import Job

# two to eight cells are alike there (docs/speed_stack.md); fewer leave smaller pieces to a sweep that is
# interrupted
CPU = 4

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
    """Return how many of these jobs to train together on this device, at least 2; measured once a worker,
    recipe and image shape.

    ``jobs`` are trained for a few steps and thrown away: a loss that remembers its calls must not be trained
    for real afterwards."""
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
    """Return the median seconds of a step of ``count`` cells (the jobs in turn), or None when they do not fit
    or do not train.
    """
    import torch

    from lossbench.experiment.cells import Recipe
    from lossbench.training.train import reading, train

    # A few steps and the evaluation after them, which needs memory, too. The first ones prepare, the last one
    # validates. On a card steps are told when the losses are read, so many at a time.
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


# --- One task on a worker: build the data, train a stack of cells, score them, write their records; what
# is recorded is not trained again.

_open_data: OrderedDict[tuple, Any] = OrderedDict()  # the last few data sets of this worker

KEPT = 4


def payload(
    cells: list[Cell],
    results: Path,
    extra_files: tuple[str, ...],
    provenance: dict,
    device: str,
    size: int | None = CPU,
) -> dict:
    """Return what a worker needs to train these cells, ``size`` of them together (None: as many as are worth
    it), as plain JSON values.
    """
    return {
        "results": str(results),
        "extra_files": [str(Path(file).resolve()) for file in extra_files],
        "provenance": provenance,
        "device": device,
        "size": size,
        "recipe": cells[0].recipe.model_dump(mode="json"),
        "cells": [
            {
                "key": cell.key,
                "fp": cell.loss.fingerprint,
                "data": cell.data.text,
                "data_identity": cell.data_identity,
                "data_label": cell.data_label,
                "loss": cell.loss.text,
                "label": cell.loss.label,
                "seed": cell.seed,
                "learning_rate": cell.learning_rate,
                "block": cell.block,
            }
            for cell in cells
        ],
    }


def run_stack(task: dict) -> dict:
    """Train the cells of one payload that nobody has recorded or is training; return the outcome of each."""
    from lossbench.store.store import Store

    store = Store(task["results"])
    pairs = [(cell["key"], cell["fp"]) for cell in task["cells"]]
    with store.claim(pairs) as mine:
        todo = [cell for cell in task["cells"] if (cell["key"], cell["fp"]) in mine]
        outcomes: dict[str, str] = {}
        for stack in even(todo, _size(todo, task)) if todo else []:
            outcomes |= _train_cells(stack, task, store)
    busy = [key for key, fp in pairs if (key, fp) not in mine and not store.has(key, fp)]
    return {"outcomes": outcomes, "busy": busy}


def _size(cells: list[dict], task: dict) -> int:
    """Return how many of these cells to train together."""
    recipe = Recipe.model_validate(task["recipe"])
    if task["size"] or not recipe.stacked or len(cells) < 3:
        return task["size"] or len(cells)
    return fastest([job(cell, task["extra_files"])[0] for cell in cells], recipe, task["device"])


def _train_cells(cells: list[dict], task: dict, store: Any) -> dict[str, str]:
    import torch

    from lossbench.training.train import train

    threads = int(os.environ.get("LOSSBENCH_THREADS", "1"))
    torch.set_num_threads(threads)
    recipe = Recipe.model_validate(task["recipe"])
    jobs, specs = zip(*(job(cell, task["extra_files"]) for cell in cells), strict=True)
    _check_shape(jobs[0].data, recipe)

    def on_step(step: int, losses: list[float]) -> None:
        for cell, loss in zip(cells, losses, strict=True):
            run.emit("step", cell=cell["key"], step=step, steps=recipe.steps, loss=loss)

    trained = train(list(jobs), recipe, on_step=on_step, device=task["device"])
    outcomes = {}
    for cell, ready, spec, result in zip(cells, jobs, specs, trained, strict=True):
        if result.error:
            store.write_error(
                cell["key"],
                cell["fp"],
                error=f"loss '{cell['label']}': {result.error}",
                kind="error",
                cell=cell,
            )
            outcomes[cell["key"]] = "failed"
        else:
            began = time.perf_counter()
            record = _record(cell, ready, spec, result, recipe, task, threads)
            record["cost"]["seconds"] += time.perf_counter() - began
            store.write(record)
            outcomes[cell["key"]] = record["outcome"]
        run.emit("cell", cell=cell["key"], outcome=outcomes[cell["key"]], seconds=result.seconds)
    return outcomes


def job(cell: dict, extra_files: list[str]) -> tuple[Any, Any]:
    """Return the ``training.Job`` and the loss spec of one cell of a payload; its data is opened once a
    worker.
    """
    from lossbench.catalogue.registry import get_loss, parse_loss
    from lossbench.training.job import Job

    spec = parse_loss(cell["loss"], tuple(extra_files), cell["label"])
    if spec.fingerprint != cell["fp"]:
        raise UserError(
            f"the source of loss '{cell['label']}' changed while the sweep ran; start the sweep again"
        )
    data = _open(cell["data"], cell["seed"], tuple(extra_files))
    return Job(
        get_loss(spec, tuple(extra_files)),
        spec.needs,
        data,
        cell["data"],
        cell["seed"],
        cell["learning_rate"],
    ), spec


def _open(text: str, seed: int, extra_files: tuple[str, ...]) -> Any:
    from lossbench.catalogue.registry import get_dataset

    key = (text, seed, extra_files)
    if key not in _open_data:
        _open_data[key] = get_dataset(text, seed, extra_files)
        while len(_open_data) > KEPT:
            _open_data.popitem(last=False)
    _open_data.move_to_end(key)
    return _open_data[key]


def _check_shape(data: Any, recipe: Recipe) -> None:
    step = 2 ** (len(recipe.widths) - 1)
    if any(size % step for size in data.masks.shape[1:]):
        shape = "x".join(map(str, data.masks.shape[1:]))
        raise UserError(
            f"images of {shape} do not fit a network of {len(recipe.widths)} levels: every side must "
            f"be divisible by {step}"
        )


def _record(
    cell: dict, ready: Any, spec: Any, trained: Any, recipe: Recipe, task: dict, threads: int
) -> dict:
    from lossbench.catalogue.registry import parse_dataset
    from lossbench.training.outcome import score

    scored = score(ready, trained, recipe.steps)
    named = parse_dataset(cell["data"], tuple(task["extra_files"])).public
    return {
        "key": cell["key"],
        "cell": {
            "dataset": named.text,
            "dataset_name": named.name,
            "data_params": named.params,
            "data_identity": cell["data_identity"],
            "data_label": cell["data_label"],
            "loss": cell["loss"],
            "loss_terms": spec.identity(),
            "seed": cell["seed"],
            "learning_rate": cell["learning_rate"],
            "block": cell["block"],
            "recipe": recipe.model_dump(mode="json"),
            "recipe_digest": recipe.digest,
            "protocol": PROTOCOL,
        },
        "loss_label": cell["label"],
        "family": spec.family,
        "loss_fingerprint": cell["fp"],
        "certificate": trained.certificate,
        "cost": {"seconds": trained.seconds, "cpu_seconds": trained.cpu_seconds, "stack": trained.stack},
        "provenance": {
            **task["provenance"],
            "threads": threads,
            "device": task["device"],
            **_libraries(spec),
        },
        **scored,
    }


def _libraries(spec: Any) -> dict:
    """Return the versions of other libraries that a loss came from, and the arguments that the adapter set
    beside those given.
    """
    terms = [term for term in spec.terms if term.library]
    if not terms:
        return {}
    from lossbench.catalogue import adapters

    versions = {term.library: adapters.version(term.library) for term in terms}
    return {
        "loss_libraries": versions,
        "loss_injected": {f"{t.library}:{t.name}": adapters.injected(t.library, t.name) for t in terms},
    }
