"""What a newcomer trips over: who is compared over which seeds, copies that took no time, mixed outcomes,
names of recipes, sentences that a search finds.
"""

import pandas as pd

from lossbench.analysis.answers import cost
from lossbench.base import words
from lossbench.report import advice, boards, context, effects, pairs, runs, singles, summary


def board_of(seeds):
    """Return the one board of losses with these seeds; loss -> seeds."""
    cells = pd.DataFrame(
        [
            {"dataset": "d", "recipe": "r", "loss": loss, "seed": seed, "dice@0.5": 0.5}
            for loss, own in seeds.items()
            for seed in own
        ]
    )
    rows = [
        {"dataset": "d", "recipe": "r", "loss": loss, "loss_label": loss, "family": "f", "data_label": "d"}
        | {"place": place, "mean": 0.5, "low": 0.4, "high": 0.6, "n": len(own), "collapsed": 0}
        | {"best": True, "foreground": 0.01}
        for place, (loss, own) in enumerate(seeds.items(), 1)
    ]
    return boards.boards(pd.DataFrame(rows), cells)[0]


def test_a_board_says_where_its_means_are_over_different_seeds_and_marks_the_rows():
    board = board_of({"ce": range(10), "dice": range(10), "focal": range(6)})
    assert board["seeds"].startswith(
        "The means of this board are not all over the same seeds: 10 of “ce”, “dice”; 6 of “focal”. All "
        "losses have 6 in common."
    )
    assert [row["fewer"] for row in board["rows"]] == [False, False, True]


def test_as_many_seeds_are_not_the_same_seeds():
    board = board_of({"ce": range(5), "dice": range(3, 8)})
    assert "All losses have 2 in common" in board["seeds"] and not any(row["fewer"] for row in board["rows"])


def test_a_board_of_the_same_seeds_says_nothing():
    assert board_of({"ce": range(5), "dice": range(5)})["seeds"] == ""


def test_of_one_data_set_the_board_with_the_fewest_changes_comes_first():
    labels = ["s, head default, steps 3200", "s, steps 3200", "s", "s, steps 200"]
    assert sorted(labels, key=words.plainest) == ["s", "s, steps 200", "s, steps 3200", labels[0]]
    assert sorted(["s 10 %", "s 2 %", "s 0.2 %"], key=words.plainest) == ["s 0.2 %", "s 2 %", "s 10 %"]


def copied_cells():
    rows = [("a1", "r", 4.0, ""), ("a2", "r", 6.0, ""), ("b1", "own", 0.0, "a1"), ("b2", "own", 0.0, "gone")]
    table = pd.DataFrame(rows, columns=["key", "recipe", "seconds", "copy_of"])
    return table.assign(dataset="d", data_label=table["recipe"], cpu_seconds=table["seconds"])


def test_a_copy_of_another_cell_shows_the_time_of_its_original_and_never_zero_seconds():
    cells = copied_cells().assign(loss="ce", loss_label="ce", seed=0, outcome="done", collapse="")
    cells = cells.assign(commit="c", dirty=False, device="cpu")
    ids = singles.variants(cells, {("d", name): name for name in ("r", "own")})
    took = {row[7]: row[5] for row in singles.data(cells, None, ids)["rows"]}
    assert took == {"a1": "4.0 s", "a2": "6.0 s", "b1": "4.0 s, copied", "b2": "copied"}


def test_copies_are_counted_apart_and_leave_the_median_of_a_training_alone():
    rows = {row["recipe"]: row for row in runs.cost(cost(copied_cells()))}
    assert (rows["r"]["copied"], rows["r"]["median"], rows["r"]["total"]) == ("", "5.0 s", "10.0 s")
    assert (rows["own"]["copied"], rows["own"]["median"], rows["own"]["total"]) == (2, "copied", "copied")
    # Results of before know of no copies.
    assert cost(copied_cells().drop(columns="copy_of"))["copied"].tolist() == [0, 0]


def test_a_claim_whose_tests_differ_names_what_each_of_them_shows():
    tests = [
        {"id": f"X.{number}", "verdict": verdict, "adjusted": verdict != "exploratory"}
        for number, verdict in enumerate(("supported", "equivalent", "exploratory"))
    ]
    assert [test["id"] for test in context._mixed(tests)] == ["X.0", "X.1"]
    assert context._mixed([tests[0], tests[2]]) == []


def test_a_recipe_is_called_by_what_it_changes():
    rows = [("s 1 %", "s", "a"), ("s 1 %, head default", "s", "b"), ("t", "t", "a"), ("u, x", "u", "c")]
    cells = pd.DataFrame(rows, columns=["data_label", "dataset", "recipe"])
    assert effects.recipe_names(cells) == {"a": "usual · a", "b": "head default", "c": "usual · c"}
    # Of two lengths none is the plain one.
    rows = [("hearts, patch 64, steps 600", "h", "a"), ("hearts, patch 64, steps 2400", "h", "b")]
    cells = pd.DataFrame(rows, columns=["data_label", "dataset", "recipe"])
    assert effects.recipe_names(cells) == {"a": "steps 600", "b": "steps 2400"}


def row_of(**facts):
    own = {"group": 0, "goal": "Dice at 0.5", "metric": "dice@0.5", "family": "f", "place": 1, "p": 0.01}
    own |= {"estimate": 0.0026, "low": 0.001, "high": 0.0042, "n_seeds": 10, "n_datasets": 1, "datasets": "d"}
    own |= {"false_alarms": 0.06, "collapsed": 0, "n_cells": 10}
    return {**own, "loss_label": facts["loss"], **facts}


def test_advice_says_how_far_losses_fall_short_what_is_shown_and_what_to_take_care_of():
    rows = [row_of(loss="dice", verdict="equal"), row_of(loss="focal", verdict="worse")]
    rows += [row_of(loss="jaccard, fg", verdict="open")]
    groups = {"group": [0], "collapses": ['Collapsed trainings: on "d" "dice" 2 of 10.']}
    short = {"goal": "Dice at 0.5", "loss_label": ["dice + ce", "ce"], "shortfall": [0.0146, 0.0775]}
    short |= {"worst": [0.13, 0.22], "where": ["sirst", "ulcers"], "n_datasets": 10}
    tables = {"advice": pd.DataFrame(rows), "advice_groups": pd.DataFrame(groups)}
    shown = [
        "No loss is shown to be better than ce.",
        "As good as ce (a difference below 1 point counts as equal): “dice”.",
        "Shown to be worse than ce: “focal”.",
        "Not decided against ce, for which more seeds or data sets are needed: “jaccard, fg”.",
        "Collapsed trainings: on “d” “dice” 2 of 10.",
    ]
    assert advice._says(tables)["0"]["Dice at 0.5"] == shown
    says = advice._says({**tables, "advice_shortfalls": pd.DataFrame(short)})["0"]["Dice at 0.5"]
    assert says == [
        "Over 10 real data sets the mean lies behind the best of 2 losses, on average in points: “dice + ce” "
        "1.5, “ce” 7.8; the first of them at worst 13.0 on “sirst”.",
        *shown,
    ]


def test_a_pair_of_losses_is_one_sentence_with_effect_and_interval():
    rows = [
        {
            "metric": metric,
            "loss": "ce_l1",
            "loss_label": "ce + l1",
            "against": "dice",
            "against_label": "dice",
        }
        | {"estimate": -0.0028, "low": -0.0044, "high": -0.0012, "verdict": verdict, "n_seeds": 10}
        | {"by_set": "s 1 % −0.3"}
        for metric, verdict in (("dice@0.5", "equal"), ("dice@val", "open"))
    ]
    (pair,) = pairs.pairs(pd.DataFrame(rows))
    assert pair["says"] == (
        "ce + l1 minus dice: −0.28 points [−0.44, −0.12] of Dice at 0.5 (shown to be equal within 1 point); "
        "−0.28 points [−0.44, −0.12] of Dice at val. threshold (not decided)"
    )
    (pair, half) = pairs.pairs(pd.DataFrame([*rows, {**rows[0], "against": "ce", "against_label": "ce"}]))
    assert half["effects"][1] is None and half["name"] == "ce + l1 minus ce"


def test_too_few_seeds_are_told_of_all_losses_and_of_some():
    rows = [
        {"dataset": name, "recipe": "r", "data_label": name, "loss": loss, "seed": seed}
        for name, counts in (("many", (6, 6)), ("few", (5, 5)), ("uneven", (8, 4)))
        for loss, count in zip(("ce", "dice"), counts, strict=True)
        for seed in range(count)
    ]
    assert summary._seeds(pd.DataFrame(rows)) == (
        "With fewer than 6 seeds p, adjusted over all pairs of losses, cannot fall below .05, so that no "
        "difference can be shown: all losses have so few on 1 of 3 settings (few); some losses "
        "have so few on 1 of 3 settings (uneven)."
    )
    # Three losses are three pairs: 3 * 2 / 2^6 = .09, and with seven seeds .047.
    third = [row | {"loss": "focal"} for row in rows if (row["data_label"], row["loss"]) == ("many", "ce")]
    assert "With fewer than 6 to 7 seeds p, " in summary._seeds(pd.DataFrame([*rows, *third]))
    assert summary._seeds(pd.DataFrame(rows[:12])) == ""


def test_losses_that_miss_the_same_seeds_are_told_in_one_line():
    facts = {"dataset": "d", "recipe": "r", "seeds": "8, 9", "missing": 2, "of": 10}
    missing = pd.DataFrame([{**facts, "loss_label": "dice"}, {**facts, "loss_label": "dice, fg"}])
    effects_of = pd.DataFrame({"note": []})
    derived = {"missing": missing, "effects": effects_of, "part_effects": effects_of}
    derived |= {"verdicts": pd.DataFrame()}
    says = context._missing(derived, pd.DataFrame(), {("d", "r"): "d"}, context.About(), set())
    assert says == [
        "d: 2 of 10 seeds (8, 9) are not trained with “dice”, “dice, fg”; pairs of losses leave them out"
    ]


def test_a_planned_data_set_without_a_training_is_found_by_its_name():
    planned = pd.DataFrame({"dataset": ["a", "b", "b(size=1)"], "dataset_name": ["a", "b", "b"]})
    assert context._absent({"cells": pd.DataFrame({"dataset": ["a"]}), "datasets": planned}) == ["b"]
    assert context._absent({"cells": pd.DataFrame({"dataset": ["a"]})}) == []
