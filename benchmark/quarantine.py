"""Where files go that are not what their name promises: moved, never deleted, so that whoever wants can look at them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path


def set_aside(path: Path, folder: Path, why: str, seen: os.stat_result) -> list[str]:
    """Move a bad file to ``folder``, unless a good one has taken its place since it was read; return what to say of it."""
    try:
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns, now.st_size) != (seen.st_ino, seen.st_mtime_ns, seen.st_size):
            return []
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"{path.name}{suffix}" for suffix in itertools.chain([""], (f".{n}" for n in itertools.count(1))))
        target = next(t for t in (folder / name for name in names) if not t.exists())
        os.replace(path, target)
        return [f"set aside {path}: {why}; it lies in {target} now, and its cell counts as missing"]
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} is passed over: {why} (it could not be moved: {error.strerror})"]
