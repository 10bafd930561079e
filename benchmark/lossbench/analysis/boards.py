"""Leaderboards that mark ties: which losses may be the best, given how little a few seeds can tell; and which
collapsed, and which blocks are missing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from lossbench.analysis import decisions
from lossbench.analysis.decisions import Looks
from lossbench.analysis.resampling import ByGroup
from lossbench.base import columns as known

BOARD = ("dataset", "recipe", "metric", "place", "loss", "loss_label", "family")

SCORE = ("mean", "low", "high", "sd", "n", "collapsed", "best")

COLLAPSES = ("dataset", "recipe", "loss", "loss_label", "family", "collapsed", "n", "share")

KINDS = ("background", "foreground", "not_finite")

MISSING = ("dataset", "recipe", "loss", "loss_label", "missing", "of", "seeds")


def leaderboard(
    cells: pd.DataFrame,
    metric: str = "dice@0.5",
    by_group: ByGroup | None = None,
    looks: Looks = (),
) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss): mean over seeds, its t interval, place, may it be the best?

    ``best`` marks the losses that no other is shown to beat (``decisions``). With few seeds all are marked,
    which is what few seeds can tell."""
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        # Marks and verdicts come from one contest: this board cannot disagree with the table of effects.
        contest = decisions.contest(part, metric, by_group, looks)
        found, marked = contest.blocks, contest.best()
        facts = part.drop_duplicates("loss").set_index("loss")
        collapsed = part[part["outcome"] == "collapsed"].groupby("loss", observed=True).size()
        board = []
        for place, loss in enumerate(found.arms):
            scores = found.values[0, :, place, 0]
            scores = scores[~np.isnan(scores)]
            # A loss whose cells have no value of this score has no row.
            if len(scores):
                names = {"dataset": dataset, "recipe": recipe, "metric": metric, "loss": loss}
                names |= {name: facts.loc[loss, name] for name in ("loss_label", "family")}
                own = {**score(scores, metric), "collapsed": int(collapsed.get(loss, 0))}
                board.append({**names, **own, "best": loss in marked})
        sign = 1 if known.lower_is_better(metric) else -1
        # Equal means go by name, so that the order of the records never shows.
        board.sort(key=lambda row, sign=sign: (sign * row["mean"], row["loss"]))
        rows += [{**row, "place": place} for place, row in enumerate(board, 1)]
    return pd.DataFrame(rows).reindex(columns=[*BOARD, *SCORE])


def score(values: np.ndarray, metric: str = "") -> dict[str, float]:
    """Return mean, 95 % t interval and spread over seeds of the scores of one loss.

    It describes how one loss scatters; losses are compared by their paired differences, never by these. Of a
    score between 0 and 1 the interval stays between 0 and 1."""
    # The spread of one training has no estimate, so one seed has no interval.
    n = len(values)
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if n > 1 else float("nan")
    half = float(stdtrit(n - 1, 0.975)) * sd / np.sqrt(n) if n > 1 else float("nan")
    low, high = mean - half, mean + half
    # A t interval knows nothing of the ends of a score.
    if known.describe(metric).format == known.POINTS:
        # Also a mean that is itself outside 0 and 1, as of a difference of scores, lies in its interval.
        low, high = max(low, min(0.0, mean)), min(high, max(1.0, mean))
    return {"mean": mean, "low": low, "high": high, "sd": sd, "n": n}


def collapses(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) that collapsed at least once: how often and in which way."""
    rows = []
    for names, part in cells.groupby(["dataset", "recipe", "loss"], sort=True, observed=True):
        bad = part[part["outcome"] == "collapsed"]
        if not len(bad):
            continue
        # How it collapsed matters: all background, all foreground, or not finite.
        kinds = bad["collapse"].value_counts()
        row = dict(zip(("dataset", "recipe", "loss"), names, strict=True))
        row |= {name: part[name].iloc[0] for name in ("loss_label", "family")}
        row |= {"collapsed": len(bad), "n": len(part), "share": len(bad) / len(part)}
        row |= {kind: int(kinds.get(kind, 0)) for kind in KINDS}
        rows.append({**row, "seeds": ", ".join(str(seed) for seed in sorted(bad["seed"]))})
    return pd.DataFrame(rows).reindex(columns=[*COLLAPSES, *KINDS, "seeds"])


def missing_blocks(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (data set, recipe, loss) without blocks that another loss of the same has."""
    rows = []
    for (dataset, recipe), part in cells.groupby(["dataset", "recipe"], sort=True, observed=True):
        # What another loss has is what was planned, as far as records say: no experiment file is read here.
        blocks = part.drop_duplicates("block").set_index("block")["seed"]
        for loss, own in part.groupby("loss", observed=True):
            absent = blocks.drop(own["block"].unique())
            if len(absent):
                row = {
                    "dataset": dataset,
                    "recipe": recipe,
                    "loss": loss,
                    "loss_label": own["loss_label"].iloc[0],
                }
                row |= {"missing": len(absent), "of": len(blocks)}
                rows.append({**row, "seeds": ", ".join(str(seed) for seed in sorted(absent))})
    return pd.DataFrame(rows).reindex(columns=list(MISSING))
