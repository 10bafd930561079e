"""Leaderboards that mark ties: which losses may be the best of those compared, given how little a few seeds can
tell.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.analysis import stats
from benchmark.analysis.effects import CERTIFICATE

LOWER_IS_BETTER = ("hd", "hd95", "assd", "masd", "nll", "ece", "ece_fg", "ece_adaptive", "brier", "missed", "fp_rate", "fp_area", "collapsed",
                   "size_error_hard", "size_error_soft")  # fmt: skip


def lower_is_better(metric: str) -> bool:
    """Return whether a smaller value of this column means a better segmentation."""
    return metric.split("@")[0] in LOWER_IS_BETTER


def leaderboard(cells: pd.DataFrame, metric: str = "dice@0.5", level: float = 0.95) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss): mean over seeds with its t interval, place, and whether it may be the
    best.

    ``best`` marks the losses that are not shown to be worse than any other on the same blocks: each is compared with
    every other by a one-sided paired t test at (1 - level) / (losses - 1), so the true best is among the marked ones
    with probability >= level (subset selection, Gupta 1965; Hsu 1981). With few seeds nearly all are marked, which is
    what few seeds can tell. Being marked depends on the losses compared; the paired effects against CE do not. Cells
    whose certificate differs from the block's are never compared.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        wide = part.pivot(index="block", columns="loss", values=metric).astype(float)
        facts = part.drop_duplicates("loss").set_index("loss")
        collapsed = part[part["outcome"] == "collapsed"].groupby("loss", observed=True).size()
        marked = possibly_best(-wide if lower_is_better(metric) else wide, _same_start(part), level)
        board = []
        for loss in wide.columns:
            scores = wide[loss].dropna().to_numpy()
            if not len(scores):
                continue
            low, high = stats.estimate([scores], [1.0]).interval()
            board.append(
                {
                    "dataset": dataset,
                    "recipe": recipe,
                    "metric": metric,
                    "loss": loss,
                    "loss_label": facts.loc[loss, "loss_label"],
                    "family": facts.loc[loss, "family"],
                    "mean": scores.mean(),
                    "low": low,
                    "high": high,
                    "sd": scores.std(ddof=1) if len(scores) > 1 else np.nan,
                    "n": len(scores),
                    "collapsed": int(collapsed.get(loss, 0)),
                    "best": loss in marked,
                }
            )
        board.sort(key=lambda row: (row["mean"] if lower_is_better(metric) else -row["mean"], row["loss"]))
        rows += [{**row, "place": place} for place, row in enumerate(board, 1)]
    names = [
        "dataset",
        "recipe",
        "metric",
        "place",
        "loss",
        "loss_label",
        "family",
        "mean",
        "low",
        "high",
        "sd",
        "n",
        "collapsed",
        "best",
    ]
    return pd.DataFrame(rows).reindex(columns=names)


def possibly_best(scores: pd.DataFrame, comparable: pd.DataFrame | None = None, level: float = 0.95) -> set:
    """Return the columns (losses) of a block x loss table, larger is better, that no other column is shown to beat.

    ``comparable`` is a boolean table of the same shape: pairs are formed only where both cells hold True.
    """
    losses = list(scores.columns)
    if len(losses) < 2:
        return set(losses)
    held = scores if comparable is None else scores.where(comparable)
    values = held.to_numpy(float)
    alpha = (1 - level) / (len(losses) - 1)
    marked = set()
    for i, loss in enumerate(losses):
        behind = values - values[:, [i]]  # how far each other loss is ahead of this one, block by block
        beaten = False
        for j in range(len(losses)):
            ahead = behind[~np.isnan(behind[:, j]), j]
            if i == j or len(ahead) < 2:
                continue
            found = stats.estimate([ahead], [1.0])
            # Half of the two-sided p-value is the one-sided one when the other loss is ahead.
            beaten |= found.value > 0 and stats.t_test(found) / 2 < alpha
        if not beaten:
            marked.add(loss)
    return marked


def _same_start(part: pd.DataFrame) -> pd.DataFrame:
    """Return a block x loss table: does the cell hold the certificate that most cells of its block hold?"""
    proof = part[list(CERTIFICATE)].astype(str).agg("/".join, axis=1)
    usual = proof.groupby(part["block"]).transform(lambda p: p.mode().iloc[0])
    return part.assign(same=proof == usual).pivot(index="block", columns="loss", values="same").fillna(False).astype(bool)


def collapses(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that collapsed at least once: how often, of how many, and in which
    way.
    """
    rows = []
    for (dataset, recipe, loss), part in cells.groupby(["dataset", "recipe", "loss"], sort=True, observed=True):
        bad = part[part["outcome"] == "collapsed"]
        if len(bad):
            kinds = bad["collapse"].value_counts()
            rows.append(
                {
                    "dataset": dataset,
                    "recipe": recipe,
                    "loss": loss,
                    "loss_label": part["loss_label"].iloc[0],
                    "family": part["family"].iloc[0],
                    "collapsed": len(bad),
                    "n": len(part),
                    "share": len(bad) / len(part),
                    **{kind: int(kinds.get(kind, 0)) for kind in ("background", "foreground", "not_finite")},
                    "seeds": ", ".join(str(s) for s in sorted(bad["seed"])),
                }
            )
    names = [
        "dataset",
        "recipe",
        "loss",
        "loss_label",
        "family",
        "collapsed",
        "n",
        "share",
        "background",
        "foreground",
        "not_finite",
        "seeds",
    ]
    return pd.DataFrame(rows).reindex(columns=names)


def missing_blocks(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that lacks blocks which another loss of the same data set and recipe
    has.
    """
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        blocks = part.drop_duplicates("block").set_index("block")["seed"]
        for loss, own in part.groupby("loss", observed=True):
            lacking = blocks.drop(own["block"].unique())
            if len(lacking):
                rows.append(
                    {
                        "dataset": dataset,
                        "recipe": recipe,
                        "loss": loss,
                        "loss_label": own["loss_label"].iloc[0],
                        "missing": len(lacking),
                        "of": len(blocks),
                        "seeds": ", ".join(str(s) for s in sorted(lacking)),
                    }
                )
    return pd.DataFrame(rows).reindex(columns=["dataset", "recipe", "loss", "loss_label", "missing", "of", "seeds"])
