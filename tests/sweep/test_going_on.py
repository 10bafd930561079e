"""A sweep that is interrupted goes on from kept states, and its records are those of an undisturbed one."""

import json
import shutil

import pytest

from lossbench.base.errors import UserError
from lossbench.catalogue import userfiles
from lossbench.engine.tasks import EngineOptions
from lossbench.experiment.reading import read_experiment
from lossbench.store import store as stores
from lossbench.store.store import Store
from lossbench.sweep import guard, run, train_stack
from lossbench.sweep import plan as plans

TEXT = """
name = "lengths"
seeds = 1
lengths = [10, 20, 40]
losses = ["ce", "dice", "ce_to_dice"]
datasets = ["scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=8)"]
[recipe]
batch = 4
widths = [4, 8]
validations = 2
schedule = "wsd"
warmup = 3
"""
LATE = ("cost", "provenance")  # what a record says of how it was made, and not of the result


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "lengths.toml"
    file.write_text(TEXT)
    return read_experiment(file)


def sweep(experiment, folder, **facts):
    run.open_results(folder, print)
    planned = plans.plan(experiment, folder)
    return run.run(planned, planned.missing, folder, EngineOptions(serial=True), provenance=FACTS | facts)


FACTS = {
    "commit": None, "dirty": False, "diff": None, "version": "0", "packages": {}, "hardware": {},
    "python": "3", "platform": "x", "command": "sweep",
}  # fmt: skip


def results_of(folder):
    records = list(Store(folder).records())
    return [{key: value for key, value in record.items() if key not in LATE} for record in records]


def test_the_plan_counts_shared_steps_once_and_says_which_cells_share_none(experiment, tmp_path):
    planned = plans.plan(experiment, tmp_path / "r")
    added = {(c.loss.text, c.recipe.steps): planned.added_steps(c) for c in planned.cells}
    assert [added["ce", steps] for steps in (10, 20, 40)] == [10, 20 - 8, 40 - 16]
    assert [added["ce_to_dice", steps] for steps in (10, 20, 40)] == [10, 20, 40]
    assert list(planned.alone().values()) == [3]
    assert "progress of training" in next(iter(planned.alone()))


def test_an_interrupted_sweep_goes_on_where_it_was_and_leaves_the_same_records(
    experiment, tmp_path, monkeypatch
):
    sweep(experiment, tmp_path / "whole")
    whole = results_of(tmp_path / "whole")
    assert len(whole) == 9 and not (tmp_path / "whole" / "states").exists()

    monkeypatch.setattr(train_stack, "EVERY", 0.0)
    monkeypatch.setattr(train_stack, "RARELY", 0.0)  # a state after each step
    steps = []

    def stopped(kind, **facts):
        if kind == "step":
            steps.append((facts["cell"], facts["step"]))
            if len(steps) == stop:
                raise KeyboardInterrupt

    monkeypatch.setattr(train_stack, "emit", stopped)
    monkeypatch.setattr(guard, "refuse", lambda who: None)  # which finds ``emit`` replaced
    monkeypatch.setattr(userfiles, "ran", lambda: False)  # by a test before
    stop, folder = 45, tmp_path / "broken"
    assert sweep(experiment, folder)[0].interrupted
    assert list((folder / "states").iterdir())
    first = len(steps)
    stop = -1
    sweep(experiment, folder)
    assert json.dumps(results_of(folder)) == json.dumps(whole)
    assert not (folder / "states").exists()
    # ce and dice walk 46 steps each, ce_to_dice 70; the state after the step that was stopped is missing.
    walked = 2 * 46 + 70
    assert first + len(steps[first:]) <= walked + 2 * 2


@pytest.fixture
def unguarded(monkeypatch):
    """Nobody looks what is replaced in this process, nor what a test before ran in it."""
    monkeypatch.setattr(guard, "refuse", lambda who: None)
    monkeypatch.setattr(userfiles, "ran", lambda: False)


def interrupted_late(experiment, folder, monkeypatch):
    """Sweep until only the longest length of a stack is left, of which there is a state."""
    monkeypatch.setattr(train_stack, "EVERY", 0.0)
    monkeypatch.setattr(train_stack, "RARELY", 0.0)

    def stopped(kind, **facts):
        if kind == "step" and facts["steps"] == 40 and facts["step"] == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_stack, "emit", stopped)
        assert sweep(experiment, folder)[0].interrupted
    assert list((folder / "states").iterdir())


@pytest.mark.usefixtures("unguarded")
def test_a_length_whose_record_is_gone_is_trained_again_though_a_state_is_past_it(
    experiment, tmp_path, monkeypatch
):
    interrupted_late(experiment, tmp_path / "r", monkeypatch)
    before = results_of(tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "cells")
    assert sweep(experiment, tmp_path / "r")[1:3] == (9, [])
    after = results_of(tmp_path / "r")
    assert len(after) == 9 and all(record in after for record in before)


@pytest.mark.usefixtures("unguarded")
def test_a_length_may_be_added_to_an_interrupted_experiment(experiment, tmp_path, monkeypatch):
    interrupted_late(experiment, tmp_path / "r", monkeypatch)
    (tmp_path / "lengths.toml").write_text(TEXT.replace("20, 40", "20, 30, 40"))
    longer = read_experiment(tmp_path / "lengths.toml")
    done = sweep(longer, tmp_path / "r")
    assert not done.failures and not plans.plan(longer, tmp_path / "r").missing


def test_what_was_trained_into_a_folder_that_is_gone_is_not_called_trained(experiment, tmp_path, monkeypatch):
    train = train_stack.run_stack

    def removed(task):
        done = train(task)
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        return done

    monkeypatch.setattr(train_stack, "run_stack", removed)
    monkeypatch.setattr(guard, "refuse", lambda who: None)  # which finds ``run_stack`` replaced
    monkeypatch.setattr(userfiles, "ran", lambda: False)  # by a test before
    _, trained, failures, _ = sweep(experiment, tmp_path / "r")
    assert trained == 0
    assert failures == [
        f"the records are gone from {tmp_path / 'r'}; was the folder removed meanwhile? (9 cells)"
    ]


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("other", [{"packages": {"torch": "1"}}, {"hardware": {"cpu": "x"}}, {"commit": "f"}])
def test_no_record_goes_on_from_a_state_of_another_environment(experiment, tmp_path, monkeypatch, other):
    def steps(folder, **facts):
        """How many steps a sweep takes that goes on where another one was interrupted."""
        interrupted_late(experiment, folder, monkeypatch)
        with monkeypatch.context() as patched:
            taken = []
            patched.setattr(train_stack, "emit", lambda kind, **_: taken.append(kind))
            sweep(experiment, folder, **facts)
        return taken.count("step")

    assert steps(tmp_path / "same") < steps(tmp_path / "other", **other)


@pytest.mark.usefixtures("unguarded")
def test_a_full_disk_ends_a_sweep_at_the_first_record_that_it_refuses(experiment, tmp_path, monkeypatch):
    refused = []

    def full(path, data):
        refused.append(path.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores, "write_atomically", full)
    with pytest.raises(UserError, match="no space is left there"):
        sweep(experiment, tmp_path / "r")
    assert len(refused) == 1 and "error" not in refused[0]
