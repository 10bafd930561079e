"""``lossbench verify``, ``merge`` and ``pack``: trust in a results folder, joining several, and one archive
of all records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossbench.base.errors import UserError
from lossbench.store import note

Results = Annotated[Path, typer.Option("--results", help="Folder of records, tables, figures and report.")]


def verify(
    sample: Annotated[int, typer.Option("--sample", min=1, help="How many random cells to train again.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which sample is drawn.")] = 0,
    cell: Annotated[
        str, typer.Option("--cell", help="Train this cell instead, by its key as the report shows it.")
    ] = "",
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A Python file with losses of your own; may be repeated."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Folder of results (default: results, or the committed study)."),
    ] = None,
) -> None:
    """Train random cells again and compare: bit for bit in the same environment, within a tolerance in
    another.
    """
    from lossbench.sweep import verify as verifying

    results = note.reading(results, print)
    certificate = verifying.verify(
        results, sample, seed, tuple(str(file) for file in with_ or ()), say=print, cell=cell
    )
    print(certificate["says"])
    if not certificate["passed"]:
        raise typer.Exit(1)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
    results: Results = Path("results"),
) -> None:
    """Copy the records of other results folders into this one; what is here already stays as it is."""
    from lossbench.sweep import verify as verifying

    for folder in folders:
        verifying.check_source(folder)
    for folder in folders:
        print(verifying.merge(folder, results))


def pack(results: Results = Path("results")) -> None:
    """Move the finished records into results/records.zip, which reads like them; safe beside a running sweep."""
    from lossbench.store import pack as packs
    from lossbench.store.store import Store
    from lossbench.sweep import verify as verifying

    verifying.check_source(results)
    store = Store(results)
    said = packs.pack(store)
    for line in (*store.notes, said):
        print(line)


# --- ``lossbench check`` and ``lossbench list``: what losses there are, and whether they keep the
# numerical contract.

With = Annotated[
    list[Path] | None,
    typer.Option("--with", help="A Python file with losses of your own (@loss); may be repeated."),
]


def check(
    spec: Annotated[
        str, typer.Argument(help="A loss spec, a Python file with losses of your own, or 'all'.")
    ],
    with_: With = None,
) -> None:
    """Test a loss against the numerical contract; exit code 1 when it fails."""
    from rich.console import Console

    from lossbench.catalogue.registry import losses
    from lossbench.catalogue.source import read_entries
    from lossbench.losses import contract as checking

    files = tuple(str(file) for file in with_ or ())
    if spec == "all":
        names = sorted(losses(files))
    elif spec.endswith(".py"):
        if not Path(spec).is_file():
            raise UserError(f"{spec}: there is no such file")
        losses((*files, spec))
        names, files = (
            [entry.name for entry in read_entries(Path(spec)) if entry.kind == "loss"],
            (*files, spec),
        )
        if not names:
            raise UserError(
                f"{spec}: registers no loss; decorate a function with @loss('name') (from lossbench "
                "import loss)"
            )
    else:
        names = [spec]
    console = Console()
    passed = True
    for name in names:
        outcome = checking.run(name, files)
        console.print(checking.render(outcome))
        passed &= outcome.passed
    if not passed:
        raise typer.Exit(1)


list_app = typer.Typer(help="List what can be named in an experiment.", no_args_is_help=True)


@list_app.command("losses")
def list_losses(
    with_: With = None, name: Annotated[str | None, typer.Argument(help="Show one loss in full.")] = None
) -> None:
    """Every loss: family, formula, parameters with defaults, paper, cost, and what it does on empty images."""
    from lossbench.cli import listing

    listing.print_losses(tuple(str(file) for file in with_ or ()), name)


@list_app.command("experiments")
def list_experiments() -> None:
    """The experiments that ship with lossbench."""
    from lossbench.cli import listing

    listing.print_experiments()
