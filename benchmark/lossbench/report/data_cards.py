"""Data cards: facts and pictures as a sweep stored them, and histograms of how much foreground there is."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Container
from pathlib import Path
from typing import Any

from lossbench.base import files, words

BASE64 = re.compile(r"[A-Za-z0-9+/=]*")
BINS = 12
MOST_BYTES = 3_000_000  # of a picture within the page
SAMPLES = 4  # of those that a sweep stored: a study of many data sets stays one page

Card = dict[str, Any]


def read(
    results: str | Path, cards: dict[str, str], generated: Container[str] = (), images: bool = True
) -> list[Card]:
    """Return one ready card for each file that is there and readable, under its shortest label: recipes share
    it.

    ``cards`` names the file of each label. ``images=False`` leaves out the pictures of all data but those
    ``generated``: not every licence allows to pass them on.
    """
    # Recipes of one data set share its card.
    labels: dict[str, list[str]] = {}
    for label, file in cards.items():
        labels.setdefault(Path(file).name, []).append(label)
    ready = []
    for file, called in labels.items():
        try:
            facts = files.read(Path(results) / "cards" / file)
            ready.append(_card(min(called, key=len), facts, images or facts["name"] in generated))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            continue  # a report without a card is still a report; the next sweep writes it again
    return ready


def errors(results: str | Path) -> list[Card]:
    """Return the pictures of errors that a sweep drew, each with the name of its data set's folder."""
    found = []
    for file in sorted(Path(results).glob("predictions/*/errors_*.png")):
        content = file.read_bytes()
        if content.startswith(b"\x89PNG") and len(content) < MOST_BYTES:
            src = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            # Width and height stand behind the first chunk's name.
            width, height = struct.unpack(">II", content[16:24])
            found.append({"label": file.parent.name, "src": src, "width": width, "height": height})
    return found


def _card(label: str, facts: Card, images: bool) -> Card:
    histograms = []
    for kind in facts["classes"][1:]:
        shares = [100 * share for share in facts["image_fractions"][kind] if share > 0]
        histograms.append(_histogram(f"{kind}: share of an image", shares, "%"))
        sizes = [float(size) for size in facts["object_sizes"][kind]]
        histograms.append(_histogram(f"{kind}: object size", sizes, "px"))
    return {
        "label": label,
        "spec": facts["name"],
        "about": _about(facts),
        "rows": [(name, fact) for name, fact in _rows(facts).items() if fact],
        "histograms": [histogram for histogram in histograms if histogram],
        "samples": _samples(facts["samples"][:SAMPLES]) if images else [],
        "leaks": facts.get("leaks", ""),
        "lacks": facts.get("lacks", ""),
        "withheld": not images and bool(facts["samples"]),
    }


def _about(facts: Card) -> str:
    """Return what decides about a loss: how much foreground there is, and how many images have none."""
    share = sum(facts["fractions"][kind] for kind in facts["classes"][1:])
    empty = facts["empty"].get("test", 0.0)
    return f"{100 * share:.2g} % foreground, {words.share(empty)} of the test images without"


def _rows(facts: Card) -> dict[str, str]:
    counts = ", ".join(f"{split} {count}" for split, count in facts["images"].items())
    # Images of unequal sizes have no shape in common.
    size = " × ".join(map(str, facts["shape"])) if facts["shape"] else facts["sizes"]
    channels = f", {facts['channels']} channels" if facts["channels"] > 1 else ""
    spacing = " × ".join(f"{step:g}" for step in facts["spacing"])
    shares = ", ".join(f"{kind} {facts['fractions'][kind]:.3g}" for kind in facts["classes"][1:])
    return {
        "spec": facts["name"],
        "images": f"{counts}; {size}{channels}, {spacing} {facts['unit']} a pixel",
        "foreground": f"{shares} (share of pixels)",
        "without foreground": ", ".join(
            f"{split} {words.share(share)}" for split, share in facts["empty"].items()
        ),
        "scored": _scored(facts.get("scored", {})),
        "published": _published(facts),
        "notes": facts.get("notes", ""),
        "licence": facts["licence"],
        "cite": facts["citation"],
        "fingerprint": f"{facts['fingerprint']} (seed {facts['seed']})",
    }


def _scored(shares: dict[str, float]) -> str:
    """Return which share of the images the budgets of pixels let be scored, where it is not all."""
    parts = [f"{words.share(share)} of {part}" for part, share in shares.items() if share < 1]
    return f"{' and '.join(parts)}, drawn once for all losses" if parts else ""


def _published(facts: Card) -> str:
    """Return the scores that others published and whether ours can be compared with them; of scenes and the
    user's own data, nothing. Cards of old results have no word on it.
    """
    scores = [
        f"{item['metric']} {item['score']:.3g}, {item['of']} ({item['source']})"
        + ("" if item["comparable"] else f": not comparable, {item['why']}")
        for item in facts.get("published", [])
    ]
    if why := facts.get("unpublished"):
        return f"no published figure to compare with: {why}"
    return "; ".join(scores)


def _samples(samples: list[Card]) -> list[Card]:
    """Return pictures as the page embeds them, without those that are no base64 and could end the
    attribute.
    """
    # A results folder may come from anybody, and what it says goes into a page.
    kept = [s for s in samples if BASE64.fullmatch(s["png"])]
    return [
        {"src": f"data:image/png;base64,{s['png']}", "width": int(s["width"]), "height": int(s["height"])}
        for s in kept
    ]


def _histogram(title: str, values: list[float], unit: str) -> Card | None:
    """Return the bars of a histogram on a log axis, the ends of the axis and the count; None where there is
    nothing to see: no value, or all the same.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return None
    # Sizes span orders of magnitude: on a plain axis all but the largest would be one bar.
    width = math.log(high) - math.log(low)
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((math.log(value) - math.log(low)) / width * BINS))] += 1
    top = max(counts)
    bars = [{"x": 10 * i, "height": round(40 * n / top, 1), "count": n} for i, n in enumerate(counts)]
    ends = {"low": f"{low:.3g} {unit}", "high": f"{high:.3g} {unit}"}
    return {"title": title, "bars": bars, "n": len(values), **ends}
