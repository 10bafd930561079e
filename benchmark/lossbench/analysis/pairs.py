"""The one place that pairs cells, and refuses those that did not start alike.

Cells of one data set variant (data set and recipe) and one seed are a block: they started from the same
weights and saw the same batches of the same split, which the hashes in their records prove. ``Blocks`` holds
their values as an array; whatever compares losses takes it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.base.columns import spelled
from lossbench.base.errors import UserError, nearest

CERTIFICATE = {"init_hash": "initial weights", "order_hash": "batch order", "split_hash": "split"}

VARIANT = ["dataset", "recipe"]

Value = str | Mapping[str, float]


class NotPaired(UserError):
    """Two cells of one block differ in start, batch order or split; their difference is not a paired one."""


@dataclass(frozen=True)
class Blocks:
    """Values of cells by data set variant, seed and arm; an arm is a loss or a choice among losses.

    variants: one row a data set variant, with what its first cell says of data and recipe; values: (variants,
    seeds, arms, columns), nan where there is no cell or no value; proofs: (variants, seeds, arms, hashes), a
    number for each hash, 0 where a hash is missing.
    """

    variants: pd.DataFrame
    seeds: np.ndarray
    arms: tuple[str, ...]
    values: np.ndarray
    held: np.ndarray  # (variants, seeds, arms): is there a cell?
    proofs: np.ndarray

    def difference(self, of: str, against: str | None, column: int = 0) -> np.ndarray:
        """Return value of ``of`` minus value of ``against`` (None: minus nothing), shape (variants,
        seeds).
        """
        own = self.values[:, :, self.arms.index(of), column]
        if against is None:
            return own
        refused = self.refusal(of, against)
        if refused:
            raise NotPaired(refused)
        return own - self.values[:, :, self.arms.index(against), column]

    def refusal(self, *arms: str) -> str:
        """Return the sentence that names a block whose cells of these arms are not paired, or nothing."""
        places = [self.arms.index(arm) for arm in arms]
        held, proofs = self.held[:, :, places], self.proofs[:, :, places]
        # A cell that is alone in its block is compared with nothing, so it needs no proof.
        several = held.sum(axis=2) > 1
        first = np.take_along_axis(proofs, held.argmax(axis=2)[:, :, None, None], axis=2)
        # A record without a hash proves nothing: two missing ones are not equal.
        wrong = ((proofs != first) | (proofs == 0)) & held[..., None] & several[:, :, None, None]
        if not wrong.any():
            return ""
        variant, seed, _, hash_ = np.argwhere(wrong)[0]
        who = " and ".join(f"'{arm}'" for arm in arms) if len(arms) < 4 else "the losses"
        where = f"{self.variants['dataset'].iloc[variant]}, seed {self.seeds[seed]}"
        what = list(CERTIFICATE.values())[hash_]
        return f"{who} are not paired: their certificates do not show the same {what} on {where}"

    def lost(self, *arms: str) -> int:
        """Return how many blocks hold a cell of some of these arms but not a value of each."""
        places = [self.arms.index(arm) for arm in arms]
        whole = ~np.isnan(self.values[:, :, places]).any(axis=(2, 3))
        return int((self.held[:, :, places].any(axis=2) & ~whole).sum())


def blocks(arms: Mapping[str, pd.DataFrame], columns: Sequence[Value], absolute: bool = False) -> Blocks:
    """Return the blocks of the cells of each arm; ``absolute`` takes |.| of the values.

    Raises UserError where a column is missing, or an arm has two cells in one block: one record is stale."""
    kept = _needed(next(iter(arms.values())), columns)
    table = pd.concat([cells[kept].assign(arm=place) for place, cells in enumerate(arms.values())])
    return _blocks(table, tuple(arms), columns, absolute)


def losses(cells: pd.DataFrame, columns: Sequence[Value]) -> Blocks:
    """Return the blocks of some cells with one arm a loss, named by its spec."""
    arm, names = pd.factorize(cells["loss"], sort=True)
    table = cells[_needed(cells, columns)].assign(arm=arm)
    return _blocks(table.sort_values("arm", kind="stable"), tuple(map(str, names)), columns)


def _needed(cells: pd.DataFrame, columns: Sequence[Value]) -> list[str]:
    """Return the columns that pairing needs: a table of two hundred metrics is slow to cut and to join, and
    claims pair it hundreds of times.
    """
    asked = [name for column in columns for name in ([column] if isinstance(column, str) else column)]
    needed = {*CERTIFICATE, *(spelled(name, cells) for name in asked), "seed", "loss"}
    return [name for name in cells if _describes(name) or name in needed]


def _blocks(
    table: pd.DataFrame, arms: tuple[str, ...], columns: Sequence[Value], absolute: bool = False
) -> Blocks:
    """Return the blocks of a table whose column ``arm`` holds the place of each cell's arm."""
    variants = table.loc[~table[VARIANT].duplicated(), [name for name in table if _describes(name)]]
    # Sorted, so that sums and draws do not depend on the order in which records were written.
    variants = variants.sort_values(VARIANT, ignore_index=True)
    variant = pd.MultiIndex.from_frame(variants[VARIANT]).get_indexer(
        pd.MultiIndex.from_frame(table[VARIANT])
    )
    seed, seeds = pd.factorize(table["seed"], sort=True)
    at = (variant, seed, table["arm"].to_numpy())
    _one_cell_each(table, at)
    shape = (len(variants), len(seeds), len(arms))
    values = np.full((*shape, len(columns)), np.nan)
    proofs = np.zeros((*shape, len(CERTIFICATE)), dtype=int)
    held = np.zeros(shape, dtype=bool)
    for place, column in enumerate(columns):
        values[(*at, place)] = value_of(table, column)
    for place, column in enumerate(CERTIFICATE):
        # Factorize gives None the code -1; an empty text would become a hash that equals others.
        texts = table[column].replace("", None)
        proofs[(*at, place)] = pd.factorize(texts)[0] + 1  # a missing one is 0
    held[at] = True
    # The absolute value is taken of each score, not of the difference: who is nearer to the target?
    return Blocks(variants, np.asarray(seeds), arms, np.abs(values) if absolute else values, held, proofs)


def value_of(cells: pd.DataFrame, value: Value) -> np.ndarray:
    """Return a column, or a weighted sum of columns such as {"dice@val": 1, "dice@0.5": -0.2}."""
    total = np.zeros(len(cells))
    for name, weight in ({value: 1.0} if isinstance(value, str) else value).items():
        column = spelled(name, cells)
        if column not in cells:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
        total = total + weight * cells[column].to_numpy(float)
    return total


def _describes(column: str) -> bool:
    """Return whether a column says what a data set variant is, not how a cell of it did."""
    return column in (*VARIANT, "dataset_name", "data_label") or column.startswith(("data.", "recipe."))


def _one_cell_each(table: pd.DataFrame, at: tuple[np.ndarray, ...]) -> None:
    doubled = pd.MultiIndex.from_arrays(at).duplicated()
    if doubled.any():
        row = table[doubled].iloc[0]
        # Which of the two is current cannot be known here, and to choose silently would decide results.
        raise UserError(
            f"{row['dataset']}, seed {row['seed']} holds two cells of the loss '{row['loss']}'; the tables "
            "must be built from current records only"
        )
