"""The engine on Dask: keep every worker busy, notice who died and why, give up tasks that kill or hang, stop
at once.

Dask runs the tasks of a dead worker again by itself. What is added here: a sliding window of submitted tasks,
blame only for the task that was really running, time limits, the reason of a death, and an end that leaves no
process behind."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import KilledWorker, as_completed

from lossbench.base.errors import UserError
from lossbench.engine import clusters, isolated, worker
from lossbench.engine.tasks import Calls, EngineOptions, Result, Task

DEATHS = 3  # of its workers, after which a task is given up

POLL = 0.05  # seconds between looks at what has finished

TICK = 0.5  # seconds between "tick" events

GONE = 120.0  # seconds without any local worker after which they are not expected back

STEPS = 200  # "step" events a second, from all workers together, that the driver takes

_PATIENCE = 10  # times, a second apart, that a task whose worker died may find its cells held by somebody

_BLAMED_FALSELY = 10  # times that Dask may give a task up before its own count of starts is doubted


@dataclass
class Flight:
    """A submitted task: how often it was submitted and started, and where it runs now."""

    index: int
    task: Task
    future: Any = None
    submitted: int = 0
    starts: int = 0
    worker: str = ""
    pid: int = 0
    log: str = ""
    owner: str = ""
    since: float = 0.0
    not_before: float = 0.0
    found_busy: int = 0
    deaths: list[str] = field(default_factory=list)


def run(
    tasks: list[Task], function: Callable, calls: Calls, options: EngineOptions, stop: threading.Event
) -> None:
    """Run the tasks until all have a result or ``stop`` is set."""
    environment = dict(os.environ)
    settings = clusters.settings(DEATHS, local=options.launcher != "cluster")
    with dask.config.set(settings), clusters.quiet(), seen() as died:
        try:
            with clusters.connected(options) as connection:
                calls.event({"kind": "engine", "text": connection.text})
                _Driver(connection, tasks, function, calls, options, stop, died).run()
        except UserError:
            if not stop.is_set():  # else what failed to start was stopped on purpose
                raise
        finally:
            # Dask sets its workers' variables in this process, too.
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)


class _Driver:
    """One run: what waits, what is submitted, and what was seen of the workers."""

    def __init__(
        self,
        connection: clusters.Connection,
        tasks: list[Task],
        function: Callable,
        calls: Calls,
        options: EngineOptions,
        stop: threading.Event,
        died: dict[int, str],
    ):
        self.connection, self.client, self.calls = connection, connection.client, calls
        self.options, self.time_limit, self.stop, self.died = options, options.time_limit, stop, died
        self.waiting = deque(Flight(index, task) for index, task in enumerate(tasks))
        self.flying: dict[int, Flight] = {}
        self.late: set[int] = set()  # tasks that were stopped for their time
        self.elastic = options.launcher == "scheduler"
        self.local = options.launcher == "local"
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        # Events go through a topic of the scheduler: a result comes once, at the end.
        self.topic = f"lossbench-{uuid.uuid4().hex[:12]}"
        module = getattr(function, "__module__", "__main__")
        self.function = function if module == "__main__" else worker.named(function)
        self.finished = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)
        self.threads, self.looked, self.ticked, self.alive = 0, 0.0, 0.0, time.monotonic()

    def run(self) -> None:
        self.client.subscribe_topic(self.topic, lambda event: self.events.put(event[1]))
        while (self.waiting or self.flying) and not self.stop.is_set():
            self._look()
            if self.options.over:
                self.waiting.clear()
            self._submit()
            self._hear(POLL)
            self._collect()
            self._stop_the_late()

    def _look(self) -> None:
        """Count the workers, and let the caller breathe."""
        now = time.monotonic()
        if now - self.looked >= 1:
            self.looked = now
            try:
                self.threads = sum(self.client.nthreads().values())
            except Exception as error:
                if self.client.status not in ("running", "connecting"):
                    why = worker.sentence(error)
                    raise UserError(f"the Dask scheduler is gone ({why}); run it again to go on") from None
            self.connection.look()
            self.alive = now if self.threads or not self.local else self.alive
            if now - self.alive > GONE:
                raise UserError(
                    f"no worker on this machine has been alive for {GONE:.0f} s; run it again to go on"
                )
        if now - self.ticked >= TICK:
            self.ticked = now
            running = sum(bool(flight.worker) for flight in self.flying.values())
            self.calls.event({"kind": "tick", "workers": self.threads, "running": running})

    def _submit(self) -> None:
        """Keep as many tasks submitted as there are workers and a few more, so that none is idle; no more,
        so that stopping is quick.
        """
        # A cluster that adapts itself grows only while tasks wait for it.
        more = self.threads + 8 if self.elastic else max(1, self.threads // 8)
        window = self.threads + more
        while self.waiting and len(self.flying) < window:
            flight = self.waiting.popleft()
            if flight.not_before > time.monotonic():
                self.waiting.append(flight)
                break
            flight.submitted += 1
            self.flying[flight.index] = flight
            flight.future = self.client.submit(
                call_on_worker,
                self.function,
                flight.task.payload,
                flight.index,
                flight.submitted,
                self.topic,
                self.threads * len(flight.task.cells) / STEPS,
                flight.task.apart,
                flight.task.time_limit or self.time_limit,
                # A new key each time: under an old one Dask would hand back the old result, or the old error.
                key=("cell", self.topic, flight.index, flight.submitted),
                pure=False,
                retries=0,
                # Dask takes the largest first: so the order of the plan holds, also for what is tried again.
                priority=-flight.index,
            )
            self.finished.add(flight.future)

    def _hear(self, seconds: float) -> None:
        """Pass on the events of the workers."""
        with contextlib.suppress(queue.Empty):
            event = self.events.get(timeout=seconds)
            while True:
                self._event(event)
                event = self.events.get_nowait()

    def _event(self, event: dict) -> None:
        flight = self.flying.get(index := event.pop("index"))
        if flight is None or event["attempt"] != flight.submitted:
            if event["kind"] == "start" and index in self.late:  # stopped, yet Dask began it once more
                self._restart(event["worker"], event["pid"])
            return
        if event["kind"] == "start":
            if flight.worker:
                self._died(flight)
            flight.starts += 1
            flight.worker, flight.pid, flight.log = event["worker"], event["pid"], event["log"]
            flight.owner = event["owner"]
            flight.since = time.monotonic()
        elif event["worker"] != flight.worker:
            return  # late news from a worker that is dead
        elif event["kind"] == "end":
            flight.since = 0.0
        elif event["kind"] == "lost":  # its process apart; the worker itself tries again
            flight.worker, flight.since = "", 0.0
        self.calls.event({**event, "task": flight.task.name, "attempt": flight.starts})

    def _died(self, flight: Flight) -> None:
        patience = time.monotonic() + 1  # the scheduler may notice a death before the nanny knows its signal
        while self.local and flight.pid not in self.died and time.monotonic() < patience:
            time.sleep(0.02)
        flight.deaths.append(crash(flight.log) or self.died.get(flight.pid) or "its worker died")
        self.calls.event(
            {"kind": "lost", "task": flight.task.name, "why": flight.deaths[-1], "owner": flight.owner}
        )
        flight.worker = ""

    def _collect(self) -> None:
        """Take what has finished, and let Dask forget it."""
        if self.finished.is_empty():
            return
        for future, out in self.finished.next_batch(block=False):
            flight = next((f for f in self.flying.values() if f.future is future), None)
            if flight is None:
                continue  # given up meanwhile
            self._hear(0)
            flight.future = None
            error = out[1] if isinstance(out, tuple) else out
            if isinstance(out, dict):
                self._ended(flight, out)
            elif isinstance(error, KilledWorker):
                self._killed(flight)
            else:
                self._ended(flight, {"kind": "error", "error": worker.sentence(error)})

    def _ended(self, flight: Flight, out: dict) -> None:
        value = out.get("value")
        busy = isinstance(value, dict) and value.get("busy")
        if busy and flight.deaths and flight.found_busy < _PATIENCE:
            # Its own dead worker seems to hold its cells: the caller buries those leases when it hears of the
            # death.
            flight.found_busy += 1
            flight.not_before = time.monotonic() + 1
            return self._again(flight)
        self._settle(flight, Result(flight.task, attempts=max(1, flight.starts), **out))

    def _killed(self, flight: Flight) -> None:
        """Dask counts all that were assigned to a dead worker; only a task that had started there is to
        blame.
        """
        if flight.worker:
            self._died(flight)
        if len(flight.deaths) < DEATHS and flight.submitted < _BLAMED_FALSELY:
            return self._again(flight)
        error = f"{(flight.deaths or ['its worker died'])[-1]}, {max(1, len(flight.deaths))} times"
        self._settle(flight, Result(flight.task, "killed", error=error, attempts=flight.starts))

    def _again(self, flight: Flight) -> None:
        del self.flying[flight.index]
        flight.worker, flight.since = "", 0.0
        self.waiting.appendleft(flight)

    def _settle(self, flight: Flight, result: Result) -> None:
        del self.flying[flight.index]
        self.calls.result(result)

    def _stop_the_late(self) -> None:
        now = time.monotonic()
        # "since" is set by the task's own start, so that waiting in a queue costs no time.
        for flight in list(self.flying.values()):
            limit = flight.task.time_limit or self.time_limit
            if flight.task.apart:  # its worker stops it
                continue
            if limit and flight.since and now - flight.since > limit:
                seconds = now - flight.since
                # Or the task would run again elsewhere; it does not stop the worker.
                flight.future.cancel(force=True)
                self.late.add(flight.index)
                self._restart(flight.worker, flight.pid)
                error = f"stopped after {seconds:.0f} s, over its time limit of {limit:g} s"
                facts = {"error": error, "attempts": flight.starts, "seconds": seconds}
                self._settle(flight, Result(flight.task, "time limit", **facts))

    def _restart(self, address: str, pid: int) -> None:
        """End a worker that does not stop by itself; its nanny starts another."""

        def restart() -> None:
            time.sleep(0.2)  # the scheduler should have heard first that the task is cancelled
            with contextlib.suppress(Exception):
                if self.local and hasattr(signal, "SIGKILL"):
                    os.kill(pid, signal.SIGKILL)
                else:
                    self.client.restart_workers([address], timeout=30, raise_for_error=False)

        threading.Thread(target=restart, daemon=True).start()


def call_on_worker(
    function: str | Callable,
    payload: Any,
    index: int,
    attempt: int,
    topic: str,
    interval: float,
    name: str,
    limit: float | None,
) -> dict:
    """Run one task on a Dask worker, or in its process of that name; events go through its scheduler to the
    driver's topic.
    """
    from distributed import get_worker

    here = get_worker()
    facts = {"index": index, "attempt": attempt, "worker": here.address}

    def send(event: dict) -> None:
        here.log_event(topic, {**event, **facts})

    if name:
        return isolated.call(name, function, payload, send, interval=interval, limit=limit)
    return worker.call(function, payload, send, interval)


# Why a worker process died: the signal that Dask's nannies saw, or the last words of its own log


@contextlib.contextmanager
def seen() -> Iterator[dict[int, str]]:
    """Learn from the log of Dask's nannies which signal ended which process: {pid: clause}."""
    died: dict[int, str] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            end = re.match(
                r"Worker process (\d+) (?:was killed by signal (\d+)|exited with status (\d+))",
                record.getMessage(),
            )
            if end:
                pid, number, status = end.groups()
                died[int(pid)] = _clause(int(number)) if number else f"its worker exited with status {status}"

    logger, listener = logging.getLogger("distributed.nanny"), Listener()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        yield died
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _clause(number: int) -> str:
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        hint = ": out of memory, or killed by hand" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{hint}"
    return f"its worker was killed by signal {number}"


def crash(log: str) -> str:
    """The line in which a worker's log says why it crashed, when it does."""
    with contextlib.suppress(OSError):
        lines = Path(log).read_text(errors="replace").splitlines() if log else []
        fatal = [line for line in lines if line.startswith("Fatal Python error:")]
        return f"its worker crashed ({fatal[-1].removeprefix('Fatal Python error: ')})" if fatal else ""
    return ""
