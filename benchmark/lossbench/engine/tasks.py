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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """A unit of work: a unique ``name`` for people, a JSON-able ``payload``, its cells, its expected cost.

    ``group`` (data set, recipe) is what durations are learnt for; ``time_limit`` in seconds goes before
    ``run``'s."""

    name: str
    payload: Any
    cells: tuple[str, ...] = ()
    cost: float = 1.0
    group: str = ""
    time_limit: float | None = None


@dataclass(frozen=True)
class Result:
    """What became of a task: ``kind`` is "ok", "error" (it raised), "killed" (its workers died) or "time
    limit".
    """

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
    """How a run went; ``interrupted`` after Ctrl-C or SIGTERM, with ``left`` tasks that have no result."""

    ok: int
    failed: int
    left: int
    interrupted: bool
    seconds: float


@dataclass(frozen=True)
class Calls:
    """The caller's callbacks."""

    event: Callable[[dict], None]
    result: Callable[[Result], None]
