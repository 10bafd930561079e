"""Which results folder a command that only reads means: the user's own where there is one, else the study that ships with lossbench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

OWN = Path("results")
STUDY = OWN / "paper"


def reading(given: Path | None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder given, else ``results`` when a sweep has written there, else the committed study beside it, which ``say`` is told."""
    if given is not None:
        return given
    if (OWN / "experiment.json").is_file() or not (STUDY / "tables").is_dir():
        return OWN
    say(f"no sweep of your own in {OWN} yet: this is the committed study in {STUDY}")
    return STUDY
