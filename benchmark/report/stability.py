"""How firm the order of the losses is, and with what their leads grow, in ready words: interquartile means, rank agreement, mixed models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.report import words
from benchmark.report.rows import METRIC_NAMES

if TYPE_CHECKING:
    import pandas as pd

FIRST = "dice@0.5"  # what the leaderboards are sorted by
FIFTHS = ("q1", "q2", "q3", "q4")


def sections(profiles: pd.DataFrame, stability: pd.DataFrame, order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return one entry a part, in their ``order`` in the experiment: its losses by their interquartile mean, and one row a metric that says how
    well its ranking holds.
    """
    found = []
    means = profiles[profiles["kind"] == "iqm"]
    for part in _ordered(means["part"], order):
        own = means[means["part"] == part].sort_values("value", ascending=False, kind="stable")
        found.append(
            {
                "part": part,
                "runs": own["n_runs"].iloc[0],
                "datasets": own["n_datasets"].iloc[0],
                "losses": [_mean(row) for row in own.to_dict("records")],
                "metrics": _agreement(stability[stability["part"] == part]),
            }
        )
    return found


def _mean(row: dict[str, Any]) -> dict[str, Any]:
    interval = "one seed" if words.missing(row["low"]) else f"[{words.number(row['low'])}, {words.number(row['high'])}]"
    return {"loss": row["loss_label"], "spec": row["loss"], "value": words.number(row["value"]), "raw": row["value"], "interval": interval}


def _agreement(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for metric in dict.fromkeys(table["metric"]):
        own = table[table["metric"] == metric]
        seeds = next(iter(own[own["kind"] == "seeds"].to_dict("records")), None)
        left = own[own["kind"] == "data sets"].dropna(subset="tau").sort_values("tau", kind="stable").to_dict("records")
        pair = table[(table["kind"] == "metric") & (table["metric"] == FIRST) & (table["against"] == metric)].to_dict("records")
        rows.append(
            {
                "metric": METRIC_NAMES.get(metric, metric),
                "seeds": "–" if seeds is None else words.number(seeds["tau"], 2),
                "range": "" if seeds is None else f"[{words.number(seeds['low'], 2)}, {words.number(seeds['high'], 2)}]",
                "first": "–" if seeds is None else words.percent(seeds["same_first"], 2),
                "lowest": words.number(left[0]["tau"], 2) if left else "–",
                "without": left[0]["against"] if left and left[0]["tau"] < 1 else "",
                "unseated": [row["against"] for row in left if not row["same_first"]],
                "dice": words.number(pair[0]["tau"], 2) if pair else "–",
            }
        )
    return rows


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return each name once, those of the experiment in its order, then the others in their own."""
    names = list(dict.fromkeys(names))
    return [*(name for name in order if name in names), *(name for name in names if name not in order)]


def interactions(table: pd.DataFrame, order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return one entry a part and model: what it was fitted to, the notes on its fit, and the change of each loss's lead."""
    found = []
    for part, model in [(p, m) for p in _ordered(table["part"], order) for m in dict.fromkeys(table.loc[table["part"] == p, "model"])]:
        own = table[(table["part"] == part) & (table["model"] == model)]
        fitted = own.dropna(subset="loss")
        terms = [term for term in (FIFTHS if model == "size" else ["log10 foreground"]) if (fitted["term"] == term).any()]
        at = {(row["loss"], row["term"]): _change(row) for row in fitted.to_dict("records")}
        found.append(
            {
                "part": part,
                "model": model,
                "against": own["against"].iloc[0],
                "n": own["n"].iloc[0],
                "blocks": own["n_blocks"].iloc[0],
                "notes": [note for note in dict.fromkeys(own["note"]) if isinstance(note, str) and note],
                "terms": terms,
                "rows": [
                    {"loss": label, "cells": [at.get((loss, term)) for term in terms]}
                    for loss, label in fitted.drop_duplicates("loss")[["loss", "loss_label"]].itertuples(index=False, name=None)
                ],
            }
        )
    return found


def _change(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "effect": words.effect(row["estimate"], words.POINTS),
        "raw": row["estimate"],
        "interval": words.interval(row["low"], row["high"], words.POINTS),
        "resolved": not words.missing(row["low"]) and (row["low"] > 0 or row["high"] < 0),
        "p": words.p_value(row["p"]),
    }
