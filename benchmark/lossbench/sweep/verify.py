"""Can the records be trusted? Some are trained again and compared; records of several machines are joined
without touching any.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossbench.base import specs
from lossbench.base.columns import spelled
from lossbench.base.errors import UserError, typed
from lossbench.base.files import CERTIFICATE, write_atomically
from lossbench.catalogue.registry import PATHS, datasets, losses, networks
from lossbench.engine.tasks import STACK
from lossbench.experiment.cells import PROTOCOL, Cell
from lossbench.store import integrity, note, provenance
from lossbench.store.record import rounded
from lossbench.store.store import Store
from lossbench.sweep import train_stack

# Dice: what another CPU or library version may change by rounding alone, amplified by training
TOLERANCE = 0.02

# Files that tell a committed study from a folder which only lies in a checkout.
COMMITTED = (CERTIFICATE, note.NAME, "records.zip")

CHECKED = ("metrics", "images", "curves", "steps", "threshold_curve", "certificate")


def verify(
    results: str | Path,
    sample: int,
    seed: int,
    extra_files: tuple[str, ...],
    say: Callable[[str], Any] = lambda text: None,
    cell: str = "",
    data: Sequence[str] = (),
) -> dict:
    """Train ``sample`` random recorded cells again, in a folder of their own; return the certificate, and
    write it where that is possible.

    ``cell`` trains that one cell instead, named by its key or the beginning of it; a cell chosen by hand is
    no sample, so that the certificate of the folder stays as it is. ``data``: paths to the user's own data,
    of which records keep the last part alone. Cells of a loss, network or data set that is not known here
    are left out, and of the rest alone no certificate is kept.

    Where packages, CPU, threads and source are those of the record, everything that was computed must
    be equal bit for bit; elsewhere the certificate's hashes must be equal and Dice within ``TOLERANCE``.
    """
    places = {Path(path).expanduser().resolve().name: str(Path(path).expanduser().resolve()) for path in data}
    known = _repeatable(results, places)
    unknown = _unknown(known, extra_files)
    if unknown:
        names = ", ".join(sorted({name for names in unknown.values() for name in names}))
        left = f"{len(unknown)} cells need what stands in no file given here ({names}); give it with --with"
        known = [record for record in known if record["key"] not in unknown]
        if not known:
            raise UserError(f"{results} holds no other cells to verify: {left}")
        say(f"left out: {left}. No certificate is kept")
    chosen = (
        _named(known, cell, results) if cell else random.Random(seed).sample(known, min(sample, len(known)))
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="lossbench-verify-") as scratch:
        for record in chosen:
            row = _again(record, Path(scratch), extra_files, places)
            rows.append(row)
            say(f"{'same' if row['passed'] else 'DIFFERS'}  {row['what']}  {row['how']}")
    certificate = {
        "sample": len(rows),
        "of": len(known),
        "seed": seed,
        "passed": all(row["passed"] for row in rows),
        "cells": rows,
    }
    certificate["says"] = sentence(certificate)
    if not cell and not unknown:
        _keep(certificate, results, say)
    return certificate


def _keep(certificate: dict, results: str | Path, say: Callable[[str], Any]) -> None:
    """Write a certificate, and say where it lies if that is not in the folder itself."""
    place = certificate_of(results)
    try:
        write_atomically(place, integrity.seal(certificate))
    except OSError as error:
        # The folder may be read-only for good reason, and what was found holds all the same.
        say(f"{place} cannot be written ({(error.strerror or str(error)).lower()}): no certificate is kept")
        return
    if place != Path(results) / CERTIFICATE:
        say(f"{results} is a committed study: its certificate lies in {place}")


def certificate_of(results: str | Path) -> Path:
    """Return where the certificate of a folder is written: within it, and that of a committed study beside
    its folder, since a tracked file is nobody's to write over.
    """
    folder = Path(results)
    # Of a copy without git's own folder the place of the study says what it is.
    if folder.resolve() != note.STUDY.resolve() and not provenance.is_tracked(folder, *COMMITTED):
        return folder / CERTIFICATE
    # "." has no folder above it by its name.
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder.with_name(f"verified-{folder.name}.json")


def _repeatable(results: str | Path, places: Mapping[str, str]) -> list[dict]:
    """Return the records, in the order of their keys, whose cells can be trained again from what they say;
    ``places``: where the user's own data lie, by the name that records keep.
    """
    # By key: a sample is drawn by position, and the file system's order is anybody's.
    records = sorted(Store(results).records(), key=lambda record: record["key"])
    if not records:
        raise UserError(
            f"{results} holds no records to verify; '{typed('sweep', '--results', results)}' makes them"
        )
    asked = {record["key"]: _places_of(record["cell"]) for record in records}
    # Cells of data that are not at hand leave the draw; only where none is left is that a mistake.
    absent = sorted({name for names in asked.values() for name in names} - set(places))
    known = [record for record in records if not set(asked[record["key"]]) & set(absent)]
    if not known:
        raise UserError(
            f"{results} holds only cells of your own data ('{absent[0]}'), and records keep no path: say "
            f"where they are, as in --data path/to/{absent[0]}"
        )
    unasked = sorted(set(places) - {name for names in asked.values() for name in names})
    if unasked:
        raise UserError(f"--data {places[unasked[0]]}: no record of {results} is of data of that name")
    return known


def _unknown(records: Sequence[dict], extra_files: tuple[str, ...]) -> dict[str, list[str]]:
    """Return by key what a cell needs that is not known here: of a user's file, which no record names."""
    here = {"loss": losses(extra_files), "network": networks(extra_files), "data set": datasets(extra_files)}
    found = {}
    for record in records:
        cell = record["cell"]
        # Of another protocol nothing is trained again, and names were others.
        if cell["protocol"] != PROTOCOL:
            continue
        named = [("loss", name) for _, name, _ in cell["loss_terms"]]
        named += [("network", (cell["recipe"].get("network") or "unet").split("(")[0])]
        named += [("data set", cell["dataset_name"])]
        # What a library holds, it says itself when it is asked.
        absent = [f"{kind} '{name}'" for kind, name in named if ":" not in name and name not in here[kind]]
        if absent:
            found[record["key"]] = absent
    return found


def _places_of(cell: Mapping[str, Any]) -> list[str]:
    """Return the names of the user's own folders that a recorded cell was trained on."""
    params = cell.get("data_params", {})
    return [params[name] for name in PATHS if params.get(name)]


def _located(record: dict, places: Mapping[str, str]) -> dict:
    """Return a record whose data set says where it lies on this machine."""
    own = record["cell"]
    params = {
        name: places.get(value, value) if name in PATHS else value
        for name, value in own.get("data_params", {}).items()
    }
    if params == own.get("data_params", {}):
        return record
    given = specs.parse(own["dataset"], "data set")[0].arguments
    given |= {name: params[name] for name in PATHS if name in given}
    dataset = specs.render(own["dataset_name"], given)
    return {**record, "cell": {**own, "dataset": dataset, "data_params": params}}


def _named(records: list[dict], cell: str, results: str | Path) -> list[dict]:
    chosen = [record for record in records if record["key"].startswith(cell)]
    if len(chosen) != 1:
        what = f"{len(chosen)} cells whose keys begin" if chosen else "no cell of known data whose key begins"
        raise UserError(
            f"{results} holds {what} with '{cell}'; the report and tables/cells.csv name each cell's key"
        )
    return chosen


def sentence(certificate: dict) -> str:
    """Return the certificate in one sentence."""
    count, bad = certificate["sample"], sum(not row["passed"] for row in certificate["cells"])
    exact = sum(row["exact"] and row["passed"] for row in certificate["cells"])
    verdict = "all as recorded" if not bad else f"{bad} differ"
    return f"{count} of {certificate['of']} cells trained again: {verdict} ({exact} bit for bit)"


def _again(record: dict, scratch: Path, extra_files: tuple[str, ...], places: Mapping[str, str]) -> dict:
    """Train one recorded cell again and return how it compares."""
    own = record["cell"]
    row = {
        "what": f"{own['data_label']} · {record['loss_label']} · seed {own['seed']}",
        "key": record["key"],
        "passed": False,
        "exact": False,
    }
    # Other rules give other numbers, which would say nothing about the record.
    if own["protocol"] != PROTOCOL:
        return row | {"how": f"it was trained under protocol {own['protocol']}, this is protocol {PROTOCOL}"}
    try:
        cell = Cell.from_json(_located(record, places), extra_files)
    except UserError as error:
        return row | {"how": f"it cannot be trained here: {error}"}
    store = train_stack.train_aside([cell], scratch, extra_files, STACK)
    fresh = store.read(*cell.pair)
    if fresh is None:
        failed = store.read_error(*cell.pair) or {}
        return row | {"how": failed.get("error", "it could not be trained")}
    exact = provenance.environment(record["provenance"]) == provenance.environment(fresh["provenance"])
    passed, how = _compare(record, fresh, exact)
    return row | {"passed": passed, "exact": exact, "how": how}


def _compare(old: dict, new: dict, exact: bool) -> tuple[bool, str]:
    # First: from another start or other batches no score need be alike.
    parts = [name for name, value in old["certificate"].items() if value != new["certificate"].get(name)]
    if parts:
        return False, f"start, order, split or data differ: {', '.join(parts)}"
    if exact:
        old = rounded(old)  # older versions wrote more digits
        # They also kept more of the course of a training, of which every record keeps means over some steps.
        alike = old.get("steps_every", 1) == new.get("steps_every", 1)
        checked = [part for part in CHECKED if alike or part != "steps"]
        different = [part for part in checked if not _held(old.get(part), new.get(part))]
        return (
            not different,
            "bit for bit" if not different else f"in the same environment, {', '.join(different)} differ",
        )
    # Rounding differs between environments and training amplifies it: only the score can be compared.
    gap = abs((old["metrics"].get("dice@0.5") or 0.0) - (new["metrics"].get("dice@0.5") or 0.0))
    return math.isfinite(gap) and gap <= TOLERANCE, f"another environment: Dice differs by {gap:.4f}"


def _held(old: Any, new: Any) -> bool:
    """Return whether the new record says all that the old one says; a newer version may measure more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(new.get(spelled(name, new)) == value for name, value in old.items())
    return old == new


def check_source(source: str | Path) -> None:
    """Raise UserError unless a folder holds records, loose or packed."""
    if not Store(source).exists():
        raise UserError(f"{source} is not a results folder: it has neither 'cells' nor 'records.zip'")


def merge(source: str | Path, results: str | Path) -> str:
    """Copy the records that are not in ``results`` from another folder; return a sentence that says what was
    done.
    """
    check_source(source)
    store, other = Store(results), Store(source)
    store.open_for_writing()
    # A folder without a note cannot be reported; one that has its own keeps it, since it says what was swept.
    theirs, ours = (Path(folder) / note.NAME for folder in (source, results))
    if theirs.is_file() and not ours.exists():
        write_atomically(ours, theirs.read_bytes())
    new = kept = different = sources = 0  # records are copied whole: each keeps its provenance
    here = {key for key, _ in store.recorded()}
    for record in other.records():
        fingerprint = record["loss_fingerprint"]
        # What is here stays, whichever is better: to choose by numbers would bias what is kept.
        if store.has(record["key"], fingerprint):
            kept += 1
            mine = store.read(record["key"], fingerprint)
            different += mine is not None and mine["metrics"] != record["metrics"]
        elif record["key"] in here:
            # To write it would remove the one that is here, which may well be today's.
            sources += 1
        else:
            store.write(record)
            new += 1
    _copy_diffs(Path(source), Path(results))
    numbers = f", {different} of them with other numbers (another environment; 'lossbench verify' compares)"
    numbers = numbers if different else ""
    aside = f"; {len(other.notes)} damaged files set aside" if other.notes else ""
    others = f", {sources} left out: their cells are here with another source of their loss"
    others = others if sources else ""
    return f"{source}: {new} records added, {kept} were here already{numbers}{others}{aside}"


def _copy_diffs(source: Path, results: Path) -> None:
    """Bring along the source differences that records name by hash."""
    for diff in (source / "provenance").glob("*.diff"):
        target = results / "provenance" / diff.name
        if not target.exists():
            write_atomically(target, diff.read_bytes())
