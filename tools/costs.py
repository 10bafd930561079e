"""The cost that each loss states of itself, from docs/speed_losses.md: ``python -m tools.costs``.

perf/losses.py measures it and writes that page; the decorators hold copies, for a wheel has no pages. A loss
that was not measured yet keeps what its author says. A test compares.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lossbench.catalogue.entries import Entry
from lossbench.catalogue.registry import losses
from lossbench.catalogue.source import PACKAGE

PAGE = PACKAGE.parents[1] / "docs" / "speed_losses.md"
UNIT = "ce"


@cache
def costs(page: Path = PAGE) -> dict[str, str]:
    """Return the measured cost of each loss, as "0.7x" of cross-entropy."""
    table = page.read_text(encoding="utf-8").partition("## Beside cross-entropy")[2].partition("\n## ")[0]
    return {name: f"{ratio}x" for name, ratio in re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", table, re.M)}


def cost_of(entry: Entry) -> str:
    """Return the measured cost of a loss, or what its author says where it was not measured."""
    # The unit is 1 by definition; beside itself it shows how exact the others are.
    return entry.meta["cost"] if entry.name == UNIT else costs().get(entry.name, entry.meta["cost"])


def stale() -> list[Entry]:
    """Return the losses whose decorator says something else than the page."""
    built_in = [entry for entry in losses().values() if entry.file.parent == PACKAGE / "losses"]
    return [entry for entry in built_in if entry.meta["cost"] != cost_of(entry)]


def write() -> None:
    """Write the measured costs into the decorators; no fingerprint follows them."""
    for entry in stale():
        text = entry.file.read_text(encoding="utf-8")
        before, decorator, after = text.partition(f'@loss(\n    "{entry.name}",\n')
        after = re.sub(r'cost="[^"]*"', f'cost="{cost_of(entry)}"', after, count=1)
        entry.file.write_text(before + decorator + after, encoding="utf-8")


if __name__ == "__main__":
    write()
