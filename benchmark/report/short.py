"""The first lines of the report: what happened at the rare end and at the common end, in sentences made from the
tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.report import words

if TYPE_CHECKING:
    import pandas as pd


def short(board: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """Return up to three sentences: Dice against CE, region sizes, and who may be the best how often."""
    if not len(board):
        return []
    return [sentence for sentence in (_gap(board, effects), _sizes(board), _best(board)) if sentence]


def _gap(board: pd.DataFrame, effects: pd.DataFrame) -> str:
    """Return what Dice gains over CE on the data set with the rarest foreground and on that with the commonest."""
    own = effects[(effects["loss"] == "dice") & effects["estimate"].notna()]
    known = set(zip(own["dataset"], own["recipe"], strict=True))
    ends = _ends(board[[key in known for key in zip(board["dataset"], board["recipe"], strict=True)]])
    parts = []
    for row in ends:
        here = own[(own["dataset"] == row["dataset"]) & (own["recipe"] == row["recipe"])].set_index("metric")
        if not {"dice@0.5", "dice@val"} <= set(here.index):
            return ""
        half, tuned = (
            f"{words.effect(here.loc[m, 'estimate'], words.POINTS)}{_interval(here.loc[m, 'low'], here.loc[m, 'high'])}"
            for m in ("dice@0.5", "dice@val")
        )
        parts.append(f"on {_called(row)} {half} points at 0.5 and {tuned} at the validation threshold")
    return f"Dice minus cross-entropy: {'; '.join(parts)}." if parts else ""


def _interval(low: float, high: float) -> str:
    return "" if words.missing(low) else f" {words.interval(low, high, words.POINTS)}"


def _sizes(board: pd.DataFrame) -> str:
    """Return the hard and soft region sizes of CE and Dice where the foreground is rarest."""
    if not {"size_ratio_hard@0.5", "size_ratio_soft"} <= set(board.columns):
        return ""
    parts = []
    rarest = _ends(board)[0]
    here = board[(board["dataset"] == rarest["dataset"]) & (board["recipe"] == rarest["recipe"])].set_index("loss")
    for loss in ("ce", "dice"):
        if loss in here.index:
            hard, soft = (words.significant(float(here.loc[loss, c]), 3) for c in ("size_ratio_hard@0.5", "size_ratio_soft"))
            parts.append(f"the mask of {loss} covers ×{hard} of the true area (summed probability ×{soft})")
    return f"Region size at 0.5 on {_called(rarest)}: {', '.join(parts)}." if parts else ""


def _called(row: dict) -> str:
    """Return a data set's label, and how much foreground it holds where the label does not say so."""
    told = "%" in row["data_label"] or "foreground" in row["data_label"]
    return row["data_label"] if told else f"{row['data_label']} ({words.percent(row['foreground'], 2)} foreground)"


def _best(board: pd.DataFrame) -> str:
    """Return which losses may be the best on how many data sets."""
    sets = len(board.drop_duplicates(["dataset", "recipe"]))
    times = board[board["best"]].groupby("loss_label").size().sort_values(ascending=False, kind="stable")
    if len(times) == board["loss_label"].nunique() and times.min() == sets:
        return f"So far no loss is shown to be worse than another, on any of {sets} data set variants."
    told = [f"{label} {count}" for label, count in times.items()]
    rest = f" and {len(told) - 5} more on fewer" if len(told) > 5 else ""
    return f"May be the best at 0.5, on how many of {sets} data set variants: {', '.join(told[:5])}{rest}."


def _ends(board: pd.DataFrame) -> list[dict]:
    rows = board.sort_values(["foreground", "dataset"], kind="stable").drop_duplicates(["dataset", "recipe"]).to_dict("records")
    return rows[:1] + rows[-1:] if len(rows) > 1 else rows
