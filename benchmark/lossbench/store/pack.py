"""Loose records into the pack.

A whole new archive is written, read back, put in the old one's place, and only then are loose files removed,
so that a kill between any two steps loses nothing, and a reader that looks at loose files first and at the
pack second always finds a record.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, flush_folder, temporary
from lossbench.store.archive import NAME, Archive, Pair, mark
from lossbench.store.leases import Lease
from lossbench.store.record import DamagedRecord
from lossbench.store.store import LooseFile, Store


def pack(store: Store, say: Callable[[str], None] = lambda text: None) -> str:
    """Move the finished loose records of a store into its pack; return the sentence that says what was done.

    Safe beside running sweeps, which go on writing loose records. UserError when somebody else goes on
    packing or nothing can be written.
    """
    store.open_for_writing()
    try:
        lease = _turn(store, say)
    except OSError as error:
        raise cannot_write(store.folder, error) from None
    path, draft = store.folder / NAME, temporary(store.folder / NAME)
    try:
        loose = {pair: file for pair in store.loose() if (file := store.loose_file(*pair)) is not None}
        # In this order: until the new pack is in place every record is still where it was.
        new = _replace(store, path, draft, loose)
        _remove(store, loose)
    except OSError as error:
        raise cannot_write(store.folder, error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        store.leases.give(lease)
    count = len(store.pack.members())
    size = f", {path.stat().st_size / 1e6:.1f} MB" if count else ""
    known = f"{len(loose) - len(new)} were packed already"
    return f"{len(new)} records packed, {known}; {path} holds {count}{size}"


def _turn(store: Store, say: Callable[[str], None]) -> Lease:
    """Return the lease on packing, of which only one process has one at a time."""
    lease = store.leases.take("pack", "records0")
    if lease is not None:
        return lease
    # Whether a claim of another host, or of this one before it was started again, is dead, only time shows.
    longest = store.leases.patience + store.leases.beat
    say(f"{store.folder} is claimed by a process that packs or died: waiting, {longest:.0f} s at most")
    end = time.monotonic() + longest
    while time.monotonic() < end:
        time.sleep(min(1.0, store.leases.beat))
        lease = store.leases.take("pack", "records0")
        if lease is not None:
            return lease
    raise UserError(f"another process is packing {store.folder}; wait until it has ended")


def _replace(store: Store, path: Path, draft: Path, loose: dict[Pair, LooseFile]) -> set[Pair]:
    """Put a pack that holds the loose records, too, in the old one's place; return the pairs that are new
    in it.
    """
    old = _sound(store)
    new = {pair for pair, file in loose.items() if pair not in old or _content(old[pair]) != file.content}
    written = {key for key, _ in loose}
    # What a newer record of the same cell replaces does not stay.
    kept = [pair for pair in old if pair[0] not in written or (pair in loose and pair not in new)]
    if not new and len(kept) == len(store.pack.members()) and not store.pack.foreign:
        return new
    expected = {pair: _content(old[pair]) for pair in kept} | {pair: loose[pair].content for pair in new}
    _build(store, draft, kept, new)
    _check(draft, expected)
    if any(store.path(*pair, ".error.json").exists() for pair in store.pack.members()):
        _keep_aside(store)  # somebody may still mend what could not be read
    os.replace(draft, path)
    flush_folder(store.folder)
    return new


def _content(info: zipfile.ZipInfo) -> tuple[int, int]:
    return info.CRC, info.file_size


def _sound(store: Store) -> dict[Pair, zipfile.ZipInfo]:
    """The packed records that read well; each other is noted, and its cell will be trained again."""
    members = list(store.pack.members().items())
    return {
        pair: info for pair, info in members if store.packed(*pair) and store.read_packed(*pair) is not None
    }


def _build(store: Store, draft: Path, kept: list[Pair], new: set[Pair]) -> None:
    members = store.pack.members()
    # Where all of the old pack stays it is copied as it is: to deflate it again would take minutes.
    as_it_is = len(kept) == len(members) and not store.pack.foreign and members
    if as_it_is:
        shutil.copyfile(store.folder / NAME, draft)
    with zipfile.ZipFile(draft, "a" if as_it_is else "x", zipfile.ZIP_DEFLATED) as target:
        for key, fp in sorted(new if as_it_is else [*kept, *new]):
            data = store.path(key, fp).read_bytes() if (key, fp) in new else store.pack.read(key, fp)
            # Without a date of its own, so that equal records give equal bytes.
            info = zipfile.ZipInfo(f"cells/{key[:2]}/{key}.{fp}.json")
            info.external_attr, info.create_system = 0o100644 << 16, 3
            target.writestr(info, data, zipfile.ZIP_DEFLATED)
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())


def _check(draft: Path, expected: dict[Pair, tuple[int, int]]) -> None:
    """Read the new archive back, every byte of it, before anything relies on it."""
    fresh = Archive(draft)
    content = {pair: _content(info) for pair, info in fresh.members().items()}
    try:
        if content == expected and all(fresh.read(*pair) is not None for pair in content):
            return
    except DamagedRecord:
        pass
    finally:
        fresh.close()
    why = "the new pack did not read back as it was written, so nothing was changed"
    raise UserError(f"{draft.parent}: {why}; is the disk sound?")


def _keep_aside(store: Store) -> None:
    names = (store.quarantine / f"{NAME}.{number}" for number in itertools.count(1))
    store.quarantine.mkdir(exist_ok=True)
    shutil.copyfile(store.folder / NAME, next(name for name in names if not name.exists()))


def _remove(store: Store, loose: dict[Pair, LooseFile]) -> None:
    """Remove what the pack holds now, each file only if it is still the one that was read."""
    members = store.pack.members()
    # Listed once for all keys: a listing for each would be quadratic in the folder.
    superseded: dict[Pair, list[Path]] = {}
    for key, fp, older in store.older(dict(list(loose))):
        superseded.setdefault((key, fp), []).append(older)
    for pair, file in loose.items():
        if pair not in members or _content(members[pair]) != file.content:
            continue
        with contextlib.suppress(FileNotFoundError):
            # A sweep may have written it anew meanwhile.
            if mark(store.path(*pair).stat()) != file.mark:
                continue
            # First the error: beside a packed record it would say that the record is damaged.
            store.path(*pair, ".error.json").unlink(missing_ok=True)
            for older in superseded.get(pair, ()):
                older.unlink(missing_ok=True)
            store.path(*pair).unlink()
