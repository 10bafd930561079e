"""Finds, draws and saves figures: SVG, PNG, the numbers as CSV and LaTeX, and the caption as text.

A figure is a decorated function in any module of this folder; report and command line then show it.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lossbench import figures
from lossbench.base.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TABLES = ("cells", "curves", "thresholds", "reliability", "recipes")

# What is written of each figure: to look at, to print, to compute with, to typeset, to read.
ENDINGS = (".svg", ".png", ".csv", ".tex", ".txt")

FAULT = "a fault in lossbench, please report it:"  # begins why a figure failed that could have been drawn


class NothingToDraw(Exception):
    """The tables do not hold what a figure shows; the text says what it needs, in a sentence."""


@dataclass(frozen=True)
class Drawn:
    """A drawing, its caption, a description for those who cannot see it, and the numbers it shows."""

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
    draw: Callable[..., tuple[Figure, pd.DataFrame, str, str] | tuple[Figure, pd.DataFrame, str, str, str]]


# Filled while modules are imported; read only through entries(), which imports them all.
_entries: dict[str, Entry] = {}


def figure(name: str, *, number: int, title: str, theory: bool = False) -> Callable[[Callable], Callable]:
    """Register a function from tables to (figure, data, caption, alternative text) and return it unchanged.

    A fifth value, where it is given, is the title: what these numbers say, in one sentence without a full
    stop. A ``theory`` figure takes no tables. The function raises NothingToDraw when the tables are not
    enough.
    """

    def keep(function: Callable) -> Callable:
        _entries[name] = Entry(name, number, title, theory, function)
        return function

    return keep


def entries() -> dict[str, Entry]:
    """Return every figure of this folder by name, in the order of their numbers."""
    # Importing a module registers its figures, so that a new file is all that a new figure takes.
    for module in pkgutil.iter_modules(figures.__path__):
        importlib.import_module(f"{figures.__name__}.{module.name}")
    return dict(sorted(_entries.items(), key=lambda item: item[1].number))


def draw(name: str, tables: Mapping[str, pd.DataFrame]) -> Drawn:
    """Draw one figure; raises NothingToDraw when the tables are not enough, UserError for an unknown name."""
    from lossbench.figures import style

    known = entries()
    if name not in known:
        raise UserError(f"there is no figure '{name}'{nearest(name, known)}")
    entry = known[name]
    # The name is the salt: ids inside the SVG stay the same from run to run, and differ between figures.
    with style.applied(name):
        drawing, data, caption, alt, *finding = entry.draw() if entry.theory else entry.draw(tables)
        _as_written(drawing)
        # Laid out once and then fixed: each further layout would cost time and move things by a hair.
        drawing.draw_without_rendering()
        drawing.set_layout_engine(None)
        buffer = io.BytesIO()
        # No date and no program: the same tables give the same bytes.
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode()
    # What the numbers say makes a better title than what is drawn.
    title = finding[0] if finding else entry.title
    return Drawn(name, entry.number, title, caption, alt, drawing, data, svg)


def _as_written(drawing: Figure) -> None:
    """Take dollar signs as themselves, since a label is the user's: only logarithmic axes write formulas."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    for text in drawing.findobj(Text):
        text.set_parse_math(False)
    for axis in (axis for axes in drawing.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                tick.label1.set_parse_math(True)


def save(drawn: Drawn, folder: Path) -> list[Path]:
    """Write NAME.svg, .png, .csv, .tex (its table) and .txt (the caption) into the folder; return them."""
    from lossbench.figures import style
    from lossbench.tables.files import write_csv, write_latex

    svg, png, csv, tex, text = paths = [folder / f"{drawn.name}{ending}" for ending in ENDINGS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        svg.write_text(drawn.svg, encoding="utf-8")
        # Fonts are looked up while the PNG is written, so the style applies here too.
        with style.applied(drawn.name):
            drawn.figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
        write_csv(drawn.data, csv)
        write_latex(drawn.data, tex)
        text.write_text(f"Figure {drawn.number}. {drawn.title}. {drawn.caption}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the figures to {folder}: {error.strerror or error}") from None
    return paths


def remove(names: Iterable[str], folder: Path) -> None:
    """Delete these figures from the folder: what an earlier report drew of fewer records holds no longer."""
    try:
        for file in (folder / f"{name}{ending}" for name in names for ending in ENDINGS):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot delete figures in {folder}: {error.strerror or error}") from None


def draw_everything(
    tables: Mapping[str, pd.DataFrame], names: Iterable[str] = ()
) -> tuple[list[Drawn], dict[str, str]]:
    """Return the figures that the tables allow, and for each of the others why it was not drawn."""
    drawn, skipped = [], {}
    # A figure without cells is no error: the report says what it needs.
    for name in names or entries():
        try:
            drawn.append(draw(name, tables))
        except NothingToDraw as reason:
            skipped[name] = str(reason)
        except Exception as error:  # a fault of ours must not take the verdicts along
            skipped[name] = f"{FAULT} {type(error).__name__}: {error}"
    return drawn, skipped


def draw_all(results: str | Path = "results") -> list[Path]:
    """Draw every figure from the tables of a results folder into its folder ``figures``; return the paths.

    UserError where one failed, after all others are written."""
    from lossbench.tables.files import stored

    drawn, skipped = draw_everything(stored(results, TABLES))
    paths = [path for item in drawn for path in save(item, Path(results) / "figures")]
    faults = [f"figure '{name}': {why}" for name, why in skipped.items() if why.startswith(FAULT)]
    if faults:
        raise UserError("; ".join(faults))
    return paths
