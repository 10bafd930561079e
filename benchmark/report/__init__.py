"""The single offline HTML file that answers: verdicts first, then figures, leaderboards, effects, collapses, what is
missing, provenance.

Nothing is computed here: every number comes from a table of ``benchmark.analysis`` and is only put into words and
shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.answers import Answers
    from benchmark.figures import Drawn


@dataclass(frozen=True)
class Made:
    """What ``make`` wrote: the report, all files, and the lines that the command line prints."""

    path: Path
    files: tuple[Path, ...]
    lines: tuple[str, ...]


def make(results: str | Path = "results", note: Mapping[str, Any] | None = None, *, claims: str | Path | None = None) -> Made:
    """Write derived tables, figures and ``report.html`` from the tables of a results folder; trains nothing, needs no
    torch.

    ``note`` is what the sweep noted about its experiment (``name``, ``title``, ``file``, ``cells``, ``skipped``), where
    there is one. Raises UserError when there are no tables.
    """
    from benchmark import figures
    from benchmark.analysis.answers import answer
    from benchmark.analysis.claims import read_claims
    from benchmark.analysis.tables import TABLES, load_table, write_csv

    results = Path(results)
    tables = {name: load_table(results, name) for name in TABLES if name != "images"}
    answers = answer(tables, read_claims(claims))
    try:
        files = [write_csv(frame, results / "tables" / f"{name}.csv") for name, frame in sorted(answers.tables.items())]
    except OSError as error:
        raise UserError(f"cannot write to {results / 'tables'}: {error.strerror or error}") from None
    drawn, skipped = figures.draw_everything(tables)
    for item in drawn:
        files += figures.save(item, results / "figures")
    report = build(tables, answers, drawn, results / "report.html", {**_meta(note, results), "not_drawn": skipped})
    lines = [f"figures  {len(drawn)} in {results / 'figures'}"] if drawn else []
    return Made(report, (*files, report), (*lines, *_lines(answers)))


def _meta(note: Mapping[str, Any] | None, results: Path) -> dict[str, Any]:
    from benchmark.report import datacards

    if not note:
        return {}
    meta = {"title": note.get("title"), "experiment": note.get("name"), "skipped": list(note.get("skipped", ()))}
    meta["verified"] = _verified(results)
    meta["cards"] = datacards.read(results, note.get("cards", {}))
    if "cells" in note:
        meta["planned"] = len(note["cells"])
    if note.get("name"):
        meta["command"] = f"lossbench sweep {note['name']}"
    return meta


def _verified(results: Path) -> str:
    """Return the certificate of ``lossbench verify`` in one sentence; empty where there is none."""
    try:
        found = json.loads((results / "verified.json").read_text(encoding="utf-8"))
        bad = sum(not row["passed"] for row in found["cells"])
        exact = sum(row["exact"] and row["passed"] for row in found["cells"])
        verdict = f"{bad} differed from their records" if bad else "all gave what is recorded"
        return f"Verified: {found['sample']} of {found['of']} cells were trained again; {verdict}, {exact} of them bit for bit."
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def build(tables: Mapping[str, pd.DataFrame], answers: Answers, figures: Iterable[Drawn], out: str | Path, meta: Mapping[str, Any]) -> Path:
    """Write the report to ``out`` and return its path; equal input gives equal bytes.

    ``meta`` may hold ``title``, ``experiment`` (name), ``skipped`` (sentences about data sets left out), ``planned``
    (number of cells), ``command`` (what trains them), ``cards`` (of the data), ``verified`` (a sentence) and ``not_drawn`` (name of a figure -> why).
    """
    import jinja2

    from benchmark.report import context

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    facts = context.gather(tables, answers, list(figures), meta)
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    text = environment.get_template("report.html.j2").render(**facts, style=style, script=script)
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from None
    return out


def _lines(answers: Answers) -> list[str]:
    return [f"{v.claim.id:4} {v.verdict:13} {v.claim.title}" for v in answers.verdicts]
