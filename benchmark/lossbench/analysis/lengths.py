"""Longer trainings beside a test: had the losses converged, or does the test say which learns sooner?

A loss is converged on a data set variant when a step up in length changes its score by less than the smallest
effect of interest, paired over seeds. A verdict that rests on losses that had not converged is one of speed.
Of the longest training nobody knows the next step up; the last one says how far the loss still moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import selection
from lossbench.analysis.claims import Test
from lossbench.analysis.seeds import FAMILY, joined
from lossbench.analysis.selection import STEPS
from lossbench.base import words
from lossbench.base.columns import form, spelled

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
    "size_clipped_hard": 0.05,
    "ece": 0.01,
    "ece_fg": 0.01,
    "false_alarms": 0.05,
}


class Change(NamedTuple):
    """How a score (a column) changes with a longer training: of which loss, on which data, between which
    lengths.
    """

    loss: str
    label: str
    column: str
    shorter: float  # steps
    longer: float
    change: float

    @property
    def times(self) -> float:
        return self.longer / self.shorter

    @property
    def says(self) -> str:
        """The change in the unit of its score."""
        kind = form(self.column)
        return f"{words.effect(self.change, kind)} {words.unit(kind)}".strip()


NAMED = 2  # data sets of a loss, in a sentence

Find = Callable[[pd.DataFrame, str, str], list[Change]]


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
    return _that_matter(test, cells, part, _next_change)


def still_changing(test: Test, cells: pd.DataFrame, part: pd.DataFrame) -> list[Change]:
    """Return the losses of a test, at the longest training that there is, whose last step up in length
    changed them by more than the smallest effect of interest; arguments as in ``unconverged``.
    """
    return _that_matter(test, cells, part, _last_change)


def _that_matter(test: Test, cells: pd.DataFrame, part: pd.DataFrame, find: Find) -> list[Change]:
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
            everywhere = cells[cells["loss"].isin(own["loss"].unique())]
            both = own.merge(everywhere[["trunk", STEPS, column]], on="trunk", suffixes=("", " other"))
            for _, variant in both.groupby(["dataset", "recipe"], sort=False, observed=True):
                found += find(variant, f"{STEPS} other", column)
    return [change for change in found if abs(change.change) >= margin]


def _next_change(variant: pd.DataFrame, other: str, column: str) -> list[Change]:
    """Return the change up to the next length, mean over the seeds that hold both, if there is a longer
    one.
    """
    # A cell is not its own longer training.
    longer = variant[variant[other] > variant[STEPS]]
    # One step up, which is what converged means; a loss may move again much later.
    return _change(longer[longer[other] == longer[other].min()], other, column, 1)


def _last_change(variant: pd.DataFrame, other: str, column: str) -> list[Change]:
    """Return the change from the length before, if there is one and none is longer."""
    shorter = variant[variant[other] < variant[STEPS]]
    if (variant[other] > variant[STEPS]).any():
        return []
    return _change(shorter[shorter[other] == shorter[other].max()], other, column, -1)


def _change(pairs: pd.DataFrame, other: str, column: str, way: int) -> list[Change]:
    """Return the change from the shorter of two lengths to the longer; ``way``: -1 where the other one is
    shorter.
    """
    gain = way * (pairs[f"{column} other"] - pairs[column]).astype(float).mean()
    if not np.isfinite(gain):
        return []
    first = pairs.iloc[0]
    ends = sorted((float(first[STEPS]), float(first[other])))
    return [Change(first["loss_label"], first["data_label"], column, *ends, float(gain))]


def _by_loss(changes: list[Change], says: Callable[[Change], str]) -> str:
    """Return one clause a loss, or a sentence would name the same loss for each data set."""
    by_loss: dict[str, list[str]] = {}
    for own in changes:
        by_loss.setdefault(own.loss, []).append(f"{own.label} ({says(own)})")
    return "; ".join(f"{loss} on {' and '.join(where)}" for loss, where in by_loss.items())


def last_step_up(changes: list[Change]) -> str:
    """Return the sentence that says what the last step up in length still changed, or nothing; of each loss
    it names where it changed most.
    """
    says = lambda own: f"{own.says} from {own.shorter:,.0f} to {own.longer:,.0f} steps"  # noqa: E731
    named = sorted(changes, key=lambda own: -abs(own.change))
    kept, rest = [], 0
    for own in named:
        if sum(other.loss == own.loss for other in kept) < NAMED:
            kept.append(own)
        else:
            rest += 1
    more = f"; and {rest} more" if rest else ""
    return f"The last step up in length still changed {_by_loss(kept, says)}{more}" if kept else ""


def sentence(changes: list[Change], compared: bool) -> str:
    """Return the sentence that names what had not converged, or nothing; ``compared``: two losses are."""
    losses = _by_loss(changes, lambda own: f"{own.says} with {own.times:g} times the steps")
    if not losses:
        return ""
    means = "so this says which learns sooner" if compared else "so this is about short training"
    return f"Not converged: {losses}; {means}"
