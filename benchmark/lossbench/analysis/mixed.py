"""Mixed models beside the paired contrasts: does a loss's lead over the reference grow with rarity, does it
grow with small objects?

    score ~ loss x log10 foreground + (1 | block)              the slope of each loss's lead, over a ladder of
    scenes Dice of a fifth ~ loss x fifth + (1 | block) + (1 | cell)  the leads on each fifth of object sizes

A block (data set and seed) is the random effect that pairing removes; a cell's own keeps its five fifths from
counting as five trainings. Fitted by restricted maximum likelihood (statsmodels). They assume one spread for
all data sets, which the contrasts do not, so they stand beside."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from lossbench.analysis.rankings import parts_of
from lossbench.analysis.selection import FOREGROUND, numbers, select_loss

COLUMNS = [
    "part",
    "model",
    "metric",
    "loss",
    "loss_label",
    "against",
    "term",
    "estimate",
    "se",
    "low",
    "high",
    "p",
    "n",
    "n_blocks",
    "note",
]

FIFTHS = [f"q{q}" for q in range(1, 6)]

MOST = 12  # losses in one model of sizes: beyond, its cell effects take minutes


def mixed(cells: pd.DataFrame, metric: str = "dice@0.5", against: str = "ce") -> pd.DataFrame:
    """Return one row a (part, model, loss, term): how much the loss's difference to ``against`` changes per
    unit of the term.

    term "log10 foreground": per tenfold foreground; "q1" ... "q4": on that fifth of sizes, compared with the
    largest fifth. A model that cannot be fitted, or is not to be trusted, has one row whose ``note`` says
    why; it never raises."""
    rows: list[dict[str, Any]] = []
    for name, part in parts_of(cells):
        reference = select_loss(part, against)
        if (
            not len(reference)
            or part["loss"].nunique() < 2
            or part.groupby("dataset", observed=True)["recipe"].nunique().max() > 1
        ):
            continue
        facts = {"part": name, "metric": metric, "against": reference["loss"].iloc[0]}
        for model, table in (("foreground", _ladder(part, metric)), ("size", _sizes(part, metric))):
            if table is not None:
                rows += [{**facts, "model": model, **row} for row in _fit(table, facts["against"], model)]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _ladder(part: pd.DataFrame, metric: str) -> pd.DataFrame | None:
    if metric not in part or FOREGROUND not in part:
        return None
    dose = np.log10(numbers(part, FOREGROUND).where(lambda f: f > 0))
    table = (
        part[["loss", "loss_label", "block"]]
        .assign(score=part[metric].astype(float), x=dose - dose.mean())
        .dropna()
    )
    return table if table["x"].nunique() > 2 else None


def _sizes(part: pd.DataFrame, metric: str) -> pd.DataFrame | None:
    name, _, arm = metric.partition("@")
    columns = {f"{name}_{fifth}@{arm}": fifth for fifth in FIFTHS}
    if not set(columns) <= set(part) or part["loss"].nunique() > MOST:
        return None
    wide = part[["loss", "loss_label", "block", *columns]].rename(columns=columns).dropna()
    table = wide.melt(["loss", "loss_label", "block"], FIFTHS, "x", "score")
    return table.astype({"score": float}) if len(table) else None


def _fit(table: pd.DataFrame, reference: str, model: str) -> list[dict[str, Any]]:
    """Return the interactions of loss and x, or one row with a note."""
    blocks = table["block"].nunique()
    size = {"n": len(table), "n_blocks": blocks}
    if blocks < 5 or reference not in set(table["loss"]):
        return [
            {
                **size,
                "note": f"not fitted: {blocks} blocks are too few"
                if blocks < 5
                else "not fitted: the reference lacks",
            }
        ]
    names = {
        loss: f"L{place}" for place, loss in enumerate([reference, *sorted(set(table["loss"]) - {reference})])
    }
    labels = dict(zip(table["loss"], table["loss_label"], strict=True))
    table = table.assign(kind=table["loss"].map(names))
    x = "x" if model == "foreground" else f"C(x, Treatment('{FIFTHS[-1]}'))"
    try:
        found, note = _estimate(
            table,
            f"score ~ C(kind, Treatment('L0')) * {x}",
            {"cell": "0 + C(kind)"} if model == "size" else None,
        )
    except (ValueError, np.linalg.LinAlgError, ZeroDivisionError) as error:
        return [
            {
                **size,
                "note": f"not fitted: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            }
        ]
    rows = []
    for loss, short in names.items():
        for term in found.index:
            if f"[T.{short}]:" not in term:
                continue
            told = "log10 foreground" if model == "foreground" else term.split("[T.")[-1].rstrip("]")
            rows.append(
                {
                    "loss": loss,
                    "loss_label": labels[loss],
                    "term": told,
                    **found.loc[term].to_dict(),
                    **size,
                    "note": note,
                }
            )
    return rows


def _estimate(
    table: pd.DataFrame, formula: str, components: dict[str, str] | None
) -> tuple[pd.DataFrame, str]:
    """Return estimate, se, low, high, p of each fixed effect, and what was said on the way."""
    from statsmodels.regression.linear_model import OLS
    from statsmodels.regression.mixed_linear_model import MixedLM

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = MixedLM.from_formula(
                formula, table, groups="block", re_formula="1", vc_formula=components
            )
            found = model.fit(reml=True, method=["lbfgs", "powell"])
        except (
            np.linalg.LinAlgError
        ):  # where no variance of the blocks can be told from zero, the model is that of least squares
            return _numbers(
                OLS.from_formula(formula, table).fit()
            ), "the blocks' own variance cannot be told from zero: least squares"
    said = {str(w.message) for w in caught}
    if not found.converged:
        return _numbers(found), "did not converge"
    if any("singular" in text or "boundary" in text for text in said):
        return _numbers(found), "a random effect is estimated as zero"
    return _numbers(found), ""


def _numbers(found: Any) -> pd.DataFrame:
    interval = found.conf_int()
    return pd.DataFrame(
        {
            "estimate": found.params,
            "se": found.bse,
            "low": interval[0],
            "high": interval[1],
            "p": found.pvalues,
        }
    )
