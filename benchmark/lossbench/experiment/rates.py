"""The file of learning rates: ``lossbench tune`` writes it, a person reviews it, experiments read it.

    shared           one rate for all losses and heads: the best on average over CE, Dice and their sum
    [search]         what was tried on what
    [nearest]        family -> the loss whose rate an untuned loss of that family takes
    [[chosen]]       loss, head, learning_rate, edge, and the mean rank and score of every rate tried

``edge`` is true where the best rate still lay at the end of the range after the range had been widened: such
a loss has no own rate, and takes no part where each loss is trained at its own.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossbench.base.errors import UserError
from lossbench.base.files import write_atomically

if TYPE_CHECKING:
    from lossbench.catalogue.registry import LossSpec

# Which of the two losses of the debate a family is nearest to: that of pixels, or that of regions. A compound
# has a term over pixels, whose gradient is the larger one at the start.
NEAREST = {
    "distribution": "ce",
    "compound": "ce",
    "size": "ce",
    "calibration": "ce",
    "overlap": "dice",
    "boundary": "dice",
    "topology": "dice",
    "other": "ce",
}

Rate = Annotated[float, Field(gt=0, le=100)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Chosen(_Facts):
    """The learning rate of one loss under one head."""

    loss: str  # canonical spec
    head: str
    learning_rate: Rate
    edge: bool  # it is the smallest or the largest that was tried
    tried: list[Rate]
    mean_rank: list[float]  # of each rate tried, over the data set variants; 1 is best
    mean_score: list[float]


class Rates(_Facts):
    """What the file says."""

    shared: Rate
    search: dict[str, Any]
    nearest: dict[str, str]
    chosen: list[Chosen]

    def lender(self, loss: LossSpec, head: str) -> Chosen | None:
        """Return the choice that a loss trains by under a head: its own, else that of its family's nearest;
        None where the file has neither.
        """
        known = {(item.loss, item.head): item for item in self.chosen}
        nearest = self.nearest.get(loss.family) or self.nearest.get("other", "")
        return known.get((loss.text, head)) or known.get((nearest, head))


def read(file: Path) -> Rates:
    """Return the rates of a file; UserError where there are none."""
    try:
        return Rates.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        need = f'learning_rate = "own" or "shared" needs {file}, which is not there'
        raise UserError(f"{need}; 'lossbench tune' writes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UserError(f"{file}: is not a file that 'lossbench tune' wrote ({why})")


def write(file: Path, rates: Rates) -> None:
    """Write the file atomically."""
    comment = "`lossbench tune`; every loss was tried at the same rates, on the same tuning seeds"
    write_choice(file, comment, rates.model_dump())


def write_choice(file: Path, comment: str, facts: dict[str, Any]) -> None:
    """Write what was chosen atomically: plain values at the top, then tables, then one [[chosen]] for each
    choice.
    """
    lines = [f"# Written by {comment}."]
    lines += _entries({key: value for key, value in facts.items() if not isinstance(value, dict | list)})
    for name, table in facts.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *_entries(table)]
    for item in facts["chosen"]:
        lines += ["", "[[chosen]]", *_entries(item)]
    try:
        write_atomically(file, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None


def _entries(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in table.items()]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        text = f"{value:.4g}"  # rates have three digits, so that one that is read back is the one tried
        return text if "." in text or "e" in text else f"{text}.0"
    return json.dumps(value, ensure_ascii=False)
