"""Drawings inside the report: figures that follow the reader's light or dark theme, and the small interval
glyphs of the tables.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from lossbench.base import columns
from lossbench.figures import style
from lossbench.report import words

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.report.rows import Labels


def inline(svg: str, name: str, alt: str) -> str:
    """Return an SVG as part of the page: no header, ids of its own, colours from the theme, described for
    screen readers.
    """
    from markupsafe import Markup, escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r' (xmlns:xlink|version)="[^"]*"', "", body)
    for value, variable in _variables().items():
        body = body.replace(value, f"var(--{variable})")
    body = re.sub(r'<svg\b[^>]*viewBox="([^"]+)"[^>]*>', lambda m: _opening(m, escape(alt)), body, count=1)
    # The one size that matters is the width of the page.
    return Markup(body)


def _opening(match: re.Match, alt: str) -> str:
    return f'<svg viewBox="{match[1]}" role="img" aria-label="{alt}" xmlns="http://www.w3.org/2000/svg">'


def _variables() -> dict[str, str]:
    fixed = {style.INK: "ink", style.SOFT: "soft", style.RULE: "rule", style.PAPER: "paper"}
    return (
        fixed
        | {pair[0]: f"family-{name}" for name, pair in style.FAMILIES.items()}
        | {style.OTHER[0]: "family-other"}
    )


def family_colours(dark: bool) -> str:
    """Return the CSS variables of the family colours for one theme."""
    pairs = {**style.FAMILIES, "other": style.OTHER}
    return " ".join(f"--family-{name}: {pair[int(dark)]};" for name, pair in pairs.items())


def data_link(text: str) -> str:
    """Return a text as a link that downloads it, so that the numbers behind a figure travel with the page."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()


def glyph(estimate: float, low: float, high: float, margin: float, width: int = 150) -> dict | None:
    """Return the places (in pixels) of an interval, its estimate and the zone that is too small to matter,
    zero in the middle.
    """
    values = [v for v in (estimate, low, high) if v == v]
    if estimate != estimate:
        return None
    reach = max([abs(v) for v in values] + [1.6 * margin]) * 1.06
    at = lambda v: round(width / 2 * (1 + v / reach), 1)  # noqa: E731
    known = low == low and high == high
    return {
        "width": width,
        "zero": at(0),
        "zone": at(-margin),
        "zone_width": round(at(margin) - at(-margin), 1),
        "low": at(low) if known else None,
        "high": at(high) if known else None,
        "at": at(estimate),
    }


# --- The single cells behind every number, as one compact block of JSON that the page turns into a table
# when asked.

# A page stays below 10 MB: a cell takes some 100 bytes, its curve some 60.
CURVES_UP_TO, CELLS_UP_TO = 6_000, 30_000

POINTS = 12  # of a curve at most

SHOWN = (
    "dataset",
    "recipe",
    "loss",
    "seed",
    "outcome",
    "collapse",
    "seconds",
    "commit",
    "dirty",
    "device",
    "key",
)

METRICS = ("dice@0.5", "dice@val", "size_ratio_hard@0.5", "size_ratio_soft", "nll")


def variants(cells: pd.DataFrame, labels: Labels) -> dict[str, Any]:
    """Return the number of each (data set, recipe) and of each loss, by which links name them, with their
    labels.
    """
    pairs = list(dict.fromkeys(zip(cells["dataset"], cells["recipe"], strict=True)))
    losses = cells.drop_duplicates("loss").sort_values("loss_label", kind="stable")
    return {
        "variants": {pair: number for number, pair in enumerate(pairs)},
        "losses": {loss: number for number, loss in enumerate(losses["loss"])},
        "variant_labels": [labels[pair] for pair in pairs],
        "loss_labels": list(losses["loss_label"]),
    }


def data(cells: pd.DataFrame, curves: pd.DataFrame | None, ids: dict[str, Any]) -> dict[str, Any]:
    """Return the block: shared names once, then one short row a cell; ``says`` tells what was left out of a
    large study.
    """
    if len(cells) > CELLS_UP_TO:
        return {
            "rows": [],
            "says": (
                f"This study holds {len(cells)} cells, too many for a page; each is a row of "
                "tables/cells.csv."
            ),
        }
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
    says = (
        f"Curves are left out of a study of {len(cells)} cells; they stand in tables/curves.parquet."
        if left_out
        else ""
    )
    return {
        "metrics": [columns.title(name) for name in metrics],
        "origins": [
            f"{commit}{' with changes' if dirty else ''}, {device}" for commit, dirty, device in origins
        ],
        "variants": ids["variant_labels"],
        "losses": ids["loss_labels"],
        "rows": rows,
        "says": says,
    }


def block(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element: no character can end the element or begin
    another.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


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
        found[keys[start]] = " ".join(
            f"{60 * steps[i] / last:.0f},{20 - 20 * min(max(values[i], 0), 1):.0f}" for i in chosen
        )
        start = end
    return found


def _float(value: Any) -> float:
    return float(value) if value is not None else float("nan")
