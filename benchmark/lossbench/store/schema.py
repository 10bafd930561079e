"""What a record and an error record say: one model each, from which both the check of what is read and the
page docs/record.md are made.

The check stands between a damaged file and tables, figures and sweeps: what passes can be put into a table.
It takes types as they are written, so that True is no number and "1" none either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

# Whatever passes here ends in pandas and pyarrow, whose whole numbers have 64 bits.
LARGEST = 2**63  # whole numbers beyond do not fit a table's column
HUGE = 1e100  # the square of a number beyond is none
LOGARITHM = 100.0  # no ratio of two sizes has a larger one
DEPTH = 8  # of facts within facts


def _fits(value: Any, depth: int = DEPTH) -> bool:
    """Whether a value, or all that it holds down to ``depth``, is a word, a truth, None or a number for a
    table.
    """
    if value is None or type(value) in (str, bool):
        return True
    if type(value) in (int, float):
        return abs(value) < (LARGEST if type(value) is int else HUGE)
    # A damaged file may nest a thousand deep, which would end in an error of recursion.
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_fits(item, depth - 1) for item in items)


def _are_numbers(values: Iterable[Any]) -> bool:
    """Whether all are None or numbers whose squares are finite, and whole ones fit 64 bits."""
    # By types and extremes, not value by value: a record holds ten thousand of them.
    known = [value for value in values if value is not None]
    if not set(map(type, known)) <= {int, float, bool}:
        return False
    # True of nearly every record, which then costs two passes.
    low, high = min(known, default=0), max(known, default=0)
    if low > -LARGEST and high < LARGEST:
        return True
    whole = [value for value in known if type(value) is int]
    return low > -HUGE and high < HUGE and all(abs(value) < LARGEST for value in whole)


def _bounded(value: Any) -> Any:
    if not _fits(value):
        raise ValueError("holds a number that is too large, or is nested too deeply")
    return value


def _numbers(values: Any) -> Any:
    if not isinstance(values, list) or not _are_numbers(values):
        raise ValueError("does not hold numbers")
    return values


def _metrics(metrics: Any) -> Any:
    if not isinstance(metrics, dict) or not _are_numbers(metrics.values()):
        raise ValueError("are not numbers")
    logarithms = (value for name, value in metrics.items() if name.startswith("log_") and value)
    if any(abs(value) > LOGARITHM for value in logarithms):
        raise ValueError("hold a logarithm that no ratio of sizes has")
    return metrics


def _columns(*words: str) -> Callable[[Any], Any]:
    """Return the check of a table in columns of equal length; those named in ``words`` may hold words."""

    def check(table: Any) -> Any:
        if not isinstance(table, dict) or not all(isinstance(column, list) for column in table.values()):
            raise ValueError("are not columns")
        if len({len(column) for column in table.values()}) > 1:
            raise ValueError("differ in length")
        # The tables put the key of the cell beside each row, and two columns of one name cannot be.
        if "key" in table:
            raise ValueError("have a column 'key', which is the cell's")
        for name, column in table.items():
            if not (_are_numbers(column) or (name in words and set(map(type, column)) == {str})):
                kind = "words" if name in words else "numbers"
                raise ValueError(f"hold no {kind} in the column '{name[:40]}'")
        return table

    return check


Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{8,}$")]
Whole = Annotated[int, Field(gt=-LARGEST, lt=LARGEST)]
Seconds = Annotated[float, Field(ge=0, lt=HUGE)]
Table = dict[str, list]


class Facts(BaseModel):
    """Types are taken as they are written; keys of a later version are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


# Facts that came after the first records are optional, so that those still read.


class Recipe(Facts):
    """What is identical across losses: every field of the recipe, of which tables ask for these by name."""

    learning_rate: float | str | None = None
    """Peak of the schedule; "own" where each loss has its own."""
    steps: Whole | None = None
    batch: Whole | None = None
    optimizer: str = ""
    augment: str = ""
    precision: str = ""


class Cell(Facts):
    """The resolved cell: everything that its key is computed from, every default filled in."""

    dataset: str
    """Canonical spec, ``scenes(foreground=0.02)``; of a path only its last part."""
    dataset_name: str = ""
    """The spec without its parameters."""
    data_params: dict[str, Any] = {}
    """Every parameter of the data set."""
    data_identity: str
    """Hex; changes when the data change."""
    data_label: str = ""
    """What the experiment called the variant."""
    loss: str
    """Canonical spec, ``dice(over='batch')``."""
    # JSON has no tuples, hence not strict.
    loss_terms: list[Annotated[tuple[float, str, dict[str, Any]], Field(strict=False)]] = []
    """One [weight, name, parameters] a summand, every parameter filled in."""
    seed: Whole
    learning_rate: float = 0.0
    """Peak of the schedule that this cell was given."""
    block: str = ""
    """Eight hex digits shared by the cells of a block."""
    recipe: Recipe
    recipe_digest: str = ""
    """Eight hex digits that name the recipe."""
    protocol: Whole
    """Version of the rules by which cells are drawn, trained and scored."""


class Certificate(Facts):
    """The pairing certificate: hashes (hex) that are equal for all cells of a block, or a contrast is not
    paired.
    """

    init: str
    """Initial weights."""
    order: str
    """Order of the batches, with their augmentation."""
    split: str
    """Train, validation and test indices."""
    data: str = ""
    """Images, masks, split and groups."""
    frequency: str = ""
    """Shares of the classes in what training shows: of the prior head, and of losses that ask for them."""


class Cost(Facts):
    """What a cell took. A cell trained in a stack of K bears 1/K of the stack."""

    seconds: Seconds
    """Wall time."""
    cpu_seconds: Seconds
    """CPU time."""
    validation_seconds: Seconds = 0.0
    """Of the wall time what went by over validation images."""
    test_seconds: Seconds = 0.0
    """The same over test images."""
    steps: Whole | None = None
    """Steps that were trained for it; those shared with a shorter length count there."""
    stack: Whole = 1
    """Cells that were trained together."""


class Provenance(Facts):
    """Where a record came from; never a host name, a user name or a home folder."""

    commit: str | None = None
    """Git commit of the code, null outside a checkout."""
    dirty: bool = False
    """Tracked or new files differed from the commit (changes under results/ do not count)."""
    diff: str | None = None
    """results/provenance/<diff>.diff holds the difference."""
    version: str = ""
    """Of lossbench."""
    packages: dict[str, Any] = {}
    """Name -> version, of the packages that a result can depend on."""
    hardware: dict[str, Any] = {}
    """cpu (model), cores (usable), memory_gb, gpus (names)."""
    python: str = ""
    platform: str = ""
    """As in ``Linux x86_64 glibc 2.36``."""
    command: str = ""
    """As typed, folders and addresses left out."""
    threads: Whole = 1
    """Of the training process."""
    device: str = ""
    """``cpu`` or ``cuda``; the name of the card is in ``hardware``."""
    copy_of: str = ""
    """Key of the cell whose training this was, where two cells are the same training: the shared rate is a
    loss's own as well. Such a record says what the other says, and costs nothing."""
    loss_libraries: dict[str, Any] = {}
    """Library -> version, where the loss is another library's."""
    loss_injected: dict[str, Any] = {}
    """Loss of a library -> the arguments that its adapter added."""


class Record(Facts):
    """One finished cell: a line of strict JSON in ``cells/<first two of the key>/<key>.<fingerprint>.json``.

    Numbers that are not finite are null; those of ``images`` have four significant digits, other columns five
    or six, ``metrics`` seven. What each metric means stands in docs/metrics.md; ``@0.5`` is the argmax,
    ``@val`` the threshold that was chosen on validation images.
    """

    schema_: Annotated[int, Field(alias="schema")]
    """Version of this page."""
    key: Key
    """First 16 hex digits of the sha256 of the resolved cell."""
    cell: Annotated[Cell, BeforeValidator(_bounded)]
    """What was trained."""
    loss_label: str
    """Short unique name within the experiment, used in figures."""
    family: str
    """Of the loss."""
    loss_fingerprint: Fingerprint
    """Hex; of the code of the loss and all that it uses."""
    certificate: Certificate
    """What must be equal for two cells to be a pair."""
    cost: Annotated[Cost, BeforeValidator(_bounded)]
    """What it took."""
    provenance: Annotated[Provenance, BeforeValidator(_bounded)]
    """Code, packages and machine."""
    outcome: Literal["done", "collapsed"]
    """A collapse is a result: scored, never dropped."""
    collapse: Literal["", "background", "foreground", "not_finite"]
    """What all of the prediction was, where it collapsed."""
    collapse_step: Whole | None = None
    """First validated step from which on it stayed collapsed."""
    metrics: Annotated[dict[str, float | int | None], PlainValidator(_metrics)]
    """Column of the table ``cells`` -> value: a mean over test images, then over foreground classes."""
    images: Annotated[Table, PlainValidator(_columns("class", "group"))]
    """Column of the table ``images`` -> one value a test image and foreground class. What follows from
    counts of pixels is left out; the tables work it out."""
    curves: Annotated[Table, PlainValidator(_columns("collapsed"))]
    """Column of the table ``curves`` -> one value a validated step."""
    steps: Annotated[Table, PlainValidator(_columns())] = {}
    """``train_loss`` and ``grad_norm`` -> their means over every so many steps, about a hundred of them."""
    steps_every: Annotated[int, Field(ge=1)] = 1
    """Steps behind one value of ``steps``."""
    threshold_curve: Annotated[list[float | None], PlainValidator(_numbers)]
    """Validation Dice at equal steps of the threshold: 0.01, 0.02, ..., 0.99."""
    reliability: Annotated[Table, PlainValidator(_columns("class", "region"))] = {}
    """Column of the table ``reliability`` -> one value a foreground class, region and bin of probability."""


class ErrorRecord(Facts):
    """A cell that raised or killed its worker, in ``<key>.<fingerprint>.error.json``: no result. It never
    blocks a re-run and goes when the cell succeeds.
    """

    schema_: Annotated[int, Field(alias="schema")]
    key: Key
    loss_fingerprint: Fingerprint
    kind: str
    """``error``, ``killed``, ``time limit``, ``damaged``."""
    error: str
    """One sentence."""
    # What follows is shown to a person and never computed with, so it is taken as it is.
    trace: Any = None
    """For the author of the loss."""
    cell: Any = None
    """This, ``loss_label`` and ``family`` as in a record, where they are known."""
    loss_label: Any = None
    family: Any = None
    attempts: Any = None
    """How often it was tried."""


def wrong(kind: type[Facts], facts: dict[str, Any]) -> str:
    """Return what is wrong with a record of that kind, in a clause; "" when nothing is."""
    try:
        kind.model_validate(facts)
    except ValidationError as error:
        return clause(error)
    return ""


def clause(error: ValidationError) -> str:
    """Return the first mistake that a model met as a clause that begins with "it" or "its"."""
    # One is enough to set a file aside; all of them would fill a screen.
    # Without the input, which may be megabytes and may hold what nobody should print.
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:80]
    if first["type"] == "missing":
        return f"it has no '{place}'"
    if first["type"] == "value_error":
        return f"its {place} {first['ctx']['error']}"
    if first["type"] == "literal_error":
        # Pydantic joins the choices in a sentence of its own; a reader needs the words alone.
        words = re.findall(r"'(\w+)'", first["ctx"]["expected"])
        return f"its {place} is none of {', '.join(words)}"
    return f"its '{place}' is not what it should be"
