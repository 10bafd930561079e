"""The report tells how firm the order of the losses is, of parts open to all losses."""

import pandas as pd

from lossbench.analysis import rankings
from lossbench.analysis.answers import without
from lossbench.report import boards


def told(kind="seeds", metric="dice@0.5", against="", tau=0.5, same=1.0):
    row = {
        "part": "ladder",
        "metric": metric,
        "kind": kind,
        "against": against,
        "tau": tau,
        "ceiling": 0.8,
        "same_first": same,
    }
    return {**row, "n_losses": 4, "n_datasets": 3, "n_seeds": 9}


def mean(loss, value, part="ladder"):
    row = [part, "dice@0.5", loss, loss, "iqm", float("nan"), value, value - 0.1, value + 0.1, 9, 3]
    return dict(zip(rankings.PROFILES, row, strict=True))


def test_parts_that_answer_a_question_of_their_own_are_not_ranked(derived):
    for name in ("profiles", "stability"):
        assert set(derived.tables[name]["part"]) <= {"ladder"}
    assert len(derived.tables["profiles"]) and len(derived.tables["stability"])


def test_a_cell_of_an_open_and_a_fixed_part_counts_for_the_open_one():
    cells = pd.DataFrame({"parts": ["ladder,rates", "rates", "", None]})
    assert without(cells, ["rates"])["parts"].tolist() == ["ladder", "", "", ""]


def test_losses_stand_from_the_best_interquartile_mean_down_and_parts_in_the_order_of_the_experiment():
    table = pd.DataFrame(
        [mean("ce", 0.6), mean("dice", 0.8), mean("dice", 0.7, part="all"), mean("x", 0.7, part="zoo")]
    )
    found = boards.firmness(table, pd.DataFrame([told()]), ["zoo", "ladder", "never trained"])
    assert [part["part"] for part in found] == ["zoo", "ladder", "all"]
    assert [(row["loss"], row["value"], row["interval"]) for row in found[1]["losses"]] == [
        ("dice", "0.800", "[0.700, 0.900]"),
        ("ce", "0.600", "[0.500, 0.700]"),
    ]


def test_the_data_sets_that_hold_a_ranking_up_are_named():
    rows = [
        told(),
        told("data sets", against="scenes 1 %", tau=0.8),
        told("data sets", against="sirst", tau=-0.1, same=0.0),
    ]
    rows += [told("metric", against="nll", tau=0.3), told("seeds", "nll")]
    dice, nll = boards.firmness(pd.DataFrame([mean("ce", 0.6)]), pd.DataFrame(rows))[0]["metrics"]
    assert (dice["seeds"], dice["first"]) == ("0.50", "100 %")
    assert (dice["lowest"], dice["without"], dice["unseated"], dice["dice"]) == (
        "−0.10",
        "sirst",
        ["sirst"],
        "–",
    )
    assert (nll["lowest"], nll["without"], nll["dice"], nll["ceiling"]) == ("–", "", "0.30", "0.80")
