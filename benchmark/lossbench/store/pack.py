"""Records in one file: ``records.zip`` holds finished records, deflated, under the names of the loose files
that they replace.

It is the form in which a study is committed, and the one that scales: a state follows from the archive's
directory, without a listing of thousands of files. To a reader pack and loose files are one store, and loose
wins. ``pack`` writes a whole new archive, reads it back, puts it in the old one's place and only then removes
loose files, so that a kill between any two steps loses nothing, and a reader that looks at loose files first
and at the pack second always finds a record. Nothing is ever extracted to a path: ``python -m zipfile -e
records.zip .`` in the results folder gives the loose files back."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, flush_folder, temporary
from lossbench.store.record import Damaged

if TYPE_CHECKING:
    from lossbench.store.store import Store

NAME = "records.zip"

MEMBER = re.compile(r"cells/([0-9a-f]{2})/(\1[0-9a-f]{14})\.([0-9a-f]{8})\.json")

LARGEST = 256 << 20  # bytes of one record; an archive may promise more than a memory holds

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    OSError,
)

Pair = tuple[str, str]  # (key, first 8 hex of the loss fingerprint)


class Pack:
    """The pack of a results folder, read-only; looked at again whenever its file has changed, empty where
    there is none.
    """

    def __init__(self, path: Path):
        self.path = path
        self.foreign: list[str] = []  # names of members that are no records; nothing is done with them
        self._mark: tuple | None = None
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[Pair, zipfile.ZipInfo] = {}
        self._sources: dict[str, list[str]] = {}

    def members(self) -> dict[Pair, zipfile.ZipInfo]:
        """Return what the archive's directory names now. UserError when the file is no archive."""
        try:
            facts = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            self._forget()
            return self._members
        if (facts.st_ino, facts.st_mtime_ns, facts.st_size) == self._mark:
            return self._members
        self._forget()
        try:
            self._zip = zipfile.ZipFile(self.path)
            facts = os.fstat(self._zip.fp.fileno())
            self._probe()
        except _BROKEN as error:
            why = f"{self.path} cannot be read ({error})"
            raise UserError(
                f"{why}; fetch it again, or move it away and its cells are trained again"
            ) from None
        self._mark = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        for info in self._zip.infolist():
            found = MEMBER.fullmatch(info.filename)
            if found is None:
                self.foreign.append(info.filename)
                continue
            self._members[found[2], found[3]] = (
                info  # of two members of one name the later, as every unzip has it
            )
            self._sources.setdefault(found[2], []).append(found[3])
        return self._members

    def sources(self, key: str) -> list[str]:
        """Return the fingerprints under which a cell is packed; call ``members`` first."""
        return self._sources.get(key, [])

    def read(self, key: str, fp: str) -> bytes | None:
        """Return the bytes of a record, or None; Damaged when its check sum does not fit or it promises too
        much.
        """
        info = self.members().get((key, fp[:8]))
        if info is None:
            return None
        if info.file_size > LARGEST:
            raise Damaged(f"it would unfold to {info.file_size} bytes")
        try:
            return self._zip.read(info)
        except _BROKEN as error:
            raise Damaged(f"it cannot be unpacked ({error})") from None

    def _probe(self) -> None:
        """Raise when the directory is damaged: it fits neither the first nor the last member, or names fewer
        than it counts.
        """
        infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        self._zip.fp.seek(-22, os.SEEK_END)
        end = self._zip.fp.read(22)
        count = struct.unpack("<H", end[10:12])[0]
        if end[:4] == b"PK\5\6" and count not in (len(infos), 0xFFFF):
            raise zipfile.BadZipFile(f"its directory names {len(infos)} of {count} members")
        for info in dict.fromkeys((*infos[:1], *infos[-1:])):
            with contextlib.suppress(*_BROKEN):
                self._zip.open(info).close()
                return
        if infos:
            raise zipfile.BadZipFile("its directory is damaged")

    def _forget(self) -> None:
        if self._zip is not None:
            self._zip.close()
        self._zip, self._mark, self._members, self._sources, self.foreign = None, None, {}, {}, []


def pack(store: Store) -> str:
    """Move the finished loose records of a store into its pack; return the sentence that says what was done.

    Safe beside running sweeps, which go on writing loose records. UserError when somebody else packs or
    nothing can be written."""
    store.open_for_writing()
    try:
        lease = store.leases.take("pack", "records0")
    except OSError as error:
        raise cannot_write(store.folder, error) from None
    if lease is None:
        raise UserError(f"another process is packing {store.folder}; wait until it has ended")
    path, draft = store.folder / NAME, temporary(store.folder / NAME)
    try:
        loose = {pair: facts for pair in store.loose() if (facts := store.facts(*pair)) is not None}
        old = _sound(store)
        new = {
            pair
            for pair, (crc, size, _) in loose.items()
            if pair not in old or (old[pair].CRC, old[pair].file_size) != (crc, size)
        }
        written = {key for key, _ in loose}
        # What a newer record of the same cell replaces does not stay.
        replaced = {pair for pair in old if pair[0] in written and (pair not in loose or pair in new)}
        kept = [pair for pair in old if pair not in replaced]
        if new or len(kept) < len(store.pack.members()) or store.pack.foreign:
            expected = {pair: (old[pair].CRC, old[pair].file_size) for pair in kept} | {
                pair: loose[pair][:2] for pair in new
            }
            _build(store, draft, kept, new)
            _check(draft, expected)
            if any(store.path(*pair, ".error.json").exists() for pair in store.pack.members()):
                _keep_aside(store)  # somebody may still mend what could not be read
            os.replace(draft, path)
            flush_folder(store.folder)
        _remove(store, loose)
    except OSError as error:
        raise cannot_write(store.folder, error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        store.leases.give(lease)
    count = len(store.pack.members())
    size = f", {path.stat().st_size / 1e6:.1f} MB" if count else ""
    return (
        f"{len(new)} records packed, {len(loose) - len(new)} were packed already; {path} holds {count}{size}"
    )


def _sound(store: Store) -> dict[Pair, zipfile.ZipInfo]:
    """The packed records that read well; each other is noted, and its cell will be trained again."""
    return {
        pair: info
        for pair, info in list(store.pack.members().items())
        if store.packed(*pair) and store.read_packed(*pair) is not None
    }


def _build(store: Store, draft: Path, kept: list[Pair], new: set[Pair]) -> None:
    members = store.pack.members()
    as_it_is = len(kept) == len(members) and not store.pack.foreign and members
    if as_it_is:
        shutil.copyfile(store.folder / NAME, draft)
    with zipfile.ZipFile(draft, "a" if as_it_is else "x", zipfile.ZIP_DEFLATED) as target:
        for key, fp in sorted(new if as_it_is else [*kept, *new]):
            data = store.pack.read(key, fp) if (key, fp) not in new else store.path(key, fp).read_bytes()
            info = zipfile.ZipInfo(
                f"cells/{key[:2]}/{key}.{fp}.json"
            )  # dated 1980: equal records give equal bytes
            info.external_attr, info.create_system = 0o100644 << 16, 3
            target.writestr(info, data, zipfile.ZIP_DEFLATED)
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())


def _check(draft: Path, expected: dict[Pair, tuple[int, int]]) -> None:
    """Read the new archive back, every byte of it, before anything relies on it."""
    fresh = Pack(draft)
    found = {pair: (info.CRC, info.file_size) for pair, info in fresh.members().items()}
    try:
        if found == expected and all(fresh.read(*pair) is not None for pair in found):
            return
    except Damaged:
        pass
    finally:
        fresh._forget()
    raise UserError(
        f"{draft.parent}: the new pack did not read back as it was written, so nothing was changed; "
        "is the disk sound?"
    )


def _keep_aside(store: Store) -> None:
    names = (store.quarantine / f"{NAME}.{number}" for number in itertools.count(1))
    store.quarantine.mkdir(exist_ok=True)
    shutil.copyfile(store.folder / NAME, next(name for name in names if not name.exists()))


def _remove(store: Store, loose: dict[Pair, tuple[int, int, os.stat_result]]) -> None:
    """Remove what the pack holds now, each file only if it is still the one that was read."""
    members = store.pack.members()
    superseded: dict[Pair, list[Path]] = {}
    for key, fp, older in store.older(dict(list(loose))):
        superseded.setdefault((key, fp), []).append(older)
    for (key, fp), (crc, size, seen) in loose.items():
        info = members.get((key, fp))
        if info is None or (info.CRC, info.file_size) != (crc, size):
            continue
        with contextlib.suppress(FileNotFoundError):
            now = store.path(key, fp).stat()
            if (now.st_ino, now.st_mtime_ns, now.st_size) == (seen.st_ino, seen.st_mtime_ns, seen.st_size):
                store.path(key, fp, ".error.json").unlink(
                    missing_ok=True
                )  # first: an error beside a packed record says that it is damaged
                for older in superseded.get((key, fp), ()):
                    older.unlink(missing_ok=True)
                store.path(key, fp).unlink()
