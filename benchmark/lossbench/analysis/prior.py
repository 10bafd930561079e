"""What a study says of data of each kind, for those who have no study at hand: a table in the wheel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lossbench.analysis import likeness
from lossbench.analysis.goals import GOALS

# What the study says of data of each kind: written by `python -m tools.prior RESULTS`, and part of the wheel.
PRIOR = Path(__file__).with_name("prior.csv")

PRIOR_COLUMNS = ["foreground", "empty", "given_up", "goal", "loss", "loss_label", "says", "n_datasets"]
PRIOR_COLUMNS += ["datasets"]


def prior_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what a study's advice comes down to, from the tables of ``advise``: for each foreground share,
    share of empty images and goal the loss to start with, whatever the boundaries.
    """
    groups, start = tables["advice_groups"], tables["advice_start"]
    known_of_own_data = groups[groups["boundaries"] == likeness.ANY].drop(
        columns=["boundaries", "n_datasets"]
    )
    first = start[start["first"].astype(bool)]
    table = known_of_own_data.merge(first, on="group")
    # A user at the command line sees no second paragraph: what limits the advice stands with it.
    limits = table[["alarms", "collapses"]].fillna("").agg(" ".join, axis=1)
    return table.assign(says=(table["says"] + " " + limits).str.split().str.join(" "))[PRIOR_COLUMNS]


def prior(foreground: float, empty: float, column: str, file: Path = PRIOR) -> str:
    """Return what a study says of data with such shares, of the goal of this score, and of which data where
    none is alike; nothing where the package holds no study.
    """
    # A package without a study has nothing to say, and inspect goes on without it.
    if not file.is_file():
        return ""
    table = pd.read_csv(file)
    goal = next((goal.name for goal in GOALS if goal.column == column), "")
    kind = {
        "foreground": likeness.class_of(foreground, likeness.FOREGROUND),
        "empty": likeness.class_of(empty, likeness.EMPTY),
        "goal": goal,
    }
    for name, value in kind.items():
        table = table[table[name] == value]
    if not len(table):
        return ""
    own = table.iloc[0]
    alike = f"{kind['foreground']} foreground, {kind['empty']} of the images empty"
    # An empty text is read back as a missing one.
    if isinstance(own["given_up"], str) and own["given_up"]:
        other = own["given_up"].replace("empty", "share of empty images")
        return (
            f"The study holds no data like these ({alike}); on the nearest, of another {other} "
            f"({own['datasets']}): {own['says']}"
        )
    return f"The study, on data like these ({alike}; {own['datasets']}): {own['says']}"
