"""The search for learning rates: every loss is tried at the same rates, each trial an ordinary cell.

A loss's rate under a head is the one with the best mean rank of validation ``dice_all`` over all data set
variants of the experiment, mean over tuning seeds, which no study reports. It is never the loss value that
decides, and never the test split. Where the best rate is the first or the last one tried, the next one beyond
is tried too, at most twice. What to try next follows from the records alone, so that a search that is
interrupted goes on, and ends with the same choice.

A loss's own parameters are searched in the same way, within the ranges that it declares: Optuna names the
points, each loss gets equally many, and what they score is read from the records.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from lossbench.base import specs
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import LossSpec, parse_loss
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
        # A loss that is still best at the edge after that is reported as such, and has no rate of its own.
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
    # Without the rates that were chosen before: this search is what they come from.
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
            score = _score(cell, store)
            if score is None:
                continue
            known[cell.key] = score
        values[arm, variant, cell.learning_rate].append(known[cell.key])

    def mean(arm: Arm, variant: str, place: int) -> float:
        # All seeds or none: a mean over some of them would compete with means over others.
        over_seeds = values[arm, variant, wanted.rate(place)]
        return sum(over_seeds) / wanted.seeds if len(over_seeds) == wanted.seeds else math.nan

    return [
        Tried(arm, own, np.array([[mean(arm, name, place) for name in variants[arm]] for place in own]))
        for arm, own in places.items()
    ]


def _score(cell: Cell, store: Store) -> float | None:
    """Return what a trial scored; None where it is not recorded."""
    record = store.read(*cell.pair)
    if record is None:
        return None
    score = record["metrics"].get(OBJECTIVE)
    # A trial that collapsed or was not finite is a result: a bad one.
    return score if score is not None and math.isfinite(score) else 0.0


def _variant(cell: Cell) -> str:
    """Return what cells share that differ in nothing but loss, seed and rate."""
    recipe = cell.recipe.model_copy(update={"learning_rate": 1.0})
    return f"{cell.data.text} {recipe.digest}"


def chosen(experiment: Experiment, wanted: Search, tried: list[Tried]) -> Rates:
    """Return the choice for every loss and head whose trials are all recorded; UserError where none are."""
    whole = [own for own in tried if own.complete]
    if not whole:
        raise UserError("no loss has all its trials recorded yet; the same command goes on with them")
    return Rates(
        shared=_shared(whole, wanted),
        search=_facts(experiment, wanted.seeds),
        nearest=NEAREST,
        chosen=[_choice(own, wanted) for own in whole],
    )


def _facts(experiment: Experiment, seeds: int) -> dict[str, Any]:
    """Return what was tried on what, for the file of the choice."""
    recipes = [variant.recipe for variant in experiment.datasets]
    return {
        "experiment": experiment.name,
        "variants": list(dict.fromkeys(variant.label for variant in experiment.datasets)),
        "seeds": list(TUNING_SEEDS[:seeds]),
        "steps": sorted({recipe.steps for recipe in recipes}),
        "optimizer": sorted({recipe.optimizer for recipe in recipes}),
        "objective": OBJECTIVE,
    }


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
    # Some grids were widened; a rate for all is one that all were tried at.
    columns = [own.scores[[own.places.index(place) for place in GRID]] for own in basis]
    return wanted.rate(GRID[Tried(("", ""), GRID, np.hstack(columns)).best])


# The own parameters of a loss

ASKED = 4  # points that are named before the first of them is scored: as many as train in one stack

SPAN = 30.0  # a range whose ends differ by more than this factor is searched by its logarithm


@dataclass(frozen=True)
class Budget:
    """What each loss is given: ``trials`` points, of which the first is its defaults, on ``seeds`` seeds."""

    trials: int = 16
    seeds: int = 3


@dataclass
class Points:
    """The points of one loss that have been named, and what they scored, over all variants and seeds."""

    loss: LossSpec
    tried: list[LossSpec] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Which point scored best; of equals the first, so that the loss as it is needs a better one."""
        return max(range(len(self.scores)), key=lambda place: (self.scores[place] or 0.0, -place))


def search_parameters(
    experiment: Experiment, budget: Budget, store: Store
) -> tuple[Experiment, list[Points]]:
    """Return the trials that the records so far ask for, as an experiment, and the points of each loss.

    Only losses with ranges that the experiment leaves open take part; each trains at the rate that the
    experiment gives it. While some of its cells are missing, train them and ask again."""
    check(experiment)
    every = {loss.text: loss for part in experiment.parts for loss in part.losses}
    losses = [loss for loss in every.values() if ranges(loss) and _parts(experiment, loss, [loss], budget)]
    if not losses:
        raise UserError(
            f"{experiment.name}: none of its losses has a parameter to search; 'lossbench list losses NAME' "
            "shows which have a range"
        )
    named = [_named(experiment, loss, budget, store) for loss in losses]
    parts = [part for own in named for part in _parts(experiment, own.loss, own.tried, budget)]
    return replace(experiment, parts=tuple(parts), rates=None), named


def ranges(loss: LossSpec) -> dict[str, tuple[float, float]]:
    """Return the ends between which each parameter of a loss may be searched: those that it declares and the
    spec does not fix; none of a sum, or of another library's.
    """
    if len(loss.terms) != 1 or loss.terms[0].entry is None:
        return {}
    term = loss.terms[0]
    declared = term.entry.meta.get("tune") or {}
    return {
        name: tuple(ends)
        for name, ends in sorted(declared.items())
        if name not in term.given and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
    }


def _named(experiment: Experiment, loss: LossSpec, budget: Budget, store: Store) -> Points:
    """Return the points of a loss, as far as the records allow to name them.

    The study is asked and told anew each time, from the first point on: it is its own seed and the scores
    that decide what it names."""
    # So nothing but records is kept between two runs, and an interrupted search names the same points again.
    study, space, points = _study(loss), _space(loss), Points(loss)
    while len(points.tried) < budget.trials and None not in points.scores:
        asked = [study.ask(space) for _ in range(min(ASKED, budget.trials - len(points.tried)))]
        for trial in asked:
            points.tried.append(_with(loss, trial.params, experiment.extra_files))
            points.scores.append(_mean_score(experiment, loss, points.tried[-1], budget, store))
        for trial, score in zip(asked, points.scores[-len(asked) :], strict=True):
            if score is not None:
                study.tell(trial, score)
    return points


def _study(loss: LossSpec) -> Any:
    """Return an Optuna study in memory, whose first point is the loss as it is."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it is told of points that run is marked experimental
        # Points are asked for several at a time; the constant liar keeps apart those that have no score yet.
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=ASKED, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    usual = {name: loss.terms[0].params[name] for name in ranges(loss)}
    # Optuna takes no point from outside the space, and a default may lie there.
    if all(_within(usual[name], ends) for name, ends in ranges(loss).items()):
        study.enqueue_trial(usual)
    return study


def _within(value: Any, ends: tuple[float, float]) -> bool:
    return isinstance(value, int | float) and ends[0] <= value <= ends[1]


def _space(loss: LossSpec) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution, IntDistribution

    space = {}
    for name, (low, high) in ranges(loss).items():
        if isinstance(low, int) and isinstance(high, int):
            space[name] = IntDistribution(low, high)
        else:
            space[name] = FloatDistribution(low, high, log=low > 0 and high > SPAN * low)
    return space


def _with(loss: LossSpec, point: dict[str, float], extra_files: tuple[str, ...]) -> LossSpec:
    """Return a loss at a point, in three digits, which a person can read and type."""
    term = loss.terms[0]
    short = {
        name: value if isinstance(value, int) else float(f"{value:.3g}") for name, value in point.items()
    }
    # The loss as it is keeps its spec: the same cell under another spelling would be trained twice.
    if all(term.params[name] == value for name, value in short.items()):
        return loss
    return parse_loss(specs.render(term.name, {**term.given, **short}), extra_files)


def _parts(experiment: Experiment, loss: LossSpec, tried: list[LossSpec], budget: Budget) -> list[Part]:
    """Return the parts of an experiment that name a loss, with points of it in its place, at its rate."""
    parts, once = [], {own.text: own for own in tried}
    for part in experiment.parts:
        variants = {}
        for variant in part.datasets if loss.text in {own.text for own in part.losses} else ():
            rate = experiment.rate(loss, variant.recipe)
            if rate is not None:
                recipe = variant.recipe.model_copy(update={"learning_rate": rate})
                variants[variant.data.text, recipe.digest] = variant._replace(recipe=recipe)
        if variants:
            name, seeds = f"{part.name}-{loss.terms[0].name}", tuple(TUNING_SEEDS[: budget.seeds])
            parts.append(Part(name, seeds, tuple(once.values()), tuple(variants.values())))
    return parts


def _mean_score(
    experiment: Experiment, loss: LossSpec, tried: LossSpec, budget: Budget, store: Store
) -> float | None:
    parts = tuple(_parts(experiment, loss, [tried], budget))
    scores = [_score(cell, store) for cell in replace(experiment, parts=parts, rates=None).cells()]
    return None if None in scores else sum(scores) / len(scores)


def best_parameters(experiment: Experiment, budget: Budget, named: list[Points]) -> dict[str, Any]:
    """Return the choice for every loss whose points are all recorded, as plain values; UserError where none
    are.
    """
    # The best of some of the points would be a choice from fewer trials than other losses got.
    whole = [own for own in named if None not in own.scores and len(own.tried) == budget.trials]
    if not whole:
        raise UserError("no loss has all its trials recorded yet; the same command goes on with them")
    chosen = [
        {
            "loss": own.loss.text,
            "best": own.tried[own.best].text,
            "score": own.scores[own.best],
            "tried": [loss.text for loss in own.tried],
            "scores": own.scores,
        }
        for own in whole
    ]
    return {"search": _facts(experiment, budget.seeds) | {"trials": budget.trials}, "chosen": chosen}
