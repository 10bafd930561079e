"""How many cells train together is measured where it matters, and changes no number."""

from __future__ import annotations

import pytest

from lossbench.engine import worker
from lossbench.engine.tasks import EngineOptions, Result, Summary
from lossbench.experiment.reading import read_experiment
from lossbench.store.store import Store
from lossbench.sweep import guard, plan, run, train_stack

TEXT = """
name = "grid"
losses = ["ce", "dice", "focal", "dice_ce", "jaccard"]
datasets = ["scenes(size=16, n_train=8, n_val=4, n_test=4, foreground=0.1)"]
seeds = 1
[recipe]
widths = [4, 8]
steps = 12
batch = 4
validations = 2
"""


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TEXT)
    return read_experiment(path).cells()


def test_a_list_is_cut_into_few_parts_of_nearly_equal_length():
    assert [len(part) for part in train_stack.even(list(range(9)), 4)] == [3, 3, 3]
    assert [item for part in train_stack.even(list(range(9)), 4) for item in part] == list(range(9))


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ({2: 2.0, 4: 2.0, 8: 2.1, 16: 4.2}, 64, 8),  # full at 8
        ({2: 2.0, 4: 4.0}, 64, 2),  # a processor: twice the cells take twice the time
        ({2: 2.0, 4: 2.0, 8: None}, 64, 4),  # out of memory
        ({2: 2.0, 4: 2.0}, 5, 4),  # no more cells
        ({2: None, 4: 1.0}, 64, 2),
    ],
)
def test_a_stack_is_doubled_while_that_is_worth_it(seconds, most, expected):
    assert train_stack.double(seconds.__getitem__, most) == expected


def test_a_size_is_measured_once_a_worker(cells, monkeypatch):
    monkeypatch.setattr(train_stack, "_sizes", {})
    jobs = train_stack.jobs_of(cells)
    assert train_stack.step_seconds(jobs, "cpu", 8) > 0  # more cells than jobs, in turn
    assert train_stack.fastest(jobs, "cpu") in (2, 4)
    monkeypatch.setattr(train_stack, "step_seconds", None)
    assert train_stack.fastest(jobs, "cpu") in (2, 4)


def test_records_are_bit_for_bit_the_same_however_many_are_trained_together(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(train_stack, "_sizes", {})
    found = {}
    for size in (2, 5, None):
        folder = tmp_path / f"results{size}"
        outcomes = train_stack.run_stack(train_stack.payload(cells, folder, (), {}, "cpu", size))["outcomes"]
        assert set(outcomes) == {cell.key for cell in cells}
        found[size] = [Store(folder).read(cell.key, cell.loss.fingerprint) for cell in cells]
    for part in ("metrics", "images", "steps", "curves", "certificate"):
        assert [r[part] for r in found[2]] == [r[part] for r in found[5]] == [r[part] for r in found[None]]
    assert {r["cost"]["stack"] for r in found[5]} == {5} and {r["cost"]["stack"] for r in found[2]} == {2}


def test_a_stack_over_its_time_limit_is_tried_cell_by_cell_in_so_many_words(
    cells, tmp_path, monkeypatch, capsys
):
    """Nothing is trained: every task is over its time."""
    error = "stopped after 1 s, over its time limit of 1 s"

    def never_ends(tasks, function, options, on_event, on_result):
        for task in tasks:
            on_result(Result(task, "time limit", error=error))
        return Summary(0, len(tasks), 0, False, 1.0)

    monkeypatch.setattr(run.engine, "run", never_ends)
    planned, said = plan.plan(read_experiment(tmp_path / "grid.toml"), tmp_path / "r"), []
    options = EngineOptions(serial=True, time_limit=1, stack=8)
    done = run.run(planned, cells, tmp_path / "r", options, provenance={}, mode="plain", say=said.append)
    assert said == ["5 cells have no record, since their stack ended badly: each is now tried alone"]
    assert done.failures == [f"{error} (5 cells)"]
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]
    assert sum(f"failed: {error}" in line for line in lines) == 5  # a line a cell, none for their stack
    assert sum(line.endswith(f": {error}; its cells are tried again") for line in lines) == 1
    assert [line.split(" in ")[0] for line in lines if " in " in line] == ["0/5 cells", "5/5 cells, 5 failed"]


def test_what_was_recorded_before_a_task_ended_badly_is_trained_and_no_failure(tmp_path, cells, monkeypatch):
    """Every worker dies after it has recorded what it trained, which was no more than two cells."""

    def dying(tasks, function, options, on_event, on_result):
        for task in tasks:
            facts = {"task": task.name, "attempt": 1, "worker": ""}
            first = {**task.payload, "cells": task.payload["cells"][:2]}
            worker.call(function, first, lambda event, facts=facts: on_event(event | facts))
            on_result(Result(task, "killed", error="its worker died"))
        return Summary(0, len(tasks), 0, False, 1.0)

    monkeypatch.setattr(run.engine, "run", dying)
    monkeypatch.setattr(guard, "refuse", lambda who: None)  # which finds ``run`` replaced
    planned = plan.plan(read_experiment(tmp_path / "grid.toml"), tmp_path / "r")
    options = EngineOptions(serial=True, stack=8)
    done = run.run(planned, cells, tmp_path / "r", options, provenance={}, mode="quiet")
    assert (done.trained, done.failures, done.summary.seconds) == (5, [], 2.0)
