"""What counts as learnt and as converged, in numbers that can be checked by hand, and in words."""

import math

import pandas as pd
import pytest

from lossbench.analysis import learnt

SHORT, LONG = 600, 2400

NEAR = "the means of dice and ce are less than a point apart"


def cells(scores, dataset="roads", seeds=(0, 1), **facts):
    """One row a (loss, length, seed) of ``scores``: {(loss, steps): dice}; seeds lie around it."""
    rows = []
    for (loss, steps), dice in scores.items():
        for place, seed in enumerate(seeds):
            row = {"dataset": dataset, "recipe": f"r{steps}", "recipe.steps": steps, "loss": loss}
            row |= {"loss_label": loss, "seed": seed, "parts": "main", "protocol": 2}
            row |= {"data_label": f"{dataset}, steps {steps}", "dice@0.5": dice + 0.02 * (place - 0.5)}
            rows.append({**row, "dice_constant": 0.1, **facts})
    return pd.DataFrame(rows)


def references(value, source="a published one"):
    return pd.DataFrame([{"dataset": "roads", "reference": value, "source": source}])


@pytest.mark.parametrize(("dice", "reached"), [(0.58, 1.0), (0.56, 0.0)])
def test_learnt_is_four_fifths_of_the_way_from_a_constant_to_the_reference(dice, reached):
    table = learnt.learnt(cells({("ce", SHORT): 0.3, ("dice", SHORT): dice}), references(0.69))
    (row,) = table.to_dict("records")
    # (.58 - .1) / (.69 - .1) = .814, (.56 - .1) / .59 = .780
    assert row["learnt"] == reached and row["loss"] == "dice"
    assert row["share"] == pytest.approx((dice - 0.1) / 0.59)


def test_scenes_are_measured_by_the_best_possible_dice_of_which_they_need_nine_tenths():
    table = learnt.learnt(cells({("ce", SHORT): 0.8}, dice_bayes_dice=0.9), references(0.5))
    assert table["reference"].tolist() == [pytest.approx(0.9)] and table["needed"].tolist() == [0.9]
    assert table["learnt"].tolist() == [0.0]  # (.8 - .1) / (.9 - .1) = .875


def test_without_a_reference_the_part_of_that_name_is_one_and_is_judged_by_nobody():
    other = cells({("ce", LONG): 0.6}).assign(parts="reference", recipe="other")
    table = learnt.learnt(pd.concat([cells({("ce", SHORT): 0.4}), other], ignore_index=True))
    assert table["recipe"].tolist() == ["r600"] and table["learnt"].tolist() == [0.0]  # .3 / .5


def test_without_anything_to_measure_by_nothing_is_said():
    table = learnt.learnt(cells({("ce", SHORT): 0.4}))
    assert math.isnan(table["learnt"][0]) and table["says"].tolist() == [""]


def test_it_is_said_in_words():
    table = learnt.learnt(cells({("ce", SHORT): 0.11}), references(0.72, "a published score"))
    assert table["says"].tolist() == [
        "roads, steps 600: not yet learnt: .11 of .72, which is a published score"
    ]


def test_only_variants_that_were_not_learnt_stay_out_and_none_of_protocol_1():
    both = cells({("ce", SHORT): 0.3, ("ce", LONG): 0.7})
    table = learnt.learnt(both, references(0.75))
    assert both.loc[learnt.unlearnt(table, both), "recipe"].unique().tolist() == ["r600"]
    assert not learnt.unlearnt(table, both.assign(protocol=1)).any()


def test_variants_of_which_no_reference_says_whether_they_were_learnt_are_known():
    both = pd.concat(
        [cells({("ce", SHORT): 0.3}), cells({("ce", SHORT): 0.3}, dataset="paths")], ignore_index=True
    )
    table = learnt.learnt(both, references(0.75))
    assert both.loc[learnt.unmeasured(table, both), "dataset"].unique().tolist() == ["paths"]
    assert not learnt.unmeasured(table, both.assign(protocol=1)).any()


def test_a_loss_is_converged_where_a_longer_training_is_shown_to_change_less_than_a_point():
    scores = {("ce", SHORT): 0.5, ("ce", LONG): 0.6, ("dice", SHORT): 0.6, ("dice", LONG): 0.609}
    table = learnt.converged(cells(scores, seeds=range(5)))
    assert table["loss"].tolist() == ["ce", "dice"] and table["converged"].tolist() == [0.0, 1.0]
    assert table["change"].tolist() == [pytest.approx(0.1), pytest.approx(0.009)]
    assert table["longer"].tolist() == [LONG, LONG]
    # One-sided tests of four seeds reach 1 / 2^4 = .063: no estimate of theirs shows that nothing changes.
    few = learnt.converged(cells(scores, seeds=range(4)))["converged"].tolist()
    assert few[0] == 0.0 and math.isnan(few[1])


@pytest.mark.parametrize(
    ("short", "long", "says"),
    [
        (0.65, 0.605, "dice is ahead by 15.0 points after 600 steps; after 2,400 less than one is left"),
        (0.65, 0.55, "dice is ahead by 15.0 points after 600 steps; after 2,400 ce is ahead by 5.0 points"),
        (0.65, 0.65, "dice is ahead by 15.0 points after 600 steps, by 5.0 after 2,400"),
        (0.5, 0.6, f"{NEAR} after 600 steps and after 2,400"),
        (0.5, 0.7, f"{NEAR} after 600 steps; after 2,400 dice is ahead by 10.0 points"),
    ],
)
def test_what_is_left_of_a_lead_is_said_in_words(short, long, says):
    scores = {("ce", SHORT): 0.5, ("dice", SHORT): short, ("ce", LONG): 0.6, ("dice", LONG): long}
    (row,) = learnt.speeds(cells(scores)).to_dict("records")
    assert row["says"] == f"roads: {says}" and row["lead"] == pytest.approx(short - 0.5)
    assert row["lead_longest"] == pytest.approx(long - 0.6)


def test_a_loss_that_marks_nothing_yet_and_seeds_that_are_missing_are_named():
    blank = cells({("ce", SHORT): 0.0, ("dice", SHORT): 0.7, ("ce", LONG): 0.7, ("dice", LONG): 0.7})
    first = (blank["loss"] == "ce") & (blank["recipe.steps"] == SHORT)
    blank.loc[first, "dice@0.5"] = 0.0
    own = blank[~((blank["recipe.steps"] == LONG) & (blank["seed"] == 1))]
    assert list(learnt.speeds(own)["says"]) == [
        "roads: dice is ahead by 70.0 points after 600 steps; after 2,400 less than one is left "
        "(1 of 2 seeds); at first ce marks nothing"
    ]


def test_one_training_under_two_names_is_told_by_the_shorter_one():
    plain = cells({(loss, steps): 0.7 for loss in ("ce", "dice") for steps in (SHORT, LONG)})
    own = plain[plain["seed"] == 0].assign(recipe="own", data_label="roads, learning_rate own, steps 600")
    own = own[own["recipe.steps"] == SHORT]
    assert list(learnt.speeds(pd.concat([own, plain]))["data_label"]) == ["roads"]
