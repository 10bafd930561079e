"""What several figures share: means with intervals at each foreground fraction, and how a ladder and a real
set are drawn.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lossbench.analysis import stats
from lossbench.analysis.pairs import DOSE, by_loss, ladder_parameters
from lossbench.analysis.selection import numbers
from lossbench.figures import style

REAL_MARKERS = ("D", "s", "^", "v", "P", "X", "*")


def places(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant: where it stands on the foreground axis and whether its fraction was
    set (a ladder) or measured.

    The ladder of a generator is told from others by its remaining parameters; the noise counts among them
    only where one fraction comes at several noises, since a ladder of equal difficulty has another noise at
    each level. A scene at a single foreground fraction is no ladder and stands for itself, as a public set
    does.
    """
    dose = numbers(cells, DOSE)
    measured = numbers(cells, "foreground_true") if "foreground_true" in cells else dose
    table = cells.assign(dose=dose, measured=measured)
    others = ladder_parameters(cells)
    rows = []
    for (dataset, recipe), part in table.groupby(["dataset", "recipe"], sort=True, observed=True):
        first = part.iloc[0]
        is_set = bool(np.isfinite(first["dose"])) and first["dose"] > 0
        ladder = repr([first["dataset_name"], recipe, *(str(first[c]) for c in others)]) if is_set else ""
        x = first["dose"] if is_set else part["measured"].mean()
        rows.append(
            {"dataset": dataset, "recipe": recipe, "label": first["data_label"], "x": x, "ladder": ladder}
        )
    found = pd.DataFrame(rows, columns=["dataset", "recipe", "label", "x", "ladder"])
    levels = found.groupby("ladder")["x"].transform("nunique")
    return found.assign(ladder=found["ladder"].where(levels > 1, ""))


def means(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return mean and 95 % t interval over seeds of a column for each data set variant and loss."""
    rows = []
    for keys, part in cells.groupby(["dataset", "recipe", "loss"], sort=True, observed=True):
        rows.append({**dict(zip(["dataset", "recipe", "loss"], keys, strict=True)), **_summary(part[column])})
    return pd.DataFrame(rows)


def gaps(cells: pd.DataFrame, against: str, column: str) -> pd.DataFrame:
    """Return mean and 95 % t interval of each loss's paired difference to ``against``, for each data set
    variant.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        if against not in set(part["loss"]):
            continue
        for loss, (found, _) in by_loss(part, against, column).items():
            # A refused pair has no place among paired differences; the report names it.
            if loss != against and found is not None:
                rows.append(
                    {"dataset": dataset, "recipe": recipe, "loss": loss, **_summary(pd.Series(found))}
                )
    return pd.DataFrame(rows, columns=["dataset", "recipe", "loss", "mean", "low", "high", "n"])


def _summary(values: pd.Series) -> dict:
    kept = values.dropna().to_numpy(float)
    if not len(kept):
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    low, high = stats.estimate([kept], [1.0]).interval()
    return {"mean": kept.mean(), "low": low, "high": high, "n": len(kept)}


def draw(
    axis,
    rows: pd.DataFrame,
    limits: tuple[float, float],
    *,
    color: str,
    filled: bool,
    label: str = "",
    shift: float = 1.0,
) -> None:
    """Draw ladders as lines with intervals, real sets as single marks; values outside the limits become arrow
    heads at the edge.
    """
    low, high = limits
    face = color if filled else style.PAPER
    for _, part in rows[rows["ladder"] != ""].groupby("ladder", sort=True):
        part = part.sort_values("x")
        x = part["x"].to_numpy() * shift
        y, outside = style.clipped(part["mean"].to_numpy(), low, high)
        axis.plot(
            x, y, color=color, linestyle="-" if filled else (0, (4, 1.6)), zorder=3, label=label or None
        )
        label = ""
        _bars(axis, x, part, limits, color)
        axis.plot(x[~outside], y[~outside], "o", color=color, markerfacecolor=face, markersize=5, zorder=4)
        _arrows(axis, x, y, outside, low, color)
    for part in rows[rows["ladder"] == ""].itertuples():
        y, outside = style.clipped(np.array([part.mean]), low, high)
        x = np.array([part.x * shift])
        _bars(axis, x, pd.DataFrame([part._asdict()]), limits, color)
        if outside[0]:
            _arrows(axis, x, y, outside, low, color)
        else:
            axis.plot(x, y, part.mark, color=color, markerfacecolor=face, markersize=5.5, zorder=4)


def _bars(axis, x: np.ndarray, part: pd.DataFrame, limits: tuple[float, float], color: str) -> None:
    bottom, top = part["low"].clip(*limits).to_numpy(float), part["high"].clip(*limits).to_numpy(float)
    axis.vlines(x, bottom, top, color=color, linewidth=1.1, zorder=2)


def _arrows(axis, x: np.ndarray, y: np.ndarray, outside: np.ndarray, low: float, color: str) -> None:
    for a, b in zip(x[outside], y[outside], strict=True):
        axis.plot(
            [a], [b], marker="v" if b == low else "^", color=color, markersize=6, zorder=4, clip_on=False
        )


def real_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Add the marker of each real data set, one a label, in alphabetical order."""
    labels = sorted(table.loc[table["ladder"] == "", "label"].unique())
    mark = {name: REAL_MARKERS[i % len(REAL_MARKERS)] for i, name in enumerate(labels)}
    return table.assign(mark=[mark.get(label, "o") for label in table["label"]])


def real_legend(table: pd.DataFrame) -> list:
    """Return one legend entry for each real data set."""
    from matplotlib.lines import Line2D

    real = table[table["ladder"] == ""].drop_duplicates("label").sort_values("label")
    return [
        Line2D([], [], color=style.SOFT, marker=row.mark, linestyle="", markersize=5.5, label=name)
        for row, name in (
            (row, f"{style.fitting(row.label, 24)} ({style.percent(row.x)})") for row in real.itertuples()
        )
    ]


# --- Which cells a figure shows: those of the parts of the experiment that were made for its question.

ORDER = ("recipe.batch", "recipe.learning_rate", "recipe.steps")  # of the variants of one data set


def of_parts(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells that belong to one of these parts; all cells where the experiment has none of them.

    An experiment without parts is a single cross of losses and data sets, so all of it may answer the
    question."""
    if "parts" not in cells:
        return cells
    wanted = (
        cells["parts"]
        .fillna("")
        .astype(str)
        .map(lambda text: not set(names).isdisjoint(text.split(",")))
        .to_numpy(bool)
    )
    return cells[wanted] if wanted.any() else cells


def first_of(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the cells of the first of these parts that the experiment has; all cells where it has none of
    them.
    """
    for name in names:
        found = of_parts(cells, name)
        if len(found) < len(cells):
            return found
    return cells


def rarest_first(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set variant (dataset, recipe, label, foreground, n): by foreground fraction, then
    by batch and rate.
    """
    table = cells.assign(
        foreground=numbers(cells, "foreground_true")
        .groupby(cells["dataset"], observed=True)
        .transform("mean")
    )
    for column in ORDER:
        table[column] = table.get(column, np.nan)
    first = {column: (column, "first") for column in ORDER}
    grouped = table.groupby(["dataset", "recipe"], observed=True, sort=True)
    facts = grouped.agg(
        label=("data_label", "first"), foreground=("foreground", "mean"), n=("key", "size"), **first
    ).reset_index()
    return facts.sort_values(["foreground", "dataset", *ORDER, "recipe"], ignore_index=True).drop(
        columns=list(ORDER)
    )


def spread_evenly(facts: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most so many rows, evenly spread from the first to the last."""
    picks = np.unique(np.linspace(0, len(facts) - 1, min(most, len(facts))).round().astype(int))
    return facts.iloc[picks].reset_index(drop=True)


def of_variant(table: pd.DataFrame, variant) -> pd.DataFrame:
    """Return the rows of one data set variant (anything with ``dataset`` and ``recipe``)."""
    return table[(table["dataset"] == variant.dataset) & (table["recipe"] == variant.recipe)]


def without_common(labels: list[str]) -> list[str]:
    """Return labels without the clauses that all of them share ("batch 1, validations 20" and "batch 4,
    validations 20": the second).
    """
    clauses = [label.split(", ") for label in labels]
    common = set(clauses[0]).intersection(*clauses[1:]) if len(labels) > 1 else set()
    return [
        ", ".join(c for c in own if c not in common) or label
        for own, label in zip(clauses, labels, strict=True)
    ]
