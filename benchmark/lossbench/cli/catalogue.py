"""``lossbench list`` and ``lossbench check``: what can be named, and whether a loss or a network keeps its
contract.
"""

from __future__ import annotations

import difflib
import importlib
import re
import textwrap
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError, nearest
from lossbench.cli import options

app = typer.Typer(help="List what can be named in an experiment.", no_args_is_help=True)


def check(
    spec: Annotated[
        str,
        typer.Argument(help="A loss or network spec, a Python file with losses or networks, or 'all'."),
    ],
    with_: options.With = None,
) -> None:
    """Test a loss or a network against its contract; exit code 1 when it fails."""
    from rich.console import Console

    from lossbench.base.check import render
    from lossbench.catalogue import userfiles
    from lossbench.sweep import guard

    files = options.own_files(with_)
    if spec == "all":
        subjects = _named_in(files, None)
    elif spec.endswith(".py"):
        files = (*files, spec)
        subjects = _named_in(files, spec)
    else:
        subjects = [(_kind(spec, files), spec)]
    console, passed = Console(), True
    for kind, name in subjects:
        # Imported by name: each room has a contract of its own, and `run` means the same in both.
        contract = importlib.import_module(f"lossbench.{kind}.contract")
        guard.begin()
        outcome = contract.run(name, files)
        if userfiles.ran():
            outcome = replace(outcome, rows=(*outcome.rows, _process(name)))
        console.print(render(outcome))
        # The others are measured all the same.
        passed &= outcome.passed
    if not passed:
        raise typer.Exit(1)


def _process(name: str) -> Any:
    """Return the row that says what running the user's code has changed in this process, set back now."""
    from lossbench.base.check import Row
    from lossbench.sweep import guard

    test = "leaves its process as it is"
    try:
        changed = guard.settle(f"'{name}'")
    except UserError as error:
        return Row(test, False, "changed", f"{error}; a sweep refuses it")
    if not changed:
        return Row(test, True, "unchanged")
    return Row(
        test, None, "changed", f"{', '.join(changed)}; a sweep sets that back at every call, and says so"
    )


def _named_in(files: tuple[str, ...], file: str | None) -> list[tuple[str, str]]:
    """Return room and name of all losses and networks, or of those that one file registers."""
    from lossbench.catalogue.registry import losses, networks

    if file is not None and not Path(file).is_file():
        raise UserError(f"{file}: there is no such file")
    # Files of --with are registered beside the one that is checked, and not asked for.
    listed = {"losses": losses(files), "networks": networks(files)}
    named = [
        (room, name)
        for room, entries in listed.items()
        for name, entry in sorted(entries.items())
        if file is None or entry.file.resolve() == Path(file).resolve()
    ]
    if not named:
        how = "decorate a function with @loss('name') or @network('name')"
        raise UserError(
            f"{file}: registers no loss and no network; {how} (from lossbench import loss, network)"
        )
    return named


def _kind(spec: str, files: tuple[str, ...]) -> str:
    """Return the room of what a spec names first: "losses" or "networks"."""
    from lossbench.catalogue.registry import aliases, losses, networks

    library, name = re.match(r"\s*(?:(\w+)\s*:)?\s*(\w*)", spec).groups()
    # It has no losses.
    if library == "torchvision":
        return "networks"
    if library in ("monai", "smp"):
        from lossbench.catalogue.adapters import PEERS

        # Both have losses and networks; a name that resembles a loss is meant as one.
        return "losses" if difflib.get_close_matches(name, PEERS[library], 1) else "networks"
    own = networks(files)
    if library or not name.isidentifier() or name in (known := {**losses(files), **aliases(files)}):
        return "losses"
    if name not in own:
        raise UserError(f"'{name}' is neither a loss nor a network{nearest(name, {**known, **own})}")
    return "networks"


@app.command("experiments")
def list_experiments() -> None:
    """The experiments that ship with lossbench."""
    import tomllib

    from lossbench.experiment.reading import shipped_experiments

    for name, file in shipped_experiments().items():
        # The title alone: to resolve an experiment would look for its data.
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
            empty = entry.meta.get("empty")
            _print_short(console, entry, entry.meta.get("formula"), empty and f"empty images: {empty}")
    cost = "cost is forward and backward, relative to ce"
    console.print(f"\n{len(known)} losses; {cost}; 'lossbench list losses NAME' shows one")


@app.command("networks")
def list_networks(
    with_: options.With = None,
    name: Annotated[str | None, typer.Argument(help="Show one network, or all of a library.")] = None,
) -> None:
    """Every network: parameters with defaults, paper, and whether its cells train together; libraries."""
    from rich.console import Console

    from lossbench.catalogue.registry import networks
    from lossbench.networks import adapters

    known, console = networks(options.own_files(with_)), Console(highlight=False)
    if name in adapters.LIBRARIES:
        console.print(f"{name} {adapters.version(name)}:", ", ".join(adapters.names(name)), markup=False)
        return
    if name is not None and name not in known:
        raise UserError(f"unknown network '{name}'{nearest(name, [*known, *adapters.LIBRARIES])}")
    for entry in [known[name]] if name else sorted(known.values(), key=lambda entry: entry.name):
        together = "its cells train together" if "cells" in entry.needs else "one cell at a time"
        _print_short(console, entry, together, entry.doc if name else entry.doc.split("\n\n")[0])
    for library, facts in adapters.LIBRARIES.items() if name is None else ():
        console.print(f"[bold]{library}:NAME[/]  [dim]{facts.module}[/]")
    if name is None:
        console.print("\n'lossbench list networks smp' shows all of a library")


def _print_short(console: Any, entry: Any, *facts: str | None) -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.text import Text

    paper = [str(entry.meta[key]) for key in ("cite", "cost") if entry.meta.get(key)]
    console.print(f"[bold]{entry.name}[/]  [dim]{escape(', '.join(paper))}[/]")
    for text in (*facts[:1], _parameters(entry), *facts[1:]):
        if text:
            console.print(Padding(Text(str(text)), (0, 0, 0, 4)))


def _print_loss(console: Any, entry: Any) -> None:
    console.print(f"[bold]{entry.name}[/bold]  ({entry.family})")
    facts = {key: entry.meta.get(key) for key in ("formula", "cite", "released", "cost", "empty", "aliases")}
    facts |= {"params": _parameters(entry) or "none", "needs": ", ".join(entry.needs)}
    for key, text in facts.items():
        if text:
            # Formulas hold brackets, which rich would take for markup.
            console.print(f"  {key:9} {text}", markup=False)
    if entry.doc:
        console.print(textwrap.indent(textwrap.dedent(entry.doc), "  "), markup=False)


def _parameters(entry: Any) -> str:
    # Every loss has it, and the data set decides its value.
    shown = {key: value for key, value in entry.params.items() if key != "ignore_index"}
    return ", ".join(f"{key}={value!r}" for key, value in shown.items())
