"""The search for learning rates: every loss is tried at the same rates, each trial an ordinary cell.

A loss's rate under a head is the one with the best mean rank of validation ``dice_all`` over all data set
variants of the experiment, mean over tuning seeds, which no study reports. It is never the loss value that
decides, and never the test split. Where the best rate is the first or the last one tried, the next one beyond
is tried too, at most twice. What to try next follows from the records alone, so that a search that is
interrupted goes on, and ends with the same choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from lossbench.base.errors import UserError
from lossbench.experiment.cells import Cell, Experiment, Part, Variant
from lossbench.experiment.rates import NEAREST, Chosen, Rates
from lossbench.store.store import Store

TUNING_SEEDS = range(1_000_000, 2_000_000)  # kept for tuning: no study, trial or test trains them

OBJECTIVE = "val_dice_all@0.5"

FACTOR, HALF, WIDENINGS = 3.0, 2, 2  # a grid of 2 * HALF + 1 rates; how often it grows where the best is last

GRID = tuple(range(-HALF, HALF + 1))  # places of its rates, in factors from the middle one

BASIS = ("ce", "dice", "dice_ce")  # over which the one rate for all is best on average

Arm = tuple[str, str]  # spec of a loss, head
Places = dict[Arm, tuple[int, ...]]  # of the rates that are tried, in factors from the middle one


@dataclass(frozen=True)
class Search:
    """What is tried: five rates about the ``middle`` one, a factor 3 apart, on ``seeds`` tuning seeds."""

    middle: float = 0.005
    seeds: int = 3

    def rate(self, place: int) -> float:
        """Return the rate so many factors from the middle, in the three digits that the file keeps."""
        return float(f"{self.middle * FACTOR**place:.3g}")


@dataclass(frozen=True)
class Tried:
    """What the records say of one loss under one head: scores (rates, variants), nan where a seed is
    missing.
    """

    arm: Arm
    places: tuple[int, ...]  # of the rates, ascending, in factors from the middle
    scores: np.ndarray

    @property
    def complete(self) -> bool:
        return not np.isnan(self.scores).any()

    @property
    def ranks(self) -> np.ndarray:
        """The mean rank of each rate over the variants; 1 is best, equals share theirs."""
        return rankdata(-self.scores, axis=0).mean(axis=1)

    @property
    def best(self) -> int:
        """Which of the rates is best: the lowest mean rank, of equals the best mean score, then the lower
        rate.
        """
        means = self.scores.mean(axis=1)
        return min(range(len(self.places)), key=lambda place: (self.ranks[place], -means[place], place))

    @property
    def beyond(self) -> int | None:
        """The place next to the best one that was not tried; None where there is one on either side."""
        if self.best == 0:
            return self.places[0] - 1
        return self.places[-1] + 1 if self.best == len(self.places) - 1 else None


def search(experiment: Experiment, wanted: Search, store: Store) -> tuple[Experiment, list[Tried]]:
    """Return the trials that the records so far ask for, as an experiment, and what the records say of them.

    While some of its cells are missing, train them and ask again."""
    check(experiment)
    arms: dict[Arm, None] = {}
    for part in experiment.parts:
        for loss in part.losses:
            arms |= {(loss.text, variant.recipe.head): None for variant in part.datasets}
    places = dict.fromkeys(arms, GRID)
    known: dict[str, float] = {}
    for widening in range(WIDENINGS + 1):
        trials = _trials(experiment, wanted, places)
        tried = _tried(trials.cells(), wanted, places, store, known)
        more = {own.arm: own.beyond for own in tried if own.complete and own.beyond is not None}
        if widening == WIDENINGS or not more:
            break
        places |= {arm: tuple(sorted((*places[arm], place))) for arm, place in more.items()}
    return trials, tried


def check(experiment: Experiment) -> None:
    """UserError where the experiment reports seeds that are kept for tuning."""
    # A rate that was chosen on the seeds that are reported would be chosen on their luck.
    if any(seed in TUNING_SEEDS for seed in experiment.seeds):
        raise UserError(
            f"seeds from {TUNING_SEEDS.start} to {TUNING_SEEDS.stop - 1} are kept for tuning; the experiment "
            f"'{experiment.name}' reports them"
        )


def _trials(experiment: Experiment, wanted: Search, places: Places) -> Experiment:
    """Return the experiment with a part for each of its parts, heads and rates."""
    seeds = tuple(TUNING_SEEDS[: wanted.seeds])
    parts = []
    for part in experiment.parts:
        for head in dict.fromkeys(variant.recipe.head for variant in part.datasets):
            for place in sorted({place for tried in places.values() for place in tried}):
                losses = tuple(loss for loss in part.losses if place in places[loss.text, head])
                if losses:
                    variants = _at(part, head, wanted.rate(place))
                    name = f"{part.name}-{head}-{wanted.rate(place):g}"
                    parts.append(Part(name, seeds, losses, variants))
    return replace(experiment, parts=tuple(parts), rates=None)


def _at(part: Part, head: str, rate: float) -> tuple[Variant, ...]:
    """Return the variants of a part under a head, at a rate; those that differed only in it are one."""
    variants = {}
    for variant in part.datasets:
        if variant.recipe.head == head:
            recipe = variant.recipe.model_copy(update={"learning_rate": rate})
            label = f"{variant.label}, learning_rate {rate:g}"
            variants[variant.data.text, recipe.digest] = variant._replace(recipe=recipe, label=label)
    return tuple(variants.values())


def _tried(
    cells: list[Cell], wanted: Search, places: Places, store: Store, known: dict[str, float]
) -> list[Tried]:
    """Return what the records say of these cells; ``known`` keeps the scores that were read, by key."""
    values: dict[tuple[Arm, str, float], list[float]] = defaultdict(list)
    variants: dict[Arm, dict[str, None]] = defaultdict(dict)
    for cell in cells:
        arm, variant = (cell.loss.text, cell.recipe.head), _variant(cell)
        variants[arm][variant] = None
        if cell.key not in known:
            record = store.read(*cell.pair)
            if record is None:
                continue
            score = record["metrics"].get(OBJECTIVE)
            # A trial that collapsed or was not finite is a result: a bad one.
            known[cell.key] = score if score is not None and math.isfinite(score) else 0.0
        values[arm, variant, cell.learning_rate].append(known[cell.key])

    def mean(arm: Arm, variant: str, place: int) -> float:
        over_seeds = values[arm, variant, wanted.rate(place)]
        return sum(over_seeds) / wanted.seeds if len(over_seeds) == wanted.seeds else math.nan

    return [
        Tried(arm, own, np.array([[mean(arm, name, place) for name in variants[arm]] for place in own]))
        for arm, own in places.items()
    ]


def _variant(cell: Cell) -> str:
    """Return what cells share that differ in nothing but loss, seed and rate."""
    recipe = cell.recipe.model_copy(update={"learning_rate": 1.0})
    return f"{cell.data.text} {recipe.digest}"


def chosen(experiment: Experiment, wanted: Search, tried: list[Tried]) -> Rates:
    """Return the choice for every loss and head whose trials are all recorded; UserError where none are."""
    whole = [own for own in tried if own.complete]
    if not whole:
        raise UserError("no loss has all its trials recorded yet; the same command goes on with them")
    recipes = [variant.recipe for variant in experiment.datasets]
    facts = {
        "experiment": experiment.name,
        "variants": list(dict.fromkeys(variant.label for variant in experiment.datasets)),
        "seeds": list(TUNING_SEEDS[: wanted.seeds]),
        "steps": sorted({recipe.steps for recipe in recipes}),
        "optimizer": sorted({recipe.optimizer for recipe in recipes}),
        "objective": OBJECTIVE,
    }
    return Rates(
        shared=_shared(whole, wanted),
        search=facts,
        nearest=NEAREST,
        chosen=[_choice(own, wanted) for own in whole],
    )


def _choice(own: Tried, wanted: Search) -> Chosen:
    loss, head = own.arm
    return Chosen(
        loss=loss,
        head=head,
        learning_rate=wanted.rate(own.places[own.best]),
        edge=own.beyond is not None,
        tried=[wanted.rate(place) for place in own.places],
        mean_rank=own.ranks.tolist(),
        mean_score=own.scores.mean(axis=1).tolist(),
    )


def _shared(whole: list[Tried], wanted: Search) -> float:
    """Return the one rate for all: the grid's rate with the best mean rank over CE, Dice and their sum, under
    every head; over all losses where none of the three was tried.
    """
    basis = [own for own in whole if own.arm[0] in BASIS] or whole
    columns = [own.scores[[own.places.index(place) for place in GRID]] for own in basis]
    return wanted.rate(GRID[Tried(("", ""), GRID, np.hstack(columns)).best])
