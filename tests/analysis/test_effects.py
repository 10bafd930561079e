"""Pairs are formed only where they are pairs, and what a pair says can be checked by hand."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import pairs as contrasts
from lossbench.analysis import pairs as effects
from lossbench.analysis import rankings
from lossbench.base.errors import UserError


def test_a_paired_difference_is_that_of_the_two_cells_of_a_block(cells):
    pairs, lost = effects.differences(cells, "dice", "ce", "dice@0.5")
    assert lost == 0 and len(pairs) == 16
    row = pairs.iloc[5]
    both = cells[cells["block"] == row["block"]].set_index("loss")["dice@0.5"]
    assert row["difference"] == pytest.approx(both["dice"] - both["ce"])


def test_a_mean_counts_every_data_set_once_however_many_blocks_it_has(cells):
    rare = cells["data.foreground"] == 0.002
    thinned = cells[~rare | (cells["seed"] < 2)]
    pairs, _ = effects.differences(thinned, "dice", "ce", "dice@0.5")
    by_set = pairs.groupby("dataset")["difference"].mean()
    found = effects.effect(pairs)
    assert found.estimate == pytest.approx(by_set.mean())
    assert (found.n_blocks, found.n_datasets, found.n_units) == (14, 4, 1)


def test_all_levels_of_one_ladder_are_one_data_set_when_asked_about_new_ones(cells):
    found = effects.effect(effects.differences(cells, "dice", "ce", "dice@0.5")[0])
    assert found.n_units == 1 and np.isnan(found.new_low)


def test_a_slope_is_per_tenfold_foreground(cells):
    pairs, _ = effects.differences(cells, "dice", "ce", "dice@0.5")
    means = pairs.groupby("dose")["difference"].mean()
    assert effects.effect(pairs, "slope").estimate == pytest.approx(np.polyfit(means.index, means, 1)[0])


def test_ladders_with_other_parameters_are_kept_apart(cells):
    other = cells.assign(
        dataset=cells["dataset"] + "+",
        block=cells["block"] + "+",
        key=cells["key"] + "+",
        **{"data.noise": 9.0, "dice@0.5": 0.5},
    )
    both, _ = effects.differences(pd.concat([cells, other]), "dice", "ce", "dice@0.5")
    alone, _ = effects.differences(cells, "dice", "ce", "dice@0.5")
    assert effects.effect(both, "slope").estimate == pytest.approx(
        effects.effect(alone, "slope").estimate / 2
    )


def test_a_single_foreground_fraction_has_no_slope(cells):
    pairs, _ = effects.differences(cells[cells["data.foreground"] == 0.05], "dice", "ce", "dice@0.5")
    with pytest.raises(UserError, match="two or more foreground fractions"):
        effects.effect(pairs, "slope")


@pytest.mark.parametrize(
    ("column", "what"),
    [("init_hash", "initial weights"), ("order_hash", "batch order"), ("split_hash", "split")],
)
@pytest.mark.parametrize("value", ["another", "", None])
def test_cells_with_different_or_missing_certificates_are_not_paired(cells, column, what, value):
    place = cells.index[(cells["loss"] == "dice") & (cells["seed"] == 2)][0]
    cells.loc[place, column] = value
    with pytest.raises(effects.NotPaired, match=what):
        effects.differences(cells, "dice", "ce", "dice@0.5")
    table = contrasts.effects_table(cells, columns=["dice@0.5"])
    refused = table[table["note"].str.contains("not paired")]
    assert list(refused["loss"]) == ["dice"] and refused["estimate"].isna().all()


def test_a_missing_cell_leaves_its_block_out_and_is_counted(cells):
    place = cells.index[(cells["loss"] == "dice")][0]
    thinned = cells.drop(index=place)
    pairs, lost = effects.differences(thinned, "dice", "ce", "dice@0.5")
    assert (len(pairs), lost) == (15, 1)
    table = contrasts.effects_table(thinned, columns=["dice@0.5"])
    assert (table["note"] == "1 block incomplete").sum() == 1
    lacking = rankings.missing_blocks(thinned)
    assert list(lacking["loss"]) == ["dice"] and lacking["missing"].iloc[0] == 1


def test_collapsed_cells_count_with_what_they_scored(cells):
    bad = cells[cells["outcome"] == "collapsed"]
    assert len(bad) == 1
    pairs, lost = effects.differences(cells, "focal", "ce", "dice@0.5")
    assert lost == 0
    assert pairs.set_index("block").loc[bad["block"].iloc[0], "difference"] < -0.4


def test_the_fast_table_equals_the_slow_way(cells):
    thinned = cells.drop(index=cells.index[7])
    table = contrasts.effects_table(thinned, columns=["dice@val"], resamples=500).set_index(
        ["dataset", "loss"]
    )
    for dataset, part in thinned.groupby("dataset"):
        for loss in ("dice", "focal"):
            pairs, _ = effects.differences(part, loss, "ce", "dice@val")
            slow = effects.effect(pairs, resamples=500)
            fast = table.loc[(dataset, loss)]
            for name in ("estimate", "low", "high", "boot_low", "p", "mde", "n_blocks"):
                assert fast[name] == pytest.approx(getattr(slow, name)), name


def test_a_weighted_sum_of_columns_and_its_absolute_value_can_be_tested(cells):
    value = effects.value_of(cells, {"dice@val": 1, "dice@0.5": -0.2})
    assert value.iloc[0] == pytest.approx(cells["dice@val"].iloc[0] - 0.2 * cells["dice@0.5"].iloc[0])
    assert (effects.value_of(cells, "log_size_ratio_hard@0.5", absolute=True) >= 0).all()
    with pytest.raises(UserError, match=r"no column 'dice@05'; did you mean 'dice@0\.5'"):
        effects.value_of(cells, "dice@05")


def test_a_block_with_two_cells_of_one_loss_is_refused(cells):
    with pytest.raises(UserError, match="holds two cells of the loss"):
        effects.differences(
            pd.concat([cells, cells[cells["loss"] == "ce"].iloc[:1]]), "ce", "dice", "dice@0.5"
        )


def test_the_leaderboard_marks_those_that_nothing_is_shown_to_beat(cells):
    board = rankings.leaderboard(cells, "dice@0.5")
    rare = board[board["dataset"] == "scenes(foreground=0.01)"].set_index("loss")
    assert rare.loc["dice", "best"] and rare.loc["0.5*ce + 0.5*dice", "best"]
    assert not rare.loc["ce", "best"] and not rare.loc["focal", "best"]
    assert sorted(rare["place"]) == [1, 2, 3, 4]


def test_two_seeds_can_hardly_tell_anyone_apart(cells):
    board = rankings.leaderboard(cells[cells["seed"] < 1], "dice@0.5")
    assert board["best"].all() and board["low"].isna().all()


def test_where_less_is_better_the_least_comes_first(cells):
    board = rankings.leaderboard(cells, "hd95@0.5")
    first = board[board["place"] == 1]
    assert (first["mean"].to_numpy() == board.groupby(["dataset", "recipe"])["mean"].min().to_numpy()).all()


def test_collapses_are_counted_with_their_kind_and_seed(cells):
    table = rankings.collapses(cells)
    assert table[["loss", "collapsed", "n", "background", "seeds"]].to_numpy().tolist() == [
        ["focal", 1, 4, 1, "3"]
    ]
