"""JSON as it is read from disk: strict and of bounded depth, so that a damaged file is a ValueError here and no surprise later."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89abAB]")  # half of a pair of surrogates: alone it is no text and no file can hold it


def parse(data: bytes) -> Any:
    """Return what strict JSON in UTF-8 says; ValueError for anything else: NaN, endless nests, text that could not be written again."""
    text = data.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse)
        if _ESCAPED.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def read(path: Path) -> Any:
    """Return what a file of strict JSON says; OSError or ValueError when it cannot be read."""
    return parse(path.read_bytes())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
