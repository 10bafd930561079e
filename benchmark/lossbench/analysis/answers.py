"""Everything that the report says in numbers, computed once from the tables: verdicts, effects, leaderboards,
collapses, gaps, cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from lossbench.analysis import (
    advice,
    boards,
    decisions,
    learnt,
    rankings,
    recommendation,
    regrets,
    sensitivity,
    specification_curve,
    tried,
)
from lossbench.analysis.claims import ClaimSet
from lossbench.analysis.decisions import Looks
from lossbench.analysis.effects import effects_table, pair_effects, pooled_effects
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.seeds import numbers
from lossbench.analysis.selection import in_parts, real
from lossbench.analysis.verdicts import NO_LOSSES, NO_PARTS, Verdict, evaluate, level_table, verdict_table
from lossbench.base.columns import COPIED

METRICS = ("dice@0.5", "dice@val", "nsd_1@0.5", "hd95@0.5", "log_size_ratio_hard@0.5", "log_size_ratio_soft")

BOARD = (
    "dice@0.5",
    "dice@val",
    "dice_all@0.5",
    "dice_pooled@0.5",
    "dice_raters",
    "false_alarms@0.5",
    "iou@0.5",
    "nsd_1@0.5",
    "hd95@0.5",
    "size_ratio_hard@0.5",
    "size_ratio_soft",
    "recall@0.5",
    "precision@0.5",
    "nll",
    "ece",
)

PART_METRICS = ("dice@0.5", "dice@val", "log_size_ratio_hard@0.5", "log_size_ratio_soft")

REFERENCE = "ce"


@dataclass(frozen=True)
class Answers:
    """The derived tables; each is also written as CSV beside the others, so that every number of the report
    stands in a file.
    """

    claims: ClaimSet
    verdicts: tuple[Verdict, ...]
    # verdicts, levels, effects, pooled, pairs, leaderboard, profiles, stability, part_effects,
    # sensitivity, specifications, shares, shifts, advice, advice_groups, advice_data,
    # advice_start, advice_shortfalls, advice_tried, advice_worth, collapses, missing, learnt, lengths,
    # speeds, cost, recommendations, and decided where seeds are sequential
    tables: dict[str, pd.DataFrame]
    recommendations: tuple[recommendation.Recommendation, ...] = ()  # one a data set that is not generated


def answer(tables: Mapping[str, pd.DataFrame], claims: ClaimSet) -> Answers:
    """Return the answers that the tables hold; works on any number of cells, also none.

    Parts that are ``fixed`` answer a question of their own: their cells stay out of leaderboards and effects,
    and are compared within the part.
    """
    cells, recipes, by_group = tables["cells"], tables.get("recipes"), tables.get("groups")
    by_group = ByGroup(by_group) if by_group is not None and len(by_group) else None
    parts, sets = tables.get("parts", NO_PARTS), tables.get("datasets")
    fixed = tuple(parts.loc[parts["fixed"].astype(bool), "part"]) if len(parts) else ()
    looks, choice = sequential(tables.get("looks"))
    reached = learnt.learnt(cells, tables.get("references", learnt.NO_REFERENCES))
    missed = learnt.unlearnt(reached, cells)
    losses = tables.get("losses", NO_LOSSES)
    kept = cells[~missed]
    judged = cells.assign(unlearnt=missed, unmeasured=learnt.unmeasured(reached, cells))
    verdicts = evaluate(claims.claims, judged, parts, by_group, losses)
    common = compared(cells, fixed)
    # What was not learnt says who learns sooner, not who ends where.
    ended = compared(kept, fixed)
    ranked = without(ended, fixed)
    within = part_effects(cells, fixed, looks, by_group)
    labels = (
        cells.drop_duplicates(["dataset", "recipe"]).set_index(["dataset", "recipe"])["data_label"].to_dict()
    )
    changes = [sensitivity.sensitivity(cells, recipes, REFERENCE), sensitivity.variants(within, labels)]
    # Nobody should start with a loss because it learns sooner.
    advised = advice.advise(kept, recipes, REFERENCE, by_group)
    at_hand = set(real(kept, sets)["dataset"])
    derived = {
        "verdicts": verdict_table(verdicts),
        "levels": level_table(verdicts),
        "effects": effects_table(common, REFERENCE, METRICS, by_group, looks),
        "pooled": pooled_effects(ended, REFERENCE, METRICS[:2]),
        "pairs": pair_effects(at_usual(ended, recipes), METRICS[:2], by_group, looks),
        "leaderboard": board(common, by_group, looks),
        "profiles": rankings.profiles(ranked),
        "stability": rankings.stability(ranked),
        "part_effects": within,
        "sensitivity": pd.concat([c for c in changes if len(c)] or changes[:1], ignore_index=True),
        **specification_curve.specify(cells, recipes, REFERENCE),
        **advised,
        "advice_shortfalls": regrets.over_real(kept, advised["advice_data"], at_hand),
        **tried.tried(kept, advised["advice_data"], at_hand),
        "collapses": collapses_by_part(cells, fixed),
        # Of sequential seeds the first look is what every loss must hold.
        "missing": missing_by_part(cells[cells["seed"].isin(looks[0])] if looks else cells),
        "learnt": reached,
        "lengths": learnt.converged(cells),
        "speeds": learnt.speeds(cells),
        "cost": cost(cells),
    }
    if looks:
        derived["decided"] = decisions.decided(common, by_group, looks, choice)
    own = recommendation.recommend(real(common, sets), by_group, reached, tables.get("spellings"), looks)
    derived["recommendations"] = recommendation.as_table(own)
    return Answers(claims, verdicts, derived, tuple(own))


def sequential(table: pd.DataFrame | None) -> tuple[Looks, bool]:
    """Return the seeds of each look of a sequential experiment, and whether one loss is to be chosen."""
    if table is None or not len(table):
        return (), False
    return tuple(tuple(json.loads(seeds)) for seeds in table["seeds"]), bool(table["choice"].iloc[0])


def compared(cells: pd.DataFrame, fixed: Iterable[str]) -> pd.DataFrame:
    """Return the cells of the leaderboards: those of at least one part that is not ``fixed``."""
    apart = set(fixed)
    if not apart or not len(cells):
        return cells
    parts = cells["parts"].fillna("").astype(str)
    joins = {text: not text or any(name not in apart for name in text.split(",")) for text in parts.unique()}
    return cells[parts.map(joins)]


def at_usual(cells: pd.DataFrame, recipes: pd.DataFrame | None) -> pd.DataFrame:
    """Return the cells of each data set's usual recipe."""
    usual = sensitivity.usual_recipes(cells, recipes)
    return cells[cells["recipe"] == cells["dataset"].map(usual)]


def without(cells: pd.DataFrame, fixed: Iterable[str]) -> pd.DataFrame:
    """Return the cells with the ``fixed`` parts left out of the names of their parts; a cell without parts
    keeps the empty name.
    """
    apart = set(fixed)
    parts = cells["parts"].fillna("").astype(str)
    kept = {text: ",".join(name for name in text.split(",") if name not in apart) for text in parts.unique()}
    return cells.assign(parts=parts.map(kept))


def part_effects(
    cells: pd.DataFrame, fixed: Iterable[str], looks: Looks = (), by_group: ByGroup | None = None
) -> pd.DataFrame:
    """Return the paired effects within each fixed part, against CE or, where a part has none, against Dice;
    Holm within the part's data set.
    """
    found = []
    for part in fixed:
        own = cells[in_parts(cells, (part,))]
        # A part that compares forms of Dice has no CE.
        reference = next((name for name in (REFERENCE, "dice") if (own["loss"] == name).any()), None)
        if reference:
            found.append(effects_table(own, reference, PART_METRICS, by_group, looks).assign(part=part))
    table = (
        pd.concat(found, ignore_index=True)
        if found
        else effects_table(cells.iloc[:0], REFERENCE).assign(part="")
    )
    return table[["part", *(c for c in table if c != "part")]]


def collapses_by_part(cells: pd.DataFrame, fixed: Iterable[str]) -> pd.DataFrame:
    """Return the collapses of the leaderboards' cells (part ""), then of each fixed part those of its cells
    that were not yet counted.
    """
    own = compared(cells, fixed)
    found, seen = [boards.collapses(own).assign(part="")], set(own["key"])
    for part in fixed:
        own = cells[in_parts(cells, (part,)) & ~cells["key"].isin(seen)]
        found.append(boards.collapses(own).assign(part=part))
        seen |= set(own["key"])
    return _joined(found)


def missing_by_part(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the blocks that a loss lacks, part by part, since only a part is a full cross; what two parts
    lack is told once.
    """
    names = list(
        dict.fromkeys(name for text in cells["parts"].fillna("").unique() for name in str(text).split(","))
    )
    found = [boards.missing_blocks(cells[in_parts(cells, (name,))]).assign(part=name) for name in names] or [
        boards.missing_blocks(cells).assign(part="")
    ]
    return _joined(found).drop_duplicates(["dataset", "recipe", "loss", "seeds"], ignore_index=True)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    # An empty table would change the types of the others, and pandas warns; one is kept for its columns.
    table = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return table[["part", *(c for c in table if c != "part")]]


def board(cells: pd.DataFrame, by_group: ByGroup | None = None, looks: Looks = ()) -> pd.DataFrame:
    """Return the leaderboard at 0.5 with who may be the best in each arm, and the means of the other metrics
    beside it.
    """
    if "dice@0.5" not in cells or not len(cells):
        return boards.leaderboard(cells.iloc[:0])
    table = boards.leaderboard(cells, "dice@0.5", by_group, looks).drop(columns="metric")
    keys = ["dataset", "recipe", "loss"]
    if "dice@val" in cells:
        tuned = boards.leaderboard(cells, "dice@val", by_group, looks)[[*keys, "best"]]
        tuned = tuned.rename(columns={"best": "best_val"})
        table = table.merge(tuned, on=keys, how="left")
    present = [column for column in BOARD if column in cells]
    means = cells.groupby(keys, observed=True)[present].mean().reset_index()
    known = cells.assign(foreground=numbers(cells, "foreground_true")).groupby(
        ["dataset", "recipe"], observed=True
    )
    facts = known.agg(data_label=("data_label", "first"), foreground=("foreground", "mean"))
    table = table.merge(means, on=keys).merge(facts.reset_index(), on=["dataset", "recipe"])
    return table.sort_values(["foreground", "dataset", "recipe", "place"], ignore_index=True)


def cost(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe): number of cells, how many of them are copies of another cell's
    training, median seconds of those that were trained, total seconds and CPU seconds.
    """
    copied = cells[COPIED].fillna("").ne("") if COPIED in cells else pd.Series(False, cells.index)
    grouped = cells.assign(
        # A copy took no time, which says nothing of what a training takes.
        seconds=cells["seconds"].astype(float).mask(copied),
        cpu_seconds=cells["cpu_seconds"].astype(float),
        copied=copied,
    )
    grouped = grouped.groupby(["dataset", "recipe"], observed=True, sort=True)
    return grouped.agg(
        data_label=("data_label", "first"),
        cells=("key", "size"),
        copied=("copied", "sum"),
        seconds_median=("seconds", "median"),
        seconds_total=("seconds", "sum"),
        cpu_seconds_total=("cpu_seconds", "sum"),
    ).reset_index()
