"""Whether what a file says has the shape of a record: the check that stands between a damaged file and tables, figures, sweeps."""

from __future__ import annotations

import re
from typing import Any

_PARTS = {
    "cell": dict, "loss_label": str, "family": str, "outcome": str, "collapse": str, "metrics": dict, "images": dict, "curves": dict,
    "threshold_curve": list, "certificate": dict, "cost": dict, "provenance": dict,
}  # fmt: skip
_CELL = {"dataset": str, "loss": str, "seed": int, "recipe": dict, "data_identity": str, "protocol": int}
_CELL_OPTIONAL = {"dataset_name": str, "data_params": dict, "data_label": str, "block": str, "recipe_digest": str, "learning_rate": float}
_RECIPE = {"learning_rate": (int, float, str), "steps": int, "batch": int, "optimizer": str, "augment": str, "precision": str}
_PROVENANCE = {
    "commit": (str, type(None)), "dirty": bool,
    "version": str, "packages": dict, "hardware": dict, "python": str, "platform": str, "command": str, "threads": int, "device": str,
}  # fmt: skip
_WORDS = {"outcome": ("done", "collapsed"), "collapse": ("", "background", "foreground", "not_finite")}
_COLUMNS = {"images": ("class", "group"), "curves": ("collapsed",), "steps": (), "reliability": ("class", "region")}  # part -> its columns of words
_NUMBERS = {int, float, bool}
_LARGEST = 2**63  # whole numbers beyond do not fit a table's column
_HUGE = 1e100  # the square of a number beyond is none
_LOGARITHM = 100.0  # of a ratio of two sizes
_DEPTH = 8


def wrong_record(record: dict[str, Any]) -> str:
    """Return what is wrong with the shape of a finished record, in a clause; "" when nothing is."""
    for facts, kinds, where, needed in (
        (record, _PARTS, "", True),
        (record.get("cell"), _CELL, "cell.", True),
        (record.get("cell"), _CELL_OPTIONAL, "cell.", False),
        (record.get("provenance"), _PROVENANCE, "provenance.", False),
    ):
        wrong = _parts(facts, kinds, where, needed)
        if wrong:
            return wrong
    wrong = _parts(record["cell"]["recipe"], _RECIPE, "cell.recipe.", False)
    if wrong:
        return wrong
    for name, words in _WORDS.items():
        if record[name] not in words:
            return f"its {name} is none of {', '.join(filter(None, words))}"
    for part in ("cell", "cost", "provenance"):
        if not _plain(record[part], _DEPTH):
            return f"its {part} holds a number that is too large, or is nested too deeply"
    cost = record["cost"]
    if not all(type(cost.get(name)) in (int, float) and cost[name] >= 0 for name in ("seconds", "cpu_seconds")):
        return "its cost is not a time"
    if not all(isinstance(item, str) for item in record["certificate"].values()):
        return "its certificate holds more than hashes"
    if not _numbers(record["metrics"].values()):
        return "its metrics are not numbers"
    if any(name.startswith("log_") and abs(value or 0) > _LOGARITHM for name, value in record["metrics"].items()):
        return "its metrics hold a logarithm that no ratio of sizes has"
    if not _numbers(record["threshold_curve"]):
        return "its threshold curve does not hold numbers"
    for part, words in _COLUMNS.items():
        columns = record.get(part, {})
        if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
            return f"its {part} are not columns"
        if len({len(column) for column in columns.values()}) > 1:
            return f"the columns of its {part} differ in length"
        if "key" in columns:
            return f"its {part} have a column 'key', which is the cell's"
        for name, column in columns.items():
            if not (_numbers(column) or (name in words and set(map(type, column)) == {str})):
                return f"column '{name[:40]}' of its {part} does not hold {'words' if name in words else 'numbers'}"
    return ""


def wrong_error(record: dict[str, Any]) -> str:
    """Return what is wrong with the shape of an error record, in a clause; "" when nothing is."""
    return _parts(record, {"kind": str, "error": str}, "", True)


def _parts(facts: Any, kinds: dict[str, Any], where: str, needed: bool) -> str:
    for name, kind in kinds.items():
        if name not in facts:
            if needed:
                return f"it lacks '{where}{name}'"
            continue
        found = facts[name]
        # A learning rate may be written as 1; True is no number here, though Python takes it for one.
        if not isinstance(found, (int, float) if kind is float else kind) or (isinstance(found, bool) and kind is not bool):
            return f"its '{where}{name}' is not what it should be"
        if kind is int and not _plain(found, 0):
            return f"its '{where}{name}' is too large"
    return ""


def _plain(value: Any, depth: int) -> bool:
    """Whether a value, or all that it holds down to ``depth``, are words, truths, None or numbers that a table can hold."""
    if value is None or type(value) in (str, bool):
        return True
    if type(value) in (int, float):
        return abs(value) < (_LARGEST if type(value) is int else _HUGE)
    return depth > 0 and all(_plain(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value))


def _numbers(values: Any) -> bool:
    """Whether all are None or numbers whose squares are finite, and whole ones fit 64 bits."""
    known = [value for value in values if value is not None]
    if not set(map(type, known)) <= _NUMBERS:
        return False
    low, high = min(known, default=0), max(known, default=0)
    if low > -_LARGEST and high < _LARGEST:
        return True
    return low > -_HUGE and high < _HUGE and not any(type(value) is int and abs(value) >= _LARGEST for value in known)


def wrong_note(note: Any) -> str:
    """Return what is wrong with the note of an experiment (``experiment.json``), in a clause; "" when nothing is."""
    if not isinstance(note, dict):
        return "it is not the note of a sweep"
    wrong = _parts(note, {"name": str, "cells": list}, "", True) or _parts(note, {"title": str, "skipped": list, "cards": dict}, "", False)
    if wrong:
        return wrong
    for row in note["cells"]:
        if isinstance(row, list) and len(row) == 5:
            row.append("")  # before experiments had parts
        words = isinstance(row, list) and len(row) == 6 and all(isinstance(item, str) for item in row)
        if not words or not re.fullmatch(r"[0-9a-f]{16}", row[0]) or not re.fullmatch(r"[0-9a-f]{8,64}", row[1]):
            return "one of its cells is not a key, a fingerprint and four words"
    if not all(isinstance(item, str) for item in note.get("skipped", [])):
        return "its 'skipped' holds more than sentences"
    if not all(isinstance(file, str) and re.fullmatch(r"[0-9a-f]{16}\.json", file) for file in note.get("cards", {}).values()):
        return "its 'cards' names a file that is no card"
    return ""
