"""Cross-entropy with a term for honest confidence: margins on logits, labels that know their neighbours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r
from lossbench.losses.pixel import ce


@loss(
    "mbls",
    family="calibration",
    cite="Liu 2022",
    formula="CE + λ mean_i Σ_c max(0, max_k z_ik - z_ic - m)",
    released="by-liu/MbLS takes the mean over classes where the paper sums: its λ is C times ours",
    tune={"margin_weight": (0.01, 1.0)},
    penalises_empty=True,
    empty="penalises false positives by cross-entropy",
    cost="2.2x",
)
def mbls(
    logits,
    target,
    *,
    margin=10.0,
    margin_weight=0.1,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Margin-based label smoothing: logits may differ by ``margin`` for free, and pay linearly beyond."""
    r.one_of(r.VARIANT, variant=variant)
    r.at_least(0, margin=margin, margin_weight=margin_weight)
    px = r.see(logits, target, ignore_index)
    # On logits, not probabilities: the margin is a difference of log-odds.
    excess = (px.z.amax(1, keepdim=True) - px.z - margin).relu()
    excess = margin_weight * r.mask(excess, px).sum() / r.total(px)
    if variant == "released":
        excess = excess / px.n_classes
    return ce(logits, target, ignore_index=ignore_index) + excess


@loss(
    "svls",
    family="calibration",
    cite="Islam & Glocker 2021",
    formula="-(1/N) Σ_i Σ_c g̃_ic log p_ic, g̃ = ½ g + ½ Gaussian mean of the 3×3(×3) neighbours",
    tune={"sigma": (0.5, 3.0)},
    penalises_empty=True,
    empty="penalises false positives, as cross-entropy",
    cost="2.0x",
)
def svls(logits, target, *, sigma=1.0, ignore_index=None):
    """Spatially varying label smoothing: labels are soft only where a neighbour is of another class.

    Half of the label stays at the pixel, half goes to its neighbours in proportion to a Gaussian of width
    ``sigma`` pixels; the image is continued beyond its border, and void neighbours are left out."""
    r.at_least(1e-3, sigma=sigma)
    side = math.exp(-0.5 / sigma**2)
    px = r.see(logits, target, ignore_index)
    # The smoothed label is data: it needs no gradient and could be computed with the mask.
    soft = _share_with_neighbours(r.image(r.truth(px, tuple(range(px.n_classes))), px), side)
    if px.valid is not None:
        soft = soft / _share_with_neighbours(r.image(px.valid.unsqueeze(1), px), side).clamp_min(r.TINY)
    soft = soft.flatten(2)
    # A class without a share costs nothing, even where its logit is -inf.
    cost = -torch.where(soft > 0, soft * r.log_probabilities(px), 0).sum(1)
    return r.pixel_mean(cost if px.valid is None else cost * px.valid, px)


def _share_with_neighbours(x, side):
    """½ x + ½ weighted mean of the 3^d - 1 neighbours; the kernel without its centre is separable."""
    # Axis by axis, two shifted sums each: a convolution would leave float32 under autocast.
    blurred, axes = x, range(2, x.ndim)
    for axis in axes:
        first, last = blurred.narrow(axis, 0, 1), blurred.narrow(axis, -1, 1)
        before = torch.cat([first, blurred.narrow(axis, 0, blurred.shape[axis] - 1)], axis)
        after = torch.cat([blurred.narrow(axis, 1, blurred.shape[axis] - 1), last], axis)
        blurred = blurred + side * (before + after)
    neighbours = (1 + 2 * side) ** len(axes) - 1
    return 0.5 * x + 0.5 * (blurred - x) / neighbours


@loss(
    "nacl",
    family="calibration",
    cite="Murugesan 2023",
    formula="CE + λ mean_{i,c} |z_ic - share of class c among the 3×3(×3) neighbours of i|",
    released="Bala93/MarginLoss counts what lies beyond the border as class 0; MONAI leaves it out, as here",
    tune={"prior_weight": (0.01, 1.0)},
    penalises_empty=True,
    empty="penalises false positives by cross-entropy, and large logits anywhere",
    dims=(2, 3),
    cost="2.8x",
)
def nacl(
    logits,
    target,
    *,
    prior_weight=0.1,
    width=3,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Neighbour-aware calibration: logits are held near the local class proportions.

    ``width``: odd side of the neighbourhood in pixels; what lies beyond the border has no class, or class 0
    (``variant="released"``). One-channel logits are seen as the two channels [0, z]."""
    r.one_of(r.VARIANT, variant=variant)
    r.at_least(0, prior_weight=prior_weight)
    r.one_of(range(1, 32, 2), width=width)
    px = r.see(logits, target, ignore_index)
    share = r.image(r.truth(px, tuple(range(px.n_classes))), px)
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(px.space)]
    # Padded by hand, for torch would refuse thin volumes.
    border = (width // 2,) * 2 * len(px.space)
    if variant == "released":
        share = torch.cat([F.pad(share[:, :1], border, value=1.0), F.pad(share[:, 1:], border)], 1)
    else:
        share = F.pad(share, border)
    share = pool(share, width, stride=1)
    # Logits are compared with proportions in [0, 1] by design; it draws them together.
    distance = r.mask((px.z - share.flatten(2)).abs(), px).sum() / (r.total(px) * px.n_classes)
    return ce(logits, target, ignore_index=ignore_index) + prior_weight * distance
