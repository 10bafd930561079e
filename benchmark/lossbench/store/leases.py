"""Who trains which cell right now: leases with a heartbeat, so that two sweeps never train a cell twice.

Every claim is a file of its own, ``leases/<key>.<fp8>.<token>``; its name is unique to its owner. To claim a
cell is to create the file and then to look: whoever sees another live claim takes its own back. Creating
comes before looking, so of two claimants at least one sees the other; and since a stale file is removed by
its unique name, taking over from a dead owner can never hit a fresh claim. This needs exclusive creation and
listing, which network file systems have.

A claim is stale when its owner's process on *this* host is gone, or when its heartbeat counter has stood
still for ``patience`` seconds of the observer's own monotonic clock: no clock of another machine and no file
time is compared. An owner that was paused that long finds its file gone (``held`` is then False); its record
would be the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from pathlib import Path

from lossbench.base.files import temporary
from lossbench.base.process import is_dead, owner

BEAT = 5.0  # seconds between heartbeats

# Twelve beats: a busy disk or a slow network must not make a live owner look dead.
PATIENCE = 60.0  # seconds without a heartbeat after which an owner counts as dead


class Lease:
    """One held claim. ``held`` tells whether it still stands."""

    def __init__(self, path: Path):
        # A claim without its owner's name, which a kill would leave behind, could never be called dead.
        self.path = temporary(path)
        self._lock = threading.Lock()
        self._beats = 0
        # Exclusive: two processes can never hold one file, not even by chance of their tokens.
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(self.path, flags, 0o644)
        try:
            self.beat()
            self.path = self.path.rename(path)
        except OSError:
            self.release()
            raise

    @property
    def held(self) -> bool:
        return self._file >= 0 and self.path.exists()

    def beat(self) -> None:
        """Raise the counter through the open file, so that a paused owner can never write over its
        successor.
        """
        with self._lock:
            if self._file >= 0:
                self._beats += 1
                os.lseek(self._file, 0, os.SEEK_SET)
                # Always of the same length, so that a reader never sees the end of an older one.
                os.write(self._file, f"{owner()} {self._beats:012d}\n".encode())
                os.fsync(self._file)

    def release(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        with contextlib.suppress(OSError):
            self.path.unlink()


class Leases:
    """The leases of one results folder, seen from this process: what it holds, and what it has seen of
    others.
    """

    def __init__(self, folder: Path, beat: float = BEAT, patience: float = PATIENCE):
        self.folder, self.beat, self.patience = folder, beat, patience
        self._held: set[Lease] = set()
        # File name -> its content, and when on this process's monotonic clock that last changed.
        self._seen: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self, key: str, fp: str) -> Lease | None:
        """Claim a cell; None when somebody alive has it. Raises OSError where the folder cannot be
        written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # A look before is cheap and spares the claimants of a busy folder most files; the one after decides.
        if self.others(key, fp):
            return None
        lease = Lease(self.folder / f"{key}.{fp[:8]}.{secrets.token_hex(8)}")
        try:
            if self.others(key, fp, besides=lease.path.name):
                lease.release()
                return None
        except BaseException:
            lease.release()
            raise
        with self._lock:
            self._held.add(lease)
            # One thread for all leases of this process, and none while it holds none.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._keep_beating, name="lease heartbeat", daemon=True
                )
                self._thread.start()
        return lease

    def give(self, lease: Lease) -> None:
        """Release a lease that ``take`` returned."""
        with self._lock:
            self._held.discard(lease)
        lease.release()

    def others(self, key: str, fp: str, besides: str = "") -> list[str]:
        """Names of live claims on a cell; stale ones are removed on the way."""
        prefix = f"{key}.{fp[:8]}."
        names = [name for name in self._names() if name.startswith(prefix) and name != besides]
        return [name for name in names if not self._clear_if_stale(name)]

    def bury(self, word: str) -> None:
        """Remove every claim of an owner that is known to be dead, wherever it ran."""
        for name in self._names():
            with contextlib.suppress(OSError):
                path = self.folder / name
                if path.read_text(errors="replace").split(" ")[0] == word:
                    path.unlink(missing_ok=True)

    def live(self) -> set[tuple[str, str]]:
        """(key, first 8 of the fingerprint) of all cells under a live claim; stale claims are removed on the
        way.
        """
        return {tuple(name.split(".")[:2]) for name in self._names() if not self._clear_if_stale(name)}

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if name.count(".") == 2]
        except FileNotFoundError:
            return []

    def _clear_if_stale(self, name: str) -> bool:
        """True when the claim is gone or was stale and has been removed."""
        path = self.folder / name
        try:
            content = path.read_text(errors="replace")
        except FileNotFoundError:
            self._seen.pop(name, None)
            return True
        except OSError:
            return False
        # What is compared is this process's own clock with itself: the content of the file only has to
        # change.
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if before != content:
            before, since = content, now
            self._seen[name] = (content, now)
        if not is_dead(content.split(" ")[0]) and now - since < self.patience:
            return False
        self._seen.pop(name, None)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _keep_beating(self) -> None:
        while True:
            time.sleep(self.beat)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._thread = None
                    return
            for lease in held:
                with contextlib.suppress(OSError):  # a full disk or a lost share must not end the heartbeat
                    lease.beat()
