"""Tables on disk: written atomically as Parquet, read back whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lossbench.base.errors import UserError, nearest, typed
from lossbench.tables.compact import LEADING, TRAILING
from lossbench.tables.stamp import is_changed

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("cells", "images", "curves", "thresholds", "reliability", "recipes", "origins")
# What the note says of the experiment, and scores by test group; older folders without records have none.
NOTED = ("parts", "losses", "datasets")
LATER = ("groups", "volumes", "references", "spellings", "looks", *NOTED)
# What a text begins with that a spreadsheet takes for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

# Tables that no record holds, and the command that makes each.
BESIDE = {"panel": "python -m tools.panel"}

# What a table must have, whoever wrote it.
COLUMNS = {
    "cells": tuple(name for name in (*LEADING, *TRAILING) if name != "loss_spellings"),
    "images": ("key",),
    "curves": ("key", "step"),
    "thresholds": ("key", "threshold"),
    "recipes": ("recipe",),
}


def write_tables(frames: dict[str, pd.DataFrame], folder: str | Path) -> list[Path]:
    """Write every frame as Parquet and ``cells`` also as CSV; equal frames give equal bytes. Returns the
    paths.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [_write_parquet(frame, folder / f"{name}.parquet") for name, frame in sorted(frames.items())]
        if "cells" in frames:
            paths.append(write_csv(frames["cells"], folder / "cells.csv"))
    except OSError as error:
        raise UserError(f"cannot write the tables to {folder}: {error.strerror or error}") from None
    return paths


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame as ``csv_text``."""
    return _atomically(path, lambda partial: partial.write_bytes(csv_text(frame).encode()))


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with six significant digits and Unix line ends, so that a change is a small diff.

    An apostrophe goes before a text that a spreadsheet would run as a formula; Parquet holds it as it is.
    """
    texts = frame.select_dtypes(exclude=["number", "bool", "datetime"])
    inert = {name: column.astype(object).map(_inert) for name, column in texts.items() if _runs(column)}
    return frame.assign(**inert).to_csv(index=False, float_format="%.6g", lineterminator="\n")


# Rows of a table in LaTeX; whoever prints more makes it from the CSV, which holds them all.
MOST_ROWS = 200

# What LaTeX would take for a command.
SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_latex(frame: pd.DataFrame, path: Path) -> Path:
    """Write the first rows of a frame as a LaTeX table (package booktabs), numbers to four digits."""
    return _atomically(path, lambda partial: partial.write_text(latex_text(frame), encoding="utf-8"))


def latex_text(frame: pd.DataFrame) -> str:
    """Return the first rows of a frame as a LaTeX table (package booktabs), numbers to four digits; a comment
    says how many there are.
    """
    numeric = set(frame.select_dtypes("number"))
    lines = [r"\begin{tabular}{" + "".join("r" if name in numeric else "l" for name in frame) + "}"]
    lines += [r"\toprule", _latex_row(frame.columns), r"\midrule"]
    lines += [_latex_row(row) for row in frame.head(MOST_ROWS).itertuples(index=False, name=None)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    more = f"% {MOST_ROWS} of {len(frame)} rows; the CSV file holds all\n" if len(frame) > MOST_ROWS else ""
    return more + "\n".join(lines) + "\n"


def _latex_row(values: Iterable[object]) -> str:
    return " & ".join(map(_latex, values)) + r" \\"


def _latex(value: object) -> str:
    if value is None or value != value:
        return "--"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "".join(SPECIAL.get(character, character) for character in str(value)).replace("\n", " ")


def _runs(values: Iterable[object]) -> bool:
    return any(_inert(value) is not value for value in values)


def _inert(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    # "-1.5" is a number and no formula; an apostrophe would make a text of it.
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def load_table(results: str | Path, name: str = "cells") -> pd.DataFrame:
    """Return one table of a results folder; UserError with what to run when it is not there or not whole."""
    import pandas as pd

    known = (*TABLES, *LATER, *BESIDE)
    if name not in known:
        raise UserError(f"there is no table '{name}'{nearest(name, known)}")
    path = _path(results, name)
    if not path.is_file():
        raise UserError(f"{path} does not exist; {_makes(Path(results), name)}")
    command = BESIDE.get(name, typed("report", "--results", results))
    again = f"`{command}` rebuilds it from the records"
    # A flipped bit in a number would pass every reader.
    if is_changed(path):
        raise UserError(f"{path} is damaged: it is not what was written there; {again}")
    try:
        return pd.read_parquet(path)
    except Exception as error:  # a reader that stumbles over damaged bytes raises whatever it stumbled over
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({why}); {again}") from None


def _makes(results: Path, name: str) -> str:
    """Return the command that makes a table which is not there, and what it does."""
    if name in BESIDE:
        return f"`{BESIDE[name]}` makes it"
    # Large tables are not passed on with a study, its records are.
    if (results / "records.zip").is_file() or (results / "cells").is_dir():
        return f"`{typed('report', '--results', results)}` writes it from the records, without training"
    return f"`{typed('sweep', '--results', results)}` trains the cells and writes it"


def said(results: str | Path, datasets: Iterable[str]) -> list[str]:
    """Return the sentences of the last report on what was learnt of these data sets, and on what is left of a
    lead.
    """
    import pandas as pd

    texts: list[str] = []
    for name in ("learnt", "speeds"):
        path = Path(results) / "tables" / f"{name}.csv"
        if path.is_file():
            table = pd.read_csv(path)
            texts += table.loc[table["dataset"].isin(list(datasets)), "says"].dropna().tolist()
    return texts


def stored(results: str | Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the named tables, and of those that no record holds the ones that have been made."""
    import pandas as pd

    extra = [name for name in (*LATER, *BESIDE) if _path(results, name).is_file()]
    # Answers cut these tables thousands of times, where texts as Arrow's take several times as long.
    with pd.option_context("mode.string_storage", "python"):
        frames = {name: load_table(results, name) for name in (*names, *extra)}
    for name, frame in frames.items():
        absent = [column for column in COLUMNS.get(name, ()) if column not in frame]
        if absent and len(frame):
            again = f"`{typed('report', '--results', results)}` rebuilds it from the records"
            raise UserError(f"{_path(results, name)} has no column '{absent[0]}'; {again}")
    cells = frames.get("cells")
    if cells is not None and "loss_spellings" not in cells:  # of a version that did not know them
        frames["cells"] = cells.assign(loss_spellings=cells["loss"])
    return frames


def _path(results: str | Path, name: str) -> Path:
    return Path(results) / "tables" / f"{name}.parquet"


def _write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    return _atomically(path, lambda p: _one_kind(frame).to_parquet(p, index=False, compression="zstd"))


def _one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with words in every column that mixes words and numbers, as a parameter of two data
    sets may: a column on disk has one kind.
    """
    mixed = {}
    for name in (name for name, kind in frame.dtypes.items() if kind.name == "object"):
        kinds = {type(value) for value in frame[name] if value is not None and value == value}
        if len(kinds) > 1 and not kinds <= {int, float, bool}:
            mixed[name] = frame[name].map(lambda v: v if v is None or v != v else str(v))
    return frame.assign(**mixed) if mixed else frame


def _atomically(path: Path, write: Callable[[Path], object]) -> Path:
    # Beside the file, for a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
