"""Loss against loss in ready words: for each pair one sentence that a search finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lossbench.analysis import decisions
from lossbench.base import columns, words

if TYPE_CHECKING:
    import pandas as pd

# What each verdict says of the first loss of a pair.
SAYS = {
    decisions.BETTER: "shown to be better",
    decisions.WORSE: "shown to be worse",
    decisions.EQUAL: "shown to be equal within {margin}",
    decisions.OPEN: "not decided",
    "": "not decided",
}


def pairs(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry a pair of losses: its effect by each metric, and the sentence of all of them."""
    metrics = list(dict.fromkeys(table["metric"]))
    by_pair: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in table.astype(object).to_dict("records"):
        by_pair.setdefault((row["loss"], row["against"]), {})[row["metric"]] = row
    return [_pair(rows, metrics) for rows in by_pair.values()]


def _pair(rows: dict[str, dict[str, Any]], metrics: list[str]) -> dict[str, Any]:
    first = next(iter(rows.values()))
    # The table is dense: where a score is missing its cells are dashes.
    effects = [_effect(rows[metric]) if metric in rows else None for metric in metrics]
    name = f"{first['loss_label']} minus {first['against_label']}"
    told = "; ".join(effect["says"] for effect in effects if effect)
    return {
        "name": name,
        "says": f"{name}: {told}",
        "effects": effects,
        "seeds": words.count(first["n_seeds"]),
        "by_set": first["by_set"],
    }


def _effect(row: dict[str, Any]) -> dict[str, Any]:
    kind = columns.form(row["metric"])
    verdict = "" if words.missing(row["verdict"]) else row["verdict"]
    margin = words.effect(decisions.margin(row["metric"]), kind).lstrip("+").removesuffix(".0")
    plural = "point" if margin == "1" else "points"
    shown = SAYS[verdict].format(margin=f"{margin} {plural}")
    effect, interval = words.effect(row["estimate"], kind), words.interval(row["low"], row["high"], kind)
    return {
        "metric": columns.title(row["metric"]),
        "effect": effect,
        "raw": row["estimate"],
        "interval": interval,
        "resolved": words.resolved(row["low"], row["high"]),
        "verdict": verdict or decisions.OPEN,
        "says": f"{effect} {words.unit(kind)} {interval} of {columns.title(row['metric'])} ({shown})",
    }
