"""Interquartile means, profiles, rank stability and mean ranks equal what a hand computes."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import trim_mean

from lossbench.analysis import rankings


def study(scores, parts="all"):
    """scores: loss -> (data sets, seeds)."""
    rows = [
        {
            "dataset": f"d{d}",
            "dataset_name": f"d{d}",
            "data_label": f"set {d}",
            "recipe": "r",
            "block": f"{d}/{s}",
            "seed": s,
            "loss": loss,
            "loss_label": loss.upper(),
            "parts": parts,
            "init_hash": f"{d}{s}",
            "order_hash": "o",
            "split_hash": "s",
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
    means = {"a": 0.8, "b": 0.7, "c": 0.4}
    return study({loss: np.clip(mean + rng.normal(0, 0.05, (4, 6)), 0, 1) for loss, mean in means.items()})


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(cells):
    table = rankings.profiles(cells, draws=50)
    row = table[(table["kind"] == "iqm") & (table["loss"] == "b")].iloc[0]
    assert row["value"] == pytest.approx(trim_mean(cells.loc[cells["loss"] == "b", "dice@0.5"], 0.25))
    assert (row["n_runs"], row["n_datasets"], row["loss_label"]) == (24, 4, "B")
    assert row["low"] < row["value"] < row["high"]


def test_data_sets_that_repeat_each_other_do_not_narrow_an_interval():
    seeds = np.random.default_rng(1).normal(0.5, 0.1, (1, 8))
    one, four = (study({x: np.repeat(seeds, n, axis=0) for x in "ab"}) for n in (1, 4))
    width = [
        np.subtract(*rankings.profiles(own, thresholds=())[["high", "low"]].iloc[0]) for own in (one, four)
    ]
    assert width[1] == pytest.approx(width[0], rel=0.15)


def test_a_profile_is_the_share_of_runs_above_each_threshold(cells):
    table = rankings.profiles(cells, thresholds=(0.0, 0.7, 0.95), draws=50)
    shares = table[(table["kind"] == "share") & (table["loss"] == "b")]["value"].tolist()
    assert shares == [1.0, pytest.approx(np.mean(cells.loc[cells["loss"] == "b", "dice@0.5"] > 0.7)), 0.0]


def test_a_ranking_of_losses_far_apart_is_stable_and_one_of_equal_losses_is_not(cells):
    table = rankings.stability(cells, ["dice@0.5"]).set_index("kind")
    assert table.loc["seeds", "tau"] > 0.95 and table.loc["seeds", "same_first"] > 0.95
    rng = np.random.default_rng(2)
    equal = study({loss: rng.normal(0.7, 0.05, (4, 6)) for loss in "abcdef"})
    assert rankings.stability(equal, ["dice@0.5"]).set_index("kind").loc["seeds", "tau"] < 0.6


def test_leaving_a_data_set_out_names_it_and_shows_the_one_that_turns_the_ranking():
    scores = {"a": np.array([[0.5], [0.6], [0.9]]), "b": np.array([[0.6], [0.7], [0.4]])}
    table = rankings.stability(study(scores), ["dice@0.5"])
    left = table[table["kind"] == "data sets"].set_index("against")["tau"]
    assert left["set 2"] == -1 and left["set 0"] == 1
    assert set(table["kind"]) == {"data sets"}  # one seed says nothing about seeds


def test_metrics_are_compared_with_those_of_which_less_is_better_turned_round(cells):
    table = rankings.stability(cells, ["dice@0.5", "hd95@0.5", "nll"])
    by_metric = table[table["kind"] == "metric"].set_index(["metric", "against"])[["tau", "ceiling"]]
    assert by_metric.loc[("dice@0.5", "hd95@0.5"), "tau"] == pytest.approx(1)
    assert by_metric.loc[("dice@0.5", "nll")].tolist() == pytest.approx([-1, 1])


def test_each_part_is_judged_by_itself_and_only_on_seeds_that_hold_all_of_its_losses(cells):
    both = pd.concat(
        [cells.assign(parts="one,two"), study({"d": np.full((4, 6), 0.9)}, "two").query("seed > 0")]
    )
    table = rankings.profiles(both, draws=20).query("kind == 'iqm'")
    assert table.groupby("part")["loss"].nunique().to_dict() == {"one": 3, "two": 4}
    assert table.groupby("part")["n_runs"].first().to_dict() == {"one": 24, "two": 20}


def test_no_cells_give_empty_tables_with_their_columns(cells):
    assert list(rankings.profiles(cells.iloc[:0])) == rankings.PROFILES
    assert list(rankings.stability(cells.iloc[:0])) == rankings.STABILITY


def scored(scores):
    """Return cells of {(data set, seed): {loss: score}}."""
    rows = [
        {
            "dataset": d,
            "recipe": "r",
            "seed": s,
            "loss": k,
            "dice@0.5": v,
            "hd95@0.5": v,
            "log_size_ratio_soft": v,
        }
        for (d, s), own in scores.items()
        for k, v in own.items()
    ]
    return pd.DataFrame(rows)


TWO = {
    ("a", 0): {"x": 0.9, "y": 0.8, "z": 0.8},
    ("a", 1): {"x": 0.7, "y": 0.8, "z": 0.6},
    ("b", 0): {"x": 0.1, "y": 0.2, "z": 0.3},
}


def test_ranks_are_taken_within_a_block_and_ties_are_shared():
    ranks = rankings.rank_table(scored(TWO), "dice@0.5")
    assert ranks.loc["a"].to_numpy().ravel() == pytest.approx([(1 + 2) / 2, (2.5 + 1) / 2, (2.5 + 3) / 2])
    assert ranks.loc["b"].to_numpy().ravel() == pytest.approx([3, 2, 1])


def test_a_smaller_distance_and_a_size_nearer_to_the_truth_rank_first():
    assert rankings.rank_table(scored(TWO), "hd95@0.5").loc["b"].to_numpy().ravel() == pytest.approx(
        [1, 2, 3]
    )
    signed = scored({("a", 0): {"x": -0.1, "y": 0.3, "z": -0.5}})
    assert rankings.rank_table(signed, "log_size_ratio_soft").to_numpy().ravel() == pytest.approx([1, 2, 3])


def test_a_loss_that_one_data_set_misses_is_not_ranked_and_an_incomplete_block_is_left_out():
    scores = {("a", 0): {"x": 1, "y": 2, "z": 3}, ("a", 1): {"x": 1, "z": 3}, ("b", 0): {"x": 5, "y": 4}}
    ranks = rankings.rank_table(scored(scores), "dice@0.5")
    assert list(ranks.columns) == ["x", "y"]
    assert ranks.loc["a"].to_numpy().ravel() == pytest.approx([2, 1])
    assert ranks.loc["b"].to_numpy().ravel() == pytest.approx([1, 2])


def ranked(sets: int, seeds: int, each: int = 1) -> pd.DataFrame:
    """Return cells of two losses: x is ahead on every seed but the first, on every data set but the first of
    several.
    """
    scores = {
        (f"{d}", s): {"x": 0.5 + 0.1 * (s > 0) * (d >= each or sets == 1), "y": 0.55}
        for d in range(sets * each)
        for s in range(seeds)
    }
    cells = scored(scores)
    # Data sets of one name are levels of one generator.
    return cells.assign(dataset_name=[f"set {int(name) // each}" for name in cells["dataset"]])


def test_the_interval_of_a_mean_rank_draws_data_sets_anew_where_there_are_enough():
    first, second = (rankings.mean_ranks(ranked(6, 4), "dice@0.5") for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    x = first.set_index("loss").loc["x"]
    # 2 on the first data set, and on each other 2 with one of four seeds.
    assert x["mean"] == pytest.approx((2 + 5 * 1.25) / 6) and x["drawn"] == "data sets" and x["n"] == 6
    assert x["low"] < x["mean"] < x["high"]


def test_levels_of_one_generator_are_drawn_together():
    """Six sets of four levels each have the interval of six sets, not of twenty-four."""
    sets, levels = (rankings.mean_ranks(ranked(6, 4, each), "dice@0.5") for each in (1, 4))
    assert (levels["n"] == 6).all() and (levels["n_sets"] == 6).all()
    columns = ["mean", "low", "high"]
    assert levels[columns].to_numpy() == pytest.approx(sets[columns].to_numpy())


def test_with_few_data_sets_seeds_are_drawn_and_one_seed_has_no_interval():
    means = rankings.mean_ranks(ranked(1, 5, each=4), "dice@0.5")
    assert (means["drawn"] == "seeds").all() and (means["n"] == 5).all() and (means["n_sets"] == 1).all()
    x = means.set_index("loss").loc["x"]
    assert x["mean"] == pytest.approx((2 + 4 * 1) / 5) and x["low"] < x["mean"] < x["high"]
    assert np.isnan(rankings.mean_ranks(ranked(1, 1, each=4), "dice@0.5")["low"]).all()


@pytest.mark.parametrize(("losses", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_agrees_with_the_printed_quantiles(losses, q):
    """Demšar 2006, table 5 (a): the two-tailed Nemenyi test at .05."""
    expected = q * np.sqrt(losses * (losses + 1) / 180)
    assert rankings.critical_difference(losses, 30) == pytest.approx(expected, rel=1e-3)
    assert np.isnan(rankings.critical_difference(losses, 9))
