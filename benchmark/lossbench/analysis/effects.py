"""Tables of paired effects: every loss against the reference, data set by data set, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.analysis import decisions, flips, pairs, resampling, seeds
from lossbench.analysis.across_sets import Pooled, pooled
from lossbench.analysis.decisions import Contest, Looks
from lossbench.analysis.flips import Flips
from lossbench.analysis.pairs import Blocks, Value
from lossbench.analysis.resampling import Both, ByGroup
from lossbench.analysis.selection import select_loss
from lossbench.base import columns as known
from lossbench.base import words

NAN = float("nan")

NAMES = ("metric", "loss", "loss_label", "family", "against")

EFFECT = ("estimate", "low", "high", "p", "smallest_p", "mde", "n_seeds", "n_variants", "n_sets")

OVER_SETS = ("tau", "predict_low", "predict_high")

OTHER_IMAGES = ("images_low", "images_high", "n_groups")


def effects_table(
    cells: pd.DataFrame,
    against: str = "ce",
    columns: Iterable[str] = (),
    by_group: ByGroup | None = None,
    looks: Looks = (),
) -> pd.DataFrame:
    """Return one row a (data set, recipe, metric, loss): its paired effect against ``against`` over seeds.

    ``verdict`` and the adjusted p are those of ``decisions``; ``p`` and interval are of seeds, and beside
    them on real data stands the interval of other images, of which both a verdict must have. With ``looks``
    all of them are of the look that decided, and the intervals hold at all looks together. Where a pair is
    refused the numbers are nan and ``note`` says why."""
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        contests: dict[str, Contest] = {}
        for row in _rows(part, against, columns):
            row |= {"dataset": dataset, "recipe": recipe}
            column = row["metric"]
            # A contest compares all pairs of losses, so that one serves every row of its metric.
            if column not in contests:
                contests[column] = decisions.contest(part, column, by_group, looks)
            rows.append(row | _decided(contests[column], row, looks))
    return _frame(rows, ["dataset", "recipe"], [*EFFECT, *OTHER_IMAGES], ["verdict"])


def pooled_effects(cells: pd.DataFrame, against: str = "ce", columns: Iterable[str] = ()) -> pd.DataFrame:
    """Return one row a (metric, loss): its paired effect over all data sets that hold it.

    With two independent data sets or more they are the unit (random effects), else seeds are. Where a data
    set was run with several recipes these are kept apart, since a mean over them would answer no question."""
    # Two lengths of one data set are two answers, not two data sets.
    apart = len(cells) and cells.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
    rows = []
    for recipe, part in cells.groupby("recipe", sort=True, observed=True) if apart else [("", cells)]:
        rows += [{**row, "recipe": recipe} for row in _rows(part, against, columns)]
    return _frame(rows, ["recipe"], [*EFFECT, *OVER_SETS])


# Of a pair the loss that comes later here, or is not named, is compared with the other one.
PLAIN = ("ce", "dice", "batch_dice(classes='all')", "batch_dice", "dice_ce")

PAIRS = ("metric", "loss", "loss_label", "against", "against_label", "estimate", "low", "high", "p", "p_holm")
PAIRS += ("verdict", "n_seeds", "n_variants", "n_sets", "by_set")


def pair_effects(
    cells: pd.DataFrame,
    columns: Iterable[str] = (),
    by_group: ByGroup | None = None,
    looks: Looks = (),
) -> pd.DataFrame:
    """Return one row a (metric, pair of losses): the paired effect of ``loss`` minus ``against`` over all
    data sets that hold both, of one recipe each; p is adjusted over all pairs, as in ``decisions``.

    ``by_set`` names each data set variant with its own mean difference in hundredths, the rarest foreground
    first. A pair that rests on one real data set is judged by other images too: p is the larger one, and the
    interval the wider one at either end. Where there is one variant alone, the verdicts are those of
    ``decisions``, as in its leaderboard."""
    columns = [column for column in columns if column in cells]
    if not len(cells) or not columns:
        return pd.DataFrame(columns=list(PAIRS))
    found = pairs.losses(cells, columns)
    alone, places = len(found.variants) == 1, seeds.rarest_first(cells)
    labels = cells.drop_duplicates("loss").set_index("loss")["loss_label"]
    rank = {loss: place for place, loss in enumerate(PLAIN)}
    arms = sorted(found.arms, key=lambda loss: (rank.get(loss, len(rank)), labels[loss]))
    rows = []
    for place, column in enumerate(columns):
        by_images = OfImages(cells, by_group, column)
        own = [
            {"metric": column, "loss": loss, "against": against, **row}
            for number, loss in enumerate(arms)
            for against in arms[:number]
            if (row := _pair(found, loss, against, place, by_images, places))
        ]
        contest = decisions.contest(cells, column, by_group, looks) if alone else None
        # Over the pairs that some data set holds: what was never trained together is no test.
        adjusted = flips.holm([row["p"] for row in own])
        for row, p in zip(own, adjusted, strict=True):
            evidence, few = row.pop("evidence"), row.pop("few")
            good = -1 if known.lower_is_better(column) else 1
            verdict = decisions.decide(evidence, row["estimate"], p, column, good)
            row |= {"p_holm": float(p), "verdict": decisions.OPEN if few else verdict}
            row |= _decided(contest, row, looks) if contest else {}
        rows += own
    table = pd.DataFrame(rows).reindex(columns=list(PAIRS))
    return table.assign(loss_label=table["loss"].map(labels), against_label=table["against"].map(labels))


def _pair(
    found: Blocks, loss: str, against: str, column: int, by_images: OfImages, places: dict[str, int]
) -> dict | None:
    """Return the effect of one loss against another, data sets in the order of their places; None where they
    have no pair.
    """
    if found.refusal(loss, against):
        return None
    d = found.difference(loss, against, column)
    there = ~np.isnan(d).all(axis=1)
    if not there.any():
        return None
    variants = found.variants[there]
    unit = seeds.units(variants).to_numpy()
    evidence, numbers = over_sets(d[there], unit)
    if not numbers:  # no seed holds all levels of a generator
        return None
    names = list(zip(variants["dataset"], variants["recipe"], strict=True))
    differences = pd.DataFrame(d[there], index=pd.MultiIndex.from_tuples(names), columns=found.seeds)
    evidence, few = by_images.ask(evidence, differences, unit, loss, against)
    each = zip(
        variants["dataset"].map(places), variants["data_label"], np.nanmean(d[there], axis=1), strict=True
    )
    by_set = "; ".join(f"{label} {words.signed(100 * mean, 1)}" for _, label, mean in sorted(each))
    facts = {"n_variants": len(variants), "by_set": by_set, "evidence": evidence, "few": few}
    return {**summary(evidence, numbers), **facts}


def _rows(part: pd.DataFrame, against: str, columns: Iterable[str]) -> list[dict]:
    columns = [column for column in columns if column in part]
    reference = select_loss(part, against) if len(part) else part
    if not len(reference) or not columns:
        return []
    # It may have been named by its label or another spelling; the arms below go by the spec of the cells.
    reference = reference["loss"].iloc[0]
    names = part.drop_duplicates("loss").sort_values("loss_label")[["loss", "loss_label", "family"]]
    # Paired once, for all columns together.
    found = pairs.losses(part, columns)
    rows = []
    for place, column in enumerate(columns):
        own = []
        for name in names.to_dict("records"):
            if name["loss"] != reference:
                facts = {"metric": column, **name, "against": reference}
                own.append({**facts, **_effect(found, name["loss"], reference, place)})
        # Holm over the losses of one metric: what a reader scans is a column.
        adjusted = flips.holm([row["p"] for row in own])
        rows += [{**row, "p_holm": p} for row, p in zip(own, adjusted, strict=True)]
    return rows


def _effect(found: Blocks, loss: str, reference: str, column: int) -> dict:
    """Return the effect of a loss as columns, or the note that says why there is none."""
    empty = dict.fromkeys(("estimate", "low", "high", "p", "smallest_p", "mde", "n_seeds"), NAN)
    # Pairs that did not share start and batches have no paired difference.
    refused = found.refusal(loss, reference)
    if refused:
        return {**empty, "note": refused}
    d = found.difference(loss, reference, column)
    there = ~np.isnan(d).all(axis=1)
    # A block of which neither cell is there was never planned for this pair.
    lost = int(
        (np.isnan(d) & found.held[:, :, [found.arms.index(a) for a in (loss, reference)]].any(axis=2)).sum()
    )
    note = f"{lost} block{'s' * (lost != 1)} incomplete" if lost else ""
    if not there.any():
        return {**empty, "note": note}
    unit = seeds.units(found.variants).to_numpy()[there]
    return {**summary(*over_sets(d[there], unit)), "n_variants": int(there.sum()), "note": note}


def over_sets(d: np.ndarray, unit: np.ndarray) -> tuple[Flips | Pooled, list[np.ndarray]]:
    """Return the evidence on differences (variants, seeds), and the numbers of each independent data set.

    ``unit`` says which data set each variant is of (``seeds.units``). One data set: one number a seed.
    Several: a random-effects mean of those that two seeds or more hold."""
    # Levels of one generator share their start, so together they are one number a seed.
    numbers = [own for own in by_unit(d, unit).values() if len(own)]
    # A variance over seeds, which weighs a set, needs two of them.
    several = [own for own in numbers if len(own) > 1]
    if len(several) > 1:
        return _random_effects(several), several
    # One set at most is left to speak of: its own seeds are the evidence, and the caller sees one set.
    best = max(numbers, key=len, default=np.empty(0))
    return (flips.flips(best), [best]) if len(best) else (Pooled(NAN, 0, NAN, NAN), [])


def resting_on(d: np.ndarray, unit: np.ndarray) -> str | None:
    """Return the one independent data set whose seeds are all the evidence of ``over_sets``, None where there
    are several.
    """
    sizes = {name: len(own) for name, own in by_unit(d, unit).items()}
    if sum(size > 1 for size in sizes.values()) > 1 or not any(sizes.values()):
        return None
    return max(sizes, key=sizes.__getitem__)


@dataclass(frozen=True)
class OfImages:
    """Cells with their scores by test group: what other images say of a pair that rests on one data set."""

    cells: pd.DataFrame
    by_group: ByGroup | None
    value: Value

    def ask(
        self, evidence: Flips | Pooled, d: pd.DataFrame, unit: np.ndarray, of: str, against: str
    ) -> tuple[Flips | Both | Pooled, bool]:
        """Return the evidence with that of images, and whether there are too few test groups for any.

        d: the differences, one row a (data set, recipe), one column a seed; unit: the data set of each row.
        Several data sets need no more: their effects differ by their images as well."""
        name = resting_on(d.to_numpy(), unit)
        if self.by_group is None or name is None:
            return evidence, False
        own = d[unit == name]
        cells = self.cells[self.cells["loss"].isin([of, against])]
        # The seeds that hold all of it: the groups are of the same trainings.
        cells = cells[cells["seed"].isin(own.columns[own.notna().all()])]
        here = pd.MultiIndex.from_frame(cells[["dataset", "recipe"]]).isin(own.index)
        sides = (cells[here & (cells["loss"] == loss)] for loss in (of, against))
        return resampling.with_images(evidence, *sides, self.by_group, self.value)


def by_unit(d: np.ndarray, unit: np.ndarray) -> dict[str, np.ndarray]:
    """Return independent data set -> one number a seed, the mean over its variants."""
    numbers = {}
    for name in dict.fromkeys(unit):
        own = d[unit == name]
        numbers[name] = seeds.within(own, np.full(len(own), 1 / len(own))).numbers
    return numbers


def _random_effects(several: Sequence[np.ndarray]) -> Pooled:
    means, variances = [own.mean() for own in several], [own.var(ddof=1) / len(own) for own in several]
    return pooled(means, variances)


FOREST = ("unit", "label", "estimate", "low", "high", "n_seeds", "n_variants", "pooled")

MEAN, NEW = "mean over data sets", "a new data set"  # the last rows of a forest


def forest(cells: pd.DataFrame, of: str, against: str, column: str, take: pd.Series) -> pd.DataFrame:
    """Return one row an independent data set, then their random-effects mean and what a new one would show.

    ``take`` says which cells enter the mean: those of data that were learnt. Variants of one generator, such
    as the levels of a ladder, are one data set. No row at all where the losses have no pair."""
    own = cells[cells["loss"].isin([of, against])]
    if own["loss"].nunique() < 2:
        return pd.DataFrame(columns=list(FOREST))
    found = pairs.losses(own, [column])
    d = found.difference(of, against)
    there = ~np.isnan(d).all(axis=1)
    variants = found.variants[there]
    unit = seeds.units(variants)
    inside = set(cells.loc[take, "dataset"] + cells.loc[take, "recipe"])
    counted = (variants["dataset"] + variants["recipe"]).isin(inside).groupby(unit).all()
    rows = []
    entering = []
    for name, numbers in by_unit(d[there], unit.to_numpy()).items():
        labels = list(variants.loc[unit == name, "data_label"])
        if not len(numbers):
            continue
        facts = {"unit": name, "label": _unit_label(labels), "n_seeds": len(numbers)}
        low, high = _bounded(flips.flips(numbers).interval())
        facts |= {"estimate": numbers.mean(), "low": low, "high": high, "n_variants": len(labels)}
        rows.append(facts | {"pooled": bool(counted[name])})
        if counted[name] and len(numbers) > 1:
            entering.append(numbers)
    if len(entering) > 1:
        mean = _random_effects(entering)
        for label, ends in ((MEAN, mean.interval()), (NEW, mean.prediction())):
            low, high = _bounded(ends)
            facts = {"unit": "", "label": label, "estimate": mean.estimate, "low": low, "high": high}
            rows.append(facts | {"n_seeds": min(map(len, entering)), "n_variants": len(entering)})
    return pd.DataFrame(rows, columns=list(FOREST))


def _unit_label(labels: list[str]) -> str:
    # The levels of a ladder share their first word, which names the generator.
    return labels[0] if len(labels) == 1 else f"{labels[0].split()[0]}, {len(labels)} levels"


def _bounded(ends: tuple[float, float]) -> tuple[float, float]:
    """Return an interval, nan where it has no end: few seeds bound nothing."""
    low, high = (end if np.isfinite(end) else NAN for end in ends)
    return low, high


def summary(evidence: Flips | Both | Pooled, numbers: Sequence[np.ndarray]) -> dict:
    """Return an effect as columns of a table."""
    low, high = evidence.interval()
    row = {"estimate": evidence.estimate, "low": low, "high": high, "p": evidence.p()}
    row |= {"smallest_p": evidence.smallest_p, "n_sets": len(numbers), "mde": NAN}
    # The sum over sets would suggest more trainings than the weakest set rests on.
    row["n_seeds"] = min(map(len, numbers), default=0)
    # Only several data sets say something about a new one.
    if isinstance(evidence, Pooled):
        row["tau"] = evidence.tau
        row["predict_low"], row["predict_high"] = evidence.prediction()
    # Power is that of sign flips of seeds, which a mean over data sets does not rest on.
    elif np.isfinite(evidence.sd) and np.isfinite(flips.detectable(evidence.n)):
        row["mde"] = flips.detectable(evidence.n) * evidence.sd
    return row


def _decided(contest: Contest, row: dict, looks: Looks) -> dict:
    """Return what is shown of a row's pair of losses, as columns."""
    found = contest.decide(row["loss"], row["against"])
    if found is None:
        return {"verdict": "", "p_holm": NAN}
    columns = {"verdict": found.verdict, "p_holm": found.p_holm}
    if looks:
        # Of more seeds than decided, or at 95 % once, they would be those of another test.
        own = found.over_seeds
        columns |= dict(zip(("low", "high"), own.interval(found.level), strict=True))
        columns |= {"estimate": own.estimate, "p": own.p(), "n_seeds": own.n}
    if found.images:
        images = (*found.images.interval(found.level), found.images.n_groups)
        columns |= dict(zip(OTHER_IMAGES, images, strict=True))
    return columns


def _frame(rows: list[dict], keys: list[str], effect: list[str], decided: Sequence[str] = ()) -> pd.DataFrame:
    # All columns, always: the table of a study without cells is read by the same code.
    columns = [*keys, *NAMES, *effect, "p_holm", *decided, "note"]
    return pd.DataFrame(rows).reindex(columns=columns)
