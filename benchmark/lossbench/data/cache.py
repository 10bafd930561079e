"""The cache folder: one writer at a time, and folders that are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


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
