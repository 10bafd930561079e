"""The loss to start with: smallest largest regret among those that can be trusted."""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import advice, likeness, prior, tried
from lossbench.analysis.goals import GOALS
from lossbench.analysis.regrets import regrets
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


def first(table, empty=False):
    return next((row for row in regrets(table, DICE, empty) if row["first"]), None)


def test_the_loss_to_start_with_has_the_smallest_largest_regret():
    # Regrets: ce .20 on a; dice .20 on b; both .03 on a.
    row = first(cells(SCORES))
    says = 'Use both. Where it does worst, on "set a", its mean is 3.0 points behind the best of 3 losses.'
    assert row["says"] == says and row["n_losses"] == 3
    assert next(r["loss"] for r in regrets(cells(SCORES), DICE, False)) == "both"


def test_only_losses_that_every_data_set_holds_compete_and_their_number_is_said():
    table = cells({**SCORES, "focal": (0.99, 0.99)})
    table = table[(table["loss"] != "focal") | (table["dataset"] == "a")]
    says = first(table)["says"]
    assert says.endswith("of 3 losses. Only these 3 of 4 losses were trained on all 2 data sets.")
    # On one data set all losses that have a score compete, and nothing is left to say of others.
    assert "Only" not in first(table[table["dataset"] == "a"])["says"]


@pytest.mark.parametrize(
    ("goal", "scores", "says"),
    [
        (
            DICE,
            {"ce": (0.5, 0.9), "dice": (0.6, 0.8999)},
            "less than 0.1 points behind the best of 2 losses.",
        ),
        (DICE, {"ce": (0.5, 0.8), "dice": (0.6, 0.9)}, "the best mean of 2 losses on each of 2 data sets."),
        (SIZE, {"ce": (0.5, 0.2), "dice": (0.001, 0.203)}, "less than 1 % behind the best of 2 losses."),
        (SIZE, {"ce": (0.0, 11.2), "dice": (10.6, 0.0)}, "mean is >999 % behind the best of 2 losses."),
    ],
)
def test_a_shortfall_that_rounds_to_zero_is_not_said_to_be_nothing(goal, scores, says):
    table = cells(scores).rename(columns={"dice@0.5": goal.column})
    row = next(row for row in regrets(table, goal, False) if row["first"])
    assert row["says"].startswith("Use dice. ") and row["says"].endswith(says)


def test_the_name_of_a_single_data_set_is_quoted():
    table = cells(SCORES)
    row = first(table[table["dataset"] == "a"])
    assert row["says"] == 'Use dice. It has the best mean of 3 losses on "set a".'


def test_a_loss_that_collapsed_is_never_the_one_to_start_with():
    row = first(cells(SCORES, collapsed=("both",)))
    assert row["loss"] in ("ce", "dice")
    # The reader learns why the loss that comes nearest to the best is not the one.
    why = 'Not advised, although nearer to the best: "both" collapsed in 2 of 2 trainings.'
    assert row["says"].endswith(why)


def test_where_empty_images_occur_a_loss_must_be_known_to_stay_quiet():
    loud = {"ce": 0.01, "dice": 0.9, "both": 0.6}
    assert first(cells(SCORES, loud), empty=True)["loss"] == "ce"
    assert first(cells(SCORES, loud), empty=False)["loss"] == "both"
    assert first(cells(SCORES), empty=True) is None  # nothing is known of it
    assert first(cells(SCORES, loud), empty=True)["says"].endswith(
        '"both" marks something on 60 % of the images without foreground.'
    )


@pytest.mark.parametrize(
    ("alarms", "says"),
    [
        ((0.012, 0.3, 0.06), "both marks something on 6 % of {}; the safest loss here is ce, on 1.2 %."),
        ((0.3, 0.2, 0.0), "both marks something on 0 % of {}; the next safest is dice, on 20 %."),
        # Of equals the plainest is named.
        ((0.06, 0.06, 0.06), "both marks something on 6 % of {}; as safe is ce, on 6 %."),
    ],
)
def test_where_empty_images_occur_the_false_alarms_of_the_advised_and_the_safest_loss_are_named(alarms, says):
    table = cells(SCORES, dict(zip(SCORES, alarms, strict=True)))
    assert (
        first(table, empty=True)["alarms"] == f"False alarms: {says.format('the images without foreground')}"
    )
    assert first(table, empty=False)["alarms"] == ""


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


def test_what_a_study_advises_is_read_back_for_data_like_ones_own(tmp_path):
    groups = [
        {"foreground": foreground, "boundaries": boundaries, "empty": "10 % or less", "group": group}
        | {"n_datasets": 2, "datasets": "set a; set b", "given_up": "foreground" if group else ""}
        | {"collapses": "" if group else "It collapsed."}
        for group, foreground in enumerate(("0.5 % or less", "2.5 to 10 %"))
        for boundaries in ("any", "uncertain")
    ]
    start = [
        {"group": group, "goal": DICE.name, "loss": loss, "loss_label": loss, "n_datasets": 2}
        | {"first": loss == "both", "says": f"Use {loss}.", "alarms": "Few alarms." if group else ""}
        for group in (0, 1)
        for loss in ("ce", "both")
    ]
    tables = {"advice_groups": pd.DataFrame(groups), "advice_start": pd.DataFrame(start)}
    prior.prior_table(tables).to_csv(tmp_path / "prior.csv", index=False)
    says = prior.prior(0.005, 0.0, "dice@0.5", tmp_path / "prior.csv")
    alike = "0.5 % or less foreground, 10 % or less of the images empty; set a; set b"
    assert says == f"The study, on data like these ({alike}): Use both. It collapsed."
    says = prior.prior(0.05, 0.0, "dice@0.5", tmp_path / "prior.csv")
    alike = "2.5 to 10 % foreground, 10 % or less of the images empty"
    assert says.startswith(f"The study holds no data like these ({alike}); on the nearest, of another foreg")
    assert says.endswith("Use both. Few alarms.")
    assert prior.prior(0.5, 0.0, "dice@0.5", tmp_path / "prior.csv") == ""  # no data set is alike
    assert prior.prior(0.05, 0.0, "dice@0.5", tmp_path / "absent.csv") == ""


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


def trial(scores, held=()):
    """Return what the advice is worth on sets a to f; scores: loss -> Dice on each of them."""
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
    return tried.tried(pd.DataFrame(rows), pd.DataFrame(facts), set("abcdef"))


# On f alone ce is better than their sum.
TRIED = {"ce": (0.5, 0.5, 0.5, 0.5, 0.5, 0.9), "dice_ce": (0.6, 0.6, 0.6, 0.6, 0.6, 0.87)}


def test_each_data_set_is_left_out_in_turn_and_the_advice_of_the_others_is_followed():
    # Maximal regret with f among the others: dice_ce .03, ce .1; without it: dice_ce 0.
    found = trial(TRIED)["advice_tried"]
    assert list(found["loss"].unique()) == ["dice_ce"]
    assert found["advice"].round(6).tolist() == [0, 0, 0, 0, 0, 0.03]
    assert found["ce"].round(6).tolist() == [0.1] * 5 + [0]
    assert set(found["rests_on"].iloc[5].split("; ")) == {f"set {name}" for name in "abcde"}


def test_what_the_advice_is_worth_stands_beside_one_loss_for_all_data():
    (row,) = trial(TRIED)["advice_worth"].to_dict("records")
    assert row["advice"] == row["dice_ce"] == pytest.approx(0.005)
    assert row["ce"] == pytest.approx(0.5 / 6) and row["ce_low"] < row["ce"] < row["ce_high"]
    assert row["says"].startswith(
        "Dice at 0.5, on 6 data sets that were left out in turn: mean shortfall against the best loss there, "
        "in points: the advice 0.5 ["
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


def test_a_data_set_that_was_held_out_gives_no_advice_and_few_prove_nothing():
    # Of c and d, where ce is far better, nobody knows.
    swapped = {"ce": (0.5, 0.5, 0.9, 0.9, 0.5, 0.5), "dice_ce": (0.6, 0.6, 0.5, 0.5, 0.6, 0.6)}
    tables = trial(swapped, held="cd")
    assert list(tables["advice_tried"]["loss"].unique()) == ["dice_ce"]
    held = tables["advice_worth"].set_index("held").loc[True]
    assert held["advice"] == pytest.approx(0.4) and pd.isna(held["advice_low"])
    assert held["says"] == (
        "Dice at 0.5, on 2 data sets that were named before training: mean shortfall against the best loss "
        "there, in points: the advice 40.0; what is nearest to the best on the others 40.0; always dice + ce "
        "40.0; always ce 0.0. So few data sets prove nothing."
    )
