"""The first screen of the report, in sentences made from the tables: what was compared, what to do, and how
far to trust it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lossbench.analysis.goals import GOALS, behind
from lossbench.base import columns, words
from lossbench.base.specs import network_name
from lossbench.report.loss_cards import LIBRARIES

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers

MAIN = "Dice - CE"
POINT = 0.01  # a difference of Dice that anybody would care about
NAMED = 4  # names in a sentence; the others are counted

ALARMS = "false_alarms@0.5"
OWN = ("folder", "user")  # families of data sets
SCORED = ("Dice at 0.5", "Dice over all images, empty ones too")
BOARD = ("dice@0.5", "dice_all@0.5", "dice_pooled@0.5", ALARMS, "hd95@0.5")
ANOTHER_NETWORK = (
    "Another network may do otherwise. To try yours: `lossbench sweep --network NAME --with FILE` "
    "(docs/networks.md)."
)
AGAIN = (
    "Any mean of a leaderboard leads to its single trainings; beside each stands the command that trains it "
    "again and compares: `lossbench verify --cell KEY`."
)
FEW_EMPTY = 0.1  # images without foreground; with fewer a share of alarms is one of a handful
MANY_EMPTY = 0.02  # a smaller share of alarms is what any loss has

# Choices that decide such a comparison as much as the loss does: column of the specifications -> its name.
CHOICES = {
    "head": "the start of the last layer",
    "length": "the length of training",
    "sampler": "the sampler",
    "network": "the network",
}


@dataclass(frozen=True)
class Opening:
    """What stands above everything else."""

    compared: str
    advice: list[str] = field(default_factory=list)
    trust: list[str] = field(default_factory=list)
    own: list[dict[str, Any]] = field(default_factory=list)  # recommendations for data that are not generated

    @property
    def many(self) -> bool:
        """Whether there are so many data sets that what holds over all of them comes first."""
        from lossbench.analysis.recommendation import FEW_SETS

        return len(self.own) > FEW_SETS


def opening(tables: Mapping[str, pd.DataFrame], answers: Answers, about: Any) -> Opening:
    """Return the first screen; an empty study has one sentence."""
    cells = tables["cells"]
    if not len(cells):
        return Opening("No training is recorded here yet.")
    own = [_own(each) for each in answers.recommendations]
    if is_own(tables):
        start = _start(answers.tables) if len(own) > 1 else ""
        told = ("leaks", "lacks")
        split = [f"{card['label']}: {card[key]}." for card in about.cards for key in told if card.get(key)]
        trust = [*split, *looks(answers.tables), _collapsed(cells), AGAIN, _verified(about)]
        return Opening(_compared(cells), [start] if start else [], [text for text in trust if text], own)
    derived = answers.tables
    advice = [_spread(derived["specifications"]), _spread_from(derived["shares"])]
    advice += [_length(derived["speeds"]), _alarms(cells, derived["advice_data"])]
    trust = [_untrained(tables, about), *_not_learnt(derived["learnt"])]
    trust += [_not_varied(derived["specifications"], cells)]
    trust += [_seeds(cells), *looks(derived), _collapsed(cells), AGAIN, _verified(about)]
    trust += [f"{_networks(cells, answers)} {ANOTHER_NETWORK}".strip()]
    return Opening(
        _compared(cells),
        [text for text in advice if text],
        [text for text in trust if text],
        own,
    )


def is_own(tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether all data sets are the user's own."""
    sets = tables.get("datasets")
    return sets is not None and len(sets) > 0 and bool(sets["family"].isin(OWN).all())


def _verified(about: Any) -> str:
    return f"{about.verified.removesuffix('.')}." if about.verified else ""


def _start(derived: Mapping[str, pd.DataFrame]) -> str:
    """Return how far the losses fall short of the best one over real data sets, where there are several."""
    found = (behind(derived, goal) for goal in GOALS if goal.name in SCORED)
    return next(filter(None, found), "")


def _compared(cells: pd.DataFrame) -> str:
    """Return which losses, data, networks and lengths the cells hold."""
    losses = cells["loss"].nunique()
    sets = cells["dataset"].nunique()
    steps = sorted({int(float(n)) for n in cells["recipe.steps"].dropna()}) if "recipe.steps" in cells else []
    lengths = f" for {_range(steps)} steps" if steps else ""
    network = _network(cells)
    scenes = cells.loc[cells["dataset_name"] == "scenes", "dataset"].nunique()
    kinds = [f"{scenes} of them generated scenes"] if 0 < scenes < sets else []
    kinds += ["all of them generated scenes"] if scenes == sets else []
    of = f" ({kinds[0]})" if kinds else ""
    plural = "es" if losses != 1 else ""
    return (
        f"{losses} loss{plural} on {sets} data set variant{'s' if sets != 1 else ''}{of}, {network} trained"
        f"{lengths}, {_range(_seeds_each(cells))} seeds each: {len(cells):,} trainings."
    )


def _network(cells: pd.DataFrame) -> str:
    names = cells["recipe.network"].dropna().unique() if "recipe.network" in cells else []
    if len(names) == 0:
        return "a U-Net"
    return network_name(str(names[0])) if len(names) == 1 else f"{len(names)} networks"


def _networks(cells: pd.DataFrame, answers: Answers) -> str:
    """Return which networks were trained, and what the claims about networks came to."""
    known = cells["recipe.network"].dropna().unique() if "recipe.network" in cells else []
    names = [network_name(str(name)) for name in known]
    told = f"Trained here: {'; '.join(names)}." if names else ""
    asked = [
        own for own in answers.verdicts if any("recipe.network" in test.where for test in own.claim.tests)
    ]
    tested = [own for own in asked if any(result.measured is not None for result in own.results)]
    says = [f"{own.claim.id}, “{own.claim.title}”, is {own.verdict}." for own in tested]
    return " ".join([told, *says]).strip()


def _seeds_each(cells: pd.DataFrame) -> list[int]:
    counts = cells.groupby(["dataset", "recipe"], observed=True)["seed"].nunique()
    return sorted({int(n) for n in counts})


def _range(values: list[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def _spread(table: pd.DataFrame) -> str:
    """Return in how many combinations of choices Dice is ahead, and in how many cross-entropy is."""
    own = table.loc[table["contrast"] == MAIN, "estimate"]
    # Percentages of a handful of combinations would sound like more than they are.
    if len(own) < 8:
        return ""
    above, below = (own > POINT).mean(), (own < -POINT).mean()
    return (
        f"Dice against cross-entropy under {len(own)} combinations of choices: Dice is more than a point "
        f"ahead in {words.share(above)}, more than a point behind in {words.share(below)}, and within a "
        f"point in {words.share(1 - above - below)}."
    )


def _spread_from(table: pd.DataFrame) -> str:
    """Return which choices explain most of the spread."""
    own = table[(table["contrast"] == MAIN) & (table["choice"] != "rest") & (table["share"] >= 0.05)]
    first = own.sort_values("share", ascending=False, kind="stable").head(3)
    if not len(first):
        return ""
    named = ", ".join(
        f"{row.choice.replace(' x ', ' × ')} {words.share(row.share)}" for row in first.itertuples()
    )
    return f"Of the variance between combinations of choices most comes from: {named}."


def _length(table: pd.DataFrame) -> str:
    """Return what longer training leaves of the leads, the one that it changes most first."""
    change = (table["lead_longest"] - table["lead"]).abs().sort_values(ascending=False, kind="stable")
    told = table.loc[change.index, "says"]
    says = [text for text in told if "ahead" in text][:2] or list(told[:1])
    return f"Train long enough before you compare: {'; '.join(says)}." if says else ""


def _alarms(cells: pd.DataFrame, facts: pd.DataFrame) -> str:
    """Return on how many images without foreground each usual loss marks something, where most do, of the
    data sets that are trained on such images.
    """
    column = columns.spelled(ALARMS, cells)
    if column not in cells:
        return ""
    shown = facts.loc[facts["empty_share"] > FEW_EMPTY, ["dataset", "recipe"]]
    # The losses that everybody knows: the sentence is about scoring, not about a rare loss.
    usual = cells.merge(shown, on=["dataset", "recipe"])
    usual = usual[usual["loss"].isin(["ce", "dice", "dice_ce", "batch_dice", "batch_dice(classes='all')"])]
    share = usual.assign(value=usual[column].astype(float)).dropna(subset=["value"])
    if not len(share):
        return ""
    means = share.groupby(["data_label", "loss_label"], observed=True)["value"].mean()
    # Where most is marked the choice of a score decides most.
    where = means.idxmax()[0]
    own = means[where].sort_values(ascending=False, kind="stable")
    if own.iloc[0] < MANY_EMPTY:
        return ""
    named = ", ".join(f"{label} {words.share(value)}" for label, value in own.items())
    return (
        f"Say how you score images without foreground. Share of them on which a loss marks something "
        f"(“{where}”): {named}."
    )


def _untrained(tables: Mapping[str, pd.DataFrame], about: Any) -> str:
    """Return how many of the planned trainings are missing, and the data sets on which there is none."""
    cells, planned = tables["cells"], tables.get("datasets")
    if about.planned is None or about.planned <= len(cells):
        return ""
    missing = about.planned - len(cells)
    says = f"{missing:,} of {about.planned:,} planned trainings are missing"
    absent = planned[~planned["dataset"].isin(cells["dataset"])] if planned is not None else ()
    if not len(absent):
        return f"{says}."
    return f"{says}, among them all on {', '.join(dict.fromkeys(absent['dataset_name']))}."


def _not_learnt(table: pd.DataFrame) -> list[str]:
    known = table[table["learnt"].notna()]
    missed = list(dict.fromkeys(known.loc[known["learnt"].astype(float) == 0, "data_label"]))
    # Not the same as missed: without a reference it may have been learnt as well as not.
    unknown = list(dict.fromkeys(table.loc[table["learnt"].isna(), "data_label"]))
    says = []
    if missed:
        says.append(f"Not learnt, so that it says who learns sooner and not who is better: {_some(missed)}.")
    if unknown:
        missing = "there is no published figure to compare with, and no reference network was trained"
        says.append(f"Whether it was learnt is not known, since {missing}: {_some(unknown)}.")
    return says


def _not_varied(table: pd.DataFrame, cells: pd.DataFrame) -> str:
    """Return which choices the cells made in one way only: nobody can tell from them what these change."""
    own = table[table["contrast"] == MAIN]
    same = [choice for choice in CHOICES if own[choice].dropna().nunique() <= 1] if len(own) else []
    # A network that only a few cells have is no crossed choice, and was varied all the same.
    if "recipe.network" in cells and cells["recipe.network"].nunique() > 1:
        same = [choice for choice in same if choice != "network"]
    same = [CHOICES[choice] for choice in same]
    return f"Not varied here, so that its effect is not known: {', '.join(same)}." if same else ""


def _seeds(cells: pd.DataFrame) -> str:
    """Return in which settings (data set variant and recipe) there are too few seeds to show any
    difference.
    """
    from lossbench.analysis.flips import seeds_needed

    by_loss = cells.groupby(["dataset", "recipe", "loss"], observed=True)["seed"].nunique()
    counts = by_loss.groupby(level=["dataset", "recipe"]).agg(["min", "max", "size"])
    # p is adjusted over all pairs of losses of a setting.
    needed = counts["size"].map(lambda losses: seeds_needed(max(1, math.comb(losses, 2))))
    labels = cells.drop_duplicates(["dataset", "recipe"]).set_index(["dataset", "recipe"])["data_label"]
    of_all = counts["max"] < needed
    of_some = (counts["min"] < needed) & ~of_all
    parts = [
        f"{who} have so few on {few.sum()} of {len(counts)} settings "
        f"({_some(list(labels[counts.index[few]]))})"
        for who, few in (("all losses", of_all), ("some losses", of_some))
        if few.any()
    ]
    if not parts:
        return ""
    asked = needed[of_all | of_some]
    least = f"{asked.min()}" if asked.nunique() == 1 else f"{asked.min()} to {asked.max()}"
    adjusted = "p, adjusted over all pairs of losses, cannot fall below .05"
    return (
        f"With fewer than {least} seeds {adjusted}, so that no difference can be shown: {'; '.join(parts)}."
    )


def looks(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return at how many seeds each pair of losses was decided, where seeds are sequential."""
    table = tables.get("decided")
    return [] if table is None else [f"{row.data_label}: {row.says}" for row in table.itertuples()]


def _collapsed(cells: pd.DataFrame) -> str:
    count = int((cells["outcome"] == "collapsed").sum())
    return (
        f"{count} of {len(cells):,} trainings collapsed; they count with what they scored." if count else ""
    )


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'; '.join(names[:NAMED])}{rest}"


def _own(each: Any) -> dict[str, Any]:
    """Return what the page shows of a recommendation for one data set."""
    columns_of = [name for name in BOARD if name != each.score and not words.missing(each.rows[0].get(name))]
    rows = [
        {
            "label": row["label"],
            "loss": row["loss"],
            "mean": words.number(row["mean"]),
            "interval": words.bounds(row["low"], row["high"]),
            "shown": row["shown"],
            "undertrained": row["undertrained"],
            "others": [words.value(row.get(name), name) for name in columns_of],
        }
        for row in each.rows
    ]
    return {
        "label": each.label,
        "says": each.says,
        "doubts": each.doubts,
        "score": columns.title(each.score),
        "columns": [columns.title(name) for name in columns_of],
        "rows": rows,
        "prior": each.prior,
        "spelled": [(LIBRARIES.get(name, name), code) for name, code in sorted(each.spelled.items())],
    }
