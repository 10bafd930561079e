"""Losses that compare regions across classes or beyond a plain ratio: generalized, Wasserstein, Lovász, MCC, cosine."""

from __future__ import annotations

import torch

from benchmark.losses import reduce as r
from benchmark.registry import loss

WEIGHTING = ("square", "simple", "uniform")


@loss(
    "generalized_dice",
    family="overlap",
    cite="Sudre 2017",
    formula="1 - (2 Σ_c w_c TP_c + s) / (Σ_c w_c (P_c + G_c) + s), w_c = 1/G_c², scaled to max 1",
    penalises_empty=True,
    empty="the absent class shares the largest weight of the present ones, so its false positives count",
    aliases=("gdl",),
    cost="1.5x",
)
def generalized_dice(
    logits,
    target,
    *,
    weighting="square",
    over="sample",
    classes="all",
    absent="eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Generalized Dice: one ratio of sums over classes, each class weighted by its true size.

    ``weighting``: "square" 1/G², "simple" 1/G, "uniform" 1. Weights are divided by their largest before smoothing, so the
    value does not depend on the number of pixels. A class that the target lacks takes the largest weight of the present
    ones (``absent="eps"``) or weight 0 (``absent="skip"``).
    """
    r.choice("weighting", weighting, WEIGHTING)
    r.choice("absent", absent, r.ABSENT)
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    power = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    present = (s.g > 0).to(s.g.dtype)
    w = present / s.g.clamp_min(1) ** power
    largest = w.amax(1, keepdim=True)
    if absent == "eps":
        w = torch.where(s.g > 0, w, largest)
    w = w / largest.clamp_min(torch.finfo(w.dtype).tiny)
    score = r.ratio(2 * (w * s.tp).sum(1, keepdim=True), (w * (s.p + s.g)).sum(1, keepdim=True), smooth)
    return (1 - score).mean()
