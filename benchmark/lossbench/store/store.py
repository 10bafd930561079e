"""One file a cell: the only place that touches records on disk.

    results = Store("results")
    results.open_for_writing()                  # UserError at once where nothing can be written
    states = results.state([(key, fp), ...])    # {key: State("done" | "stale" | "failed" | "missing", why)}
    with results.claim(pairs) as mine: ...      # leases on the pairs without a record that nobody else trains
    results.write(record)
    results.write_error(key, fp, error="one sentence", kind="error", trace=...)
    results.read(key, fp); results.read_error(key, fp)
    for record in results.records(): ...
    done, free = results.wait(busy)             # pairs that another sweep held: until it holds none of them
    for text in results.notes: ...              # what was set aside and why, for the caller to print
    pack.pack(results)                          # the loose records into one archive, which reads like them

The folder: ``cells/<key[:2]>/<key>.<fp8>.json`` and ``...<fp8>.error.json``, where ``key`` is 16 hex and
``fp8`` the first 8 hex of the fingerprint of the loss; so the state of every cell follows from names alone,
and a folder can be mended by hand. ``records.zip`` holds packed records (archive.py); a loose file goes
before them, and an error beside a packed record means that it turned out damaged. ``leases/`` says who trains
what, ``quarantine/`` holds files that were not what their name promised.

A state says that a record is there, not that it is sound: loose files and packed ones are checked by their
sums when a sweep opens the folder, and whole when they are read, as tables are made.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lossbench.base import files
from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, clear_leftover, temporary, write_atomically
from lossbench.store import archive, leases, record
from lossbench.store.paused import States
from lossbench.store.record import SCHEMA, DamagedRecord
from lossbench.store.schema import Record, wrong

__all__ = ["SCHEMA", "LooseFile", "State", "Store"]

RECORD, ERROR = ".json", ".error.json"
KINDS = {"json": RECORD, "error.json": ERROR}

Pair = tuple[str, str]  # (key, fingerprint of the loss)
NO_TRUNKS: Mapping[Pair, str] = {}
Facts = dict[str, Any]  # a record or an error record, as schema.py describes it


@dataclass(frozen=True)
class State:
    """Where a cell stands: "done", "stale", "failed" or "missing"; ``why`` says it in a clause ("" if
    done).
    """

    status: str
    why: str = ""


class LooseFile(NamedTuple):
    """A loose record that reads well: the CRC-32 and the size of its bytes, and what tells the file from
    others.
    """

    content: tuple[int, int]
    mark: tuple


class Store:
    """A results folder. Making one touches nothing; reading works where nothing is, or nothing can be
    written.
    """

    def __init__(self, folder: str | Path, *, beat: float = leases.BEAT, patience: float = leases.PATIENCE):
        self.folder = Path(folder)
        self.cells = self.folder / "cells"
        self.quarantine = self.folder / "quarantine"
        self.pack = archive.Archive(self.folder / archive.NAME)
        self.leases = leases.Leases(self.folder / "leases", beat, patience)
        self.states = States(self.folder)
        self.notes: list[str] = []

    # What is there

    def path(self, key: str, fp: str, kind: str = RECORD) -> Path:
        """Where the record (or the error) of a cell lies."""
        if not record.KEY.fullmatch(key) or not record.FINGERPRINT.fullmatch(fp):
            raise ValueError(f"not a cell key and a loss fingerprint: {key!r}, {fp!r}")
        return self.cells / key[:2] / f"{key}.{fp[:8]}{kind}"

    def has(self, key: str, fp: str) -> bool:
        """Whether the cell is recorded for this source of its loss."""
        return self.path(key, fp).exists() or self.packed(key, fp)

    def packed(self, key: str, fp: str) -> bool:
        """Whether the pack holds the record of the cell, as far as anybody knows undamaged."""
        return (key, fp[:8]) in self.pack.members() and not self.path(key, fp, ERROR).exists()

    def exists(self) -> bool:
        """Whether this is a results folder at all."""
        return self.cells.is_dir() or self.pack.path.is_file()

    def count(self) -> int:
        """How many cells have a record, of whatever source of their loss."""
        return len(self.recorded())

    def recorded(self) -> list[Pair]:
        """The cells that have a record, by key, each with the newest source of its loss."""
        return self._newest()

    def state(self, pairs: Iterable[Pair], labels: Mapping[str, str] | None = None) -> dict[str, State]:
        """Return the state of each cell, from directory listings alone; ``labels`` names the loss of each
        key.
        """
        pairs = list(pairs)
        there: dict[str, list[tuple[str, str]]] = {}
        for shard in {key[:2] for key, _ in pairs}:
            for key, fp, kind in self._names(shard):
                there.setdefault(key, []).append((fp, kind))
        if self.pack.members():  # after the listings: what is packed meanwhile stands in one of the two
            for key, _ in pairs:
                names = there.setdefault(key, [])
                names += [(fp, RECORD) for fp in self.pack.sources(key) if (fp, ERROR) not in names]
        labels = labels or {}
        return {key: self._state(key, fp[:8], there.get(key), labels.get(key, "")) for key, fp in pairs}

    def read(self, key: str, fp: str) -> Facts | None:
        """Return the record of a cell, or None. A file that is not that record is set aside and its cell is
        missing.
        """
        loose = self._read(self.path(key, fp), key, fp[:8])
        return loose if loose is not None or not self.packed(key, fp) else self.read_packed(key, fp)

    def read_packed(self, key: str, fp: str) -> Facts | None:
        """Return the record that the pack holds of a cell. A damaged one is noted as an error: its cell
        runs again.
        """
        try:
            data = self.pack.read(key, fp)
            return None if data is None else record.decode(data, key, fp[:8], f"{self.pack.path}: {key}")
        except DamagedRecord as why:
            self._note_damage(key, fp, str(why))
            return None

    def read_error(self, key: str, fp: str) -> Facts | None:
        """Return what is known of the last failure of a cell, or None."""
        return self._read(self.path(key, fp, ERROR), key, fp[:8])

    def records(self, pairs: Iterable[Pair] | None = None) -> Iterator[Facts]:
        """Yield the records of the pairs, in their order; without pairs the newest of each key, by key."""
        for key, fp in self._newest() if pairs is None else pairs:
            facts = self.read(key, fp)
            if facts is not None:
                yield facts

    # Writing

    def open_for_writing(self) -> None:
        """Make the folder, prove that it can be written, and clear what dead writers left. Call it before
        training.
        """
        try:
            now = self._probe()
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        self.leases.live()  # which removes those of dead owners
        shards = list(self.cells.glob("[0-9a-f][0-9a-f]"))
        for folder in (self.folder, self.folder / "leases", self.cells, *shards):
            with os.scandir(folder) as entries:
                for entry in list(entries):
                    if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                        clear_leftover(entry, now)
                    elif entry.name.endswith(RECORD) and folder in shards:
                        self._check(Path(entry.path))
        if self.pack.members():
            self._clear_mended(shards)
        strange = [ascii(name)[:60] for name in self.pack.foreign]
        if strange:
            names = ", ".join(strange[:3])
            self.notes.append(f"{self.pack.path}: the members {names} are not records and are passed over")

    def check_pack(self) -> None:
        """Note a packed record that does not fit its check sum as an error, unless a loose one replaces it:
        its cell runs again.
        """
        for key, fp in list(self.pack.members()):
            if self.path(key, fp).exists() or not self.packed(key, fp):
                continue
            try:
                why = record.flaw(self.pack.read(key, fp) or b"")
            except DamagedRecord as error:
                why = str(error)
            if why:
                self._note_damage(key, fp, why)

    def write(self, facts: Facts) -> Path:
        """Write a finished cell, atomically; then remove its errors and the records of other sources of its
        loss.

        ValueError where reading would refuse it.
        """
        facts = record.plain({"schema": SCHEMA, **facts})
        mistake = wrong(Record, facts)
        if mistake:
            raise ValueError(f"this is no record of a cell ({facts.get('key')!r}): {mistake}")
        path = self._put(facts, RECORD)
        # Only now that the new record is there: a kill in between leaves two sources, of which the newer
        # counts.
        for key, fp, kind in self._names(path.parent.name):
            if key == facts["key"] and (fp, kind) != (facts["loss_fingerprint"][:8], RECORD):
                with contextlib.suppress(OSError):
                    self.path(key, fp, kind).unlink()
        return path

    def write_error(self, key: str, fp: str, *, error: str, kind: str = "error", **facts: Any) -> Path:
        """Write why a cell has no record (``facts``: trace, attempts, cell, ...); it never blocks a
        re-run. Of paths only the last part is kept, and of long texts the beginning.
        """
        facts = {name: _short(value) for name, value in {"error": error, **facts}.items()}
        return self._put({"key": key, "loss_fingerprint": fp, "kind": kind, **facts}, ERROR)

    # Leases

    @contextlib.contextmanager
    def claim(self, pairs: Iterable[Pair], trunks: Mapping[Pair, str] = NO_TRUNKS) -> Iterator[list[Pair]]:
        """Hold leases on those pairs that have no record and that no other process trains; yield them.

        Pairs of one trunk (pair -> its 16 hex digits) share a lease, for whoever trains one length of it
        would train the same steps as who trains another."""
        held: list[leases.Lease] = []
        mine: list[Pair] = []
        leased: dict[Pair, list[Pair]] = {}
        for key, fp in pairs:
            if not self.has(key, fp):
                leased.setdefault((trunks.get((key, fp), key), fp), []).append((key, fp))
        try:
            for name, own in leased.items():
                lease = self._lease(*name)
                if lease is not None:
                    held.append(lease)
                    # Some may have been recorded between the look and the lease.
                    mine += [pair for pair in own if not self.has(*pair)]
            yield mine
        finally:
            # Also those of a task that was interrupted: nobody should wait for them.
            for lease in held:
                self.leases.give(lease)

    def wait(
        self,
        pairs: Iterable[Pair],
        trunks: Mapping[Pair, str] = NO_TRUNKS,
        *,
        poll: float = 2.0,
        timeout: float | None = None,
    ) -> tuple[list[Pair], list[Pair]]:
        """Wait until no other process holds any of the pairs, or of their trunks; return those recorded by
        then and those free to claim. After ``timeout`` seconds some may be in neither list.
        """
        pairs, start = list(pairs), time.monotonic()
        names = {(key, fp): (trunks.get((key, fp), key), fp[:8]) for key, fp in pairs}
        while True:
            # Leases first: a cell whose lease goes while we look has its record by then, or is free.
            live = self.leases.live()
            done = [pair for pair in pairs if self.has(*pair)]
            free = [pair for pair in pairs if pair not in done and names[pair] not in live]
            late = timeout is not None and time.monotonic() - start >= timeout
            if late or len(done) + len(free) == len(pairs):
                return done, free
            time.sleep(poll)

    # For packing

    def loose(self) -> list[Pair]:
        """The cells that have a loose record, and of each the newest source of its loss."""
        return self._newest(packed=False)

    def loose_file(self, key: str, fp: str) -> LooseFile | None:
        """Return what the file of a loose record is, as far as it reads well; None where there is none."""
        path = self.path(key, fp)
        with contextlib.suppress(FileNotFoundError):
            seen = archive.mark(path.stat())
            data = path.read_bytes()
            if self._read(path, key, fp) is not None:
                return LooseFile((zlib.crc32(data), len(data)), seen)
        return None

    def older(self, newest: Mapping[str, str]) -> list[tuple[str, str, Path]]:
        """(key, its newest source, path) of each loose record under another source of its loss."""
        names = itertools.chain.from_iterable(self._names(shard) for shard in {key[:2] for key in newest})
        old = ((key, fp) for key, fp, kind in names if kind == RECORD and newest.get(key, fp) != fp)
        return [(key, newest[key], self.path(key, fp)) for key, fp in old]

    # Inside

    def _names(self, shard: str) -> list[tuple[str, str, str]]:
        """(key, fp8, kind) of every well-named file of a shard."""
        try:
            names = os.listdir(self.cells / shard)
        except (FileNotFoundError, NotADirectoryError):
            return []
        named = (_split(name, shard) for name in names)
        return [triple for triple in named if triple is not None]

    def _newest(self, packed: bool = True) -> list[Pair]:
        """One pair a recorded cell, by key; of two sources of its loss the one that was written last."""
        sources: dict[str, list[str]] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for shard in sorted(os.listdir(self.cells)):
                for key, fp, kind in self._names(shard):
                    if kind == RECORD:
                        sources.setdefault(key, []).append(fp)
        # Loose files go before packed ones: they are newer, or equal.
        for key, fp in self.pack.members() if packed else ():
            if key not in sources and self.packed(key, fp):
                sources[key] = [fp]
        return [
            (key, fps[0] if len(fps) == 1 else self._last(key, fps)) for key, fps in sorted(sources.items())
        ]

    def _last(self, key: str, fps: list[str]) -> str:
        def age(fp: str) -> tuple[int, str]:
            with contextlib.suppress(OSError):
                return self.path(key, fp).stat().st_mtime_ns, fp
            return 0, fp

        return max(fps, key=age)

    def _read(self, path: Path, key: str, fp: str) -> Facts | None:
        try:
            with open(path, "rb") as file:
                # Of the file that was read: a good one may take its place before this one is set aside.
                data, seen = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read the record {path}: {error.strerror}") from None
        try:
            return record.decode(data, key, fp, str(path), error=path.name.endswith(ERROR))
        except DamagedRecord as why:
            self._set_aside(path, str(why), seen)
            return None

    def _probe(self) -> float:
        """Write and remove a file; return the time by the clock of the file server, which dates its files."""
        self.cells.mkdir(parents=True, exist_ok=True)
        (self.folder / "leases").mkdir(exist_ok=True)
        probe = temporary(self.cells / "probe")
        probe.write_bytes(b"lossbench\n")
        now = probe.stat().st_mtime
        probe.unlink()
        return now

    def _check(self, path: Path) -> None:
        """Set a file aside whose name is foreign, that is cut, or whose check sum does not fit; nothing is
        parsed.
        """
        if _split(path.name, path.parent.name) is None:
            return self._set_aside(path, "its name is not that of a record", path.stat())
        try:
            with open(path, "rb") as file:
                seen, why = os.fstat(file.fileno()), record.flaw(file.read())
        except OSError:
            return None
        return self._set_aside(path, why, seen) if why else None

    def _clear_mended(self, shards: list[Path]) -> None:
        """Remove the errors beside packed records that read well again: the pack has been mended
        meanwhile.
        """
        for key, fp, kind in itertools.chain.from_iterable(self._names(shard.name) for shard in shards):
            packed = kind == ERROR and (key, fp) in self.pack.members()
            if packed and self.read_packed(key, fp) is not None:
                self.path(key, fp, ERROR).unlink(missing_ok=True)

    def _note_damage(self, key: str, fp: str, why: str) -> None:
        text = f"the record of cell {key} in {self.pack.path} is damaged: {why}"
        self.notes.append(f"{text}; its cell counts as missing")
        with contextlib.suppress(UserError):  # a folder that cannot be written is read all the same
            self.write_error(key, fp, error=text, kind="damaged")

    def _set_aside(self, path: Path, why: str, seen: os.stat_result) -> None:
        self.notes += files.set_aside(path, self.quarantine, why, seen)

    def _put(self, facts: Facts, kind: str) -> Path:
        data = record.encode(facts)
        path = self.path(facts["key"], facts["loss_fingerprint"], kind)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        return path

    def _lease(self, key: str, fp: str) -> leases.Lease | None:
        try:
            return self.leases.take(key, fp)
        except OSError as error:
            raise cannot_write(self.folder, error) from None

    def _state(self, key: str, fp: str, there: list[tuple[str, str]] | None, label: str) -> State:
        if not there:
            return State("missing", "never run")
        if (fp, RECORD) in there:
            return State("done")
        if (fp, ERROR) in there:
            return State("failed", f"the last attempt failed; {self.path(key, fp, ERROR)} says how")
        old = max((other for other, kind in there if kind == RECORD), default="")
        loss = f"loss '{label}'" if label else "the loss"
        if old:
            return State("stale", f"the source of {loss} changed (record {old}, now {fp})")
        return State("missing", f"never finished; it failed under another source of {loss}")


def _split(name: str, shard: str) -> tuple[str, str, str] | None:
    """Return (key, fp8, kind) of a file's name; None where it is no name of a record in that shard."""
    key, _, rest = name.partition(".")
    fp, _, ending = rest.partition(".")
    well_named = len(fp) == 8 and key[:2] == shard and record.KEY.fullmatch(key) is not None
    return (key, fp, KINDS[ending]) if well_named and ending in KINDS else None


def _short(value: Any, most: int = 4000) -> Any:
    """Return a text as an error record keeps it: without folders, which may hold a user's name."""
    if not isinstance(value, str):
        return value
    # A lone surrogate could not be written anywhere.
    text = value[: 2 * most].encode("utf-8", "replace").decode()
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\":,]+/)+(?=[^\s/])", "", text)[:most]
