"""What the course of one training says: when it had learnt, and how noisy its loss and its gradients are.

Worked out when a cell ends, for noise is that of single steps, of which a record keeps means only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.stats import rankdata

NAN = float("nan")
NAMES = ("steps_to_half", "loss_noise", "loss_tracks_dice", "grad_noise", "log_loss_noise", "log_grad_noise")

WINDOW = 21  # steps of the running median and mean; the curve is mirrored at its ends
FIRST, LAST = 5, 20  # steps between whose mean losses a training loss is said to fall
FEWEST = 5  # validated steps in the second half that a rank correlation needs
HALF = 0.5  # validation Dice that counts as having learnt


def summary(steps: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return what the course of one training says; ``steps`` holds a value a step, ``curves`` one a
    validated step.

    - ``steps_to_half``: the first validated step with val_dice >= .5; where there is none, one more than the
      last;
    - ``loss_noise``: standard deviation of the training loss about its running median, over the second half,
      divided by its fall (mean of the first 5 minus mean of the last 20 losses);
    - ``loss_tracks_dice``: abs(Spearman) of the running mean of the training loss and val_dice, over the
      validated steps of the second half;
    - ``grad_noise``: standard deviation of the log gradient norm about its running median, over the second
      half;
    - ``log_loss_noise``, ``log_grad_noise``: natural logarithms of both noises.
    """
    # A cell without curves, or with values that are not finite, has nan in every column that needs them.
    loss, norm = _numbers(steps.get("train_loss")), _numbers(steps.get("grad_norm"))
    at, dice = _numbers(curves.get("step")), _numbers(curves.get("val_dice"))
    with np.errstate(divide="ignore", invalid="ignore"):
        grad_noise = _roughness(np.log(norm))
        fall = loss[:FIRST].mean() - loss[-LAST:].mean() if len(loss) >= FIRST + LAST else NAN
        loss_noise = _roughness(loss) / fall if fall > 0 else NAN
        logs = {"log_loss_noise": np.log(loss_noise), "log_grad_noise": np.log(grad_noise)}
    return {
        "steps_to_half": _steps_to_half(at, dice, len(loss)),
        "loss_noise": float(loss_noise),
        "loss_tracks_dice": _tracks(loss, at, dice),
        "grad_noise": grad_noise,
        **{name: float(value) if np.isfinite(value) else NAN for name, value in logs.items()},
    }


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values if values is not None else [], dtype=float)


def _steps_to_half(at: np.ndarray, dice: np.ndarray, steps: int) -> float:
    if not len(at) or len(at) != len(dice):
        return NAN
    reached = at[dice >= HALF]
    return float(reached[0]) if len(reached) else float(max(steps, at[-1]) + 1)


def _roughness(values: np.ndarray) -> float:
    """Return the sd (ddof = 1) of a curve about its running median, over its second half."""
    if len(values) < 2 * WINDOW or not np.isfinite(values).all():
        return NAN
    # The median follows a fall and ignores single jumps, which are what is to be measured.
    rest = values - median_filter(values, WINDOW, mode="mirror")
    return float(rest[len(rest) // 2 :].std(ddof=1))


def _tracks(loss: np.ndarray, at: np.ndarray, dice: np.ndarray) -> float:
    if len(loss) < 2 * WINDOW or len(at) != len(dice) or not np.isfinite(loss).all():
        return NAN
    late = (at > len(loss) // 2) & (at <= len(loss)) & np.isfinite(dice)
    if late.sum() < FEWEST:
        return NAN
    smooth = uniform_filter1d(loss, WINDOW, mode="mirror")[at[late].astype(int) - 1]
    ranks = rankdata(smooth), rankdata(dice[late])
    if min(r.std() for r in ranks) == 0:  # a constant has no order to follow
        return NAN
    return float(abs(np.corrcoef(*ranks)[0, 1]))
