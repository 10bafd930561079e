"""Every page that is generated, written again: ``python -m tools.pages``. Tests compare them."""

from __future__ import annotations

from pathlib import Path

from lossbench.base import columns
from lossbench.catalogue.registry import datasets
from lossbench.data.sources import SOURCES
from tools import costs, experiment_page, fingerprints, house, losses_page, record_page, spellings

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write_metrics(page: Path = DOCS / "metrics.md") -> None:
    """Write the tables of columns into the page of the metrics."""
    text = page.read_text(encoding="utf-8")
    for name in ("SCORES", "ON_REQUEST", "COUNTS", "COURSE"):
        text = house.fill(text, f"columns {name}", f"\n{columns.markdown(getattr(columns, name))}\n")
    page.write_text(text, encoding="utf-8")


def sources() -> str:
    """Return where each public set comes from, and how its data sets are called, as a list."""
    sets = {name: entry for name, entry in datasets().items() if entry.family == "public"}
    lines = []
    for name, source in SOURCES.items():
        parameters = sets[name].params if name in sets else {"frames": "all"}
        given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        lines.append(f"- `{name}({given})`: {source.title}. {source.url}\\")
        lines.append(f"  Licence: {source.licence}.\\")
        # What was published of the others stands in their sections, with what it can be compared with.
        none = source.unpublished and f"\\\n  Published: no figure to compare with: {source.unpublished}."
        lines.append(f"  Citation: {source.citation}.{none}")
    return "\n".join(lines)


def write_data(page: Path = DOCS / "data.md") -> None:
    """Write the list of sources into the page of the data."""
    page.write_text(house.fill(page.read_text(encoding="utf-8"), "sources", sources()), encoding="utf-8")


if __name__ == "__main__":
    costs.write()
    house.main()
    fingerprints.write()
    losses_page.write()
    spellings.write()
    record_page.write()
    experiment_page.write()
    write_metrics()
    write_data()
