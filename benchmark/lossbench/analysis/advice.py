"""Which losses the evidence supports for data like the reader's: effects against cross-entropy, pooled over
the data sets that are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.analysis import stats
from lossbench.analysis.pairs import by_loss, select_loss

ANY = "any"

UNKNOWN = "not known"

# Upper ends; what lies on an end belongs below it.
FOREGROUND = (("up to 0.5 %", 0.005), ("0.5 to 2.5 %", 0.025), ("2.5 to 10 %", 0.1), ("above 10 %", 1.0))

BOUNDARIES = ("as sharp as the image", "uncertain")

EMPTY = (("up to 10 %", 0.1), ("10 to 40 %", 0.4), ("above 40 %", 1.0))

ALPHA = 0.05


@dataclass(frozen=True)
class Goal:
    """What one optimises: a column, whether |.| of it is taken, which sign is good, the smallest effect of
    interest.
    """

    name: str
    column: str
    absolute: bool
    good: int
    margin: float

    @property
    def estimand(self) -> str:
        """Return the column, between bars where its size alone counts."""
        return f"|{self.column}|" if self.absolute else self.column


GOALS = (
    Goal("Dice at 0.5", "dice@0.5", False, 1, 0.005),
    Goal("Dice at a tuned threshold", "dice@val", False, 1, 0.005),
    Goal("calibrated volume", "log_size_ratio_soft", True, -1, 0.0488),
)

ROWS = (
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
    "p",
    "p_holm",
    "n_blocks",
    "n_datasets",
    "datasets",
)

GROUPS = ("foreground", "boundaries", "empty", "group", "n_datasets", "datasets")

FACTS = (
    "dataset",
    "recipe",
    "data_label",
    "foreground_true",
    "empty_share",
    "foreground",
    "boundaries",
    "empty",
)


def advise(
    cells: pd.DataFrame, recipes: pd.DataFrame | None = None, against: str = "ce"
) -> dict[str, pd.DataFrame]:
    """Return the tables ``advice_data`` (what each data set is like), ``advice_groups`` (which answers to the
    three questions mean which group of data sets) and ``advice`` (one row a group, goal and loss: its effect
    against ``against``, each data set counted once).

    ``verdict``: better or worse (Holm-adjusted t test over the losses of the group below .05), equal (TOST
    within the margin), open. Each data set speaks through its usual recipe only.
    """
    facts = describe(cells, recipes)
    groups, members = _groups(facts)
    rows = []
    for goal in GOALS:
        if goal.column in cells:
            found = _differences(cells, facts, goal, against)
            for number, sets in enumerate(members):
                rows += _rows(number, sets, goal, found, facts)
    return {
        "advice_data": facts.reindex(columns=list(FACTS)),
        "advice_groups": pd.DataFrame(groups, columns=list(GROUPS)),
        "advice": pd.DataFrame(rows).reindex(columns=list(ROWS)),
    }


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
        share = (
            float(part["foreground_true"].astype(float).mean()) if "foreground_true" in part else float("nan")
        )
        empty = _empty(part, first)
        rows.append(
            {
                "dataset": dataset,
                "recipe": recipe,
                "data_label": first["data_label"],
                "foreground_true": share,
                "empty_share": empty,
                "foreground": _bin(share, FOREGROUND),
                "boundaries": _boundaries(first),
                "empty": _bin(empty, EMPTY),
            }
        )
    table = pd.DataFrame(rows).reindex(columns=list(FACTS))
    return table.sort_values(["foreground_true", "dataset"], ignore_index=True)


def _empty(part: pd.DataFrame, first: pd.Series) -> float:
    """Return the share of training images without foreground where it is set, else of test images (of a
    class, where there are several).
    """
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
    return BOUNDARIES[int(shift > 0 or (rim > 0 and 0 < chance < 1))]


def _number(row: Mapping, column: str) -> float:
    value = row.get(column)
    return float(value) if value is not None and not isinstance(value, str) else float("nan")


def _bin(value: float, bins: tuple[tuple[str, float], ...]) -> str:
    return next((name for name, end in bins if value <= end), UNKNOWN)


def _groups(facts: pd.DataFrame) -> tuple[list[dict], list[tuple[str, ...]]]:
    """Return what each triple of answers means, and the data sets of each group; triples without any data set
    are left out.
    """
    numbers: dict[tuple[str, ...], int] = {}
    rows = []
    choices = [
        (ANY, *(name for name, _ in FOREGROUND)),
        (ANY, *BOUNDARIES),
        (ANY, *(name for name, _ in EMPTY)),
    ]
    for answers in itertools.product(*choices):
        told = dict(zip(("foreground", "boundaries", "empty"), answers, strict=True))
        alike = facts
        for question, given in told.items():
            alike = alike if given == ANY else alike[alike[question] == given]
        if len(alike):
            sets = tuple(alike["dataset"])
            number = numbers.setdefault(sets, len(numbers))
            rows.append(
                {**told, "group": number, "n_datasets": len(sets), "datasets": "; ".join(alike["data_label"])}
            )
    return rows, list(numbers)


def _differences(cells: pd.DataFrame, facts: pd.DataFrame, goal: Goal, against: str) -> dict[str, dict]:
    """Return, by data set, the paired differences of every loss to ``against``: good ones as they are
    measured, not turned.
    """
    found = {}
    indexed = dict(list(cells.groupby(["dataset", "recipe"], observed=True)))
    for dataset, recipe in zip(facts["dataset"], facts["recipe"], strict=True):
        part = indexed[dataset, recipe]
        reference = select_loss(part, against)
        if len(reference):
            values = part[goal.column].astype(float)
            part = part.assign(**{goal.column: values.abs() if goal.absolute else values})
            reference = reference["loss"].iloc[0]
            names = part.drop_duplicates("loss").set_index("loss")[["loss_label", "family"]].to_dict("index")
            pairs = by_loss(part, reference, goal.column)
            found[dataset] = {
                loss: (d, names[loss])
                for loss, (d, _) in pairs.items()
                if loss != reference and d is not None and len(d)
            }
    return found


def _rows(
    number: int, sets: tuple[str, ...], goal: Goal, found: dict[str, dict], facts: pd.DataFrame
) -> list[dict]:
    labels = dict(zip(facts["dataset"], facts["data_label"], strict=True))
    rows = []
    for loss in sorted({loss for dataset in sets for loss in found.get(dataset, ())}):
        here = {dataset: found[dataset][loss] for dataset in sets if loss in found.get(dataset, ())}
        groups = [d for d, _ in here.values()]
        told = stats.estimate(groups, stats.mean_weights(groups))
        low, high = told.interval()
        rows.append(
            {
                "group": number,
                "goal": goal.name,
                "metric": goal.estimand,
                "loss": loss,
                **next(iter(here.values()))[1],
                "estimate": told.value,
                "low": low,
                "high": high,
                "p": stats.t_test(told),
                "p_equal": stats.tost(told, goal.margin),
                "n_blocks": sum(map(len, groups)),
                "n_datasets": len(here),
                "datasets": "; ".join(labels[dataset] for dataset in here),
            }
        )
    for row, adjusted in zip(rows, stats.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"], row["verdict"] = adjusted, _verdict(row, adjusted, goal)
    order = {"better": 0, "open": 1, "equal": 2, "worse": 3}
    rows.sort(key=lambda row: (order[row["verdict"]], -goal.good * row["estimate"], row["loss"]))
    return [{**row, "place": place} for place, row in enumerate(rows, 1)]


def _verdict(row: dict, adjusted: float, goal: Goal) -> str:
    if row["p_equal"] < ALPHA:
        return "equal"
    if adjusted < ALPHA:
        return "better" if goal.good * row["estimate"] > 0 else "worse"
    return "open"


# --- How much a result depends on what was held fixed: learning rate, optimiser, training length, batch
# size, and the form of the loss.

METRICS = ("dice@0.5", "dice@val")

CHOICE = "val_dice@0.5"  # what the validation images say about a learning rate

# What a difference in these keys of a recipe is called, the first that differs; other keys are called by
# their own name.
AXES = {
    "optimizer": "optimiser",
    "learning_rate": "learning rate",
    "steps": "training length",
    "batch": "batch size",
}

SILENT = ("validations", "stacked")  # how often one looks changes nothing

VARIANT = "form of the loss"

CHOSEN = "chosen on validation"

COLUMNS = (
    "axis",
    "dataset",
    "data_label",
    "loss",
    "loss_label",
    "family",
    "metric",
    "setting",
    "recipe",
    "usual",
    "chosen",
    "n",
    "mean",
    "estimate",
    "low",
    "high",
    "n_pairs",
    "ce_estimate",
    "ce_low",
    "ce_high",
    "ce_pairs",
)


def usual_recipes(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> dict[str, str]:
    """Return the recipe under which each data set was trained most; of several, the one nearest to the
    commonest of all.
    """
    facts = recipes.set_index("recipe").to_dict("index") if recipes is not None and len(recipes) else {}
    counts = cells.groupby(["dataset", "recipe"], observed=True).size()
    if not len(counts):
        return {}
    first = cells["recipe"].value_counts().sort_index().idxmax()
    return {
        dataset: min(
            own.index, key=lambda r: (-own[r], len(_differing(facts.get(first, {}), facts.get(r, {}))), r)
        )
        for dataset, own in ((d, part.droplevel(0)) for d, part in counts.groupby(level=0, observed=True))
    }


def sensitivity(
    cells: pd.DataFrame, recipes: pd.DataFrame | None, against: str = "ce", metrics: Iterable[str] = METRICS
) -> pd.DataFrame:
    """Return one row a (axis, data set, loss, setting, metric).

    ``mean`` over seeds; ``estimate`` [``low``, ``high``]: what the setting changes against the usual one, the
    same seed with itself (equal start and data; equal batches only where batch size and steps are equal);
    ``ce_estimate``...: the paired effect against ``against`` under the same setting. ``chosen`` marks the
    learning rate that the loss's own validation score prefers; the row ``CHOSEN`` compares both losses, each
    at its own.
    """
    if recipes is None or not len(recipes) or not len(cells):
        return pd.DataFrame(columns=list(COLUMNS))
    facts = recipes.set_index("recipe").to_dict("index")
    rows: list[dict] = []
    for dataset, usual in usual_recipes(cells, recipes).items():
        own = cells[cells["dataset"] == dataset]
        axes: dict[str, list[str]] = {}
        for recipe in sorted(own["recipe"].unique()):
            keys = _differing(facts[usual], facts[recipe])
            if recipe != usual and keys:
                axes.setdefault(_axis(keys), []).append(recipe)
        for axis, others in axes.items():
            keys = sorted({key for recipe in others for key in _differing(facts[usual], facts[recipe])})
            settings = {
                recipe: ", ".join(_told(key, facts[recipe][key]) for key in keys)
                for recipe in (usual, *others)
            }
            rows += _axis_rows(own, axis, usual, settings, facts, against, metrics)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)) if rows else pd.DataFrame(columns=list(COLUMNS))


def variants(effects: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return rows of the same columns for the parts that compare forms of one loss with each other, from
    their paired effects.
    """
    rows = [
        {
            **{
                name: row[name]
                for name in (
                    "dataset",
                    "recipe",
                    "loss",
                    "loss_label",
                    "family",
                    "metric",
                    "estimate",
                    "low",
                    "high",
                )
            },
            "axis": VARIANT,
            "data_label": labels[row["dataset"], row["recipe"]],
            "setting": f"against {row['against']}",
            "usual": False,
            "chosen": False,
            "n_pairs": row["n_blocks"],
        }
        for row in effects.to_dict("records")
        if row["metric"] in METRICS and row["against"] != "ce"
    ]
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)) if rows else pd.DataFrame(columns=list(COLUMNS))


def _axis_rows(
    own: pd.DataFrame,
    axis: str,
    usual: str,
    settings: dict[str, str],
    facts: dict,
    against: str,
    metrics: Iterable[str],
) -> list[dict]:
    order = sorted(
        settings,
        key=lambda r: tuple(_rank(facts[r].get(k)) for k in ("optimizer", "learning_rate", "steps", "batch")),
    )
    reference = select_loss(own, against)
    reference = reference["loss"].iloc[0] if len(reference) else None
    varied = set(own.loc[own["recipe"].isin([r for r in settings if r != usual]), "loss"])
    picks = (
        {loss: _preferred(own[own["loss"] == loss], order) for loss in varied}
        if axis == "learning rate"
        else {}
    )
    rows = []
    for metric in (m for m in metrics if m in own):
        scores = {
            key: part.set_index("seed")[metric].astype(float)
            for key, part in own.groupby(["loss", "recipe"], observed=True)
        }
        for loss in sorted(varied):
            told = own[own["loss"] == loss].iloc[0]
            base = {
                "axis": axis,
                **{c: told[c] for c in ("dataset", "loss", "loss_label", "family")},
                "metric": metric,
            }
            # The label of the data set carries the difference of a recipe, which here has a column of its
            # own.
            base["data_label"] = min(own.loc[own["loss"] == loss, "data_label"].unique(), key=len)
            present = [r for r in order if (loss, r) in scores]
            for recipe in present:
                here, mark = scores[loss, recipe], recipe == picks.get(loss)
                row = {
                    **base,
                    "setting": settings[recipe],
                    "recipe": recipe,
                    "usual": recipe == usual,
                    "chosen": mark,
                }
                row |= {"n": len(here), "mean": here.mean()} | _change(
                    here, scores.get((loss, usual)) if recipe != usual else None, ""
                )
                rows.append(
                    row | _change(here, scores.get((reference, recipe)) if loss != reference else None, "ce_")
                )
            if picks.get(loss):
                here, theirs = scores[loss, picks[loss]], picks.get(reference)
                row = {
                    **base,
                    "setting": CHOSEN,
                    "recipe": picks[loss],
                    "usual": False,
                    "chosen": False,
                    "n": len(here),
                    "mean": here.mean(),
                }
                row |= _change(here, scores.get((loss, usual)) if picks[loss] != usual else None, "")
                rows.append(
                    row | _change(here, scores.get((reference, theirs)) if loss != reference else None, "ce_")
                )
    return rows


def _preferred(own: pd.DataFrame, order: list[str]) -> str | None:
    """Return the recipe whose cells score best on validation images, over the seeds that all of them hold."""
    if CHOICE not in own:
        return None
    wide = (
        own[own["recipe"].isin(order)]
        .pivot_table(index="seed", columns="recipe", values=CHOICE, observed=True)
        .dropna()
    )
    return None if not len(wide) or wide.shape[1] < 2 else wide.mean().idxmax()


def _change(here: pd.Series, there: pd.Series | None, prefix: str) -> dict:
    if there is None:
        return {}
    d = (here - there).dropna().to_numpy(float)
    if not len(d):
        return {}
    found = stats.estimate([d], [1.0])
    low, high = found.interval()
    return {
        f"{prefix}estimate": found.value,
        f"{prefix}low": low,
        f"{prefix}high": high,
        f"{prefix or 'n_'}pairs": len(d),
    }


def _differing(one: Mapping, other: Mapping) -> list[str]:
    return [key for key in one if key not in SILENT and _plain(one[key]) != _plain(other.get(key))]


def _plain(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


def _axis(keys: list[str]) -> str:
    return next((name for key, name in AXES.items() if key in keys), ", ".join(keys))


def _told(key: str, value: object) -> str:
    number = f"{value:g}" if isinstance(value, int | float | np.number) else _plain(value)
    return {"learning_rate": f"rate {number}", "steps": f"{number} steps", "batch": f"batch {number}"}.get(
        key, number
    )


def _rank(value: object) -> tuple:
    return (0, float(value), "") if isinstance(value, int | float | np.number) else (1, 0.0, _plain(value))
