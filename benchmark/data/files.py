"""Files on disk: checked against their hash once and remembered, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmark.data import sources
from benchmark.errors import UserError


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(name: str, paths: Iterable[str] | None = None, *, again: bool = False, seen: Callable = lambda n: None) -> Path:
    """Check registered files of a public set against their sha256 and return the folder they lie in.

    ``paths`` restricts to some of the files. A file is hashed once and remembered by (path, size, time of change) in
    the cache unless ``again``; ``seen(n)`` is called after each file. A missing, damaged or foreign file raises
    UserError naming it.
    """
    source = sources.source(name)
    folder = sources.raw_folder(name)
    if folder is None:
        raise UserError(sources.how_to_get(name))
    wanted = list(source.files if paths is None else paths)
    memory = _remembered(name)
    fresh = {}
    for path in wanted:
        file = folder / path
        try:
            stat = file.stat()
            key, mark = str(file.absolute()), [stat.st_size, stat.st_mtime_ns, source.files[path]]
            if again or memory.get(key) != mark:
                found = sha256_of(file)
                if found != source.files[path]:
                    raise UserError(
                        f"{file}: is damaged or not the registered file (sha256 {found[:12]}..., expected {source.files[path][:12]}...); "
                        f"delete it and run 'lossbench data fetch {name}'"
                    )
                fresh[key] = mark
        except OSError as error:
            raise UserError(f"{file}: {_reason(error)}; run 'lossbench data fetch {name}' to complete the set") from None
        seen(1)
    if fresh:
        _remember(name, memory | fresh)
    return folder


def hashes(paths: list[Path], root: Path) -> list[str]:
    """Return the sha256 of a user's files, each hashed once and remembered like those of the public sets."""
    name = "user-" + hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    memory, fresh, found = _remembered(name), {}, []
    for path in paths:
        try:
            stat = path.stat()
            key = str(path.absolute())
            known = memory.get(key)
            if not known or known[:2] != [stat.st_size, stat.st_mtime_ns]:
                known = fresh[key] = [stat.st_size, stat.st_mtime_ns, sha256_of(path)]
        except OSError as error:
            raise UserError(f"{path}: {_reason(error)}") from None
        found.append(known[2])
    if fresh:
        _remember(name, memory | fresh)
    return found


def remembered_hash(root: Path, compute: Callable[[], str]) -> str:
    """Return ``compute()``, a hash of what lies below a folder (or of one file), remembered while no name, size or time of change differs."""
    name = "tree-" + hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    mark = _tree_mark(root)
    known = _remembered(name)
    if known.get("mark") == mark and isinstance(known.get("hash"), str):
        return known["hash"]
    found = compute()
    _remember(name, {"mark": mark, "hash": found})
    return found


def _tree_mark(root: Path) -> str:
    digest = hashlib.sha256()
    todo = [str(root)]
    while todo:
        try:
            with os.scandir(todo[-1]) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            found = []
        except OSError as error:
            raise UserError(f"{todo[-1]}: {_reason(error)}") from None
        stat = os.stat(todo.pop())
        digest.update(f"{stat.st_size} {stat.st_mtime_ns};".encode())
        for entry in found:
            if entry.is_dir():
                todo.append(entry.path)
            else:
                stat = entry.stat()
                digest.update(f"{entry.path} {stat.st_size} {stat.st_mtime_ns};".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _reason(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _memory_file(name: str) -> Path:
    return sources.cache_root() / "verified" / f"{name}.json"


def _remembered(name: str) -> dict:
    try:
        memory = json.loads(_memory_file(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}


def _remember(name: str, memory: dict) -> None:
    # Only a memory of work done: where it cannot be kept, the files are simply hashed again.
    with contextlib.suppress(OSError):
        write_whole(_memory_file(name), json.dumps(memory).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends well and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield work
        try:
            os.rename(work, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into the block, where the system offers file locks; the lock dies with its process."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        with contextlib.suppress(OSError):  # some network file systems have no locks; then two may prepare, one wins
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def plain(error: OSError) -> str:
    """Return the reason of a failed write in the words a user needs."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    return full.get(error.errno, error.strerror or str(error))
