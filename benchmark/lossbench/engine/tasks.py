"""What the engine takes and gives back: tasks, options, events, results.

A *task* is a function of the module level and a payload; the function writes its own records through the
store, reports by ``worker.emit`` what happens, and returns a small summary. ``engine.run`` says how it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossbench.base.process import usable_workers

# Cells trained together on a CPU: two to eight are alike there (docs/speed_stack.md), and fewer leave
# smaller pieces to a sweep that is interrupted.
STACK = 4


@dataclass(frozen=True)
class EngineOptions:
    """Where a sweep trains and how; the command line builds it once, everything below takes it whole."""

    workers: int | None = None  # processes of one thread on this machine; None: ``usable_workers``
    serial: bool = False  # in this process, one task after the other
    cluster: str | Path | None = None  # a TOML file that describes a batch system
    scheduler: str | Path | None = None  # address or file of a Dask scheduler that runs already
    gpus: tuple[str, ...] = ()  # what CUDA_VISIBLE_DEVICES holds for each card of this machine
    per_gpu: int = 1  # workers that share each card
    device: str = "cpu"
    stack: int | None = STACK  # cells trained together; None: as many as are worth it
    time_limit: float | None = None  # seconds after which a task is stopped with its worker
    until: float | None = None  # by ``time.monotonic``; later no task begins, and what runs is ended
    engine: str | None = None  # a name of ``run.LAUNCHERS``; None: what the options above say
    insecure: bool = False  # whether workers of another place may be talked to without TLS
    keep: bool = False  # whether the weights of each cell are kept, for its predictions
    logs: Path | None = None  # folder for what workers and jobs print; None: theirs is lost at the end

    @property
    def launcher(self) -> str:
        """Which way the tasks run: a name of ``run.LAUNCHERS``."""
        if self.engine:
            return self.engine
        if self.serial:
            return "serial"
        return "scheduler" if self.scheduler else "cluster" if self.cluster else "local"

    @property
    def over(self) -> bool:
        """Whether it is too late for a task to begin."""
        return self.until is not None and time.monotonic() > self.until

    @property
    def count(self) -> int:
        """How many tasks run at a time on this machine."""
        return 1 if self.serial else len(self.gpus) * self.per_gpu or self.workers or usable_workers()


@dataclass(frozen=True)
class Task:
    """A unit of work: a unique ``name`` for people, a JSON-able ``payload``, its cells, its expected cost.

    ``group`` (data set, recipe) is what durations are learnt for; ``time_limit`` in seconds goes before that
    of the options. Tasks that are ``apart`` by one name run in a process that no other task ever shares."""

    name: str
    payload: Any
    cells: tuple[str, ...] = ()
    cost: float = 1.0
    group: str = ""
    time_limit: float | None = None
    apart: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a task: ``kind`` is "ok", "error" (it raised), "killed" (its workers died) or "time
    limit"; after a ``fatal`` one no other task would fare better.
    """

    task: Task
    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""
    user_error: bool = False
    fatal: bool = False
    attempts: int = 1
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.kind == "ok"


@dataclass(frozen=True)
class Summary:
    """How a run went; ``left`` tasks have no result, since it was ``interrupted`` by Ctrl-C or SIGTERM, or
    their time was over.
    """

    ok: int
    failed: int
    left: int
    interrupted: bool
    seconds: float


@dataclass(frozen=True)
class Calls:
    """The caller's callbacks, called in the caller's thread.

    Events are dicts with a ``kind``, and with ``task`` (its name) where they belong to one:

    - ``engine``: text
    - ``start``: worker, attempt, owner
    - ``step``: cell, step, steps, loss; thinned
    - ``cell``: cell, outcome, seconds
    - ``end``: ok
    - ``lost``: why, owner; its worker died, and it runs again
    - ``tick``: workers, running; about twice a second
    """

    event: Callable[[dict], None]
    result: Callable[[Result], None]
