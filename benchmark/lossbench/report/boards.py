"""Leaderboards in ready words, one a data set and recipe, and how firm the order of the losses is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lossbench.analysis.answers import BOARD
from lossbench.base import columns, words

if TYPE_CHECKING:
    import pandas as pd


FIRST = "dice@0.5"  # what the leaderboards are sorted by


def boards(table: pd.DataFrame, cells: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """Return one leaderboard a data set and recipe, data sets in the order of the table, of each the plainest
    recipe first; a recipe is named where one data set has several.

    cells: where given, a board says whose means are over other seeds than those of the other losses."""
    several = len(table) > 0 and table.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    # Older records know fewer scores.
    present = [column for column in BOARD if column in table and column != FIRST]
    trained = _trained(cells)
    found = (
        _board(own.sort_values("place").to_dict("records"), present, several, trained)
        for _, own in table.groupby(["dataset", "recipe"], sort=False, observed=True)
    )
    # Digits of a recipe, by which the table is sorted, mean nothing to a reader.
    return words.plainest_first(found, "label")


def _trained(cells: pd.DataFrame | None) -> dict[tuple[str, str, str], frozenset[int]]:
    """Return the seeds of each (data set, recipe, loss) that have a score."""
    if cells is None or FIRST not in cells:
        return {}
    held = cells[cells[FIRST].notna()].groupby(["dataset", "recipe", "loss"], observed=True)["seed"]
    return {name: frozenset(own) for name, own in held}


def _other_seeds(rows: list[dict[str, Any]], trained: dict[tuple[str, str, str], frozenset[int]]) -> str:
    """Return the sentence that names how many seeds each mean of a board is over, where they are not the
    same; else nothing.
    """
    seeds = {row["loss_label"]: trained.get((row["dataset"], row["recipe"], row["loss"])) for row in rows}
    if not trained or len(set(seeds.values())) < 2:
        return ""
    counts: dict[int, list[str]] = {}
    for label, own in seeds.items():
        counts.setdefault(len(own or ()), []).append(f"“{label}”")
    told = "; ".join(f"{n} of {', '.join(counts[n])}" for n in sorted(counts, reverse=True))
    common = len(frozenset.intersection(*(own or frozenset() for own in seeds.values())))
    return (
        f"The means of this board are not all over the same seeds: {told}. All losses have {common} in "
        "common. Rows with fewer seeds than the most are marked *. Shading compares each two losses on the "
        "seeds that both have."
    )


def _board(
    rows: list[dict[str, Any]],
    present: list[str],
    several: bool,
    trained: dict[tuple[str, str, str], frozenset[int]],
) -> dict[str, Any]:
    first = rows[0]
    most = max(row["n"] for row in rows)
    return {
        "seeds": _other_seeds(rows, trained),
        "dataset": first["dataset"],
        "recipe": first["recipe"] if several else "",
        "label": first["data_label"],
        "foreground": words.percent(first["foreground"], 2),
        "columns": [columns.title(column) for column in present],
        "lower": [columns.lower_is_better(column) for column in present],
        "best": [row["loss_label"] for row in rows if row["best"]],
        "dataset_key": (first["dataset"], first["recipe"]),
        "rows": [{**_row(row, present), "fewer": row["n"] < most} for row in rows],
    }


def _row(row: dict[str, Any], present: list[str]) -> dict[str, Any]:
    # Each value with its number for sorting, and whether it may be the best at the validation threshold.
    others = [(words.value(row[c], c), row[c], c == "dice@val" and row["best_val"]) for c in present]
    return {
        "place": row["place"],
        "loss": row["loss"],
        "label": row["loss_label"],
        "family": row["family"],
        "best": bool(row["best"]),
        "mean": words.number(row["mean"]),
        "mean_raw": row["mean"],
        "interval": words.bounds(row["low"], row["high"]),
        "n": row["n"],
        "collapsed": row["collapsed"],
        "others": others,
    }


def filters(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the choices of the filters above the leaderboards."""
    if not len(table):
        return {"data set": [], "family": [], "loss": [], "metric": []}
    return {
        "data set": list(dict.fromkeys(table["data_label"])),
        "family": sorted(dict.fromkeys(table["family"])),
        "loss": sorted(dict.fromkeys(table["loss_label"])),
        "metric": [columns.title(column) for column in BOARD if column == FIRST or column in table],
    }


# How firm an order is: interquartile means, and agreement of rankings.


def firmness(
    profiles: pd.DataFrame, stability: pd.DataFrame, order: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return one entry a part, in their ``order`` in the experiment: its losses by their interquartile mean,
    and one row a metric that says how well its ranking holds.
    """
    means = profiles[profiles["kind"] == "iqm"]
    entries = []
    for part in _ordered(means["part"], order):
        # By the middle half of all runs: neither a collapse nor an easy data set decides.
        own = means[means["part"] == part].sort_values("value", ascending=False, kind="stable")
        entries.append(
            {
                "part": part,
                "runs": own["n_runs"].iloc[0],
                "datasets": own["n_datasets"].iloc[0],
                "losses": [_mean(row) for row in own.to_dict("records")],
                "metrics": _agreement(stability[stability["part"] == part]),
            }
        )
    return entries


def _mean(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "loss": row["loss_label"],
        "spec": row["loss"],
        "value": words.number(row["value"]),
        "raw": row["value"],
        "interval": words.bounds(row["low"], row["high"]),
    }


def _agreement(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for metric in dict.fromkeys(table["metric"]):
        own = table[table["metric"] == metric]
        seeds = next(iter(own[own["kind"] == "seeds"].to_dict("records")), None)
        # The data set that holds the ranking together is the one without which it changes most.
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
                "first": "–" if seeds is None else words.percent(seeds["same_first"], 2),
                "lowest": words.number(left[0]["tau"], 2) if left else "–",
                "without": left[0]["against"] if left and left[0]["tau"] < 1 else "",
                "unseated": [row["against"] for row in left if not row["same_first"]],
                "dice": words.number(pair[0]["tau"], 2) if pair else "–",
                # Two metrics cannot agree better than each does with itself.
                "ceiling": words.number(pair[0]["ceiling"], 2)
                if pair and not words.missing(pair[0]["ceiling"])
                else "",
            }
        )
    return rows


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return each name once, those of the experiment in its order, then the others in their own."""
    # A part may have gone from the experiment whose records are still here.
    names = list(dict.fromkeys(names))
    return [*(name for name in order if name in names), *(name for name in names if name not in order)]
