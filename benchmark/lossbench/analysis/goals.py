"""What one may want of a loss: a score, and which sign of a difference is good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.base import columns


@dataclass(frozen=True)
class Goal:
    """What one optimises: a column, whether |.| of it is taken, which sign is good."""

    name: str
    column: str
    absolute: bool
    good: int

    @property
    def estimand(self) -> str:
        """Return the column, between bars where its size alone counts."""
        return f"|{self.column}|" if self.absolute else self.column


GOALS = (
    Goal("Dice at 0.5", "dice@0.5", False, 1),
    Goal("Dice over all images, empty ones too", "dice_all@0.5", False, 1),
    Goal("Dice at a tuned threshold", "dice@val", False, 1),
    Goal("few false alarms", "false_alarms@0.5", False, -1),
    Goal("surface distance (HD95)", "hd95@0.5", False, -1),
    # Too large and too small are equally wrong.
    Goal("calibrated volume", "log_size_ratio_soft", True, -1),
    Goal("calibrated probabilities (ECE)", "ece", False, -1),
)


def amount(value: float, goal: Goal) -> str:
    """Return a difference in the unit of a goal, as sentences and tables write it."""
    if columns.describe(goal.column).format == columns.POINTS:
        return f"{100 * value:.1f}"
    if not goal.absolute:
        return f"{value:.3g}"
    percent = 100 * np.expm1(value)
    # Beyond that a size is as good as any: how much beyond says nothing.
    return f"{percent:.0f}" if percent < 999.5 else ">999"


def unit(goal: Goal) -> str:
    """Return that unit, with the space before it; nothing where a score has none of its own."""
    if columns.describe(goal.column).format == columns.POINTS:
        return " points"
    return " %" if goal.absolute else ""


def scale(goal: Goal) -> str:
    """Return the unit as a sentence names it before several numbers: " in points"."""
    return unit(goal).replace(" points", " in points").replace(" %", " in %")


def behind(tables: Mapping[str, pd.DataFrame], goal: Goal) -> str:
    """Return how far the mean of each loss lies behind the best one's over real data sets; nothing where too
    few can be compared.
    """
    table = tables.get("advice_shortfalls")
    own = table[table["goal"] == goal.name] if table is not None else ()
    if not len(own):
        return ""
    parts = [f'"{row.loss_label}" {amount(row.shortfall, goal)}' for row in own.itertuples()]
    sets, most = own["n_datasets"].iloc[0], own.iloc[0]
    worst = f'{amount(most["worst"], goal)} on "{most["where"]}"'
    return (
        f"Over {sets} real data sets the mean lies behind the best of {len(own)} losses, on average"
        f"{scale(goal)}: {', '.join(parts)}; the first of them at worst {worst}."
    )
