"""The mini study gives the same cells, verdicts and leaderboard, line by line; rerun with LOSSBENCH_REGOLD=1 to accept
a change.
"""

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

VERDICTS = ["test", "role", "verdict", "claim_verdict", "estimate", "low", "high", "p", "p_adjusted", "n_blocks", "mde"]
BOARD = ["dataset", "place", "loss_label", "mean", "low", "high", "n", "collapsed", "best", "best_val", "size_ratio_hard@0.5"]
CELLS = ["dataset", "loss", "seed", "block", "outcome", "dice@0.5", "dice@val", "log_size_ratio_hard@0.5", "log_size_ratio_soft"]


@pytest.fixture(scope="module")
def answers():
    import mini_study

    from benchmark.analysis.answers import answer
    from benchmark.analysis.claims import read_claims
    from benchmark.analysis.tables import compact

    tables = compact(mini_study.records())
    return {"cells": tables["cells"], **answer(tables, read_claims()).tables}


@pytest.mark.parametrize(
    ("table", "columns"), [("cells", CELLS), ("verdicts", VERDICTS), ("leaderboard", BOARD)], ids=["cells", "verdicts", "leaderboard"]
)
def test_the_mini_study_gives_the_numbers_that_were_reviewed(answers, table, columns, tmp_path):
    from benchmark.analysis.tables import write_csv

    golden = HERE / f"mini_{table}.csv"
    new = write_csv(answers[table][columns], tmp_path / golden.name)
    if os.environ.get("LOSSBENCH_REGOLD"):
        golden.write_bytes(new.read_bytes())
    assert new.read_text().splitlines() == golden.read_text().splitlines()


def test_the_verdicts_find_what_was_built_in(answers):
    """Dice beats CE by the threshold, its size is right, CE's mask too small, CE's proportions true: see
    mini_study.py.
    """
    verdicts = answers["verdicts"].set_index("test")
    assert verdicts.loc["C2.2", "verdict"] == "contradicted"
    assert verdicts.loc["C3.1", "verdict"] == "supported"
    assert verdicts.loc["C3.3", "verdict"] == "contradicted"
    assert verdicts.loc[["C9.1", "C9.2", "C10.1", "C10.2"], "verdict"].eq("supported").all()
