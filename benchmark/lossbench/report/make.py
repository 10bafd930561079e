"""From a results folder to its report: tables (where there are records), answers, figures, the page; never
torch.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lossbench.base import files, words
from lossbench.base.errors import UserError, typed
from lossbench.report import changes, data_cards, summary
from lossbench.report.page import About, build
from lossbench.store import note as notes
from lossbench.store.note import Note
from lossbench.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers


LISTED = 60  # rows of leaderboards that a screen holds; more stand in the report alone


@dataclass(frozen=True)
class Made:
    """Where the report is, and the lines that the command line prints."""

    report: Path
    lines: tuple[str, ...]


def make(results: str | Path = "results", *, claims: str | Path | None = None, images: bool = True) -> Made:
    """Write tables, figures and ``report.html`` of a results folder; trains nothing, needs no torch.

    Without records the stored tables are used as they are. ``images=False`` leaves out pictures of data that
    are not generated. UserError where there is neither, and where something cannot be written.
    """
    # Late: pandas and matplotlib take a second that a refusal should not.
    from lossbench.analysis.answers import answer
    from lossbench.analysis.claims import find_claims, read_claims
    from lossbench.figures import drawing
    from lossbench.tables.files import TABLES, stored

    results = Path(results)
    note = notes.read(results)
    lines = _tables(results, note)
    # The table of images is the largest by far, and no answer is made from it.
    tables = stored(results, [name for name in TABLES if name != "images"])
    answers = answer(tables, read_claims(claims) if claims else find_claims(results))
    # Every number of the page also stands in a file.
    _write_answers(results / "tables", answers)
    # A figure that cannot be drawn is named on the page with its reason, and stops nothing.
    drawn, skipped = drawing.draw_everything(tables)
    for item in drawn:
        drawing.save(item, results / "figures")
    drawing.remove(skipped, results / "figures")
    # Nobody's own data were made to test the claims of the study.
    judged = bool(claims) or (results / "claims.toml").is_file() or not summary.is_own(tables)
    about = replace(
        _about(results, note, tables, images),
        not_drawn=skipped,
        changes=changes.compare(results / "tables", tables["cells"], answers),
        judged=judged,
    )
    report = build(tables, answers, drawn, results / "report.html", about)
    lines += [f"figures  {len(drawn)} in {results / 'figures'}"] if drawn else []
    verdicts = _verdicts(answers) if judged else []
    lines += [*verdicts, *_boards(answers), *_learnt(answers), *_decided(answers), *_recommended(answers)]
    return Made(report, (*lines, f"report   {report}"))


def _tables(results: Path, note: Note | None) -> list[str]:
    """Bring the tables up to date with the records, where there are any; return the line that says so."""
    from lossbench.tables.make import write_tables

    recorded = Store(results).exists()
    # A study is passed on with its tables, with or without its records.
    if note is not None and recorded:
        return [write_tables(results, note)]
    # Tables alone are a study as well: records are large, and need not be passed on.
    if (results / "tables" / "cells.parquet").is_file():
        return []
    if recorded:
        why = f"{results} holds records, but not which experiment they belong to"
        raise UserError(f"{why}; '{typed('sweep', 'EXPERIMENT', '--results', results)}' says it")
    why = f"{results} holds neither records nor tables"
    raise UserError(f"{why}; '{typed('sweep', '--results', results)}' makes them")


def _write_answers(folder: Path, answers: Answers) -> None:
    from lossbench.tables import stamp
    from lossbench.tables.files import write_csv, write_latex

    written = []
    try:
        # A kill between two files must not leave new tables under an old stamp.
        stamp.unstamp_derived(folder)
        for name, frame in sorted(answers.tables.items()):
            written.append(write_csv(frame, folder / f"{name}.csv"))
            written.append(write_latex(frame, folder / f"{name}.tex"))
        stamp.stamp_derived(folder, written)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


def _about(results: Path, note: Note | None, tables: dict[str, pd.DataFrame], images: bool) -> About:
    if note is None:
        return About()
    sets = tables.get("datasets")
    # Whoever generated a scene may show it; a picture of a patient may not be passed on.
    generated = () if sets is None else set(sets.loc[sets["family"] == "synthetic", "dataset"])
    return About(
        title=note.title,
        experiment=note.name,
        skipped=tuple(note.skipped),
        planned=len(note.cells),
        verified=_verified(results),
        cards=tuple(data_cards.read(results, note.cards, generated, images)),
        errors=tuple(data_cards.errors(results)) if images else (),
    )


def _verified(results: Path) -> str:
    """Return what ``lossbench verify`` says of the folder, in its own sentence; empty where it never ran."""
    try:
        says = files.read(results / files.CERTIFICATE)["says"]
        return says if isinstance(says, str) else ""
    # A damaged certificate certifies nothing, which is no reason to refuse the report.
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _learnt(answers: Answers) -> list[str]:
    """Return what the last lines of a sweep say of its lengths: what was not learnt, and what is left of a
    lead.
    """
    table = answers.tables["learnt"]
    missed = table.loc[table["learnt"] == 0, "says"]
    return [f"length   {text}" for text in (*missed, *answers.tables["speeds"]["says"])]


def _boards(answers: Answers) -> list[str]:
    """Return one line a leaderboard of data for which no loss is recommended, as of scenes."""
    board, advised = answers.tables["leaderboard"], {own.dataset for own in answers.recommendations}
    board = board[~board["dataset"].isin(advised)]
    if len(board) > LISTED:
        return []
    boards: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in words.plainest_first(board.to_dict("records")):
        bad = f" ({row['collapsed']} of {row['n']} collapsed)" if row["collapsed"] else ""
        name = row["dataset"], row["recipe"], row["data_label"]
        boards[name].append(f"{row['loss_label']} {words.number(row['mean'])}{bad}")
    return [f"Dice     {label}: {', '.join(scores)}" for (_, _, label), scores in boards.items()]


def _decided(answers: Answers) -> list[str]:
    return [f"seeds    {text}" for text in summary.looks(answers.tables)]


def _recommended(answers: Answers) -> list[str]:
    """Return what a sweep ends with: of few data sets the whole answer, of many its first sentence."""
    from lossbench.analysis.recommendation import FEW_SETS, as_text

    own = answers.recommendations
    if len(own) > FEW_SETS:
        return [f"{each.label}: {each.says}" for each in own]
    return [line for each in own for line in ("", *as_text(each))]


def _verdicts(answers: Answers) -> list[str]:
    """Return one line a claim that these cells say something about, and one for all others."""
    # A folder speaks of a few claims; the others would fill the screen with "not testable".
    tested = [v for v in answers.verdicts if any(result.measured is not None for result in v.results)]
    lines = [f"{v.claim.id:4} {v.verdict:13} {v.claim.title}" for v in tested]
    others = [v.claim for v in answers.verdicts if v not in tested]
    if others:
        more = " more" if tested else ""
        commands = " and ".join(
            f"`lossbench sweep {name}`" for name in dict.fromkeys(c.experiment for c in others)
        )
        lines.append(f"claims   {len(others)}{more} need other cells; {commands} trains them")
    return lines
