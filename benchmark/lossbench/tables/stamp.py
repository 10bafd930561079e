"""Whether stored tables are as they were written, and whether they still say what the records say, so that a
report does not read a hundred thousand records again for nothing.

The stamp of a folder of tables notes what they were made from (``digest``) and a check sum of each: of those
made from the records (``files``), and of those that a report derives from them (``derived``).
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lossbench.base import files as strictjson
from lossbench.base.errors import typed
from lossbench.base.files import write_atomically
from lossbench.store.integrity import Found
from lossbench.store.note import Note
from lossbench.store.store import Store

STAMP = "made_from.json"
FOREIGN = "it is not what a report wrote there"
MARK = re.compile(r"\d+ [0-9a-f]{8}")

# Whose change may change a table.
PACKAGE = Path(__file__).parents[1]
CODE = (PACKAGE / "base", PACKAGE / "store", PACKAGE / "tables")
FACTS = {
    "name",
    "parts",
    "losses",
    "datasets",
    "recipes",
    "seeds",
    "looks",
    "choice",
}  # of the note that stand in tables, beside its cells


def digest(store: Store, note: Note) -> str:
    """Return a hash of all that tables are made of: what the note says, the version of each record that is
    there, and the code. No clock is compared: a loose file counts by its size and time as they are, a
    packed one by its check sum.
    """
    total = hashlib.sha256(note.model_dump_json(include=FACTS).encode())
    for source in sorted(file for folder in CODE for file in folder.glob("*.py")):
        total.update(f"{source.name} {hashlib.sha256(source.read_bytes()).hexdigest()} ".encode())
    packed = store.pack.members()
    # Versions instead of contents: a hundred thousand records would take minutes to read.
    for cell in note.cells:
        total.update(json.dumps([cell, _version(store, packed, cell.key, cell.fingerprint)]).encode())
    return total.hexdigest()


def is_fresh(folder: Path, digest: str) -> bool:
    """Whether the tables in ``folder`` were made from what this digest stands for, and lie there as they were
    written.
    """
    noted = _noted(folder)
    files = noted.get("files", {})
    same = noted.get("digest") == digest and bool(files)
    return same and not any(is_changed(folder / name) for name in files)


def is_changed(file: Path) -> bool:
    """Whether a table is not as it was written when it was noted what it is made from; False where nothing
    was noted of it.
    """
    mark = _marks(_noted(file.parent)).get(file.name)
    try:
        return isinstance(mark, str) and _mark(file) != mark
    except OSError:
        return True


def check(folder: Path) -> tuple[int, Found]:
    """Read every table of a folder by its check sum; return how many there are, and what was found."""
    found = Found()
    # The JSON files beside them are no tables, and a hidden file is what a dead writer left.
    tables = sorted(file for file in folder.glob("[!.]*.*") if file.suffix != ".json")
    flaw = _flaw(folder) if tables else ""
    if flaw:
        again = (
            f"no change of a table would be seen; `{typed('report', '--results', folder.parent)}` writes it"
        )
        found.damaged.append(f"{folder / STAMP}: {flaw}, so that {again}")
    known = {} if flaw else _marks(_noted(folder))
    found.unmarked += [str(file) for file in tables if file.name not in known]
    changed = [file for file in tables if file.name in known and is_changed(file)]
    found.damaged += [f"{file}: it is not what was written there" for file in changed]
    return len(tables), found


def stamp(folder: Path, digest: str, files: list[Path]) -> None:
    """Note what the tables were made from, and what was written."""
    _write(folder, {"digest": digest, "files": {file.name: _mark(file) for file in files}})


def stamp_derived(folder: Path, files: Iterable[Path]) -> None:
    """Note what a report derived from the tables beside it."""
    # Tables may lie there without what they were made from: a study is passed on without its records.
    noted = {"files": {}, **_noted(folder)}
    _write(folder, {**noted, "derived": {file.name: _mark(file) for file in files}})


def unstamp_derived(folder: Path) -> None:
    """Forget what was derived: it is about to be written anew."""
    noted = _noted(folder)
    if noted.pop("derived", None):
        _write(folder, noted)


def unstamp(folder: Path) -> None:
    """Forget what the tables were made from: they are about to be written anew."""
    (folder / STAMP).unlink(missing_ok=True)


def cells(folder: Path) -> int:
    """Return the number of cells in tables that are fresh."""
    from pyarrow import parquet

    # From the footer of the file, without reading it.
    return parquet.read_metadata(folder / "cells.parquet").num_rows


def _write(folder: Path, facts: dict[str, Any]) -> None:
    write_atomically(folder / STAMP, (json.dumps(facts, indent=1) + "\n").encode())


def _flaw(folder: Path) -> str:
    """Return why a stamp cannot say whether tables are as they were written; empty where it can."""
    try:
        noted = strictjson.read(folder / STAMP)
    except FileNotFoundError:
        return "it is missing"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    # Older stamps know of no derived tables.
    known = {"digest": "", "derived": {}, **noted} if isinstance(noted, dict) else {}
    parts = [known.pop(name, None) for name in ("files", "derived")]
    whole = known.keys() == {"digest"} and all(isinstance(part, dict) for part in parts)
    marks = [mark for part in parts for mark in part.values()] if whole else [None]
    return "" if all(isinstance(mark, str) and MARK.fullmatch(mark) for mark in marks) else FOREIGN


def _marks(noted: dict[str, Any]) -> dict[str, Any]:
    """Return what is noted of each table, by its name."""
    derived = noted.get("derived")
    return {**(derived if isinstance(derived, dict) else {}), **noted.get("files", {})}


def _noted(folder: Path) -> dict[str, Any]:
    try:
        noted = strictjson.read(folder / STAMP)
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) and isinstance(noted.get("files"), dict) else {}


def _mark(file: Path) -> str:
    """The size and the CRC-32 of a file."""
    with open(file, "rb") as opened:
        # In blocks, since a table of images may be larger than the memory that is left.
        size = crc = 0
        while block := opened.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{size} {crc:08x}"


def _version(store: Store, packed: dict, key: str, fp: str) -> list[int] | None:
    try:
        facts = store.path(key, fp).stat()
        return [facts.st_size, facts.st_mtime_ns]
    except OSError:
        info = packed.get((key, fp[:8]))
        return [info.file_size, info.CRC] if info and store.packed(key, fp) else None
