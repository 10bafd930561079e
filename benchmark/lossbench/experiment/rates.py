"""The file of tuned learning rates: ``lossbench tune`` writes it, experiments read it.

    [budget]        what every loss was given: trials, tuning seeds, sampler, range, objective
    [[chosen]]      data, loss, learning_rate, objective, trials, edge

``edge`` is true where the best rate lies at the end of the range.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError
from lossbench.base.files import write_atomically


def read(file: Path, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Return (data set, loss) -> learning rate; UserError when the file or one of the wanted pairs is
    missing.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        rates = {(item["data"], item["loss"]): float(item["learning_rate"]) for item in raw["chosen"]}
    except FileNotFoundError:
        need = f'learning_rate = "tuned" needs {file}, which is not there'
        raise UserError(f"{need}; 'lossbench tune' writes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: is not a file that 'lossbench tune' wrote ({why})") from None
    # Only what the experiment uses must be there: one file may serve several experiments.
    for data, loss in wanted:
        rate = rates.get((data, loss))
        if rate is None:
            raise UserError(
                f"{file}: has no learning rate for loss '{loss}' on '{data}'; 'lossbench tune' on "
                "this experiment adds it"
            )
        if not 0 < rate < float("inf"):
            where = f"the learning rate of loss '{loss}' on '{data}'"
            raise UserError(f"{file}: {where} must be positive, it is {rate}")
    return rates


def write(file: Path, budget: dict[str, Any], chosen: list[dict[str, Any]]) -> None:
    """Write the file atomically: a header for the reader, the budget, one table for each choice."""
    lines = [
        "# Written by `lossbench tune`; every loss had the same candidates and the same number of trials.",
        "[budget]",
    ]
    lines += [f"{key} = {_toml(value)}" for key, value in budget.items()]
    for item in chosen:
        lines += ["", "[[chosen]]", *(f"{key} = {_toml(value)}" for key, value in item.items())]
    try:
        write_atomically(file, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        text = f"{value:.6g}"  # candidates have six digits, so that a rate read back is the one tried
        return text if "." in text or "e" in text else f"{text}.0"
    return json.dumps(value, ensure_ascii=False)
