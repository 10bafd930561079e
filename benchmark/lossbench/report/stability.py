"""How firm the order of the losses is, in ready words: interquartile means, and agreement of rankings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lossbench.base import columns
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd


FIRST = "dice@0.5"  # what the leaderboards are sorted by


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
