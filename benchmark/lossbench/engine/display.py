"""What a person or a machine sees while cells run: live bars on a terminal, plain lines elsewhere, JSON lines
on request.

    with display.show(tasks, workers=2, mode="auto") as shown:         # auto, live, plain, json or quiet
        engine.run(tasks, function, on_event=shown.event, on_result=shown.result)

A ``Board`` counts what the events say and foretells the end; a ``Display`` shows it. Bars and plain lines go
to stderr, JSON lines to stdout. Nothing that happens to the output stops a sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from lossbench.base.errors import UserError, nearest
from lossbench.engine.tasks import Result, Task

ROWS = 12  # running tasks that a terminal shows

NAMED = 3  # running tasks that a plain line names

STARTED = 0.02  # share of a task that is done when its speed means something: first steps pay for imports


@dataclass
class Running:
    """A task on a worker: since when, and the last that was heard of each of its cells."""

    since: float
    steps: dict[str, tuple[float, float]] = field(default_factory=dict)  # cell -> (fraction done, loss)
    text: str = ""


class Board:
    """The state of a sweep as its events tell it: counts of cells, the running tasks, and the time left.

    Time left: the seconds that a unit of cost takes are learnt for each group (data set and recipe) from its
    finished tasks and from the running ones as far as they are; a group not seen yet takes the mean of all.
    What is left of the cost, so weighted, is shared by the workers, and never less than a running task still
    needs."""

    def __init__(self, tasks: Sequence[Task], workers: int, now: Callable[[], float] = time.monotonic):
        self.tasks = {task.name: task for task in tasks}
        self.total = sum(max(1, len(task.cells)) for task in tasks)
        self.workers = workers
        self.running: dict[str, Running] = {}
        self.settled: set[str] = set()
        self.outcomes: dict[str, str] = {}  # cell -> done, collapsed, failed
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # group -> [seconds, cost]
        self.ahead: dict[str, float] = defaultdict(float)  # group -> cost of its tasks without a result
        for task in tasks:
            self.ahead[task.group] += task.cost
        self._now, self._start = now, now()

    @property
    def elapsed(self) -> float:
        return self._now() - self._start

    @property
    def finished(self) -> int:
        return len(self.outcomes)

    @property
    def collapsed(self) -> int:
        return sum(outcome == "collapsed" for outcome in self.outcomes.values())

    @property
    def failed(self) -> int:
        return sum(outcome == "failed" for outcome in self.outcomes.values())

    def event(self, event: dict[str, Any]) -> None:
        """Take an event of the engine."""
        kind, name = event["kind"], event.get("task", "")
        if kind == "tick":
            self.workers = event["workers"]
        elif kind == "cell":
            self.outcomes[event["cell"]] = event.get("outcome", "done")
        elif kind == "start" and name not in self.settled:  # else a late start of a task that was stopped
            self.running[name] = Running(self._now())
        elif kind in ("lost", "end"):
            self.running.pop(name, None)
        elif kind == "step" and name in self.running:
            running, step, steps = self.running[name], event["step"], event["steps"]
            running.steps[event["cell"]] = step / steps, event["loss"] or 0.0
            running.text = f"{step}/{steps}"

    def result(self, result: Result, again: bool = False) -> None:
        """Take the result of a task: all its cells are settled, but for those that another sweep trains, and,
        with ``again``, for those that are tried once more.
        """
        task, value = result.task, result.value if isinstance(result.value, dict) else {}
        self.running.pop(task.name, None)
        self.settled.add(task.name)
        self.ahead[task.group] -= task.cost
        busy = set(value.get("busy", ()))
        # They are the other sweep's to count; here they would keep the bar from its end.
        self.total -= len(busy)
        # What a worker reported of a cell stays: one may have been finished before its task failed.
        for cell in task.cells or (task.name,):
            if cell not in busy and not again:
                self.outcomes.setdefault(cell, "done" if result.ok else "failed")
        if result.ok and not busy:  # a task that failed, or left cells to another sweep, teaches no duration
            self.spent[task.group][0] += result.seconds
            self.spent[task.group][1] += task.cost

    def fraction(self, name: str) -> float:
        """How much of a running task is done, as its cells reported, 0 to 1."""
        running = self.running[name]
        return min(1.0, sum(f for f, _ in running.steps.values()) / max(1, len(self.tasks[name].cells)))

    def left(self) -> float | None:
        """Seconds until the end, or None while nothing is known."""
        known = {group: list(pair) for group, pair in self.spent.items()}
        for name, running in self.running.items():
            task, fraction = self.tasks[name], self.fraction(name)
            if fraction > STARTED:
                pair = known.setdefault(task.group, [0.0, 0.0])
                pair[0] += self._now() - running.since
                pair[1] += task.cost * fraction
        seconds, cost = (sum(pair[i] for pair in known.values()) for i in (0, 1))
        if not cost or not self.workers:
            return 0.0 if self.finished >= self.total else None
        # A group that has not been seen yet takes the mean rate of all.
        rates = {group: spent / done for group, (spent, done) in known.items() if done}

        def need(group: str, ahead: float) -> float:
            return ahead * rates.get(group, seconds / cost)

        total = sum(need(group, ahead) for group, ahead in self.ahead.items())
        longest = 0.0  # a running task cannot be shared
        for name in self.running:
            task, fraction = self.tasks[name], self.fraction(name)
            total -= need(task.group, task.cost * fraction)
            longest = max(longest, need(task.group, task.cost * (1 - fraction)))
        return max(total / self.workers, longest, 0.0)

    def counts(self) -> str:
        """``12/16 cells, 1 collapsed, 2 failed``."""
        more = [f"{n} {what}" for n, what in ((self.collapsed, "collapsed"), (self.failed, "failed")) if n]
        return ", ".join([f"{self.finished}/{self.total} cells", *more])

    def summary(self) -> str:
        """The last line: what was done, in what time."""
        return f"{self.counts()} in {clock(self.elapsed)}"

    def describe(self, name: str) -> str:
        """A running task in a few words: its name, cut where it is long, and its step."""
        short = name if len(name) <= 40 else name[:39].rstrip(" ,·") + "…"
        return f"{short} {self.running[name].text}".rstrip()

    def last(self, name: str) -> str:
        """Step and mean loss that a running task reported last."""
        running = self.running[name]
        losses = [loss for _, loss in running.steps.values()]
        return f"{running.text} loss {sum(losses) / len(losses):.3g}" if losses else "starting"


def clock(seconds: float) -> str:
    """``3.2s``, ``45s``, ``2m05s``, ``3h07m``."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _ended(result: Result, again: bool) -> str:
    """Say how a task ended badly; of a stack that is no failure yet, since one cell may have ended all."""
    name, error = result.task.name, result.error
    return f"{name}: {error}; its cells are tried again" if again else f"{name}: failed: {error}"


class Display:
    """Counts what happens on a ``Board`` and shows nothing; the base of the others, and the mode "quiet"."""

    def __init__(self, tasks: Sequence[Task], workers: int, stream: TextIO):
        self.board = Board(tasks, workers)
        self.stream = stream

    def event(self, event: dict) -> None:
        """Take an event of the engine."""
        self.board.event(event)
        with contextlib.suppress(OSError, ValueError):  # a closed pipe, a closed file
            self.show_event(event)

    def result(self, result: Result, again: bool = False) -> None:
        """Take the result of a task; ``again``: it ended badly, and its cells are tried once more, each
        alone.
        """
        self.board.result(result, again)
        with contextlib.suppress(OSError, ValueError):
            self.show_result(result, again)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.finish()

    def show_event(self, event: dict) -> None: ...

    def show_result(self, result: Result, again: bool) -> None: ...

    def finish(self) -> None: ...


class Plain(Display):
    """A line now and then: often at first, once a minute in a long sweep; troubles at once."""

    shown = -1e9  # so that the first line comes at once

    def show_event(self, event: dict) -> None:
        if event["kind"] == "engine":
            self.line(event["text"])
        elif event["kind"] == "lost":
            self.line(f"{event['task']}: {event['why']}; it runs again")
        # Often in the first minute, rarely in a sweep of hours: a log file should stay short.
        elif self.board.elapsed - self.shown >= max(2.0, min(60.0, self.board.elapsed / 20)):
            self.shown = self.board.elapsed
            self.line(self.status())

    def show_result(self, result: Result, again: bool) -> None:
        if not result.ok:
            self.line(_ended(result, again))

    def finish(self) -> None:
        self.line(self.board.summary())

    def status(self) -> str:
        board, parts = self.board, [self.board.counts()]
        left = board.left()
        if left is not None and board.finished < board.total:
            parts.append(f"eta {clock(left)}")
        running = [board.describe(name) for name in list(board.running)[:NAMED]]
        if running:
            more = len(board.running) - len(running)
            parts.append("running: " + ", ".join(running) + (f" and {more} more" if more else ""))
        elif board.finished < board.total and not board.workers:
            parts.append("waiting for workers")
        return ", ".join(parts)

    def line(self, text: str) -> None:
        self.stream.write(f"[{clock(self.board.elapsed):>7}] {text}\n")
        self.stream.flush()


class JsonLines(Display):
    """One JSON object a line: every event but "tick" as it comes, and every two seconds where the sweep
    stands.
    """

    shown = -1e9

    def show_event(self, event: dict) -> None:
        if event["kind"] != "tick":
            self.line(event)
        elif self.board.elapsed - self.shown >= 2:
            self.shown = self.board.elapsed
            self.line(self.standing("progress"))

    def show_result(self, result: Result, again: bool) -> None:
        facts = {
            "kind": "result",
            "task": result.task.name,
            "outcome": result.kind,
            "error": result.error,
            "again": again,
            "attempts": result.attempts,
            "cells": list(result.task.cells),
            "seconds": result.seconds,
        }
        self.line(facts)

    def finish(self) -> None:
        self.line(self.standing("finished"))

    def standing(self, kind: str) -> dict:
        board = self.board
        return {
            "kind": kind,
            "cells": board.finished,
            "of": board.total,
            "collapsed": board.collapsed,
            "failed": board.failed,
            "running": len(board.running),
            "workers": board.workers,
            "eta": board.left(),
        }

    def line(self, facts: dict) -> None:
        # By str where JSON has no word for something: a line of a log is no reason to stop a sweep.
        self.stream.write(json.dumps({"time": round(self.board.elapsed, 3), **facts}, default=str) + "\n")
        self.stream.flush()


class Live(Display):
    """A bar for all cells and a row for each running task, redrawn a few times a second."""

    def __init__(self, tasks: Sequence[Task], workers: int, stream: TextIO):
        super().__init__(tasks, workers, stream)
        from rich import console
        from rich.live import Live as RichLive

        class Console(console.Console):
            def on_broken_pipe(self) -> None:  # rich would exit the program
                self.quiet = True

        self.console = Console(file=stream)
        # Transient: at the end the bars go, and one line says what was done.
        self.live = RichLive(
            get_renderable=self.draw, console=self.console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Display:
        with contextlib.suppress(OSError, ValueError):
            self.live.start()
        return self

    def show_event(self, event: dict) -> None:
        if event["kind"] == "lost":
            self.note(f"{event['task']}: {event['why']}; it runs again")

    def show_result(self, result: Result, again: bool) -> None:
        if not result.ok:
            self.note(_ended(result, again))

    def finish(self) -> None:
        self.live.stop()
        self.note(self.board.summary())

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def draw(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        board, left = self.board, self.board.left()
        table = Table.grid(padding=(0, 1))
        # 56 columns are for the bar (24) and for step, loss and time beside it.
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(20, self.console.width - 56))
        table.add_column(width=24)
        table.add_column(no_wrap=True)
        eta = f"eta {clock(left)}" if left is not None else "waiting for workers" if not board.workers else ""
        bar = ProgressBar(total=max(1, board.total), completed=board.finished, width=24)
        table.add_row(Text(board.counts(), style="bold"), bar, Text(f"{clock(board.elapsed)} {eta}"))
        rows = list(board.running)[: max(1, min(ROWS, self.console.height - 4))]
        for name in rows:
            done = ProgressBar(total=1.0, completed=board.fraction(name), width=24)
            table.add_row(Text("  " + name), done, Text(board.last(name)))
        if len(board.running) > len(rows):
            table.add_row(Text(f"  and {len(board.running) - len(rows)} more", style="dim"), "", "")
        return table


MODES = {"live": Live, "plain": Plain, "json": JsonLines, "quiet": Display}


def show(tasks: Sequence[Task], workers: int, mode: str = "auto", stream: TextIO | None = None) -> Display:
    """Return the display for a mode; "auto" is live on a terminal and plain elsewhere."""
    if mode == "auto":
        # Of stderr, on which bars are drawn: stdout may go into a file all the same.
        tty = (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"
        mode = "live" if tty else "plain"
    if mode not in MODES:
        raise UserError(f"there is no display '{mode}'{nearest(mode, ['auto', *MODES])}")
    return MODES[mode](tasks, workers, stream or (sys.stdout if mode == "json" else sys.stderr))
