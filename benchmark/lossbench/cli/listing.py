"""What ``lossbench list`` and ``lossbench plan`` print: the catalogue and the cost of an experiment, as
tables.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue.registry import losses


def print_losses(extra_files: tuple[str, ...] = (), name: str | None = None) -> None:
    """Print every loss by family, or one loss in full."""
    known = losses(extra_files)
    console = Console()
    if name is not None:
        if name not in known:
            raise UserError(f"unknown loss '{name}'{nearest(name, known)}")
        _print_loss(console, known[name])
        return
    families: dict[str, list] = defaultdict(list)
    for entry in known.values():
        families[entry.family].append(entry)
    for family, entries in sorted(families.items()):
        console.print(f"\n[bold underline]{family}[/]", highlight=False)
        for entry in sorted(entries, key=lambda e: e.name):
            meta = entry.meta
            facts = [str(meta[key]) for key in ("cite", "cost") if meta.get(key)]
            console.print(f"[bold]{entry.name}[/]  [dim]{escape(', '.join(facts))}[/]", highlight=False)
            for text in (
                meta.get("formula"),
                _parameters(entry),
                meta.get("empty") and f"empty images: {meta['empty']}",
            ):
                if text:
                    console.print(Padding(Text(str(text)), (0, 0, 0, 4)), highlight=False)
    console.print(
        f"\n{len(known)} losses; cost is forward and backward, relative to ce; 'lossbench list losses "
        "NAME' shows one",
        highlight=False,
    )


def _print_loss(console: Console, entry) -> None:
    console.print(f"[bold]{entry.name}[/bold]  ({entry.family})", highlight=False)
    for key in ("formula", "cite", "cost", "empty", "aliases"):
        if entry.meta.get(key):
            console.print(f"  {key:9} {entry.meta[key]}", markup=False, highlight=False)
    console.print(f"  {'params':9} {_parameters(entry) or 'none'}", markup=False, highlight=False)
    if entry.needs:
        console.print(f"  {'needs':9} {', '.join(entry.needs)}", markup=False, highlight=False)
    if entry.doc:
        console.print(textwrap.indent(textwrap.dedent(entry.doc), "  "), markup=False, highlight=False)


def _parameters(entry) -> str:
    shown = {key: value for key, value in entry.params.items() if key != "ignore_index"}
    return ", ".join(f"{key}={value!r}" for key, value in shown.items())


def print_plan(planned) -> None:
    """Print how many cells an experiment has, what is recorded, and what the rest is expected to take."""
    from lossbench.base.machine import usable_cores

    experiment = planned.experiment
    counts = planned.counts()
    if len(experiment.parts) == 1:
        print(f"{experiment.name}: {len(planned.cells)} cells = {_product(experiment.parts[0])}")
    else:
        print(
            f"{experiment.name}: {len(planned.cells)} cells in {len(experiment.parts)} parts (what "
            "two parts share is trained once)"
        )
        for part in experiment.parts:
            print(f"  {part.name:10} {_product(part)}")
    for sentence in experiment.skipped:
        print(f"  {sentence}")
    words = [f"{counts[name]} {name}" for name in ("done", "missing", "stale", "failed") if counts.get(name)]
    missing = len(planned.missing)
    line = f"  {', '.join(words)}"
    if missing:
        cores = usable_cores()
        about = "" if planned.measured else " (a guess until the first cells are measured)"
        line += f"; to train: {missing}, about {duration(planned.cost() / cores)} on {cores} cores{about}"
    else:
        line += "; nothing to train"
    print(line)


def _product(part) -> str:
    counts = (
        (len(part.losses), "loss", "losses"),
        (len(part.datasets), "data set", "data sets"),
        (len(part.seeds), "seed", "seeds"),
    )
    return " x ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_experiments() -> None:
    """Print the experiments that ship with lossbench."""
    import tomllib

    from lossbench.experiment.reading import SHIPPED

    seen = {}
    for folder in SHIPPED:
        for file in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
            if file.stem.endswith(".tuned"):
                continue
            raw = tomllib.loads(file.read_text(encoding="utf-8"))
            if "losses" in raw or "part" in raw:
                seen.setdefault(file.stem, raw.get("title", ""))
    for name, title in seen.items():
        print(f"{name:12} {title}")


def print_costs(planned) -> None:
    """Print cells and expected core-minutes for each data set and loss, and what the planned seeds can
    decide.
    """
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("data set", "cells", "to train", "core-minutes", "seconds a cell"):
        table.add_column(column, justify="left" if column == "data set" else "right")
    groups = defaultdict(list)
    for cell in planned.cells:
        groups[cell.data_label].append(cell)
    missing = {cell.key for cell in planned.missing}
    for label, cells in groups.items():
        todo = [cell for cell in cells if cell.key in missing]
        known = (cells[0].data.text, cells[0].recipe.digest) in planned.seconds
        each = f"{planned.cell_cost(cells[0]):.1f}" + ("" if known else " (guess)")
        table.add_row(label, str(len(cells)), str(len(todo)), f"{planned.cost(todo) / 60:.1f}", each)
    console.print(table)
    seeds = len(planned.experiment.seeds)
    console.print(
        (
            f"\nOn one data set, {seeds} paired seed{'s' * (seeds > 1)} can reach p = {2 / 2**seeds:.3g} "
            "at best (exact sign-flip test, two-sided)"
        )
        + (
            "."
            if 2 / 2**seeds <= 0.05
            else "; .05 cannot be reached there, only across data sets or by trend."
        ),
        highlight=False,
    )


def print_tuning(chosen: list[dict], labels: dict[str, str]) -> None:
    """Print what tuning chose: the rate, its validation score, and whether the optimum lies at the edge of
    the range.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("data set", "loss", "learning rate", "validation", "trials", ""):
        table.add_column(
            column, justify="right" if column in ("learning rate", "validation", "trials") else "left"
        )
    for item in chosen:
        mark = "at the edge of the range" if item["edge"] else ""
        numbers = f"{item['learning_rate']:.3g}", f"{item['objective']:.3f}", str(item["trials"])
        table.add_row(labels.get(item["data"], item["data"]), item["loss"], *numbers, mark)
    Console().print(table)
