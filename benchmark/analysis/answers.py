"""Everything that the report says in numbers, computed once from the tables: verdicts, effects, leaderboards,
collapses, gaps, cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from benchmark.analysis import ranks
from benchmark.analysis.claims import ClaimSet
from benchmark.analysis.contrasts import effects_table, pooled_effects
from benchmark.analysis.verdicts import Verdict, evaluate, verdict_table

METRICS = ("dice@0.5", "dice@val", "nsd_1@0.5", "hd95@0.5", "log_size_ratio_hard@0.5", "log_size_ratio_soft")
BOARD = (
    "dice@0.5",
    "dice@val",
    "iou@0.5",
    "nsd_1@0.5",
    "hd95@0.5",
    "size_ratio_hard@0.5",
    "size_ratio_soft",
    "recall@0.5",
    "precision@0.5",
    "nll",
    "ece",
)
REFERENCE = "ce"


@dataclass(frozen=True)
class Answers:
    """The derived tables; each is also written as CSV beside the others, so that every number of the report stands in a
    file.
    """

    claims: ClaimSet
    verdicts: tuple[Verdict, ...]
    tables: dict[str, pd.DataFrame]  # verdicts, effects, pooled, leaderboard, collapses, missing, cost


def answer(tables: Mapping[str, pd.DataFrame], claims: ClaimSet) -> Answers:
    """Return the answers that the tables hold; works on any number of cells, also none."""
    cells = tables["cells"]
    verdicts = evaluate(claims.claims, cells)
    derived = {
        "verdicts": verdict_table(verdicts),
        "effects": effects_table(cells, REFERENCE, METRICS),
        "pooled": pooled_effects(cells, REFERENCE, METRICS[:2]),
        "leaderboard": board(cells),
        "collapses": ranks.collapses(cells),
        "missing": ranks.missing_blocks(cells),
        "cost": cost(cells),
    }
    return Answers(claims, verdicts, derived)


def board(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard at 0.5 with who may be the best in each arm, and the means of the other metrics beside
    it.
    """
    if "dice@0.5" not in cells or not len(cells):
        return ranks.leaderboard(cells.iloc[:0])
    table = ranks.leaderboard(cells, "dice@0.5").drop(columns="metric")
    keys = ["dataset", "recipe", "loss"]
    if "dice@val" in cells:
        tuned = ranks.leaderboard(cells, "dice@val")[[*keys, "best"]].rename(columns={"best": "best_val"})
        table = table.merge(tuned, on=keys, how="left")
    present = [column for column in BOARD if column in cells]
    means = cells.groupby(keys, observed=True)[present].mean().reset_index()
    facts = cells.groupby(["dataset", "recipe"], observed=True).agg(data_label=("data_label", "first"), foreground=("foreground_true", "mean"))
    table = table.merge(means, on=keys).merge(facts.reset_index(), on=["dataset", "recipe"])
    return table.sort_values(["foreground", "dataset", "recipe", "place"], ignore_index=True)


def cost(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe): number of cells, median and total seconds, total CPU seconds."""
    grouped = cells.assign(seconds=cells["seconds"].astype(float), cpu_seconds=cells["cpu_seconds"].astype(float))
    grouped = grouped.groupby(["dataset", "recipe"], observed=True, sort=True)
    return grouped.agg(
        data_label=("data_label", "first"),
        cells=("key", "size"),
        seconds_median=("seconds", "median"),
        seconds_total=("seconds", "sum"),
        cpu_seconds_total=("cpu_seconds", "sum"),
    ).reset_index()
