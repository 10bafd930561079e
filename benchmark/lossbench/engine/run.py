"""Running tasks: on Dask's local cluster, on any other Dask cluster, or in this process.

    def train_stack(payload): ...              # at module level, so that a worker finds it by its name

    tasks = [Task("scenes · dice · seed 0", {...}, cells=("1f..",), cost=4.0, group="scenes"), ...]
    options = EngineOptions(workers=2)
    summary = run(tasks, train_stack, options, on_event=display.event, on_result=handle)
    if summary.interrupted: ...                # Ctrl-C or SIGTERM: all is stopped, nothing is lost

``handle`` gets a ``Result``: ``result.ok`` and ``result.value``, or ``result.kind``, ``result.error`` (one
sentence) and ``result.trace``.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.engine import isolated, worker
from lossbench.engine.tasks import Calls, EngineOptions, Result, Summary, Task


def run(
    tasks: Iterable[Task],
    function: Callable[[Any], Any],
    options: EngineOptions | None = None,
    *,
    on_event: Callable[[dict], None] = lambda event: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Summary:
    """Run every task, in order, and return when all have a result, the time is over or the user interrupts.

    A task whose worker dies runs again elsewhere, and is given up after a few deaths; one that raises has
    failed; one that runs over its time limit is stopped with its worker. Raises UserError when the workers
    cannot be had.
    """
    tasks, options, start = list(tasks), options or EngineOptions(), time.monotonic()
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        on_result(result)

    stopped = False
    if options.launcher not in LAUNCHERS:
        raise UserError(f"there is no engine '{options.launcher}'{nearest(options.launcher, LAUNCHERS)}")
    if tasks:
        stopped = LAUNCHERS[options.launcher](tasks, function, Calls(on_event, keep), options)
    ok, left = sum(result.ok for result in results), len(tasks) - len(results)
    return Summary(ok, len(results) - ok, left, stopped and left > 0, time.monotonic() - start)


def _in_this_process(tasks: list[Task], function: Callable, calls: Calls, options: EngineOptions) -> bool:
    """Run the tasks one by one, without Dask; return whether the user interrupted. Only tasks that are apart
    have a time limit.
    """

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    # Only the main thread may set handlers, and only it hears signals.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if main else None
    try:
        for task in tasks:
            if options.over:
                break
            facts = {"task": task.name, "attempt": 1, "worker": ""}

            def send(event: dict, facts: dict = facts) -> None:
                calls.event(event | facts)

            if task.apart:
                limit = task.time_limit or options.time_limit
                out = isolated.call(task.apart, worker.named(function), task.payload, send, limit=limit)
            else:
                out = worker.call(function, task.payload, send)
            calls.result(Result(task, **out))
            calls.event({"kind": "tick", "workers": 1, "running": 0})
    except KeyboardInterrupt:
        return True
    finally:
        isolated.close()
        if main:
            signal.signal(signal.SIGTERM, before)
    return False


def _on_dask(tasks: list[Task], function: Callable, calls: Calls, options: EngineOptions) -> bool:
    """Run the tasks on Dask workers; return whether the user interrupted."""
    with stop_on_signals() as stop, tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
        from lossbench.engine import dask  # takes a second, in which Ctrl-C must be heard, too

        logs = options.logs
        if logs is not None:
            logs = Path(logs).resolve()
            _make_folder(logs)
        elif options.launcher == "local":
            logs = Path(scrap)  # in which a worker that crashes still says why
        # More workers than tasks would only cost their start.
        workers = min(options.count, len(tasks))
        dask.run(tasks, function, calls, replace(options, workers=workers, logs=logs), stop)
        return stop.is_set()


# A way to run tasks: a function of tasks, function, callbacks and options that returns whether the user
# interrupted.
LAUNCHERS = {
    "serial": _in_this_process,
    "local": _on_dask,
    "cluster": _on_dask,
    "scheduler": _on_dask,
}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"--logs {folder}: cannot be made: {why}") from None


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
