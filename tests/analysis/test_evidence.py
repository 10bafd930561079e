"""Every shape of a test, on cells whose numbers a hand can follow."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis.claims import Test
from lossbench.analysis.evidence import measure
from lossbench.analysis.pairs import NotPaired
from lossbench.base.errors import UserError

SEEDS = range(6)
# What a seed adds to the difference of a and b: on paper the mean is .05.
SEED = [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]


def cell(dataset, loss, seed, score, steps=200, head="prior", foreground=0.01, **more):
    """Return one cell; all of a data set, recipe and seed started alike."""
    recipe = f"{steps}{head}"
    shared = f"{dataset}{recipe}{seed}"
    return {
        "key": f"{loss}{shared}",
        "dataset": dataset,
        "dataset_name": dataset.split("(")[0],
        "data_label": dataset,
        "loss": loss,
        "loss_label": loss,
        "family": "overlap",
        "seed": seed,
        "recipe": recipe,
        "block": shared,
        "parts": "all",
        "outcome": "done",
        "init_hash": f"i{shared}",
        "order_hash": f"o{shared}",
        "split_hash": f"s{dataset}",
        "data.foreground": foreground,
        "recipe.steps": steps,
        "recipe.head": head,
        "recipe.learning_rate": 0.005,
        "recipe.family": recipe,
        "dice@0.5": score,
        "hd95@0.5": 10 * (1 - score),
        "val_dice@0.5": score,
        **more,
    }


def study(gaps, **more):
    """Return cells of a and b on data sets where a is ahead of b by a gap and what the seed adds."""
    rows = []
    for (dataset, gap), seed in itertools.product(gaps.items(), SEEDS):
        rows.append(cell(dataset, "a", seed, 0.5 + gap + SEED[seed], **more))
        rows.append(cell(dataset, "b", seed, 0.5, **more))
    return pd.DataFrame(rows)


def wanted(**keys):
    usual = {
        "id": "X",
        "says": "",
        "value": "dice@0.5",
        "of": "a",
        "against": "b",
        "expect": "greater",
        "margin": 0.01,
    }
    return Test(**{**usual, **keys})


LADDER = {"scenes(foreground=0.1)": 0.2, "scenes(foreground=0.01)": 0.1}


def test_a_mean_is_taken_within_each_seed_and_leaves_one_number_a_seed():
    found = measure(wanted(), study(LADDER))
    assert found.evidence.estimate == pytest.approx(0.15 + 0.05)
    assert (found.n_seeds, found.n_variants, found.n_sets, found.lost) == (6, 2, 1, 0)
    # Six numbers from .15 to .25: the interval ends at the outermost, and no p is smaller than 2 / 64.
    assert found.evidence.interval() == pytest.approx((0.15, 0.25)) and found.evidence.p() == 2 / 64
    assert [level.effect.estimate for level in found.levels] == pytest.approx([0.15, 0.25])
    assert [level.without.estimate for level in found.levels] == pytest.approx([0.25, 0.15])


def test_levels_that_repeat_each_other_are_no_further_evidence():
    one = measure(wanted(), study({"scenes(foreground=0.1)": 0.2}))
    same = measure(wanted(), study({f"scenes(foreground=0.1, size={size})": 0.2 for size in range(4)}))
    assert same.evidence.p() == one.evidence.p() and same.evidence.interval() == one.evidence.interval()


def test_a_seed_that_misses_a_variant_is_left_out_and_counted():
    cells = study(LADDER)
    found = measure(wanted(), cells.drop(index=cells.index[0]))
    assert (found.n_seeds, found.lost) == (5, 1) and np.isinf(found.evidence.interval()).all()
    none = cells[(cells["dataset"] == "scenes(foreground=0.1)") == (cells["seed"] < 3)]
    with pytest.raises(UserError, match="no seed holds all variants"):
        measure(wanted(), none)


def test_a_collapse_counts_as_scored():
    cells = study(LADDER)
    cells.loc[cells.index[0], ["dice@0.5", "outcome"]] = [0.0, "collapsed"]
    assert measure(wanted(), cells).evidence.estimate == pytest.approx(0.2 - 0.7 / 12)


def test_a_slope_is_that_of_each_seed_per_tenfold_foreground():
    cells = pd.concat(
        [study({name: gap}, foreground=f) for (name, gap), f in zip(LADDER.items(), (0.1, 0.01), strict=True)]
    )
    found = measure(wanted(shape="slope"), cells)
    assert found.evidence.estimate == pytest.approx(0.1) and found.n_seeds == 6
    with pytest.raises(UserError, match="two or more foreground fractions"):
        measure(wanted(shape="slope"), study({"scenes(foreground=0.1)": 0.2}))


def test_a_slope_on_a_dose_is_per_unit_with_all_else_equal():
    cells = pd.concat([study({f"scenes(shift={x})": 2 * x}, **{"data.shift": x}) for x in (0.0, 0.2, 0.4)])
    assert measure(wanted(shape="slope", dose="data.shift"), cells).evidence.estimate == pytest.approx(2)
    apart = cells.assign(**{"data.size": 64 + 100 * cells["data.shift"]})
    with pytest.raises(UserError, match="two or more"):
        measure(wanted(shape="slope", dose="data.shift"), apart)
    recipes = pd.concat([study({"scenes()": x / 100}, steps=x) for x in (1, 2)])
    found = measure(
        wanted(shape="slope", dose="recipe.steps"), recipes.assign(recipe=recipes["recipe.steps"].map(str))
    )
    assert found.evidence.estimate == pytest.approx(0.01)


def test_each_takes_the_variant_furthest_from_equality_and_needs_all_of_them():
    found = measure(wanted(shape="each", expect="equal"), study({"x": -0.05, "y": 0.2, "z": -0.1}))
    assert found.where == "y" and found.evidence.estimate == pytest.approx(0.25)
    # Within .26 lie all numbers of x and z, of y all but those above; beyond .1 lies y alone, one of three.
    assert found.evidence.equal(0.26) > 0.05 > found.evidence.equal(0.31)
    assert found.evidence.beyond(0.1) == pytest.approx(3 * 2 / 64)


def test_a_value_without_a_rival_is_tested_by_itself():
    found = measure(wanted(against=None), study(LADDER))
    assert found.evidence.estimate == pytest.approx(0.5 + 0.2)


def test_a_trend_is_the_slope_along_a_list_of_losses_within_each_seed():
    doses = {"none": 0.9, "some": 0.8, "all": 0.4}
    rows = [
        cell("x", loss, s, value - SEED[s] * (loss == "all")) for loss, value in doses.items() for s in SEEDS
    ]
    found = measure(wanted(of="any", against=None, shape="trend", among=list(doses)), pd.DataFrame(rows))
    # Of three values the slope is half the difference of the outer two: (.4 - seed - .9) / 2.
    assert found.evidence.estimate == pytest.approx(-0.25 - 0.05 / 2)
    assert found.evidence.interval() == pytest.approx((-0.3, -0.25))


def test_a_second_difference_is_taken_off_seed_by_seed():
    cells = pd.concat([study({"scenes()": 0.1}, head="prior"), study({"scenes()": 0.4}, head="default")])
    minus = {"times": 0.2, "where": {"recipe.head": "default"}}
    found = measure(wanted(where={"recipe.head": "prior"}, minus=minus), cells)
    # .1 + seed - .2 (.4 + seed) = .02 + .8 seed
    assert found.evidence.estimate == pytest.approx(0.02 + 0.8 * 0.05)
    assert found.evidence.interval() == pytest.approx((0.02, 0.02 + 0.8 * 0.1))
    with pytest.raises(UserError, match="no cells to take off"):
        measure(wanted(minus={"where": {"recipe.head": "other"}}), cells)


def test_a_second_difference_may_be_of_other_losses():
    cells = pd.concat([study({"scenes()": 0.1}, head="prior"), study({"scenes()": 0.4}, head="default")])
    minus = {"of": "b", "where": {"recipe.head": "default"}}
    found = measure(wanted(against=None, where={"recipe.head": "prior"}, minus=minus), cells)
    assert found.evidence.estimate == pytest.approx(0.6 + 0.05 - 0.5)


def test_the_longest_and_the_shortest_training_of_each_data_set_are_meant():
    cells = pd.concat(
        [study({"x": 0.1}, steps=200), study({"x": 0.3}, steps=800), study({"y": 0.5}, steps=600)]
    )
    by_set = {"longest": [0.35, 0.55], "shortest": [0.15, 0.55]}
    for length, expected in by_set.items():
        found = measure(wanted(length=length), cells)
        assert [level.effect.estimate for level in found.levels] == pytest.approx(expected)
    shorter = measure(wanted(length="longest", data=["x"], minus={"length": "shortest"}), cells)
    assert shorter.evidence.estimate == pytest.approx(0.2)


def test_several_independent_data_sets_are_the_unit_of_a_random_effects_mean():
    found = measure(wanted(), study({"x": 0.1, "y": 0.2, "z": 0.3}))
    # Three effects .15, .25, .35 of equal variance: a t interval with two degrees of freedom.
    assert found.evidence.estimate == pytest.approx(0.25) and found.n_sets == 3
    assert found.evidence.se == pytest.approx(0.1 / np.sqrt(3))
    assert found.evidence.tau**2 == pytest.approx(0.01 - np.var(SEED, ddof=1) / 6)
    assert [level.label for level in found.levels] == ["x", "y", "z"]


def test_levels_of_one_generator_are_one_data_set_beside_real_ones():
    assert measure(wanted(), study({**LADDER, "x": 0.3})).n_sets == 2


def test_what_is_chosen_is_shown_where_the_choice_of_all_seeds_and_of_the_others_show_it():
    cells = study({"x": 0.1}).assign(**{"val_dice@0.5": 0.5})
    third = cells[cells["loss"] == "b"].assign(loss="c", loss_label="c", key=lambda own: own["key"] + "c")
    # c validates better on one seed, which alone makes it the choice of all; it scores .06 lower.
    lucky = np.where(third["seed"] == SEEDS[0], 0.6, 0.49)
    third = third.assign(**{"val_dice@0.5": lucky, "dice@0.5": third["dice@0.5"] - 0.06})
    cells = pd.concat([cells, third], ignore_index=True)
    found = measure(wanted(against=("b", "c")), cells)
    ends = found.evidence.first.interval(), found.evidence.second.interval()
    assert found.evidence.interval() == (min(e[0] for e in ends), max(e[1] for e in ends))
    assert found.evidence.p() == max(found.evidence.first.p(), found.evidence.second.p())
    assert found.levels[0].effect.estimate == found.evidence.estimate == found.evidence.first.estimate
    gain = found.evidence.second.estimate - found.evidence.first.estimate
    assert gain == pytest.approx(0.06 / len(SEEDS))


def ranked(**keys):
    return wanted(of="any", against=None, shape="agreement", null=0.9, **{"with": "hd95@0.5", **keys})


def test_two_metrics_that_rank_alike_agree_more_than_nine_tenths_of_what_noise_allows():
    rng = np.random.default_rng(0)
    rows = [
        cell("x", loss, s, 0.5 + 0.1 * k + rng.normal(0, 0.001))
        for k, loss in enumerate("abcd")
        for s in SEEDS
    ]
    cells = pd.DataFrame(rows)
    found = measure(ranked(expect="greater"), cells)
    assert found.agreement == pytest.approx((1, 1)) and found.evidence.estimate == pytest.approx(0.1)
    turned = measure(ranked(expect="less"), cells.assign(**{"hd95@0.5": cells["dice@0.5"]}))
    assert turned.evidence.estimate == pytest.approx(-1 - 0.9) and turned.evidence.p() == 2 / 64


def test_a_loss_that_a_variant_does_not_hold_is_not_ranked():
    rows = [cell(d, loss, s, 0.1 * k) for d in "xy" for k, loss in enumerate("abcd") for s in SEEDS]
    cells = pd.DataFrame(rows)
    found = measure(ranked(expect="less"), cells[~((cells["dataset"] == "x") & (cells["loss"] == "d"))])
    assert found.n_variants == 2 and found.n_seeds == 6
    with pytest.raises(UserError, match="fewer than three losses"):
        measure(ranked(expect="less"), cells[cells["loss"].isin(["a", "b"])])


def test_a_difference_of_two_largest_regrets_is_taken_within_each_seed():
    cells = study({"x": 0.1, "y": -0.3})
    found = measure(wanted(shape="regret", among=["a", "b"], expect="less"), cells)
    # Behind at worst: a by .3 - seed on y, b by .1 + seed on x.
    assert found.evidence.estimate == pytest.approx(0.3 - 0.05 - (0.1 + 0.05))
    alone = measure(
        wanted(shape="regret", among=["a", "b"], against=None, expect="greater", null=0.05), cells
    )
    # Turning all signs makes x, where a is ahead, look as bad as y: two of the 64 flips.
    assert alone.evidence.estimate == pytest.approx(0.25) and alone.evidence.above(0.05) == 2 / 64


def test_regrets_and_agreements_are_shown_level_by_level_too():
    cells = study({"x": 0.1, "y": -0.3})
    found = measure(wanted(shape="regret", among=["a", "b"], expect="less"), cells)
    # On x a is ahead by .1 + seed, on y behind by .3 - seed; without either the other is left.
    assert [level.effect.estimate for level in found.levels] == pytest.approx([-0.15, 0.25])
    assert [level.without.estimate for level in found.levels] == pytest.approx([0.25, -0.15])
    alone = measure(
        wanted(shape="regret", among=["a", "b"], against=None, expect="greater", null=0.05), cells
    )
    assert [level.effect.estimate for level in alone.levels] == pytest.approx([0, 0.25])
    assert alone.levels[1].without.above(0.05) == 1
    rng = np.random.default_rng(0)
    rows = [
        cell(d, loss, s, 0.1 * k + rng.normal(0, 0.001))
        for d in "xy"
        for k, loss in enumerate("abc")
        for s in SEEDS
    ]
    cells = pd.DataFrame(rows)
    turned = cells["dataset"] == "y"
    cells.loc[turned, "hd95@0.5"] = cells.loc[
        turned, "dice@0.5"
    ]  # there the second order is the first reversed
    found = measure(ranked(expect="less"), cells)
    assert [level.effect.estimate for level in found.levels] == pytest.approx([0.1, -1.9])


def test_whatever_is_chosen_falls_short_somewhere():
    found = measure(
        wanted(of="any", against=None, shape="regret", among=["a", "b"], null=0.05),
        study({"x": 0.1, "y": -0.3}),
    )
    assert found.evidence.estimate == pytest.approx(0.15) and found.evidence.above(0.05) < 0.05


def test_what_is_missing_or_not_paired_is_said_in_a_sentence():
    cells = study(LADDER)
    for keys, says in (
        ({"of": "c"}, "there are no cells of c"),
        ({"part": ["other"]}, "there are no cells of a and b in part other"),
        ({"where": {"data.forground": 1}}, "no column 'data.forground'; did you mean 'data.foreground'"),
        ({"shape": "regret", "among": ["a", "c"], "against": None}, "there are no cells of c"),
    ):
        with pytest.raises(UserError, match=says):
            measure(wanted(**keys), cells)
    cells.loc[cells.index[0], "init_hash"] = "other"
    for keys in ({}, {"shape": "regret", "among": ["a", "b"]}):
        with pytest.raises(NotPaired, match="not paired"):
            measure(wanted(**keys), cells)
