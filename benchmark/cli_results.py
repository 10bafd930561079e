"""``lossbench verify``, ``merge`` and ``pack``: trust in a results folder, joining several, and one archive of all records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark import folders

Results = Annotated[Path, typer.Option("--results", help="Folder of records, tables, figures and report.")]


def verify(
    sample: Annotated[int, typer.Option("--sample", min=1, help="How many random cells to train again.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which sample is drawn.")] = 0,
    cell: Annotated[str, typer.Option("--cell", help="Train this cell instead, by its key as the report shows it.")] = "",
    with_: Annotated[list[Path] | None, typer.Option("--with", help="A Python file with losses of your own; may be repeated.")] = None,
    results: Annotated[Path | None, typer.Option("--results", help="Folder of results (default: results, or the committed study).")] = None,
) -> None:
    """Train random cells again and compare: bit for bit in the same environment, within a tolerance in another."""
    from benchmark import verify as verifying

    results = folders.reading(results, print)
    certificate = verifying.verify(results, sample, seed, tuple(str(file) for file in with_ or ()), say=print, cell=cell)
    print(certificate["says"])
    if not certificate["passed"]:
        raise typer.Exit(1)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
    results: Results = Path("results"),
) -> None:
    """Copy the records of other results folders into this one; what is here already stays as it is."""
    from benchmark import verify as verifying

    for folder in folders:
        verifying.check_source(folder)
    for folder in folders:
        print(verifying.merge(folder, results))


def findings(results: Results = Path("results/paper")) -> None:
    """For maintainers: write the numbers of README.md and docs/findings.md again from the tables of the study."""
    from benchmark import findings as writing

    changed = writing.write(Path("."), results)
    print("\n".join(f"written  {path}" for path in changed) or "nothing to write: the pages say what the tables say")


def pack(results: Results = Path("results")) -> None:
    """Move the finished records into results/records.zip, which reads like them; safe beside a running sweep."""
    from benchmark import packs
    from benchmark import verify as verifying
    from benchmark.store import Store

    verifying.check_source(results)
    store = Store(results)
    said = packs.pack(store)
    for line in (*store.notes, said):
        print(line)


def panel(results: Annotated[Path, typer.Option("--results", help="Folder of results that hold the study's ladder.")] = Path("results")) -> None:
    """Train five cells of each open data set again and keep their masks of one test image, for the panel of pictures (figure 2)."""
    from benchmark import panel as making

    print(making.make(results))
