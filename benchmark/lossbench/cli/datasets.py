"""What ``lossbench data`` does, as functions that return plain data, and how it looks, as rich objects;
nothing here prints.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.data import fetch as download
from lossbench.data import hashes, sources


@dataclasses.dataclass(frozen=True)
class Status:
    """One public set as ``lossbench data list`` shows it; ``state`` is 'ready', 'incomplete' or 'absent'."""

    name: str
    title: str
    state: str
    folder: str
    megabytes: float
    licence: str
    citation: str
    url: str
    by_name_only: bool


def list_sets() -> list[Status]:
    """Return the public sets with what is here of them (files are counted, not hashed)."""
    return [_status(source) for source in sources.SOURCES.values()]


def _status(source: sources.Source) -> Status:
    folder = sources.raw_folder(source.name)
    state = "absent" if folder is None else "incomplete" if sources.absent(source.name, folder) else "ready"
    return Status(
        source.name, source.title, state, str(folder or ""), round(source.size / 1e6, 1), source.licence, source.citation, source.url, source.consent,
    )  # fmt: skip


def resolve(names: list[str]) -> list[str]:
    """Return the sets that the words on the command line mean; 'all' means every set with permission for any
    use, the others go by name.
    """
    found: list[str] = []
    for name in names:
        if name == "all":
            found += [source.name for source in sources.SOURCES.values() if not source.consent]
        elif name in sources.SOURCES:
            found.append(name)
        else:
            raise UserError(
                f"no public data set is called '{name}'{nearest(name, [*sources.SOURCES, 'all'])}"
            )
    if not names:
        raise UserError(
            "name the sets to fetch, or 'all' for those that ask for no consent; there are: "
            f"{', '.join(sources.SOURCES)}"
        )
    return list(dict.fromkeys(found))


def terms(name: str) -> str:
    """Return the licence and the citation of a set, to be shown before its first download."""
    source = sources.get_source(name)
    limits = "\nUse it within these terms; it is fetched only because you named it." if source.consent else ""
    return (
        f"{source.title} ({source.size / 1e6:.0f} MB)\nfrom {source.url}\nlicence: "
        f"{source.licence}\ncite: {source.citation}{limits}"
    )


def fetch(
    name: str,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: download.Progress = lambda what, done, total: None,
) -> Status:
    """Download what is missing of a set, after saying its terms, check every file, and return its status."""
    source = sources.get_source(name)
    folder = sources.raw_folder(name)
    if folder is None or sources.absent(name, folder):
        say(terms(name))
        download.fetch(name, progress=progress)
    hashes.check(name)
    return _status(source)


def verify(name: str, *, progress: download.Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Hash every file of a set again and return ``{name, folder, files}``; the first damaged or missing file
    raises UserError naming it.
    """
    total = len(sources.get_source(name).files)
    count = 0

    def seen(number: int) -> None:
        nonlocal count
        count += number
        progress(f"checking {name}", count, total)

    folder = hashes.check(name, again=True, seen=seen)
    return {"name": name, "folder": str(folder), "files": count}


def inspect(path: str) -> dict[str, Any]:
    """Return what was understood of a user's folder or file: see ``lossbench.data.inspection.inspect``."""
    from lossbench.data.inspection import inspect as look

    return look(path)


def render_list(found: list[Status]) -> Any:
    """Return a rich table of the public sets."""
    from rich.table import Table

    table = Table(title="Public data sets", title_justify="left")
    for column in ("name", "what", "MB", "state", "licence"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    colours = {"ready": "green", "incomplete": "yellow", "absent": "dim"}
    for item in found:
        short = re.split(r" \(|[;,]", item.licence)[0] + (
            " [dim](by name only)[/]" if item.by_name_only else ""
        )
        table.add_row(
            item.name,
            item.title.split(" (")[0],
            f"{item.megabytes:g}",
            f"[{colours[item.state]}]{item.state}[/]",
            short,
        )
    return table


def render_inspection(found: dict[str, Any]) -> Any:
    """Return what ``inspect`` found as rich text: what was understood, the classes, what is suspicious, and
    an experiment to start from.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.syntax import Syntax
    from rich.table import Table

    table = Table(title="Classes", title_justify="left")
    for column in ("id", "name", "pixels", "images with it", "median object (px)"):
        table.add_column(column, justify="right" if column != "name" else "left")
    for row in found["classes"]:
        size = "" if row["median_object"] is None else f"{row['median_object']:g}"
        table.add_row(str(row["id"]), row["name"], f"{row['fraction']:.4%}", f"{row['present']:.1%}", size)
    lines = [
        (
            f"[bold]{escape(found['path'])}[/]: {escape(found['layout'])}, {found['pairs']} pairs, "
            f"{escape(found['sizes'])}"
        ),
        escape(found["split"]),
    ]
    warnings = [f"[yellow]![/] {escape(text)}" for text in found["suspicious"]] or ["nothing suspicious"]
    return Group(
        *lines,
        table,
        *warnings,
        "",
        "An experiment to start from:",
        Syntax(found["experiment"], "toml", background_color="default"),
    )
