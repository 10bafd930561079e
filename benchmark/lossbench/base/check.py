"""What ``lossbench check`` measured of a loss or a network: one row a fact, and the table that shows them."""

from __future__ import annotations

from dataclasses import dataclass


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
    for row in report.rows:
        table.add_row(row.test, marks[row.passed], escape(row.measured), escape(row.note))
    return table
