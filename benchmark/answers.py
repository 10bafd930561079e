"""From records to answers: tables, verdicts, figures and the report of the experiment that a results folder speaks of; never torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UserError


@dataclass(frozen=True)
class Made:
    """Where the report is, and the lines that the command line prints."""

    report: Path
    lines: list[str]


def make(results: Path) -> Made:
    """Write tables (where there are records), figures and report; without records the stored tables are used as they are."""
    from benchmark import report
    from benchmark.sweep import read_experiment_note

    note = read_experiment_note(results)
    lines = []
    if note is not None and (results / "cells").is_dir():
        lines.append(write_tables(results, note))
    elif (results / "cells").is_dir() and not (results / "tables" / "cells.parquet").is_file():
        raise UserError(f"{results} holds records, but not which experiment they belong to; 'lossbench sweep EXPERIMENT --results {results}' says it")
    elif not (results / "tables" / "cells.parquet").is_file():
        raise UserError(f"{results} holds neither records nor tables; 'lossbench sweep --results {results}' makes them")
    made = report.make(results, note)
    lines += made.lines
    lines.append(f"report   {made.path}")
    return Made(made.path, lines)


def write_tables(results: Path, note: dict) -> str:
    """Compact the records of the noted experiment into ``results/tables`` and return the line that says so."""
    from benchmark.analysis import tables

    frames = tables.compact(records(results, note))
    if frames["cells"].empty:
        raise UserError(f"{results}: none of the {len(note['cells'])} cells of '{note['name']}' has a record yet")
    tables.write_tables(frames, results / "tables")
    count, planned = len(frames["cells"]), len(note["cells"])
    lack = f", {planned - count} missing" if count < planned else ""
    other = sum(1 for file in (results / "cells").glob("*/*.json") if not file.name.endswith(".error.json")) - count
    lack += f"; {other} other records there are not part of '{note['name']}' as it was last swept" if other > 0 else ""
    return f"tables   {results / 'tables' / 'cells.csv'} ({count} cells{lack})"


def records(results: Path, note: dict) -> Iterator[dict[str, Any]]:
    """Yield the records of an experiment's cells as they are now, under the labels of that experiment."""
    from benchmark.store import Store

    store = Store(results)
    for key, fingerprint, label, data_label, block, parts in note["cells"]:
        record = store.read(key, fingerprint)
        if record is not None:
            record["experiment"] = note["name"]
            record["parts"] = parts
            record["loss_label"] = label
            record["cell"] |= {"data_label": data_label, "block": block}
            yield record
