"""Pairs are formed only where they are pairs, and what a pair says can be checked by hand."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import boards, effects, pairs
from lossbench.base.errors import UserError


def two(cells, of="dice", against="ce", column="dice@0.5"):
    return pairs.blocks({name: cells[cells["loss"] == name] for name in (of, against)}, [column])


def test_a_paired_difference_is_that_of_the_two_cells_of_a_block(cells):
    found = two(cells)
    d = found.difference("dice", "ce")
    assert d.shape == (4, 4) and found.lost("dice", "ce") == 0
    both = cells[(cells["dataset"] == found.variants["dataset"][1]) & (cells["seed"] == found.seeds[2])]
    both = both.set_index("loss")["dice@0.5"]
    assert d[1, 2] == pytest.approx(both["dice"] - both["ce"])


@pytest.mark.parametrize(
    ("column", "what"),
    [("init_hash", "initial weights"), ("order_hash", "batch order"), ("split_hash", "split")],
)
@pytest.mark.parametrize("value", ["another", "", None])
def test_cells_with_different_or_missing_certificates_are_not_paired(cells, column, what, value):
    place = cells.index[(cells["loss"] == "dice") & (cells["seed"] == 2)][0]
    cells.loc[place, column] = value
    with pytest.raises(pairs.NotPaired, match=f"the same {what} on .*, seed 2"):
        two(cells).difference("dice", "ce")
    table = effects.effects_table(cells, columns=["dice@0.5"])
    refused = table[table["note"].str.contains("not paired")]
    assert list(refused["loss"]) == ["dice"] and refused["estimate"].isna().all()


def test_only_the_arms_that_are_compared_must_have_started_alike(cells):
    cells.loc[cells["loss"] == "focal", "init_hash"] = "other"
    found = pairs.losses(cells, ["dice@0.5"])
    assert not found.refusal("dice", "ce") and "'focal'" in found.refusal("focal", "ce")


def test_a_missing_cell_leaves_its_block_out_and_is_counted(cells):
    place = cells.index[(cells["loss"] == "dice")][0]
    thinned = cells.drop(index=place)
    found = two(thinned)
    assert np.isnan(found.difference("dice", "ce")).sum() == 1 == found.lost("dice", "ce")
    table = effects.effects_table(thinned, columns=["dice@0.5"])
    assert (table["note"] == "1 block incomplete").sum() == 1
    missing = boards.missing_blocks(thinned)
    assert list(missing["loss"]) == ["dice"] and missing["missing"].iloc[0] == 1


def test_collapsed_cells_count_with_what_they_scored(cells):
    bad = cells[cells["outcome"] == "collapsed"].iloc[0]
    found = two(cells, "focal")
    at = list(found.variants["dataset"]).index(bad["dataset"]), list(found.seeds).index(bad["seed"])
    assert found.difference("focal", "ce")[at] < -0.4


def test_a_weighted_sum_of_columns_and_its_absolute_value_can_be_tested(cells):
    value = pairs.value_of(cells, {"dice@val": 1, "dice@0.5": -0.2})
    assert value[0] == pytest.approx(cells["dice@val"].iloc[0] - 0.2 * cells["dice@0.5"].iloc[0])
    ce = {"ce": cells[cells["loss"] == "ce"]}
    assert (pairs.blocks(ce, ["log_size_ratio_hard@0.5"], absolute=True).values >= 0).all()
    with pytest.raises(UserError, match=r"no column 'dice@05'; did you mean 'dice@0\.5'"):
        pairs.value_of(cells, "dice@05")


def test_a_block_with_two_cells_of_one_loss_is_refused(cells):
    doubled = pd.concat([cells, cells[cells["loss"] == "ce"].iloc[:1]])
    with pytest.raises(UserError, match="holds two cells of the loss 'ce'"):
        two(doubled)


def test_an_effect_on_one_data_set_is_the_mean_of_its_seeds_with_their_own_test(cells):
    table = effects.effects_table(cells, columns=["dice@0.5"])
    row = table[(table["dataset"] == "scenes(foreground=0.01)") & (table["loss"] == "dice")].iloc[0]
    found = two(cells)
    d = found.difference("dice", "ce")[list(found.variants["dataset"]).index(row["dataset"])]
    assert row["estimate"] == pytest.approx(d.mean())
    assert (row["n_seeds"], row["p"], row["smallest_p"]) == (4, 0.125, 0.125) and np.isinf(row["low"])


def test_over_all_data_sets_a_ladder_is_one_and_real_sets_are_the_unit_of_a_random_effects_mean():
    import mini_study

    from lossbench.tables.compact import compact

    cells = compact(mini_study.records(real=True))["cells"]
    row = effects.pooled_effects(cells, columns=["dice@0.5"]).set_index("loss").loc["dice"]
    assert (row["n_sets"], row["n_variants"], row["n_seeds"]) == (3, 6, 4)
    assert row["predict_low"] < row["low"] < row["estimate"] < row["high"] < row["predict_high"]
    ladder = effects.pooled_effects(cells[cells["dataset_name"] == "scenes"], columns=["dice@0.5"])
    assert set(ladder["n_sets"]) == {1} and ladder["predict_low"].isna().all()


def test_real_data_have_an_interval_for_other_test_images_and_generated_data_none():
    import mini_study

    from lossbench.analysis.resampling import ByGroup
    from lossbench.tables.compact import compact

    records = mini_study.records(real=True, images=9)
    for record in records:
        if record["cell"]["dataset_name"] == "scenes":
            record["metrics"]["nll_bayes"] = 0.1
    tables = compact(records)
    table = effects.effects_table(tables["cells"], columns=["dice@0.5"], by_group=ByGroup(tables["groups"]))
    real = table[~table["dataset"].str.startswith("scenes")]
    assert (real["n_groups"] == 9).all() and real["images_low"].notna().all()
    assert table["n_groups"].notna().sum() == len(real)


def test_the_leaderboard_marks_those_that_nothing_is_shown_to_beat():
    import mini_study

    from lossbench.tables.compact import compact

    cells = compact(mini_study.records(seeds=8, foreground=(0.01,)))["cells"]
    board = boards.leaderboard(cells, "dice@0.5").set_index("loss")
    assert board.loc["dice", "best"] and not board.loc["ce", "best"] and not board.loc["focal", "best"]
    assert sorted(board["place"]) == [1, 2, 3, 4]


def test_few_seeds_can_tell_no_one_apart(cells):
    assert boards.leaderboard(cells, "dice@0.5")["best"].all()
    alone = boards.leaderboard(cells[cells["seed"] < 1], "dice@0.5")
    assert alone["best"].all() and alone["low"].isna().all()


def test_where_less_is_better_the_least_comes_first(cells):
    board = boards.leaderboard(cells, "hd95@0.5")
    first = board[board["place"] == 1]
    assert (first["mean"].to_numpy() == board.groupby(["dataset", "recipe"])["mean"].min().to_numpy()).all()


def test_the_interval_of_a_score_stays_between_zero_and_one():
    both = [boards.score(np.array([a, b]), "dice@0.5") for a, b in ((0.02, 0.3), (0.7, 0.99))]
    assert both[0]["low"] == 0 and both[1]["high"] == 1
    assert boards.score(np.array([1.0, 30.0]), "hd95@0.5")["low"] < 0


def test_collapses_are_counted_with_their_kind_and_seed(cells):
    table = boards.collapses(cells)
    assert table[["loss", "collapsed", "n", "background", "seeds"]].to_numpy().tolist() == [
        ["focal", 1, 4, 1, "3"]
    ]
