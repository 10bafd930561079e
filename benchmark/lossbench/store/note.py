"""The note of a results folder, ``experiment.json``: which experiment was swept into it last, which cells
belong to that, and all that a reader needs to know of its parts, losses and data sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from lossbench.base import files
from lossbench.base.errors import UserError
from lossbench.base.files import cannot_write, write_atomically
from lossbench.store.schema import Facts, Fingerprint, Key, clause

NAME = "experiment.json"

# Where a command that only reads looks when no folder is named: the user's own results, else the committed
# study.
OWN = Path("results")
STUDY = OWN / "paper"

# A name alone: with a folder in it a note could point at any file of the reader's.
CardFile = Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.json$")]


class Part(Facts):
    """A part of the experiment: a full cross of its losses, data sets and seeds."""

    name: str
    """By which claims speak of it."""
    title: str = ""
    """The question that the part answers."""
    fixed: bool = False
    """Its cells stay out of the leaderboards and are compared within the part."""
    seeds: list[int] = Field(default=[])
    losses: list[str] = Field(default=[])
    """Canonical specs."""
    datasets: list[str] = Field(default=[])
    """Specs; of a path only its last part."""


class Term(Facts):
    """One summand of a loss, as its source declared it when the sweep ran."""

    weight: float = 1.0
    name: str
    """A loss of ours, or ``library:name``."""
    params: dict[str, Any] = Field(default={})
    """Every parameter, defaults filled in; of another library's loss those that were given."""
    formula: str = ""
    cite: str = ""
    cost: str = ""
    empty: str = ""
    """What it does with an image that lacks the class."""
    needs: list[str] = Field(default=[])
    """What the training supplies: ``progress``, ``distance_map``, ``class_frequency``."""
    doc: str = ""
    """The first paragraph of its docstring."""


class Loss(Facts):
    """What a loss of the experiment is."""

    label: str
    """What figures and tables call it."""
    family: str
    aliases: list[str] = Field(default=[])
    """The spec with every parameter written out, under each name of the loss."""
    terms: list[Term] = Field(default=[])
    spelled: dict[str, str] = Field(default={})
    """How other libraries build it: ``monai``, ``smp``, ``nnunet``."""


class Dataset(Facts):
    """What a data set of the experiment is; its pictures and numbers stand in its card."""

    name: str
    params: dict[str, Any] = Field(default={})
    family: str = ""
    """``synthetic`` where it is generated, so that its pictures may be shown to anybody."""
    doc: str = ""
    reference: float | None = None
    """The Dice by which it counts as learnt; scenes have their best possible one in the records."""
    reference_source: str = ""


class NotedCell(NamedTuple):
    """A cell of the experiment, and what the experiment calls it."""

    key: Key
    fingerprint: Fingerprint
    loss_label: str
    data_label: str
    block: str
    parts: str = ""  # names of its parts, joined by commas; older notes have none


class Note(Facts):
    """What a sweep notes of its experiment before it trains anything. Facts that older notes lack are
    optional.
    """

    name: str
    """By which the command line knows the experiment."""
    title: str = ""
    file: str = ""
    """The experiment's file, without its folder."""
    seeds: list[int] = Field(default=[])
    looks: list[int] = Field(default=[])
    """Numbers of seeds at which a sequential experiment decides which pairs need more."""
    choice: bool = False
    """Losses that are clearly worse than another train no further."""
    skipped: list[str] = Field(default=[])
    """Sentences about data sets that were not at hand."""
    cards: dict[str, CardFile] = Field(default={})
    """Label of a data set -> its card in the folder ``cards``."""
    parts: list[Part] = Field(default=[])
    losses: dict[str, Loss] = Field(default={})
    """Canonical spec -> what the loss is."""
    datasets: dict[str, Dataset] = Field(default={})
    """Spec, of a path only its last part -> what the data set is."""
    recipes: dict[str, dict[str, Any]] = Field(default={})
    """Digest -> every field of the recipe."""
    cells: list[NotedCell]
    """One [key, fingerprint, label of the loss, label of the data set, block, parts] a cell."""


def write(folder: str | Path, facts: dict[str, Any]) -> None:
    """Write the note of a folder; ``facts`` are the fields of ``Note`` as JSON."""
    # What would be refused when it is read is refused now, before anything is trained.
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
        # Stricter than pydantic: no NaN, and no half of a pair of surrogates, which no file can hold.
        files.parse(data)
        return Note.model_validate_json(data)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        top = not error.errors(include_url=False)[0]["loc"]
        why = "it is not the note of a sweep" if top else clause(error)
    except (OSError, ValueError) as error:
        why = f"cannot be read ({error})"
    raise UserError(f"{path}: {why}; the sweep's command writes it again")


def reading(given: Path | None, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder that a command reads: the given one, else the user's own where a sweep has written
    there, else the committed study, which is said.
    """
    if given is not None:
        return given
    # Away from a checkout there is no study: then the reader hears of their own empty folder.
    if (OWN / NAME).is_file() or not (STUDY / "tables").is_dir():
        return OWN
    say(f"no sweep of your own in {OWN} yet: this is the committed study in {STUDY}")
    return STUDY
