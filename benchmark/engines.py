"""Where tasks run: Dask's local cluster, any other Dask cluster, or this process; nothing else in the suite knows Dask.

A *task* is a stack of cells. The function that runs it writes its own records through the store and returns a small summary.

    from benchmark import engines, store

    def run_stack(payload):                              # module level: a worker finds it by its name
        results = store.Store(payload["results"])
        pairs = [(c["key"], c["fp"]) for c in payload["cells"]]
        with results.claim(pairs) as mine:               # not yet recorded, and nobody else trains them
            for key, fp in mine:
                record = train(..., on_step=lambda step, loss: engines.emit("step", cell=key, step=step, steps=300, loss=loss))
                results.write(record)
                engines.emit("cell", cell=key, outcome=record["outcome"], seconds=...)
        return {"trained": [k for k, _ in mine], "busy": [k for k, f in pairs if (k, f) not in mine and not results.has(k, f)]}

    tasks = [engines.Task(name="scenes/dice/s0", payload={...}, cells=("1f..",), cost=4.0), ...]
    summary = engines.run(tasks, run_stack, workers=2, on_event=display.event, on_result=handle)
    # handle(Result): result.ok, result.value | result.error (one sentence), result.trace, result.kind, result.task
    if summary.interrupted: ...                          # Ctrl-C or SIGTERM: everything is stopped, nothing is lost

Callbacks run in the calling thread. Events are dicts with ``kind``: ``engine`` (text), ``start`` (task, worker), ``step`` (task, cell, step, steps,
loss), ``cell`` (task, cell, outcome, seconds), ``end`` (task), ``lost`` (task, why: runs again), ``tick`` (workers; about twice a second).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """A unit of work: a unique ``name`` for people, a JSON-able ``payload``, the cells it holds and its expected cost."""

    name: str
    payload: Any
    cells: tuple[str, ...] = ()
    cost: float = 1.0
    group: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a task: ``kind`` is "ok", "error" (it raised), "killed" (its worker died each time) or "time limit"."""

    task: Task
    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""
    user_error: bool = False
    attempts: int = 1
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.kind == "ok"


@dataclass(frozen=True)
class Summary:
    """How a run went; ``interrupted`` after Ctrl-C or SIGTERM, with ``left`` tasks that did not finish."""

    ok: int
    failed: int
    left: int
    interrupted: bool
    seconds: float


def run(
    tasks: Iterable[Task],
    function: Callable[[Any], Any],
    *,
    workers: int | None = None,
    serial: bool = False,
    gpus: tuple[int, ...] = (),
    per_gpu: int = 1,
    cluster: str | Path | None = None,
    scheduler: str | Path | None = None,
    on_event: Callable[[dict], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
    time_limit: float | None = None,
    retries: int = 0,
    deaths: int = 3,
) -> Summary:
    """Run every task once, in order, and return when all are settled or the user interrupts."""
    raise NotImplementedError


def emit(kind: str, **facts: Any) -> None:
    """Called inside a task: send an event to the driver; "step" events are thinned to a few a second, and never raise."""


def usable_cores() -> int:
    """Cores this process may use: affinity and cgroup quota considered."""
    raise NotImplementedError
