"""How much a result depends on what was held fixed: learning rate, optimiser, training length, batch size, and the form of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from benchmark.analysis import stats
from benchmark.analysis.effects import select_loss

METRICS = ("dice@0.5", "dice@val")
CHOICE = "val_dice@0.5"  # what the validation images say about a learning rate
# What a difference in these keys of a recipe is called, the first that differs; other keys are called by their own name.
AXES = {"optimizer": "optimiser", "learning_rate": "learning rate", "steps": "training length", "batch": "batch size"}
SILENT = ("validations", "stacked")  # how often one looks changes nothing
VARIANT = "form of the loss"
CHOSEN = "chosen on validation"
COLUMNS = (
    "axis", "dataset", "data_label", "loss", "loss_label", "family", "metric", "setting", "recipe", "usual", "chosen", "n", "mean",
    "estimate", "low", "high", "n_pairs", "ce_estimate", "ce_low", "ce_high", "ce_pairs",
)  # fmt: skip


def usual_recipes(cells: pd.DataFrame, recipes: pd.DataFrame | None = None) -> dict[str, str]:
    """Return the recipe under which each data set was trained most; of several, the one nearest to the commonest of all."""
    facts = recipes.set_index("recipe").to_dict("index") if recipes is not None and len(recipes) else {}
    counts = cells.groupby(["dataset", "recipe"], observed=True).size()
    if not len(counts):
        return {}
    first = cells["recipe"].value_counts().sort_index().idxmax()
    return {
        dataset: min(own.index, key=lambda r: (-own[r], len(_differing(facts.get(first, {}), facts.get(r, {}))), r))
        for dataset, own in ((d, part.droplevel(0)) for d, part in counts.groupby(level=0, observed=True))
    }


def sensitivity(cells: pd.DataFrame, recipes: pd.DataFrame | None, against: str = "ce", metrics: Iterable[str] = METRICS) -> pd.DataFrame:
    """Return one row a (axis, data set, loss, setting, metric).

    ``mean`` over seeds; ``estimate`` [``low``, ``high``]: what the setting changes against the usual one, the same seed with itself (equal
    start and data; equal batches only where batch size and steps are equal); ``ce_estimate``...: the paired effect against ``against``
    under the same setting. ``chosen`` marks the learning rate that the loss's own validation score prefers; the row ``CHOSEN`` compares
    both losses, each at its own.
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
            settings = {recipe: ", ".join(_told(key, facts[recipe][key]) for key in keys) for recipe in (usual, *others)}
            rows += _axis_rows(own, axis, usual, settings, facts, against, metrics)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)) if rows else pd.DataFrame(columns=list(COLUMNS))


def variants(effects: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return rows of the same columns for the parts that compare forms of one loss with each other, from their paired effects."""
    rows = [
        {
            **{name: row[name] for name in ("dataset", "recipe", "loss", "loss_label", "family", "metric", "estimate", "low", "high")},
            "axis": VARIANT, "data_label": labels[row["dataset"], row["recipe"]], "setting": f"against {row['against']}", "usual": False,
            "chosen": False, "n_pairs": row["n_blocks"],
        }
        for row in effects.to_dict("records") if row["metric"] in METRICS and row["against"] != "ce"
    ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)) if rows else pd.DataFrame(columns=list(COLUMNS))


def _axis_rows(
    own: pd.DataFrame, axis: str, usual: str, settings: dict[str, str], facts: dict, against: str, metrics: Iterable[str]
) -> list[dict]:
    order = sorted(settings, key=lambda r: tuple(_rank(facts[r].get(k)) for k in ("optimizer", "learning_rate", "steps", "batch")))
    reference = select_loss(own, against)
    reference = reference["loss"].iloc[0] if len(reference) else None
    varied = set(own.loc[own["recipe"].isin([r for r in settings if r != usual]), "loss"])
    picks = {loss: _preferred(own[own["loss"] == loss], order) for loss in varied} if axis == "learning rate" else {}
    rows = []
    for metric in (m for m in metrics if m in own):
        scores = {key: part.set_index("seed")[metric].astype(float) for key, part in own.groupby(["loss", "recipe"], observed=True)}
        for loss in sorted(varied):
            told = own[own["loss"] == loss].iloc[0]
            base = {"axis": axis, **{c: told[c] for c in ("dataset", "loss", "loss_label", "family")}, "metric": metric}
            # The label of the data set carries the difference of a recipe, which here has a column of its own.
            base["data_label"] = min(own.loc[own["loss"] == loss, "data_label"].unique(), key=len)
            present = [r for r in order if (loss, r) in scores]
            for recipe in present:
                here, mark = scores[loss, recipe], recipe == picks.get(loss)
                row = {**base, "setting": settings[recipe], "recipe": recipe, "usual": recipe == usual, "chosen": mark}
                row |= {"n": len(here), "mean": here.mean()} | _change(here, scores.get((loss, usual)) if recipe != usual else None, "")
                rows.append(row | _change(here, scores.get((reference, recipe)) if loss != reference else None, "ce_"))
            if picks.get(loss):
                here, theirs = scores[loss, picks[loss]], picks.get(reference)
                row = {**base, "setting": CHOSEN, "recipe": picks[loss], "usual": False, "chosen": False, "n": len(here), "mean": here.mean()}
                row |= _change(here, scores.get((loss, usual)) if picks[loss] != usual else None, "")
                rows.append(row | _change(here, scores.get((reference, theirs)) if loss != reference else None, "ce_"))
    return rows


def _preferred(own: pd.DataFrame, order: list[str]) -> str | None:
    """Return the recipe whose cells score best on validation images, over the seeds that all of them hold."""
    if CHOICE not in own:
        return None
    wide = own[own["recipe"].isin(order)].pivot_table(index="seed", columns="recipe", values=CHOICE, observed=True).dropna()
    return None if not len(wide) or wide.shape[1] < 2 else wide.mean().idxmax()


def _change(here: pd.Series, there: pd.Series | None, prefix: str) -> dict:
    if there is None:
        return {}
    d = (here - there).dropna().to_numpy(float)
    if not len(d):
        return {}
    found = stats.estimate([d], [1.0])
    low, high = found.interval()
    return {f"{prefix}estimate": found.value, f"{prefix}low": low, f"{prefix}high": high, f"{prefix or 'n_'}pairs": len(d)}


def _differing(one: Mapping, other: Mapping) -> list[str]:
    return [key for key in one if key not in SILENT and _plain(one[key]) != _plain(other.get(key))]


def _plain(value: object) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


def _axis(keys: list[str]) -> str:
    return next((name for key, name in AXES.items() if key in keys), ", ".join(keys))


def _told(key: str, value: object) -> str:
    number = f"{value:g}" if isinstance(value, int | float | np.number) else _plain(value)
    return {"learning_rate": f"rate {number}", "steps": f"{number} steps", "batch": f"batch {number}"}.get(key, number)


def _rank(value: object) -> tuple:
    return (0, float(value), "") if isinstance(value, int | float | np.number) else (1, 0.0, _plain(value))
