"""The parts of an experiment in the report: what its file says each is for, and the effects within those that stand apart."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.report import words

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.report.rows import Labels


@dataclass(frozen=True)
class Part:
    """One cross of an experiment; ``about`` is the comment above it in the file, ``fixed`` says that no further loss joins it."""

    name: str
    about: str
    fixed: bool


def read(experiment: str | None) -> tuple[Part, ...]:
    """Return the parts of an experiment as its file describes them; none where there is no such file or it has no parts."""
    from benchmark.experiment import find_experiment

    try:
        text = find_experiment(experiment or "").read_text(encoding="utf-8")
        items = tomllib.loads(text).get("part", [])
        return tuple(
            Part(str(item["name"]), about, bool(item.get("fixed", False))) for item, about in zip(items, _comments(text), strict=True)
        )
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()  # a report without the words about its parts is still a report


def _comments(text: str) -> list[str]:
    """Return the comment that stands directly above each ``[[part]]``, in one line."""
    found = re.findall(r"((?:^#[^\n]*\n)*)^\[\[part\]\]", text, flags=re.MULTILINE)
    return [" ".join(line.lstrip("# ").rstrip() for line in block.splitlines()) for block in found]


def sections(parts: Iterable[Part], effects: pd.DataFrame, labels: Labels, ids: dict[str, dict]) -> list[dict[str, Any]]:
    """Return the fixed parts that hold effects: per metric a table losses x data sets of paired effects against the part's reference."""
    from benchmark.report.rows import METRIC_NAMES

    found = []
    for part in parts:
        own = effects[effects["part"] == part.name]
        if not len(own):
            continue
        # A data set that two recipes share is told apart by its label, in the order of the labels' first row.
        variants = list(dict.fromkeys(zip(own["dataset"], own["recipe"], strict=True)))
        variants.sort(key=lambda key: ids["variants"].get(key, 0))
        losses = own.drop_duplicates("loss")[["loss", "loss_label", "family"]].to_dict("records")
        metrics = []
        for metric in dict.fromkeys(own["metric"]):
            kind = words.kind_of(metric)
            at = {(r["loss"], r["dataset"], r["recipe"]): r for r in own[own["metric"] == metric].to_dict("records")}
            rows = [{**loss, "cells": [_cell(at.get((loss["loss"], *v)), kind) for v in variants]} for loss in losses]
            metrics.append({"name": METRIC_NAMES.get(metric, metric), "unit": words.unit(kind) or "factor", "rows": rows})
        found.append(
            {
                "name": part.name,
                "about": part.about,
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
