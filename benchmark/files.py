"""Writing a file so that a reader sees all of it or nothing, and knowing what a dead writer left."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

from benchmark.errors import UserError
from benchmark.leases import host, is_dead, owner

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAY = 86_400.0  # seconds; a temporary file of another host is a dead writer's when older
_serial = itertools.count()


def temporary(path: Path) -> Path:
    """A hidden name in the same folder that says who writes: ``.<name>.<owner>.<n>.tmp``."""
    return path.with_name(f".{path.name}.{owner()}.{next(_serial)}.tmp")


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, flush, rename. After an OSError nothing half-written stays."""
    draft = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make new names in a folder last, where folders can be flushed."""
    with contextlib.suppress(OSError, AttributeError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def clear_leftover(entry: os.DirEntry, now: float) -> None:
    """Remove a temporary file whose writer is dead; ``now`` is the time by the clock that dates files there."""
    with contextlib.suppress(OSError, IndexError):
        word = entry.name.rsplit(".", 3)[1]
        here = word.split("-")[0] == host()  # then its process says whether it lives, whatever the clock did to the file's date
        if is_dead(word) if here else now - entry.stat().st_mtime > _DAY:
            os.unlink(entry.path)


def cannot_write(folder: Path, error: OSError) -> UserError:
    """The sentence for a results folder that refused."""
    if error.errno in _FULL:
        why = "no space is left there; nothing was half-written: make room and run the same command again"
    else:
        why = f"{(error.strerror or str(error)).lower()}; name another with --results"
    return UserError(f"the results folder '{folder}' cannot be written: {why}")
