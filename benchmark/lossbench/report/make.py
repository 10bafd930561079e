"""The single offline HTML file that answers: verdicts first, then figures, leaderboards, effects, collapses,
what is missing, provenance.

Nothing is computed here: every number comes from a table of ``lossbench.analysis`` and is only put into words
and shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base import files
from lossbench.base import files as strictjson
from lossbench.base.errors import UserError
from lossbench.store import note as notes
from lossbench.store.note import Note
from lossbench.tables.make import write_tables

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers
    from lossbench.figures.drawing import Drawn


@dataclass(frozen=True)
class Made:
    """What ``make`` wrote: the report, all files, and the lines that the command line prints."""

    path: Path
    files: tuple[Path, ...]
    lines: tuple[str, ...]


def make(
    results: str | Path = "results",
    note: Note | None = None,
    *,
    claims: str | Path | None = None,
    images: bool = True,
) -> Made:
    """Write derived tables, figures and ``report.html`` from the tables of a results folder; trains nothing,
    needs no torch.

    ``note`` is what the sweep noted about its experiment, where there is one. ``images=False`` leaves out
    pictures of data that are not generated. Raises UserError when there are no tables.
    """
    from lossbench.analysis.answers import answer
    from lossbench.analysis.claims import read_claims
    from lossbench.figures import drawing
    from lossbench.tables.files import TABLES, stored, write_csv

    results = Path(results)
    tables = stored(results, [name for name in TABLES if name != "images"])
    meta = _meta(note, results, tables.get("datasets"), images)
    answers = answer(tables, read_claims(claims))
    try:
        files = [
            write_csv(frame, results / "tables" / f"{name}.csv")
            for name, frame in sorted(answers.tables.items())
        ]
    except OSError as error:
        raise UserError(f"cannot write to {results / 'tables'}: {error.strerror or error}") from None
    drawn, skipped = drawing.draw_everything(tables)
    for item in drawn:
        files += drawing.save(item, results / "figures")
    meta |= {"not_drawn": skipped, "changes": compare(results / "tables", tables["cells"], answers)}
    report = build(tables, answers, drawn, results / "report.html", meta)
    lines = [f"figures  {len(drawn)} in {results / 'figures'}"] if drawn else []
    return Made(report, (*files, report), (*lines, *_lines(answers)))


def _meta(note: Note | None, results: Path, datasets: pd.DataFrame | None, images: bool) -> dict[str, Any]:
    from lossbench.report import cards

    if note is None:
        return {}
    generated = () if datasets is None else set(datasets.loc[datasets["family"] == "synthetic", "dataset"])
    return {
        "title": note.title,
        "experiment": note.name,
        "skipped": list(note.skipped),
        "verified": _verified(results),
        "cards": cards.read(results, note.cards, generated, images),
        "planned": len(note.cells),
        "command": f"lossbench sweep {note.name}",
    }


def _verified(results: Path) -> str:
    """Return what ``lossbench verify`` found, in its own sentence; empty where there is none."""
    try:
        says = strictjson.read(results / "verified.json")["says"]
        return says if isinstance(says, str) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def build(
    tables: Mapping[str, pd.DataFrame],
    answers: Answers,
    figures: Iterable[Drawn],
    out: str | Path,
    meta: Mapping[str, Any],
) -> Path:
    """Write the report to ``out`` and return its path; equal input gives equal bytes.

    ``meta`` may hold ``title``, ``experiment`` (name), ``skipped`` (sentences about data sets left out),
    ``planned`` (number of cells), ``command`` (what trains them), ``cards`` (of the data), ``verified`` (a
    sentence), ``changes`` (sentences) and ``not_drawn`` (name of a figure -> why).
    """
    import jinja2

    from lossbench.report import context

    here = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    facts = context.gather(tables, answers, list(figures), meta)
    style, *scripts = (
        (here / name).read_text(encoding="utf-8") for name in ("style.css", "script.js", "tables.js")
    )
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


# --- What changed since the report before: verdicts and leaders are noted in a small file beside the
# tables, and compared.

FILE = "last_report.json"


def compare(folder: Path, cells: pd.DataFrame, answers: Answers) -> list[str]:
    """Return sentences about what differs from the report before, and note the state of this one in
    ``folder``.

    A report made again from the same cells keeps what it was compared with, so that equal tables give equal
    reports."""
    now = _state(cells, answers)
    before = None
    try:
        old = files.read(folder / FILE)
        before = old["before"] if old["now"]["mark"] == now["mark"] else old["now"]
        says = _differences(before, now) if before else ["This is the first report from this folder"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before, says = None, ["This is the first report from this folder"]
    try:
        text = json.dumps({"now": now, "before": before}, indent=1, ensure_ascii=False, sort_keys=True)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    return says


def _state(cells: pd.DataFrame, answers: Answers) -> dict[str, Any]:
    board = answers.tables["leaderboard"]
    first = board[board["place"] == 1] if len(board) else board
    mark = "\n".join(
        [answers.claims.digest, *sorted(cells["key"].astype(str) + cells["loss_fingerprint"].astype(str))]
    )
    return {
        "mark": hashlib.sha256(mark.encode()).hexdigest()[:16],
        "cells": len(cells),
        "claims": answers.claims.digest,
        "verdicts": {verdict.claim.id: verdict.verdict for verdict in answers.verdicts},
        "leaders": {
            f"{label} ({recipe})": loss
            for label, recipe, loss in first.reindex(columns=["data_label", "recipe", "loss_label"]).values
        },
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    says = [f"{new['cells']} cells instead of {old['cells']}"] if new["cells"] != old["cells"] else []
    if new["claims"] != old["claims"]:
        says.append(f"The file of claims is another one (sha256 {old['claims']}, now {new['claims']})")
    for name, verdict in new["verdicts"].items():
        was = old["verdicts"].get(name)
        if was != verdict:
            says.append(f"{name}: {verdict}, was {was}" if was else f"{name} is new: {verdict}")
    says += [
        f"{name} is gone: was {was}" for name, was in old["verdicts"].items() if name not in new["verdicts"]
    ]
    for name, loss in new["leaders"].items():
        was = old["leaders"].get(name)
        if was != loss:
            says.append(f"{name}: {loss} leads, was {was}" if was else f"{name} is new: {loss} leads")
    return says or ["No verdict and no leader changed"]


# --- From records to answers: tables, verdicts, figures and the report of the experiment that a results
# folder speaks of; never torch.


@dataclass(frozen=True)
class MadeAll:
    """Where the report is, and the lines that the command line prints."""

    report: Path
    lines: list[str]


def make_all(results: Path, images: bool = True) -> MadeAll:
    """Write tables (where there are records), figures and report; without records the stored tables are used
    as they are.

    ``images=False`` leaves out of the report the pictures of data that are not generated.
    """
    from lossbench.store.store import Store

    note, recorded = notes.read(results), Store(results).exists()
    lines = []
    if note is not None and recorded:
        lines.append(write_tables(results, note))
    elif recorded and not (results / "tables" / "cells.parquet").is_file():
        raise UserError(
            f"{results} holds records, but not which experiment they belong to; 'lossbench sweep "
            f"EXPERIMENT --results {results}' says it"
        )
    elif not (results / "tables" / "cells.parquet").is_file():
        raise UserError(
            f"{results} holds neither records nor tables; 'lossbench sweep --results {results}' makes them"
        )
    made = make(results, note, images=images)
    lines += made.lines
    lines.append(f"report   {made.path}")
    return MadeAll(made.path, lines)
