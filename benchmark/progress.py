"""What a person or a machine sees while cells run: live bars on a terminal, plain lines elsewhere, JSON lines on request.

    with progress.show(tasks, workers=2, mode="auto") as display:      # auto, live, plain, json or quiet
        engines.run(tasks, function, on_event=display.event, on_result=display.result)

Bars and plain lines go to stderr, JSON lines to stdout. Nothing that happens to the output stops a sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from benchmark.engines import Result, Task
from benchmark.errors import UserError, nearest
from benchmark.eta import Board, clock

ROWS = 12  # running tasks that a terminal shows
NAMED = 3  # running tasks that a plain line names


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

    def result(self, result: Result) -> None:
        """Take the result of a task."""
        self.board.result(result)
        with contextlib.suppress(OSError, ValueError):
            self.show_result(result)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.finish()

    def show_event(self, event: dict) -> None: ...

    def show_result(self, result: Result) -> None: ...

    def finish(self) -> None: ...


class Plain(Display):
    """A line now and then: often at first, once a minute in a long sweep; troubles at once."""

    shown = -1e9

    def show_event(self, event: dict) -> None:
        if event["kind"] == "engine":
            self.line(event["text"])
        elif event["kind"] == "lost":
            self.line(f"{event['task']}: {event['why']}; it runs again")
        elif self.board.elapsed - self.shown >= max(2.0, min(60.0, self.board.elapsed / 20)):
            self.shown = self.board.elapsed
            self.line(self.status())

    def show_result(self, result: Result) -> None:
        if not result.ok:
            self.line(f"{result.task.name}: failed: {result.error}")

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
    """One JSON object a line: every event but "tick" as it comes, and every two seconds where the sweep stands."""

    shown = -1e9

    def show_event(self, event: dict) -> None:
        if event["kind"] != "tick":
            self.line(event)
        elif self.board.elapsed - self.shown >= 2:
            self.shown = self.board.elapsed
            self.line(self.standing("progress"))

    def show_result(self, result: Result) -> None:
        facts = {"task": result.task.name, "outcome": result.kind, "error": result.error, "attempts": result.attempts}
        self.line({"kind": "result", **facts, "cells": list(result.task.cells), "seconds": result.seconds})

    def finish(self) -> None:
        self.line(self.standing("finished"))

    def standing(self, kind: str) -> dict:
        board = self.board
        counts = {"cells": board.finished, "of": board.total, "collapsed": board.collapsed, "failed": board.failed}
        return {"kind": kind, **counts, "running": len(board.running), "workers": board.workers, "eta": board.left()}

    def line(self, facts: dict) -> None:
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
        self.live = RichLive(get_renderable=self.draw, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        with contextlib.suppress(OSError, ValueError):
            self.live.start()
        return self

    def show_event(self, event: dict) -> None:
        if event["kind"] == "lost":
            self.note(f"{event['task']}: {event['why']}; it runs again")

    def show_result(self, result: Result) -> None:
        if not result.ok:
            self.note(f"{result.task.name}: failed: {result.error}")

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
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(20, self.console.width - 56))
        table.add_column(width=24)
        table.add_column(no_wrap=True)
        eta = f"eta {clock(left)}" if left is not None else "waiting for workers" if not board.workers else ""
        bar = ProgressBar(total=max(1, board.total), completed=board.finished, width=24)
        table.add_row(Text(board.counts(), style="bold"), bar, Text(f"{clock(board.elapsed)} {eta}"))
        rows = list(board.running)[: max(1, min(ROWS, self.console.height - 4))]
        for name in rows:
            fraction = board.fraction(name)
            table.add_row(
                Text("  " + name), ProgressBar(total=1.0, completed=fraction, width=24), Text(board.last(name))
            )
        if len(board.running) > len(rows):
            table.add_row(Text(f"  and {len(board.running) - len(rows)} more", style="dim"), "", "")
        return table


MODES = {"live": Live, "plain": Plain, "json": JsonLines, "quiet": Display}


def show(tasks: Sequence[Task], workers: int, mode: str = "auto", stream: TextIO | None = None) -> Display:
    """Return the display for a mode; "auto" is live on a terminal and plain elsewhere."""
    if mode == "auto":
        tty = (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"
        mode = "live" if tty else "plain"
    if mode not in MODES:
        raise UserError(f"there is no display '{mode}'{nearest(mode, ['auto', *MODES])}")
    return MODES[mode](tasks, workers, stream or (sys.stdout if mode == "json" else sys.stderr))
