"""The single offline HTML file that answers: verdicts first, then figures, leaderboards, effects, collapses, what is
missing, provenance.

Nothing is computed here: every number comes from a table of ``benchmark.analysis`` and is only put into words and
shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import strictjson
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


def make(
    results: str | Path = "results", note: Mapping[str, Any] | None = None, *, claims: str | Path | None = None, images: bool = True
) -> Made:
    """Write derived tables, figures and ``report.html`` from the tables of a results folder; trains nothing, needs no
    torch.

    ``note`` is what the sweep noted about its experiment (``name``, ``title``, ``file``, ``cells``, ``skipped``, ``images``), where
    there is one. ``images=False``, here or in the note, leaves out pictures of data that are not generated. Raises UserError when there
    are no tables.
    """
    from benchmark import figures
    from benchmark.analysis.answers import answer
    from benchmark.analysis.claims import read_claims
    from benchmark.analysis.tables import TABLES, stored, write_csv
    from benchmark.report import changes

    results = Path(results)
    tables = stored(results, [name for name in TABLES if name != "images"])
    meta = _meta(note, results, images)
    answers = answer(tables, read_claims(claims), [part.name for part in meta.get("parts", ()) if part.fixed])
    try:
        files = [write_csv(frame, results / "tables" / f"{name}.csv") for name, frame in sorted(answers.tables.items())]
    except OSError as error:
        raise UserError(f"cannot write to {results / 'tables'}: {error.strerror or error}") from None
    drawn, skipped = figures.draw_everything(tables)
    for item in drawn:
        files += figures.save(item, results / "figures")
    meta |= {"not_drawn": skipped, "changes": changes.compare(results / "tables", tables["cells"], answers)}
    report = build(tables, answers, drawn, results / "report.html", meta)
    lines = [f"figures  {len(drawn)} in {results / 'figures'}"] if drawn else []
    return Made(report, (*files, report), (*lines, *_lines(answers)))


def _meta(note: Mapping[str, Any] | None, results: Path, images: bool) -> dict[str, Any]:
    from benchmark.report import datacards, parts

    if not note:
        return {}
    meta = {"title": note.get("title"), "experiment": note.get("name"), "skipped": list(note.get("skipped", ()))}
    meta["verified"] = _verified(results)
    meta["cards"] = datacards.read(results, note.get("cards", {}), images and bool(note.get("images", True)))
    if "cells" in note:
        meta["planned"] = len(note["cells"])
    if note.get("name"):
        meta["command"] = f"lossbench sweep {note['name']}"
        meta["parts"] = parts.read(note["name"])
    return meta


def _verified(results: Path) -> str:
    """Return what ``lossbench verify`` found, in its own sentence; empty where there is none."""
    try:
        says = strictjson.read(results / "verified.json")["says"]
        return says if isinstance(says, str) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def build(tables: Mapping[str, pd.DataFrame], answers: Answers, figures: Iterable[Drawn], out: str | Path, meta: Mapping[str, Any]) -> Path:
    """Write the report to ``out`` and return its path; equal input gives equal bytes.

    ``meta`` may hold ``title``, ``experiment`` (name), ``skipped`` (sentences about data sets left out), ``planned``
    (number of cells), ``command`` (what trains them), ``parts`` (of the experiment), ``cards`` (of the data), ``verified`` (a sentence),
    ``changes`` (sentences) and ``not_drawn`` (name of a figure -> why).
    """
    import jinja2

    from benchmark.report import context

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    facts = context.gather(tables, answers, list(figures), meta)
    style, *scripts = ((here / name).read_text(encoding="utf-8") for name in ("style.css", "script.js", "tables.js"))
    text = environment.get_template("report.html.j2").render(**facts, style=style, script="".join(scripts))
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from None
    return out


def _lines(answers: Answers) -> list[str]:
    """Return one line a claim that these cells say something about, and one for all others."""
    told = [v for v in answers.verdicts if any(result.effect is not None for result in v.results)]
    lines = [f"{v.claim.id:4} {v.verdict:13} {v.claim.title}" for v in told]
    rest = len(answers.verdicts) - len(told)
    if rest:
        more = " more" if told else ""
        lines.append(f"claims   {rest}{more} need other cells; `lossbench sweep paper` trains them")
    return lines
