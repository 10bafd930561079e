"""The note of a results folder, ``experiment.json``: which experiment was swept into it last, which cells
belong to that, and all that a reader needs to know of its parts, losses and data sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossbench.base import files
from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, write_atomically

NAME = "experiment.json"

# Where a command that only reads looks when no folder is named: the user's own results, else the committed
# study.
OWN = Path("results")
STUDY = OWN / "paper"

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
CardFile = Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.json$")]


class _Facts(BaseModel):
    """Types are taken as they are written; keys of a later version are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class Part(_Facts):
    """A part of the experiment: a full cross of its losses, data sets and seeds."""

    name: str
    title: str = ""
    """The question that the part answers."""
    fixed: bool = False
    """Its cells stay out of the leaderboards and are compared within the part."""
    seeds: list[int] = []
    losses: list[str] = []
    """Canonical specs."""
    datasets: list[str] = []
    """Specs; of a path only its last part."""


class Term(_Facts):
    """One summand of a loss, as its source declared it when the sweep ran."""

    weight: float = 1.0
    name: str
    """A loss of ours, or ``library:name``."""
    params: dict[str, Any] = {}
    """Every parameter, defaults filled in; of another library's loss those that were given."""
    formula: str = ""
    cite: str = ""
    cost: str = ""
    empty: str = ""
    """What it does with an image that lacks the class."""
    needs: list[str] = []
    """What the training supplies: ``progress``, ``distance_map``, ``class_frequency``."""
    doc: str = ""
    """The first paragraph of its docstring."""


class Loss(_Facts):
    """What a loss of the experiment is."""

    label: str
    family: str
    aliases: list[str] = []
    """The spec with every parameter written out, under each name of the loss."""
    terms: list[Term] = []


class Dataset(_Facts):
    """What a data set of the experiment is; its pictures and numbers stand in its card."""

    name: str
    params: dict[str, Any] = {}
    family: str = ""
    """``synthetic`` where it is generated, so that its pictures may be shown to anybody."""
    doc: str = ""


class NotedCell(NamedTuple):
    """A cell of the experiment, and what the experiment calls it."""

    key: Key
    fingerprint: Fingerprint
    loss_label: str
    data_label: str
    block: str
    parts: str = ""  # names of its parts, joined by commas; older notes have none


class Note(_Facts):
    """What a sweep notes of its experiment before it trains anything. Facts that older notes lack are
    optional.
    """

    name: str
    title: str = ""
    file: str = ""
    """The experiment's file, without its folder."""
    seeds: list[int] = []
    skipped: list[str] = []
    """Sentences about data sets that were not at hand."""
    cards: dict[str, CardFile] = {}
    """Label of a data set -> its card in the folder ``cards``."""
    parts: list[Part] = []
    losses: dict[str, Loss] = {}
    """Canonical spec -> what the loss is."""
    datasets: dict[str, Dataset] = {}
    """Spec, of a path only its last part -> what the data set is."""
    recipes: dict[str, dict[str, Any]] = {}
    """Digest -> every field of the recipe."""
    cells: list[NotedCell]


def write(folder: str | Path, facts: dict[str, Any]) -> None:
    """Write the note of a folder; ``facts`` are the fields of ``Note`` as JSON."""
    text = Note.model_validate_json(json.dumps(facts)).model_dump_json(indent=1)
    try:
        write_atomically(Path(folder) / NAME, f"{text}\n".encode())
    except OSError as error:
        raise cannot_write(Path(folder), error) from None


def read(folder: str | Path) -> Note | None:
    """Return the note of a folder, None where no sweep has been; UserError when it is damaged."""
    path = Path(folder) / NAME
    try:
        data = path.read_bytes()
        files.parse(data)  # stricter than pydantic: no NaN, no half of a pair of surrogates
        return Note.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = _wrong(error)
    except (OSError, ValueError) as error:
        why = f"cannot be read ({error})"
    raise UserError(f"{path}: {why}; the sweep's command writes it again")


def _wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return "it is not the note of a sweep"
    return f"its '{'.'.join(map(str, first['loc']))[:80]}' is not as it should be ({first['msg']})"


def reading(given: Path | None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder that a command reads: the given one, else the user's own where a sweep has written
    there, else the committed study, which is said.
    """
    if given is not None:
        return given
    if (OWN / NAME).is_file() or not (STUDY / "tables").is_dir():
        return OWN
    say(f"no sweep of your own in {OWN} yet: this is the committed study in {STUDY}")
    return STUDY
