"""What is run: the recipe that all losses share, the cell with its key, and the experiment as the parts that
its cells come from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lossbench.base.protocol import PROTOCOL
from lossbench.catalogue.registry import PATHS, DataSpec, LossSpec

# Fields that came after records had been written: left out of the digest at their first meaning, so that
# those records stay valid.
LATER = {"precision": "float32"}


class Strict(BaseModel):
    """Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Recipe(Strict):
    """Everything that is identical across losses: network, optimiser, schedule, steps, batches, augmentation."""

    model: Literal["unet"] = "unet"
    widths: Annotated[
        tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=2, max_length=6, strict=False)
    ] = (8, 16, 32)
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 300
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=100, strict=False)] | Literal["tuned"] = 0.005
    weight_decay: Annotated[float, Field(ge=0, le=1, strict=False)] = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.9
    schedule: Literal["one_cycle", "constant", "poly"] = "one_cycle"
    clip: Annotated[float, Field(gt=0, strict=False)] | None = None
    augment: Literal["none", "flips", "full"] = "flips"
    validations: Annotated[int, Field(ge=1, le=1000)] = 6
    stacked: bool = True
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # of the network's arithmetic; weights, losses and scores stay float32
    )

    @property
    def digest(self) -> str:
        """Eight hex digits that name the recipe (not kept on the instance: ``model_copy`` would carry it over
        to a changed recipe).
        """
        return _recipe_digest(self)


@lru_cache(maxsize=4096)
def _recipe_digest(recipe: Recipe) -> str:
    return _digest(
        {
            key: value
            for key, value in recipe.model_dump(mode="json").items()
            if key not in LATER or value != LATER[key]
        }
    )[:8]


@dataclass(frozen=True)
class Cell:
    """One training: a data set variant, a loss with all its parameters, a seed, a recipe."""

    data: DataSpec
    data_identity: str
    data_label: str
    loss: LossSpec
    seed: int
    recipe: Recipe
    learning_rate: float
    parts: tuple[str, ...] = ()  # of the experiment that it belongs to; not part of the key

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits over everything that decides the result, except source code, paths and machines."""
        own = {"loss": self.loss.identity()}
        if self.recipe.learning_rate == "tuned":  # the one part of a recipe that may differ within a block
            own["learning_rate"] = self.learning_rate
        return _digest({**self._shared(), **own})[:16]

    @cached_property
    def block(self) -> str:
        """Eight hex digits shared by all cells that start from the same weights and see the same batches."""
        return _digest(self._shared())[:8]

    def _shared(self) -> dict:
        return {
            "protocol": PROTOCOL,
            "data": [
                self.data.name,
                {k: v for k, v in self.data.params.items() if k not in PATHS},
                self.data_identity,
            ],
            "seed": self.seed,
            "recipe": self.recipe.digest,
        }


@dataclass(frozen=True)
class Part:
    """A full cross of losses, data sets and seeds; the claims say which part they speak of."""

    name: str
    seeds: tuple[int, ...]
    losses: tuple[LossSpec, ...]
    datasets: tuple[tuple[DataSpec, str, str, Recipe], ...]  # spec, identity, label, recipe
    title: str = ""  # the question that it answers
    fixed: bool = False  # no further loss joins it, and it stays out of the leaderboards


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: what its file says, and the cells that follow from it, in complete-block order."""

    name: str
    title: str
    parts: tuple[Part, ...]
    skipped: tuple[str, ...]  # sentences about optional data sets that are not at hand
    extra_files: tuple[str, ...]
    file: str
    rates: dict[tuple[str, str], float] | None = None  # (data set, loss) -> tuned learning rate

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of all parts, in the order of the file."""
        return tuple(dict.fromkeys(seed for part in self.parts for seed in part.seeds))

    @property
    def losses(self) -> tuple[LossSpec, ...]:
        """All losses of all parts, each once."""
        return tuple(
            {loss.text: loss for part in reversed(self.parts) for loss in reversed(part.losses)}.values()
        )[::-1]

    @property
    def datasets(self) -> tuple[tuple[DataSpec, str, str, Recipe], ...]:
        """All data set variants of all parts, each once a recipe."""
        return tuple(
            {
                (v[0].text, v[3].digest): v for part in reversed(self.parts) for v in reversed(part.datasets)
            }.values()
        )[::-1]

    def cells(self) -> list[Cell]:
        """Return all cells, each once; block after block (seeds outermost), so that an interrupted sweep
        holds complete comparisons.
        """
        found: dict[str, Cell] = {}
        for turn in range(max(len(part.seeds) for part in self.parts)):
            for part in self.parts:
                for data, identity, label, recipe in part.datasets if turn < len(part.seeds) else ():
                    for loss in part.losses:
                        cell = Cell(
                            data,
                            identity,
                            label,
                            loss,
                            part.seeds[turn],
                            recipe,
                            self.rate(data, loss, recipe),
                            (part.name,),
                        )
                        known = found.get(cell.key)
                        found[cell.key] = replace(known, parts=(*known.parts, part.name)) if known else cell
        return list(found.values())

    def rate(self, data: DataSpec, loss: LossSpec, recipe: Recipe) -> float:
        """Return the peak learning rate of a loss on a data set: the recipe's, or the tuned one."""
        return (
            (self.rates or {})[data.text, loss.text]
            if recipe.learning_rate == "tuned"
            else recipe.learning_rate
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    ).hexdigest()
