"""Data cards for the report: facts and pictures as a sweep stored them, and histograms of how much foreground
there is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base import files as strictjson
from lossbench.base.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

BINS = 12

SAMPLES = 4  # of those that a sweep stored: a study of many data sets stays one page


def read(results: str | Path, files: dict[str, str], images: bool = True) -> list[dict[str, Any]]:
    """Return one ready card for each file that is there and readable, under its first label; several recipes
    share one.

    ``images=False`` leaves out the pictures of all data that are not generated: not every licence allows to
    pass them on."""
    cards = []
    labels: dict[str, list[str]] = {}
    for label, file in files.items():
        labels.setdefault(Path(file).name, []).append(label)
    for file, called in labels.items():
        try:
            facts = strictjson.read(Path(results) / "cards" / file)
            cards.append(_card(min(called, key=len), facts, images or _generated(facts["name"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            continue  # a report without a card is still a report; the next sweep writes it again
    return cards


def _generated(spec: str) -> bool:
    from lossbench.catalogue.registry import parse_dataset

    try:
        return parse_dataset(spec).entry.family == "synthetic"
    except UserError:
        return False


def _card(label: str, facts: dict[str, Any], images: bool) -> dict[str, Any]:
    classes = facts["classes"][1:]
    parts = ", ".join(f"{part} {count}" for part, count in facts["images"].items())
    empty = ", ".join(f"{part} {share:.0%}" for part, share in facts["empty"].items())
    size = " × ".join(map(str, facts["shape"]))
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


# --- Loss cards: formula, source, parameters and what happens on empty images, read from the source files
# without importing them.


def cards(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one card a loss of the cells, in the order of their families; sums name their terms."""
    found = []
    for row in (
        cells.drop_duplicates("loss")
        .sort_values(["family", "loss_label"])[["loss", "loss_label", "family"]]
        .to_dict("records")
    ):
        facts: list[tuple[str, str]] = [("spec", row["loss"])]
        try:
            facts += _facts(row["loss"])
        except UserError as error:  # a loss of a user's own file, or of a library that is not here
            facts.append(("note", f"not known here: {error}"))
        found.append({"label": row["loss_label"], "family": row["family"], "facts": facts})
    return found


def _facts(spec: str) -> list[tuple[str, str]]:
    from lossbench.catalogue.registry import parse_loss

    terms = parse_loss(spec).terms
    facts = []
    for term in terms:
        prefix = f"{term.name}: " if len(terms) > 1 else ""
        if term.entry is None:
            facts.append(("term", f"{term.weight:g} × {term.library}:{term.name}"))
            continue
        meta = term.entry.meta
        if len(terms) > 1:
            facts.append(("term", f"{term.weight:g} × {term.name}"))
        facts += [
            (name, f"{prefix}{meta[key]}")
            for name, key in (("formula", "formula"), ("source", "cite"), ("cost", "cost"))
            if meta.get(key)
        ]
        shown = {key: value for key, value in term.params.items() if key != "ignore_index"}
        if shown:
            facts.append(
                ("parameters", prefix + ", ".join(f"{key} = {value!r}" for key, value in shown.items()))
            )
        if meta.get("empty"):
            facts.append(("empty images", f"{prefix}{meta['empty']}"))
        if term.entry.needs:
            facts.append(("needs", prefix + ", ".join(term.entry.needs)))
    return facts
