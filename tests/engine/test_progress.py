"""The display counts cells, names what runs, tells when it will end, and never stops a sweep."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from lossbench.base.errors import UserError
from lossbench.engine import display as progress
from lossbench.engine.display import Board, clock
from lossbench.engine.tasks import Result, Task


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def stacks(count, cells=2, **facts):
    return [Task(f"s{n}", {}, cells=tuple(f"{n}-{c}" for c in range(cells)), **facts) for n in range(count)]


def a_board(tasks, workers=1):
    time = Clock()
    return Board(tasks, workers, now=time), time


def run_one(board, time, task, seconds, ok=True):
    board.event({"kind": "start", "task": task.name})
    time.now += seconds
    board.event({"kind": "end", "task": task.name})
    board.result(Result(task, "ok" if ok else "error", seconds=seconds))


def test_cells_are_counted_as_they_finish_not_as_their_stack_does():
    tasks = stacks(2)
    board, _ = a_board(tasks)
    board.event({"kind": "start", "task": "s0"})
    board.event({"kind": "cell", "task": "s0", "cell": "0-0", "outcome": "collapsed"})
    assert board.counts() == "1/4 cells, 1 collapsed"
    board.result(Result(tasks[0], "ok"))
    board.result(Result(tasks[1], "killed", error="x"))
    assert board.counts() == "4/4 cells, 1 collapsed, 2 failed"


def test_cells_that_another_sweep_trains_leave_the_count():
    tasks = stacks(1)
    board, _ = a_board(tasks)
    board.result(Result(tasks[0], "ok", value={"busy": ["0-1"]}))
    assert board.counts() == "1/1 cells"


def test_nothing_is_foretold_before_anything_is_known():
    board, _ = a_board(stacks(3))
    assert board.left() is None


def test_the_time_left_is_weighted_by_what_remains_of_each_group():
    cheap, dear = stacks(3, group="2d"), [Task(f"d{n}", {}, cost=1.0, group="3d") for n in range(3)]
    board, time = a_board(cheap + dear)
    run_one(board, time, cheap[0], 2)
    assert board.left() == pytest.approx(2 * 2 + 3 * 2)  # nothing of 3d seen yet: the mean of all
    run_one(board, time, dear[0], 10)
    assert board.left() == pytest.approx(2 * 2 + 2 * 10)


def test_costs_within_a_group_scale_its_durations():
    tasks = [Task("short", {}, cost=1, group="g"), Task("long", {}, cost=5, group="g")]
    board, time = a_board(tasks)
    run_one(board, time, tasks[0], 3)
    assert board.left() == pytest.approx(15)


def test_work_is_shared_but_a_task_is_not():
    tasks = [Task(f"t{n}", {}, cost=1) for n in range(3)]
    board, time = a_board(tasks, workers=4)
    run_one(board, time, tasks[0], 8)
    board.event({"kind": "start", "task": "t1"})
    assert board.left() == pytest.approx(8)


def test_a_running_task_tells_the_time_left_from_its_steps():
    tasks = stacks(2)
    board, time = a_board(tasks)
    board.event({"kind": "start", "task": "s0"})
    time.now = 5
    for cell in tasks[0].cells:
        board.event({"kind": "step", "task": "s0", "cell": cell, "step": 50, "steps": 100, "loss": 0.4})
    assert board.fraction("s0") == 0.5
    assert board.left() == pytest.approx(5 + 10)


def test_failures_teach_no_duration():
    tasks = stacks(3)
    board, time = a_board(tasks)
    run_one(board, time, tasks[0], 0.01, ok=False)
    run_one(board, time, tasks[1], 4)
    assert board.left() == pytest.approx(4)


def test_a_late_start_of_a_settled_task_is_not_shown_as_running():
    tasks = stacks(1)
    board, _ = a_board(tasks)
    board.result(Result(tasks[0], "time limit", error="x"))
    board.event({"kind": "start", "task": "s0"})
    assert not board.running


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (3.21, "3.2s"), (59.6, "1m00s"), (12, "12s"), (125, "2m05s"), (11220, "3h07m")],
)
def test_durations_read_easily(seconds, text):
    assert clock(seconds) == text


def a_run(display, tasks):
    with display:
        display.event({"kind": "engine", "text": "2 workers on this machine"})
        display.event({"kind": "tick", "workers": 2, "running": 0})
        for task in tasks:
            display.event({"kind": "start", "task": task.name, "worker": "w", "attempt": 1})
            display.event(
                {
                    "kind": "step",
                    "task": task.name,
                    "cell": task.cells[0],
                    "step": 9,
                    "steps": 10,
                    "loss": 0.25,
                }
            )
            display.event({"kind": "lost", "task": task.name, "why": "its worker was killed by SIGKILL"})
            display.event({"kind": "start", "task": task.name, "worker": "w", "attempt": 2})
            display.event({"kind": "cell", "task": task.name, "cell": task.cells[0], "outcome": "done"})
            display.event({"kind": "tick", "workers": 2, "running": 1})
            display.result(Result(task, "ok", seconds=1.0))
        display.result(Result(Task("bad [x]", {}, cells=("c",)), "error", error="ValueError: boom"))


def test_plain_lines_are_few_and_hold_what_matters():
    tasks, out = stacks(50), io.StringIO()
    a_run(progress.show([*tasks, Task("bad [x]", {}, cells=("c",))], 2, "plain", out), tasks)
    lines = out.getvalue().splitlines()
    status = [line for line in lines if "cells" in line]
    assert len(status) == 2  # one at once, one at the end; none in between within two seconds
    assert "waiting" not in status[0] and "0/101 cells" in status[0]
    assert status[-1].split("] ")[1].startswith("101/101 cells, 1 failed in ")
    assert sum("it runs again" in line for line in lines) == 50
    assert lines[-2].endswith("bad [x]: failed: ValueError: boom")
    assert all(line.startswith("[") for line in lines)


def test_a_plain_status_names_running_tasks_and_the_end():
    tasks = stacks(6)
    display = progress.show(tasks, 2, "plain", io.StringIO())
    display.board._now = time = Clock()
    display.board._start = 0.0
    run_one(display.board, time, tasks[0], 4)
    for task in tasks[1:6]:
        display.event({"kind": "start", "task": task.name})
    display.event({"kind": "step", "task": "s1", "cell": "1-0", "step": 1, "steps": 100, "loss": 1.0})
    assert display.status() == "2/12 cells, eta 10s, running: s1 1/100, s2, s3 and 2 more"


def test_a_long_name_is_cut_in_a_plain_line():
    tasks = [Task("a data set · one loss, another loss, a third loss · seed 0", {})]
    board, _ = a_board(tasks)
    board.event({"kind": "start", "task": tasks[0].name})
    assert board.describe(tasks[0].name) == "a data set · one loss, another loss, a…"


def test_json_lines_are_json_and_end_with_the_standing():
    tasks, out = stacks(3), io.StringIO()
    a_run(progress.show([*tasks, Task("bad [x]", {}, cells=("c",))], 2, "json", out), tasks)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert events[-1] == {**events[-1], "kind": "finished", "cells": 7, "of": 7, "failed": 1, "running": 0}
    assert {"engine", "start", "step", "lost", "cell", "result", "progress", "finished"} == {
        e["kind"] for e in events
    }
    assert all("time" in e for e in events)


def test_live_bars_draw_rows_and_print_troubles_above():
    pytest.importorskip("rich")
    from rich.console import Console

    tasks, out = stacks(30), io.StringIO()
    display = progress.show(tasks, 2, "live", out)
    display.console = Console(file=out, force_terminal=True, width=100, height=20)
    for task in tasks[:20]:
        display.event({"kind": "start", "task": task.name})
    display.event({"kind": "step", "task": "s0", "cell": "0-0", "step": 5, "steps": 10, "loss": 0.25})
    with display.console.capture() as captured:
        display.console.print(display.draw())
    text = captured.get()
    assert "0/60 cells" in text and "5/10 loss 0.25" in text and "and 8 more" in text
    a_run(display, tasks[:1])
    assert "s0: its worker was killed by SIGKILL; it runs again" in out.getvalue()
    assert "bad [x]: failed: ValueError: boom" in out.getvalue()


def test_a_stack_whose_cells_are_tried_again_is_no_failure_yet():
    tasks, out = stacks(2), io.StringIO()
    with progress.show(tasks, 1, "plain", out) as shown:
        shown.event({"kind": "cell", "task": "s0", "cell": "0-0", "outcome": "done"})
        shown.result(Result(tasks[0], "time limit", error="stopped after 2 s"), again=True)
        shown.result(Result(tasks[1], "time limit", error="stopped after 2 s"))
    said = [line.split("] ")[1] for line in out.getvalue().splitlines()]
    assert "s0: stopped after 2 s; its cells are tried again" in said
    assert "s1: failed: stopped after 2 s" in said
    assert said[-1].startswith("3/4 cells, 2 failed in ")


class Closed(io.StringIO):
    def write(self, _):
        raise BrokenPipeError


@pytest.mark.parametrize("mode", ["plain", "json", "live", "quiet"])
def test_a_closed_output_does_not_stop_a_sweep(mode):
    tasks = stacks(2)
    display = progress.show(tasks, 2, mode, Closed())
    a_run(display, tasks)
    assert display.board.counts() == "5/4 cells, 1 failed"


def test_auto_is_plain_where_there_is_no_terminal():
    assert type(progress.show([], 1, "auto", io.StringIO())) is progress.Plain


def test_an_unknown_mode_is_named_with_the_nearest():
    with pytest.raises(UserError, match="there is no display 'jsn'; did you mean 'json'"):
        progress.show([], 1, "jsn")


def test_a_plain_display_imports_neither_rich_nor_dask():
    code = """
import sys
from lossbench.engine import display
display.show([], 1, "plain")
assert not {"rich", "distributed", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
