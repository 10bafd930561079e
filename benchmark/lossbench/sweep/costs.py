"""What cells are expected to cost in core-seconds, from recorded ones of their kind: training, validation and
test apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from lossbench.experiment.cells import Cell, Recipe
from lossbench.store.store import Store

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
            pace = _pace(cell, record["cost"]) if record else None
            if pace:
                seen[name].append(pace)
    return {name: Pace(*map(_mean, zip(*paces, strict=True))) for name, paces in seen.items() if paces}


def _pace(cell: Cell, cost: Mapping[str, float]) -> Pace | None:
    """Return the pace of one record; None where it was not trained itself. Records before validation and test
    were measured apart count both as training.
    """
    steps = cost.get("steps", cell.recipe.steps)
    look, test = cost.get("validation_seconds", 0.0), cost.get("test_seconds", 0.0)
    if not steps:
        return None
    return Pace((cost["seconds"] - look - test) / steps, look / cell.recipe.validations, test)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
