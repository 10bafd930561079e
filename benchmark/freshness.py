"""Whether stored tables still say what the records say, so that a report does not read a hundred thousand records again for nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmark.files import write_atomically
from benchmark.store import Store

STAMP = "made_from.json"
CODE = Path(__file__).parent / "analysis"


def digest(store: Store, note: dict[str, Any]) -> str:
    """Return a hash of all that tables are made of: the noted cells and their labels, the version of each record that is there, and
    the code. No clock is compared: a loose file counts by its size and time as they are, a packed one by its check sum.
    """
    told = hashlib.sha256()
    for source in sorted(CODE.glob("*.py")):
        told.update(f"{source.name} {hashlib.sha256(source.read_bytes()).hexdigest()} ".encode())
    told.update(note["name"].encode())
    packed = store.pack.members()
    for row in note["cells"]:
        told.update(json.dumps([row, _version(store, packed, *row[:2])]).encode())
    return told.hexdigest()


def is_fresh(folder: Path, found: str) -> bool:
    """Whether the tables in ``folder`` were made from what this digest stands for, and lie there as they were written."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return stamp["digest"] == found and all((folder / name).stat().st_size == size for name, size in stamp["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def stamp(folder: Path, found: str, files: list[Path], cells: int) -> None:
    """Note what the tables were made from."""
    facts = {"digest": found, "cells": cells, "files": {file.name: file.stat().st_size for file in files}}
    write_atomically(folder / STAMP, (json.dumps(facts, indent=1) + "\n").encode())


def cells(folder: Path) -> int:
    """Return the number of cells in tables that are fresh."""
    return json.loads((folder / STAMP).read_text(encoding="utf-8"))["cells"]


def _version(store: Store, packed: dict, key: str, fp: str) -> list[int] | None:
    try:
        facts = store.path(key, fp).stat()
        return [facts.st_size, facts.st_mtime_ns]
    except OSError:
        info = packed.get((key, fp[:8]))
        return [info.file_size, info.CRC] if info and store.packed(key, fp) else None
