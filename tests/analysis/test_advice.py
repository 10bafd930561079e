"""The loss to start with: smallest largest regret among those that can be trusted."""

import pandas as pd
import pytest

from lossbench.analysis import advice
from lossbench.analysis.advice import GOALS, regrets

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
    says = 'Start with both, of 3 losses: it loses at most 3.0 points against the best, on "set a".'
    assert row["says"] == says and row["n_losses"] == 3
    assert next(r["loss"] for r in regrets(cells(SCORES), DICE, False)) == "both"


def test_only_losses_that_every_data_set_holds_compete_and_their_number_is_said():
    table = cells({**SCORES, "focal": (0.99, 0.99)})
    table = table[(table["loss"] != "focal") | (table["dataset"] == "a")]
    assert first(table)["says"].startswith("Start with both, of 3 losses: ")


@pytest.mark.parametrize(
    ("goal", "scores", "says"),
    [
        (
            DICE,
            {"ce": (0.5, 0.9), "dice": (0.6, 0.8999)},
            "it loses less than 0.1 points against the best, o",
        ),
        (DICE, {"ce": (0.5, 0.8), "dice": (0.6, 0.9)}, "the best mean on each of 2 data sets."),
        (SIZE, {"ce": (0.5, 0.2), "dice": (0.001, 0.203)}, "it loses less than 1 % against the best, on "),
    ],
)
def test_a_shortfall_that_rounds_to_zero_is_not_said_to_be_nothing(goal, scores, says):
    table = cells(scores).rename(columns={"dice@0.5": goal.column})
    row = next(row for row in regrets(table, goal, False) if row["first"])
    assert row["says"].startswith(f"Start with dice, of 2 losses: {says}")


def test_the_name_of_a_single_data_set_is_quoted():
    table = cells(SCORES)
    row = first(table[table["dataset"] == "a"])
    assert row["says"] == 'Start with dice, of 3 losses: the best mean on "set a".'


def test_a_loss_that_collapsed_is_never_the_one_to_start_with():
    assert first(cells(SCORES, collapsed=("both",)))["loss"] in ("ce", "dice")


def test_where_empty_images_occur_a_loss_must_be_known_to_stay_quiet():
    loud = {"ce": 0.01, "dice": 0.9, "both": 0.6}
    assert first(cells(SCORES, loud), empty=True)["loss"] == "ce"
    assert first(cells(SCORES, loud), empty=False)["loss"] == "both"
    assert first(cells(SCORES), empty=True) is None  # nothing is known of it


def test_what_a_study_advises_is_read_back_for_data_like_ones_own(tmp_path):
    groups = [
        {"foreground": foreground, "boundaries": boundaries, "empty": "up to 10 %", "group": group}
        | {"n_datasets": 2, "datasets": "set a; set b", "given_up": "foreground" if group else ""}
        for group, foreground in enumerate(("up to 0.5 %", "2.5 to 10 %"))
        for boundaries in ("any", "uncertain")
    ]
    start = [
        {"group": group, "goal": DICE.name, "loss": loss, "loss_label": loss, "n_datasets": 2}
        | {"first": loss == "both", "says": f"Start with {loss}."}
        for group in (0, 1)
        for loss in ("ce", "both")
    ]
    tables = {"advice_groups": pd.DataFrame(groups), "advice_start": pd.DataFrame(start)}
    advice.prior_table(tables).to_csv(tmp_path / "prior.csv", index=False)
    says = advice.prior(0.005, 0.0, "dice@0.5", tmp_path / "prior.csv")
    alike = "up to 0.5 % foreground, up to 10 % of the images empty; set a; set b"
    assert says == f"The study, on data like these ({alike}): Start with both."
    says = advice.prior(0.05, 0.0, "dice@0.5", tmp_path / "prior.csv")
    alike = "2.5 to 10 % foreground, up to 10 % of the images empty"
    assert says.startswith(f"The study holds no data like these ({alike}); on the nearest, of another foreg")
    assert advice.prior(0.5, 0.0, "dice@0.5", tmp_path / "prior.csv") == ""  # no data set is alike
    assert advice.prior(0.05, 0.0, "dice@0.5", tmp_path / "absent.csv") == ""


FACTS = pd.DataFrame(
    [
        ("rare", "up to 0.5 %", "as sharp as the image", "up to 10 %"),
        ("blurred", "2.5 to 10 %", "uncertain", "up to 10 %"),
        ("half empty", "2.5 to 10 %", "not known", "above 40 %"),
    ],
    columns=["dataset", "foreground", "boundaries", "empty"],
).assign(data_label=lambda table: table["dataset"])


@pytest.mark.parametrize(
    ("answers", "sets", "given_up"),
    [
        (("up to 0.5 %", "any", "up to 10 %"), ("rare",), ""),
        (("any", "uncertain", "any"), ("blurred",), ""),
        (("up to 0.5 %", "uncertain", "up to 10 %"), ("rare",), "boundaries"),
        (("up to 0.5 %", "any", "above 40 %"), ("half empty",), "foreground"),
        (("up to 0.5 %", "uncertain", "above 40 %"), ("half empty",), "boundaries and foreground"),
        (("up to 0.5 %", "any", "10 to 40 %"), ("rare",), "empty"),
        (("above 10 %", "any", "10 to 40 %"), ("rare", "blurred", "half empty"), "foreground and empty"),
    ],
)
def test_where_no_data_set_is_alike_the_nearest_speak_and_it_is_said_in_what_they_differ(
    answers, sets, given_up
):
    rows, members = advice._groups(FACTS)
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
            "empty": "up to 10 %",
        }
        for name in "abcdef"
    ]
    return advice.tried(pd.DataFrame(rows), pd.DataFrame(facts), set("abcdef"))


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
    assert "always ce 8.3 [" in row["says"]


def test_a_data_set_that_was_held_out_gives_no_advice_and_few_prove_nothing():
    # Of c and d, where ce is far better, nobody knows.
    swapped = {"ce": (0.5, 0.5, 0.9, 0.9, 0.5, 0.5), "dice_ce": (0.6, 0.6, 0.5, 0.5, 0.6, 0.6)}
    tables = trial(swapped, held="cd")
    assert list(tables["advice_tried"]["loss"].unique()) == ["dice_ce"]
    held = tables["advice_worth"].set_index("held").loc[True]
    assert held["advice"] == pytest.approx(0.4) and pd.isna(held["advice_low"])
    assert held["says"] == (
        "Dice at 0.5, on 2 data sets that were named before training: mean shortfall against the best loss "
        "there, in points: "
        "the advice 40.0; always dice + ce 40.0; always ce 0.0. So few data sets prove nothing."
    )
