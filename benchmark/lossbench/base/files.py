"""Writing a file so that a reader sees all of it or nothing, and knowing what a dead writer left."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from lossbench.base.errors import CannotWrite, UserError
from lossbench.base.process import host, is_dead, owner

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_DAY = 86_400.0  # seconds; a temporary file of another host is a dead writer's when older

CERTIFICATE = "verified.json"  # what ``verify`` leaves in a results folder, and the report tells of

# Two threads of one process may write the same file.
_serial = itertools.count()


def temporary(path: Path) -> Path:
    """A hidden name in the same folder that says who writes: ``.<name>.<owner>.<n>.tmp``."""
    return path.with_name(f".{path.name}.{owner()}.{next(_serial)}.tmp")


def last_part(path: str | Path) -> str:
    """Return what a file or folder is called, also where the path ends in '.' or '..'."""
    path = Path(path)
    return path.name if path.name not in ("", "..") else path.expanduser().resolve().name


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, flush, rename. After an OSError nothing half-written
    stays.
    """
    draft = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            # A name that outlives a power cut must not stand for content that did not.
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
    """Remove a temporary file whose writer is dead; ``now`` is the time by the clock that dates files
    there.
    """
    with contextlib.suppress(OSError, IndexError):
        word = entry.name.rsplit(".", 3)[1]
        # A process of this host says whether it lives, whatever the clock did to the file's date.
        here = word.split("-")[0] == host()
        if is_dead(word) if here else now - entry.stat().st_mtime > _DAY:
            os.unlink(entry.path)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """Return sixteen hex digits over the bytes of a user's file; UserError where it cannot be read."""
    try:
        return sha256_of(path)[:16]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def cannot_write(folder: Path, error: OSError) -> CannotWrite:
    """The sentence for a results folder that refused."""
    if error.errno in _FULL:
        why = "no space is left there; nothing was half-written: make room and run the same command again"
    else:
        why = f"{(error.strerror or str(error)).lower()}; name another with --results"
    return CannotWrite(f"the results folder '{folder}' cannot be written: {why}")


# --- JSON as it is read from disk: strict and of bounded depth, so that a damaged file is a ValueError
# here and no surprise later.

_ESCAPED = re.compile(
    r"\\u[dD][89abAB]"
)  # half of a pair of surrogates: alone it is no text and no file can hold it


def parse(data: bytes) -> Any:
    """Return what strict JSON in UTF-8 says; ValueError for anything else: NaN, endless nests, text that
    could not be written again.
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse)
        if _ESCAPED.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def read(path: Path) -> Any:
    """Return what a file of strict JSON says; OSError or ValueError when it cannot be read."""
    return parse(path.read_bytes())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# --- Where files go that are not what their name promises: moved, never deleted, so that whoever wants
# can look at them.


def set_aside(path: Path, folder: Path, why: str, seen: os.stat_result) -> list[str]:
    """Move a bad file to ``folder``, unless a good one has taken its place since it was read; return what to
    say of it.
    """
    try:
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns, now.st_size) != (seen.st_ino, seen.st_mtime_ns, seen.st_size):
            return []
        folder.mkdir(parents=True, exist_ok=True)
        names = (
            f"{path.name}{suffix}" for suffix in itertools.chain([""], (f".{n}" for n in itertools.count(1)))
        )
        target = next(t for t in (folder / name for name in names) if not t.exists())
        os.replace(path, target)
        return [f"set aside {path}: {why}; it lies in {target} now, and its cell counts as missing"]
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} is passed over: {why} (it could not be moved: {error.strerror})"]
