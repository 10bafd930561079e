"""``lossbench check`` and ``lossbench list``: what losses there are, and whether they keep the numerical contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import UserError

With = Annotated[list[Path] | None, typer.Option("--with", help="A Python file with losses of your own (@loss); may be repeated.")]


def check(
    spec: Annotated[str, typer.Argument(help="A loss spec, a Python file with losses of your own, or 'all'.")],
    with_: With = None,
) -> None:
    """Test a loss against the numerical contract; exit code 1 when it fails."""
    from rich.console import Console

    from benchmark.losses import check as checking
    from benchmark.registry import losses
    from benchmark.source import read_entries

    files = tuple(str(file) for file in with_ or ())
    if spec == "all":
        names = sorted(losses(files))
    elif spec.endswith(".py"):
        if not Path(spec).is_file():
            raise UserError(f"{spec}: there is no such file")
        losses((*files, spec))
        names, files = [entry.name for entry in read_entries(Path(spec)) if entry.kind == "loss"], (*files, spec)
        if not names:
            raise UserError(f"{spec}: registers no loss; decorate a function with @loss('name') (from benchmark import loss)")
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
def list_losses(with_: With = None, name: Annotated[str | None, typer.Argument(help="Show one loss in full.")] = None) -> None:
    """Every loss: family, formula, parameters with defaults, paper, cost, and what it does on empty images."""
    from benchmark import listing

    listing.print_losses(tuple(str(file) for file in with_ or ()), name)


@list_app.command("experiments")
def list_experiments() -> None:
    """The experiments that ship with lossbench."""
    from benchmark import listing

    listing.print_experiments()
