"""The search is fair and repeatable: the same candidates for every loss, equal budgets, the same choice
however often it was interrupted.
"""

import itertools
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

from command import lossbench
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_loss
from lossbench.experiment.reading import read_experiment
from lossbench.sweep import tuning

TEXT = """
name = "tt"
seeds = 2
losses = ["ce", "tversky"]
[[datasets]]
use = "scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=6)"
label = "tiny"
[recipe]
steps = 6
batch = 4
widths = [4, 8]
validations = 1
learning_rate = "tuned"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tt.toml"
    path.write_text(TEXT)
    return path


def test_candidates_depend_on_the_seed_alone_and_fill_the_range():
    budget = tuning.Budget(trials=16)
    rates = [point["learning_rate"] for point in tuning.candidates(budget)]
    assert rates == [point["learning_rate"] for point in tuning.candidates(budget)]
    assert all(budget.low <= rate <= budget.high for rate in rates)
    logs = np.sort(np.log(rates))
    assert np.diff(logs).max() < 3 * np.log(budget.high / budget.low) / 16  # quasi-random: no large gap


def test_every_loss_gets_the_same_rates_and_the_same_number_of_trials():
    losses = tuple(map(parse_loss, ("ce", "dice", "tversky")))
    found = tuning.trials(losses, tuning.Budget(trials=4, parameters=True), ())
    rates = {
        loss.text: [t.learning_rate for t in found if t.base == loss and t.kind == "rate"] for loss in losses
    }
    assert len(set(map(tuple, rates.values()))) == 1
    own = [t for t in found if t.base.text == "tversky" and t.kind == "parameters"]
    assert len(own) == 4 and len({t.loss.text for t in own}) == 4


def test_parameters_that_the_experiment_fixes_are_not_searched():
    found = tuning.trials(
        (parse_loss("tversky(fp_weight=0.2)"),), tuning.Budget(trials=2, parameters=True), ()
    )
    assert all(t.loss.terms[0].params["fp_weight"] == 0.2 for t in found)


def test_the_expected_best_of_n_is_the_mean_over_all_subsets():
    values = [0.3, 0.9, 0.1, 0.5]
    for n, got in enumerate(tuning.expected_best(values), start=1):
        assert got == pytest.approx(np.mean([max(part) for part in itertools.combinations(values, n)]))


def test_the_choice_flags_an_optimum_at_the_edge_of_the_range():
    budget = tuning.Budget(trials=3)
    shared = {"data": "d", "loss": "l", "kind": "rate"}
    rows = [
        shared | {"learning_rate": r, "objective": o, "number": i}
        for i, (r, o) in enumerate([(1, 1), (2, 3), (3, 2)])
    ]
    assert not tuning.choose(rows, budget)[0]["edge"]
    rows[0]["objective"] = 9
    assert tuning.choose(rows, budget)[0]["edge"]
    assert tuning.choose(rows[:2], budget) == []  # a loss that lacks a trial is not chosen for


def test_report_seeds_and_tuning_seeds_are_kept_apart(file):
    file.write_text(TEXT.replace("seeds = 2", "seeds = [1000000]"))
    with pytest.raises(UserError, match="kept for tuning"):
        tuning.experiments(read_experiment(file, tuning=True), tuning.Budget())


def test_an_experiment_that_names_tuned_rates_says_what_is_missing(file):
    with pytest.raises(UserError, match="lossbench tune"):
        read_experiment(file)
    tuned = file.with_name("tt.tuned.toml")
    tuned.write_text("x = ")
    with pytest.raises(UserError, match=r"tt\.tuned\.toml"):
        read_experiment(file)
    tuned.write_text("chosen = []")
    with pytest.raises(UserError, match="has no learning rate for loss 'ce'"):
        read_experiment(file)


@pytest.mark.system
def test_a_search_that_is_killed_and_resumed_chooses_the_same(file):
    folder, words = file.parent, ("tune", "tt.toml", "--trials", "3")
    command = [sys.executable, "-m", "lossbench", *words, "--workers", "2", "--results", "killed"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("killed/cells/*/*.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(1)  # orphaned workers notice that their driver is gone
    for results in ("killed", "whole"):
        lossbench(folder, *words, "--serial", "--results", results, "--out", f"{results}.toml")
    killed, whole = (file.with_name(f"{name}.toml").read_text() for name in ("killed", "whole"))
    assert killed == whole
    chosen = tomllib.loads(whole)
    assert chosen["budget"]["equal_budget"] and len(chosen["chosen"]) == 2

    file.with_name("tt.tuned.toml").write_text(whole)
    cells = read_experiment(file).cells()
    rates = {(c["data"], c["loss"]): c["learning_rate"] for c in chosen["chosen"]}
    assert all(cell.learning_rate == rates[cell.data.text, cell.loss.text] for cell in cells)
    assert len({cell.block for cell in cells}) == 2  # one a seed: tuned rates do not break the pairing
    trained = lossbench(folder, "sweep", "tt.toml", "--results", "whole", "--serial", "--no-report")
    assert "trained 4 cells" in trained
