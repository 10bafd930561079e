"""The mini study gives the same cells, verdicts and leaderboard, line by line; rerun with LOSSBENCH_REGOLD=1
to accept a change.
"""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

VERDICTS = [
    "test",
    "role",
    "verdict",
    "claim_verdict",
    "estimate",
    "low",
    "high",
    "p",
    "p_adjusted",
    "null",
    "n_seeds",
    "n_variants",
    "mde",
]
BOARD = [
    "dataset",
    "place",
    "loss_label",
    "mean",
    "low",
    "high",
    "n",
    "collapsed",
    "best",
    "best_val",
    "size_ratio_hard@0.5",
]
CELLS = [
    "dataset",
    "loss",
    "seed",
    "recipe.learning_rate",
    "parts",
    "block",
    "outcome",
    "dice@0.5",
    "dice@val",
    "log_size_ratio_hard@0.5",
    "log_size_ratio_soft",
    "steps_to_half",
    "log_loss_noise",
    "log_grad_noise",
]
PROFILES = ["part", "loss_label", "kind", "value", "low", "high", "n_runs"]
STABILITY = ["part", "metric", "kind", "against", "tau", "ceiling", "same_first"]


@pytest.fixture(scope="module")
def answers():
    import mini_study

    from lossbench.analysis.answers import answer
    from lossbench.analysis.claims import read_claims
    from lossbench.analysis.rankings import profiles, stability
    from lossbench.store.note import Note, Part
    from lossbench.tables.compact import compact

    ladder = Part(name="ladder", seeds=list(range(mini_study.SEEDS)), losses=list(mini_study.LOSSES))
    tables = compact(mini_study.study(), Note(name="paper", parts=[ladder], cells=[]))
    ladder = tables["cells"][tables["cells"]["parts"].str.contains("ladder")]
    found = {
        "profiles": profiles(tables["cells"], thresholds=()),
        "stability": stability(ladder, ("dice@0.5", "nll")),
    }
    return {
        "cells": tables["cells"],
        **answer(tables, read_claims(HERE / "mini_claims.toml")).tables,
        **found,
    }


TABLES = {
    "cells": CELLS,
    "verdicts": VERDICTS,
    "leaderboard": BOARD,
    "profiles": PROFILES,
    "stability": STABILITY,
}


@pytest.mark.parametrize("table", TABLES)
def test_the_mini_study_gives_the_numbers_that_were_reviewed(answers, table, tmp_path):
    from lossbench.tables.files import write_csv

    golden = HERE / f"mini_{table}.csv"
    new = write_csv(answers[table][TABLES[table]], tmp_path / golden.name)
    if os.environ.get("LOSSBENCH_REGOLD"):
        golden.write_bytes(new.read_bytes())
    assert new.read_text().splitlines() == golden.read_text().splitlines()


def test_the_verdicts_find_what_was_built_in(answers):
    """Dice beats CE by the threshold, its size is right, CE's mask too small, CE's proportions true: see
    mini_study.py.
    """
    verdicts = answers["verdicts"].set_index("test")["verdict"]
    assert {name: verdict for name, verdict in verdicts.items() if verdict != "exploratory"} == {
        "M1.mean": "supported",  # Dice ahead of CE at 0.5
        "M1.slope": "supported",
        "M1.each": "contradicted",  # CE's mask is too small
        "M2.dose": "supported",
        "M2.where": "supported",
        "M2.absolute": "equivalent",
        "M3.tuned": "contradicted",  # at its own best rate CE is ahead
        "M4.list": "supported",  # no worse than the best of two
        "M5.opposite": "supported",
        "M5.same": "supported",
        "M6.difference": "supported",
        "M6.any": "contradicted",  # Dice never falls short
        "M6.ce": "supported",
        "M7.missing": "not testable",
    }
    assert set(verdicts[verdicts == "exploratory"].index) == {"M1.equal", "M1.sum", "M3.usual", "M4.worse"}


def test_a_test_without_cells_names_the_command_that_trains_them(answers):
    assert (
        answers["verdicts"].set_index("test").loc["M7.missing", "command"]
        == "lossbench sweep paper --loss nowhere"
    )
