"""Which cells each look of a sequential experiment needs, worked out from scores that are made up."""

from types import SimpleNamespace

import pandas as pd
import pytest

from lossbench.cli import plan
from lossbench.experiment.reading import read_experiment
from lossbench.report import make

TEXT = """
name = "own"
seeds = 12
looks = [9, 10, 12]
choice = {choice}
losses = ["ce", "dice", "jaccard"]
lengths = [10, 20]
datasets = ["scenes(foreground=0.1)"]
[recipe]
schedule = "wsd"
warmup = 2
validations = 1
"""


def dice(cell):
    """Return a score: 'ce' and 'dice' differ by nothing sure, 'jaccard' is 20 points behind both."""
    own = 0.001 + 0.03 * (-1) ** cell.seed
    return 0.8 - 0.2 * (cell.loss.text == "jaccard") + own * (cell.loss.text == "ce")


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Return an experiment of whose cells those before a seed count as recorded."""

    def recorded(cells, results):
        facts = dict.fromkeys(("dataset_name", "data_label", "outcome", "family"), "d")
        facts |= dict.fromkeys(("init_hash", "order_hash", "split_hash"), "h")
        rows = [
            facts
            | {"dataset": c.stream, "recipe": c.recipe.digest, "recipe.steps": c.recipe.steps, "key": c.key}
            | {"loss": c.loss.text, "loss_label": c.loss.text, "seed": c.seed, "dice@0.5": dice(c)}
            for c in cells
            if c.seed < results
        ]
        return pd.DataFrame(rows), None

    def read(choice):
        (tmp_path / "own.toml").write_text(TEXT.format(choice=choice))
        return read_experiment(tmp_path / "own.toml")

    monkeypatch.setattr(plan, "recorded", recorded)
    return read


def needed(cells):
    return {name: sum(c.loss.text == name for c in cells) for name in ("ce", "dice", "jaccard")}


def test_only_losses_in_an_open_pair_train_on_at_both_lengths(experiment):
    looks = [needed(cells) for cells in plan.rounds(experiment("true"), 12)]
    assert looks == [
        {"ce": 18, "dice": 18, "jaccard": 18},
        {"ce": 20, "dice": 20, "jaccard": 18},
        {"ce": 24, "dice": 24, "jaccard": 18},
    ]


def test_what_a_look_needs_does_not_depend_on_what_a_killed_sweep_left_of_it(experiment):
    own = experiment("true")
    whole = [[c.key for c in cells] for cells in plan.rounds(own, 12)]
    for seeds in (9, 11):
        looks = plan.rounds(own, seeds)
        for count, keys in zip(own.looks, whole, strict=True):
            if seeds < own.looks[max(0, own.looks.index(count) - 1)] and count != own.looks[0]:
                break  # a sweep would not come so far
            assert [c.key for c in next(looks)] == keys


def test_every_pair_is_said_to_be_decided_or_open_and_at_how_many_seeds(experiment):
    own = experiment("false")
    said = plan.decided(own, own.cells(), 12)
    assert [text for _, text in said] == [
        "d: open at 12 of 12 seeds: ce and dice",
        "d: decided at 9 of 12 seeds: ce is 20.4 points above jaccard",
        "d: decided at 9 of 12 seeds: dice is 20.0 points above jaccard",
    ]


def test_an_experiment_without_looks_needs_all_cells_at_once(tmp_path):
    (tmp_path / "t.toml").write_text(TEXT.replace("looks = [9, 10, 12]\nchoice = {choice}\n", ""))
    own = read_experiment(tmp_path / "t.toml")
    assert list(plan.rounds(own, tmp_path)) == [own.cells()]


def test_the_last_lines_of_a_sweep_say_at_how_many_seeds_each_pair_was_decided():
    table = pd.DataFrame(
        {"data_label": ["own"], "says": ["decided at 9 of 12 seeds: ce is 2.0 points above dice"]}
    )
    tables = {"decided": table}
    says = "seeds    own: decided at 9 of 12 seeds: ce is 2.0 points above dice"
    assert make._decided(SimpleNamespace(tables=tables)) == [says]
    assert make._decided(SimpleNamespace(tables={})) == []
