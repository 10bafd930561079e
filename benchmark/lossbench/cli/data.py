"""``lossbench data``: list, fetch, verify and inspect data sets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Public data sets and your own.", no_args_is_help=True)

Sets = Annotated[
    list[str] | None, typer.Argument(help="Names of data sets, or 'all' for those that ask for no consent.")
]


@app.command("list")
def list_() -> None:
    """The public sets: what is here, how large, under which licence."""
    from rich.console import Console

    from lossbench.cli import datasets

    Console().print(datasets.render_list(datasets.list_sets()))


@app.command()
def fetch(names: Sets = None) -> None:
    """Download data sets from their official repositories and check every file; an interrupted download goes
    on where it was.
    """
    from lossbench.cli import datasets

    with _progress() as advance:
        for name in datasets.resolve(names or []):
            status = datasets.fetch(name, say=print, progress=advance)
            print(f"{name}: {status.state} in {status.folder}")


@app.command()
def verify(names: Sets = None) -> None:
    """Hash every file of data sets again; the first damaged or missing one is named."""
    from lossbench.cli import datasets

    with _progress() as advance:
        for name in datasets.resolve(names or [s.name for s in datasets.list_sets() if s.state != "absent"]):
            facts = datasets.verify(name, progress=advance)
            print(f"{name}: {facts['files']} files as registered, in {facts['folder']}")


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A folder of images and masks, a task folder, or a MedSegBench file.")
    ],
) -> None:
    """Print what was understood of your data, what is suspicious, and an experiment file to start from."""
    from rich.console import Console

    from lossbench.cli import datasets

    Console().print(datasets.render_inspection(datasets.inspect(str(path))))


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float, float], None]]:
    """Give a callback ``(what, done, total)`` that moves a bar on a terminal and says nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        rows: dict[str, int] = {}

        def advance(what: str, done: float, total: float) -> None:
            if what not in rows:
                rows[what] = bars.add_task(what, total=total)
            bars.update(rows[what], completed=done, total=total)

        yield advance
