"""Damaged tables, cards and small files of a finished folder are made again from the records, or refused in a
sentence where there are none.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sound
from damage import damage, refusal, twist

from command import command
from lossbench.base.errors import UserError
from lossbench.figures import drawing
from lossbench.report import make as report
from lossbench.tables.files import TABLES, load_table
from tools import findings

ROOT = Path(__file__).parents[2]
NUMBERS = ("study", "hours", "tally", "verdicts", "mean dice@0.5 | ce | scenes 1%")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A results folder whose report has been made, without figures: they take longer than all else."""
    folder = tmp_path_factory.mktemp("whole")
    records = [sound.record(number) for number in range(12)]
    sound.store(folder, records)
    cards = sorted((ROOT / "results" / "paper" / "cards").glob("*.json"))[:1]
    (folder / "cards").mkdir()
    for card in cards:
        shutil.copy(card, folder / "cards")
    known = {f"scenes {share}": card.name for card in cards for share in ("1%", "10%")}
    (folder / "experiment.json").write_text(json.dumps({**sound.note(records), "cards": known}))
    says = {"says": "3 of 12 cells trained again: all as recorded (3 bit for bit)"}
    (folder / "verified.json").write_text(json.dumps(says))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw_everything", lambda tables: ([], {}))
        report.make(folder)
    return folder


def test_damaged_tables_are_made_again_from_the_records_or_refused(
    size, draw, seen, whole, tmp_path, monkeypatch
):
    healthy = {name: load_table(whole, name) for name in TABLES}
    draw_everything = drawing.draw_everything
    for number in range(size(few=9, full=1000)):
        case = tmp_path / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(whole, case)
        injure(case, draw)
        # Without the records, or without their stamp, damage is seen only as a file is read.
        records, stamped = number % 3 != 0, number % 3 != 1 and number % 6 != 0
        if not records:
            shutil.rmtree(case / "cells")
        if not stamped:
            (case / "tables" / "made_from.json").unlink()
        drawn = number % 20 == 19
        monkeypatch.setattr(drawing, "draw_everything", draw_everything if drawn else lambda tables: ([], {}))
        load_all(case, healthy, seen)
        refused = refusal(lambda: report.make(case))  # noqa: B023
        seen["reports refused" if refused else "reports made"] += 1
        if records:
            assert not refused and all(load_table(case, name).equals(healthy[name]) for name in TABLES)
        if drawn:
            for words in (["report"], ["status", "smoke", "--why"]):
                done = command(tmp_path, *words, "--results", str(case))
                assert done.code in (0, 1, 2) and (done.out + done.err).strip()


def injure(case: Path, draw: Random) -> None:
    """Damage one or two of the files that a report leaves."""
    files = sorted(file for part in ("tables", "cards") for file in (case / part).iterdir())
    for file in draw.sample([*files, case / "verified.json"], draw.choice([1, 1, 2])):
        if file.suffix == ".json" and draw.random() < 0.5:
            file.write_bytes(twist(json.loads(file.read_text()), draw))
        else:
            file.write_bytes(damage(file.read_bytes(), draw))


def load_all(case: Path, healthy: dict[str, Any], seen) -> None:
    """Load every table and number: none may be another than it was where its stamp is whole."""
    for name in TABLES:
        try:
            same = load_table(case, name).equals(healthy[name])
        except UserError:
            seen["tables refused"] += 1
            continue
        seen["tables loaded" if same else "tables loaded, other numbers, their stamp injured"] += 1
        assert same or not stamp(case, name), f"{name}: damage that nobody saw"
    for number in NUMBERS:
        refusal(lambda: findings.show(number, findings.Results(case, ROOT)))  # noqa: B023


def stamp(case: Path, name: str) -> bool:
    """Say whether a stamp that can be read speaks of a table."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        stamps = json.loads((case / "tables" / "made_from.json").read_text())["files"]
        return isinstance(stamps[f"{name}.parquet"], str)
    return False
