"""From an experiment to its records: what is missing, in which order it is trained, on which workers; an interrupted sweep resumes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import engines, stacks, work
from benchmark.cells import Cell, Experiment
from benchmark.errors import UserError
from benchmark.store import Store

GUESS = 8.0  # seconds a cell takes, as long as none of its kind has been measured


@dataclass(frozen=True)
class Plan:
    """What an experiment needs: all its cells, the state of each, and what the missing ones are expected to cost (core-seconds)."""

    experiment: Experiment
    cells: list[Cell]
    states: dict[str, Any]
    seconds: dict[tuple[str, str], float]  # (data set, recipe) -> measured seconds a cell
    notes: tuple[str, ...] = ()  # files that were set aside, and why

    @property
    def missing(self) -> list[Cell]:
        return [cell for cell in self.cells if self.states[cell.key].status != "done"]

    def counts(self) -> dict[str, int]:
        """Return how many cells are done, missing, stale, failed."""
        return dict(Counter(self.states[cell.key].status for cell in self.cells))

    def cost(self, cells: Iterable[Cell] | None = None) -> float:
        """Return the expected core-seconds of the given cells (default: all missing ones)."""
        return sum(self.cell_cost(cell) for cell in (self.missing if cells is None else cells))

    def cell_cost(self, cell: Cell) -> float:
        known = self.seconds.get((cell.data.text, cell.recipe.digest))
        return known if known is not None else GUESS * cell.recipe.steps / 300

    @property
    def measured(self) -> bool:
        """Whether every missing cell's cost rests on a measured cell of its kind."""
        return all((cell.data.text, cell.recipe.digest) in self.seconds for cell in self.missing)


def plan(experiment: Experiment, results: str | Path, cells: list[Cell] | None = None) -> Plan:
    """Return the plan of an experiment (or of some cells) against a results folder, from directory listings and a few records."""
    store = Store(results)
    cells = experiment.cells() if cells is None else cells
    states = store.state([(c.key, c.loss.fingerprint) for c in cells], {c.key: c.loss.label for c in cells})
    return Plan(experiment, cells, states, _measured(store, cells, states), tuple(store.notes))


def open_results(results: str | Path, say: Callable[[str], None]) -> None:
    """Make sure that the folder can be written, and say which damaged files were set aside (their cells are trained again)."""
    store = Store(results)
    store.open_for_writing()
    for note in store.notes:
        say(note)


def why(planned: Plan, cell: Cell, results: str | Path) -> str:
    """Return why a cell is not done, in one clause; of a failed one the reason that its error record holds."""
    state = planned.states[cell.key]
    if state.status == "failed":
        error = Store(results).read_error(cell.key, cell.loss.fingerprint)
        if error:
            return error["error"]
    return state.why


def select(planned: Plan, budget: str | None = None, shard: str | None = None, workers: int | None = None) -> list[Cell]:
    """Return the missing cells to train now: whole blocks only, those of one shard, and no more than fit the budget (at least one block)."""
    blocks: dict[str, list[Cell]] = defaultdict(list)
    for cell in planned.missing:
        blocks[cell.block].append(cell)
    if shard is not None:
        part, count = _shard(shard)
        # By position among all blocks of the experiment, so that the shards of several machines are disjoint whatever each has done.
        place = {block: number for number, block in enumerate(dict.fromkeys(cell.block for cell in planned.cells))}
        blocks = {block: cells for block, cells in blocks.items() if place[block] % count == part - 1}
    if budget is None:
        return [cell for cells in blocks.values() for cell in cells]
    left = _seconds(budget) * (workers or engines.usable_cores())
    chosen: list[Cell] = []
    for cells in blocks.values():
        left -= planned.cost(cells)
        if left < 0 and chosen:
            break
        chosen += cells
    return chosen


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: write it as i/n with 1 <= i <= n, for example 2/5")
    return int(match[1]), int(match[2])


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UserError(f"--budget {text}: write a time such as 90s, 30m or 2h")
    return float(match[1]) * {"s": 1, "": 60, "m": 60, "h": 3600}[match[2]]


def _measured(store: Store, cells: list[Cell], states: dict[str, Any], sample: int = 3) -> dict[tuple[str, str], float]:
    """Return the mean seconds of up to ``sample`` recorded cells of each kind."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in cells:
        kind = (cell.data.text, cell.recipe.digest)
        if states[cell.key].status == "done" and len(seen[kind]) < sample:
            record = store.read(cell.key, cell.loss.fingerprint)
            if record:
                seen[kind].append(record["cost"]["seconds"])
    return {kind: sum(values) / len(values) for kind, values in seen.items() if values}


def tasks(
    planned: Plan, cells: list[Cell], results: Path, provenance: dict, device: str, size: int | None = stacks.CPU
) -> list[engines.Task]:
    """Return the tasks that train these cells: stacks of one block where it has two or more cells left, else across seeds.

    Stacks larger than the usual ones hold cells of all seeds of a data set and recipe. Without a ``size`` a task holds many of them, and
    its worker finds out how many to train together.
    """
    small = size is not None and size <= stacks.CPU
    alike: dict[str | tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        alike[cell.block if small else (cell.data.text, cell.recipe.digest)].append(cell)
    cut: list[list[Cell]] = []
    single: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for group in alike.values():
        if not group[0].recipe.stacked:
            cut += [[cell] for cell in group]
        elif len(group) == 1:
            single[group[0].data.text, group[0].recipe.digest].append(group[0])
        else:
            cut += stacks.even(group, size or stacks.HANDED)
    for lone in single.values():
        cut += stacks.even(lone, size or stacks.HANDED)
    order = {cell.key: number for number, cell in enumerate(planned.cells)}
    cut.sort(key=lambda stack: min(order[cell.key] for cell in stack))
    return [
        engines.Task(
            name=_name(stack),
            payload=work.payload(stack, results, planned.experiment.extra_files, provenance, device, size),
            cells=tuple(cell.key for cell in stack),
            cost=planned.cost(stack),
            group=f"{stack[0].data.text}/{stack[0].recipe.digest}",
        )
        for stack in cut
    ]


def _name(stack: list[Cell]) -> str:
    seeds = sorted({cell.seed for cell in stack})
    named = [cell.loss.label for cell in stack] if len(seeds) == 1 else [stack[0].loss.label]
    losses = ", ".join(dict.fromkeys(named))
    return f"{stack[0].data_label} · {losses} · seed {', '.join(map(str, seeds))} · {stack[0].key[:6]}"


def run(
    planned: Plan,
    todo: list[Cell],
    results: str | Path,
    *,
    provenance: dict,
    workers: int | None = None,
    serial: bool = False,
    cluster: str | None = None,
    scheduler: str | None = None,
    gpus: tuple[str, ...] = (),
    per_gpu: int = 1,
    time_limit: float | None = None,
    logs: Path | None = None,
    device: str = "cpu",
    size: int | None = stacks.CPU,
    mode: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> tuple[engines.Summary, int, list[str]]:
    """Train the cells ``todo`` into a folder that ``open_results`` has opened; return how the run went, how many it trained, and one
    sentence for each kind of failure.
    """
    from benchmark import progress

    folder = Path(results).resolve()
    store = Store(folder)
    check_losses(todo)
    by_key = {cell.key: cell for cell in todo}
    failures: Counter[str] = Counter()
    busy: set[tuple[str, str]] = set()
    trained: set[str] = set()

    def on_event(event: dict) -> None:
        if event["kind"] == "lost" and event.get("owner"):
            store.leases.bury(event["owner"])  # what a dead worker of another host held is free at once
        display.event(event)

    def on_result(result: engines.Result) -> None:
        display.result(result)
        if result.ok:
            for key in result.value["busy"]:
                busy.add((key, by_key[key].loss.fingerprint))
            for key, outcome in result.value["outcomes"].items():
                if outcome == "failed":
                    error = store.read_error(key, by_key[key].loss.fingerprint) or {}
                    failures[error.get("error", f"cell {key} failed")] += 1
                else:
                    trained.add(key)
            return
        failures[result.error] += len(result.task.cells)
        for key in result.task.cells:
            cell = by_key[key]
            if not store.has(key, cell.loss.fingerprint):
                store.write_error(key, cell.loss.fingerprint, error=result.error, kind=result.kind, trace=result.trace, attempts=result.attempts)

    waiting = list(todo)
    engine = {
        "workers": workers, "serial": serial, "cluster": cluster, "scheduler": scheduler, "gpus": gpus, "per_gpu": per_gpu,
        "time_limit": time_limit, "logs": logs,
    }  # fmt: skip
    count = 1 if serial else len(gpus) * per_gpu or workers or engines.usable_cores()
    while waiting:
        queue = tasks(planned, waiting, folder, provenance, device, size)
        busy.clear()
        with progress.show(queue, workers=count, mode=mode) as display:
            summary = engines.run(queue, work.run_stack, on_event=on_event, on_result=on_result, **engine)
        if summary.interrupted or not busy:
            break
        # Another sweep on this folder holds these cells: wait for its records, train what it leaves behind.
        say(f"another sweep on {results} is training {len(busy)} cells; waiting for them")
        _, free = store.wait(sorted(busy))
        waiting = [by_key[key] for key, _ in free]
    return summary, len(trained), [f"{text} ({count} cell{'s' * (count > 1)})" for text, count in failures.most_common()]


def check_losses(cells: list[Cell]) -> None:
    """Call each distinct loss once on tiny inputs, so that an impossible parameter stops the sweep before anything starts."""
    import torch

    from benchmark.registry import get_loss

    for spec in {cell.loss.text: cell.loss for cell in cells}.values():
        function = get_loss(spec)
        complaint = None
        for classes in (2, 12):  # a loss may name classes that only a larger set has
            logits = torch.linspace(-1, 1, 2 * classes * 8 * 8).reshape(2, classes, 8, 8)
            target = (logits[:, 1] > 0.3).long()
            frequency = torch.full((classes,), 1 / classes)
            try:
                function(logits, target, distance_map=torch.zeros_like(logits), class_frequency=frequency, progress=0.5)
            except UserError as error:
                complaint = complaint or error
            except (Exception, SystemExit):  # a user's loss may not suit this shape; if it suits none, its own cells will say so
                complaint = None
                break
            else:
                complaint = None
                break
        if complaint:
            raise UserError(f"loss '{spec.label}': {complaint}")
