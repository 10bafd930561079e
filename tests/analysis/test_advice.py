"""How far losses fall short, on data that are alike and on real data, and what rules that choose one cost."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import advice, likeness, prior, regrets, tried
from lossbench.analysis.goals import GOALS
from lossbench.analysis.selection import real

DICE = GOALS[0]
SIZE = next(goal for goal in GOALS if goal.absolute)


def cells(scores, alarms=None, collapsed=()):
    """Return one cell a (loss, data set); scores: loss -> Dice on the data sets a and b."""
    rows = [
        {"loss": loss, "loss_label": loss, "dataset": name, "data_label": f"set {name}", "dice@0.5": value}
        | {"outcome": "collapsed" if loss in collapsed else "done"}
        | ({"false_alarms@0.5": alarms[loss]} if alarms else {})
        for loss, values in scores.items()
        for name, value in zip("ab", values, strict=True)
    ]
    return pd.DataFrame(rows)


SCORES = {"ce": (0.60, 0.90), "dice": (0.80, 0.70), "both": (0.77, 0.88)}


def test_the_safest_loss_has_the_smallest_largest_regret():
    # Regrets: ce .20 on a; dice .20 on b; both .03 on a.
    rows = regrets.regrets(cells(SCORES), DICE)
    assert rows[0]["loss"] == "both" and rows[0]["regret"] == pytest.approx(0.03)
    assert rows[0]["where"] == "set a" and rows[0]["n_losses"] == 3 and rows[0]["n_datasets"] == 2
    assert regrets.safest(cells(SCORES), DICE, False) == "both"


def test_only_losses_that_every_data_set_holds_compete():
    table = cells({**SCORES, "focal": (0.99, 0.99)})
    table = table[(table["loss"] != "focal") | (table["dataset"] == "a")]
    assert {row["loss"] for row in regrets.regrets(table, DICE)} == set(SCORES)
    # On one data set all losses that have a score compete; one alone has no regret.
    assert len(regrets.regrets(table[table["dataset"] == "a"], DICE)) == 4
    assert regrets.regrets(cells({"ce": SCORES["ce"]}), DICE) == []


def test_of_sizes_too_large_and_too_small_are_equally_wrong():
    table = cells({"ce": (0.5, -0.2), "dice": (-0.1, 0.3)}).rename(columns={"dice@0.5": SIZE.column})
    short = regrets.shortfalls(table, SIZE)
    assert short.loc["ce"].tolist() == pytest.approx([0.4, 0]) and short.loc["dice", "b"] == pytest.approx(
        0.1
    )


def test_a_loss_that_collapsed_is_never_the_safest():
    assert regrets.safest(cells(SCORES, collapsed=("both",)), DICE, False) in ("ce", "dice")


def test_where_empty_images_occur_the_safest_loss_must_be_known_to_stay_quiet():
    loud = {"ce": 0.01, "dice": 0.9, "both": 0.6}
    assert regrets.safest(cells(SCORES, loud), DICE, True) == "ce"
    assert regrets.safest(cells(SCORES, loud), DICE, False) == "both"
    assert regrets.safest(cells(SCORES), DICE, True) is None  # nothing is known of it


def crowded():
    """Return cells of ce and dice on data with few, some and many empty images; dice collapsed on many."""
    rows = []
    for name, empty, bad in (("few", 0.0, 0), ("some", 0.3, 0), ("many", 0.7, 3)):
        for loss, score in (("ce", 0.8), ("dice", 0.81)):
            for seed in range(4):
                row = {"dataset": name, "data_label": name, "loss": loss, "loss_label": loss, "seed": seed}
                row |= {"recipe": "r", "block": f"{name}{seed}", "family": "f", "dataset_name": name}
                row |= dict.fromkeys(("init_hash", "order_hash", "split_hash"), f"{name}{seed}")
                row |= {"data.empty": empty, "foreground_true": 0.01, "dice@0.5": score + 0.001 * seed}
                ended = "collapsed" if loss == "dice" and seed < bad else "done"
                rows.append({**row, "false_alarms@0.5": 0.01, "outcome": ended})
    return pd.DataFrame(rows)


def test_losses_that_collapsed_are_named_also_where_other_data_with_empty_images_showed_it():
    tables = advice.advise(crowded())
    groups = tables["advice_groups"][tables["advice_groups"]["foreground"] == "any"]
    care = groups[groups["boundaries"] == "any"].set_index("empty")["collapses"]
    told = 'on "many" "dice" 3 of 4.'
    assert care["any"] == care["more than 40 %"] == f"Collapsed trainings: {told}"
    assert care["10 to 40 %"] == f"Collapsed trainings on other data with empty images: {told}"
    assert care["10 % or less"] == ""
    rows = tables["advice"].merge(groups[["group", "empty"]], on="group").set_index("empty")
    assert rows.loc["more than 40 %", "collapsed"].iloc[0] == 3
    assert rows.loc["10 to 40 %", "collapsed"].iloc[0] == 0 and set(rows["n_cells"]) == {4, 12}


def test_what_a_study_says_of_real_data_is_read_back(tmp_path):
    table = regrets.over_real(*trial_cells(TRIED), set("abcdef"))
    prior.prior_table({"advice_shortfalls": table}).to_csv(tmp_path / "prior.csv", index=False)
    assert prior.prior("dice@0.5", tmp_path / "prior.csv") == (
        "In the study: Over 6 real data sets the mean lies behind the best of 2 losses, on average in "
        'points: "dice_ce" 0.5, "ce" 8.3; the first of them at worst 3.0 on "set f".'
    )
    assert prior.prior("hd95@0.5", tmp_path / "prior.csv") == ""  # nothing is known of it
    assert prior.prior("dice@0.5", tmp_path / "absent.csv") == ""
    prior.prior_table({}).to_csv(tmp_path / "nothing.csv", index=False)
    assert prior.prior("dice@0.5", tmp_path / "nothing.csv") == ""


FACTS = pd.DataFrame(
    [
        ("rare", "0.5 % or less", "as sharp as the image", "10 % or less"),
        ("blurred", "2.5 to 10 %", "uncertain", "10 % or less"),
        ("half empty", "2.5 to 10 %", "not known", "more than 40 %"),
    ],
    columns=["dataset", "foreground", "boundaries", "empty"],
).assign(data_label=lambda table: table["dataset"])


@pytest.mark.parametrize(
    ("answers", "sets", "given_up"),
    [
        (("0.5 % or less", "any", "10 % or less"), ("rare",), ""),
        (("any", "uncertain", "any"), ("blurred",), ""),
        (("0.5 % or less", "uncertain", "10 % or less"), ("rare",), "boundaries"),
        (("0.5 % or less", "any", "more than 40 %"), ("half empty",), "foreground"),
        (("0.5 % or less", "uncertain", "more than 40 %"), ("half empty",), "boundaries and foreground"),
        (("0.5 % or less", "any", "10 to 40 %"), ("rare",), "empty"),
        (("more than 10 %", "any", "10 to 40 %"), ("rare", "blurred", "half empty"), "foreground and empty"),
    ],
)
def test_where_no_data_set_is_alike_the_nearest_speak_and_it_is_said_in_what_they_differ(
    answers, sets, given_up
):
    rows, members = likeness.groups(FACTS)
    asked = ("foreground", "boundaries", "empty")
    (row,) = [row for row in rows if tuple(row[name] for name in asked) == answers]
    assert members[row["group"]] == sets and row["given_up"] == given_up
    assert len(rows) == 5 * 3 * 4
    # Of the same data sets another loss may be fit where empty images are said to occur.
    everything = next(row for row in rows if all(row[name] == "any" for name in asked))
    assert answers[2] != "10 to 40 %" or everything["group"] != row["group"]


def trial_cells(scores, held=()):
    """Return cells of sets a to f and what these are like; scores: loss -> Dice on each of them."""
    rows = [
        {"loss": loss, "loss_label": loss, "dataset": name, "data_label": f"set {name}", "dice@0.5": value}
        | {"outcome": "done", "recipe": "r", "parts": "held_out" if name in held else "public"}
        for loss, values in scores.items()
        for name, value in zip("abcdef", values, strict=True)
    ]
    facts = [
        {
            "dataset": name,
            "recipe": "r",
            "data_label": f"set {name}",
            "foreground": "f",
            "empty": "10 % or less",
        }
        for name in "abcdef"
    ]
    return pd.DataFrame(rows), pd.DataFrame(facts)


def trial(scores, held=()):
    """Return what rules cost on sets a to f."""
    return tried.tried(*trial_cells(scores, held), set("abcdef"))


# On f alone ce is better than their sum.
TRIED = {"ce": (0.5, 0.5, 0.5, 0.5, 0.5, 0.9), "dice_ce": (0.6, 0.6, 0.6, 0.6, 0.6, 0.87)}


def test_over_real_data_the_mean_shortfall_orders_the_losses_where_there_are_enough_sets():
    table, facts = trial_cells(TRIED)
    found = regrets.over_real(table, facts, set("abcdef"))
    assert found["loss"].tolist() == ["dice_ce", "ce"] and set(found["n_datasets"]) == {6}
    assert found["shortfall"].tolist() == pytest.approx([0.005, 0.5 / 6])
    assert found["worst"].tolist() == pytest.approx([0.03, 0.1]) and found["where"].iloc[0] == "set f"
    assert not len(regrets.over_real(table, facts, set("abcd")))


def test_each_data_set_is_left_out_in_turn_and_the_rule_is_followed_that_the_others_give():
    # Maximal regret with f among the others: dice_ce .03, ce .1; without it: dice_ce 0.
    found = trial(TRIED)["advice_tried"]
    assert list(found["alike_loss"].unique()) == ["dice_ce"]
    assert found["alike"].round(6).tolist() == [0, 0, 0, 0, 0, 0.03]
    assert found["ce"].round(6).tolist() == [0.1] * 5 + [0]
    assert set(found["rests_on"].iloc[5].split("; ")) == {f"set {name}" for name in "abcde"}


def test_what_a_rule_costs_stands_beside_one_loss_for_all_data():
    (row,) = trial(TRIED)["advice_worth"].to_dict("records")
    assert row["alike"] == row["dice_ce"] == pytest.approx(0.005)
    assert row["ce"] == pytest.approx(0.5 / 6) and row["ce_low"] < row["ce"] < row["ce_high"]
    assert row["says"].startswith(
        "Dice at 0.5, on 6 data sets that were left out in turn: mean shortfall against the best loss there, "
        "in points: what is safest on data that are alike 0.5 ["
    )
    assert "always ce 8.3 [" in row["says"] and "trained its loss" not in row["says"]


def test_beside_it_stands_the_one_loss_that_is_nearest_to_the_best_on_average_over_the_others():
    # Where a wins, it wins by much; b wins more often.
    scores = {"a": (0.9, 0.5, 0.5, 0.5, 0.5, 0.5), "b": (0.4, 0.55, 0.55, 0.55, 0.55, 0.55)}
    tables = trial(scores)
    # Mean shortfalls of the others: without the first set a .05 and b 0; with it b .1 and a .04.
    assert tables["advice_tried"]["nearest_loss"].tolist() == ["b"] + ["a"] * 5
    (row,) = tables["advice_worth"].to_dict("records")
    assert row["nearest"] == pytest.approx((0.5 + 5 * 0.05) / 6)


def test_generated_data_take_no_part():
    cells = pd.DataFrame({"dataset": ["scenes(shape='field')", "sirst"]})
    sets = pd.DataFrame({"dataset": cells["dataset"], "family": ["synthetic", "public"]})
    assert real(cells, sets)["dataset"].tolist() == ["sirst"] and len(real(cells, None)) == 2


def test_a_rule_whose_loss_was_not_trained_everywhere_says_on_how_many_data_sets_it_rests():
    other = {"ce": TRIED["ce"], "dice": TRIED["dice_ce"], "dice_ce": (*TRIED["dice_ce"][:2], *4 * (np.nan,))}
    (row,) = trial(other)["advice_worth"].to_dict("records")
    assert "always dice + ce 0.0 on the 2 of them that trained its loss; always ce 8.3 [" in row["says"]


def test_no_rule_rests_on_a_data_set_that_was_held_out_and_few_prove_nothing():
    # Of c and d, where ce is far better, nobody knows.
    swapped = {"ce": (0.5, 0.5, 0.9, 0.9, 0.5, 0.5), "dice_ce": (0.6, 0.6, 0.5, 0.5, 0.6, 0.6)}
    tables = trial(swapped, held="cd")
    assert list(tables["advice_tried"]["alike_loss"].unique()) == ["dice_ce"]
    held = tables["advice_worth"].set_index("held").loc[True]
    assert held["alike"] == pytest.approx(0.4) and pd.isna(held["alike_low"])
    assert held["says"] == (
        "Dice at 0.5, on 2 data sets that were named before training: mean shortfall against the best loss "
        "there, in points: what is safest on data that are alike 40.0; what is nearest to the best on the "
        "others 40.0; always dice + ce 40.0; always ce 0.0. So few data sets prove nothing."
    )
