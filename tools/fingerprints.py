"""tests/golden/fingerprints.json, the fingerprint of every built-in loss: ``python -m tools.fingerprints``.

A test compares; the file's own diff then shows in review whose computation a change touches.
"""

from __future__ import annotations

import json
from pathlib import Path

from lossbench.catalogue.entries import read_entries
from lossbench.catalogue.source import PACKAGE, fingerprint

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "fingerprints.json"


def fingerprints(package: Path = PACKAGE) -> dict[str, str]:
    """Return the fingerprint of each loss of a package by name."""
    files = sorted((package / "losses").glob("*.py"))
    entries = [entry for file in files for entry in read_entries(file) if entry.kind == "loss"]
    return {
        entry.name: fingerprint(entry.file, entry.function)
        for entry in sorted(entries, key=lambda entry: entry.name)
    }


def write(file: Path = GOLDEN) -> None:
    """Write the file."""
    file.write_text(json.dumps(fingerprints(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
