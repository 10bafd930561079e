"""The contract of a loss on the user's machine: what ``lossbench check`` runs on a spec, a preset or a file.

Whatever a loss does, exceptions and NaN included, becomes a row; only a spec that cannot be read raises UserError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.losses.contract import TESTS, Row, Subject, Unsuitable, sentence
from benchmark.registry import get_loss, parse_loss


@dataclass(frozen=True)
class Report:
    """The rows of one loss; it passes unless a row failed."""

    spec: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed is not False for row in self.rows)


def run(spec_text: str, extra_files: Iterable[str | Path] = ()) -> Report:
    """Test the loss that a spec names, from ``extra_files`` too; UserError for a spec that cannot be read."""
    extra_files = tuple(extra_files)
    spec = parse_loss(spec_text, extra_files)
    native = [term.entry for term in spec.terms if term.entry is not None]
    claims = [None if t.given else t.entry.meta.get("penalises_empty") for t in spec.terms if t.entry]  # made for the defaults
    subject = Subject(
        spec.text,
        get_loss(spec, extra_files),
        spec.needs,
        takes_void=all("ignore_index" in entry.params for entry in native),
        claims_empty=any(claims) if claims and None not in claims else None,
    )
    state = torch.get_rng_state()
    rows: list[Row] = []
    for test in TESTS:
        torch.manual_seed(0)
        rows.extend(_guarded(test, subject))
        if test is TESTS[0] and rows[-1].passed is False:
            break  # without a scalar that depends on the logits every other row would say the same
    torch.set_rng_state(state)
    return Report(spec.text, tuple(rows))


def check(spec_text: str, extra_files: Iterable[str | Path] = ()) -> list[Row]:
    """Return the rows of :func:`run`."""
    return list(run(spec_text, extra_files).rows)


def render(report: Report):
    """Return a rich table of the report."""
    from rich.markup import escape
    from rich.table import Table

    marks = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "[dim]-[/]"}
    verdict = "[green]passes[/]" if report.passed else "[red]fails[/]"
    table = Table(title=f"{escape(report.spec)}  {verdict}", title_justify="left")
    for name in ("test", "", "measured", "note"):
        table.add_column(name, overflow="fold")
    for row in report.rows:
        table.add_row(row.test, marks[row.passed], escape(row.measured), escape(row.note))
    return table


def _guarded(test: Callable[[Subject], Iterable[Row]], subject: Subject) -> list[Row]:
    """Run one test; an exception of the loss becomes a row."""
    name = (test.__doc__ or test.__name__).split("\n")[0].rstrip(".")
    try:
        return list(test(subject))
    except Unsuitable as error:
        return [Row(name, None, "does not apply", str(error))]
    except Exception as error:  # a user's loss may raise anything
        return [Row(name, False, type(error).__name__, sentence(error))]
