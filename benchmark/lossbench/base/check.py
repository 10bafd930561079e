"""What ``lossbench check`` measured of a loss or a network: one row a fact, and the table that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """One measured fact; ``passed`` is None where a test does not apply or only reports."""

    test: str
    passed: bool | None
    measured: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The rows of one loss or network; it passes unless a row failed."""

    spec: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        # None is no verdict.
        return all(row.passed is not False for row in self.rows)


def render(report: Report):
    """Return a rich table of the report."""
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "[dim]-[/]"}
    verdict = "[green]passes[/]" if report.passed else "[red]fails[/]"
    # Specs hold brackets, as in unet(widths=[8, 16]), which rich would take for markup.
    table = Table(title=f"{escape(report.spec)}  {verdict}", title_justify="left")
    for name in ("test", "", "measured", "note"):
        table.add_column(name, overflow="fold")
    for row in _once(report.rows):
        table.add_row(row.test, marks[row.passed], escape(row.measured), escape(row.note))
    return table


def _once(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with one for all tests in which the same line raised the same kind of error."""
    shown: dict[object, list[Row]] = {}
    for row in rows:
        # "no such label (my_loss.py:12)": the text may differ, as by a shape.
        line = re.search(r"\(\S+:\d+\)$", row.note)
        kind = (row.measured, line[0]) if row.passed is False and line else id(row)
        shown.setdefault(kind, []).append(row)
    return [_joined(*alike) for alike in shown.values()]


def _joined(first: Row, *more: Row) -> Row:
    if not more:
        return first
    others = ", ".join(row.test for row in more)
    return replace(first, note=f"{first.note}; the same in {len(more)} more tests: {others}")
