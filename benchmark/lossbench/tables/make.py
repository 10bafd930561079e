"""From records to answers: tables, verdicts, figures and the report of the experiment that a results folder
speaks of; never torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base.errors import UserError

if TYPE_CHECKING:
    from lossbench.store.store import Store


def write_tables(results: Path, note: dict) -> str:
    """Compact the records of the noted experiment into ``results/tables``, unless what lies there was made
    from the same; return the line that says so.
    """
    from lossbench.store.store import Store
    from lossbench.tables import freshness

    store, folder = Store(results), results / "tables"
    found = freshness.digest(store, note)
    if freshness.is_fresh(folder, found):
        count, made = freshness.cells(folder), "as they were"
    else:
        count, made = _compact(store, note, folder, found), ""
    planned = len(note["cells"])
    lack = f", {planned - count} missing" if count < planned else ""
    other = store.count() - count
    lack += (
        f"; {other} other records there are not part of '{note['name']}' as it was last swept"
        if other > 0
        else ""
    )
    facts = ", ".join(filter(None, [f"{count} cells{lack}", made]))
    damaged = "".join(f"\n         {text}" for text in store.notes)
    return f"tables   {folder / 'cells.csv'} ({facts}){damaged}"


def _compact(store: Store, note: dict, folder: Path, found: str) -> int:
    from lossbench.tables import compact, freshness

    frames = compact.compact(records(store.folder, note, store))
    if frames["cells"].empty:
        damaged = f"; {len(store.notes)} were damaged: {store.notes[0]}" if store.notes else ""
        raise UserError(
            f"{store.folder}: none of the {len(note['cells'])} cells of '{note['name']}' has a record "
            f"yet{damaged}"
        )
    freshness.unstamp(folder)
    files = compact.write_tables(frames, folder)
    if not store.notes:  # else the digest counts records that turned out damaged
        freshness.stamp(folder, found, files)
    return len(frames["cells"])


def records(results: Path, note: dict, store: Store | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of an experiment's cells as they are now, under the labels of that experiment;
    ``store`` gathers notes.
    """
    from lossbench.store.store import Store

    store = store or Store(results)
    for key, fingerprint, label, data_label, block, parts in note["cells"]:
        record = store.read(key, fingerprint)
        if record is not None:
            record["experiment"] = note["name"]
            record["parts"] = parts
            record["loss_label"] = label
            record["cell"] |= {"data_label": data_label, "block": block}
            yield record
