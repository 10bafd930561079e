"""Mixed models find the interactions that are built in, hold their level, and say in a note what they cannot
fit.
"""

import numpy as np
import pandas as pd
import pytest

from lossbench.analysis import mixed

FOREGROUND = (0.002, 0.01, 0.05, 0.2)


def ladder(rng, slope=0.0, seeds=5, scale=0.02):
    rows = []
    for f in FOREGROUND:
        for s in range(seeds):
            shared = rng.normal(0, 0.05)
            for loss in ("ce", "dice"):
                score = (
                    0.7
                    + 0.1 * np.log10(f)
                    + shared
                    + rng.normal(0, scale)
                    + (loss == "dice") * (0.05 + slope * np.log10(f))
                )
                rows.append({"dataset": f"d{f}", "recipe": "r", "block": f"{f}/{s}", "loss": loss, "loss_label": loss, "parts": "ladder",
                             "data.foreground": f, "dice@0.5": score})  # fmt: skip
    return pd.DataFrame(rows)


def sizes(rng, gain, seeds=8):
    rows = []
    for s in range(seeds):
        shared = rng.normal(0, 0.05)
        for loss in ("ce", "dice"):
            cell = shared + rng.normal(0, 0.02)
            fifths = {
                f"dice_q{q}@0.5": 0.5
                + 0.05 * q
                + cell
                + rng.normal(0, 0.01)
                + (loss == "dice") * gain * (5 - q)
                for q in range(1, 6)
            }
            rows.append(
                {
                    "dataset": "d",
                    "recipe": "r",
                    "block": f"{s}",
                    "loss": loss,
                    "loss_label": loss,
                    "parts": "sizes",
                    **fifths,
                }
            )
    return pd.DataFrame(rows)


def test_a_lead_that_grows_with_rarity_is_found_with_its_size():
    (row,) = mixed.mixed(ladder(np.random.default_rng(0), slope=-0.06)).to_dict("records")
    assert (row["part"], row["model"], row["loss"], row["term"]) == (
        "ladder",
        "foreground",
        "dice",
        "log10 foreground",
    )
    assert row["low"] <= -0.06 <= row["high"] and row["p"] < 0.001


def test_without_an_interaction_one_is_reported_in_at_most_five_percent():
    rng, runs = np.random.default_rng(1), 100
    alarms = np.mean([mixed.mixed(ladder(rng))["p"].iloc[0] < 0.05 for _ in range(runs)])
    assert alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_a_lead_on_small_objects_is_found_fifth_by_fifth_against_the_largest():
    table = mixed.mixed(sizes(np.random.default_rng(2), gain=0.03)).set_index("term")
    assert list(table.index) == ["q1", "q2", "q3", "q4"]
    assert table.loc["q1", "estimate"] == pytest.approx(0.12, abs=0.03)
    assert (table["low"] <= [0.12, 0.09, 0.06, 0.03]).all() and (
        table["high"] >= [0.12, 0.09, 0.06, 0.03]
    ).all()


def test_too_few_blocks_and_a_failing_fit_become_a_note(monkeypatch):
    few = mixed.mixed(sizes(np.random.default_rng(3), 0, seeds=2))
    assert few["note"].tolist() == ["not fitted: 2 blocks are too few"]

    def singular(*_):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(mixed, "_estimate", singular)
    assert mixed.mixed(ladder(np.random.default_rng(4)))["note"].tolist() == ["not fitted: Singular matrix"]


def test_scores_without_any_spread_do_not_crash():
    table = mixed.mixed(ladder(np.random.default_rng(5), seeds=3).assign(**{"dice@0.5": 0.0}))
    assert len(table) and not (table["p"] < 0.05).any()


def test_blocks_without_a_variance_of_their_own_fall_back_to_least_squares():
    rng = np.random.default_rng(7)
    cells = ladder(rng)
    cells["dice@0.5"] = rng.normal(0.5, 0.1, len(cells))
    cells["dice@0.5"] -= cells.groupby("block")["dice@0.5"].transform("mean")
    table = mixed.mixed(cells)
    assert np.isfinite(table["estimate"]).all() and table["note"].str.len().gt(0).all()


def test_no_cells_or_no_reference_give_an_empty_table():
    cells = ladder(np.random.default_rng(6))
    assert list(mixed.mixed(cells.iloc[:0])) == mixed.COLUMNS
    assert len(mixed.mixed(cells[cells["loss"] != "ce"])) == 0
