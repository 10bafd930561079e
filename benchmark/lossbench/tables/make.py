"""From the records of a results folder to its tables, which are made anew only where they must be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError
from lossbench.store.note import Note
from lossbench.store.store import Store
from lossbench.tables import compact, files, stamp


def write_tables(results: Path, note: Note) -> str:
    """Compact the records of the noted experiment into ``results/tables``, unless what lies there was made
    from the same; return the line that says so.
    """
    store, folder = Store(results), results / "tables"
    digest = stamp.digest(store, note)
    if stamp.is_fresh(folder, digest):
        count, made = stamp.cells(folder), "as they were"
    else:
        count, made = _compact(store, note, folder, digest), ""
    missing, others = len(note.cells) - count, store.count() - count
    facts = f"{count} cells" + (f", {missing} missing" if missing > 0 else "")
    if others > 0:
        facts += f"; {others} other records there are not part of '{note.name}' as it was last swept"
    damaged = "".join(f"\n         {text}" for text in store.notes)
    return f"tables   {folder / 'cells.csv'} ({facts}{made and f', {made}'}){damaged}"


def _compact(store: Store, note: Note, folder: Path, digest: str) -> int:
    frames = compact.compact(records(store.folder, note, store), note)
    if frames["cells"].empty:
        damaged = f"; {len(store.notes)} were damaged: {store.notes[0]}" if store.notes else ""
        cells = f"none of the {len(note.cells)} cells of '{note.name}' has a record yet"
        raise UserError(f"{store.folder}: {cells}{damaged}")
    # A kill between two files must not leave new tables under an old stamp.
    stamp.unstamp(folder)
    paths = files.write_tables(frames, folder)
    if not store.notes:  # else the digest counts records that turned out damaged
        stamp.stamp(folder, digest, paths)
    return len(frames["cells"])


def records(results: Path, note: Note, store: Store | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of an experiment's cells as they are now, under the labels of that experiment;
    ``store`` gathers what is said of damaged ones.
    """
    store = store or Store(results)
    # The same cell may belong to several experiments; what it is called is the matter of the one noted last.
    for cell in note.cells:
        record = store.read(cell.key, cell.fingerprint)
        if record is not None:
            labels = {"data_label": cell.data_label, "block": cell.block}
            named = {"experiment": note.name, "parts": cell.parts, "loss_label": cell.loss_label}
            yield {**record, **named, "cell": {**record["cell"], **labels}}
