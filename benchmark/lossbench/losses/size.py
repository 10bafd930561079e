"""Losses that say how large a region should be, beside cross-entropy that says where it is."""

from __future__ import annotations

import torch

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r
from lossbench.losses.pixel import ce

EPS = 1e-10  # the authors' constant in numerator and denominator of a proportion


def proportions(px, ids, over, temperature):
    """Predicted and true share of each chosen class among the valid pixels, both (n|1, k)."""
    r.at_least(1e-6, temperature=temperature)
    # T sharpens the softmax, so that the sum counts pixels as a threshold would.
    n = r.count(px, over) + EPS
    predicted = r.pool(r.probabilities(px, ids, temperature), over)
    return (predicted + EPS) / n, (r.pool(r.truth(px, ids), over) + EPS) / n


@loss(
    "ce_l1",
    family="size",
    cite="Liu 2024",
    formula="CE + λ mean_{b,c} |p̂_bc - ĝ_bc|, p̂_c = mean_i softmax(T z)_ic, ĝ_c = mean_i g_ic",
    tune={"size_weight": (0.01, 10.0)},
    penalises_empty=True,
    empty="cross-entropy penalises false positives; the size term pulls the predicted share to 0",
    cost="1.8x",
)
def ce_l1(
    logits,
    target,
    *,
    size_weight=1.0,
    temperature=10.0,
    over: r.Over = "sample",
    classes="all",
    ignore_index=None,
):
    """Cross-entropy plus the L1 distance between predicted and true region proportions.

    ``size_weight`` λ and ``temperature`` T (the authors' released settings are 1 and 10); the proportions are
    taken over each image or over the batch and their distances averaged over ``classes``.
    """
    r.at_least(0, size_weight=size_weight)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    # The paper's mean over both classes is the distance of either.
    if px.n_classes == 2:
        ids = ids[-1:]  # with two classes |p̂_0 - ĝ_0| = |p̂_1 - ĝ_1|: either one is their mean
    predicted, true = proportions(px, ids, over, temperature)
    return ce(logits, target, ignore_index=ignore_index) + size_weight * (predicted - true).abs().mean()


@loss(
    "ce_kl",
    family="size",
    cite="Liu 2024",
    formula="CE + λ mean_b Σ_c ĝ_bc log(ĝ_bc / p̂_bc), p̂_c = mean_i softmax(T z)_ic, ĝ_c = mean_i g_ic",
    tune={"size_weight": (0.01, 10.0)},
    penalises_empty=True,
    empty="cross-entropy penalises false positives; the size term pulls the predicted share to 0",
    cost="3.1x",
)
def ce_kl(
    logits,
    target,
    *,
    size_weight=1.0,
    temperature=10.0,
    over: r.Over = "sample",
    ignore_index=None,
):
    """Cross-entropy plus the KL divergence from the true to the predicted region proportions.

    The predicted share is summed in log space, so that a class which the network has given up everywhere
    still gets a finite pull; a class that the target lacks contributes nothing.
    """
    r.at_least(0, size_weight=size_weight)
    r.at_least(1e-6, temperature=temperature)
    px = r.see(logits, target, ignore_index)
    n = torch.as_tensor(r.count(px, over), dtype=px.z.dtype, device=px.z.device).clamp_min(1)
    # Shares, not counts: images of other sizes weigh the same.
    true = r.pool(r.truth(px, tuple(range(px.n_classes))), over) / n
    # Finite, so that a class whose logits are -inf everywhere costs nothing where the target lacks it.
    log_p = r.log_probabilities(px, temperature).clamp_min(-1e30)
    if px.valid is not None:
        log_p = torch.where(px.valid.unsqueeze(1) > 0, log_p, -1e30)
    # log Σ_i p_i as a logsumexp of log p: a share of e-40 still has a slope.
    log_share = (log_p.logsumexp(2) if over == "sample" else log_p.logsumexp((0, 2)).unsqueeze(0)) - n.log()
    # 0 log 0 = 0: an absent class adds nothing, whatever its predicted share.
    kl = torch.xlogy(true, true) - true * log_share
    return ce(logits, target, ignore_index=ignore_index) + size_weight * kl.sum(1).mean()


@loss(
    "ce_db",
    family="size",
    cite="Liu 2024",
    formula="CE + λ mean_{b,c} log(p̂_bc + ĝ_bc), the size penalty that hides in log-Dice",
    released="by-liu/SegLossBias with one channel knows the foreground alone: ce_db(classes='fg')",
    tune={"size_weight": (0.01, 1.0)},
    penalises_empty=True,
    empty="cross-entropy penalises false positives; the size term shrinks the region further",
    cost="1.8x",
)
def ce_db(
    logits,
    target,
    *,
    size_weight=0.1,
    temperature=1.0,
    over: r.Over = "sample",
    classes="all",
    ignore_index=None,
):
    """Cross-entropy plus the region-size penalty D_B of Dice: -log Dice = matching term + log(p̂ + ĝ) +
    constant.
    """
    r.at_least(0, size_weight=size_weight)
    px = r.see(logits, target, ignore_index)
    # Negative where regions are small: it is the part of log-Dice that rewards small predictions.
    predicted, true = proportions(px, r.class_ids(classes, px.n_classes), over, temperature)
    return ce(logits, target, ignore_index=ignore_index) + size_weight * (predicted + true + EPS).log().mean()
