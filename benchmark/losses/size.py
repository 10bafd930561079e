"""Losses that say how large a region should be, beside cross-entropy that says where it is."""

from __future__ import annotations

import torch

from benchmark.losses import reduce as r
from benchmark.losses.pixel import ce
from benchmark.registry import loss

EPS = 1e-10


def proportions(px, ids, over, temperature):
    """Predicted and true share of each chosen class among the valid pixels, both (n|1, k)."""
    temperature = r.number("temperature", temperature, 1e-6)
    n = r.count(px, over)
    predicted = r.pool(r.probabilities(px, ids, temperature), over)
    return (predicted + EPS) / (n + EPS), (r.pool(r.truth(px, ids), over) + EPS) / (n + EPS)


@loss(
    "ce_l1",
    family="size",
    cite="Liu 2024",
    formula="CE + λ mean_{b,c} |p̂_bc - ĝ_bc|, p̂ = mean_i softmax(T z)_ic, ĝ = mean_i g_ic",
    tune={"size_weight": (0.01, 10.0)},
    penalises_empty=True,
    empty="cross-entropy penalises false positives; the size term pulls the predicted share to 0",
    cost="2x",
)
def ce_l1(logits, target, *, size_weight=1.0, temperature=10.0, over="sample", classes="all", ignore_index=None):
    """Cross-entropy plus the L1 distance between predicted and true region proportions.

    ``size_weight`` λ and ``temperature`` T (their released settings are 1 and 10; T = 1 is nearly plain CE); proportions
    are taken ``over`` each image or the batch, and averaged over ``classes``.
    """
    size_weight = r.number("size_weight", size_weight, 0)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    if px.n_classes == 2:
        ids = ids[-1:]  # with two classes |p̂_0 - ĝ_0| = |p̂_1 - ĝ_1|: one of them is their mean
    predicted, true = proportions(px, ids, over, temperature)
    return ce(logits, target, ignore_index=ignore_index) + size_weight * (predicted - true).abs().mean()


@loss(
    "ce_kl",
    family="size",
    cite="Liu 2024",
    formula="CE + λ mean_b Σ_c ĝ_bc log(ĝ_bc / p̂_bc), p̂ = mean_i softmax(T z)_ic, ĝ = mean_i g_ic",
    tune={"size_weight": (0.01, 10.0)},
    penalises_empty=True,
    empty="cross-entropy penalises false positives; the size term pulls the predicted share to 0",
    cost="4x",
)
def ce_kl(logits, target, *, size_weight=1.0, temperature=10.0, over="sample", ignore_index=None):
    """Cross-entropy plus the KL divergence of the predicted from the true region proportions.

    p̂ is summed in log space, so that a class which the network has given up everywhere still gets a finite pull.
    """
    size_weight = r.number("size_weight", size_weight, 0)
    temperature = r.number("temperature", temperature, 1e-6)
    r.choice("over", over, r.OVER)
    px = r.see(logits, target, ignore_index)
    n = r.count(px, over)
    true = r.pool(r.truth(px, tuple(range(px.n_classes))), over) / (n if isinstance(n, int) else n.clamp_min(1))
    log_p = r.log_probabilities(px, temperature)
    if px.valid is not None:
        log_p = torch.where(px.valid.unsqueeze(1) > 0, log_p, -1e30)
    total = log_p.logsumexp(2) if over == "sample" else log_p.logsumexp((0, 2)).unsqueeze(0)
    log_n = torch.log(torch.as_tensor(n, dtype=total.dtype, device=total.device).clamp_min(1))
    kl = torch.xlogy(true, true) - true * (total - log_n)
    return ce(logits, target, ignore_index=ignore_index) + size_weight * kl.sum(1).mean()
