"""``lossbench list`` and ``lossbench check``: what can be named, and whether a loss keeps the numerical
contract.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError, nearest
from lossbench.cli import options

app = typer.Typer(help="List what can be named in an experiment.", no_args_is_help=True)


def check(
    spec: Annotated[
        str, typer.Argument(help="A loss spec, a Python file with losses of your own, or 'all'.")
    ],
    with_: options.With = None,
) -> None:
    """Test a loss against the numerical contract; exit code 1 when it fails."""
    from rich.console import Console

    from lossbench.catalogue.registry import losses
    from lossbench.losses import contract

    files, names = options.own_files(with_), [spec]
    if spec == "all":
        names = sorted(losses(files))
    elif spec.endswith(".py"):
        names, files = _losses_in(spec), (*files, spec)
    console, passed = Console(), True
    for name in names:
        outcome = contract.run(name, files)
        console.print(contract.render(outcome))
        passed &= outcome.passed
    if not passed:
        raise typer.Exit(1)


def _losses_in(file: str) -> list[str]:
    """Return the names of the losses that a user's file registers."""
    from lossbench.catalogue.source import read_entries

    if not Path(file).is_file():
        raise UserError(f"{file}: there is no such file")
    names = [entry.name for entry in read_entries(Path(file)) if entry.kind == "loss"]
    if not names:
        how = "decorate a function with @loss('name') (from lossbench import loss)"
        raise UserError(f"{file}: registers no loss; {how}")
    return names


@app.command("experiments")
def list_experiments() -> None:
    """The experiments that ship with lossbench."""
    import tomllib

    from lossbench.experiment.reading import shipped_experiments

    for name, file in shipped_experiments().items():
        print(f"{name:12} {tomllib.loads(file.read_text(encoding='utf-8')).get('title', '')}")


@app.command("losses")
def list_losses(
    with_: options.With = None,
    name: Annotated[str | None, typer.Argument(help="Show one loss in full.")] = None,
) -> None:
    """Every loss: family, formula, parameters with defaults, paper, cost, and what it does on empty
    images.
    """
    from rich.console import Console

    from lossbench.catalogue.registry import losses

    known, console = losses(options.own_files(with_)), Console(highlight=False)
    if name is not None and name not in known:
        raise UserError(f"unknown loss '{name}'{nearest(name, known)}")
    if name is not None:
        _print_loss(console, known[name])
        return
    families: dict[str, list] = defaultdict(list)
    for entry in known.values():
        families[entry.family].append(entry)
    for family, entries in sorted(families.items()):
        console.print(f"\n[bold underline]{family}[/]")
        for entry in sorted(entries, key=lambda entry: entry.name):
            _print_short(console, entry)
    cost = "cost is forward and backward, relative to ce"
    console.print(f"\n{len(known)} losses; {cost}; 'lossbench list losses NAME' shows one")


def _print_short(console: Any, entry: Any) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.text import Text

    facts = [str(entry.meta[key]) for key in ("cite", "cost") if entry.meta.get(key)]
    console.print(f"[bold]{entry.name}[/]  [dim]{escape(', '.join(facts))}[/]")
    empty = entry.meta.get("empty")
    for text in (entry.meta.get("formula"), _parameters(entry), empty and f"empty images: {empty}"):
        if text:
            console.print(Padding(Text(str(text)), (0, 0, 0, 4)))


def _print_loss(console: Any, entry: Any) -> None:
    console.print(f"[bold]{entry.name}[/bold]  ({entry.family})")
    facts = {key: entry.meta.get(key) for key in ("formula", "cite", "cost", "empty", "aliases")}
    facts |= {"params": _parameters(entry) or "none", "needs": ", ".join(entry.needs)}
    for key, text in facts.items():
        if text:
            console.print(f"  {key:9} {text}", markup=False)
    if entry.doc:
        console.print(textwrap.indent(textwrap.dedent(entry.doc), "  "), markup=False)


def _parameters(entry: Any) -> str:
    shown = {key: value for key, value in entry.params.items() if key != "ignore_index"}
    return ", ".join(f"{key}={value!r}" for key, value in shown.items())
