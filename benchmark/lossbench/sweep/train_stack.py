"""One task on a worker: open the data, train a stack of cells, score them, write their records.

A task is pure and may be repeated: what is recorded is not trained again, and a record would be the same
bytes. How many cells train together changes no number, so a worker may find out by itself what is fastest.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lossbench.base.errors import UserError
from lossbench.base.files import file_hash, write_atomically
from lossbench.catalogue.registry import get_dataset, get_loss
from lossbench.engine.run import run
from lossbench.engine.tasks import EngineOptions, Task
from lossbench.engine.worker import emit, readable
from lossbench.experiment.cells import Cell, Recipe
from lossbench.store import provenance as origins
from lossbench.store.store import Store

if TYPE_CHECKING:
    from lossbench.training.blocks import Job, Trained
    from lossbench.training.train import Training

PREDICTIONS = "predictions"  # folder beside the records

HANDED = 64  # trunks in a task whose worker finds out by itself how many to train together

WORTH = 0.95  # a stack of twice the cells must bring a cell's step down to this share of what it took

# Steps that are timed: single ones where each is reported, else bursts between two reports.
STEPS, BURSTS = 8, 4

# Seconds between two states that are kept of a training; more where writing one would take more than a
# fiftieth of the time.
EVERY, RARELY = 20.0, 50

KEPT = 4  # data sets that a worker keeps open

Item = TypeVar("Item")

_open_data: OrderedDict[tuple, Any] = OrderedDict()

OTHER = "code of another library"  # who changed a process in which no file of a user's is run

_noted: set[tuple[str, str]] = set()  # who changed what in this process

_sizes: dict[tuple, int] = {}  # (recipe, shape of an image, classes, device) -> what this worker has measured


def train_aside(
    cells: list[Cell], folder: Path, extra_files: Iterable[str], size: int | None = None
) -> Store:
    """Train cells of one block here and now, into a folder beside all results; return its records.

    KeyboardInterrupt where it was told to stop."""
    facts = payload(cells, folder, extra_files, origins.collect(results=folder), size=size)
    task = Task(cells[0].title, facts, tuple(cell.key for cell in cells), apart=apart(cells[0]))
    if run([task], run_stack, EngineOptions(serial=True)).interrupted:
        raise KeyboardInterrupt
    return Store(folder)


def payload(
    cells: list[Cell],
    results: Path,
    extra_files: Iterable[str],
    provenance: dict,
    device: str = "cpu",
    size: int | None = None,
    keep: bool = False,
) -> dict:
    """Return what a worker needs to train these cells, as plain JSON values.

    ``size``: how many trunks to train together; None: as many as are worth it. ``keep``: whether weights are
    kept, too (``predictions``)."""
    return {
        "results": str(results),
        "extra_files": [str(Path(file).resolve()) for file in extra_files],
        "provenance": provenance,
        "device": device,
        "size": size,
        "keep": keep,
        "cells": [cell.to_json() for cell in cells],
    }


def run_stack(task: dict) -> dict:
    """Train the cells of one payload that nobody has recorded or is training; return the outcome of each."""
    import torch

    from lossbench.sweep import guard

    # One thread unless asked otherwise: workers share the cores, and sums over threads differ in their last
    # bits.
    torch.set_num_threads(_threads())
    # Of a recipe's float32 cuDNN would otherwise use 10 of 23 bits in convolutions.
    torch.backends.cudnn.allow_tf32 = False
    guard.begin()
    store, extra_files = Store(task["results"]), tuple(task["extra_files"])
    cells = [Cell.from_json(facts, extra_files) for facts in task["cells"]]
    outcomes: dict[str, str] = {}
    # Whatever another worker holds or has recorded is left to it; the sweep waits for it at the end.
    with store.claim(*leased(cells)) as mine:
        todo = [cell for cell in cells if cell.pair in mine]
        for trunks in alike(todo).values():
            for stack in even(trunks, _size(trunks, task)):
                outcomes |= _train_stack([cell for trunk in stack for cell in trunk], task, store)
    busy = [cell.key for cell in cells if cell.pair not in mine and not store.has(*cell.pair)]
    return {"outcomes": outcomes, "busy": busy}


def leased(cells: Iterable[Cell]) -> tuple[list[tuple[str, str]], dict[tuple[str, str], str]]:
    """Return what the store knows these cells by, and the trunk of each, which one lease covers."""
    trunks = {cell.pair: cell.trunk for cell in cells}
    return list(trunks), trunks


def _threads() -> int:
    return int(os.environ.get("LOSSBENCH_THREADS", "1"))


def alike(cells: Iterable[Cell]) -> dict[tuple, list[list[Cell]]]:
    """Return the trunks of these cells, each with its cells by length, sorted into those that can be one
    stack.

    These have the same lengths, and share them or not: so what is left of a stack is the same stack."""
    trunks: dict[str, list[Cell]] = {}
    for cell in cells:
        trunks.setdefault(cell.trunk, []).append(cell)
    groups: dict[tuple, list[list[Cell]]] = {}
    for trunk in trunks.values():
        trunk.sort(key=lambda cell: cell.recipe.steps)
        kind = apart(trunk[0]), bool(trunk[0].alone), *(cell.recipe.steps for cell in trunk)
        groups.setdefault(kind, []).append(trunk)
    return groups


def apart(cell: Cell) -> str:
    """Name the files of the user's that run when this cell trains; "" where there are none.

    Cells of one name share stacks and processes with each other, and with no others."""
    return ", ".join(dict.fromkeys(f"{kind} {entry.file}" for kind, entry in _own(cell)))


def _own(cell: Cell) -> list[tuple[str, Any]]:
    losses = [term.entry for term in cell.loss.terms if term.entry]
    losses.sort(key=lambda entry: str(entry.file))
    entries = [("data", cell.data.entry), ("network", cell.network.entry), *(("loss", e) for e in losses)]
    return [(kind, entry) for kind, entry in entries if entry and entry.own]


def _train_stack(cells: list[Cell], task: dict, store: Store) -> dict[str, str]:
    from lossbench.networks.build import check_shape
    from lossbench.sweep import guard
    from lossbench.training.blocks import network_of
    from lossbench.training.train import Training

    # Without their folders, since what is said goes into records of errors.
    who = ", ".join(dict.fromkeys(entry.file.name for _, entry in _own(cells[0])))
    jobs = jobs_of(cells, task["extra_files"])
    check_shape(network_of(jobs[0]), cells[0].recipe.batch)
    _note(who, guard.settle(who) if who else guard.restore())

    def on_step(steps: int, step: int, losses: list[float]) -> None:
        for place, loss in zip(training.places[steps], losses, strict=True):
            emit("step", cell=cells[place].key, step=step, steps=steps, loss=loss)

    training = Training(jobs, task["device"], on_step)
    kept = _Kept(cells, task, store)
    kept.go_on(training)
    facts = {**task["provenance"], "threads": _threads(), "device": task["device"]}
    outcomes, losses = {}, _losses(cells) if who else OTHER

    def keep(state: dict) -> None:
        guard.refuse(losses)  # or a later sweep would go on from what it has spoilt
        kept.keep(state)

    try:
        for finished in training.run(kept.due, keep):
            guard.refuse(losses)
            for place, result in finished.items():
                outcomes[cells[place].key] = _write(jobs[place], result, facts, store)
                if task["keep"] and not result.error:
                    _keep_weights(task["results"], cells[place].key, result.weights)
    except UserError:
        raise
    except Exception:
        guard.refuse(losses)  # it may follow from what was replaced, and says less
        raise
    kept.clear()
    return outcomes


def weights_of(results: str | Path, key: str) -> Path:
    """Return where the weights of a cell are kept until the sweep is done."""
    return Path(results) / PREDICTIONS / "weights" / f"{key}.pt"


def _keep_weights(results: str, key: str, weights: dict) -> None:
    import torch

    file, buffer = weights_of(results, key), io.BytesIO()
    torch.save(weights, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


def _losses(cells: list[Cell]) -> str:
    labels = dict.fromkeys(f"'{cell.loss.label}'" for cell in cells)
    return ("one of the losses " if len(labels) > 1 else "loss ") + ", ".join(labels)


def _note(who: str, changed: list[str]) -> None:
    """Tell the driver what a user's code changed and was set back; each change once a process."""
    for name in changed:
        if (who, name) not in _noted:
            _noted.add((who, name))
            emit("note", text=f"{who} changed {name} of its process; set back")


def _write(job: Job, result: Trained, provenance: dict, store: Store) -> str:
    """Write the record or the error of one cell, say so, and return its outcome."""
    cell, outcome = job.cell, "failed"
    if result.error:
        error = f"loss '{cell.loss.label}': {readable(result.error)}"
        store.write_error(*cell.pair, error=error, kind="error", **_named(cell))
    else:
        began = time.perf_counter()
        record = _record(job, result, provenance)
        # Scoring whole images is a good part of what a cell takes, and plans are made from this number.
        record["cost"]["seconds"] += time.perf_counter() - began
        store.write(record)
        outcome = record["outcome"]
    emit("cell", cell=cell.key, outcome=outcome, seconds=result.cost.get("seconds", 0.0))
    return outcome


class _Kept:
    """The state of one stack in the results folder: from where to go on, and when to write it again."""

    def __init__(self, cells: list[Cell], task: dict, store: Store):
        # Whose training it is; the shorter lengths do not matter, since a state says which it knows.
        trunks = sorted({f"{cell.trunk} {cell.loss.fingerprint}" for cell in cells})
        facts = task["provenance"]
        # And all that a record says of what trained it, since it says so of its first steps, too.
        where = {name: facts.get(name) for name in ("commit", "diff", "version", "packages")}
        where |= origins.environment({**facts, "threads": _threads(), "device": task["device"]})
        name = json.dumps([trunks, cells[-1].recipe.steps, where], sort_keys=True)
        self.name = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.states, self.device = store.states, task["device"]
        self.last = time.monotonic()
        self.cost = 0.0  # seconds that writing takes

    def due(self) -> bool:
        return time.monotonic() - self.last >= max(EVERY, RARELY * self.cost)

    def keep(self, state: dict) -> None:
        """Write the state of a training."""
        import torch

        began = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.states.write(self.name, buffer.getvalue())
        self.last = time.monotonic()
        self.cost = self.last - began

    def go_on(self, training: Training) -> None:
        """Let a training stand where its state says, where one was kept and can be read here."""
        import torch

        state = self.states.read(self.name)
        if state is None:
            return
        try:
            training.go_on(torch.load(io.BytesIO(state), map_location=self.device, weights_only=True))
        except Exception:  # of another version or with other lengths, say: it starts anew
            self.clear()

    def clear(self) -> None:
        self.states.clear(self.name)


def jobs_of(cells: list[Cell], extra_files: Iterable[str] = ()) -> list[Job]:
    """Return the jobs of these cells; a data set is opened once a worker."""
    from lossbench.training.blocks import Job

    files = tuple(extra_files)
    weights = start_weights(cells[0].recipe)
    return [Job(cell, _open(cell, files), _loss(cell, files), weights) for cell in cells]


def _loss(cell: Cell, files: tuple[str, ...]) -> Callable:
    from lossbench.sweep import guard

    loss = get_loss(cell.loss, files, check=False)
    if not any(term.entry and term.entry.own for term in cell.loss.terms):
        return loss
    return guard.own(loss, cell, partial(_note, f"loss '{cell.loss.label}'"))


def _open(cell: Cell, extra_files: tuple[str, ...]) -> Any:
    name = (cell.data.text, cell.seed, extra_files)
    if name not in _open_data:
        _open_data[name] = get_dataset(cell.data, cell.seed, extra_files)
        while len(_open_data) > KEPT:
            # Tasks come in the order of the plan: what was unused for longest is the least likely to return.
            _open_data.popitem(last=False)
    _open_data.move_to_end(name)
    return _open_data[name]


def start_weights(recipe: Recipe) -> Any:
    """Return the weights of the recipe's file, which must be what it was when the sweep was planned."""
    from lossbench.networks.initial import read_weights

    if recipe.weights is None:
        return None
    if file_hash(Path(recipe.weights)) != recipe.weights_hash:
        raise UserError(f"{recipe.weights}: holds other weights than those of this recipe")
    return read_weights(recipe.weights)


# What a record says


def _record(job: Job, trained: Trained, provenance: dict) -> dict:
    from lossbench.training.outcome import score

    scored = score(job, trained)
    return {
        **job.cell.public.to_json(),
        "certificate": trained.certificate,
        "cost": {**trained.cost, "stack": trained.stack},
        "provenance": {**provenance, **_libraries(job.cell)},
        **scored,
    }


def copy(cell: Cell, store: Store) -> None:
    """Write of a cell what is recorded of its twin, whose training is the same.

    It costs nothing again, and its provenance names the cell that was trained."""
    pair = cell.twin.pair
    record, error = store.read(*pair), store.read_error(*pair)
    if record:
        cost = {**dict.fromkeys(record["cost"], 0.0), "steps": 0, "stack": record["cost"]["stack"]}
        origin = {**record["provenance"], "copy_of": record["key"]}
        store.write({**record, **cell.public.to_json(), "cost": cost, "provenance": origin})
    elif error:
        facts = {name: error[name] for name in ("error", "kind", "trace", "attempts") if name in error}
        store.write_error(*cell.pair, **facts, **_named(cell))


def _named(cell: Cell) -> dict:
    """Return what an error record says of its cell."""
    facts = cell.public.to_json()
    return {"cell": facts["cell"], "loss_label": facts["loss_label"], "family": facts["family"]}


def _libraries(cell: Cell) -> dict:
    """Return the versions of other libraries that loss and network came from, and the arguments that the
    adapter of the loss set beside those given.
    """
    from lossbench.catalogue import adapters
    from lossbench.networks import adapters as networks

    library, terms = cell.network.library, [term for term in cell.loss.terms if term.library]
    facts = {"network_libraries": {library: networks.version(library)}} if library else {}
    if not terms:
        return facts
    return {
        **facts,
        "loss_libraries": {term.library: adapters.version(term.library) for term in terms},
        "loss_injected": {f"{t.library}:{t.name}": adapters.injected(t.library, t.name) for t in terms},
    }


# How many cells train together


def even(items: list[Item], size: int) -> list[list[Item]]:
    """Cut a list into as few parts of at most ``size`` as possible, of nearly equal length."""
    parts = -(-len(items) // size)
    return [items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts)]


def _size(trunks: list[list[Cell]], task: dict) -> int:
    """Return how many of these trunks to train together."""
    if not trunks[0][0].grouped:
        return 1
    if task["size"] or len(trunks) < 3:
        return task["size"] or len(trunks)
    return fastest(jobs_of([trunk[-1] for trunk in trunks], task["extra_files"]), task["device"])


def fastest(jobs: list[Job], device: str) -> int:
    """Return how many of these jobs to train together on this device, at least 2; measured once a worker,
    recipe and image shape.

    ``jobs`` are trained for a few steps and thrown away: a loss that remembers its calls must not be trained
    for real afterwards."""
    from lossbench.training.blocks import network_of

    network = network_of(jobs[0])
    kind = (jobs[0].cell.recipe.digest, network.in_channels, network.shape, network.classes, device)
    if kind not in _sizes:
        _sizes[kind] = double(lambda count: step_seconds(jobs, device, count), len(jobs))
    return _sizes[kind]


def _few(job: Job) -> Any:
    """Return a job's data with no more images to score than fill a batch."""
    split = job.data.split
    return replace(
        job.data,
        split={part: split[part][: job.cell.recipe.batch] for part in split} | {"train": split["train"]},
    )


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


def step_seconds(jobs: list[Job], device: str, count: int) -> float | None:
    """Return the median seconds of a step of ``count`` cells (the jobs in turn), or None when they do not fit
    or do not train.
    """
    import torch

    from lossbench.training.train import reading, train

    # A few steps and the evaluation after them, which needs memory, too: the first ones prepare, the last one
    # validates. On a GPU steps are reported when the losses are read, so many at a time.
    burst = reading(device)
    steps = max(STEPS, BURSTS * burst)
    short = jobs[0].cell.recipe.model_copy(update={"steps": steps, "validations": 1, "schedule": "constant"})
    jobs = [replace(job, cell=replace(job.cell, recipe=short), data=_few(job)) for job in jobs]
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
