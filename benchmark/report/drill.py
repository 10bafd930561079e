"""The single cells behind every number, as one compact block of JSON that the page turns into a table when asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmark.report import words

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.report.rows import Labels

# A page stays below 10 MB: a cell takes some 100 bytes, its curve some 60.
CURVES_UP_TO, CELLS_UP_TO = 6_000, 30_000
POINTS = 12  # of a curve at most
SHOWN = ("dataset", "recipe", "loss", "seed", "outcome", "collapse", "seconds", "commit", "dirty", "device", "key")
METRICS = ("dice@0.5", "dice@val", "size_ratio_hard@0.5", "size_ratio_soft", "nll")


def variants(cells: pd.DataFrame, labels: Labels) -> dict[str, Any]:
    """Return the number of each (data set, recipe) and of each loss, by which links name them, with their labels."""
    pairs = list(dict.fromkeys(zip(cells["dataset"], cells["recipe"], strict=True)))
    losses = cells.drop_duplicates("loss").sort_values("loss_label", kind="stable")
    return {
        "variants": {pair: number for number, pair in enumerate(pairs)},
        "losses": {loss: number for number, loss in enumerate(losses["loss"])},
        "variant_labels": [labels[pair] for pair in pairs],
        "loss_labels": list(losses["loss_label"]),
    }


def data(cells: pd.DataFrame, curves: pd.DataFrame | None, ids: dict[str, Any]) -> dict[str, Any]:
    """Return the block: shared names once, then one short row a cell; ``says`` tells what was left out of a large study."""
    from benchmark.report.rows import METRIC_NAMES

    if len(cells) > CELLS_UP_TO:
        return {"rows": [], "says": f"This study holds {len(cells)} cells, too many for a page; each is a row of tables/cells.csv."}
    metrics = [name for name in METRICS if name in cells]
    origins: dict[tuple, int] = {}
    rows = []
    values = [cells[name].astype(float).tolist() for name in metrics]
    at = _curves(curves) if len(cells) <= CURVES_UP_TO else {}
    for place, row in enumerate(cells[list(SHOWN)].itertuples(index=False, name=None)):
        dataset, recipe, loss, seed, outcome, collapse, seconds, commit, dirty, device, key = row
        origin = origins.setdefault((str(commit)[:10] or "none", bool(dirty), device), len(origins))
        ended = "done" if outcome == "done" else f"{outcome}: {collapse}" if collapse else str(outcome)
        told = [words.number(column[place], 3) for column in values]
        what = ids["variants"][dataset, recipe], ids["losses"][loss], int(seed)
        rows.append([*what, ended, told, words.duration(_float(seconds)), origin, key, at.get(key, "")])
    left_out = len(cells) > CURVES_UP_TO
    says = f"Curves are left out of a study of {len(cells)} cells; they stand in tables/curves.parquet." if left_out else ""
    return {
        "metrics": [METRIC_NAMES.get(name, name) for name in metrics],
        "origins": [f"{commit}{' with changes' if dirty else ''}, {device}" for commit, dirty, device in origins],
        "variants": ids["variant_labels"],
        "losses": ids["loss_labels"],
        "rows": rows,
        "says": says,
    }


def block(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element: no character can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _curves(curves: pd.DataFrame | None) -> dict[str, str]:
    """Return the validation Dice of each cell as points "x,y" in a box of 60 x 20, in equal steps of time."""
    if curves is None or not len(curves) or "val_dice" not in curves:
        return {}
    known = curves.loc[curves["val_dice"].notna(), ["key", "step", "val_dice"]]
    found = {}
    keys, steps, values = known["key"].tolist(), known["step"].tolist(), known["val_dice"].tolist()
    start = 0
    for end in range(1, len(keys) + 1):
        if end < len(keys) and keys[end] == keys[start]:
            continue
        chosen = range(start, end, max(1, -(-(end - start) // POINTS)))
        last = float(steps[end - 1]) or 1.0
        found[keys[start]] = " ".join(f"{60 * steps[i] / last:.0f},{20 - 20 * min(max(values[i], 0), 1):.0f}" for i in chosen)
        start = end
    return found


def _float(value: Any) -> float:
    return float(value) if value is not None else float("nan")
