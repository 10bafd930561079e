"""Records become tidy tables here, the only input of analysis, figures and report.

- cells: one row a cell: what was run (data set, loss, seed, recipe, block), how it ended, cost and metrics
- images: one row a cell x test image x foreground class
- groups: one row a cell x test group x foreground class, of real data
- volumes: one row a cell x some test image: true and predicted pixels
- curves: one row a cell x logged step
- thresholds: one row a cell x threshold: Dice on the validation images, from which the threshold is chosen
- reliability: one row a cell x foreground class x region x bin of predicted probability, on the test images
- recipes: one row a recipe: its eight hex digits and every parameter
- origins: one row a distinct provenance (commit, versions, hardware, device), with its number of cells
- parts: one row a part of the experiment: its question, and what it crosses
- losses: one row a loss and summand: formula, paper, parameters
- datasets: one row a data set: name, parameters, whether it is generated
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lossbench.base import specs
from lossbench.base.columns import COPIED
from lossbench.base.errors import UserError
from lossbench.store.note import Note
from lossbench.tables.derived import by_group, derived, images_of, volumes

if TYPE_CHECKING:
    import pandas as pd

# The order of the columns of `cells`: what a person looks for first, then parameters and scores by name, then
# what only a machine asks.
WHAT = ("key", "experiment", "parts", "dataset", "dataset_name", "data_label")
LOSS = ("loss", "loss_spellings", "loss_label", "family", "seed", "recipe", "block")
ENDED = ("outcome", "collapse", "init_hash", "order_hash", "split_hash", "seconds", "device", "n_test")
LEADING = (*WHAT, *LOSS, *ENDED)
TRAILING = ("commit", "dirty", "loss_fingerprint", "data_identity", "protocol", "cpu_seconds")
SORT = ["dataset", "recipe", "loss", "seed", "key"]

# Columns of the tables that are made from the note alone, so that they stand there also without any row.
PARTS = ("experiment", "part", "title", "fixed", "seeds", "losses", "datasets")
TERM = ("weight", "name", "params", "formula", "cite", "cost", "empty", "needs", "doc")
LOSSES = ("loss", "loss_label", "family", *TERM)
DATASETS = ("dataset", "dataset_name", "params", "family", "doc")
REFERENCES = ("dataset", "reference", "source")  # of data sets that have one
LOOKS = ("seeds", "choice")  # of sequential experiments, one row a look
SPELLINGS = ("loss", "library", "code")  # of losses that other libraries have, too

# Of records that come without a note.
NOTHING = Note(name="", cells=[])


def compact(records: Iterable[dict[str, Any]], note: Note = NOTHING) -> dict[str, pd.DataFrame]:
    """Return the tables of records (their schema: ``lossbench.store.record``) in any order.

    ``note`` says what the experiment's parts, losses and data sets are. Raises UserError when two records
    hold the same cell, since then one of them is stale and should not have been passed on.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    images, groups, sizes, curves, thresholds, reliability = (_Long() for _ in range(6))
    recipes: dict[str, dict[str, Any]] = {}
    origins: dict[str, dict[str, Any]] = {}
    for record in records:
        record = {**record, "images": images_of(record)}
        recipe = _recipe(record["cell"], note)
        row = _cell_row(record, recipe, note)
        rows.append(row)
        recipes[row["recipe"]] = {"recipe": row["recipe"], **recipe}
        # Cells of one sweep share their origin; a study has a handful.
        origin = _origin(record.get("provenance", {}))
        origins.setdefault(json.dumps(origin, sort_keys=True), {**origin, "cells": 0})["cells"] += 1
        images.add(row["key"], record["images"])
        groups.add(row["key"], by_group(record))
        sizes.add(row["key"], volumes(record))
        curves.add(row["key"], record.get("curves") or {})
        thresholds.add(row["key"], _thresholds(record.get("threshold_curve") or []))
        reliability.add(row["key"], record.get("reliability") or {})
    cells = pd.DataFrame(rows, columns=_columns(rows))
    if COPIED in cells:
        cells[COPIED] = cells[COPIED].fillna("")
    _refuse_doubled(cells)
    # Sorted by what a cell is, so that neither the order of the records nor that of the note shows in a byte.
    cells = cells.sort_values(SORT, ignore_index=True) if rows else cells
    rank = {key: place for place, key in enumerate(cells["key"])}
    return {
        "cells": cells,
        "images": images.frame(rank, ["image", "class"]),
        "groups": groups.frame(rank, ["group", "class"]),
        "volumes": sizes.frame(rank, ["size"]),
        "curves": curves.frame(rank, ["step"]),
        "thresholds": thresholds.frame(rank, ["threshold"]),
        "reliability": reliability.frame(rank, ["class", "region", "bin"]),
        "recipes": _one_type_each(
            pd.DataFrame([{k: _plain(v) for k, v in recipes[name].items()} for name in sorted(recipes)])
        ),
        "origins": pd.DataFrame([origins[name] for name in sorted(origins)]),
        **noted(note),
    }


def _one_type_each(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which a column that holds words and numbers holds words alone.

    A rate may be a number, or "own"; a patch a side, or several."""
    for name in table:
        values = table[name].dropna()
        # A column on disk has one type, and a table that cannot be written is of no use to anybody.
        words = values.map(lambda value: isinstance(value, str))
        if words.any() and not words.all():
            table[name] = table[name].map(
                lambda v: f"{v:g}" if isinstance(v, int | float) else v, na_action="ignore"
            )
    return table


def planned(facts: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return the table ``cells`` of cells that are planned: all that a record will say but its results.

    ``facts``: what ``Cell.to_json`` gives, and the names of the parts."""
    made = []
    for own in facts:
        block, data = own["cell"]["block"], own["cell"]["dataset"]
        # Cells of one block will start alike: that is what a block is.
        proof = {"init": block, "order": block, "split": data}
        # No outcome of a record, so that nothing can take a plan for a result.
        made.append({**own, "outcome": "planned", "certificate": proof})
    return compact(made)["cells"]


def noted(note: Note) -> dict[str, pd.DataFrame]:
    """Return the tables that the note alone says; lists and parameters are JSON in them."""
    import pandas as pd

    parts = [{**part.model_dump(), "experiment": note.name, "part": part.name} for part in note.parts]
    losses = [
        {"loss": text, "loss_label": loss.label, "family": loss.family, **term.model_dump()}
        for text, loss in note.losses.items()
        for term in loss.terms
    ]
    datasets = [
        {"dataset": text, "dataset_name": d.name, **d.model_dump()} for text, d in note.datasets.items()
    ]
    tables = {"parts": (parts, PARTS), "losses": (losses, LOSSES), "datasets": (datasets, DATASETS)}
    references = [
        {"dataset": text, "reference": d.reference, "source": d.reference_source}
        for text, d in note.datasets.items()
        if d.reference is not None
    ]
    if references:
        tables["references"] = (references, REFERENCES)
    if note.looks:
        looks = [{"seeds": note.seeds[:count], "choice": note.choice} for count in note.looks]
        tables["looks"] = (looks, LOOKS)
    spelled = [
        {"loss": text, "library": library, "code": code}
        for text, loss in note.losses.items()
        for library, code in loss.spelled.items()
    ]
    if spelled:
        tables["spellings"] = (spelled, SPELLINGS)
    return {
        name: pd.DataFrame([{k: _plain(v) for k, v in row.items()} for row in rows], columns=list(columns))
        for name, (rows, columns) in tables.items()
    }


def digest(value: Any) -> str:
    """Return the eight hex digits that name a recipe or a block."""
    return hashlib.sha256(specs.as_json(value).encode()).hexdigest()[:8]


def _recipe(cell: dict[str, Any], note: Note) -> dict[str, Any]:
    """Return every field of a cell's recipe; a record may be older than some field, the note knows them
    all.
    """
    return {**note.recipes.get(cell.get("recipe_digest", ""), {}), **cell["recipe"]}


def _cell_row(record: dict[str, Any], whole: dict[str, Any], note: Note) -> dict[str, Any]:
    cell, proof = record["cell"], record.get("certificate", {})
    cost, origin = record.get("cost", {}), record.get("provenance", {})
    name, params = _dataset(cell)
    # A record without digests is one of the first; what names its recipe and block need only be unique.
    recipe = cell.get("recipe_digest") or digest(cell["recipe"])
    shared = [cell.get("protocol"), cell["dataset"], cell.get("data_identity"), cell["seed"], recipe]
    return {
        **record.get("metrics", {}),  # first: no metric takes the name of a fact
        "key": record["key"],
        "experiment": record.get("experiment", ""),
        "parts": record.get("parts", ""),
        "dataset": cell["dataset"],
        "dataset_name": name,
        # A note of before may spell the network out.
        "data_label": specs.network_named(cell.get("data_label") or cell["dataset"]),
        "loss": cell["loss"],
        "loss_spellings": _spellings(cell, note),
        "loss_label": record.get("loss_label") or cell["loss"],
        "family": record.get("family", ""),
        "seed": cell["seed"],
        "recipe": recipe,
        "block": cell.get("block") or digest(shared),
        "outcome": record["outcome"],
        "collapse": record.get("collapse") or "",
        "init_hash": proof.get("init", ""),
        "order_hash": proof.get("order", ""),
        "split_hash": proof.get("split", ""),
        "seconds": cost.get("seconds"),
        "device": origin.get("device", ""),
        **{f"data.{key}": _plain(value) for key, value in params.items()},
        **derived(record, whole),
        "commit": origin.get("commit") or "",
        "dirty": bool(origin.get("dirty", False)),
        "loss_fingerprint": record.get("loss_fingerprint", ""),
        "data_identity": cell.get("data_identity", ""),
        "protocol": cell.get("protocol"),
        "cpu_seconds": cost.get("cpu_seconds"),
        **({COPIED: origin[COPIED]} if origin.get(COPIED) else {}),
    }


def _dataset(cell: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of a cell's data set; of a first record those that its spec
    gives.
    """
    if "dataset_name" in cell and "data_params" in cell:
        return cell["dataset_name"], cell["data_params"]
    try:
        term = specs.parse(cell["dataset"], "data set")[0]
    except UserError:  # no spec, but a name
        return cell["dataset"], {}
    return term.name, term.arguments


def _spellings(cell: dict[str, Any], note: Note) -> str:
    """Return the loss with every parameter written out, under each of its names, joined by "|"."""
    # The note knows other names of the loss, too; the record knows what it was trained with.
    known = note.losses.get(cell["loss"])
    if known and known.aliases:
        return " | ".join(known.aliases)
    terms = cell.get("loss_terms")
    return specs.render_sum(terms) if terms else cell["loss"]


def _origin(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what the report shows of a provenance: flat, without what differs from cell to cell."""
    # Records of other versions may have less, or other packages.
    hardware = provenance.get("hardware") or {}
    packages = provenance.get("packages") or {}
    return {
        "commit": provenance.get("commit") or "",
        "dirty": bool(provenance.get("dirty", False)),
        **{name: provenance.get(name, "") for name in ("version", "python", "platform", "threads", "device")},
        "cpu": hardware.get("cpu", ""),
        "cores": hardware.get("cores"),
        "packages": ", ".join(f"{name} {packages[name]}" for name in sorted(packages)),
    }


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    there = {column for row in rows for column in row}
    data = sorted(column for column in there if column.startswith("data."))
    metrics = sorted(there - {*LEADING, *TRAILING, *data, COPIED})
    return [*LEADING, *data, *metrics, *TRAILING, *([COPIED] if COPIED in there else [])]


def _refuse_doubled(cells: pd.DataFrame) -> None:
    # One of them comes from an older source of its loss: a mean over both would mean nothing.
    doubled = cells[cells["key"].duplicated()]
    if len(doubled):
        row = doubled.iloc[0]
        what = f"{row['key']} ({row['dataset']}, {row['loss']}, seed {row['seed']})"
        raise UserError(f"two records of the cell {what} were given; keep the current one")


def _thresholds(dice: list[float]) -> dict[str, list]:
    """Return the columns of a threshold curve, whose values stand at equal steps between 0 and 1 (.01 ...
    .99).
    """
    steps = len(dice) + 1
    return {"threshold": [n / steps for n in range(1, steps)], "val_dice": dice} if dice else {}


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


class _Long:
    """Collects columns of many cells and joins them once; a column that a cell does not have is nan there."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, dict[str, list]]] = []
        self.columns: dict[str, None] = {}

    def add(self, key: str, columns: dict[str, list]) -> None:
        if columns:
            self.cells.append((key, columns))
            self.columns.update(dict.fromkeys(columns))

    def frame(self, rank: dict[str, int], order: list[str]) -> pd.DataFrame:
        """Return all cells one below the other, in the order of ``rank``; the columns in ``order`` come
        first.
        """
        import pandas as pd

        cells = sorted(self.cells, key=lambda cell: rank[cell[0]])
        lengths = [len(next(iter(columns.values()))) for _, columns in cells]
        joined: dict[str, Any] = {"key": np.repeat([key for key, _ in cells], lengths) if cells else []}
        leading = [name for name in order if name in self.columns]
        # Column by column, since all cells at once as rows would take many times the memory.
        for name in [*leading, *sorted(self.columns.keys() - set(leading))]:
            pieces = [
                np.asarray(columns[name]) if name in columns else np.full(length, np.nan)
                for (_, columns), length in zip(cells, lengths, strict=True)
            ]
            joined[name] = _joined(pieces)
        return pd.DataFrame(joined)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Return columns end to end; numbers with gaps (None) become floats with nan."""
    whole = np.concatenate([p.astype(float) if p.dtype == object and _numeric(p) else p for p in pieces])
    # Metrics of single images need no more than six digits; halving them keeps a large study in memory.
    return _halved(whole) if whole.dtype == np.float64 else whole


def _halved(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32, nan for those that it cannot hold."""
    with np.errstate(over="ignore"):
        halved = values.astype(np.float32)
    halved[np.isinf(halved)] = np.nan
    return halved


def _numeric(piece: Any) -> bool:
    return all(v is None or isinstance(v, int | float) for v in piece)
