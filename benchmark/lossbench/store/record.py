"""A record as bytes: one line of strict JSON that begins with the version of its schema and ends with its
check sum. What it says stands in schema.py; older versions are read by upgrades.

The last member, ``check``, is the CRC-32 of all bytes before it, so that a bit that flips in a digit is
noticed, too; records of earlier versions have none. Numbers that are not finite are written as ``null``
(strict JSON has no NaN), and the neighbouring count or outcome says why. Numbers are rounded to as many
digits as they carry; equal trainings give equal bytes.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable
from typing import Any

from lossbench.base import files
from lossbench.base.errors import UserError
from lossbench.store.schema import ErrorRecord, Record, wrong

SCHEMA = 1
KEY = re.compile(r"[0-9a-f]{16}")
FINGERPRINT = re.compile(r"[0-9a-f]{8,}")

_UPGRADES: dict[int, Callable[[dict], dict]] = {}  # version n -> what makes a record n + 1 of a record n
# Significant digits of a record's numbers: more than any of them carries, and less than half the bytes.
_DIGITS = {"metrics": 7, "images": 4, "reliability": 5, "threshold_curve": 5, "curves": 6, "steps": 5}
_CHECK = re.compile(rb',"check":"([0-9a-f]{8})"}\n')
_CHECK_SIZE = len(b',"check":"00000000"}\n')


class DamagedRecord(Exception):
    """These bytes are not the record that their name promises; the text says why."""


def plain(value: Any) -> Any:
    """Return ``value`` as strict JSON holds it: arrays as lists, numpy scalars as numbers, NaN and
    infinities as None.
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


def encode(record: dict[str, Any]) -> bytes:
    """Return the bytes of a record or of an error record; ValueError without a proper key and fingerprint."""
    key, fingerprint = record.get("key"), record.get("loss_fingerprint")
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError(f"a record needs a key of 16 hex digits, not {key!r}")
    if not isinstance(fingerprint, str) or not FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"a record needs a loss fingerprint of 8 or more hex digits, not {fingerprint!r}")
    # The schema comes first, so that a reader knows a record by its first bytes.
    facts = {name: value for name, value in record.items() if name not in ("schema", "check")}
    ordered = rounded(plain({"schema": SCHEMA, **facts}))
    text = json.dumps(ordered, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    body = text[:-1].encode()  # its last brace follows the check sum
    return body + f',"check":"{zlib.crc32(body):08x}"}}\n'.encode()


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it is written: its results at so many significant digits (``_DIGITS``)."""
    return record | {name: _rounded(record[name], n) for name, n in _DIGITS.items() if name in record}


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def flaw(data: bytes) -> str:
    """Return why these bytes cannot be a whole record, in a clause, without parsing them; "" when they may
    be.
    """
    if not data.strip():
        return "it is empty"
    # Records of earlier versions have no check sum; of them only the ends can be looked at.
    check = _CHECK.fullmatch(data[-_CHECK_SIZE:])
    if check and int(check[1], 16) != zlib.crc32(data[:-_CHECK_SIZE]):
        return "its check sum does not fit its bytes"
    return "" if data.startswith(b'{"schema":') and data.endswith(b"}\n") else "it is cut short"


def is_marked(data: bytes) -> bool:
    """Whether a record carries a check sum; those of earlier versions have none."""
    return _CHECK.fullmatch(data[-_CHECK_SIZE:]) is not None


def decode(data: bytes, key: str, fp: str, where: str = "the record", error: bool = False) -> dict[str, Any]:
    """Return the record (or the ``error`` record) of a key and a fingerprint, in today's schema.

    Raises DamagedRecord when these bytes are not that record. A record of a newer schema is intact, only
    unknown here: that is a UserError.
    """
    record = _parse(data)
    if record["schema"] > SCHEMA:
        newer = f"{where} has schema {record['schema']}, newer than this lossbench knows ({SCHEMA})"
        raise UserError(f"{newer}; update lossbench")
    record = _upgraded(record)
    # A file that was renamed by hand must not be taken for another cell's.
    own, fingerprint = record.get("key"), record.get("loss_fingerprint")
    if own != key:
        raise DamagedRecord(f"it holds the cell {_short(own)}")
    if not isinstance(fingerprint, str) or not fingerprint.startswith(fp):
        raise DamagedRecord(f"it holds the loss fingerprint {_short(fingerprint)}")
    mistake = wrong(ErrorRecord if error else Record, record)
    if mistake:
        raise DamagedRecord(mistake)
    return record


def _parse(data: bytes) -> dict[str, Any]:
    """Return what the bytes of a record of any version say, without its check sum, which fits."""
    try:
        record = files.parse(data)
    except ValueError as error:
        why = f"it is not valid JSON ({type(error).__name__})"
        raise DamagedRecord(why if data.strip() else "it is empty") from None
    # Exactly an integer: True is one, too, as far as Python is concerned.
    if not isinstance(record, dict) or type(record.get("schema")) is not int:
        raise DamagedRecord("it is not a lossbench record")
    if "check" in record and (flaw(data) or not _CHECK.fullmatch(data[-_CHECK_SIZE:])):
        raise DamagedRecord("its check sum does not fit its bytes")
    record.pop("check", None)
    return record


def _upgraded(record: dict[str, Any]) -> dict[str, Any]:
    while record["schema"] < SCHEMA:
        upgrade = _UPGRADES.get(record["schema"])
        if upgrade is None:
            raise DamagedRecord(f"its schema {record['schema']} never existed")
        record = {**upgrade(record), "schema": record["schema"] + 1}
    return record


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
