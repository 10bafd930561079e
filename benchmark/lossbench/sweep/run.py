"""From an experiment to its records: what is missing, in which order it is trained, on which workers; an
interrupted sweep resumes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.base.machine import usable_cores
from lossbench.engine import run as runs
from lossbench.engine import tasks as taskss
from lossbench.experiment.cells import Cell
from lossbench.store.store import Store
from lossbench.sweep import work
from lossbench.sweep.plan import Plan


def open_results(results: str | Path, say: Callable[[str], None]) -> None:
    """Make sure that the folder can be written, and say which damaged files were set aside (their cells are
    trained again).
    """
    store = Store(results)
    store.open_for_writing()
    for note in store.notes:
        say(note)


def tasks(
    planned: Plan,
    cells: list[Cell],
    results: Path,
    provenance: dict,
    device: str,
    size: int | None = work.CPU,
) -> list[taskss.Task]:
    """Return the tasks that train these cells: stacks of one block where it has two or more cells left, else
    across seeds.

    Stacks larger than the usual ones hold cells of all seeds of a data set and recipe. Without a ``size`` a
    task holds many of them, and its worker finds out how many to train together.
    """
    small = size is not None and size <= work.CPU
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
            cut += work.even(group, size or work.HANDED)
    for lone in single.values():
        cut += work.even(lone, size or work.HANDED)
    order = {cell.key: number for number, cell in enumerate(planned.cells)}
    cut.sort(key=lambda stack: min(order[cell.key] for cell in stack))
    return [
        taskss.Task(
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
    size: int | None = work.CPU,
    mode: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> tuple[taskss.Summary, int, list[str]]:
    """Train the cells ``todo`` into a folder that ``open_results`` has opened; return how the run went, how
    many it trained, and one sentence for each kind of failure.
    """
    from lossbench.engine import display as progress

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

    def on_result(result: taskss.Result) -> None:
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
                store.write_error(
                    key,
                    cell.loss.fingerprint,
                    error=result.error,
                    kind=result.kind,
                    trace=result.trace,
                    attempts=result.attempts,
                )

    waiting = list(todo)
    engine = {
        "workers": workers, "serial": serial, "cluster": cluster, "scheduler": scheduler, "gpus": gpus, "per_gpu": per_gpu,
        "time_limit": time_limit, "logs": logs,
    }  # fmt: skip
    count = 1 if serial else len(gpus) * per_gpu or workers or usable_cores()
    while waiting:
        queue = tasks(planned, waiting, folder, provenance, device, size)
        busy.clear()
        with progress.show(queue, workers=count, mode=mode) as display:
            summary = runs.run(queue, work.run_stack, on_event=on_event, on_result=on_result, **engine)
        if summary.interrupted or not busy:
            break
        # Another sweep on this folder holds these cells: wait for its records, train what it leaves behind.
        say(f"another sweep on {results} is training {len(busy)} cells; waiting for them")
        _, free = store.wait(sorted(busy))
        waiting = [by_key[key] for key, _ in free]
    return (
        summary,
        len(trained),
        [f"{text} ({count} cell{'s' * (count > 1)})" for text, count in failures.most_common()],
    )


def check_losses(cells: list[Cell]) -> None:
    """Call each distinct loss once on tiny inputs, so that an impossible parameter stops the sweep before
    anything starts.
    """
    import torch

    from lossbench.catalogue.registry import get_loss

    for spec in {cell.loss.text: cell.loss for cell in cells}.values():
        function = get_loss(spec)
        complaint = None
        for classes in (2, 12):  # a loss may name classes that only a larger set has
            logits = torch.linspace(-1, 1, 2 * classes * 8 * 8).reshape(2, classes, 8, 8)
            target = (logits[:, 1] > 0.3).long()
            frequency = torch.full((classes,), 1 / classes)
            try:
                function(
                    logits,
                    target,
                    distance_map=torch.zeros_like(logits),
                    class_frequency=frequency,
                    progress=0.5,
                )
            except UserError as error:
                complaint = complaint or error
            except (
                Exception,
                SystemExit,
            ):  # a user's loss may not suit this shape; if it suits none, its own cells will say so
                complaint = None
                break
            else:
                complaint = None
                break
        if complaint:
            raise UserError(f"loss '{spec.label}': {complaint}")
