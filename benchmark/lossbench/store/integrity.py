"""Whether the bytes of a results folder are those that were written: every record, loose or packed, against
its check sum. Nothing is set aside and nothing is parsed, so that a hundred thousand take seconds."""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lossbench.base.process import usable_cores
from lossbench.store import record
from lossbench.store.record import DamagedRecord
from lossbench.store.store import Store

SHARE = 256  # records that a thread reads at once


@dataclass
class Found:
    """What was looked at: how many records, which are damaged and why, which of these lie in the pack and are
    not needed there, and which carry no check sum.
    """

    records: int = 0
    damaged: list[str] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)

    def sentences(self) -> Iterator[str]:
        """Say what was found, damage first."""
        for text in self.damaged:
            yield f"DAMAGED  {text}"
        if self.unmarked:
            more = f" and {len(self.unmarked) - 3} more" if len(self.unmarked) > 3 else ""
            some = ", ".join(self.unmarked[:3])
            yield f"without a check sum, so that a change would not be seen: {some}{more}"


def check_records(store: Store, loose: bool = True) -> Found:
    """Read every record of a folder; of the pack alone with ``loose=False``."""
    found = Found()
    jobs = [(key, fp, "") for key, fp in store.pack.members()]
    if loose and store.cells.is_dir():
        # In the order of their names, so that damage is named in one order on every file system.
        jobs += [("", "", path) for path in _loose(store.cells)]
    # Reading, unpacking and summing let other threads run; to hand over each record alone would not.
    shares = [jobs[first : first + SHARE] for first in range(0, len(jobs), SHARE)]
    with ThreadPoolExecutor(usable_cores()) as threads:
        looks = itertools.chain.from_iterable(threads.map(partial(_look_at, store), shares))
        for (key, fp, path), (name, why, marked) in zip(jobs, looks, strict=True):
            found.records += 1
            if why:
                found.damaged.append(f"{name}: {why}")
                if not path and store.path(key, fp).exists():
                    found.unneeded.append(found.damaged[-1])
            elif not marked:
                found.unmarked.append(name)
    foreign = [f"{store.pack.path}: {name} is no record" for name in store.pack.foreign]
    found.damaged += foreign
    found.unneeded += foreign
    return found


def _loose(cells: Path) -> list[str]:
    """Return the paths of all loose files; as plain text, since there may be a hundred thousand."""
    files: list[str] = []
    for shard in sorted(cells.glob("[0-9a-f][0-9a-f]")):
        files += [os.path.join(shard, name) for name in sorted(os.listdir(shard)) if _is_json(name)]
    return files


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _look_at(store: Store, jobs: list[tuple[str, str, str]]) -> list[tuple[str, str, bool]]:
    return [_look(store, *job) for job in jobs]


def _look(store: Store, key: str, fp: str, path: str) -> tuple[str, str, bool]:
    """Return the name of a record, why it is damaged, if it is, and whether it carries a check sum."""
    name = path or f"{store.pack.path}: {key}.{fp}"
    try:
        data = _bytes(path) if path else store.pack.read(key, fp) or b""
    except (OSError, DamagedRecord) as error:
        return name, str(error), False
    if path:
        key, fp, *_ = [*os.path.basename(path).split("."), ""]
    why = record.flaw(data)
    named = (f'"key":"{key}"', f'"loss_fingerprint":"{fp}')
    # A sound record under the name of another cell would pass its own check sum.
    if not why and not all(word.encode() in data for word in named):
        why = "it holds another cell"
    return name, why, record.is_marked(data)


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def seal(facts: dict[str, Any]) -> bytes:
    """Return the bytes of a certificate, with a check sum of what it says."""
    return (json.dumps({**facts, "check": _sum(facts)}, indent=1, ensure_ascii=False) + "\n").encode()


def check_certificates(paths: Iterable[Path]) -> Found:
    """Read certificates, where they are."""
    found = Found()
    for path in paths:
        try:
            facts = json.loads(path.read_bytes())
            mark = facts.pop("check", None)
        # Most folders were never verified.
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            found.damaged.append(f"{path}: it cannot be read ({type(error).__name__})")
            continue
        # Certificates of earlier versions carry none, which is no damage.
        if mark is None:
            found.unmarked.append(str(path))
        elif mark != _sum(facts):
            found.damaged.append(f"{path}: its check sum does not fit what it says")
    return found


def _sum(facts: dict[str, Any]) -> str:
    # The order of keys is nothing that a certificate says.
    return f"{zlib.crc32(json.dumps(facts, sort_keys=True).encode()):08x}"
