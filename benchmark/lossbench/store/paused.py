"""Trainings on their way, so that an interrupted one goes on where it was.

A state is bytes that only its writer understands, under a name that it chooses. It is no record: losing one
costs time and nothing else, so a damaged one is removed without a word, and a full disk stops no training.
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

from lossbench.base.files import write_atomically

CHECK = 4  # bytes before the state: its CRC-32


class States:
    """The folder ``states`` of a results folder; it is made when the first state is written."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "states"

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.state"

    def write(self, name: str, state: bytes) -> bool:
        """Keep a state in the place of an older one; whether there was room for it."""
        try:
            write_atomically(self.path(name), zlib.crc32(state).to_bytes(CHECK, "big") + state)
        except OSError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """Return the state that was kept last, or None."""
        try:
            data = self.path(name).read_bytes()
        except OSError:
            return None
        check, state = data[:CHECK], data[CHECK:]
        if len(check) == CHECK and zlib.crc32(state) == int.from_bytes(check, "big"):
            return state
        self.clear(name)
        return None

    def clear(self, name: str) -> None:
        """Forget a state that nobody needs any more."""
        with contextlib.suppress(OSError):
            self.path(name).unlink(missing_ok=True)
            self.folder.rmdir()  # if it was the last one
