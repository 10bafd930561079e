"""How numbers are written, on the page and in the sentences of the analysis."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lossbench.base.columns import DISTANCE, FACTOR, POINTS, describe

MINUS = "−"

Labels = Mapping[tuple[str, str], str]  # (data set, recipe) -> how the variant is called


def effect(value: float, kind: str) -> str:
    """Return a difference in words of its kind: +8.5 (points), ×1.60 (factor), +0.012 (plain)."""
    if missing(value):
        return "–"
    # A ratio of sizes that is beyond all bounds is said to be so, not written out.
    if kind == FACTOR:
        return f"×{_factor(math.exp(min(value, 99)))}"
    if kind == POINTS:
        return signed(100 * value, 1 if abs(value) >= 0.01 else 2)
    return signed(value, 3)


def interval(low: float, high: float, kind: str) -> str:
    """Return [low, high] in words of its kind, without the signs that the estimate carries."""
    if missing(low) or missing(high):
        return "no interval"
    if math.isinf(low) and math.isinf(high):
        return "unbounded"  # so few seeds that no outcome rules any value out
    if kind == POINTS:
        # Both ends with the same digits, or they could not be compared.
        digits = 1 if max(abs(low), abs(high)) >= 0.01 else 2
        return f"[{signed(100 * low, digits)}, {signed(100 * high, digits)}]"
    return f"[{effect(low, kind).lstrip('×')}, {effect(high, kind).lstrip('×')}]"


def level(text: str, null: float | None) -> str:
    """Return an effect or its interval without plus signs where it is tested against one: then it is a
    ratio, and no difference.
    """
    return text.replace("+", "") if null == 1 else text


def _factor(ratio: float) -> str:
    """Return a ratio with three digits; beyond a thousand either way only that it is beyond."""
    if 1e-3 <= ratio < 999.5:
        return significant(ratio, 3)
    return "<0.001" if ratio < 1 else ">999"


def unit(kind: str) -> str:
    """Return the unit that follows an effect."""
    return "points" if kind == POINTS else ""


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, a true minus, and no sign on a zero."""
    # A hyphen is no minus, and −0.0 is a zero.
    text = "∞" if math.isinf(value) else f"{abs(value):.{digits}f}"
    if text != "∞" and float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed count of decimals, or a dash."""
    return "–" if missing(value) else f"{value:.{digits}f}".replace("-", MINUS)


def bounds(low: float, high: float) -> str:
    """Return the interval of a mean; one seed has none."""
    return "one seed" if missing(low) else f"[{number(low)}, {number(high)}]"


def count(value: float) -> str:
    """Return a whole number, or a dash; a table with gaps holds counts as floats."""
    return "–" if missing(value) else f"{value:.0f}"


def resolved(low: float, high: float) -> bool:
    """Return whether an interval excludes zero."""
    return not missing(low) and (low > 0 or high < 0)


def value(amount: float, column: str) -> str:
    """Return a value of a column with the decimals of its format: distances have one."""
    return number(amount, 1 if describe(column).format == DISTANCE else 3)


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in powers of ten between .001 and 10,000."""
    if missing(value):
        return "–"
    if value == 0:
        return "0"
    # Powers of ten are hard to read beside plain numbers, but better than rows of zeros.
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}".replace("-", MINUS)


def p_value(value: float) -> str:
    """Return a p-value as it is printed: <.001, .012, 1."""
    if missing(value):
        return "–"
    if value < 0.001:  # how much smaller is a matter of the number of seeds
        return "<.001"
    return "1" if value > 0.9995 else f"{value:.3f}".lstrip("0")


def percent(value: float, digits: int = 3) -> str:
    """Return a fraction in percent."""
    return "–" if missing(value) else f"{significant(100 * value, digits)} %"


def share(value: float) -> str:
    """Return a fraction in whole percent."""
    return f"{100 * value:.0f} %"


def duration(seconds: float) -> str:
    """Return seconds in the unit a person would use."""
    if missing(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plainest(label: str) -> tuple[int, list[tuple[float, str]]]:
    """Return a key that sorts labels of variants: fewest clauses first, and numbers by value."""
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", label)
    # A number before a word, so that both can be compared in one place.
    return label.count(","), [(float(part), "") if part[0].isdigit() else (math.inf, part) for part in parts]


def plainest_first(rows: Iterable[dict[str, Any]], label: str = "data_label") -> list[dict[str, Any]]:
    """Return rows by data set, in the order in which data sets come, of each the plainest ``label`` first."""
    rows = list(rows)
    rank = {dataset: place for place, dataset in enumerate(dict.fromkeys(row["dataset"] for row in rows))}
    return sorted(rows, key=lambda row: (rank[row["dataset"]], plainest(row[label])))


def missing(value: float | None) -> bool:
    """Return whether there is no number here."""
    # Tables from disk hold None in columns of words and nan in columns of numbers.
    return value is None or (isinstance(value, float) and math.isnan(value))
