"""Two questions about all losses at once: do two metrics rank them alike, and how far below the best does a loss fall at worst?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmark.analysis import bounds
from benchmark.analysis.effects import CERTIFICATE, Effect, NotPaired, one_per_block
from benchmark.analysis.ranks import lower_is_better
from benchmark.analysis.resampling import resample
from benchmark.analysis.selection import complete, select_loss
from benchmark.errors import UserError, nearest

NAN = float("nan")


@dataclass(frozen=True)
class Ranked:
    """What the blocks say about a test of all losses at once."""

    effect: Effect
    p_equal: float  # of equality to zero within the margin; nan where the test has a null of its own
    incomplete: int


def ranked(cells: pd.DataFrame, test: Any) -> Ranked:
    """Return the answer to a test of shape 'agreement' or 'regret'.

    The losses are those of ``among``, else all that are there; only blocks that hold every one of them count, each of them whole.
    Raises UserError where a loss or a complete block lacks, NotPaired where the cells of a block did not start alike.
    """
    names = _specs(cells, test)
    cells = cells[cells["loss"].isin(names)]
    one_per_block(cells)
    _same_start(cells)
    columns = [test.value, test.with_] if test.shape == "agreement" else [test.value]
    for column in columns:
        if column not in cells:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
    rows, lost = complete(cells, names, columns)
    if not rows:
        raise UserError(f"no block holds all {len(names)} losses that are compared")
    signs = np.array([-1.0 if lower_is_better(column) else 1.0 for column in columns])
    groups = [values * signs for _, values in rows]
    told = _agreement(groups, test.null) if test.shape == "agreement" else _regret(groups, test, cells, names)
    independent = pd.concat([row for row, _ in rows])["dataset_name"].nunique()
    effect = Effect(
        told.value, NAN, NAN, *told.interval, *told.percentiles, told.p, told.smallest_p, NAN, NAN,
        sum(map(len, groups)), len(groups), NAN, NAN, NAN, NAN, NAN, independent,
    )  # fmt: skip
    return Ranked(effect, told.p_equal, lost)


@dataclass(frozen=True)
class _Told:
    value: float
    interval: tuple[float, float]
    percentiles: tuple[float, float]
    p: float
    smallest_p: float
    p_equal: float = NAN


def _agreement(groups: list[np.ndarray], null: float) -> _Told:
    """Below the null by the pairs that are shown to be discordant, above it by resampling, which errs towards disagreement."""
    drawn = resample(groups, agreement)
    if np.isnan(drawn.value):
        raise UserError("all losses are tied by one of the metrics, so there is no ranking to compare")
    if not len(drawn.drawn):
        return _Told(drawn.value, (NAN, NAN), (NAN, NAN), NAN, 1.0)
    shown = bounds.discordant(groups)
    p = min(1.0, 2 * min(drawn.above(null), bounds.agreement_below(shown, null)))
    high = max(drawn.value, bounds.agreement_at_most(shown, 0.025))
    return _Told(drawn.value, (max(-1.0, drawn.interval()[0]), high), drawn.percentiles(), p, drawn.smallest_p)


def _regret(groups: list[np.ndarray], test: Any, cells: pd.DataFrame, names: list[str]) -> _Told:
    """A difference of two regrets by resampling, since the bias of a maximum cancels; a regret by itself by paired tests."""
    losses = range(len(names)) if test.of == "any" else [names.index(_spec(cells, test.of))]
    if test.against:
        against = names.index(_spec(cells, test.against))
        drawn = resample(groups, lambda means: regrets(means)[:, losses[0]] - regrets(means)[:, against])
        p_equal = NAN if test.null else drawn.p_equal(test.margin)
        return _Told(drawn.value, drawn.interval(), drawn.percentiles(), drawn.p(test.null), drawn.smallest_p, p_equal)
    drawn = resample(groups, lambda means: regrets(means)[:, losses].min(axis=1))
    if not len(drawn.drawn):
        return _Told(drawn.value, (NAN, NAN), (NAN, NAN), NAN, 1.0)
    p = min(1.0, 2 * min(bounds.regret_above(groups, losses, test.null), bounds.regret_below(groups, losses, test.null)))
    return _Told(drawn.value, bounds.regret_interval(groups, losses), drawn.percentiles(), p, drawn.smallest_p)


def agreement(means: Sequence[np.ndarray]) -> np.ndarray:
    """Return Kendall's tau-b between the two rankings, averaged over data sets. means[g]: (draws, losses, 2) -> (draws,).

    tau-b = sum sign(a_i - a_j) sign(b_i - b_j) / sqrt(untied pairs of a x untied pairs of b) (Kendall 1945); nan where one metric ties all.
    """
    taus = []
    for m in means:
        i, j = np.triu_indices(m.shape[1], 1)
        order = np.sign(m[:, i] - m[:, j])
        untied = np.abs(order).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            taus.append(order.prod(axis=2).sum(axis=1) / np.sqrt(untied.prod(axis=1)))
    return np.mean(taus, axis=0)


def regrets(means: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far each loss falls below the best of all, at worst over the data sets. means[g]: (draws, losses, 1) -> (draws, losses)."""
    return np.max([m[..., 0].max(axis=1, keepdims=True) - m[..., 0] for m in means], axis=0)


def _specs(cells: pd.DataFrame, test: Any) -> list[str]:
    names = list(test.among) or sorted(cells["loss"].unique())
    absent = [name for name in names if not len(select_loss(cells, name))]
    if absent:
        raise UserError(f"there are no cells of {' and '.join(absent)}")
    if len(names) < 2:
        raise UserError("there are no two losses to rank")
    return [_spec(cells, name) for name in names]


def _spec(cells: pd.DataFrame, name: str) -> str:
    return select_loss(cells, name)["loss"].iloc[0]


def _same_start(cells: pd.DataFrame) -> None:
    for column in CERTIFICATE:
        proof = cells[column].fillna("").astype(str)
        wrong = (proof.groupby(cells["block"], observed=True).transform("nunique") > 1) | (proof == "")
        if wrong.any():
            raise NotPaired(f"the losses are not paired: the certificates of block {cells.loc[wrong, 'block'].iloc[0]} differ in '{column}'")
