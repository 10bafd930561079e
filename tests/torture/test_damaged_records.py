"""Damaged records and notes are set aside or refused in a sentence; what is sound stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import sound
from damage import damage, refusal, twist

from lossbench.report import make as report
from lossbench.store import note as notes
from lossbench.store import pack
from lossbench.store.store import Store
from lossbench.sweep import run
from lossbench.tables import make
from lossbench.tables.files import load_table

RECORDS, HURT = 40, 20  # in one folder


def test_damaged_records_never_harm_sound_ones(size, draw, seen, tmp_path):
    for number in range(size(few=3, full=50)):
        folder = tmp_path / str(number)
        records = [sound.record(n) for n in range(RECORDS)]
        store = sound.store(folder, records)
        hurt = set(draw.sample(range(RECORDS), HURT))
        for n in hurt:
            injure(store.path(records[n]["key"], sound.FINGERPRINT), records[n], draw)
        (folder / "experiment.json").write_text(json.dumps(sound.note(records)))
        healthy = [record for n, record in enumerate(records) if n not in hurt]
        packed, reported = number % 3 == 2, number < size(few=0, full=15)
        refused = refusal(lambda: check(folder, records, healthy, packed, reported))  # noqa: B023
        seen["folders refused" if refused else "folders read"] += 1
        seen["records injured"] += HURT
        # A record that claims a newer schema closes its folder; nothing in it may have changed.
        assert not refused or "newer" in refused, refused


def injure(path: Path, record: dict, draw: Random) -> None:
    """Give a record's file another name, other bytes or other values."""
    kind = draw.randrange(5)
    if kind == 0:
        names = [
            "x.json",
            f"{'0' * 16}.{sound.FINGERPRINT[:8]}.json",
            path.name.upper(),
            f"..{path.name}",
            "é.json",
        ]
        path.rename(path.with_name(draw.choice(names)))
    elif kind < 3:
        path.write_bytes(damage(path.read_bytes(), draw))
    else:
        path.write_bytes(twist(record, draw))


def check(folder: Path, records: list[dict], healthy: list[dict], packed: bool, reported: bool) -> None:
    """Open the folder as a sweep does, and hold its states and numbers against the healthy records."""
    store = Store(folder)
    if packed:
        pack.pack(store)
    run.open_results(folder, say=lambda text: None)
    make.write_tables(folder, notes.read(folder))
    cells = load_table(folder, "cells").set_index("key")
    states = store.state([(record["key"], sound.FINGERPRINT) for record in records])
    for record in healthy:
        assert states[record["key"]].status == "done"
        assert cells.loc[record["key"], "dice@0.5"] == record["metrics"]["dice@0.5"]
    if reported:
        report.make(folder)


def test_damaged_notes_are_refused_in_a_sentence_or_read(size, draw, seen, tmp_path):
    records = [sound.record(n) for n in range(RECORDS)]
    sound.store(tmp_path, records)
    note = sound.note(records)
    text = json.dumps(note).encode()

    def read() -> None:
        found = notes.read(tmp_path)
        if found is not None:
            make.write_tables(tmp_path, found)

    for _ in range(size(few=10, full=100)):
        injured = damage(text, draw) if draw.random() < 0.5 else twist(note, draw)
        (tmp_path / "experiment.json").write_bytes(injured)
        seen["notes refused" if refusal(read) else "notes read"] += 1
