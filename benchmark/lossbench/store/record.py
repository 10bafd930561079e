"""What a record says: its schema as commented types, and its strict JSON form; older versions are read by
upgrades.

Numbers that are not finite are written as ``null`` (strict JSON has no NaN): a reader takes ``null`` in a
numeric place as "no value here", and the neighbouring count or outcome says why. What is told of single
images and single steps is rounded to six digits, which is more than one of them carries and halves the
record; all else is in full, and equal trainings give equal bytes. The last member, ``check``, is the CRC-32
of all bytes before it, so that a bit that flips in a digit is noticed too; records without one, of earlier
versions, are read all the same.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict

from lossbench.base import files
from lossbench.base.errors import UserError

SCHEMA = 1

KEY = re.compile(r"[0-9a-f]{16}")

CHECK = re.compile(rb',"check":"([0-9a-f]{8})"}\n')

_ROUNDED = ("images", "steps")

_CHECK_SIZE = len(b',"check":"00000000"}\n')

_UPGRADES: dict[
    int, Callable[[dict], dict]
] = {}  # version n -> function that turns a record n into a record n + 1


class CellFacts(TypedDict):
    """The resolved cell: everything that its key is computed from, every default filled in."""

    dataset: str  # canonical spec, "scenes(foreground=0.01)"
    loss: str  # canonical spec, "dice(over='batch')"
    seed: int
    recipe: dict[str, Any]  # model, optimiser, schedule, steps, batch size: what is identical across losses
    data_identity: str  # hex; changes when the data change
    protocol: int  # version of the training and scoring protocol


class Certificate(TypedDict):
    """The pairing certificate: hashes (hex) that are equal for all cells of a block, or a contrast is not
    paired.
    """

    init: str  # initial weights
    order: str  # order of the batches, with their augmentation
    split: str  # train, validation and test indices
    data: str  # images, masks, split and groups


class Cost(TypedDict):
    """What a cell took. A cell trained in a stack of K bears 1/K of the stack."""

    seconds: float  # wall time
    cpu_seconds: float  # processor time
    stack: int  # cells that were trained together


class Provenance(TypedDict, total=False):
    """Where a record came from; never a host name, a user name or a home folder."""

    commit: str | None  # git commit of the code, None outside a checkout
    dirty: bool  # tracked or new files differed from the commit (changes under results/ don't count)
    diff: str | None  # results/provenance/<diff>.diff holds the difference
    version: str  # of lossbench
    packages: dict[str, str]  # name -> version, of the packages that a result can depend on
    hardware: dict[str, Any]  # cpu (model), cores (usable), memory_gb, gpus (names)
    python: str
    platform: str  # "Linux x86_64 glibc 2.36"
    command: str  # as typed, folders and addresses left out
    threads: int  # of the training process
    device: str  # "cpu", "cuda: NVIDIA ..."


class Record(TypedDict):
    """One finished cell.

    Metrics: higher is better for dice, iou, precision, recall, nsd, boundary_iou; lower for hd95 and assd (in
    spacing units), nll (nats a pixel), ece, ece_fg, brier, fp_rate, fp_area, missed. Size ratios (predicted /
    true) are best at 1, their natural logs at 0. ``@0.5`` is the argmax, ``@val`` the threshold chosen on
    validation."""

    schema: int
    key: str  # 16 hex: sha256 of the resolved cell
    cell: CellFacts
    loss_label: str  # short unique name within the experiment, used in figures
    family: str
    loss_fingerprint: str  # hex; of the loss's source, docstrings left out
    outcome: Literal["done", "collapsed"]  # collapsed is a result: scored, never dropped
    collapse: Literal["", "background", "foreground", "not_finite"]
    metrics: dict[
        str, float | int | None
    ]  # column of the cells table -> value; means over images, then classes
    images: dict[str, list]  # column of the images table -> one value per test image and foreground class
    curves: dict[str, list]  # column of the curves table -> one value per logged step
    threshold_curve: list[float | None]  # validation Dice at thresholds 0.01, 0.02, ..., 0.99
    certificate: Certificate
    cost: Cost
    provenance: Provenance


class ErrorRecord(TypedDict):
    """A cell that raised or killed its worker: no result, never blocks a re-run, goes when the cell succeeds."""

    schema: int
    key: str
    loss_fingerprint: str
    kind: str  # "error", "killed", "time limit"
    error: str  # one sentence
    trace: NotRequired[str]  # for the loss's author
    cell: NotRequired[dict]
    attempts: NotRequired[int]
    provenance: NotRequired[Provenance]


class Damaged(Exception):
    """These bytes are not the record that their name promises; the text says why."""


def plain(value: Any) -> Any:
    """Return ``value`` as strict JSON holds it: arrays become lists, numpy scalars numbers, NaN and
    infinities None.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return plain(value.tolist())
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


def encode(record: dict) -> bytes:
    """Return the bytes of a record or an error: one line that starts with the schema and ends with its check
    sum.
    """
    key, fingerprint = record.get("key"), record.get("loss_fingerprint")
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError(f"a record needs a key of 16 hex digits, not {key!r}")
    if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9a-f]{8,}", fingerprint):
        raise ValueError(f"a record needs a loss fingerprint of 8 or more hex digits, not {fingerprint!r}")
    ordered = {
        "schema": SCHEMA,
        **{name: item for name, item in record.items() if name not in ("schema", "check")},
    }
    body = json.dumps(rounded(plain(ordered)), allow_nan=False, separators=(",", ":"), ensure_ascii=False)[
        :-1
    ].encode()
    return body + f',"check":"{zlib.crc32(body):08x}"}}\n'.encode()


def rounded(record: dict) -> dict:
    """Return a record as it is written: the columns of ``images`` and ``steps`` at six significant digits."""
    parts = {part: record[part] for part in _ROUNDED if isinstance(record.get(part), dict)}
    return {
        **record,
        **{
            part: {name: _six_digits(column) for name, column in columns.items()}
            for part, columns in parts.items()
        },
    }


def _six_digits(column: Any) -> Any:
    if not isinstance(column, list):
        return column
    return [float(f"{value:.6g}") if isinstance(value, float) else value for value in column]


def whole(data: bytes) -> str:
    """Return why these bytes cannot be a whole record, in a clause, without parsing them; "" when they may be
    one.
    """
    if not data.strip():
        return "it is empty"
    found = CHECK.fullmatch(data[-_CHECK_SIZE:])
    if found and int(found[1], 16) != zlib.crc32(data[:-_CHECK_SIZE]):
        return "its check sum does not fit its bytes"
    return "" if data.startswith(b'{"schema":') and data.endswith(b"}\n") else "it is cut short"


def decode(data: bytes, key: str, fp: str, where: str = "the record", error: bool = False) -> dict:
    """Return the record (or the ``error`` record) in today's schema; raise Damaged when these bytes are not
    that of this key and fingerprint.

    A record of a newer schema is intact, only unknown here: that is a UserError."""
    try:
        record = files.parse(data)
    except ValueError as mistake:
        raise Damaged(
            "it is empty" if not data.strip() else f"it is not valid JSON ({type(mistake).__name__})"
        ) from None
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise Damaged("it is not a lossbench record")
    if "check" in record and (whole(data) or not CHECK.fullmatch(data[-_CHECK_SIZE:])):
        raise Damaged("its check sum does not fit its bytes")
    record.pop("check", None)
    if record["schema"] > SCHEMA:
        newer = f"{where} has schema {record['schema']}, newer than this lossbench knows ({SCHEMA})"
        raise UserError(f"{newer}; update lossbench")
    while record["schema"] < SCHEMA:
        upgrade = _UPGRADES.get(record["schema"])
        if upgrade is None:
            raise Damaged(f"its schema {record['schema']} never existed")
        record = {**upgrade(record), "schema": record["schema"] + 1}
    if record.get("key") != key:
        raise Damaged(f"it holds the cell {_short(record.get('key'))}")
    if not isinstance(found := record.get("loss_fingerprint"), str) or not found.startswith(fp):
        raise Damaged(f"it holds the loss fingerprint {_short(found)}")
    wrong = wrong_error(record) if error else wrong_record(record)
    if wrong:
        raise Damaged(wrong)
    return record


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def missing_parts(record: dict) -> list[str]:
    """Names that a finished record must have and this one lacks."""
    return [name for name in Record.__required_keys__ if name not in record and name != "schema"]


# --- Whether what a file says has the shape of a record: the check that stands between a damaged file and
# tables, figures, sweeps.

_PARTS = {
    "cell": dict, "loss_label": str, "family": str, "outcome": str, "collapse": str, "metrics": dict, "images": dict, "curves": dict,
    "threshold_curve": list, "certificate": dict, "cost": dict, "provenance": dict,
}  # fmt: skip

_CELL = {"dataset": str, "loss": str, "seed": int, "recipe": dict, "data_identity": str, "protocol": int}

_CELL_OPTIONAL = {
    "dataset_name": str,
    "data_params": dict,
    "data_label": str,
    "block": str,
    "recipe_digest": str,
    "learning_rate": float,
}

_RECIPE = {
    "learning_rate": (int, float, str),
    "steps": int,
    "batch": int,
    "optimizer": str,
    "augment": str,
    "precision": str,
}

_PROVENANCE = {
    "commit": (str, type(None)), "dirty": bool,
    "version": str, "packages": dict, "hardware": dict, "python": str, "platform": str, "command": str, "threads": int, "device": str,
}  # fmt: skip

_WORDS = {"outcome": ("done", "collapsed"), "collapse": ("", "background", "foreground", "not_finite")}

_COLUMNS = {
    "images": ("class", "group"),
    "curves": ("collapsed",),
    "steps": (),
    "reliability": ("class", "region"),
}  # part -> its columns of words

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
    if not all(
        type(cost.get(name)) in (int, float) and cost[name] >= 0 for name in ("seconds", "cpu_seconds")
    ):
        return "its cost is not a time"
    if not all(isinstance(item, str) for item in record["certificate"].values()):
        return "its certificate holds more than hashes"
    if not _numbers(record["metrics"].values()):
        return "its metrics are not numbers"
    if any(
        name.startswith("log_") and abs(value or 0) > _LOGARITHM for name, value in record["metrics"].items()
    ):
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
                return (
                    f"column '{name[:40]}' of its {part} does not hold "
                    f"{'words' if name in words else 'numbers'}"
                )
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
        if not isinstance(found, (int, float) if kind is float else kind) or (
            isinstance(found, bool) and kind is not bool
        ):
            return f"its '{where}{name}' is not what it should be"
        if kind is int and not _plain(found, 0):
            return f"its '{where}{name}' is too large"
    return ""


def _plain(value: Any, depth: int) -> bool:
    """Whether a value, or all that it holds down to ``depth``, are words, truths, None or numbers that a
    table can hold.
    """
    if value is None or type(value) in (str, bool):
        return True
    if type(value) in (int, float):
        return abs(value) < (_LARGEST if type(value) is int else _HUGE)
    return depth > 0 and all(
        _plain(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


def _numbers(values: Any) -> bool:
    """Whether all are None or numbers whose squares are finite, and whole ones fit 64 bits."""
    known = [value for value in values if value is not None]
    if not set(map(type, known)) <= _NUMBERS:
        return False
    low, high = min(known, default=0), max(known, default=0)
    if low > -_LARGEST and high < _LARGEST:
        return True
    return (
        low > -_HUGE
        and high < _HUGE
        and not any(type(value) is int and abs(value) >= _LARGEST for value in known)
    )
