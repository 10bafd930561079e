"""What is missing of an experiment in a results folder, what it costs, and which of it is trained now.

Whether a cell is done, missing, stale or failed the store says (``store/store.py``)."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lossbench.base.errors import UserError, nearest
from lossbench.experiment.cells import Cell, Experiment, Recipe
from lossbench.store import note
from lossbench.store.store import Store
from lossbench.sweep import train_stack


@dataclass(frozen=True)
class Plan:
    """What an experiment needs: all its cells, the state of each, and what the missing ones are expected to
    cost (core-seconds).
    """

    experiment: Experiment
    cells: list[Cell]
    states: dict[str, Any]
    paces: dict[str, Pace]  # of the kinds of cells that have been measured
    notes: tuple[str, ...] = ()  # files that were set aside, and why
    copies: Mapping[str, Cell] = field(default_factory=dict)  # of the missing cells, see ``copies``

    @cached_property
    def missing(self) -> list[Cell]:
        return [cell for cell in self.cells if self.states[cell.key].status != "done"]

    def counts(self) -> dict[str, int]:
        """Return how many cells are done, missing, stale, failed."""
        return dict(Counter(self.states[cell.key].status for cell in self.cells))

    def cost(self, cells: Iterable[Cell] | None = None) -> Cost:
        """Return the expected core-seconds of the given cells (default: all missing ones)."""
        costs = [self.cell_cost(cell) for cell in (self.missing if cells is None else cells)]
        return Cost(*map(sum, zip(*costs, strict=True)))  # of none: nothing

    def cell_cost(self, cell: Cell) -> Cost:
        """Return the expected core-seconds that a cell adds: of a trunk only what no shorter length pays, and
        nothing where its twin's training serves it.
        """
        if cell.key in self.copies:
            return Cost()
        if cell.key not in self._costs:
            self._costs[cell.key] = self.paces.get(kind(cell), GUESS).cost(cell, self.added_steps(cell))
        return self._costs[cell.key]

    def added_steps(self, cell: Cell) -> int:
        """Return how many steps a cell costs where all that is missing of its trunk is trained together.

        A length that is recorded has left its trunk behind, so a longer one that is missing begins anew."""
        trained = [
            other
            for other in self._trunks[cell.trunk]
            if self.states[other.key].status != "done" and other.key not in self.copies
        ]
        shorter = [other.recipe for other in trained if other.recipe.steps < cell.recipe.steps]
        # Up to where the longest of the shorter lengths begins to decay both are the same training.
        return cell.recipe.steps - max((recipe.decay_begins for recipe in shorter), default=0)

    @cached_property
    def _costs(self) -> dict[str, Cost]:
        return {}

    @cached_property
    def _trunks(self) -> dict[str, list[Cell]]:
        trunks: dict[str, list[Cell]] = defaultdict(list)
        for cell in self.cells:
            trunks[cell.trunk].append(cell)
        return trunks

    def alone(self) -> dict[str, int]:
        """Return why cells of several lengths do not share their training, and how many they are."""
        lengths: dict[tuple, set[int]] = defaultdict(set)
        for cell in self.cells:
            lengths[cell.data.text, cell.loss.text, cell.seed].add(cell.recipe.steps)
        several = [cell for cell in self.cells if len(lengths[cell.data.text, cell.loss.text, cell.seed]) > 1]
        return dict(Counter(cell.alone for cell in several if cell.alone))

    @property
    def measured(self) -> bool:
        """Whether every missing cell's cost rests on a measured cell of its kind."""
        return all(kind(cell) in self.paces for cell in self.missing)


def plan(experiment: Experiment, results: str | Path, cells: list[Cell] | None = None) -> Plan:
    """Return the plan of an experiment (or of some cells) against a results folder, from directory listings
    and a few records.
    """
    store = Store(results)
    cells = experiment.cells() if cells is None else cells
    states = store.state([cell.pair for cell in cells], {cell.key: cell.loss.label for cell in cells})
    done = [cell for cell in cells if states[cell.key].status == "done"]
    missing = [cell for cell in cells if states[cell.key].status != "done"]
    # From records of this folder alone: elsewhere another machine may have trained them.
    paces = measured(store, done)
    return Plan(experiment, cells, states, paces, tuple(store.notes), copies(missing, store))


def copies(missing: Iterable[Cell], store: Store) -> dict[str, Cell]:
    """Return which of the missing cells need no training of their own, and the twin of each, whose training
    serves both: it is recorded, or is missing and comes first.
    """
    twins = {cell.key: cell.twin for cell in missing}
    recorded = store.state(twin.pair for twin in twins.values())
    trained = {key for key, state in recorded.items() if state.status == "done"}
    served = {}
    # Of two cells that are each other's twin the first trains, and the second copies.
    for key, twin in twins.items():
        if twin.key in trained:
            served[key] = twin
        else:
            trained.add(key)
    return served


def timing(planned: Plan) -> Plan:
    """Return the plan with a pace for every kind of missing cell: where none is recorded, a few steps of each
    loss are trained and timed.
    """
    unknown = [cell for cell in planned.missing if kind(cell) not in planned.paces]
    return replace(planned, paces=planned.paces | timed(unknown, planned.experiment.extra_files))


def why(planned: Plan, cell: Cell, results: str | Path, before: Mapping[tuple[str, str], Any]) -> str:
    """Return why a cell is not done, in one clause; of a failed one what its error record says, and of one
    that the last sweep knew as another cell what has changed.
    """
    state = planned.states[cell.key]
    if state.status == "failed":
        error = Store(results).read_error(*cell.pair)
        if error:
            return error["error"]
    other = before.get((cell.data_label, cell.loss.label)) if state.status == "missing" else None
    return (other and _changed(cell, other)) or state.why


def swept(planned: Plan, results: str | Path) -> dict[tuple[str, str], Any]:
    """Return by the labels of data set and loss what was recorded when the experiment was last swept and is
    no cell of it today.
    """
    held, own = note.read(results), {cell.key for cell in planned.cells}
    others = held.cells if held and held.name == planned.experiment.name else []
    # One of each stands for all its seeds.
    once = {(cell.data_label, cell.loss_label): cell for cell in others if cell.key not in own}
    store = Store(results)
    found = {kind: store.read(cell.key, cell.fingerprint) for kind, cell in once.items()}
    return {kind: record["cell"] for kind, record in found.items() if record}


def _changed(cell: Cell, other: Mapping[str, Any]) -> str:
    """Return what has changed since another cell of the same labels was recorded; "" where only its seed."""
    # As a record has it, without tuples.
    own = json.loads(json.dumps(cell.public.to_json()["cell"]))
    today, then = (
        {"loss": facts["loss_terms"], **facts["data_params"], **facts["recipe"]} for facts in (own, other)
    )
    names = [name for name in today | then if today.get(name) != then.get(name)]
    if names:
        return f"recorded with other settings ({', '.join(names)})"
    return "its data changed since it was recorded" if own["data_identity"] != other["data_identity"] else ""


def select(
    planned: Plan,
    budget: str | None = None,
    shard: str | None = None,
    workers: int = 1,
    parts: Sequence[str] = (),
    spent: float = 0.0,
    least: bool = True,
) -> list[Cell]:
    """Return the missing cells to train now: whole blocks only, those of the ``parts`` (() for all) and of
    one shard, and no more than ``workers`` finish within what is left of the budget when so many seconds are
    ``spent``; ``least``: one block at least, whatever it costs.
    """
    names = [part.name for part in planned.experiment.parts]
    for part in parts:
        if part not in names:
            raise UserError(f"--part {part}: there is no such part{nearest(part, names)}")
    # A block is taken at all its lengths, since they share their training.
    blocks: dict[str, list[Cell]] = defaultdict(list)
    for cell in planned.missing:
        if not parts or set(parts) & set(cell.parts):
            blocks[cell.bundle].append(cell)
    if shard is not None:
        number, count = shard_of(shard)
        # By position among all blocks of the experiment, so that the shards of several machines are disjoint
        # whatever each has done.
        every = list(dict.fromkeys(cell.bundle for cell in planned.cells))
        ours = set(every[number - 1 :: count])
        blocks = {block: cells for block, cells in blocks.items() if block in ours}
    if budget is None:
        return [cell for cells in blocks.values() for cell in cells]
    left = (seconds_of(budget) - spent) * workers
    chosen: list[Cell] = []
    # Blocks are complete comparisons, so they are never cut.
    for cells in blocks.values():
        left -= planned.cost(cells).total
        if left < 0 and (chosen or not least):
            break
        chosen += cells
    return chosen


def shard_of(text: str) -> tuple[int, int]:
    """Return the number and the count of "2/5"; UserError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: write it as i/n with 1 <= i <= n, for example 2/5")
    return int(match[1]), int(match[2])


def seconds_of(text: str) -> float:
    """Return how long "90s", "30m", "2h" or a number of minutes is; UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UserError(f"--budget {text}: write a time such as 90s, 30m (or 30) or 2h")
    return float(match[1]) * {"s": 1, "": 60, "m": 60, "h": 3600}[match[2]]


# --- core-seconds, from recorded cells of the same kind: training, validation and test apart


TRIED = (4, 16)  # steps of the trainings by which a kind of cell is timed

SAMPLE = 3  # records that are read of each kind; reading ten thousand would take longer than planning


class Cost(NamedTuple):
    """Core-seconds of some cells."""

    training: float = 0.0
    validation: float = 0.0
    test: float = 0.0

    @property
    def total(self) -> float:
        return sum(self)


class Pace(NamedTuple):
    """Seconds that one step, one look at the validation images and the test at the end take a cell."""

    step: float
    look: float = 0.0
    test: float = 0.0

    def cost(self, cell: Cell, steps: int) -> Cost:
        """Return what a cell costs that trains so many steps itself."""
        return Cost(self.step * steps, self.look * cell.recipe.validations, self.test)


GUESS = Pace(0.027)  # as long as no cell of a kind has been measured


def kind(cell: Cell) -> str:
    """Name what decides how long a step takes: data set and recipe, less what only says how many there are,
    or how large.
    """
    return f"{cell.data.text} {_paced(cell.recipe)}"


@lru_cache(maxsize=4096)  # a plan asks of every cell, and there are few recipes
def _paced(recipe: Recipe) -> str:
    free = {"steps": 1, "warmup": 0, "validations": 1, "learning_rate": 1.0, "head": "default"}
    return recipe.model_copy(update=free).digest


def measured(store: Store, done: Iterable[Cell]) -> dict[str, Pace]:
    """Return the mean pace of some recorded cells of each kind."""
    seen: dict[str, list[Pace]] = defaultdict(list)
    for cell in done:
        name = kind(cell)
        if len(seen[name]) < SAMPLE:
            record = store.read(*cell.pair)
            pace = _pace(cell, record) if record else None
            if pace:
                seen[name].append(pace)
    return {name: Pace(*map(_mean, zip(*paces, strict=True))) for name, paces in seen.items() if paces}


def timed(cells: Iterable[Cell], extra_files: tuple[str, ...]) -> dict[str, Pace]:
    """Return the pace of each kind of these cells, from two trainings of a few steps, evaluation included.

    A block is trained as the sweep would train it, all losses of a seed together, in a folder that is thrown
    away. Two lengths tell what a step takes from what every cell takes once."""
    blocks: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        own = blocks[kind(cell)]
        if not own or cell.block == next(iter(own.values())).block:
            own.setdefault(cell.loss.text, cell)
    return {name: _timed(list(own.values()), extra_files) for name, own in blocks.items()}


def _timed(block: list[Cell], extra_files: tuple[str, ...]) -> Pace:
    costs = []
    for steps in TRIED:
        own = {"steps": steps, "schedule": "constant", "warmup": 0, "validations": 1}
        few = [replace(cell, recipe=cell.recipe.model_copy(update=own)) for cell in block]
        costs.append(_spent(few, extra_files))
    short, long = costs
    step = max((long.training - short.training) / (TRIED[1] - TRIED[0]), 0.0)
    once = max(short.training - TRIED[0] * step, 0.0)
    return Pace(step, long.validation, long.test + once)


def _spent(cells: list[Cell], extra_files: tuple[str, ...]) -> Cost:
    """Train cells of one block and return what one of them took."""
    with tempfile.TemporaryDirectory(prefix="lossbench-plan-") as scratch:
        store = train_stack.train_aside(cells, Path(scratch), extra_files)
        records = [store.read(*cell.pair) for cell in cells]
        costs = [record["cost"] for record in records if record]
    if not costs:
        return Cost(GUESS.step * cells[0].recipe.steps)
    return Cost(*map(_mean, zip(*(_of_free_cores(cost, "cpu") for cost in costs), strict=True)))


def _pace(cell: Cell, record: Mapping[str, Any]) -> Pace | None:
    """Return the pace of one record; None where it was not trained itself. Records before validation and test
    were measured apart count both as training.
    """
    steps = record["cost"].get("steps", cell.recipe.steps)
    if not steps:
        return None
    spent = _of_free_cores(record["cost"], record["provenance"]["device"])
    return Pace(spent.training / steps, spent.validation / cell.recipe.validations, spent.test)


def _of_free_cores(cost: Mapping[str, float], device: str) -> Cost:
    """Return what a cell took, on a processor without the time in which other programs had its core: a plan
    that was timed on a busy machine would be wrong by any factor. A card's own time nobody else counts."""
    look, test = cost.get("validation_seconds", 0.0), cost.get("test_seconds", 0.0)
    own = min(cost["cpu_seconds"] / cost["seconds"], 1.0) if device == "cpu" and cost["seconds"] else 1.0
    return Cost(own * (cost["seconds"] - look - test), own * look, own * test)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
