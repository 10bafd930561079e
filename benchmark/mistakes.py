"""What is wrong in an experiment file, as sentences for its author: with file, line, key and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from benchmark.errors import nearest


def sentences(error: ValidationError, path: Path, text: str, keys_at: Callable[[list, str], list[str]], prefix: str = "") -> list[str]:
    """Return one line per mistake: ``file:line: key: what is wrong`` with the nearest valid key.

    ``keys_at(place, prefix)`` names the keys that are valid where an unknown one stands.
    """
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        # Union branches and validators add their own words to the location; only keys and indices stand in the file.
        place = [p for p in item["loc"] if isinstance(p, int) or re.fullmatch(r"[A-Za-z_]\w*", str(p))]
        place = [p for p in place if p not in ("int", "tuple", "float", "constrained")]
        key = prefix
        for part in place:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        line = line_of(text, [str(p) for p in place if not isinstance(p, int)])
        if item["type"] == "extra_forbidden":
            last = str(item["loc"][-1])  # whatever the user wrote, also what is no plain word
            key = key if place and str(place[-1]) == last else f"{key}.{last}" if key else last
            message = f"unknown key{nearest(last, keys_at(place, prefix))}"
        elif item["type"] == "missing":
            message = "is missing"
        else:
            got = item.get("input")
            shown = f" (got {str(got)[:60]!r})" if isinstance(got, str) else f" (got {str(got)[:60]})"
            message = item["msg"].removeprefix("Value error, ") + shown
        lines.setdefault(key, f"{path}:{line}: {key or 'file'}: {message}")
    # A list with a wrong item is also reported as a whole; the item says it better.
    return [sentence for key, sentence in lines.items() if not any(other.startswith(f"{key}[") for other in lines)]


def line_of(text: str, names: list[str]) -> int:
    """Return the line where the last of the names first stands after the others; TOML readers keep no line numbers."""
    lines, start, found = text.splitlines(), 0, 1
    for name in names:
        for number in range(start, len(lines)):
            if name in lines[number]:
                start, found = number, number + 1
                break
    return found
