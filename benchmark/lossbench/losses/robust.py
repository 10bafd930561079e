"""Losses that forgive wrong labels: bounded, or nearly so, where cross-entropy grows without end, pixel by
pixel or image by image.
"""

from __future__ import annotations

import math

import torch

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r


@loss(
    "generalized_ce",
    family="distribution",
    cite="Zhang & Sabuncu 2018",
    formula="mean_i (1 - p_{i,y_i}^q) / q",
    tune={"q": (0.1, 1.0)},
    penalises_empty=True,
    empty="penalises false positives, the surest ones least",
    aliases=("gce",),
    cost="1.5x",
)
def generalized_ce(logits, target, *, q=0.7, over: r.Over = "batch", ignore_index=None):
    """Between cross-entropy (q near 0) and the mean absolute error (q = 1), which no wrong label moves much.

    The untruncated L_q loss of the paper; a pixel that is wholly wrong costs 1/q and has next to no slope."""
    r.between(1e-3, 1, q=q)
    px = r.see(logits, target, ignore_index)
    # From the logarithm: p^q itself has no slope where p rounds to 0. expm1 keeps small costs exact.
    return r.pixel_mean(-torch.expm1(-q * r.nll(px)) / q, px, over)


@loss(
    "symmetric_ce",
    family="distribution",
    cite="Wang 2019",
    formula="α CE + β mean_i -log(floor) (1 - p_{i,y_i})",
    tune={"reverse_weight": (0.1, 2.0)},
    penalises_empty=True,
    empty="penalises false positives",
    aliases=("sce",),
    cost="1.6x",
)
def symmetric_ce(
    logits,
    target,
    *,
    ce_weight=0.1,
    reverse_weight=1.0,
    floor=1e-4,
    over: r.Over = "batch",
    ignore_index=None,
):
    """Cross-entropy plus reverse cross-entropy, in which label and prediction change places.

    The label's zeros stand as ``floor`` in the logarithm, so that the reverse part is -log(floor) times the
    probability of all wrong classes, and bounded. The weights are those that the authors use for ten
    classes."""
    r.at_least(0, ce_weight=ce_weight, reverse_weight=reverse_weight)
    r.between(1e-12, 1, floor=floor)
    px = r.see(logits, target, ignore_index)
    cost = r.nll(px)
    wrong = -torch.expm1(-cost)
    return r.pixel_mean(ce_weight * cost - reverse_weight * math.log(floor) * wrong, px, over)


@loss(
    "t_loss",
    family="distribution",
    cite="Gonzalez-Jimenez 2023 (T-Loss)",
    formula="(ν + n) / 2n log(1 + Σ (g-p)² / ν), n the pixels of an image",
    released=(
        "Digital-Dermatology/t-loss learns ν with the weights, which no loss here can: it stays where theirs "
        "begins, e^ν of ν = 1. It counts each squared error e times, for λ = 1 stands where the "
        "paper has a covariance of 1, and adds constants: t_loss(variant='released')"
    ),
    tune={"nu": (0.1, 100.0)},
    penalises_empty=True,
    empty="penalises false positives, less for each where there are many",
    cost="0.7x",
)
def t_loss(
    logits,
    target,
    *,
    nu=1.0,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Negative log-likelihood of an image's errors under one Student t-distribution of ``nu`` degrees of
    freedom, without its constants and divided by the pixels: 0 for a perfect prediction.

    An image that is wrong at many pixels pulls no harder for it, whence its patience with wrong masks; the
    smaller ``nu``, the earlier. The authors learn it; here it is a parameter like others."""
    r.one_of(r.VARIANT, variant=variant)
    r.between(1e-3, 100, nu=nu)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    freedom, times = (math.exp(nu), math.e) if variant == "released" else (nu, 1.0)
    n = r.count(px, over)
    n = n if isinstance(n, int) else n.clamp_min(1)
    share = (times / freedom) * r.pool((g - p) ** 2, over)
    return r.average((freedom + n) / (2 * n) * share.log1p(), r.pool(g, over), absent)
