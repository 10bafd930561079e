"""``lossbench data``: list, fetch and verify public sets; ``lossbench inspect``: look at one's own.

Commands first, then what they do as functions that return plain data, then how that looks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError, nearest, typed
from lossbench.base.files import write_atomically
from lossbench.cli.results import say
from lossbench.data import cache, sources

Progress = Callable[[str, float, float], None]  # (what, done, total)

app = typer.Typer(help="Public data sets.", no_args_is_help=True)

Sets = Annotated[
    list[str] | None, typer.Argument(help="Names of data sets, or 'all' for those that ask for no consent.")
]


@app.command("list")
def list_() -> None:
    """The public sets: what is here, how large, under which licence."""
    from rich.console import Console

    Console().print(render_list(list_sets()))


@app.command()
def fetch(names: Sets = None) -> None:
    """Download data sets from their official repositories and check every file; an interrupted download goes
    on where it was.
    """
    with _progress() as advance:
        for name in named(names or []):
            status = fetch_set(name, say=print, progress=advance)
            print(f"{name}: {status.state} in {status.folder}")


@app.command()
def verify(names: Sets = None) -> None:
    """Hash every file of data sets again; the first damaged or missing one is named."""
    with _progress() as advance:
        # A set that was never fetched is no damage.
        for name in named(names or [s.name for s in list_sets() if s.state != "absent"]):
            facts = verify_set(name, progress=advance)
            print(f"{name}: {facts['files']} files as registered, in {facts['folder']}")


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A folder in any usual layout, a pairs.csv, or a MedSegBench file.")
    ],
    images: Annotated[
        str, typer.Option(metavar="GLOB", help="Pattern of the images below PATH, such as 'pics/*.jpg'.")
    ] = "",
    masks: Annotated[str, typer.Option(metavar="GLOB", help="Pattern of the masks below PATH.")] = "",
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the suggested experiment here, and a contact sheet beside it."
        ),
    ] = None,
    groups: Annotated[
        bool, typer.Option("--groups", help="Accept the guessed groups: write PATH/groups.csv.")
    ] = False,
) -> None:
    """Say what was understood of your data, what training will see and what is suspicious."""
    from rich.console import Console

    from lossbench.data import inspection

    # First: to look at a large folder takes minutes.
    if write:
        check_place(write, path, images, masks)
        # An experiment that lies elsewhere is started from elsewhere, where a relative path would mislead.
        if write.absolute().parent.resolve() != Path.cwd().resolve():
            path = Path(os.path.abspath(path.expanduser()))
    with _progress() as advance:
        findings = inspection.inspect(str(path), images, masks, advance, groups)
    Console().print(render_inspection(findings))
    if groups and not findings.groups:
        say("no groups were guessed, none are written")
    if write:
        say(write_experiment(findings, write))
    elif not findings.stops:
        # Printed as it is: a line that a terminal's width had cut could not be copied.
        say(f"\nAn experiment to start from (--write mine.toml writes it):\n\n{findings.experiment}")


def check_place(file: Path, path: Path, images: str = "", masks: str = "") -> None:
    """Raise UserError where an experiment or its contact sheet would lie over a file, or the sheet would be
    taken for one of the user's images.
    """
    from PIL import Image

    sheet = file.with_suffix(".png")
    if file.suffix.lower() == ".png":
        mend = f"name a file such as {file.with_suffix('.toml')}"
        raise UserError(f"--write {file}: is where the contact sheet of an experiment goes; {mend}")
    for own in (file, sheet):
        if own.exists():
            raise UserError(f"--write {file}: {own} is there already; name another file, or delete it")
    if path.expanduser().resolve() not in sheet.resolve().parents:
        return
    before = _understood(path, images, masks)
    # Tried: which files count as images depends on the layout.
    _write(sheet, _picture(Image.new("RGB", (8, 8))))
    try:
        after = _understood(path, images, masks)
    finally:
        sheet.unlink()
    if after != before:
        taken = f"{sheet.name} would be taken for one of the images of {path}"
        raise UserError(f"--write {file}: {taken}; name a file outside of that folder")


def _understood(path: Path, images: str, masks: str) -> Any:
    """Return which files are pairs and which have no counterpart; of a folder in no layout, why."""
    from lossbench.data import layouts

    try:
        layout = layouts.find(path, images, masks, strict=False)
    except UserError as error:
        return str(error)
    return [(pair.name, pair.images, pair.masks) for pair in layout.pairs], layout.unmatched


def _picture(image: Any) -> bytes:
    picture = io.BytesIO()
    image.save(picture, "PNG", optimize=True)
    return picture.getvalue()


def write_experiment(findings: Any, file: Path) -> str:
    """Write the suggested experiment and a contact sheet, and return what comes next."""
    from lossbench.data.sheet import contact_sheet

    if findings.stops:
        raise UserError(
            f"--write {file}: no experiment is written, since a sweep would stop: {findings.stops}"
        )
    _read_back(findings.experiment, file)
    # Drawn before anything is written: an experiment without its sheet is one that nobody has looked at.
    title = f"{findings.path}: {findings.layout}, {findings.sizes}"
    picture = _picture(contact_sheet(findings.layout_of, findings.coding, findings.sheet, title))
    _write(file, findings.experiment.encode())
    _write(file.with_suffix(".png"), picture)
    return f"look at {file.with_suffix('.png')}; then: {typed('plan', file)}, {typed('sweep', file)}"


def _read_back(text: str, file: Path) -> None:
    """Raise UserError where a suggested experiment is none that can be read, before it is written."""
    from lossbench.experiment.reading import read_experiment

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, "suggested.toml")
        try:
            draft.write_text(text, encoding="utf-8")
            read_experiment(draft)
        except UnicodeEncodeError:
            why = "a name of a file is not in UTF-8; rename it"
        except UserError as error:
            why = str(error).replace(str(draft), file.name)
        else:
            return
    raise UserError(f"--write {file}: no experiment is written, since it could not be read again: {why}")


def _write(file: Path, content: bytes) -> None:
    try:
        write_atomically(file, content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Give a callback that moves a bar on a terminal and says nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # Not on stdout: what a command says may go into a file.
    console = Console(stderr=True)
    if not console.is_terminal:
        # In a log file a bar would be a thousand lines.
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


def _status(source: Any) -> Status:
    """Return what is here of one source of ``data.fetch``."""
    folder = sources.raw_folder(source.name)
    # Counted and not hashed: a list must come at once; 'verify' hashes.
    state = "absent" if folder is None else "incomplete" if sources.absent(source.name, folder) else "ready"
    return Status(
        name=source.name,
        title=source.title,
        state=state,
        folder=str(folder or ""),
        megabytes=round(source.size / 1e6, 1),
        licence=source.licence,
        citation=source.citation,
        url=source.url,
        by_name_only=source.consent,
    )


def named(names: list[str]) -> list[str]:
    """Return the sets that the words on the command line mean; 'all' means every set with permission for any
    use, the others go by name.
    """
    chosen: list[str] = []
    for name in names:
        if name == "all":
            chosen += [source.name for source in sources.SOURCES.values() if not source.consent]
        elif name in sources.SOURCES:
            chosen.append(name)
        else:
            raise UserError(
                f"no public data set is called '{name}'{nearest(name, [*sources.SOURCES, 'all'])}"
            )
    if not names:
        raise UserError(
            "name the sets to fetch, or 'all' for those that ask for no consent; there are: "
            f"{', '.join(sources.SOURCES)}"
        )
    # Each once, in the order in which they were named.
    return list(dict.fromkeys(chosen))


def terms(name: str) -> str:
    """Return the licence and the citation of a set, to be shown before its first download."""
    source = sources.get_source(name)
    limits = "\nUse it within these terms; it is fetched only because you named it." if source.consent else ""
    return (
        f"{source.title} ({source.size / 1e6:.0f} MB)\nfrom {source.url}\nlicence: "
        f"{source.licence}\ncite: {source.citation}{limits}"
    )


def fetch_set(
    name: str,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda what, done, total: None,
) -> Status:
    """Download what is missing of a set, after saying its terms, check every file, and return its status."""
    from lossbench.data import fetch as download

    source = sources.get_source(name)
    folder = sources.raw_folder(name)
    if folder is None or sources.absent(name, folder):
        # Before the first byte: the user may still say no.
        say(terms(name))
        download.fetch(name, progress=progress)
    # What was here before may be damaged, too.
    cache.check(name)
    return _status(source)


def verify_set(name: str, *, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Hash every file of a set again and return ``{name, folder, files}``; the first damaged or missing file
    raises UserError naming it.
    """
    total = len(sources.get_source(name).files)
    count = 0

    def seen(number: int) -> None:
        nonlocal count
        count += number
        progress(f"checking {name}", count, total)

    # What is remembered of a file would not show that its disk has changed it.
    folder = cache.check(name, again=True, seen=seen)
    return {"name": name, "folder": str(folder), "files": count}


def render_list(sets: list[Status]) -> Any:
    """Return a rich table of the public sets."""
    from rich.table import Table

    by_name = "* fetched by name only: no open licence"
    table = Table(
        title="Public data sets", title_justify="left", caption=by_name, caption_justify="left", expand=True
    )
    # One line a set in 80 columns: what does not fit is cut, the data page has it in full.
    for column, width in (("name", 15), ("what", None), ("MB", 5), ("state", 10), ("licence", None)):
        justify, ratio = ("right" if column == "MB" else "left"), (None if width else 1)
        table.add_column(column, no_wrap=True, width=width, ratio=ratio, justify=justify)
    colours = {"ready": "green", "incomplete": "yellow", "absent": "dim"}
    for item in sets:
        # The name of a licence without its conditions.
        licence = re.split(r" \(|[;,]| according", item.licence)[0]
        name = item.name + "*" * item.by_name_only
        state = f"[{colours[item.state]}]{item.state}[/]"
        table.add_row(name, item.title.split(" (")[0], f"{item.megabytes:g}", state, licence)
    return table


def render_inspection(findings: Any) -> Any:
    """Return what ``inspect`` found as rich text: what was understood, the classes, what training and test
    will see, what is suspicious.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Classes", title_justify="left")
    for column in ("id", "name", "mask value", "pixels", "images with it", "median object (px)"):
        table.add_column(column, justify="right" if column != "name" else "left")
    for row in findings.classes:
        size = "" if row["median_object"] is None else f"{row['median_object']:g}"
        share = f"{row['fraction']:.4%}"
        table.add_row(
            str(row["id"]), escape(row["name"]), row["values"], share, f"{row['present']:.1%}", size
        )
    # Names of files may hold brackets, which rich would take for markup.
    understood = f"{escape(findings.layout)}, {findings.pairs} pairs, {escape(findings.sizes)}"
    warnings = [f"[yellow]![/] {escape(text)}" for text in findings.suspicious] or ["nothing suspicious"]
    return Group(
        f"[bold]{escape(findings.path)}[/]: {understood}",
        escape(findings.split),
        table,
        *map(escape, findings.sees),
        *warnings,
    )
