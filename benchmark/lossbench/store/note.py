"""The note of a results folder: which experiment was swept into it last, and which cells belong to that,
under which labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lossbench.base import files
from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, write_atomically
from lossbench.experiment.cells import Cell, Experiment
from lossbench.store import record


def write(
    experiment: Experiment, cells: list[Cell], folder: Path, cards: dict[str, str] | None = None
) -> None:
    """Note which experiment was swept last, and its cells, so that tables and report know what belongs to it."""
    facts = {
        "name": experiment.name,
        "title": experiment.title,
        "file": Path(experiment.file).name,
        "seeds": list(experiment.seeds),
        "skipped": list(experiment.skipped),
        "cards": cards or {},
        "cells": [
            [c.key, c.loss.fingerprint, c.loss.label, c.data_label, c.block, ",".join(c.parts)] for c in cells
        ],
    }
    try:
        write_atomically(
            Path(folder) / "experiment.json",
            (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode(),
        )
    except OSError as error:
        raise cannot_write(Path(folder), error) from None


def read(folder: str | Path) -> dict | None:
    """Return what ``write`` noted, or None where no sweep has been."""
    try:
        note = files.read(Path(folder) / "experiment.json")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{Path(folder) / 'experiment.json'}: cannot be read ({error}); the sweep's command "
            "writes it again"
        ) from None
    wrong = record.wrong_note(note)
    if wrong:
        raise UserError(f"{Path(folder) / 'experiment.json'}: {wrong}; the sweep's command writes it again")
    return note


# --- Which results folder a command that only reads means: the user's own where there is one, else the
# study that ships with lossbench.

OWN = Path("results")

STUDY = OWN / "paper"


def reading(given: Path | None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder given, else ``results`` when a sweep has written there, else the committed study
    beside it, which ``say`` is told.
    """
    if given is not None:
        return given
    if (OWN / "experiment.json").is_file() or not (STUDY / "tables").is_dir():
        return OWN
    say(f"no sweep of your own in {OWN} yet: this is the committed study in {STUDY}")
    return STUDY
