"""Which losses the evidence supports for data like the reader's: effects against cross-entropy, over the data
sets that are alike.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import flips, likeness, pairs, seeds
from lossbench.analysis.decisions import OPEN, decide
from lossbench.analysis.effects import OfImages, over_sets, summary
from lossbench.analysis.goals import GOALS, Goal
from lossbench.analysis.regrets import ALARMS, START, regrets
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.selection import select_loss

ROWS = [
    "group",
    "goal",
    "metric",
    "place",
    "loss",
    "loss_label",
    "family",
    "verdict",
    "estimate",
    "low",
    "high",
]
ROWS += ["p", "p_holm", "n_seeds", "false_alarms", "collapsed", "n_cells", "n_datasets", "datasets"]

GROUPS = ["foreground", "boundaries", "empty", "group", "given_up", "n_datasets", "datasets", "collapses"]

ORDER = {"better": 0, "open": 1, "equal": 2, "worse": 3}


def advise(
    cells: pd.DataFrame,
    recipes: pd.DataFrame | None = None,
    against: str = "ce",
    by_group: ByGroup | None = None,
) -> dict[str, pd.DataFrame]:
    """Return the tables ``advice_data`` (what each data set is like), ``advice_groups`` (which answers to the
    three questions mean which group of data sets) and ``advice`` (one row a group, goal and loss: its effect
    against ``against``).

    ``verdict``: better or worse (p below .05, Holm-adjusted over the losses of the group), equal (shown to
    lie within the margin), open. Where the group is one real data set, ``by_group`` (the table 'groups') lets
    other images speak too, as in ``decisions``. Each data set speaks through its usual recipe only.
    ``collapses`` of a group names the losses that collapsed on its data sets, and, where empty images are
    said to occur, on any other with such images.
    """
    facts = likeness.describe(cells, recipes)
    groups, members = likeness.groups(facts)
    empty = {row["group"] for row in groups if likeness.some_empty(row)}
    ended = _ended(cells[likeness.usual_cells(cells, facts)])
    crowded = facts.loc[facts["empty_share"] > likeness.EMPTY[0][1], "dataset"]
    for row in groups:
        sets = members[row["group"]]
        others = [name for name in crowded if name not in sets] if row["group"] in empty else []
        row["collapses"] = _collapses(ended, sets, others)
    rows, start = [], []
    for goal in GOALS:
        if goal.column in cells:
            found = _differences(cells, facts, goal, against)
            # The absolute value of a mean is no mean over images.
            by_images = OfImages(cells, None if goal.absolute else by_group, goal.column)
            own_rows = {sets: _rows(sets, goal, found, ended, by_images) for sets in dict.fromkeys(members)}
            for number, sets in enumerate(members):
                rows += [{**row, "group": number} for row in own_rows[sets]]
                own = cells[likeness.usual_cells(cells, facts[facts["dataset"].isin(sets)])]
                start += [{**row, "group": number} for row in regrets(own, goal)]
    return {
        "advice_data": facts,
        "advice_groups": pd.DataFrame(groups, columns=GROUPS),
        "advice": pd.DataFrame(rows).reindex(columns=ROWS),
        "advice_start": pd.DataFrame(start).reindex(columns=START),
    }


def _ended(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, loss): cells, how many of them collapsed, mean share of empty images that
    it marks.
    """
    known = cells.assign(
        false_alarms=seeds.numbers(cells, ALARMS), collapsed=cells["outcome"].eq("collapsed")
    )
    return known.groupby(["dataset", "loss"], observed=True, as_index=False).agg(
        data_label=("data_label", "first"),
        loss_label=("loss_label", "first"),
        n_cells=("collapsed", "size"),
        collapsed=("collapsed", "sum"),
        false_alarms=("false_alarms", "mean"),
    )


def _collapses(ended: pd.DataFrame, sets: Collection[str], others: Collection[str]) -> str:
    """Return which losses collapsed on these data sets, and on others that have images without foreground,
    too.
    """
    bad = ended[ended["collapsed"] > 0].sort_values(["collapsed", "loss"], ascending=[False, True])

    def told(own: pd.DataFrame) -> str:
        # Data set by data set: over many of them a loss that fails on one would seem to fail rarely.
        parts = []
        for where, rows in own.groupby("data_label", sort=False, observed=True):
            counts = [f'"{row.loss_label}" {row.collapsed} of {row.n_cells}' for row in rows.itertuples()]
            parts.append(f'on "{where}" {", ".join(counts)}')
        return "; ".join(parts)

    here, there = (told(bad[bad["dataset"].isin(names)]) for names in (sets, others))
    says = [f"Collapsed trainings: {here}."] if here else []
    # A loss that is calm here may fail where a few more images are empty, which its user must know.
    says += [f"Collapsed trainings on other data with empty images: {there}."] if there else []
    return " ".join(says)


class _Differences(NamedTuple):
    """A loss's paired differences to the reference on one data set, by seed, with what is known of both."""

    facts: dict[str, str]
    by_seed: pd.Series
    pair: tuple[str, str]
    variant: tuple[str, str]
    label: str
    unit: str


def _differences(
    cells: pd.DataFrame, facts: pd.DataFrame, goal: Goal, against: str
) -> dict[tuple[str, str], _Differences]:
    """Return the differences of every (data set, loss) to ``against``: as they are measured, not turned."""
    found = {}
    for dataset, recipe in zip(facts["dataset"], facts["recipe"], strict=True):
        part = cells[(cells["dataset"] == dataset) & (cells["recipe"] == recipe)]
        reference = select_loss(part, against)
        if not len(reference):
            continue
        reference = reference["loss"].iloc[0]
        own = dict(list(part.groupby("loss", sort=True, observed=True)))
        held = pairs.blocks(own, [goal.column], goal.absolute)
        names = part.drop_duplicates("loss").set_index("loss")[["loss_label", "family"]].to_dict("index")
        place = (held.variants["data_label"].iloc[0], seeds.units(held.variants).iloc[0])
        for loss in held.arms:
            # The report names a pair that did not start alike; no advice may rest on it.
            if loss == reference or held.refusal(loss, reference):
                continue
            by_seed = pd.Series(held.difference(loss, reference)[0], index=held.seeds).dropna()
            if len(by_seed):
                pair = (loss, reference)
                found[dataset, loss] = _Differences(names[loss], by_seed, pair, (dataset, recipe), *place)
    return found


def _rows(
    sets: tuple[str, ...],
    goal: Goal,
    found: dict[tuple[str, str], _Differences],
    ended: pd.DataFrame,
    by_images: OfImages,
) -> list[dict]:
    rows, ended = [], ended[ended["dataset"].isin(sets)]
    for loss in sorted({loss for dataset, loss in found if dataset in sets}):
        here = [found[dataset, loss] for dataset in sets if (dataset, loss) in found]
        # Aligned by seed: levels of one generator are one number a seed.
        d = pd.concat({own.variant: own.by_seed for own in here}, axis=1).T
        unit = np.array([own.unit for own in here])
        evidence, numbers = over_sets(d.to_numpy(), unit)
        if not numbers:  # no seed holds all levels of a generator
            continue
        evidence, few = by_images.ask(evidence, d, unit, *here[0].pair)
        row = {"goal": goal.name, "metric": goal.estimand, "loss": loss, **here[0].facts}
        row |= summary(evidence, numbers)
        row |= {"evidence": evidence, "few": few, "n_datasets": len(here)}
        own = ended[ended["loss"] == loss]
        row |= {name: int(own[name].sum()) for name in ("collapsed", "n_cells")}
        row |= {"false_alarms": own["false_alarms"].mean()}
        rows.append({**row, "datasets": "; ".join(own.label for own in here)})
    for row, adjusted in zip(rows, flips.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        verdict = decide(row.pop("evidence"), row["estimate"], adjusted, goal.estimand, goal.good)
        row["verdict"] = OPEN if row.pop("few") else verdict
    rows.sort(key=lambda row: (ORDER[row["verdict"]], -goal.good * row["estimate"], row["loss"]))
    return [{**row, "place": place} for place, row in enumerate(rows, 1)]
