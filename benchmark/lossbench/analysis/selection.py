"""Which cells a test is about: parts, data sets and conditions first, then the arm of each loss, of a list of
losses, and of tuned rates.

Whatever is chosen (the best loss of a list, the best rate of a loss) is chosen by validation scores and
judged on test images, so the choice does not flatter the value that is tested. A choice is made among
alternatives that were all trained on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lossbench.base import specs
from lossbench.base.errors import UserError, nearest

FOREGROUND = "data.foreground"

FAMILY, RATE = "recipe.family", "recipe.learning_rate"

Names = str | tuple[str, ...]


def select_loss(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the cells of a loss, named by its spec, by another spelling of it or, failing that, by its
    label.
    """
    same = cells[cells["loss"] == name]
    if not len(same):
        same = cells[cells["loss"].isin(_spelled(cells, name))]
    return same if len(same) else cells[cells["loss_label"] == name]


def _spelled(cells: pd.DataFrame, name: str) -> list[str]:
    """Return the losses of the cells that ``name`` is another spelling of: with defaults written out, or
    under another of their names. What the defaults are the cells say, not today's catalogue.
    """
    if "loss_spellings" not in cells:
        return []
    known = cells.drop_duplicates("loss")[["loss", "loss_spellings"]].itertuples(index=False, name=None)
    return [loss for loss, spellings in known if specs.means(name, loss, spellings.split(" | "))]


def select(cells: pd.DataFrame, test: Any) -> pd.DataFrame:
    """Return the cells of the parts, data sets and conditions that a ``claims.Test`` names; UserError for a
    column that is not there.
    """
    if test.part:
        wanted = set(test.part)
        apart = {text: bool(wanted & set(str(text).split(","))) for text in cells["parts"].unique()}
        cells = cells[cells["parts"].map(apart).astype(bool)]
    if test.data:
        cells = cells[cells["dataset_name"].isin(test.data)]
    if test.foreground is not None:
        cells = cells[_meets(cells, FOREGROUND, test.foreground)] if FOREGROUND in cells else cells.iloc[:0]
    for column, wanted in test.where.items():
        if column not in cells:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
        cells = cells[_meets(cells, column, wanted)]
    return cells


def _meets(cells: pd.DataFrame, column: str, wanted: Any) -> pd.Series:
    if isinstance(wanted, str):
        return (cells[column].astype(str) == wanted).astype(bool)
    found = numbers(cells, column)
    return found.between(*wanted) if isinstance(wanted, tuple) else found == float(wanted)


def numbers(cells: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as numbers: nan where it holds words, since data sets may mean different things by one
    parameter, or is not there.
    """
    return pd.to_numeric(cells.get(column, pd.Series(np.nan, index=cells.index)), errors="coerce").astype(
        float
    )


def arm(cells: pd.DataFrame, names: Names, value: str | Mapping[str, float]) -> pd.DataFrame:
    """Return one cell a block: of the loss ``names``, or of the one of these losses that scores best on the
    validation images.

    The choice is made per data set and recipe, by the mean validation score over the blocks that hold all of
    them; other blocks are left out."""
    if isinstance(names, str):
        return select_loss(cells, names)
    score = validation_score(cells, value)
    listed = pd.concat([select_loss(cells, name) for name in names])
    listed = listed.assign(score=listed[score].astype(float)).dropna(subset="score")
    whole = listed.groupby("block", observed=True)["loss"].transform("nunique") == len(names)
    return _best(listed[whole], ["dataset", "recipe"], ["loss"]).drop(columns="score")


def tuned(cells: pd.DataFrame, value: str | Mapping[str, float]) -> pd.DataFrame:
    """Return each loss at the learning rate that its own mean validation score prefers, data set by data set.

    Recipes of one data set that differ only in their learning rate are one family, which takes the place of
    the recipe; what shares data set, family and seed is a block, since start, order and split follow from
    data set and seed (the certificates are still compared)."""
    for column in (FAMILY, RATE):
        if column not in cells:
            raise UserError(
                f"the table 'cells' has no column '{column}'; `lossbench report` rebuilds the tables "
                "from the records"
            )
    score = validation_score(cells, value)
    cells = cells.assign(score=cells[score].astype(float), recipe=cells[FAMILY]).dropna(subset="score")
    group = ["dataset", "recipe"]
    rates = cells.groupby(group, observed=True)[RATE].transform("nunique")
    whole = cells.groupby([*group, "loss", "seed"], observed=True)[RATE].transform("nunique") == rates
    chosen = _best(cells[whole], [*group, "loss"], [RATE]).drop(columns="score")
    return chosen.assign(
        block=chosen["dataset"].astype(str)
        + " / "
        + chosen["recipe"].astype(str)
        + " / "
        + chosen["seed"].astype(str)
    )


def validation_score(cells: pd.DataFrame, value: str | Mapping[str, float]) -> str:
    """Return the validation column that chooses for a tested value: at the validation threshold if that is
    where it is tested, else at 0.5.
    """
    columns = [value] if isinstance(value, str) else list(value)
    first = "val_dice@val" if all(column.endswith("@val") for column in columns) else "val_dice@0.5"
    for name in (first, "val_dice_best"):
        if name in cells and cells[name].notna().any():
            return name
    raise UserError(
        f"the table 'cells' has no column '{first}' to choose by; `lossbench report` rebuilds the "
        "tables from the records"
    )


def _best(cells: pd.DataFrame, group: list[str], alternatives: list[str]) -> pd.DataFrame:
    """Return the cells of the alternative with the largest mean score in each group; of equals the first in
    sorted order.
    """
    if not len(cells):
        return cells
    means = cells.groupby([*group, *alternatives], observed=True, sort=True)["score"].mean().reset_index()
    keep = means.loc[
        means.groupby(group, observed=True, sort=False)["score"].idxmax(), [*group, *alternatives]
    ]
    return cells.merge(keep, on=[*group, *alternatives], how="inner")


def complete(
    cells: pd.DataFrame, losses: list[str], columns: list[str]
) -> tuple[list[tuple[pd.DataFrame, np.ndarray]], int]:
    """Return, for every data set and recipe, (its facts, values) of the blocks that hold all losses, and how
    many blocks do not.

    values: (blocks, losses, columns). A block counts only where every value is there; a data set and recipe
    without such a block is left out."""
    found, lost = [], 0
    for _, part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        wide = part.pivot(index="block", columns="loss", values=columns).astype(float)
        wanted = pd.MultiIndex.from_tuples([(column, loss) for column in columns for loss in losses])
        values = (
            wide.reindex(columns=wanted)
            .to_numpy()
            .reshape(len(wide), len(columns), len(losses))
            .transpose(0, 2, 1)
        )
        whole = ~np.isnan(values).any(axis=(1, 2))
        lost += int((~whole).sum())
        if whole.any():
            found.append((part.iloc[:1], values[whole]))
    return found, lost
