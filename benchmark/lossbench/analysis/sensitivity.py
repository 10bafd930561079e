"""How much a result depends on what was held fixed: learning rate, optimiser, training length, batch size,
and the form of the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.flips import flips
from lossbench.analysis.selection import select_loss

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

COLUMNS = [
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
]
COLUMNS += ["chosen", "n", "mean", "estimate", "low", "high", "n_pairs"]
COLUMNS += ["ce_estimate", "ce_low", "ce_high", "ce_pairs"]


def usual_recipes(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> dict[str, str]:
    """Return the recipe under which each data set was trained most; of several, the one nearest to the
    commonest of all but for its length, and of these the longest training.
    """
    facts = recipes.set_index("recipe").to_dict("index") if recipes is not None and len(recipes) else {}
    counts = cells.groupby(["dataset", "recipe"], observed=True).size()
    if not len(counts):
        return {}
    steps = {name: _steps(fact) for name, fact in facts.items()}
    every = cells["recipe"].value_counts()
    # The name last: of recipes that are equal in all else always the same one.
    first = min(every.index, key=lambda name: (-every[name], -steps.get(name, 0), name))
    usual = {}
    for dataset, own in counts.groupby(level=0, observed=True):
        own = own.droplevel(0)
        changed = {name: differing(facts.get(first, {}), facts.get(name, {})) for name in own.index}
        distance = {name: len([key for key in keys if key != "steps"]) for name, keys in changed.items()}
        # All lengths of a cell are trained together, so their counts are equal more often than not.
        usual[dataset] = min(
            own.index, key=lambda name, n=own, d=distance: (-n[name], d[name], -steps.get(name, 0), name)
        )
    return usual


def _steps(recipe: Mapping) -> float:
    value = recipe.get("steps")
    return float(value) if isinstance(value, int | float | np.number) else 0.0


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
        return pd.DataFrame(columns=COLUMNS)
    facts = recipes.set_index("recipe").to_dict("index")
    rows: list[dict] = []
    for dataset, usual in usual_recipes(cells, recipes).items():
        own = cells[cells["dataset"] == dataset]
        axes: dict[str, list[str]] = {}
        for recipe in sorted(own["recipe"].unique()):
            keys = differing(facts[usual], facts[recipe])
            if recipe != usual and keys:
                axes.setdefault(_axis(keys), []).append(recipe)
        for axis, others in axes.items():
            keys = sorted({key for recipe in others for key in differing(facts[usual], facts[recipe])})
            settings = {}
            for recipe in sorted([usual, *others], key=lambda name: _order(facts[name])):
                settings[recipe] = ", ".join(_said(key, facts[recipe][key]) for key in keys)
            rows += _axis_rows(own, axis, usual, settings, against, metrics)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def variants(effects: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return rows of the same columns for the parts that compare forms of one loss with each other, from
    their paired effects.
    """
    # Parts with CE are compared with it elsewhere; the others compare forms of one loss.
    own = effects[effects["metric"].isin(METRICS) & (effects["against"] != "ce")]
    return own.assign(
        axis=VARIANT,
        data_label=[labels[key] for key in zip(own["dataset"], own["recipe"], strict=True)],
        setting="against " + own["against"].astype(str),
        usual=False,
        chosen=False,
        n_pairs=own["n_seeds"],
    ).reindex(columns=COLUMNS)


def _axis_rows(
    own: pd.DataFrame,
    axis: str,
    usual: str,
    settings: dict[str, str],
    against: str,
    metrics: Iterable[str],
) -> list[dict]:
    reference = select_loss(own, against)
    reference = reference["loss"].iloc[0] if len(reference) else None
    varied = set(own.loc[own["recipe"].isin([name for name in settings if name != usual]), "loss"])
    preferred = {}
    if axis == "learning rate":
        preferred = {loss: _preferred(own[own["loss"] == loss], list(settings)) for loss in varied}
    rows = []
    for metric in (m for m in metrics if m in own):
        scores = {
            key: part.set_index("seed")[metric].astype(float)
            for key, part in own.groupby(["loss", "recipe"], observed=True)
        }
        for loss in sorted(varied):
            first = own[own["loss"] == loss].iloc[0]
            base = {"axis": axis, "metric": metric, "usual": False, "chosen": False}
            base |= {name: first[name] for name in ("dataset", "loss", "loss_label", "family")}
            # The label of a data set carries the difference of its recipe, which here has its own column.
            base["data_label"] = min(own.loc[own["loss"] == loss, "data_label"].unique(), key=len)
            pick = preferred.get(loss)
            compared = [(recipe, settings[recipe], recipe) for recipe in settings if (loss, recipe) in scores]
            if pick:
                compared.append((pick, CHOSEN, preferred.get(reference)))
            for recipe, setting, theirs in compared:
                here = scores[loss, recipe]
                row = {**base, "setting": setting, "recipe": recipe, "n": len(here), "mean": here.mean()}
                if setting != CHOSEN:
                    row |= {"usual": recipe == usual, "chosen": recipe == pick}
                row |= _change(here, scores.get((loss, usual)) if recipe != usual else None, "")
                row |= _change(here, scores.get((reference, theirs)) if loss != reference else None, "ce_")
                rows.append(row)
    return rows


def _preferred(own: pd.DataFrame, settings: list[str]) -> str | None:
    """Return the recipe whose cells score best on validation images, over the seeds that all of them hold."""
    if CHOICE not in own:
        return None
    there = own[own["recipe"].isin(settings)]
    wide = there.pivot_table(index="seed", columns="recipe", values=CHOICE, observed=True).dropna()
    # One rate is no choice.
    return None if not len(wide) or wide.shape[1] < 2 else wide.mean().idxmax()


def _change(here: pd.Series, there: pd.Series | None, prefix: str) -> dict:
    if there is None:
        return {}
    d = (here - there).dropna().to_numpy(float)
    if not len(d):
        return {}
    found = flips(d)
    low, high = found.interval()
    names = (f"{prefix}estimate", f"{prefix}low", f"{prefix}high", f"{prefix or 'n_'}pairs")
    return dict(zip(names, (found.estimate, low, high, len(d)), strict=True))


def differing(one: Mapping, other: Mapping) -> list[str]:
    """Return the fields in which two recipes differ, but for those that change nothing."""
    return [key for key in one if key not in SILENT and _plain(one[key]) != _plain(other.get(key))]


def _plain(value: object) -> str:
    # Of tables that were read from a file nan is what None was before.
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


def _axis(keys: list[str]) -> str:
    return next((name for key, name in AXES.items() if key in keys), ", ".join(keys))


def _said(key: str, value: object) -> str:
    number = f"{value:g}" if isinstance(value, int | float | np.number) else _plain(value)
    words = {"learning_rate": f"rate {number}", "steps": f"{number} steps", "batch": f"batch {number}"}
    return words.get(key, number)


def _order(recipe: Mapping) -> tuple:
    return tuple(_rank(recipe.get(key)) for key in AXES)


def _rank(value: object) -> tuple:
    return (0, float(value), "") if isinstance(value, int | float | np.number) else (1, 0.0, _plain(value))
