"""Which cells each table of the answers rests on."""

import pytest

from lossbench.analysis.answers import answer
from lossbench.analysis.claims import ClaimSet

RARE, FREQUENT = "scenes(foreground=0.002)", "scenes(foreground=0.2)"


def derived(tables, unlearnt):
    """Return the answers where all data sets are learnt but those of ``unlearnt``."""
    cells = tables["cells"]
    # Far off there; elsewhere the best possible is the best that there is.
    possible = cells.groupby("dataset")["dice@0.5"].transform("max")
    possible = possible.mask(cells["dataset"].isin(unlearnt), 5.0)
    cells = cells.assign(protocol=2, dice_bayes_dice=possible, dice_constant=0.0)
    return answer({**tables, "cells": cells}, ClaimSet((), "none.toml")).tables


def test_what_was_not_learnt_gives_no_advice_and_keeps_its_rows_elsewhere(mini_tables):
    found = derived(mini_tables, [RARE])
    assert RARE not in set(found["advice_data"]["dataset"])
    assert FREQUENT in set(found["advice_data"]["dataset"])
    for name in ("advice", "advice_groups"):
        assert not found[name]["datasets"].str.contains("0.002").any()
    assert RARE not in set(found["advice_start"]["where"])
    for name in ("leaderboard", "effects", "learnt"):
        assert RARE in set(found[name]["dataset"])


@pytest.mark.parametrize("name", ["advice", "advice_data", "advice_start", "advice_tried", "pooled"])
def test_where_nothing_was_learnt_nothing_is_advised(mini_tables, name):
    assert derived(mini_tables, list(mini_tables["cells"]["dataset"].unique()))[name].empty
