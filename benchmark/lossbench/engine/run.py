"""Where tasks run: Dask's local cluster, any other Dask cluster, or this process; nothing else in the suite
knows.

A *task* is a stack of cells. Its function writes its own records through the store and returns a small
summary.

    def run_stack(payload):                              # module level: a worker finds it by its name
        results = store.Store(payload["results"])
        pairs = [(c["key"], c["fp"]) for c in payload["cells"]]
        with results.claim(pairs) as mine:               # not yet recorded, and nobody else trains them for
            record in train(mine, on_step=lambda cell, step, loss: emit("step", cell=cell, step=step,
            loss=loss)):
                results.write(record)
                emit("cell", cell=record["key"], outcome=record["outcome"], seconds=record["cost"]["seconds"])
        return {"busy": [p for p in pairs if not results.has(*p)]}       # another sweep trains them:
        results.wait

    tasks = [engines.Task("scenes/dice/s0", {...}, cells=("1f..",), cost=4.0, group="scenes"), ...]
    summary = engines.run(tasks, run_stack, workers=2, on_event=display.event, on_result=handle)
    # handle(Result): result.ok, result.value, or result.kind, result.error (one sentence) and result.trace
    if summary.interrupted: ...                          # Ctrl-C or SIGTERM: all is stopped, nothing is lost

Callbacks run in the calling thread. Events are dicts with a ``kind``, and with ``task`` (its name) where they
belong to one: ``engine`` (text), ``start`` (worker, attempt), ``step`` (cell, step, steps, loss), ``cell``
(cell, outcome, seconds), ``end`` (ok), ``lost`` (why; it runs again; ``store.leases.bury(event["owner"])``
frees what it held, which matters where workers are on other hosts), ``tick`` (workers, running; about twice a
second). Serial runs have the same callbacks, no processes, no time limit, and import no Dask."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError
from lossbench.base.machine import usable_cores
from lossbench.engine import worker
from lossbench.engine.tasks import Calls, Result, Summary, Task
from lossbench.engine.worker import emit

__all__ = ["Result", "Summary", "Task", "emit", "run"]


def run(
    tasks: Iterable[Task],
    function: Callable[[Any], Any],
    *,
    workers: int | None = None,
    serial: bool = False,
    gpus: tuple[int | str, ...] = (),
    per_gpu: int = 1,
    cluster: str | Path | None = None,
    scheduler: str | Path | None = None,
    on_event: Callable[[dict], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
    time_limit: float | None = None,
    retries: int = 0,
    deaths: int = 3,
    logs: Path | None = None,
) -> Summary:
    """Run every task, in order, and return when all have a result or the user interrupts.

    ``workers`` processes of one thread each (default: the usable cores), or ``per_gpu`` on each of ``gpus``;
    or, from ``cluster``, a TOML file, those of a batch system; or, by ``scheduler``, those of a running Dask
    scheduler (its address or file). A task whose worker dies runs again elsewhere, and is given up after
    ``deaths`` of them; one that raises runs ``retries`` times more; one that runs over ``time_limit`` seconds
    is stopped with its worker. What workers of this machine and jobs print goes to files in the folder
    ``logs``; without one, that of workers is lost at the end. Raises UserError when the workers cannot be
    had.
    """
    tasks, start = list(tasks), time.monotonic()
    calls = Calls(on_event or (lambda event: None), on_result or (lambda result: None))
    results: list[Result] = []
    counted = Calls(calls.event, lambda result: (results.append(result), calls.result(result)))
    if serial or not tasks:
        interrupted = _run_here(tasks, function, counted, retries)
    else:
        count = min(workers or usable_cores(), len(tasks))
        with stop_on_signals() as stop, tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
            from lossbench.engine import dask  # a second, in which Ctrl-C must be heard, too

            limits = dask.Limits(time_limit, retries, deaths)
            folder = Path(logs).resolve() if logs else None if cluster else Path(scrap)
            where = dask.Where(count, tuple(gpus), per_gpu, cluster, scheduler, folder)
            if folder:
                make_folder(folder)
            dask.run(tasks, function, counted, where, limits, stop)
        interrupted = stop.is_set() and len(results) < len(tasks)
    ok = sum(result.ok for result in results)
    return Summary(ok, len(results) - ok, len(tasks) - len(results), interrupted, time.monotonic() - start)


def make_folder(folder: Path) -> None:
    """Make the folder of logs; UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--logs {folder}: cannot be made: {(error.strerror or str(error)).lower()}"
        ) from None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Inside, Ctrl-C and SIGTERM set the event instead of raising somewhere (only in the main thread)."""
    stop, before = threading.Event(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_here(tasks: list[Task], function: Callable, calls: Calls, retries: int) -> bool:
    """Run the tasks in this process, one by one; return whether the user interrupted."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if main else None
    try:
        for task in tasks:
            for attempt in range(1, retries + 2):

                def send(
                    event: dict, facts: dict = {"task": task.name, "attempt": attempt, "worker": ""}
                ) -> None:  # noqa: B006
                    calls.event({**event, **facts})

                out = worker.call(function, task.payload, send)
                if out["kind"] == "ok" or out.get("user_error"):
                    break
            calls.result(Result(task, attempts=attempt, **out))
            calls.event({"kind": "tick", "workers": 1, "running": 0})
    except KeyboardInterrupt:
        return True
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
    return False
