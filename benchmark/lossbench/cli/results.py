"""``lossbench report``, ``figures``, ``verify``, ``merge``, ``pack``: commands about a folder of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lossbench.base.errors import UserError, typed
from lossbench.cli import options
from lossbench.store import note


def say(text: str, error: bool = False) -> None:
    """Print a line at once, also into a pipe."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def report(
    results: options.Existing = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images", help="Show pictures of real data; not all licences let them be passed on."
        ),
    ] = True,
) -> None:
    """Write tables, figures and the report again from what is stored; trains nothing."""
    path = answer(note.reading(results, say), images)
    if open_:
        # Only who asks for the page pays for this import.
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def answer(results: Path, images: bool = True) -> Path:
    """Write tables, figures and report of a results folder, print where they are and the verdicts."""
    from lossbench.report import make

    made = make.make(Path(results), images=images)
    for line in made.lines:
        say(line)
    return made.report


def figures(results: options.Existing = None) -> None:
    """Draw every figure from the stored tables; trains nothing."""
    from lossbench.figures import drawing

    folder = note.reading(results, say)
    paths = drawing.draw_all(folder)
    say(f"{len(paths)} files in {folder / 'figures'}")


def verify(
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", metavar="N", min=1, help="How many random cells to train again (default: 3)."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Which sample is drawn (default: 0)."),
    ] = None,
    cell: Annotated[
        str,
        typer.Option(
            "--cell", metavar="KEY", help="Train this cell instead, by its key as the report shows it."
        ),
    ] = "",
    all_records: Annotated[
        bool,
        typer.Option(
            "--all-records", help="Train nothing; read every record, table and certificate by its check sum."
        ),
    ] = False,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH|SPEC",
            help="Where your own images and masks are, whose path no record keeps.",
        ),
    ] = None,
    with_: options.With = None,
    results: options.Existing = None,
) -> None:
    """Train random cells again and compare: bit for bit in the same environment, within a tolerance in
    another.
    """
    from lossbench.sweep import verify as verifying

    if all_records:
        asked = {"--sample": sample, "--seed": seed, "--cell": cell or None, "--data": data, "--with": with_}
        given = [name for name, value in asked.items() if value is not None]
        if given:
            raise UserError(f"--all-records trains nothing, so that it does not go with {', '.join(given)}")
        return _check_all(note.reading(results, say))
    files = options.own_files(with_)
    folder = note.reading(results, say)
    places = [str(path) for path in data or ()]
    count = 3 if sample is None else sample
    certificate = verifying.verify(folder, count, seed or 0, files, say=say, cell=cell, data=places)
    say(certificate["says"])
    # So that a script or a CI job stops here.
    if not certificate["passed"]:
        raise typer.Exit(1)


def _check_all(results: Path) -> None:
    """Say what in a folder is not as it was written; leave with 1 where something is not."""
    from lossbench.base.files import CERTIFICATE
    from lossbench.store import integrity
    from lossbench.store.store import Store
    from lossbench.sweep import verify as verifying
    from lossbench.tables import stamp

    if not results.is_dir():
        raise UserError(
            f"{results}: there is no such folder; '{typed('sweep', '--results', results)}' makes one"
        )
    found = integrity.check_records(Store(results))
    # The certificate of a committed study lies beside its folder, since a tracked file is not written.
    places = {results / CERTIFICATE, verifying.certificate_of(results)}
    certificates = integrity.check_certificates(sorted(places))
    tables, of_tables = stamp.check(results / "tables")
    if not (found.records or tables or found.damaged) and not any(place.exists() for place in places):
        raise UserError(f"{results} holds no record, no table and no certificate: there is nothing to read")
    for other in (certificates, of_tables):
        found.damaged += other.damaged
        found.unmarked += other.unmarked
    for line in found.sentences():
        say(line)
    # Of what carries no check sum nobody can say how it was written.
    bare = f", but for {len(found.unmarked)} without a check sum" if found.unmarked else ""
    verdict = f"{len(found.damaged)} damaged" if found.damaged else f"all as they were written{bare}"
    say(f"{found.records} records and {tables} tables: {verdict}")
    if found.damaged:
        raise typer.Exit(1)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
    results: options.Results = Path("results"),
) -> None:
    """Copy the records of other results folders into this one; what is here already stays as it is."""
    from lossbench.sweep import verify as verifying

    # All of them before the first is copied.
    for folder in folders:
        verifying.check_source(folder)
    for folder in folders:
        say(verifying.merge(folder, results))


def pack(results: options.Results = Path("results")) -> None:
    """Move the finished records into results/records.zip, which reads like them; safe beside a running
    sweep.
    """
    from lossbench.store import pack as packs
    from lossbench.store.store import Store
    from lossbench.sweep import verify as verifying

    verifying.check_source(results)
    store = Store(results)
    done = packs.pack(store, say)
    # What was set aside on the way comes first: the last line is what stays on a screen.
    for line in (*store.notes, done):
        say(line)
