"""The note of a results folder: which experiment was swept into it last, and which cells belong to that, under which labels."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark import shapes, strictjson
from benchmark.cells import Cell, Experiment
from benchmark.errors import UserError
from benchmark.files import cannot_write, write_atomically


def write(experiment: Experiment, cells: list[Cell], folder: Path, cards: dict[str, str] | None = None) -> None:
    """Note which experiment was swept last, and its cells, so that tables and report know what belongs to it."""
    facts = {
        "name": experiment.name,
        "title": experiment.title,
        "file": Path(experiment.file).name,
        "seeds": list(experiment.seeds),
        "skipped": list(experiment.skipped),
        "cards": cards or {},
        "cells": [[c.key, c.loss.fingerprint, c.loss.label, c.data_label, c.block, ",".join(c.parts)] for c in cells],
    }
    try:
        write_atomically(Path(folder) / "experiment.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise cannot_write(Path(folder), error) from None


def read(folder: str | Path) -> dict | None:
    """Return what ``write`` noted, or None where no sweep has been."""
    try:
        note = strictjson.read(Path(folder) / "experiment.json")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{Path(folder) / 'experiment.json'}: cannot be read ({error}); the sweep's command writes it again") from None
    wrong = shapes.wrong_note(note)
    if wrong:
        raise UserError(f"{Path(folder) / 'experiment.json'}: {wrong}; the sweep's command writes it again")
    return note
