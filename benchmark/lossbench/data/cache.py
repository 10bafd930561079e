"""The cache folder: one writer at a time, folders that are complete or absent, and hashes of files, computed
once and remembered while size and time of change stay the same.
"""

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

from lossbench.base.errors import UserError
from lossbench.base.files import sha256_of, write_atomically
from lossbench.base.process import cache_root
from lossbench.data.sources import get_source, how_to_get, raw_folder


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends well and is removed otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # On the same disk, so that a rename suffices, and hidden, so that nobody takes it for the real one.
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
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work on a folder, where the system has file locks.

    A lock ends with its process.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The lock lies beside the folder, which may not exist yet or be about to be removed.
    with (folder.parent / f".{folder.name}.lock").open("a") as file:
        # Some network file systems have no locks: then two processes may do the same work, and one wins.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def reason(error: OSError) -> str:
    """Return why a file could not be written, in the words a user needs."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    return full.get(error.errno, error.strerror or str(error))


# --- hashes of files


def check(
    name: str, paths: Iterable[str] | None = None, *, again: bool = False, seen: Callable = lambda n: None
) -> Path:
    """Check registered files of a public set against their sha256 and return the folder they lie in.

    ``paths`` restricts to some of the files; ``again`` hashes even what is remembered; ``seen(n)`` is called
    after each file. A missing, damaged or foreign file raises UserError naming it.
    """
    source = get_source(name)
    folder = raw_folder(name)
    if folder is None:
        raise UserError(how_to_get(name))
    memory = _Memory(name, forget=again)
    for path in source.files if paths is None else paths:
        expected = source.files[path]
        # A local copy may hold the same pixels in another file, which has a hash of its own.
        if path in source.copies and not (folder / path).is_file():
            path, expected = source.copies[path]
        try:
            got = memory.hash_of(folder / path)
        except OSError as error:
            mend = f"run 'lossbench data fetch {name}' to complete the set"
            raise UserError(f"{folder / path}: {_why_unread(error)}; {mend}") from None
        # Never "mended" in silence: the user may have put another version there on purpose.
        if got != expected:
            raise UserError(
                f"{folder / path}: is damaged or not the registered file (sha256 {got[:12]}..., "
                f"expected {expected[:12]}...); delete it and run 'lossbench data fetch {name}'"
            )
        seen(1)
    memory.keep()
    return folder


def hashes(paths: list[Path], root: Path) -> list[str]:
    """Return the sha256 of a user's files, each hashed once and remembered."""
    memory = _Memory("user-" + _short(root))
    hashed = []
    for path in paths:
        try:
            hashed.append(memory.hash_of(path))
        except OSError as error:
            raise UserError(f"{path}: {_why_unread(error)}") from None
    memory.keep()
    return hashed


def remembered_hash(root: Path, compute: Callable[[], str], how: str = "") -> str:
    """Return ``compute()``, a hash of what lies below a folder (or of one file), looked at as ``how`` says.

    It is remembered while no name, size or time of change below ``root`` differs.
    """
    memory = _Memory("tree-" + _short(root))
    mark = f"{_tree_mark(root)} {how}".strip()
    if memory.known.get("mark") != mark or not isinstance(memory.known.get("hash"), str):
        memory.known = {"mark": mark, "hash": compute()}
        memory.changed = True
        memory.keep()
    return memory.known["hash"]


class _Memory:
    """What is known of files, as JSON in the cache: path -> [size, time of change, sha256]."""

    def __init__(self, name: str, forget: bool = False):
        self.file = cache_root() / "verified" / f"{name}.json"
        self.changed = False
        # To forget is to hash everything again and remember the new results.
        self.known = {} if forget else self._read()

    def _read(self) -> dict:
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def hash_of(self, path: Path) -> str:
        """Return the sha256 of a file, read only where its size or time of change is new."""
        stat = path.stat()
        key, mark = str(path.absolute()), [stat.st_size, stat.st_mtime_ns]
        known = self.known.get(key)
        if not isinstance(known, list) or len(known) != 3 or known[:2] != mark:
            # Size and time of change decide, as in make and git: reading all again would cost seconds.
            known = self.known[key] = [*mark, sha256_of(path)]
            self.changed = True
        return known[2]

    def keep(self) -> None:
        # Only a memory of work done: where it cannot be kept, the files are simply hashed again.
        if self.changed:
            with contextlib.suppress(OSError):
                write_atomically(self.file, json.dumps(self.known).encode())


def _tree_mark(root: Path) -> str:
    """Return a hash over the names, sizes and times of change of what reading would see below a folder.

    As there: hidden files are left out, links are followed, and what cannot be looked at is passed over, such
    as a dangling link, a file that vanishes or a folder without permission.
    """
    digest = hashlib.sha256()  # over facts, not contents: so it is quick for thousands of files
    todo, seen = [str(root)], set()

    def add(path: str, stat: os.stat_result) -> None:
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns};".encode(errors="surrogateescape"))

    while todo:
        place = todo.pop()
        # A link to a folder above would be walked for ever.
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        entries: list[os.DirEntry] = []
        with contextlib.suppress(OSError):
            add(place, os.stat(place))
            entries = sorted(os.scandir(place), key=lambda entry: entry.name) if os.path.isdir(place) else []
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir():
                    todo.append(entry.path)
                else:
                    add(entry.path, entry.stat())
    return digest.hexdigest()


def _short(root: Path) -> str:
    return hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]


def _why_unread(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
