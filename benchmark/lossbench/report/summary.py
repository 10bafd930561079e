"""The first lines of the report: what happened at the rare end and at the common end, in sentences made from
the tables.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd

HALF, TUNED = "dice@0.5", "dice@val"
HARD, SOFT = "size_ratio_hard@0.5", "size_ratio_soft"
NAMED = 5  # losses in a sentence; the others are counted


def short(board: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """Return up to three sentences: Dice against CE, region sizes, and who may be the best how often."""
    if not len(board):
        return []
    return [sentence for sentence in (_gap(board, effects), _sizes(board), _best(board)) if sentence]


def _gap(board: pd.DataFrame, effects: pd.DataFrame) -> str:
    """Return what Dice gains over CE where the foreground is rarest and where it is commonest."""
    own = effects[(effects["loss"] == "dice") & effects["estimate"].notna()]
    known = set(zip(own["dataset"], own["recipe"], strict=True))
    tested = [variant in known for variant in zip(board["dataset"], board["recipe"], strict=True)]
    # The two ends of the ladder, for in the middle little differs.
    gains = []
    for end in _ends(board[tested]):
        here = _of(own, end).set_index("metric")
        if not {HALF, TUNED} <= set(here.index):
            return ""  # one threshold alone would suggest the wrong reason
        half, tuned = _points(here.loc[HALF]), _points(here.loc[TUNED])
        gains.append(f"on {_called(end)} {half} points at 0.5 and {tuned} at the validation threshold")
    return f"Dice minus cross-entropy: {'; '.join(gains)}." if gains else ""


def _points(row: pd.Series) -> str:
    effect = words.effect(row["estimate"], words.POINTS)
    low, high = row["low"], row["high"]
    bounded = math.isfinite(low) and math.isfinite(high)
    return f"{effect} {words.interval(low, high, words.POINTS)}" if bounded else effect


def _sizes(board: pd.DataFrame) -> str:
    """Return the hard and soft region sizes of CE and Dice where the foreground is rarest."""
    if not {HARD, SOFT} <= set(board.columns):
        return ""
    rarest = _ends(board)[0]
    here = _of(board, rarest).set_index("loss")
    masks = []
    for loss in ("ce", "dice"):
        if loss in here.index:
            hard, soft = (words.significant(float(here.loc[loss, column]), 3) for column in (HARD, SOFT))
            masks.append(f"the mask of {loss} covers ×{hard} of the true area (summed probability ×{soft})")
    return f"Region size at 0.5 on {_called(rarest)}: {', '.join(masks)}." if masks else ""


def _best(board: pd.DataFrame) -> str:
    """Return which losses may be the best on how many data sets."""
    sets = len(board.drop_duplicates(["dataset", "recipe"]))
    times = board[board["best"]].groupby("loss_label").size().sort_values(ascending=False, kind="stable")
    # Few seeds exclude nobody; to list all losses would read like a result.
    if len(times) == board["loss_label"].nunique() and times.min() == sets:
        return f"So far no loss is shown to be worse than another, on any of {sets} data set variants."
    first = ", ".join(f"{label} {count}" for label, count in times.head(NAMED).items())
    rest = f" and {len(times) - NAMED} more on fewer" if len(times) > NAMED else ""
    return f"May be the best at 0.5, on how many of {sets} data set variants: {first}{rest}."


def _called(row: dict[str, Any]) -> str:
    """Return a data set's label, and how much foreground it holds where the label does not say so."""
    label = row["data_label"]
    # The experiment's labels often say it already.
    if "%" in label or "foreground" in label:
        return label
    return f"{label} ({words.percent(row['foreground'], 2)} foreground)"


def _of(table: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    return table[(table["dataset"] == row["dataset"]) & (table["recipe"] == row["recipe"])]


def _ends(board: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the data set variant with the rarest foreground and, where there are several, that with the
    commonest.
    """
    ordered = board.sort_values(["foreground", "dataset"], kind="stable")
    rows = ordered.drop_duplicates(["dataset", "recipe"]).to_dict("records")
    return rows[:1] + rows[-1:] if len(rows) > 1 else rows
