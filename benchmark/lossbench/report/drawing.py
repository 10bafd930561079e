"""Drawings inside the report: figures that follow the reader's light or dark theme, and the small interval
glyphs of the tables.
"""

from __future__ import annotations

import base64
import math
import re

from lossbench.base import words
from lossbench.figures import style


def inline(svg: str, name: str, alt: str) -> str:
    """Return an SVG as part of the page: no header, ids of its own, colours from the theme, described for
    screen readers.
    """
    from markupsafe import Markup, escape

    # Several figures stand on one page, so that each needs ids of its own.
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r' (xmlns:xlink|version)="[^"]*"', "", body)
    # Colours by name: a reader may prefer dark pages, and print is light.
    for value, variable in _variables().items():
        body = body.replace(value, f"var(--{variable})")
    # A hyphen is no minus.
    told = escape(re.sub(r"(?<![\w.-])-(?=\.?\d)", words.MINUS, alt))
    body = re.sub(r'<svg\b[^>]*viewBox="([^"]+)"[^>]*>', lambda m: _opening(m, told), body, count=1)
    # The one size that matters is the width of the page.
    return Markup(body)


def _opening(match: re.Match, alt: str) -> str:
    return f'<svg viewBox="{match[1]}" role="img" aria-label="{alt}" xmlns="http://www.w3.org/2000/svg">'


def _variables() -> dict[str, str]:
    fixed = {style.INK: "ink", style.SOFT: "soft", style.RULE: "rule", style.PAPER: "paper"}
    families = {**style.FAMILIES, "other": style.OTHER}
    return fixed | {light: f"family-{name}" for name, (light, _) in families.items()}


def family_colours(dark: bool) -> str:
    """Return the CSS variables of the family colours for one theme."""
    pairs = {**style.FAMILIES, "other": style.OTHER}
    return " ".join(f"--family-{name}: {pair[int(dark)]};" for name, pair in pairs.items())


def data_link(text: str) -> str:
    """Return a text as a link that downloads it, so that the numbers behind a figure travel with the page."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()


def glyph(
    estimate: float, low: float, high: float, margin: float, middle: float = 0, width: int = 150
) -> dict | None:
    """Return the places (in pixels) of an interval, its estimate and the zone around the middle that is too
    small to matter.
    """
    estimate, low, high = (value - middle for value in (estimate, low, high))
    known = math.isfinite(low) and math.isfinite(high)
    values = (estimate, low, high) if known else (estimate,)
    if estimate != estimate:
        return None
    # The zone of what is too small to matter always fits, with room beside it.
    reach = max([abs(v) for v in values] + [1.6 * margin]) * 1.06
    at = lambda v: round(width / 2 * (1 + v / reach), 1)  # noqa: E731
    return {
        "width": width,
        "zero": at(0),
        "zone": at(-margin),
        "zone_width": round(at(margin) - at(-margin), 1),
        "low": at(low) if known else None,
        "high": at(high) if known else None,
        "at": at(estimate),
    }
