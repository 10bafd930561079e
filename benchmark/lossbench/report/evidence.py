"""The decision aid and the sensitivity of results in ready words, taken from their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lossbench.analysis import advice
from lossbench.base import columns
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.report.rows import Labels

QUESTIONS = {
    "foreground": ("Foreground, share of all pixels", (advice.ANY, *(name for name, _ in advice.FOREGROUND))),
    "boundaries": ("Boundaries", (advice.ANY, *advice.BOUNDARIES)),
    "empty": ("Images without foreground", (advice.ANY, *(name for name, _ in advice.EMPTY))),
}


def aid(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return what the decision aid shows: its questions, what every triple of answers rests on, and the rows
    of each group and goal.
    """
    groups, rows = tables["advice_groups"], tables["advice"]
    found: dict[str, dict[str, list]] = {}
    sets: list[str] = []
    known: dict[str, int] = {}
    for row in rows.to_dict("records"):
        kind = columns.form(row["metric"])
        place = known.setdefault(row["datasets"], len(sets))
        sets += [row["datasets"]] if place == len(sets) else []
        interval = words.interval(row["low"], row["high"], kind)
        told = [
            row["loss_label"],
            row["family"],
            row["verdict"],
            f"{words.effect(row['estimate'], kind)} {words.unit(kind)}".strip(),
            interval,
        ]
        found.setdefault(str(row["group"]), {}).setdefault(row["goal"], []).append(
            [*told, int(row["n_blocks"]), int(row["n_datasets"]), place]
        )
    answers = {
        "|".join((g["foreground"], g["boundaries"], g["empty"])): [g["group"], g["datasets"]]
        for g in groups.to_dict("records")
    }
    goals = [{"name": goal.name, "lower": goal.good < 0} for goal in advice.GOALS]
    return {
        "questions": QUESTIONS,
        "goals": goals,
        "data": {"answers": answers, "rows": found, "sets": sets},
        "there": bool(found),
    }


def likeness(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row a data set: what it is like, which says to whose data its results speak."""
    return [
        {
            "label": row["data_label"],
            "foreground": words.percent(row["foreground_true"], 2),
            "foreground_raw": row["foreground_true"],
            "empty": words.percent(row["empty_share"], 2),
            "empty_raw": row["empty_share"],
            "boundaries": row["boundaries"],
        }
        for row in table.to_dict("records")
    ]


def sensitivity(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one entry an axis with its rows; a usual setting is a row of its own, since it is what the
    others are compared with.
    """
    found = []
    for axis, part in table.groupby("axis", sort=False):
        rows = [
            {
                "label": row["data_label"],
                "loss": row["loss_label"],
                "family": row["family"],
                "metric": columns.title(row["metric"]),
                "setting": row["setting"],
                "usual": row["usual"] is True,
                "chosen": row["chosen"] is True,
                "mean": words.number(row["mean"]),
                "mean_raw": row["mean"],
                "n": "–" if words.missing(row["n"]) else f"{row['n']:.0f}",
                **_difference(row, ""),
                **_difference(row, "ce_"),
            }
            for row in part.astype(object).to_dict("records")
        ]
        found.append({"axis": axis, "rows": rows})
    return found


def _difference(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    estimate, low, high = (row[f"{prefix}{name}"] for name in ("estimate", "low", "high"))
    return {
        f"{prefix}effect": words.effect(estimate, words.POINTS),
        f"{prefix}raw": estimate,
        f"{prefix}interval": "" if words.missing(estimate) else words.interval(low, high, words.POINTS),
        f"{prefix}resolved": not words.missing(low) and (low > 0 or high < 0),
    }


# --- How firm the order of the losses is, in ready words: interquartile
# means, rank agreement.

FIRST = "dice@0.5"  # what the leaderboards are sorted by


def firmness(
    profiles: pd.DataFrame, stability: pd.DataFrame, order: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return one entry a part, in their ``order`` in the experiment: its losses by their interquartile mean,
    and one row a metric that says how well its ranking holds.
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
    interval = (
        "one seed"
        if words.missing(row["low"])
        else f"[{words.number(row['low'])}, {words.number(row['high'])}]"
    )
    return {
        "loss": row["loss_label"],
        "spec": row["loss"],
        "value": words.number(row["value"]),
        "raw": row["value"],
        "interval": interval,
    }


def _agreement(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for metric in dict.fromkeys(table["metric"]):
        own = table[table["metric"] == metric]
        seeds = next(iter(own[own["kind"] == "seeds"].to_dict("records")), None)
        left = (
            own[own["kind"] == "data sets"]
            .dropna(subset="tau")
            .sort_values("tau", kind="stable")
            .to_dict("records")
        )
        pair = table[
            (table["kind"] == "metric") & (table["metric"] == FIRST) & (table["against"] == metric)
        ].to_dict("records")
        rows.append(
            {
                "metric": columns.title(metric),
                "seeds": "–" if seeds is None else words.number(seeds["tau"], 2),
                "range": ""
                if seeds is None
                else f"[{words.number(seeds['low'], 2)}, {words.number(seeds['high'], 2)}]",
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


def part_sections(
    parts: pd.DataFrame, effects: pd.DataFrame, labels: Labels, ids: dict[str, dict]
) -> list[dict[str, Any]]:
    """Return the fixed parts that hold effects: per metric a table losses x data sets of paired effects
    against the part's reference.
    """
    found = []
    for part in parts.to_dict("records"):
        own = effects[effects["part"] == part["part"]]
        if not len(own):
            continue
        # A data set that two recipes share is told apart by its label, in the order of the labels' first row.
        variants = list(dict.fromkeys(zip(own["dataset"], own["recipe"], strict=True)))
        variants.sort(key=lambda key: ids["variants"].get(key, 0))
        losses = own.drop_duplicates("loss")[["loss", "loss_label", "family"]].to_dict("records")
        metrics = []
        for metric in dict.fromkeys(own["metric"]):
            kind = columns.form(metric)
            at = {
                (r["loss"], r["dataset"], r["recipe"]): r
                for r in own[own["metric"] == metric].to_dict("records")
            }
            rows = [
                {**loss, "cells": [_cell(at.get((loss["loss"], *v)), kind) for v in variants]}
                for loss in losses
            ]
            metrics.append(
                {"name": columns.title(metric), "unit": words.unit(kind) or "factor", "rows": rows}
            )
        found.append(
            {
                "name": part["part"],
                "about": part["title"],
                "against": own["against"].iloc[0],
                "columns": [labels[v] for v in variants],
                "metrics": metrics,
            }
        )
    return found


def _cell(row: dict[str, Any] | None, kind: str) -> dict[str, Any] | None:
    if row is None or words.missing(row["estimate"]):
        return None
    return {
        "effect": words.effect(row["estimate"], kind),
        "raw": row["estimate"],
        "interval": "" if words.missing(row["low"]) else f"{words.interval(row['low'], row['high'], kind)}, ",
        "resolved": not words.missing(row["low"]) and (row["low"] > 0 or row["high"] < 0),
        "blocks": f"{row['n_blocks']:.0f}",
        "dataset": row["dataset"],
        "recipe": row["recipe"],
    }
