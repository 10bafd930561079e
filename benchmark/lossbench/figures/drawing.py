"""Every figure of the study as a pure function from tables to a drawing; `draw_all` saves them as SVG, PNG
and CSV.

A figure is added by decorating a function in one of the modules below; report and command line then show it.
It returns a `Drawn`, or raises `NothingToDraw` with the sentence that says which cells it lacks."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lossbench.base.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TABLES = ("cells", "curves", "thresholds", "reliability")

MODULES = ("public", "theory", "objects", "gaps", "boards", "training", "uncertain", "fields")


class NothingToDraw(Exception):
    """The tables lack what a figure shows; the text says what, in a sentence for the report."""


@dataclass(frozen=True)
class Drawn:
    """A drawing with what belongs to it: its caption, a description for those who cannot see it, and the
    numbers it shows.
    """

    name: str
    number: int
    title: str
    caption: str
    alt: str
    figure: Figure
    data: pd.DataFrame
    svg: str


@dataclass(frozen=True)
class Entry:
    """A registered figure; ``theory`` marks those that need no table."""

    name: str
    number: int
    title: str
    theory: bool
    draw: Callable[..., tuple[Figure, pd.DataFrame, str, str]]


_entries: dict[str, Entry] = {}


def figure(name: str, *, number: int, title: str, theory: bool = False) -> Callable[[Callable], Callable]:
    """Register ``function(tables) -> (figure, data, what the caption says, alternative text)``; theory
    figures take no tables.
    """

    def keep(function: Callable) -> Callable:
        _entries[name] = Entry(name, number, title, theory, function)
        return function

    return keep


def entries() -> dict[str, Entry]:
    """Return every registered figure by name, in the order of their numbers."""
    for module in MODULES:
        importlib.import_module(f"lossbench.figures.{module}")
    return dict(sorted(_entries.items(), key=lambda item: (item[1].theory, item[1].number)))


def draw(name: str, tables: Mapping[str, pd.DataFrame]) -> Drawn:
    """Draw one figure; raises NothingToDraw when the tables lack what it shows."""
    from lossbench.figures import style

    known = entries()
    if name not in known:
        raise UserError(f"there is no figure '{name}'{nearest(name, known)}")
    entry = known[name]
    with style.applied(name):
        drawing, data, says, alt = entry.draw() if entry.theory else entry.draw(tables)
        # Laid out once and then fixed: every further layout would cost time and move things by a hair.
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Drawn(name, entry.number, entry.title, says, alt, drawing, data, buffer.getvalue().decode())


def save(drawn: Drawn, folder: Path) -> list[Path]:
    """Write NAME.svg, NAME.png, NAME.csv and NAME.txt (the caption) into the folder; returns their paths."""
    from lossbench.figures import style
    from lossbench.tables.compact import write_csv

    paths = [folder / f"{drawn.name}{end}" for end in (".svg", ".png", ".csv", ".txt")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(drawn.svg, encoding="utf-8")
        with style.applied(drawn.name):
            drawn.figure.savefig(paths[1], format="png", dpi=160, metadata={"Software": None})
        write_csv(drawn.data, paths[2])
        paths[3].write_text(f"Figure {drawn.number}. {drawn.title}. {drawn.caption}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the figures to {folder}: {error.strerror or error}") from None
    return paths


def draw_everything(
    tables: Mapping[str, pd.DataFrame], names: Iterable[str] = ()
) -> tuple[list[Drawn], dict[str, str]]:
    """Return the figures that the tables allow, and for each of the others why it was not drawn."""
    drawn, skipped = [], {}
    for name in names or entries():
        try:
            drawn.append(draw(name, tables))
        except NothingToDraw as reason:
            skipped[name] = str(reason)
    return drawn, skipped


def draw_all(results: str | Path = "results") -> list[Path]:
    """Draw every figure from the tables of a results folder into its folder ``figures``; returns the paths
    written.
    """
    from lossbench.tables.compact import stored

    tables = stored(results, TABLES)
    drawn, _ = draw_everything(tables)
    return [path for item in drawn for path in save(item, Path(results) / "figures")]
