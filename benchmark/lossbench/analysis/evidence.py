"""What the cells say about one test: its evidence over seeds or data sets, and what each level says alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd

from lossbench.analysis import pairs, ranks, resampling, seeds, selection
from lossbench.analysis.across_sets import Pooled, pooled
from lossbench.analysis.claims import Losses, Test, where
from lossbench.analysis.events import Events, events
from lossbench.analysis.flips import ALPHA, POWER, Both, Flips, detectable, equal_within, flips
from lossbench.analysis.flips import seeds_needed as flips_needed
from lossbench.analysis.resampling import ByGroup, Images
from lossbench.base import columns as known
from lossbench.base.errors import UserError


class Evidence(Protocol):
    """An estimate, its interval and its p-values; all of them count the same outcomes."""

    estimate: float

    def above(self, null: float = 0.0) -> float: ...
    def below(self, null: float = 0.0) -> float: ...
    def p(self, null: float = 0.0) -> float: ...
    def interval(self, level: float = 0.95) -> tuple[float, float]: ...
    def smallest_equal(self, margin: float) -> float: ...
    @property
    def smallest_p(self) -> float: ...


Alone = Flips | Events | Both  # of one variant, one number a seed


@dataclass(frozen=True)
class Each:
    """Several data set variants, each by itself: all must be equal, one may be shown not to be."""

    labels: tuple[str, ...]
    single: tuple[Flips | Events, ...]

    @property
    def furthest(self) -> int:
        # All must be equal, so the furthest is the one to look at.
        return int(np.argmax([abs(own.estimate) for own in self.single]))

    @property
    def estimate(self) -> float:
        return self.single[self.furthest].estimate

    def above(self, null: float = 0.0) -> float:
        return self.single[self.furthest].above(null)

    def below(self, null: float = 0.0) -> float:
        return self.single[self.furthest].below(null)

    def p(self, null: float = 0.0) -> float:
        return self.single[self.furthest].p(null)

    def equal(self, margin: float) -> float:
        """Return the p-value that all are within the margin (intersection-union)."""
        return max(own.equal(margin) for own in self.single)

    def beyond(self, margin: float) -> float:
        """Return the p-value that one of them lies beyond it (Bonferroni)."""
        return min(1.0, len(self.single) * min(own.beyond(margin) for own in self.single))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        return self.single[self.furthest].interval(level)

    def smallest_equal(self, margin: float) -> float:
        return max(own.smallest_equal(margin) for own in self.single)

    @property
    def smallest_p(self) -> float:
        # The set with the fewest seeds limits what can be shown of all.
        return max(own.smallest_p for own in self.single)


@dataclass(frozen=True)
class Level:
    """One data set variant of a test: its effect, and the evidence that is left without it (None:
    nothing).
    """

    label: str
    effect: Alone
    without: Evidence | None = None


@dataclass(frozen=True)
class Measured:
    """The evidence on a test, with what it rests on."""

    evidence: Evidence
    n_seeds: int
    lost: int = 0  # seeds that miss a variant, or blocks that miss a loss
    n_variants: int = 0
    n_sets: int = 0
    sd: float = float("nan")  # of the numbers, one a seed
    levels: tuple[Level, ...] = field(default=())
    where: str = ""  # shape "each": the variant furthest from equality
    images: Images | None = None  # of other test images, where the test is about one set of real ones
    unseen: str = ""  # why nothing is known of other test images, where it should be
    agreement: ranks.Agreement | None = None

    @property
    def over_sets(self) -> Pooled | None:
        """The mean over independent data sets, if the evidence is one."""
        own = self.evidence.first if isinstance(self.evidence, Both) else self.evidence
        return own if isinstance(own, Pooled) else None


def seeds_needed(test: Test, tests: int) -> int:
    """Return with how many seeds the smallest p of a test falls below .05 after adjustment for ``tests``."""
    if test.expect == "equal" and test.value in known.EVENTS:
        return math.floor(math.log(ALPHA / tests) / math.log1p(-min(test.margin, 0.99))) + 1
    return flips_needed(tests)


def in_deviations(test: Test, found: Measured, tests: int) -> float:
    """Return the smallest effect over seeds that a test finds, or the smallest margin within which it shows
    equality, with 80 % power after Holm, in standard deviations of its numbers.
    """
    if test.expect != "equal":
        return detectable(found.n_seeds, tests)
    # Where every level must be shown to be equal, each has to miss less often (Bonferroni).
    levels = len(found.levels) if test.shape == "each" else 1
    return equal_within(found.n_seeds, tests, 1 - (1 - POWER) / levels)


def measure(test: Test, cells: pd.DataFrame, by_group: ByGroup | None = None) -> Measured:
    """Return what the cells say; ``by_group`` is the table 'groups': scores by test group.

    Raises UserError where cells are missing, NotPaired where those of a block did not start alike."""
    part = selection.select(cells, test)
    absent = [loss for loss in test.losses if not len(selection.select_loss(cells, loss))]
    here = [test.of, test.against, test.among]
    # A loss may be there, but not among the cells that this test is about.
    absent += [
        loss for loss in _flat(here) if loss not in absent and not len(selection.select_loss(part, loss))
    ]
    if absent or not len(part):
        what = " and ".join(dict.fromkeys(absent)) if absent else "this kind"
        raise UserError(f"there are no cells of {what}{_place(test)}")
    if not selection.chooses(test):
        return _of_shape(test, part, cells, by_group)
    # What all seeds choose is better by chance than it is; what the other seeds choose is not, but their
    # choices depend on each other, which makes a mean scatter more than its seeds show. Neither test keeps
    # its level, both together do.
    crossed, plain = (_of_shape(test, part, cells, by_group, crossed) for crossed in (True, False))
    levels = tuple(
        Level(one.label, Both(one.effect, two.effect), _both(one.without, two.without))
        for one, two in zip(crossed.levels, plain.levels, strict=True)
    )
    return replace(crossed, evidence=Both(crossed.evidence, plain.evidence), levels=levels)


def _both(one: Evidence | None, other: Evidence | None) -> Evidence | None:
    return Both(one, other) if one and other else None


def _of_shape(
    test: Test, part: pd.DataFrame, cells: pd.DataFrame, by_group: ByGroup | None, crossed: bool = True
) -> Measured:
    """Return what the cells of a test say; ``crossed`` as in ``selection.arm``."""
    if test.tuned:
        part = selection.tuned(part, test.value, crossed)
    if test.shape == "agreement":
        return _agreement(test, part)
    if test.shape == "regret":
        return _regret(test, part)
    if test.shape == "trend":
        return _trend(test, part)
    return _contrast(test, part, cells, by_group, crossed)


def _flat(named: Sequence[Losses | None]) -> list[str]:
    return [
        name
        for item in named
        if item
        for name in ((item,) if isinstance(item, str) else item)
        if name != "any"
    ]


def _place(test: Test) -> str:
    if test.part or test.where:
        return f" in {where(test)}"
    return f" on {' or '.join(test.data)}" if test.data else ""


def _contrast(
    test: Test, part: pd.DataFrame, cells: pd.DataFrame, by_group: ByGroup | None, crossed: bool
) -> Measured:
    arms = _arms(test, part, test.of, test.against, crossed)
    d, variants, numbered = _differences(test, arms)
    if test.minus:
        d, variants, numbered = _minus(test, cells, d, variants, numbered, crossed)
    labels = list(variants["data_label"])
    if test.shape == "each":
        single = tuple(filter(None, (_tested(own, test) for own in d)))
        # Equality in every data set cannot be claimed of one that holds nothing.
        if len(single) < len(d):
            raise UserError(f"no seed holds a value{_place(test)}")
        each = Each(tuple(labels), single)
        levels = tuple(Level(label, own) for label, own in zip(labels, single, strict=True))
        least, spread = min(own.n for own in single), max(own.sd for own in single)
        images, unseen = _images_of_each(test, arms, variants, by_group)
        count = _count(variants)
        return Measured(
            each, least, 0, len(d), count, spread, levels, labels[each.furthest], images, unseen=unseen
        )
    if test.shape == "slope":
        weigh = lambda kept: seeds.slope_weights(kept, test.dose)  # noqa: E731
        return _over_seeds(d, variants, labels, weigh, test)
    if _count(variants) > 1:
        return _over_sets(d, variants, labels, arms, by_group, test)
    found = _over_seeds(d, variants, labels, seeds.mean_weights, test)
    # Other images are drawn of one real set; a mean over levels is one of generated scenes.
    if len(variants) > 1 or test.minus:
        return found
    images, unseen = _images(test, arms, by_group)
    return replace(found, images=images, unseen=unseen)


def _images(test: Test, arms: dict[str, pd.DataFrame], by_group: ByGroup | None) -> tuple[Images | None, str]:
    """Return what other test images of one data set variant would show, or why that is not known."""
    asked = (by_group, test.value, test.absolute)
    images = resampling.on_other_images(arms["of"], arms.get("against"), *asked)
    return images, "" if images else resampling.unseen(arms["of"], *asked)


def _images_of_each(
    test: Test, arms: dict[str, pd.DataFrame], variants: pd.DataFrame, by_group: ByGroup | None
) -> tuple[Images | None, str]:
    """Return the interval over other test images of the variant that may be furthest from equality, or why
    that of one is not known.
    """
    found = []
    for dataset, recipe in zip(variants["dataset"], variants["recipe"], strict=True):
        here = {
            arm: cells[(cells["dataset"] == dataset) & (cells["recipe"] == recipe)]
            for arm, cells in arms.items()
        }
        found.append(_images(test, here, by_group))
    known = [images for images, _ in found if images]
    widest = max(known, key=lambda own: max(-own.low, own.high)) if known else None
    return widest, next((unseen for _, unseen in found if unseen), "")


def _arms(
    test: Test, part: pd.DataFrame, of: Losses, against: Losses | None, crossed: bool
) -> dict[str, pd.DataFrame]:
    arms = {"of": selection.arm(part, of, test.value, crossed)}
    if against is not None:
        arms["against"] = selection.arm(part, against, test.value, crossed)
    return arms


def _differences(test: Test, arms: dict[str, pd.DataFrame]) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Return the differences (variants, seeds), their variants and their seeds."""
    found = pairs.blocks(arms, [test.value], test.absolute)
    return found.difference("of", "against" if "against" in arms else None), found.variants, found.seeds


def _minus(
    test: Test, cells: pd.DataFrame, d: np.ndarray, variants: pd.DataFrame, numbered: np.ndarray, crossed
):
    """Take a second difference off the first, data set by data set and seed by seed."""
    taken = test.minus
    part = selection.select_minus(cells, test)
    of, against = (taken.of, taken.against) if taken.of else (test.of, test.against)
    if not len(part):
        raise UserError(f"there are no cells to take off{_place(test)}")
    other, theirs, others = _differences(test, _arms(test, part, of, against, crossed))
    # Seed by seed: a number is a difference of two differences of the same start.
    shared = np.intersect1d(numbered, others)
    names = sorted(set(variants["dataset"]) & set(theirs["dataset"]))
    if not names or not len(shared):
        raise UserError(f"no data set and seed holds both differences{_place(test)}")
    ours = _by_dataset(d[:, np.isin(numbered, shared)], variants, names)
    less = _by_dataset(other[:, np.isin(others, shared)], theirs, names)
    first = variants.drop_duplicates("dataset").set_index("dataset", drop=False).loc[names]
    return ours - taken.times * less, first.reset_index(drop=True), shared


def _by_dataset(d: np.ndarray, variants: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return the mean over the recipes of each data set."""
    # Not nanmean: a seed that misses one of the recipes would count as a number of another kind.
    return np.stack([d[(variants["dataset"] == name).to_numpy()].mean(axis=0) for name in names])


def _over_seeds(
    d: np.ndarray,
    variants: pd.DataFrame,
    labels: list[str],
    weigh: Callable[[pd.DataFrame], np.ndarray],
    test: Test,
    scale: float = 1.0,
) -> Measured:
    """Return the evidence of a weighted sum over variants, one number a seed; no number of a variant exceeds
    ``scale`` where the value is 0 or 1.
    """
    scale += abs(test.minus.times) if test.minus else 0.0
    whole = seeds.within(d, weigh(variants))
    if not len(whole.numbers):
        raise UserError(f"no seed holds {'all variants' if len(d) > 1 else 'all losses'}{_place(test)}")
    levels = []
    for place in _rarest_first(variants):
        own = _tested(d[place], test, scale)
        if own:
            levels.append(Level(labels[place], own, _without(d, variants, place, weigh, test, scale)))
    evidence = _tested(whole.numbers, test, scale * np.abs(weigh(variants)).sum())
    return Measured(
        evidence, len(whole.numbers), whole.lost, len(d), _count(variants), evidence.sd, tuple(levels)
    )


def _rarest_first(variants: pd.DataFrame) -> np.ndarray:
    """Return the places of variants by their foreground fraction, as far as it was set."""
    # The rarest level is the one that a mean most often hangs on, so it is named first.
    return seeds.numbers(variants, seeds.FOREGROUND).fillna(np.inf).argsort(kind="stable").to_numpy()


def _tested(d: np.ndarray, test: Test, largest: float = 1.0) -> Flips | Events | None:
    """Return the test of the numbers that are there, if any are."""
    there = d[~np.isnan(d)]
    if not len(there):
        return None
    return events(there, largest) if test.value in known.EVENTS else flips(there)


def _without(
    d: np.ndarray, variants: pd.DataFrame, place: int, weigh, test: Test, scale: float
) -> Flips | Events | None:
    """Return the evidence that is left without one variant, if there is any."""
    if len(d) < 2:
        return None
    kept = np.arange(len(d)) != place
    try:
        weights = weigh(variants[kept].reset_index(drop=True))
    except UserError:  # of a slope too few doses are left
        return None
    return _tested(seeds.within(d[kept], weights).numbers, test, scale * np.abs(weights).sum())


def _over_sets(
    d: np.ndarray,
    variants: pd.DataFrame,
    labels: list[str],
    arms: dict[str, pd.DataFrame],
    by_group: ByGroup | None,
    test: Test,
) -> Measured:
    """Return the evidence of a random-effects mean over independent data sets."""
    unit = seeds.units(variants).to_numpy()
    effects, variances, numbers, lost = [], [], [], 0
    for name in dict.fromkeys(unit):
        own = unit == name
        within = seeds.within(d[own], seeds.mean_weights(variants[own]))
        lost += within.lost
        # One seed gives no variance, and the variance is the weight.
        if len(within.numbers) < 2:
            continue
        spread = within.numbers.var(ddof=1) / len(within.numbers)
        if test.value in known.EVENTS:
            # A set without any event would else look certain: one more is counted either way.
            share = (np.count_nonzero(within.numbers) + 1) / (len(within.numbers) + 2)
            spread = max(spread, share * (1 - share) / len(within.numbers))
        if own.sum() == 1 and not test.minus:
            here = {
                arm: cells[cells["dataset"] == variants["dataset"][own].iloc[0]]
                for arm, cells in arms.items()
            }
            images = resampling.on_other_images(
                here["of"], here.get("against"), by_group, test.value, test.absolute
            )
            # Many seeds on few test images would else make a set look certain.
            spread = max(spread, images.variance if images else 0.0)
        effects.append(within.numbers.mean())
        variances.append(spread)
        numbers.append(len(within.numbers))
    if len(effects) < 2:
        raise UserError(f"fewer than two data sets hold two seeds{_place(test)}")
    levels = []
    for place, label in enumerate(labels):
        own = _tested(d[place], test)
        if own:
            levels.append(Level(label, own))
    # With one variant a set, leaving out the level and leaving out the set are the same.
    if len(levels) == len(effects) > 2:  # one variant a set
        rest = [pooled(np.delete(effects, k), np.delete(variances, k)) for k in range(len(effects))]
        levels = [Level(own.label, own.effect, left) for own, left in zip(levels, rest, strict=True)]
    evidence = pooled(effects, variances)
    return Measured(
        evidence, min(numbers), lost, len(d), len(effects), evidence.se * np.sqrt(len(effects)), tuple(levels)
    )


def _count(variants: pd.DataFrame) -> int:
    return seeds.units(variants).nunique()


def _agreement(test: Test, part: pd.DataFrame) -> Measured:
    columns = [test.value, test.with_]
    found = pairs.losses(part, columns)
    # A loss that one data set misses cannot be ranked there.
    everywhere = ~np.isnan(found.values).all(axis=1).any(axis=(0, 2))
    arms = [name for name, there in zip(found.arms, everywhere, strict=True) if there]
    if len(arms) < 3:
        raise UserError(f"there are fewer than three losses to rank{_place(test)}")
    _refuse(found, arms)
    values = found.values[:, :, everywhere] * _signs(columns)
    whole = ~np.isnan(values).any(axis=(0, 2, 3))
    if whole.sum() < 3:
        raise UserError(f"fewer than three seeds hold all {len(arms)} losses{_place(test)}")
    scores = values[:, whole].swapaxes(0, 1)
    agree = lambda kept: ranks.order(scores[:, kept], test.null)  # noqa: E731
    evidence = agree(slice(None))
    return Measured(
        evidence,
        int(whole.sum()),
        int((~whole).sum()),
        len(found.variants),
        _count(found.variants),
        evidence.sd,
        _each_level(found.variants, lambda place: agree([place]), agree),
        agreement=ranks.split_halves(scores),
    )


def _each_level(
    variants: pd.DataFrame,
    alone: Callable[[int], Alone | None],
    rest: Callable[[np.ndarray], Evidence],
) -> tuple[Level, ...]:
    """Return the evidence of each variant alone (None: nothing), and what is left without it."""
    levels, every = [], np.arange(len(variants))
    for place in _rarest_first(variants):
        own = alone(place)
        if own:
            left = rest(every[every != place]) if len(variants) > 1 else None
            levels.append(Level(variants["data_label"].iloc[place], own, left))
    return tuple(levels)


def _trend(test: Test, part: pd.DataFrame) -> Measured:
    """Return the evidence on the slope (least squares) of a value along a list of losses, per step of it."""
    own = {name: selection.select_loss(part, name) for name in test.among}
    found = pairs.blocks(own, [test.value], test.absolute)
    _refuse(found, list(test.among))
    place = np.arange(len(test.among)) - (len(test.among) - 1) / 2
    steps = place / (place @ place)
    slopes = found.values[..., 0] @ steps  # nan where a block misses a loss
    labels = list(found.variants["data_label"])
    return _over_seeds(slopes, found.variants, labels, seeds.mean_weights, test, np.abs(steps).sum())


def _regret(test: Test, part: pd.DataFrame) -> Measured:
    """Return the evidence on a largest regret, or on the difference of two."""
    own = {name: selection.select_loss(part, name) for name in test.among}
    found = pairs.blocks(own, [test.value])
    _refuse(found, list(test.among))
    values = (found.values * _signs([test.value]))[..., 0].swapaxes(0, 1)  # seeds, variants, losses
    held = ~np.isnan(values).any(axis=2)
    if not held.any():
        raise UserError(f"no block holds all {len(test.among)} losses that are compared")
    count = (len(found.variants), _count(found.variants))
    if test.against is None:
        at = range(len(test.among)) if test.of == "any" else [test.among.index(test.of)]
        # Where a loss is missing the best of all is not known, and so no regret.
        values[~held] = np.nan
        values = values[held.any(axis=1)]
        evidence = ranks.Regrets(values, tuple(at))
        behind = values.max(axis=2) - values[:, :, at[evidence.chosen]]
        levels = _each_level(
            found.variants,
            lambda place: _tested(behind[:, place], test),
            lambda kept: ranks.Regrets(values[:, kept], tuple(at)),
        )
        return Measured(evidence, len(values), int((~held).sum()), *count, levels=levels)
    whole = held.all(axis=1)
    if not whole.any():
        raise UserError(f"no seed holds all {len(test.among)} losses on all variants{_place(test)}")
    first, second = (test.among.index(name) for name in (test.of, test.against))
    values = values[whole]

    def difference(kept: object) -> np.ndarray:
        of, against = (ranks.regret_by_seed(values[:, kept], loss) for loss in (first, second))
        return of - against

    evidence = flips(difference(slice(None)))
    levels = _each_level(
        found.variants, lambda place: flips(difference([place])), lambda kept: flips(difference(kept))
    )
    return Measured(evidence, len(values), int((~whole).sum()), *count, evidence.sd, levels)


def _refuse(found: pairs.Blocks, arms: Sequence[str]) -> None:
    refused = found.refusal(*arms)
    if refused:
        raise pairs.NotPaired(refused)


def _signs(columns: Sequence[str]) -> np.ndarray:
    return np.array([-1.0 if known.lower_is_better(column) else 1.0 for column in columns])
