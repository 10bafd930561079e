"""The specification curve and its analysis of variance, on cells whose numbers a hand can follow."""

import itertools

import numpy as np
import pandas as pd
import pytest
from test_evidence import SEED, SEEDS, cell

from lossbench.analysis.specification_curve import _explained, shares, specify

STEPS, HEADS = (200, 800), ("default", "prior")


def recipes(**changed):
    """Return the table of recipes of the cells below: two lengths from two heads, and one more."""
    rows = [{"recipe": f"{s}{h}", "steps": s, "head": h, "batch": 8} for s in STEPS for h in HEADS]
    return pd.DataFrame([*rows, *([{**rows[0], "recipe": "other", **changed}] if changed else [])])


def debate(sets=("x", "y")):
    """Return cells of CE, Dice and their sum; Dice is ahead by .1 from the default head, .2 after the short
    training and what the seed adds, and on all images as far behind.
    """
    rows = []
    for data, steps, head, seed in itertools.product(sets, STEPS, HEADS, SEEDS):
        gap = 0.1 * (head == "default") + 0.2 * (steps == 200)
        for loss, ahead in (("ce", 0.0), ("dice", gap + SEED[seed]), ("dice_ce", 0.0)):
            scores = {"dice@val": 0.5 + ahead, "dice_all@0.5": 0.5 - ahead, "dice_all@val": 0.5 - ahead}
            rows.append(cell(data, loss, seed, 0.5 + ahead, steps=steps, head=head, **scores))
    return pd.DataFrame(rows)


def test_every_combination_of_choices_has_its_paired_contrast_and_they_come_sorted():
    found = specify(debate(), recipes())["specifications"]
    own = found[found["contrast"] == "Dice - CE"]
    assert len(own) == 2 * 2 * 2 * 2 * 2 and own["estimate"].is_monotonic_increasing
    where = (own["head"] == "default") & (own["length"] == "shortest") & (own["score"] == "dice")
    assert own.loc[where, "estimate"].tolist() == pytest.approx([0.1 + 0.2 + 0.05] * 4)
    assert (own["n_seeds"] == 6).all() and (own["low"] < own["estimate"]).all()


def test_the_variance_is_divided_among_the_choices_as_on_paper():
    # Head adds +-1, length +-2: of the sum of squares they hold 1 / 5 and 4 / 5, and nothing is left.
    y = np.array([[-1 - 2, -1 + 2], [1 - 2, 1 + 2]], dtype=float)
    assert _explained(y, ["head", "length"]) == pytest.approx(
        {"head": 0.2, "length": 0.8, "head x length": 0, "rest": 0}
    )
    # A choice that only turns another one's sign is all interaction.
    crossed = _explained(np.array([[1.0, -1.0], [-1.0, 1.0]]), ["head", "length"])
    assert crossed == pytest.approx({"head": 0, "length": 0, "head x length": 1, "rest": 0})


def test_a_score_that_turns_the_sign_explains_the_variance():
    # On dice the gap is g + seed, on dice_all its negative; g is 0, .1, .2 or .3.
    found = shares(specify(debate(), recipes())["specifications"])
    own = found[found["contrast"] == "Dice - CE"].set_index("choice")["share"]
    mean, spread = 0.15 + 0.05, np.var([0, 0.1, 0.2, 0.3])
    assert own["score"] == pytest.approx(mean**2 / (mean**2 + spread))
    assert own["data"] == pytest.approx(0) and own.sum() == pytest.approx(1)


def test_data_sets_that_miss_a_combination_are_left_out_of_the_shares():
    cells = debate(("x", "y", "z"))
    cells = cells[~((cells["dataset"] == "z") & (cells["recipe"] == "800prior"))]
    found = shares(specify(cells, recipes())["specifications"])
    assert set(found["n_sets"]) == {2} and found["low"].isna().all()


def test_a_choice_that_is_not_crossed_is_shown_by_what_it_shifts_all_else_equal():
    cells = debate()
    other = cells[cells["recipe"] == "200default"].assign(recipe="other")
    ahead = (other["loss"] == "dice") * 0.03
    cells = pd.concat([cells, other.assign(**{"dice@0.5": other["dice@0.5"] + ahead})])
    found = specify(cells, recipes(batch=4))["shifts"]
    own = found[found["contrast"] == "Dice - CE"].iloc[0]
    assert own["aside"] == "batch 4" and own["estimate"] == pytest.approx(0.03) and own["n_sets"] == 2


def test_without_the_losses_or_their_recipes_the_tables_are_empty():
    cells = debate()
    for given in (specify(cells[cells["loss"] == "ce"], recipes()), specify(cells, None)):
        assert [len(table) for table in given.values()] == [0, 0, 0]
