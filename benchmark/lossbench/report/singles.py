"""The single cells behind every number, as one compact block of JSON that the page turns into a table when
asked.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from lossbench.base import columns, words
from lossbench.base.words import Labels

if TYPE_CHECKING:
    import pandas as pd


# A page stays below 10 MB: a cell takes some 100 bytes, its curve some 60.
CURVES_UP_TO, CELLS_UP_TO = 6_000, 30_000

POINTS = 12  # of a curve at most

WHAT, WHENCE = ("dataset", "recipe", "loss", "seed"), ("commit", "dirty", "device", "key")
SHOWN = (*WHAT, "outcome", "collapse", "seconds", *WHENCE)

# A few scores for each of many thousand cells: the others stand in tables/cells.csv.
METRICS = ("dice@0.5", "dice@val", "size_ratio_hard@0.5", "size_ratio_soft", "nll")


def variants(cells: pd.DataFrame, labels: Labels) -> dict[str, Any]:
    """Return the number of each (data set, recipe) and of each loss, by which links name them, with their
    labels.
    """
    # In the order of the table, so that the numbers are the same in every report of the same cells.
    pairs = list(dict.fromkeys(zip(cells["dataset"], cells["recipe"], strict=True)))
    losses = cells.drop_duplicates("loss").sort_values("loss_label", kind="stable")
    return {
        "variants": {pair: number for number, pair in enumerate(pairs)},
        "losses": {loss: number for number, loss in enumerate(losses["loss"])},
        "variant_labels": [labels[pair] for pair in pairs],
        "loss_labels": list(losses["loss_label"]),
    }


def data(cells: pd.DataFrame, curves: pd.DataFrame | None, ids: dict[str, Any]) -> dict[str, Any]:
    """Return the block: shared names once, then one short row a cell; ``says`` tells what a large study
    leaves out.
    """
    # Without its rows the page still says everything else, and opens.
    if len(cells) > CELLS_UP_TO:
        many = f"This study holds {len(cells)} cells, too many for a page"
        return {"rows": [], "says": f"{many}; each is a row of tables/cells.csv."}
    metrics = [name for name in METRICS if name in cells]
    scores = (
        zip(*(cells[name].astype(float) for name in metrics), strict=True) if metrics else [()] * len(cells)
    )
    with_curves = len(cells) <= CURVES_UP_TO
    at = _curves(curves) if with_curves else {}
    origins: dict[tuple, int] = {}
    seconds = dict(zip(cells["key"], cells["seconds"], strict=True))
    originals = cells[columns.COPIED].fillna("") if columns.COPIED in cells else [""] * len(cells)
    rows = []
    shown = cells[list(SHOWN)].itertuples(index=False)
    for row, values, original in zip(shown, scores, originals, strict=True):
        # Ten digits of a commit are enough to find it, and a study has few origins.
        origin = (str(row.commit)[:10] or "none", bool(row.dirty), row.device)
        ended = f"{row.outcome}: {row.collapse}" if row.collapse else str(row.outcome)
        rows.append(
            [
                ids["variants"][row.dataset, row.recipe],
                ids["losses"][row.loss],
                int(row.seed),
                ended,
                [words.number(value, 3) for value in values],
                _took(row.seconds, original, seconds),
                origins.setdefault(origin, len(origins)),
                row.key,
                at.get(row.key, ""),
            ]
        )
    # A page of 10 MB opens at once; a larger study is for tables.
    left_out = f"Curves are left out of a study of {len(cells)} cells; they stand in tables/curves.parquet."
    return {
        "metrics": [columns.title(name) for name in metrics],
        "origins": [f"{commit}{' with changes' * dirty}, {device}" for commit, dirty, device in origins],
        "variants": ids["variant_labels"],
        "losses": ids["loss_labels"],
        "rows": rows,
        "says": "" if with_curves else left_out,
    }


def _took(own: float | None, original: str, seconds: dict[str, float | None]) -> str:
    """Return how long a cell took; of a copy that of its original, since copying took no time."""
    if not original:
        return words.duration(_float(own))
    # The original may belong to another experiment.
    return f"{words.duration(_float(seconds[original]))}, copied" if original in seconds else "copied"


def _curves(curves: pd.DataFrame | None) -> dict[str, str]:
    """Return the validation Dice of each cell as points "x,y" in a box of 60 x 20, in equal steps of time."""
    if curves is None or not len(curves) or "val_dice" not in curves:
        return {}
    known = curves.loc[curves["val_dice"].notna(), ["key", "step", "val_dice"]]
    rows = zip(known["key"].tolist(), known["step"].tolist(), known["val_dice"].tolist(), strict=True)
    return {
        key: _points([row[1:] for row in own]) for key, own in itertools.groupby(rows, key=lambda row: row[0])
    }


def _points(steps: list[tuple[float, float]]) -> str:
    """Return at most ``POINTS`` of (step, Dice), the first among them."""
    # In equal steps of the time axis: a few points show how a curve runs.
    last = float(steps[-1][0]) or 1.0
    chosen = steps[:: max(1, -(-len(steps) // POINTS))]
    return " ".join(f"{60 * step / last:.0f},{20 - 20 * min(max(dice, 0), 1):.0f}" for step, dice in chosen)


def _float(value: Any) -> float:
    return float(value) if value is not None else float("nan")
