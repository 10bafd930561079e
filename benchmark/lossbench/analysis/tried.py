"""What it costs to choose a loss by a rule, on data that the rule does not rest on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from lossbench.analysis import likeness, resampling
from lossbench.analysis.goals import GOALS, Goal, amount, scale
from lossbench.analysis.regrets import FEWEST, nearest, safest, shortfalls
from lossbench.analysis.selection import in_parts

HELD = "held_out"  # the part of data sets that were named before training: no rule may rest on them

ALWAYS = ("dice_ce", "ce")  # rules that take one loss whatever the data

# How a sentence calls each rule.
RULES = {"alike": "what is safest on data that are alike"}
RULES |= {"nearest": "what is nearest to the best on the others"}
RULES |= {loss: f"always {loss.replace('_', ' + ')}" for loss in ALWAYS}

TRIED = ["goal", "dataset", "data_label", "held", "alike_loss", "nearest_loss", *RULES, "rests_on"]

WORTH = ["goal", "held", "n_datasets", "says"]
WORTH += [f"{rule}{end}" for rule in RULES for end in ("", "_low", "_high", "_worst")]


def tried(cells: pd.DataFrame, facts: pd.DataFrame, real: Collection[str]) -> dict[str, pd.DataFrame]:
    """Return what rules cost that choose a loss: the tables ``advice_tried`` (one row a goal and data set)
    and ``advice_worth`` (one row a goal, its means over data sets).

    facts: the table ``advice_data``; real: the data sets to try them on. Each is left out in turn, and the
    cost is how far the chosen loss falls short of the best one there. "alike": the safest loss on those that
    are alike (same classes of foreground and of empty images; where there are none, the same class of empty
    images; else all), of the losses that both hold. "nearest": the loss whose mean shortfall on the other
    real data sets is smallest. Dice + CE, CE: always the same. A data set of the part ``HELD`` is tried on
    and nothing else. The interval is of the mean over data sets, by drawing them anew: it says nothing of
    fewer than five.
    """
    held = set(cells.loc[in_parts(cells, (HELD,)), "dataset"])
    usual = cells[likeness.usual_cells(cells, facts)]
    rows = []
    for goal in (goal for goal in GOALS if goal.column in cells):
        for own in facts[facts["dataset"].isin(real)].to_dict("records"):
            others = facts[(facts["dataset"] != own["dataset"]) & ~facts["dataset"].isin(held)]
            row = _trial(usual, own, others, real, goal)
            if row:
                rows.append({**row, "held": own["dataset"] in held})
    table = pd.DataFrame(rows).reindex(columns=TRIED)
    found = [_worth(part, held) for (_, held), part in table.groupby(["goal", "held"], sort=False)]
    return {"advice_tried": table, "advice_worth": pd.DataFrame(found).reindex(columns=WORTH)}


def _trial(
    usual: pd.DataFrame, own: dict, others: pd.DataFrame, real: Collection[str], goal: Goal
) -> dict | None:
    """Return what the rules cost on a data set; None where no two losses can be compared."""
    here = usual[usual["dataset"] == own["dataset"]]
    # The price is counted against the best loss there is, fit or not.
    short = shortfalls(here, goal)
    if len(short) < 2:
        return None
    short = short.iloc[:, 0].to_dict()
    elsewhere = usual[usual["dataset"].isin(others["dataset"]) & usual["loss"].isin(here["loss"])]
    alike = likeness.nearest_to(others, own)
    some = own["empty"] != likeness.EMPTY[0][0]
    rules = {
        "alike": safest(elsewhere[elsewhere["dataset"].isin(alike["dataset"])], goal, some),
        "nearest": nearest(elsewhere[elsewhere["dataset"].isin(real)], goal),
        **{loss: loss for loss in ALWAYS},
    }
    row = {"goal": goal.name, "dataset": own["dataset"], "data_label": own["data_label"]}
    row |= {f"{rule}_loss": rules[rule] for rule in ("alike", "nearest")}
    row |= {rule: short.get(loss, np.nan) for rule, loss in rules.items()}
    return row | {"rests_on": "; ".join(alike["data_label"])}


def _worth(tried: pd.DataFrame, held: bool) -> dict:
    """Return the mean cost of each rule over data sets, with its interval, and what that says."""
    goal = next(goal for goal in GOALS if goal.name == tried["goal"].iloc[0])
    row, parts = {"goal": goal.name, "held": held, "n_datasets": len(tried)}, []
    for rule, spoken in RULES.items():
        values = tried[rule].dropna().to_numpy()
        if not len(values):
            continue
        # As groups of one class with one image each, data sets are drawn anew by the same code.
        drawn = resampling.redrawn(values[:, None], np.ones((len(values), 1)))
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(values) >= FEWEST else (np.nan, np.nan)
        row |= {rule: values.mean(), f"{rule}_low": low, f"{rule}_high": high, f"{rule}_worst": values.max()}
        between = "" if np.isnan(low) else f" [{amount(low, goal)}, {amount(high, goal)}]"
        # Means over different data sets cannot be compared. A rule may also name none.
        of = f" on the {len(values)} of them that trained its loss" if len(values) < len(tried) else ""
        parts.append(f"{spoken} {amount(values.mean(), goal)}{between}{of}")
    kind = "that were named before training" if held else "that were left out in turn"
    said = f",{scale(goal)}" if scale(goal) else ""
    says = f"{goal.name}, on {len(tried)} data sets {kind}: mean shortfall against the best loss there{said}:"
    says = f"{says} {'; '.join(parts)}."
    few = " So few data sets prove nothing." if len(tried) < FEWEST else ""
    return row | {"says": says + few}
