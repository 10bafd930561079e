"""Which losses the evidence supports for data like the reader's: effects against cross-entropy, over the data
sets that are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lossbench.analysis import flips, pairs, resampling, seeds
from lossbench.analysis.decisions import OPEN, decide
from lossbench.analysis.effects import OfImages, over_sets, summary
from lossbench.analysis.resampling import ByGroup
from lossbench.analysis.selection import in_parts, select_loss
from lossbench.analysis.sensitivity import usual_recipes
from lossbench.base import columns as known

ANY = "any"

UNKNOWN = "not known"

# Upper ends; what lies on an end belongs below it.
FOREGROUND = (
    ("0.5 % or less", 0.005),
    ("0.5 to 2.5 %", 0.025),
    ("2.5 to 10 %", 0.1),
    ("more than 10 %", 1.0),
)

BOUNDARIES = ("as sharp as the image", "uncertain")

EMPTY = (("10 % or less", 0.1), ("10 to 40 %", 0.4), ("more than 40 %", 1.0))


@dataclass(frozen=True)
class Goal:
    """What one optimises: a column, whether |.| of it is taken, which sign is good."""

    name: str
    column: str
    absolute: bool
    good: int

    @property
    def estimand(self) -> str:
        """Return the column, between bars where its size alone counts."""
        return f"|{self.column}|" if self.absolute else self.column


GOALS = (
    Goal("Dice at 0.5", "dice@0.5", False, 1),
    Goal("Dice over all images, empty ones too", "dice_all@0.5", False, 1),
    Goal("Dice at a tuned threshold", "dice@val", False, 1),
    Goal("few false alarms", "false_alarms@0.5", False, -1),
    Goal("surface distance (HD95)", "hd95@0.5", False, -1),
    # Too large and too small are equally wrong.
    Goal("calibrated volume", "log_size_ratio_soft", True, -1),
    Goal("calibrated probabilities (ECE)", "ece", False, -1),
)

ALARMS = "false_alarms@0.5"

QUIET = 0.2  # mean share of empty images that a loss may mark where such images are said to occur

START = ["group", "goal", "loss", "loss_label", "regret", "where", "n_datasets", "n_losses", "first"]
START += ["false_alarms", "says", "alarms"]

HELD = "held_out"  # the part of data sets that were named before training, on which advice is only tried

FEWEST_SETS = 5  # fewer are too few to say how a mean over data sets varies

ALWAYS = {"dice_ce": "dice_ce", "ce": "ce"}  # rules that the advice is compared with: one loss for all data

TRIED = ["goal", "dataset", "data_label", "held", "loss", "loss_label", "advice", *ALWAYS, "rests_on"]

WORTH = ["goal", "held", "n_datasets", "says"]
WORTH += [f"{rule}{end}" for rule in ("advice", *ALWAYS) for end in ("", "_low", "_high", "_worst")]

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

# How many images are empty decides which losses are fit, so this likeness is given up last.
GIVE_UP = ("boundaries", "foreground", "empty")

FACTS = [
    "dataset",
    "recipe",
    "data_label",
    "foreground_true",
    "empty_share",
    "foreground",
    "boundaries",
    "empty",
]

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
    facts = describe(cells, recipes)
    groups, members = _groups(facts)
    empty = {row["group"] for row in groups if _some_empty(row)}
    ended = _ended(cells[_usual(cells, facts)])
    crowded = facts.loc[facts["empty_share"] > EMPTY[0][1], "dataset"]
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
                own = cells[_usual(cells, facts[facts["dataset"].isin(sets)])]
                start += [{**row, "group": number} for row in regrets(own, goal, number in empty)]
    return {
        "advice_data": facts,
        "advice_groups": pd.DataFrame(groups, columns=GROUPS),
        "advice": pd.DataFrame(rows).reindex(columns=ROWS),
        "advice_start": pd.DataFrame(start).reindex(columns=START),
    }


def _usual(cells: pd.DataFrame, facts: pd.DataFrame) -> pd.Series:
    pairs_of = set(zip(facts["dataset"], facts["recipe"], strict=True))
    own = [pair in pairs_of for pair in zip(cells["dataset"], cells["recipe"], strict=True)]
    return pd.Series(own, index=cells.index, dtype=bool)


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


def regrets(cells: pd.DataFrame, goal: Goal, empty: bool) -> list[dict]:
    """Return one row a loss that all these data sets hold, lowest maximal regret first (Savage 1951).

    The regret of a loss on a data set is how far its mean falls short of the best one's. The first row that
    never collapsed, and with ``empty`` is known to mark at most ``QUIET`` of the empty images, is the one to
    use: no loss is kept from that place by a difference that few seeds cannot show. Its ``says`` is the
    recommendation with its reason, its ``alarms`` (with ``empty``) how often it and the quietest other loss
    mark an empty image."""
    scores = cells.assign(score=seeds.numbers(cells, goal.column)).dropna(subset="score")
    if goal.absolute:
        scores = scores.assign(score=scores["score"].abs())
    means = scores.pivot_table(index="loss", columns="dataset", values="score", observed=True).dropna()
    # A loss without a rival has no regret and would always be advised.
    if len(means) < 2:
        return []
    short = means.max() - means if goal.good > 0 else means - means.min()
    # Stable: of equal regrets the first by name, on every machine.
    worst = short.max(axis=1).sort_values(kind="stable")
    labels = cells.drop_duplicates("loss").set_index("loss")["loss_label"]
    places = cells.drop_duplicates("dataset").set_index("dataset")["data_label"]
    trained = {loss: cells[cells["loss"] == loss] for loss in worst.index}
    unfit = {loss: _unfit(own, empty) for loss, own in trained.items()}
    first = next((loss for loss in worst.index if not unfit[loss]), None)
    rows = []
    for loss, regret in worst.items():
        row = {"goal": goal.name, "loss": loss, "loss_label": labels[loss], "regret": float(regret)}
        row |= {"where": places[short.loc[loss].idxmax()], "n_datasets": means.shape[1]}
        row |= {"n_losses": len(means), "n_all": scores["loss"].nunique()}
        row |= {"first": loss == first, "tie": not worst.iloc[-1], "says": "", "alarms": ""}
        rows.append(row | {"false_alarms": seeds.numbers(trained[loss], ALARMS).mean()})
    for place, row in enumerate(rows):
        if row["first"]:
            passed = [f'"{other["loss_label"]}" {unfit[other["loss"]]}' for other in rows[:place]]
            row |= {"says": _use(row, goal, passed), "alarms": _alarms(row, rows) if empty else ""}
    return rows


def _unfit(own: pd.DataFrame, empty: bool) -> str:
    """Return why a loss cannot be advised, as the rest of a sentence about it; nothing where it can."""
    collapsed = int((own["outcome"] == "collapsed").sum())
    if collapsed:
        return f"collapsed in {collapsed} of {len(own)} trainings"
    marked = seeds.numbers(own, ALARMS).mean()
    if not empty or marked <= QUIET:
        return ""
    # Unknown is no better than high.
    return "is not known to leave empty images empty" if np.isnan(marked) else f"marks {_on_empty(marked)}"


def _on_empty(share: float) -> str:
    return f"something on {100 * share:.3g} % of the images without foreground"


def _use(row: dict, goal: Goal, passed: Collection[str]) -> str:
    """Return the recommendation with its reason; ``passed``: why losses with a smaller regret are not it."""
    says = f"Use {row['loss_label']}."
    where, losses = f'"{row["where"]}"', f"{row['n_losses']} losses"
    much = amount(row["regret"], goal)
    # A zero would say that it loses nothing.
    behind = much if float(much) else f"less than {'0.1' if '.' in much else '1'}"
    if row["tie"]:
        says = f"{says} All {losses} score the same."
    elif row["regret"]:
        where = f"Where it does worst, on {where}, its" if row["n_datasets"] > 1 else f"On {where} its"
        says = f"{says} {where} mean is {behind}{unit(goal)} behind the best of {losses}."
    else:
        where = f"each of {row['n_datasets']} data sets" if row["n_datasets"] > 1 else where
        says = f"{says} It has the best mean of {losses} on {where}."
    if passed:
        says = f"{says} Not advised, although nearer to the best: {'; '.join(passed)}."
    # Often only two losses were trained on all of the data sets, which the reader must know.
    if row["n_losses"] < row["n_all"]:
        sets = f"all {row['n_datasets']} data sets"
        says = f"{says} Only these {row['n_losses']} of {row['n_all']} losses were trained on {sets}."
    return says


def _alarms(first: dict, rows: list[dict]) -> str:
    """Return how often the advised loss and the quietest other one mark an image without foreground."""
    # Equal but for the last digit is equal, and then the plainest loss is named.
    share = {row["loss"]: round(row["false_alarms"], 6) for row in rows}
    others = [row for row in rows if row is not first and not np.isnan(share[row["loss"]])]
    own = f"False alarms: {first['loss_label']} marks {_on_empty(share[first['loss']])}"
    if not others:
        return f"{own}."
    least = min(others, key=lambda row: (share[row["loss"]], row["loss"] not in ALWAYS, row["loss"]))
    more = share[least["loss"]] - share[first["loss"]]
    kind = "the safest loss here is" if more < 0 else "the next safest is" if more else "as safe is"
    return f"{own}; {kind} {least['loss_label']}, on {100 * share[least['loss']]:.3g} %."


def amount(value: float, goal: Goal) -> str:
    """Return a difference in the unit of a goal, as sentences and tables write it."""
    if known.describe(goal.column).format == known.POINTS:
        return f"{100 * value:.1f}"
    return f"{100 * np.expm1(value):.0f}" if goal.absolute else f"{value:.3g}"


def unit(goal: Goal) -> str:
    """Return that unit, with the space before it; nothing where a score has none of its own."""
    if known.describe(goal.column).format == known.POINTS:
        return " points"
    return " %" if goal.absolute else ""


def tried(cells: pd.DataFrame, facts: pd.DataFrame, learnt: Collection[str]) -> dict[str, pd.DataFrame]:
    """Return what following the advice costs on data that it does not rest on: the tables ``advice_tried``
    (one row a goal and data set) and ``advice_worth`` (one row a goal, its means over data sets).

    facts: the table ``advice_data``; learnt: the data sets to try it on. Each is left out in turn: the loss
    to start with is taken from those that are alike (same classes of foreground and of empty images; where
    there are none, the same class of empty images; else all), of the losses that both hold. Its regret is how
    far it falls short of the best loss there. A data set of the part ``HELD`` never gives advice. The
    interval is of the mean over data sets, by drawing them anew: it says nothing of fewer than five.
    """
    held = set(cells.loc[in_parts(cells, (HELD,)), "dataset"])
    usual = cells[_usual(cells, facts)]
    rows = []
    for goal in (goal for goal in GOALS if goal.column in cells):
        for own in facts[facts["dataset"].isin(learnt)].to_dict("records"):
            others = facts[(facts["dataset"] != own["dataset"]) & ~facts["dataset"].isin(held)]
            row = _trial(usual, own, _alike(others, own), goal)
            if row:
                rows.append({**row, "held": own["dataset"] in held})
    table = pd.DataFrame(rows).reindex(columns=TRIED)
    found = [_worth(part, held) for (_, held), part in table.groupby(["goal", "held"], sort=False)]
    return {"advice_tried": table, "advice_worth": pd.DataFrame(found).reindex(columns=WORTH)}


def _alike(others: pd.DataFrame, own: dict) -> pd.DataFrame:
    # How many images are empty decides which losses are fit, so this likeness is given up last.
    quiet = others[others["empty"] == own["empty"]]
    same = quiet[quiet["foreground"] == own["foreground"]]
    return next((found for found in (same, quiet) if len(found)), others)


def _trial(usual: pd.DataFrame, own: dict, alike: pd.DataFrame, goal: Goal) -> dict | None:
    """Return the regrets of the rules on a data set; None where nothing can be advised."""
    here = usual[usual["dataset"] == own["dataset"]]
    there = usual[usual["dataset"].isin(alike["dataset"]) & usual["loss"].isin(here["loss"])]
    some = own["empty"] != EMPTY[0][0]
    first = next((row for row in regrets(there, goal, some) if row["first"]), None)
    if first is None:
        return None
    # The price is counted against the best loss there is, fit or not.
    short = {row["loss"]: row["regret"] for row in regrets(here, goal, False)}
    if not short:
        return None
    rules = {"advice": first["loss"], **ALWAYS}
    row = {"goal": goal.name, "dataset": own["dataset"], "data_label": own["data_label"]}
    row |= {
        "loss": first["loss"],
        "loss_label": first["loss_label"],
        "rests_on": "; ".join(alike["data_label"]),
    }
    return row | {rule: short.get(loss, np.nan) for rule, loss in rules.items()}


def _worth(tried: pd.DataFrame, held: bool) -> dict:
    """Return the mean regret of each rule over data sets, with its interval, and what that says."""
    goal = next(goal for goal in GOALS if goal.name == tried["goal"].iloc[0])
    row, parts = {"goal": goal.name, "held": held, "n_datasets": len(tried)}, []
    for rule, spoken in {"advice": "the advice", "dice_ce": "always dice + ce", "ce": "always ce"}.items():
        values = tried[rule].dropna().to_numpy()
        if not len(values):
            continue
        # As groups of one class with one image each, data sets are drawn anew by the same code.
        drawn = resampling.redrawn(values[:, None], np.ones((len(values), 1)))
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(values) >= FEWEST_SETS else (np.nan, np.nan)
        row |= {rule: values.mean(), f"{rule}_low": low, f"{rule}_high": high, f"{rule}_worst": values.max()}
        between = "" if np.isnan(low) else f" [{amount(low, goal)}, {amount(high, goal)}]"
        parts.append(f"{spoken} {amount(values.mean(), goal)}{between}")
    kind = "that were named before training" if held else "that were left out in turn"
    said = unit(goal).replace(" points", ", in points").replace(" %", ", in %")
    says = f"{goal.name}, on {len(tried)} data sets {kind}: mean shortfall against the best loss there{said}:"
    says = f"{says} {'; '.join(parts)}."
    few = " So few data sets prove nothing." if len(tried) < FEWEST_SETS else ""
    return row | {"says": says + few}


# What the study says of data of each kind: written by `python -m tools.prior RESULTS`, and part of the wheel.
PRIOR = Path(__file__).with_name("prior.csv")

PRIOR_COLUMNS = ["foreground", "empty", "given_up", "goal", "loss", "loss_label", "says", "n_datasets"]
PRIOR_COLUMNS += ["datasets"]


def prior_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what a study's advice comes down to, from the tables of ``advise``: for each foreground share,
    share of empty images and goal the loss to start with, whatever the boundaries.
    """
    groups, start = tables["advice_groups"], tables["advice_start"]
    known_of_own_data = groups[groups["boundaries"] == ANY].drop(columns=["boundaries", "n_datasets"])
    first = start[start["first"].astype(bool)]
    table = known_of_own_data.merge(first, on="group")
    # A user at the command line sees no second paragraph: what limits the advice stands with it.
    limits = table[["alarms", "collapses"]].fillna("").agg(" ".join, axis=1)
    return table.assign(says=(table["says"] + " " + limits).str.split().str.join(" "))[PRIOR_COLUMNS]


def prior(foreground: float, empty: float, column: str, file: Path = PRIOR) -> str:
    """Return what a study says of data with such shares, of the goal of this score, and of which data where
    none is alike; nothing where the package holds no study.
    """
    # A package without a study has nothing to say, and inspect goes on without it.
    if not file.is_file():
        return ""
    table = pd.read_csv(file)
    goal = next((goal.name for goal in GOALS if goal.column == column), "")
    kind = {"foreground": _bin(foreground, FOREGROUND), "empty": _bin(empty, EMPTY), "goal": goal}
    for name, value in kind.items():
        table = table[table[name] == value]
    if not len(table):
        return ""
    own = table.iloc[0]
    alike = f"{kind['foreground']} foreground, {kind['empty']} of the images empty"
    # An empty text is read back as a missing one.
    if isinstance(own["given_up"], str) and own["given_up"]:
        other = own["given_up"].replace("empty", "share of empty images")
        return (
            f"The study holds no data like these ({alike}); on the nearest, of another {other} "
            f"({own['datasets']}): {own['says']}"
        )
    return f"The study, on data like these ({alike}; {own['datasets']}): {own['says']}"


def describe(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row a data set at its usual recipe: foreground, share of images without it, and the class of
    each.
    """
    rows = []
    usual = usual_recipes(cells, recipes)
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        if usual[dataset] != recipe:
            continue
        first = part.iloc[0]
        share = float(part["foreground_true"].astype(float).mean()) if "foreground_true" in part else np.nan
        empty = _empty(part, first)
        row = {"dataset": dataset, "recipe": recipe, "data_label": first["data_label"]}
        row |= {"foreground_true": share, "empty_share": empty}
        row |= {"foreground": _bin(share, FOREGROUND), "empty": _bin(empty, EMPTY)}
        rows.append({**row, "boundaries": _boundaries(first)})
    table = pd.DataFrame(rows).reindex(columns=FACTS)
    return table.sort_values(["foreground_true", "dataset"], ignore_index=True)


def _empty(part: pd.DataFrame, first: pd.Series) -> float:
    """Return the share of training images without foreground where it is set, else of test images (of a
    class, where there are several).
    """
    # Set for scenes: what was asked for is exact, what a test split shows is a draw from it.
    known = _number(first, "data.empty")
    if not np.isnan(known):
        return known
    if not {"n_empty", "n_present"} <= set(part):
        return float("nan")
    empty, present = part["n_empty"].astype(float).mean(), part["n_present"].astype(float).mean()
    return float(empty / (empty + present)) if empty + present > 0 else float("nan")


def _boundaries(first: pd.Series) -> str:
    """Return how certain the boundaries are, where that is known: of generated scenes."""
    shift, rim, chance = (
        _number(first, f"data.{name}") for name in ("boundary_shift", "rim", "rim_probability")
    )
    if np.isnan(shift):
        return UNKNOWN
    # A rim that is labelled always, or never, is certain however wide it is.
    return BOUNDARIES[int(shift > 0 or (rim > 0 and 0 < chance < 1))]


def _number(row: Mapping, column: str) -> float:
    value = row.get(column)
    return float(value) if value is not None and not isinstance(value, str) else float("nan")


def _bin(value: float, bins: tuple[tuple[str, float], ...]) -> str:
    return next((name for name, end in bins if value <= end), UNKNOWN)


def _groups(facts: pd.DataFrame) -> tuple[list[dict], list[tuple[str, ...]]]:
    """Return what each triple of answers means, and the data sets of each group.

    ``given_up`` names the answers in which the data sets of the group differ from what was asked: where none
    is alike in all three, the nearest speak."""
    numbers: dict[tuple, int] = {}
    rows = []
    choices = {
        "foreground": (ANY, *(name for name, _ in FOREGROUND)),
        "boundaries": (ANY, *BOUNDARIES),
        "empty": (ANY, *(name for name, _ in EMPTY)),
    }
    for given in itertools.product(*choices.values()) if len(facts) else ():
        answers = dict(zip(choices, given, strict=True))
        alike, given_up = _nearest(facts, {name: value for name, value in answers.items() if value != ANY})
        sets = tuple(alike["dataset"])
        # Many triples mean the same data sets, whose effects are stored once; which loss is fit may differ.
        number = numbers.setdefault((sets, _some_empty(answers)), len(numbers))
        labels = "; ".join(alike["data_label"])
        rows.append({**answers, "group": number, "given_up": given_up})
        rows[-1] |= {"n_datasets": len(sets), "datasets": labels}
    return rows, [sets for sets, _ in numbers]


def _nearest(facts: pd.DataFrame, answers: dict[str, str]) -> tuple[pd.DataFrame, str]:
    """Return the data sets that are alike in all of the answers, else in as many as can be, and in what they
    are not.
    """
    asked = [name for name in GIVE_UP if name in answers]
    # By the weight of what is given up: both of the first before the last.
    for given_up in sorted(
        (names for k in range(len(asked) + 1) for names in itertools.combinations(asked, k)),
        key=lambda names: sum(2 ** GIVE_UP.index(name) for name in names),
    ):
        alike = facts
        for name in set(asked) - set(given_up):
            alike = alike[alike[name] == answers[name]]
        if len(alike):
            break
    return alike, " and ".join(given_up)


def _some_empty(answers: Mapping[str, str]) -> bool:
    """Return whether empty images are said to be more than few: then a loss must be known to stay quiet."""
    return answers["empty"] not in (ANY, EMPTY[0][0])


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
