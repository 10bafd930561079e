"""The state of a running sweep as its events tell it, and when it will end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark.engines import Result, Task


@dataclass
class Running:
    """A task on a worker: since when, and the last that was heard of each of its cells."""

    since: float
    steps: dict[str, tuple[float, float]] = field(default_factory=dict)  # cell -> (fraction done, loss)
    text: str = ""


class Board:
    """Counts of cells, the running tasks, and the time left.

    Time left: the seconds that a unit of cost takes are learnt for each group (data set and recipe) from its finished
    tasks and from the running ones as far as they are; a group not seen yet takes the mean of all. What is left of
    the cost, so weighted, is shared by the workers, and never less than a running task still needs."""

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
        elif kind == "start" and name not in self.settled:
            self.running[name] = Running(self._now())
        elif kind in ("lost", "end"):
            self.running.pop(name, None)
        elif kind == "step" and name in self.running:
            running, step, steps = self.running[name], event.get("step", 0), event.get("steps")
            running.steps[event.get("cell", "")] = (step / steps if steps else 0.0, event.get("loss") or 0.0)
            running.text = f"{step}/{steps}" if steps else f"{step}"

    def result(self, result: Result) -> None:
        """Take the result of a task: all its cells are settled, but for those that another sweep trains."""
        task, value = result.task, result.value if isinstance(result.value, dict) else {}
        self.running.pop(task.name, None)
        self.settled.add(task.name)
        self.ahead[task.group] -= task.cost
        busy = {cell if isinstance(cell, str) else cell[0] for cell in value.get("busy", ())}
        self.total -= len(busy)
        for cell in task.cells or (task.name,):
            if cell not in busy:
                self.outcomes.setdefault(cell, "done" if result.ok else "failed")
        if result.ok and not busy:
            self.spent[task.group][0] += result.seconds
            self.spent[task.group][1] += task.cost

    def fraction(self, name: str) -> float:
        """How much of a running task is done, as its cells reported, 0 to 1."""
        running = self.running[name]
        return min(1.0, sum(f for f, _ in running.steps.values()) / max(1, len(self.tasks[name].cells)))

    def left(self) -> float | None:
        """Seconds until the end, or None while nothing is known."""
        seen = {group: list(pair) for group, pair in self.spent.items()}
        now = self._now()
        for name, running in self.running.items():
            task, fraction = self.tasks[name], self.fraction(name)
            if fraction > 0.02:  # the first steps pay for imports and data
                pair = seen.setdefault(task.group, [0.0, 0.0])
                pair[0] += now - running.since
                pair[1] += task.cost * fraction
        seconds, cost_seen = (sum(pair[i] for pair in seen.values()) for i in (0, 1))
        if not cost_seen or not self.workers:
            return 0.0 if self.finished >= self.total else None

        def need(group: str, cost: float) -> float:
            spent, done = seen.get(group, (0.0, 0.0))
            return cost * (spent / done if done else seconds / cost_seen)

        total = sum(need(group, ahead) for group, ahead in self.ahead.items())
        longest = 0.0
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
