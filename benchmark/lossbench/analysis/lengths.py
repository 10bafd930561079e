"""Longer trainings beside a test: had the losses converged, or does the test say which learns sooner?

A loss is converged on a data set variant when a step up in length changes its score by less than the smallest
effect of interest, paired over seeds. A verdict that rests on losses that had not converged is one of speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import selection
from lossbench.analysis.claims import Test
from lossbench.analysis.seeds import FAMILY, joined
from lossbench.analysis.selection import STEPS
from lossbench.base.columns import spelled

# The smallest effects of interest: a point of Dice, 5 % of region size, .01 of calibration error, 5 points of
# false alarms. What is not named here has none, and so never "not converged".
INTEREST = {
    "dice": 0.01,
    "dice_all": 0.01,
    "dice_pooled": 0.01,
    "iou": 0.01,
    # log 1.05.
    "log_size_ratio_hard": 0.0488,
    "log_size_ratio_soft": 0.0488,
    "ece": 0.01,
    "false_alarms": 0.05,
}


class Change(NamedTuple):
    """How a score changes with a longer training: of which loss, on which data, by how many times as long."""

    loss: str
    label: str
    times: float
    change: float


def trunks(cells: pd.DataFrame, keys: Sequence[str] = ("dataset", "loss", "seed")) -> pd.Series:
    """Return what cells share that agree in ``keys`` and differ in nothing of their recipe but the length."""
    # The family is a hash over the whole recipe, steps included.
    recipe = [name for name in cells if name.startswith("recipe.") and name not in (STEPS, FAMILY)]
    return joined(cells, [*keys, *recipe])


def one_of_twins(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one recipe a ``way`` and length, whose label has the fewest clauses, then the one of most cells:
    a loss whose own rate is the shared one is the same training under two names.
    """
    facts = cells.groupby(["way", STEPS, "recipe"], observed=True).agg(
        label=("data_label", "first"), n=("seed", "size")
    )
    facts = facts.assign(clauses=facts["label"].str.count(","), n=-facts["n"]).reset_index()
    first = facts.sort_values(["clauses", "n", "recipe"]).drop_duplicates(["way", STEPS])
    return cells.merge(first[["way", STEPS, "recipe"]], on=["way", STEPS, "recipe"])


def unconverged(test: Test, cells: pd.DataFrame, part: pd.DataFrame) -> list[Change]:
    """Return the losses of a test that a longer training changes by more than the smallest effect of
    interest.

    ``part`` is what the test is about, ``cells`` all there is, with a column "trunk" (``trunks``); losses
    that are chosen from a list are not looked at."""
    # Of a sum of scores the first stands for all, since nobody has named what matters in a sum.
    column = test.value if isinstance(test.value, str) else next(iter(test.value))
    # The mask's arm does not change what matters.
    margin = INTEREST.get(column.partition("@")[0])
    column = spelled(column, cells)
    if margin is None or STEPS not in cells or test.shape in ("agreement", "regret"):
        return []
    facts = [
        "loss",
        "loss_label",
        "loss_spellings",
        "dataset",
        "recipe",
        "data_label",
        "trunk",
        STEPS,
        column,
    ]
    cells, part = (table[[name for name in facts if name in table]] for table in (cells, part))
    found = []
    for loss in (*test.among, test.of, test.against):
        if isinstance(loss, str) and loss != "any":
            own = selection.select_loss(part, loss)
            found += _changes(own, cells[cells["loss"].isin(own["loss"].unique())], column)
    return [change for change in found if abs(change.change) >= margin]


def _changes(own: pd.DataFrame, everywhere: pd.DataFrame, column: str) -> list[Change]:
    """Return the change of each data set variant up to its next length, mean over the seeds that hold
    both.
    """
    both = own.merge(everywhere[["trunk", STEPS, column]], on="trunk", suffixes=("", " later"))
    # A cell is not its own longer training.
    both = both[both[f"{STEPS} later"] > both[STEPS]]
    found = []
    for _, longer in both.groupby(["dataset", "recipe"], sort=False, observed=True):
        # One step up, which is what converged means; a loss may move again much later.
        later = longer[longer[f"{STEPS} later"] == longer[f"{STEPS} later"].min()]
        gain = (later[f"{column} later"] - later[column]).astype(float).mean()
        first = later.iloc[0]
        if np.isfinite(gain):
            times = float(first[f"{STEPS} later"]) / float(first[STEPS])
            found.append(Change(first["loss_label"], first["data_label"], times, gain))
    return found


def sentence(changes: list[Change], compared: bool) -> str:
    """Return the sentence that names what had not converged, or nothing; ``compared``: two losses are."""
    # One clause a loss, or a sentence would name the same loss for each data set.
    by_loss: dict[str, list[str]] = {}
    for own in changes:
        more = f"{own.label} ({own.change:+.3f} with {own.times:g} times the steps)"
        by_loss.setdefault(own.loss, []).append(more)
    if not by_loss:
        return ""
    losses = "; ".join(f"{loss} on {' and '.join(where)}" for loss, where in by_loss.items())
    means = "so this says which learns sooner" if compared else "so this is about short training"
    return f"Not converged: {losses}; {means}"
