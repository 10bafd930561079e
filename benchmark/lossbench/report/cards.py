"""Data cards for the report: facts and pictures as a sweep stored them, and histograms of how much foreground
there is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base import files as strictjson

if TYPE_CHECKING:
    import pandas as pd

BINS = 12

SAMPLES = 4  # of those that a sweep stored: a study of many data sets stays one page


def read(
    results: str | Path, files: dict[str, str], generated: Container[str] = (), images: bool = True
) -> list[dict[str, Any]]:
    """Return one ready card for each file that is there and readable, under its first label; several recipes
    share one.

    ``images=False`` leaves out the pictures of all data but those ``generated``: not every licence allows to
    pass them on."""
    cards = []
    labels: dict[str, list[str]] = {}
    for label, file in files.items():
        labels.setdefault(Path(file).name, []).append(label)
    for file, called in labels.items():
        try:
            facts = strictjson.read(Path(results) / "cards" / file)
            cards.append(_card(min(called, key=len), facts, images or facts["name"] in generated))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            continue  # a report without a card is still a report; the next sweep writes it again
    return cards


def _card(label: str, facts: dict[str, Any], images: bool) -> dict[str, Any]:
    classes = facts["classes"][1:]
    parts = ", ".join(f"{part} {count}" for part, count in facts["images"].items())
    empty = ", ".join(f"{part} {share:.0%}" for part, share in facts["empty"].items())
    size = " × ".join(map(str, facts["shape"])) if facts["shape"] else facts["sizes"]
    channels = f", {facts['channels']} channels" if facts["channels"] > 1 else ""
    spacing = " × ".join(f"{s:g}" for s in facts["spacing"])
    rows = [
        ("spec", facts["name"]),
        ("images", f"{parts}; {size}{channels}, {spacing} {facts['unit']} a pixel"),
        (
            "foreground",
            ", ".join(f"{name} {facts['fractions'][name]:.3g}" for name in classes) + " (share of pixels)",
        ),
        ("without foreground", empty),
        ("licence", facts["licence"]),
        ("cite", facts["citation"]),
        ("fingerprint", f"{facts['fingerprint']} (seed {facts['seed']})"),
    ]
    histograms = []
    for kind in classes:
        histograms.append(
            _histogram(
                f"{kind}: share of an image", [100 * v for v in facts["image_fractions"][kind] if v > 0], "%"
            )
        )
        histograms.append(
            _histogram(f"{kind}: object size", [float(v) for v in facts["object_sizes"][kind]], "px")
        )
    samples = [
        {"src": f"data:image/png;base64,{s['png']}", "width": int(s["width"]), "height": int(s["height"])}
        for s in facts["samples"][:SAMPLES] * images
        if all(c.isalnum() or c in "+/=" for c in s["png"])
    ]
    return {
        "label": label,
        "rows": [(k, v) for k, v in rows if v],
        "histograms": [h for h in histograms if h],
        "samples": samples,
        "withheld": not images and bool(facts["samples"]),
    }


def _histogram(title: str, values: list[float], unit: str) -> dict[str, Any] | None:
    """Return the bars of a histogram on a log axis, the ends of the axis and the count; None where all values
    are one.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:  # nothing to see
        return None
    width = math.log(high) - math.log(low)
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((math.log(value) - math.log(low)) / width * BINS))] += 1
    top = max(counts)
    bars = [{"x": 10 * i, "height": round(40 * n / top, 1), "count": n} for i, n in enumerate(counts)]
    return {
        "title": title,
        "bars": bars,
        "low": f"{low:.3g} {unit}",
        "high": f"{high:.3g} {unit}",
        "n": len(values),
    }


# --- Loss cards: formula, source, parameters and what happens on empty images, as the sweep noted them.


def cards(cells: pd.DataFrame, losses: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one card a loss of the cells, in the order of their families; sums name their terms."""
    order = cells.drop_duplicates("loss").sort_values(["family", "loss_label"])
    found = []
    for row in order[["loss", "loss_label", "family"]].to_dict("records"):
        terms = losses[losses["loss"] == row["loss"]].to_dict("records")
        facts = [("spec", row["loss"])] + [fact for term in terms for fact in _facts(term, len(terms) > 1)]
        found.append({"label": row["loss_label"], "family": row["family"], "facts": facts})
    return found


def _facts(term: dict[str, Any], in_sum: bool) -> list[tuple[str, str]]:
    """Return what is known of one summand, each fact under its name; of a sum every fact names its
    summand.
    """
    params = {key: value for key, value in json.loads(term["params"]).items() if key != "ignore_index"}
    facts = {
        "formula": term["formula"],
        "source": term["cite"],
        "cost": term["cost"],
        "parameters": ", ".join(f"{key} = {value!r}" for key, value in params.items()),
        "empty images": term["empty"],
        "needs": ", ".join(json.loads(term["needs"])),
    }
    named = in_sum or ":" in term["name"]
    first = [("term", f"{term['weight']:g} × {term['name']}")] if named else []
    prefix = f"{term['name']}: " if in_sum else ""
    return first + [(name, f"{prefix}{fact}") for name, fact in facts.items() if fact]
