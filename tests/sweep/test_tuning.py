"""The search for rates is fair and repeatable: the same rates for every loss, a choice over all data sets,
the same however often it was interrupted; an experiment trains at what was chosen.
"""

import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from command import lossbench
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_loss
from lossbench.experiment import rates
from lossbench.experiment.reading import read_experiment
from lossbench.store.store import Store
from lossbench.sweep import tuning
from lossbench.sweep.tuning import Search, Tried

TEXT = """
name = "tt"
seeds = 2
losses = ["ce", "dice", "focal"]
datasets = [
  { use = "scenes(foreground=0.1, size=16, n_train=8, n_val=4, n_test=4)", label = "rare" },
  { use = "scenes(foreground=0.3, size=16, n_train=8, n_val=4, n_test=4)", label = "common" },
]
[recipe]
steps = 4
batch = 4
widths = [4, 8]
validations = 1
[[part]]
name = "one-rate"
recipe = { learning_rate = "shared" }
[[part]]
name = "own-rate"
recipe = { learning_rate = "own" }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tt.toml"
    path.write_text(TEXT)
    return path


class Records:
    """A store whose records say what ``score(loss, rate, data set)`` gives."""

    def __init__(self, cells, score):
        self.cells, self.score, self.read_keys = {cell.key: cell for cell in cells}, score, []

    def read(self, key, fingerprint):
        self.read_keys.append(key)
        cell = self.cells[key]
        return {"metrics": {tuning.OBJECTIVE: self.score(cell.loss.text, cell.learning_rate, cell.data.text)}}


class Anything(Records):
    """The same for whatever cells are asked for."""

    def __init__(self, experiment, score):
        places = range(-4, 5)
        arms = {(loss.text, "default"): tuple(places) for loss in experiment.losses}
        super().__init__(tuning._trials(experiment, Search(), arms).cells(), score)


def peak(at):
    """A score that is best at a rate, the same on all data."""
    return lambda loss, rate, data: -abs(np.log(rate / at[loss]))


def search(file, score):
    experiment = read_experiment(file, tuning=True)
    trials, tried = tuning.search(experiment, Search(), Anything(experiment, score))
    return trials, tuning.chosen(experiment, Search(), tried)


def test_the_five_rates_are_a_factor_three_apart_and_the_seeds_are_those_of_tuning(file):
    trials, _ = search(file, peak({"ce": 0.005, "dice": 0.005, "focal": 0.005}))
    cells = trials.cells()
    assert sorted({cell.learning_rate for cell in cells}) == [0.000556, 0.00167, 0.005, 0.015, 0.045]
    assert {cell.seed for cell in cells} == {1_000_000, 1_000_001, 1_000_002}
    assert len(cells) == 3 * 2 * 5 * 3  # two parts that differ in the rate alone are one search


def test_the_best_mean_rank_decides_and_not_the_best_mean_score():
    # On two of three data sets the second rate is best; on the third the first is far ahead.
    scores = np.array([[0.5, 0.5, 0.9], [0.6, 0.6, 0.1], [0.4, 0.4, 0.2]])
    own = Tried(("ce", "default"), (0, 1, 2), scores)
    assert own.ranks.tolist() == [(2 + 2 + 1) / 3, (1 + 1 + 3) / 3, (3 + 3 + 2) / 3]
    assert own.best == 0  # equal ranks: then the mean score
    own = replace(own, scores=np.array([[0.5, 0.5, 0.9], [0.6, 0.6, 0.2], [0.4, 0.4, 0.1]]))
    assert own.best == 1 and own.beyond is None


def test_an_optimum_at_the_edge_widens_the_grid_at_most_twice_and_is_then_marked(file):
    trials, found = search(file, peak({"ce": 0.05, "dice": 0.13, "focal": 5.0}))
    ce, dice, focal = found.chosen
    assert (ce.learning_rate, len(ce.tried), ce.edge) == (0.045, 6, False)
    assert (dice.learning_rate, len(dice.tried), dice.edge) == (0.135, 7, False)
    assert (focal.learning_rate, len(focal.tried), focal.edge) == (0.405, 7, True)
    assert not any(cell.learning_rate == 0.405 and cell.loss.text == "ce" for cell in trials.cells())


def test_the_one_rate_for_all_is_best_over_ce_dice_and_their_sum(file):
    _, found = search(file, peak({"ce": 0.0016, "dice": 0.0016, "focal": 0.04}))
    assert found.shared == 0.00167


def test_a_loss_without_all_its_trials_gets_no_rate(file):
    experiment = read_experiment(file, tuning=True)

    class Some(Anything):
        def read(self, key, fingerprint):
            return None if self.cells[key].loss.text == "focal" else super().read(key, fingerprint)

    store = Some(experiment, peak({"ce": 0.005, "dice": 0.005}))
    _, tried = tuning.search(experiment, Search(), store)
    assert [item.loss for item in tuning.chosen(experiment, Search(), tried).chosen] == ["ce", "dice"]
    with pytest.raises(UserError, match="no loss has all its trials"):
        tuning.chosen(experiment, Search(), tried[2:])


def test_report_seeds_and_tuning_seeds_are_kept_apart(file):
    file.write_text(TEXT.replace("seeds = 2", "seeds = [1000000]"))
    with pytest.raises(UserError, match="kept for tuning"):
        tuning.search(read_experiment(file, tuning=True), Search(), None)


def written(file, shared=0.00167, **edges):
    """Write rates beside the experiment: CE at .015, Dice at .045, focal not tuned."""
    one = {"head": "default", "tried": [0.005], "mean_rank": [1.0], "mean_score": [0.5]}
    own = {"ce": 0.015, "dice": 0.045}
    chosen = [
        rates.Chosen(loss=loss, learning_rate=rate, edge=edges.get(loss, False), **one)
        for loss, rate in own.items()
    ]
    every = rates.Rates(shared=shared, search={"experiment": "tt"}, nearest=rates.NEAREST, chosen=chosen)
    rates.write(file.with_name("tt.chosen.toml"), every)
    assert rates.read(file.with_name("tt.chosen.toml")) == every


def test_two_parts_are_the_two_arms_and_an_untuned_loss_takes_the_rate_of_its_nearest(file):
    written(file)
    by_part = {"one-rate": {}, "own-rate": {}}
    for cell in read_experiment(file).cells():
        by_part[cell.parts[0]].setdefault(cell.loss.text, set()).add(cell.learning_rate)
    assert by_part["one-rate"] == {"ce": {0.00167}, "dice": {0.00167}, "focal": {0.00167}}
    assert by_part["own-rate"] == {"ce": {0.015}, "dice": {0.045}, "focal": {0.015}}


def test_losses_at_their_own_rates_stay_in_one_block(file):
    written(file)
    own = [cell for cell in read_experiment(file).cells() if cell.parts == ("own-rate",)]
    assert len({cell.block for cell in own}) == 2 * 2  # data sets x seeds


def test_a_training_that_both_arms_ask_for_is_made_once_and_recorded_for_both(file):
    written(file, shared=0.015)
    experiment = read_experiment(file)
    first = next(cell for cell in experiment.cells() if cell.loss.text == "ce")
    assert first.twin.key != first.key and first.twin.twin.key == first.key
    words = ("sweep", "tt.toml", "--serial", "--no-report")
    out = lossbench(file.parent, "plan", "tt.toml")
    assert "24 cells" in out and "8 cells are the training of another" in out and "to train: 16," in out
    # CE and focal, which borrows CE's rate, train at .015 in both arms: 2 losses x 2 data sets x 2 seeds.
    out = lossbench(file.parent, *words)
    assert "trained 16 cells" in out and "8 are the same trainings" in out
    store = Store(file.parent / "results")
    records = {record["key"]: record for record in store.records()}
    copied = [record for record in records.values() if record["provenance"].get("copy_of")]
    assert len(records) == 24 and len(copied) == 8
    for record in copied:
        trained = records[record["provenance"]["copy_of"]]
        assert {own["cell"]["recipe"]["learning_rate"] for own in (record, trained)} == {0.015, "own"}
        assert record["metrics"] == trained["metrics"] and record["certificate"] == trained["certificate"]
        assert record["cost"]["seconds"] == 0 < trained["cost"]["seconds"]
    # A record whose twin goes missing serves it without a training, and is what training it gives.
    gone = copied[0]["provenance"]["copy_of"]
    store.path(gone, records[gone]["loss_fingerprint"]).unlink()
    assert "trained 0 cells" in lossbench(file.parent, *words)
    assert store.count() == 24
    assert "bit for bit" in lossbench(file.parent, "verify", "--cell", gone)


def test_a_loss_whose_best_rate_stayed_at_the_edge_is_left_out_of_the_own_rate_arm(file):
    written(file, ce=True)
    experiment = read_experiment(file)
    own = {cell.loss.text for cell in experiment.cells() if "own-rate" in cell.parts}
    assert own == {"dice"}
    assert (
        len(experiment.skipped) == 2 and "focal with the head 'default' is left out" in experiment.skipped[1]
    )
    assert "the ce's best rate lies at the edge" in experiment.skipped[1]


def test_an_experiment_that_needs_rates_says_what_is_missing(file):
    with pytest.raises(UserError, match=r"tt\.chosen\.toml, which is not there; 'lossbench tune'"):
        read_experiment(file)
    chosen = file.with_name("tt.chosen.toml")
    chosen.write_text("x = ")
    with pytest.raises(UserError, match=r"tt\.chosen\.toml: is not a file that 'lossbench tune' wrote"):
        read_experiment(file)
    written(file)
    file.write_text(TEXT.replace("[recipe]", '[recipe]\nhead = "prior"'))
    with pytest.raises(UserError, match="no learning rate for loss 'ce' with the head 'prior'"):
        read_experiment(file)


def test_a_user_s_own_family_borrows_too():
    own = replace(parse_loss("ce"), text="mine", family="user")
    item = rates.Chosen(
        loss="ce", head="prior", learning_rate=0.01, edge=False, tried=[], mean_rank=[], mean_score=[]
    )
    found = rates.Rates(shared=0.005, search={}, nearest=rates.NEAREST, chosen=[item])
    assert found.lender(own, "prior") is item and found.lender(own, "default") is None


def parameters(file, trials, score):
    """Search parameters as ``lossbench tune`` does, with records that say what ``score(cell)`` gives."""
    experiment, records = read_experiment(file), {}
    store = SimpleNamespace(read=lambda key, fingerprint: records.get(key))
    while True:
        asked, named = tuning.search_parameters(experiment, tuning.Budget(trials, 2), store)
        missing = [cell for cell in asked.cells() if cell.key not in records]
        if not missing:
            return asked, named
        assert len({cell.loss.text for cell in missing}) <= 2 * tuning.ASKED  # of two losses
        records |= {cell.key: {"metrics": {tuning.OBJECTIVE: score(cell)}} for cell in missing}


def test_parameters_are_found_where_validation_is_best_with_as_many_trials_for_each_loss(file):
    file.write_text(TEXT.replace('"dice", "focal"', '"tversky", "focal"'))
    written(file)

    def score(cell):
        params = cell.loss.terms[0].params
        return 1 - abs(params["fp_weight"] - 0.62) if "fp_weight" in params else 0.5

    asked, named = parameters(file, 20, score)
    assert [own.loss.text for own in named] == ["tversky", "focal"]  # CE has none
    assert [len(own.tried) for own in named] == [20, 20]
    assert named[0].tried[0].text == "tversky"  # as it is, so that nothing worse is chosen
    found = named[0].tried[named[0].best].terms[0].params["fp_weight"]
    assert found == pytest.approx(0.62, abs=0.05)
    assert named[1].best == 0  # all equal: focal stays as it is
    # Each at the rate that the experiment gives the loss, in both arms: focal borrows CE's.
    rates_of = {name: {c.learning_rate for c in asked.cells() if name in c.loss.text} for name in ("focal",)}
    assert rates_of == {"focal": {0.00167, 0.015}}
    assert {cell.seed for cell in asked.cells()} == {1_000_000, 1_000_001}


def test_what_a_spec_fixes_is_not_searched_and_neither_are_sums():
    names = ("tversky", "tversky(fp_weight=0.2)", "ce + tversky", "ce", "dice")
    assert [list(tuning.ranges(parse_loss(name))) for name in names] == [
        ["fp_weight"],
        [],
        [],
        [],
        ["smooth"],
    ]


@pytest.mark.slow
def test_tuned_parameters_are_a_file_that_an_interrupted_search_ends_with_too(file):
    file.write_text(TEXT.split("[[part]]")[0].replace('"dice", "focal"', '"tversky"'))
    words = ("tune", "tt.toml", "--parameters", "--trials", "6", "--seeds", "1", "--serial")
    out = lossbench(file.parent, *words, "--results", "r")
    chosen = file.with_name("tt.parameters.toml").read_text()
    facts = tomllib.loads(chosen)
    (own,) = facts["chosen"]
    assert facts["search"]["objective"] == "val_dice_all@0.5" and own["loss"] == own["tried"][0] == "tversky"
    assert len(own["tried"]) == 6 and own["score"] == max(own["scores"]) and own["best"] in out
    parse_loss(own["best"])  # as it is written into an experiment
    for record in sorted(file.parent.glob("r/cells/*/*.json"))[::2]:
        record.unlink()
    lossbench(file.parent, *words, "--results", "r")
    assert file.with_name("tt.parameters.toml").read_text() == chosen
    refused = lossbench(file.parent, "tune", "tt.toml", "--trials", "6", code=2)
    assert "'--parameters'" in refused


@pytest.mark.system
def test_a_search_that_is_killed_and_resumed_chooses_the_same(file):
    folder, words = file.parent, ("tune", "tt.toml", "--seeds", "1")
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

    file.with_name("tt.chosen.toml").write_text(whole.replace("edge = true", "edge = false"))
    trained = lossbench(folder, "sweep", "tt.toml", "--seeds", "1", "--serial", "--no-report")
    assert "cells in 2 parts" in trained and "trained" in trained
