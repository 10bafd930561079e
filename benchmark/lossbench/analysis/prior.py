"""What a study says of losses on real data, for those who have no study at hand: a table in the wheel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lossbench.analysis.goals import GOALS, behind

# What the study says: written by `python -m tools.prior RESULTS`, and part of the wheel.
PRIOR = Path(__file__).with_name("prior.csv")

PRIOR_COLUMNS = ["goal", "says"]


def prior_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how far losses fall short of the best one on a study's real data sets: a sentence a goal."""
    found = [{"goal": goal.name, "says": behind(tables, goal)} for goal in GOALS]
    return pd.DataFrame([row for row in found if row["says"]], columns=PRIOR_COLUMNS)


def prior(column: str, file: Path = PRIOR) -> str:
    """Return what a study says of the goal of this score; nothing where the package holds no study."""
    # A package without a study has nothing to say, and inspect goes on without it.
    if not file.is_file():
        return ""
    table = pd.read_csv(file)
    goal = next((goal.name for goal in GOALS if goal.column == column), "")
    own = table.loc[table["goal"] == goal, "says"]
    return f"In the study: {own.iloc[0]}" if len(own) else ""
