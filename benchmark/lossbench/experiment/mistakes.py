"""What is wrong in an experiment file, in sentences: file, line, key, the nearest valid name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossbench.base.errors import nearest
from lossbench.experiment.cells import Recipe
from lossbench.experiment.form import NAME, DataItem, ExperimentFile, LossItem, PartItem

# What pydantic finds wrong, as what is right.
ALLOWED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table"),
    "bool_type": "true or false",
    "string_type": "a text in quotation marks",
    "tuple_type": "a list",
    "literal_error": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_pattern_mismatch": "a text of the pattern {pattern}",
    "string_too_short": "a text of at least {min_length} character",
    "string_too_long": "a text of at most {max_length} characters",
}

PATTERNS = {NAME: "letters, digits, '_', '.' and '-', with a letter or a digit first, at most 61"}


def sentences(error: ValidationError, path: Path, text: str, prefix: str = "") -> list[str]:
    """Return one line per mistake: ``file:line: key: what is wrong`` with the nearest valid key."""
    lines: dict[str, str] = {}
    allowed: dict[str, dict[str, None]] = {}  # of a value that may be of several kinds: each of them
    for item in error.errors(include_url=False):
        # Union branches and validators add their own words to the location; only keys and indices stand in
        # the file.
        place = [p for p in item["loc"] if isinstance(p, int) or re.fullmatch(r"[A-Za-z_]\w*", str(p))]
        place = [p for p in place if p not in ("int", "tuple", "float", "constrained")]
        key = prefix
        for part in place:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        line = line_of(text, [str(p) for p in place if not isinstance(p, int)])
        if item["type"] == "extra_forbidden":
            last = str(item["loc"][-1])  # whatever the user wrote, also what is no plain word
            if not (place and str(place[-1]) == last):
                key = f"{key}.{last}" if key else last
            message = f"unknown key{nearest(last, _keys_at(place, prefix))}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "value_error":  # a sentence of ours
            message = item["msg"].removeprefix("Value error, ")
        else:
            kinds = allowed.setdefault(key, {})
            kinds[_allowed(item)] = None
            message = f"must be {' or '.join(kinds)}, not {_shown(item.get('input'))}"
        lines[key] = f"{path}:{line}: {key or 'file'}: {message}"
    # A list with a wrong item is also reported as a whole; the item says it better.
    whole = [key for key in lines if any(other.startswith(f"{key}[") for other in lines)]
    return [sentence for key, sentence in lines.items() if key not in whole]


def _allowed(item: Any) -> str:
    """Return what would be right in the place of what pydantic refuses."""
    context = item.get("ctx", {})
    if context.get("pattern") in PATTERNS:
        return PATTERNS[context["pattern"]]
    limits = {key: f"{value:.15g}" if isinstance(value, float) else value for key, value in context.items()}
    known = ALLOWED.get(item["type"])
    return known.format(**limits) if known else item["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    """Return a value as TOML has it, shortened."""
    if isinstance(value, str):
        return repr(value[:60])
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]


def _keys_at(place: list, prefix: str) -> list[str]:
    """Return the keys that are valid where an unknown one stands."""
    names = [str(p) for p in place[:-1] if not isinstance(p, int)]
    inside = names[-1] if names else ""
    if prefix or inside == "recipe":
        return list(Recipe.model_fields)
    tables = {"losses": LossItem, "datasets": DataItem, "part": PartItem}
    return list(tables.get(inside, ExperimentFile).model_fields)


def line_of(text: str, names: list[str]) -> int:
    """Return the line where the last of the names first stands after the others; TOML readers keep no line
    numbers.
    """
    lines, start, last = text.splitlines(), 0, 1
    # A guess by the words alone: from the table's name on to the key's.
    for name in names:
        for number in range(start, len(lines)):
            if name in lines[number]:
                start, last = number, number + 1
                break
    return last
