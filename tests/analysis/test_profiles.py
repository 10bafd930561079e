"""Interquartile means, profiles and rank stability equal what a hand computes, and their intervals cover in
simulation.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, trim_mean

from lossbench.analysis import rankings


def study(scores, parts="all"):
    """scores: loss -> (data sets, seeds)."""
    rows = [
        {
            "dataset": f"d{d}",
            "data_label": f"set {d}",
            "recipe": "r",
            "block": f"{d}/{s}",
            "seed": s,
            "loss": loss,
            "loss_label": loss.upper(),
            "parts": parts,
            "dice@0.5": value,
            "hd95@0.5": 10 * (1 - value),
            "nll": value,
        }
        for loss, table in scores.items()
        for d, seeds in enumerate(table)
        for s, value in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return study(
        {
            loss: np.clip(mean + rng.normal(0, 0.05, (4, 6)), 0, 1)
            for loss, mean in (("a", 0.8), ("b", 0.7), ("c", 0.4))
        }
    )


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(cells):
    table = rankings.profiles(cells, draws=50)
    row = table[(table["kind"] == "iqm") & (table["loss"] == "b")].iloc[0]
    assert row["value"] == pytest.approx(trim_mean(cells.loc[cells["loss"] == "b", "dice@0.5"], 0.25))
    assert (row["n_runs"], row["n_datasets"], row["loss_label"]) == (24, 4, "B")
    assert row["low"] < row["value"] < row["high"]


def test_a_profile_is_the_share_of_runs_above_each_threshold(cells):
    table = rankings.profiles(cells, thresholds=(0.0, 0.7, 0.95), draws=50)
    shares = table[(table["kind"] == "share") & (table["loss"] == "b")]["value"].tolist()
    assert shares == [1.0, pytest.approx(np.mean(cells.loc[cells["loss"] == "b", "dice@0.5"] > 0.7)), 0.0]


def test_the_interval_of_an_interquartile_mean_covers():
    rng, runs, hits = np.random.default_rng(1), 150, 0
    for run in range(runs):
        table = rankings.profiles(
            study({x: 0.5 + rng.normal(0, 0.05, (4, 8)) for x in "ab"}), thresholds=(), draws=300, seed=run
        )
        hits += bool(table["low"].iloc[0] <= 0.5 <= table["high"].iloc[0])
    assert (
        hits / runs >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs) - 0.02
    )  # a percentile bootstrap of eight blocks is a little short


def test_a_ranking_of_losses_far_apart_is_stable_and_one_of_equal_losses_is_not(cells):
    table = rankings.stability(cells, ["dice@0.5"], draws=200).set_index("kind")
    assert table.loc["seeds", "tau"] > 0.95 and table.loc["seeds", "same_first"] > 0.95
    equal = study(
        {loss: 0.7 + np.random.default_rng(k).normal(0, 0.05, (4, 6)) for k, loss in enumerate("abcdef")}
    )
    assert rankings.stability(equal, ["dice@0.5"], draws=200).set_index("kind").loc["seeds", "tau"] < 0.8


def test_leaving_a_data_set_out_names_it_and_finds_the_one_that_turns_the_ranking():
    scores = {"a": np.array([[0.5], [0.6], [0.9]]), "b": np.array([[0.6], [0.7], [0.4]])}
    table = rankings.stability(study(scores), ["dice@0.5"])
    left = table[table["kind"] == "data sets"].set_index("against")["tau"]
    assert left["set 2"] == -1 and left["set 0"] == 1
    assert set(table["kind"]) == {"data sets"}  # one seed says nothing about seeds


def test_metrics_are_compared_with_those_of_which_less_is_better_turned_round(cells):
    table = rankings.stability(cells, ["dice@0.5", "hd95@0.5", "nll"], draws=20)
    by_metric = table[table["kind"] == "metric"].set_index(["metric", "against"])["tau"]
    assert by_metric["dice@0.5", "hd95@0.5"] == 1
    assert by_metric["dice@0.5", "nll"] == -1


def test_the_agreement_of_two_rankings_is_scipys(cells):
    rng = np.random.default_rng(2)
    scores, reference = rng.integers(0, 3, (5, 8)).astype(float), rng.normal(size=8)
    assert rankings._tau(scores, reference) == pytest.approx(
        [kendalltau(row, reference).statistic for row in scores]
    )


def test_each_part_is_judged_by_itself_and_only_on_blocks_that_hold_all_of_its_losses(cells):
    both = pd.concat(
        [cells.assign(parts="one,two"), study({"d": np.full((4, 6), 0.9)}, "two").query("seed > 0")]
    )
    table = rankings.profiles(both, draws=20).query("kind == 'iqm'")
    assert table.groupby("part")["loss"].nunique().to_dict() == {"one": 3, "two": 4}
    assert table.groupby("part")["n_runs"].first().to_dict() == {"one": 24, "two": 20}


def test_no_cells_give_empty_tables_with_their_columns(cells):
    assert list(rankings.profiles(cells.iloc[:0])) == rankings.PROFILES
    assert list(rankings.stability(cells.iloc[:0])) == rankings.STABILITY
