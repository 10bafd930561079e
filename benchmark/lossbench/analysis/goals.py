"""What one may want of a loss: a score, and which sign of a difference is good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
