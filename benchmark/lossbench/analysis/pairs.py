"""Paired effects: the difference between two losses that started from the same weights and saw the same
batches.

Blocks (data set variant x recipe x seed) are the unit of pairing. Two questions get two intervals, never
mixed:
*on these data sets* - the mean over the data sets present, each counted once, blocks drawn within data sets -
and *on new data sets* - where the independent data set is the unit and all levels of one synthetic ladder are
a single one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lossbench.analysis import resampling, stats
from lossbench.analysis.claims import loss as loss_name
from lossbench.analysis.selection import FOREGROUND, Names, arm, numbers
from lossbench.analysis.selection import select_loss as select_loss  # the modules that pair take it from here
from lossbench.base.columns import spelled
from lossbench.base.errors import UserError, nearest

CERTIFICATE = ("init_hash", "order_hash", "split_hash")

DOSE = FOREGROUND

NOISE = "data.noise"

UNPROVEN = "?"

Value = str | Mapping[str, float]


class NotPaired(UserError):
    """Two cells of one block differ in start, batch order or split, so that their difference is not a paired
    one.
    """


@dataclass(frozen=True)
class Effect:
    """One estimate with everything that a reader needs to judge it; nan where the blocks cannot tell."""

    estimate: float  # in the metric's own units (a slope: per tenfold foreground, or per unit of its dose)
    se: float
    df: float  # Welch-Satterthwaite
    low: float  # 95 % t interval, on these data sets
    high: float
    boot_low: float  # 95 % BCa bootstrap interval over blocks
    boot_high: float
    # two-sided, against the null; by sign flips of blocks (means), of pairs of blocks at mirrored doses
    # (slopes)
    p: float
    smallest_p: float  # that the test can reach on these blocks
    mde: float  # smallest true effect found with 80 % power at two-sided .05
    superiority: float  # P(A > B) over blocks
    n_blocks: int
    n_datasets: int
    new_estimate: float  # mean over independent data sets
    new_low: float
    new_high: float
    new_boot_low: float
    new_boot_high: float
    n_units: int


def value_of(cells: pd.DataFrame, value: Value, absolute: bool = False) -> pd.Series:
    """Return a column, or a weighted sum of columns such as {"dice@val": 1, "dice@0.5": -0.2}; ``absolute``
    takes |.| of it.
    """
    given = {value: 1.0} if isinstance(value, str) else value
    parts = {spelled(column, cells.columns): weight for column, weight in given.items()}
    for column in parts:
        if column not in cells.columns:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
    total = sum(weight * cells[column].astype(float) for column, weight in parts.items())
    return total.abs() if absolute else total


def differences(
    cells: pd.DataFrame,
    of: Names,
    against: Names | None,
    value: Value,
    absolute: bool = False,
    dose: str | None = None,
) -> tuple[pd.DataFrame, int]:
    """Return one row a complete block (dataset, recipe, unit, ladder, dose, seed, block, difference), and how
    many were incomplete.

    ``of`` and ``against`` are losses or lists of losses, of which the best on validation is taken
    (``selection.arm``); ``against=None`` gives the value itself. ``dose`` is the column of a slope, log10 of
    the foreground where it is None. Collapsed cells count with what they scored. Raises NotPaired where
    certificates differ.
    """
    first = _narrow(arm(cells, of, value), value, absolute)
    if against is None:
        whole = first.assign(difference=first["value"])
        lost = int(whole["difference"].isna().sum())
        return _described(whole.dropna(subset="difference"), dose), lost
    second = _narrow(arm(cells, against, value), value, absolute)
    theirs = second[["value", *CERTIFICATE]]
    both = first.join(theirs.rename(columns={name: f"{name}_b" for name in theirs}), how="inner")
    _check(both, loss_name(of), loss_name(against))
    both = both.assign(difference=both["value"] - both["value_b"]).dropna(subset="difference")
    lost = len(first.index.union(second.index)) - len(both)
    return _described(both, dose), lost


def effect(
    pairs: pd.DataFrame, shape: str = "mean", seed: int = 0, resamples: int = 4000, null: float = 0.0
) -> Effect:
    """Return the mean of the differences over data sets, or (``shape="slope"``) their slope on the dose.

    The slope of a ladder (data sets that differ in nothing but the dose) is per unit of the dose; several
    ladders count alike. The p-value of a mean is that of a difference from ``null``.
    """
    strata = [part for _, part in pairs.groupby(["dataset", "recipe"], sort=True, observed=True)]
    if shape == "mean":
        return mean_effect(_groups(strata), _units(strata), seed, resamples, null)
    ladders = _ladders(strata)
    groups = [group for ladder in ladders for group in _groups(ladder)]
    weights = np.concatenate([stats.slope_weights(_doses(ladder)) / len(ladders) for ladder in ladders])
    p, reach = resampling.trend([(_groups(ladder), _doses(ladder)) for ladder in ladders])
    return _effect(groups, weights, [], p, reach, float("nan"), seed, resamples)


def mean_effect(
    groups: stats.Groups, units: list[stats.Groups], seed: int = 0, resamples: int = 4000, null: float = 0.0
) -> Effect:
    """Return the mean over data sets of their mean differences; ``units`` holds the groups of each
    independent data set.
    """
    weights = stats.mean_weights(groups)
    p = resampling.sign_flip([np.asarray(g) - null for g in groups], weights, seed=seed)
    reach = resampling.reach(sum(map(len, groups)))
    return _effect(
        groups, weights, units, p, reach, stats.superiority(np.concatenate(groups)), seed, resamples
    )


def _effect(
    groups: stats.Groups,
    weights: np.ndarray,
    units: list[stats.Groups],
    p: float,
    reach: float,
    ahead: float,
    seed: int,
    resamples: int,
) -> Effect:
    found = stats.estimate(groups, weights)
    # Without independent data sets (a slope has none) there is nothing to say about new ones.
    new = stats.estimate(
        [np.array([np.mean([np.mean(g) for g in unit]) for unit in units] or [np.nan])], [1.0]
    )
    return Effect(
        found.value,
        found.se,
        found.df,
        *found.interval(),
        *stats.bca_interval(groups, weights, seed=seed, resamples=resamples),
        p,
        reach,
        stats.minimum_detectable(found),
        ahead,
        sum(map(len, groups)),
        len(groups),
        new.value,
        *new.interval(),
        *stats.hierarchical_interval(units, seed=seed, resamples=resamples),
        len(units),
    )


def one_per_block(cells: pd.DataFrame) -> None:
    """Raise UserError when a block holds two cells of one loss, since then one of the records is stale."""
    doubled = cells.loc[cells[["block", "loss"]].duplicated(), ["block", "loss"]]
    if len(doubled):
        block, loss = doubled.iloc[0]
        raise UserError(
            f"block {block} holds two cells of the loss '{loss}'; the tables must be built from "
            "current records only"
        )


def certificates(cells: pd.DataFrame) -> pd.Series:
    """Return the three hashes of each cell as one text; UNPROVEN where one is not there, since that proves
    nothing.
    """
    parts = [cells[column].fillna("").astype(str) for column in CERTIFICATE]
    joined = parts[0] + "/" + parts[1] + "/" + parts[2]
    return joined.mask((parts[0] == "") | (parts[1] == "") | (parts[2] == ""), UNPROVEN)


def _narrow(cells: pd.DataFrame, value: Value, absolute: bool) -> pd.DataFrame:
    """Return only what the design needs, by block: a table of seventy metrics is slow to join."""
    one_per_block(cells)
    wanted = [
        "block",
        "dataset",
        "dataset_name",
        "recipe",
        "seed",
        *CERTIFICATE,
        *(c for c in cells if c.startswith(("data.", "recipe."))),
    ]
    return cells[wanted].assign(value=value_of(cells, value, absolute)).set_index("block")


def _check(both: pd.DataFrame, of: str, against: str) -> None:
    for column in CERTIFICATE:
        ours, theirs = both[column], both[f"{column}_b"]
        wrong = (ours != theirs) | ours.isna() | (ours == "")
        if wrong.any():
            block = both.index[wrong.to_numpy()][0]
            what = {"init_hash": "initial weights", "order_hash": "batch order", "split_hash": "split"}[
                column
            ]
            raise NotPaired(
                f"'{of}' and '{against}' are not paired: the certificates of block {block} do not "
                f"show the same {what}"
            )


def _described(pairs: pd.DataFrame, dose: str | None) -> pd.DataFrame:
    """Add what the design needs: the independent data set (unit), the ladder, and the dose (None: log10 of
    the foreground fraction).
    """
    ladder = pairs["recipe"].astype(str) + pairs["dataset_name"].astype(str)
    for column in ladder_parameters(pairs, dose or DOSE):
        ladder += "/" + pairs[column].astype(str)
    if dose and dose.startswith("recipe."):  # then the recipes differ, but only in the dose
        ladder = pairs["dataset"].astype(str)
        for column in (c for c in pairs if c.startswith("recipe.") and c not in (dose, "recipe.family")):
            ladder += "/" + pairs[column].astype(str)
    described = pairs.assign(unit=_unit(pairs), ladder=ladder, dose=_dose(pairs, dose)).reset_index()
    return described[["dataset", "recipe", "unit", "ladder", "dose", "seed", "block", "difference"]]


def _unit(pairs: pd.DataFrame) -> pd.Series:
    """A user's folders and torchvision's sets are different data under one builder."""
    names = {}
    for row in pairs.drop_duplicates("dataset").to_dict("records"):
        place = [str(row[c]) for c in ("data.path", "data.name") if isinstance(row.get(c), str)]
        names[row["dataset"]] = "/".join([row["dataset_name"], *place])
    return pairs["dataset"].map(names)


def _dose(pairs: pd.DataFrame, dose: str | None) -> pd.Series:
    if dose is None:
        foreground = numbers(pairs, DOSE)
        return np.log10(foreground.where(foreground > 0))
    if dose not in pairs:
        raise UserError(
            f"the table 'cells' has no column '{dose}' to take a slope "
            f"on{nearest(dose, [c for c in pairs if '.' in c])}"
        )
    return numbers(pairs, dose)


def _groups(strata: list[pd.DataFrame]) -> list[np.ndarray]:
    return [part["difference"].to_numpy(float) for part in strata]


def _doses(strata: list[pd.DataFrame]) -> list[float]:
    return [float(part["dose"].iloc[0]) for part in strata]


def ladder_parameters(table: pd.DataFrame, dose: str = DOSE) -> list[str]:
    """Return the columns of data parameters that tell one ladder of doses from another.

    All but the dose itself. On a ladder of foreground fractions the noise only where one fraction comes at
    several noises of otherwise equal parameters, since a ladder of equal difficulty has another noise at each
    of its levels."""
    others = [c for c in table.columns if c.startswith("data.") and c != dose]
    if dose != DOSE:
        return others
    others = [c for c in others if c != NOISE]
    if NOISE in table and DOSE in table:
        keys = [*others, DOSE, *(c for c in ("dataset_name", "recipe") if c in table)]
        if (table.groupby(keys, dropna=False, observed=True)[NOISE].nunique() > 1).any():
            others.append(NOISE)
    return others


def _ladders(strata: list[pd.DataFrame]) -> list[list[pd.DataFrame]]:
    """Return the strata of each ladder that holds two or more doses."""
    members: dict[str, list[pd.DataFrame]] = {}
    for part in strata:
        if np.isfinite(part["dose"].iloc[0]):
            members.setdefault(part["ladder"].iloc[0], []).append(part)
    ladders = [ladder for ladder in members.values() if len(set(_doses(ladder))) > 1]
    if not ladders:
        raise UserError("a slope needs a data set at two or more foreground fractions or doses")
    return ladders


def _units(strata: list[pd.DataFrame]) -> list[list[np.ndarray]]:
    """Return the groups of each independent data set."""
    units: dict[str, list[np.ndarray]] = {}
    for part in strata:
        units.setdefault(part["unit"].iloc[0], []).append(part["difference"].to_numpy(float))
    return list(units.values())


# --- Tables of paired effects: every loss against the reference, data set by data set, and over all of
# them.


def effects_table(
    cells: pd.DataFrame,
    against: str = "ce",
    columns: Iterable[str] = ("dice@0.5", "dice@val"),
    resamples: int = 2000,
) -> pd.DataFrame:
    """Return one row a (data set, recipe, metric, loss): its paired effect against ``against``.

    Holm adjusts over the losses of a data set, recipe and metric. Where a pair is refused the numbers are nan
    and ``note`` says why.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        rows += _rivals(part, against, columns, resamples, {"dataset": dataset, "recipe": recipe})
    return _frame(rows, ["dataset", "recipe"])


def pooled_effects(
    cells: pd.DataFrame,
    against: str = "ce",
    columns: Iterable[str] = ("dice@0.5", "dice@val"),
    resamples: int = 4000,
) -> pd.DataFrame:
    """Return one row a (metric, loss): its paired effect over all data sets that hold it, on these and on new
    data sets.

    Where a data set was run with several recipes they are kept apart, since a mean over them would answer no
    one's question.
    """
    apart = len(cells) and cells.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    rows = []
    for recipe, part in cells.groupby("recipe", sort=True, observed=True) if apart else [("", cells)]:
        rows += _rivals(part, against, columns, resamples, {"recipe": recipe})
    return _frame(rows, ["recipe"])


def _rivals(
    part: pd.DataFrame, against: str, columns: Iterable[str], resamples: int, facts: dict
) -> list[dict]:
    if not len(part) or not len(select_loss(part, against)):
        return []
    reference = select_loss(part, against)["loss"].iloc[0]
    rivals = part.loc[part["loss"] != reference, ["loss", "loss_label", "family"]].drop_duplicates("loss")
    one_group = part["dataset"].nunique() == 1 and part["recipe"].nunique() == 1
    rows = []
    for column in (c for c in columns if c in part):
        numbers = _quickly(part, reference, column, resamples) if one_group else None
        found = []
        for rival in rivals.sort_values("loss_label").to_dict("records"):
            told = (
                numbers[rival["loss"]]
                if one_group
                else _contrast(part, rival["loss"], reference, column, resamples)
            )
            found.append({**facts, "metric": column, **rival, "against": reference, **told})
        adjusted = stats.holm([row.get("p", float("nan")) for row in found])
        rows += [row | {"p_holm": p} for row, p in zip(found, adjusted, strict=True)]
    return rows


def _contrast(part: pd.DataFrame, loss: str, reference: str, column: str, resamples: int) -> dict:
    try:
        pairs, lost = differences(part, loss, reference, column)
    except NotPaired as error:
        return {"note": str(error)}
    return {**(asdict(effect(pairs, resamples=resamples)) if len(pairs) else {}), "note": _note(lost)}


def by_loss(part: pd.DataFrame, reference: str, column: str) -> dict[str, tuple[np.ndarray | None, int]]:
    """Return for every loss of one data set and recipe its paired differences to ``reference`` and how many
    blocks lack one of the two.

    The differences are those of ``effects.differences``, from one block x loss array instead of many joins;
    None where pairing is refused.
    """
    one_per_block(part)
    blocks, losses = pd.factorize(part["block"])[0], pd.Index(part["loss"].unique())
    shape = (blocks.max() + 1, len(losses))
    at = blocks, losses.get_indexer(part["loss"])
    values, proofs = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    values[at] = part[column].astype(float)
    proofs[at] = certificates(part)
    own = losses.get_loc(reference)
    found = {}
    for place, loss in enumerate(losses):
        both = (proofs[:, own] != "") & (proofs[:, place] != "")
        if (proofs[both, own] != proofs[both, place]).any() or np.any(proofs[both, place] == UNPROVEN):
            found[loss] = None, 0
            continue
        d = values[both, place] - values[both, own]
        d = d[~np.isnan(d)]
        found[loss] = d, int(np.sum((proofs[:, own] != "") | (proofs[:, place] != ""))) - len(d)
    return found


def _quickly(part: pd.DataFrame, reference: str, column: str, resamples: int) -> dict[str, dict]:
    told = {}
    for loss, (d, lost) in by_loss(part, reference, column).items():
        if d is None:
            told[loss] = _contrast(part, loss, reference, column, resamples)  # which names the block
        else:
            told[loss] = {
                **(asdict(mean_effect([d], [[d]], resamples=resamples)) if len(d) else {}),
                "note": _note(lost),
            }
    return told


def _note(lost: int) -> str:
    return f"{lost} block{'s' * (lost != 1)} incomplete" if lost else ""


def _frame(rows: list[dict], keys: list[str]) -> pd.DataFrame:
    names = ["metric", "loss", "loss_label", "family", "against", *Effect.__annotations__, "p_holm", "note"]
    return pd.DataFrame(rows).reindex(columns=[*keys, *names])
