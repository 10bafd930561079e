"""Loss against loss: each pair once, paired over seeds, and never at odds with a leaderboard."""

import itertools

import pandas as pd
import pytest

from lossbench.analysis import answers, decisions, effects
from lossbench.analysis.sensitivity import usual_recipes

COLUMN = "dice@0.5"


@pytest.fixture(scope="module")
def table(mini_tables):
    return effects.pair_effects(mini_tables["cells"], [COLUMN])


def test_every_pair_stands_once_and_the_plainer_loss_is_what_the_other_is_compared_with(table):
    pairs = [frozenset(pair) for pair in zip(table["loss"], table["against"], strict=True)]
    losses = ["ce", "dice", "0.5*ce + 0.5*dice", "focal"]
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, itertools.combinations(losses, 2)))
    assert "ce" not in set(table["loss"]) and ("dice", "ce") in set(
        zip(table["loss"], table["against"], strict=True)
    )


def test_the_effect_of_a_pair_is_the_mean_of_its_paired_differences(table, mini_tables):
    wide = mini_tables["cells"].pivot_table(index=["dataset", "seed"], columns="loss", values=COLUMN)
    row = table.set_index(["loss", "against"]).loc[("focal", "dice")]
    assert row["estimate"] == pytest.approx((wide["focal"] - wide["dice"]).mean())
    assert row["low"] <= row["estimate"] <= row["high"] or row["n_seeds"] < 6
    assert row["n_variants"] == 4 and row["n_sets"] == 1


def test_each_data_set_of_a_pair_is_told_from_the_rarest_foreground_on(table, mini_tables):
    cells = mini_tables["cells"]
    order = cells.drop_duplicates("dataset").sort_values("data.foreground")["data_label"]
    told = table["by_set"].iloc[0].split("; ")
    assert [text.rpartition(" ")[0] for text in told] == list(order)
    # Of real data sets, whose foreground nobody set, what was measured says it.
    rare = cells["dataset"] == cells["dataset"].iloc[-1]
    other = cells.drop(columns="data.foreground").assign(foreground_true=1 - 0.9 * rare)
    told = effects.pair_effects(other, [COLUMN])["by_set"].iloc[0]
    assert told.startswith(cells["data_label"].iloc[-1])


def test_on_one_data_set_a_pair_is_judged_as_in_its_leaderboard(mini_tables):
    cells = mini_tables["cells"]
    own = cells[cells["dataset"] == cells["dataset"].iloc[0]]
    contest = decisions.contest(own, COLUMN)
    for row in effects.pair_effects(own, [COLUMN]).itertuples():
        found = contest.decide(row.loss, row.against)
        assert (row.verdict, row.p_holm) == (found.verdict, found.p_holm)


def test_only_the_usual_recipe_of_a_data_set_speaks():
    cells = pd.DataFrame({"dataset": ["a"] * 5, "recipe": ["x"] * 3 + ["y"] * 2, "loss": "ce"})
    assert list(answers.at_usual(cells, None)["recipe"]) == ["x"] * 3


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_lengths_that_were_trained_as_often_the_longest_is_usual_whatever_its_name(names):
    short, long = names
    cells = pd.DataFrame({"dataset": ["s"] * 4, "recipe": [short, long] * 2, "loss": "ce"})
    recipes = pd.DataFrame({"recipe": [short, long], "steps": [600, 2400], "head": "prior"})
    assert usual_recipes(cells, recipes) == {"s": long}


def test_a_recipe_of_the_usual_head_comes_before_a_longer_one_of_another():
    cells = pd.DataFrame(
        {"dataset": ["s"] * 3 + ["t"] * 2, "recipe": ["a", "a", "a", "b", "c"], "loss": "ce"}
    )
    recipes = pd.DataFrame({"recipe": list("abc"), "steps": [600, 600, 2400], "head": ["x", "x", "y"]})
    assert usual_recipes(cells, recipes) == {"s": "a", "t": "b"}


def test_without_cells_there_is_no_pair(mini_tables):
    assert effects.pair_effects(mini_tables["cells"].iloc[:0], [COLUMN]).empty
    assert effects.pair_effects(mini_tables["cells"], ["unknown"]).empty
