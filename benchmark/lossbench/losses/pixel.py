"""Losses that are a mean of one term per pixel: cross-entropy and what has been done to its weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r

SCHEMES = ("inverse", "inverse_sqrt", "median", "log", "effective")

NORMS = ("weights", "pixels")


# Everything else in this room is measured against it: its mean runs over valid pixels, not over all, as
# some libraries have it.
@loss(
    "ce",
    family="distribution",
    cite="torch.nn.CrossEntropyLoss",
    formula="-(1/N) Σ_i w_{y_i} log p_{i,y_i}, N = Σ_i w_{y_i}",
    penalises_empty=True,
    empty="penalises every false positive pixel, as on any other image",
    aliases=("cross_entropy",),
    cost="1x",
)
def ce(
    logits,
    target,
    *,
    weights=None,
    norm: Literal["weights", "pixels"] = "weights",
    over: r.Over = "batch",
    ignore_index=None,
):
    """Cross-entropy: the mean of -log p of the true class over all valid pixels.

    ``weights``: one number per class. ``norm="weights"`` divides by the sum of the pixels' weights, as torch
    does, ``"pixels"`` by their number. ``over="sample"`` averages within each image first."""
    px = r.see(logits, target, ignore_index)
    if weights is None and over == "batch":
        # the fused kernel is the fastest way on a CPU; it already skips void pixels
        void = -100 if ignore_index is None else ignore_index
        return F.cross_entropy(px.z, px.y.long(), reduction="sum", ignore_index=void) / r.total(px)
    # No weights: the mean of each image first, or images with many void pixels would count less.
    if weights is None:
        return r.pixel_mean(r.nll(px), px, over)
    r.one_per_class(px, weights=weights)
    return weighted_mean(px, r.class_vector(weights, px), norm, over)


def weighted_mean(px, vector, norm, over):
    """Mean of w_{y_i} (-log p_{i,y_i}); ``vector (c,)`` holds w."""
    r.one_of(NORMS, norm=norm)
    w = r.per_pixel(vector, px)
    # Two norms in use: torch divides by the sum of the weights that occur, others by the number of pixels.
    weighted = r.nll(px) * w
    if norm == "pixels":
        return r.pixel_mean(weighted, px, over)
    if over == "batch":
        return weighted.sum() / w.sum().clamp_min(r.TINY)
    r.one_of(r.OVER, over=over)
    # An image that is void altogether has weight 0 and leaves the mean of the images.
    total = w.sum(1)
    return (weighted.sum(1) / total.clamp_min(r.TINY)).sum() / (total > 0).sum().clamp_min(1)


# The weights come from the training split, once: taken from each batch they would follow its accidents,
# see balanced_ce for that.
@loss(
    "wce",
    family="distribution",
    cite="Ronneberger 2015; schemes: Eigen & Fergus 2015 (median), Paszke 2016 (log), Cui 2019 (effective)",
    formula="-Σ_i w_{y_i} log p_{i,y_i} / Σ_i w_{y_i}, w from the class frequencies f of the training split",
    tune={"power": (0.0, 1.0)},
    penalises_empty=True,
    empty=(
        "penalises false positives with the background's weight, which the norm cancels where all is "
        "background"
    ),
    aliases=("weighted_ce",),
    cost="1.6x",
)
def wce(
    logits,
    target,
    *,
    class_frequency,
    scheme: Literal["inverse", "inverse_sqrt", "median", "log", "effective"] = "inverse",
    power=1.0,
    beta=0.9999,
    pixels=1000000,
    norm: Literal["weights", "pixels"] = "weights",
    over: r.Over = "batch",
    ignore_index=None,
):
    """Cross-entropy with class weights that a scheme derives once from the training split, never from the
    batch.

    ``class_frequency (C,)``: pixel fractions f_c. Schemes: ``inverse`` 1/f, ``inverse_sqrt`` 1/√f, ``median``
    median(f)/f, ``log`` 1/ln(1.02 + f), ``effective`` (1-β)/(1-β^n) with n = f · ``pixels``. The weights are
    raised to ``power`` (0 is plain cross-entropy) and scaled to mean 1. Explicit weights: ``ce(weights=[1,
    10])``."""
    px = r.see(logits, target, ignore_index)
    r.one_per_class(px, class_frequency=class_frequency)
    f = r.class_vector(class_frequency, px)
    return weighted_mean(px, class_weights(f, scheme, power, beta, pixels), norm, over)


def class_weights(f, scheme="inverse", power=1.0, beta=0.9999, pixels=1000000):
    """Weights (C,) of mean 1 from class frequencies ``f (C,)``; a class that never occurs counts as one
    pixel.
    """
    r.one_of(SCHEMES, scheme=scheme)
    r.at_least(0, power=power)
    r.at_least(1, pixels=pixels)
    r.between(0, 1 - 1e-9, beta=beta)
    # In double precision: 1 - β^n is a difference of nearly equal numbers for rare classes.
    f = f.double().clamp_min(1 / pixels)
    if scheme == "inverse":
        w = 1 / f
    elif scheme == "inverse_sqrt":
        w = f.rsqrt()
    elif scheme == "median":
        w = f.quantile(0.5) / f
    elif scheme == "log":
        w = 1 / torch.log(1.02 + f)
    else:
        w = (1 - beta) / (1 - beta ** (f * pixels))
    # Mean 1, so that the learning rate means the same under every scheme.
    w = w**power
    return (w / w.mean()).to(torch.get_default_dtype())


@loss(
    "balanced_ce",
    family="distribution",
    cite="Xie & Tu 2015",
    formula="-(1/N) Σ_i (1 - f_{y_i}) log p_{i,y_i}, f the class fractions of the batch",
    penalises_empty=False,
    empty="no signal from a batch (or image) of one class only: its weight is 0",
    cost="1.6x",
)
def balanced_ce(
    logits,
    target,
    *,
    norm: Literal["weights", "pixels"] = "pixels",
    over: r.Over = "batch",
    ignore_index=None,
):
    """Class-balanced cross-entropy of edge detection: each class is weighted by the share of all others in
    the batch.

    With two classes, -β Σ_fg log p - (1-β) Σ_bg log(1-p) over N with β the background's share; several
    classes use 1 - f_c alike. ``over="sample"`` takes the shares image by image.
    """
    r.one_of(NORMS, norm=norm)
    px = r.see(logits, target, ignore_index)
    # With two classes 1 - f_c is the share of the other one, as in the paper.
    ids = tuple(range(px.n_classes))
    g = r.truth(px, ids)
    n = r.pool(g, over)  # pixels per class, (n|1, c)
    w = 1 - n / n.sum(1, keepdim=True).clamp_min(1)
    by_class = r.pool(g * r.nll(px).unsqueeze(1), over)
    total = (w * by_class).sum(1)
    # Over pixels, as in the paper, or over the sum of the weights; a batch of one class has neither.
    scale = n.sum(1) if norm == "pixels" else (w * n).sum(1)
    return (total / scale.clamp_min(r.TINY)).sum() / (scale > 0).sum().clamp_min(1)


@loss(
    "focal",
    family="distribution",
    cite="Lin 2017",
    formula="-(1/N) Σ_i α_{y_i} (1 - p_{i,y_i})^γ log p_{i,y_i}",
    tune={"gamma": (0.0, 5.0)},
    penalises_empty=True,
    empty="penalises false positives, hardest where the network is most sure of them",
    cost="1.5x",
)
def focal(logits, target, *, gamma=2.0, alpha=None, over: r.Over = "batch", ignore_index=None):
    """Softmax focal loss: cross-entropy that forgets pixels which are already right; γ = 0 is cross-entropy.

    ``alpha``: None, one weight per class, or one number α for foreground classes and 1 - α for the
    background; Lin et al. train with α = 0.25. The mean runs over valid pixels (not over pixels times
    classes).
    """
    r.at_least(0, gamma=gamma)
    px = r.see(logits, target, ignore_index)
    cost = r.nll(px)
    if gamma:
        # 1 - p of the true class, from the cost at hand instead of another softmax.
        miss = 1 - torch.exp(-cost)
        cost = cost * (miss * miss if gamma == 2 else r.bounded_power(miss, gamma))
    if alpha is not None:
        cost = cost * r.per_pixel(_class_weights_of(alpha, px), px)
    return r.pixel_mean(cost, px, over)


def _class_weights_of(alpha, px):
    if not isinstance(alpha, list | tuple):
        r.between(0, 1, alpha=alpha)
        alpha = [1 - alpha] + [alpha] * (px.n_classes - 1)
    r.one_per_class(px, alpha=alpha)
    return r.class_vector(alpha, px)


@loss(
    "topk_ce",
    family="distribution",
    cite="Wu 2016",
    formula="mean of the k % largest -log p_{i,y_i}",
    tune={"percent": (1.0, 100.0)},
    penalises_empty=True,
    empty="penalises the worst false positives",
    aliases=("topk", "ohem_ce"),
    cost="1.6x",
)
def topk_ce(logits, target, *, percent=10.0, over: r.Over = "batch", ignore_index=None):
    """Mean cross-entropy of the hardest ``percent`` of the valid pixels, at least one, of the batch or each
    image.
    """
    r.between(0, 100, percent=percent)
    r.one_of(r.OVER, over=over)
    px = r.see(logits, target, ignore_index)
    cost = r.nll(px)
    if px.valid is not None:
        cost = cost - (1 - px.valid)  # void pixels sort behind every valid one
    cost = cost.reshape(1, -1) if over == "batch" else cost
    k = max(1, int(cost.shape[1] * percent / 100))  # from the shape alone: a static size
    # Unsorted where all pixels are valid, which is faster; the mean does not ask for the order.
    hardest = cost.topk(k, dim=1, sorted=px.valid is not None).values
    if px.valid is None:
        return hardest.mean()
    valid = px.valid.reshape(cost.shape).sum(1, keepdim=True)
    # The share is one of the valid pixels, which only the data know: k is the most that it can be.
    wanted = torch.floor(valid * (percent / 100) + 1e-6).clamp_min(1)
    rank = torch.arange(k, device=cost.device)
    kept = ((rank < wanted) & (valid > 0)).to(cost.dtype)
    means = (hardest * kept).sum(1) / kept.sum(1).clamp_min(1)
    return means.sum() / (valid > 0).sum().clamp_min(1)


@loss(
    "ls_ce",
    family="distribution",
    cite="Szegedy 2016",
    formula="(1 - ε) CE + (ε/C) Σ_c mean_i -log p_ic",
    tune={"epsilon": (0.0, 0.4)},
    penalises_empty=True,
    empty="penalises false positives, and complete certainty too",
    aliases=("label_smoothing_ce",),
    cost="1.5x",
)
def ls_ce(logits, target, *, epsilon=0.1, over: r.Over = "batch", ignore_index=None):
    """Cross-entropy against labels that give each class a share ε/C; ε = 0 is cross-entropy."""
    r.between(0, 1, epsilon=epsilon)
    px = r.see(logits, target, ignore_index)
    log_p = r.log_probabilities(px)
    # The part of the label that every class gets alike.
    uniform = -log_p.mean(1)
    uniform = uniform if px.valid is None else uniform * px.valid
    return r.pixel_mean((1 - epsilon) * r.nll(px, log_p) + epsilon * uniform, px, over)


@loss(
    "poly_ce",
    family="distribution",
    cite="Leng 2022 (PolyLoss)",
    formula="CE + ε mean_i (1 - p_{i,y_i})",
    tune={"epsilon": (-1.0, 4.0)},
    penalises_empty=True,
    empty="penalises false positives, as cross-entropy",
    aliases=("poly_loss", "poly1_ce"),
    cost="1.4x",
)
def poly_ce(logits, target, *, epsilon=1.0, over: r.Over = "batch", ignore_index=None):
    """Cross-entropy whose first polynomial term has the weight 1 + ε instead of 1; ε = 0 is cross-entropy.

    -log p = Σ_j (1-p)^j / j, of which the first term leads near the truth; ε may be negative, down to -1.
    """
    r.at_least(-1, epsilon=epsilon)
    px = r.see(logits, target, ignore_index)
    cost = r.nll(px)
    # On void pixels the cost is 0, and so is 1 - e^0.
    return r.pixel_mean(cost + epsilon * (1 - torch.exp(-cost)), px, over)


@loss(
    "logit_adjusted_ce",
    family="distribution",
    cite="Menon 2021",
    formula="mean_i -log softmax(z_i + τ log f)_{y_i}, f the class frequencies of the training split",
    tune={"strength": (0.0, 2.0)},
    penalises_empty=True,
    empty="penalises false positives less than cross-entropy where the class is rare",
    cost="1.2x",
)
def logit_adjusted_ce(
    logits, target, *, class_frequency, strength=1.0, over: r.Over = "batch", ignore_index=None
):
    """Cross-entropy of logits that the log-frequencies have been added to, so that what the network itself
    says is right for classes of equal frequency.

    ``class_frequency (C,)``: pixel fractions f of the training split; ``strength`` τ, 0 is cross-entropy."""
    r.at_least(0, strength=strength)
    px = r.see(logits, target, ignore_index)
    r.one_per_class(px, class_frequency=class_frequency)
    # A class that never occurs in training would be ruled out by log 0.
    prior = r.class_vector(class_frequency, px).clamp_min(1e-6).log()
    adjusted = px._replace(z=px.z + strength * prior.view(-1, 1))
    return r.pixel_mean(r.nll(adjusted), px, over)


@loss(
    "ohem",
    family="distribution",
    cite="Shrivastava 2016; by a threshold on p: Wu 2016, Yuan 2020",
    formula="mean of -log p_{i,y_i} over pixels with p_{i,y_i} < max(t, the (k+1)-th smallest of them)",
    tune={"threshold": (0.3, 0.95)},
    penalises_empty=True,
    empty="penalises the false positives whose background has less than the threshold",
    aliases=("ohem_by_threshold",),
    cost="1.5x",
)
def ohem(logits, target, *, threshold=0.7, kept=1, over: r.Over = "batch", ignore_index=None):
    """Mean cross-entropy of the pixels whose true class has a probability below ``threshold``, of the batch
    or each image, but of at least the ``kept`` hardest ones.

    As in HRNet, whose ``min_kept`` is 100,000 for batches of twelve crops of 1024 x 512. The share of the
    hardest pixels, whatever their probability, is ``topk_ce``."""
    r.between(0, 1, threshold=threshold)
    r.at_least(1, kept=kept)
    r.one_of(r.OVER, over=over)
    px = r.see(logits, target, ignore_index)
    cost = r.nll(px)
    # Void pixels sort behind every valid one, and have no place in the count.
    n = torch.full_like(cost[:, :1], cost.shape[1]) if px.valid is None else px.valid.sum(1, keepdim=True)
    cost = cost if px.valid is None else cost - (1 - px.valid)
    if over == "batch":
        cost, n = cost.reshape(1, -1), n.sum().reshape(1, 1)
    worst = cost.detach().topk(min(int(kept) + 1, cost.shape[1]), dim=1).values
    # The first one that need not be kept; the last valid one where there are fewer.
    place = (n - 1).clamp(0, worst.shape[1] - 1).long()
    floor = worst.gather(1, place).clamp(max=-math.log(max(threshold, r.TINY)))
    hard = ((cost > floor) & (cost >= 0)).to(cost.dtype)
    number = hard.sum(1)
    # Nothing is hard where all are above the threshold and alike.
    return ((cost * hard).sum(1) / number.clamp_min(1)).sum() / (number > 0).sum().clamp_min(1)


@loss(
    "adaptive_wing",
    family="distribution",
    cite="Wang 2019 (adaptive wing)",
    formula=(
        "mean_{i,c} (W M_i + 1) A(|g - p|), A(δ) = ω ln(1 + (δ/ε)^(α-g)) below θ and a straight line above, "
        "M = 1 on the object and beside it"
    ),
    tune={"map_weight": (0.0, 30.0)},
    penalises_empty=True,
    empty="penalises false positives by the square of p and more; the map is 0",
    aliases=("awing",),
    dims=(2, 3),
    cost="5.0x",
)
def adaptive_wing(
    logits,
    target,
    *,
    omega=14.0,
    theta=0.5,
    epsilon=1.0,
    alpha=2.1,
    map_weight=10.0,
    over: r.Over = "batch",
    classes="fg",
    ignore_index=None,
):
    """The loss of heat maps on probabilities: steep down to small errors on the object (exponent α - 1), and
    flat there on the background (exponent α).

    ``map_weight`` W raises the pixels of the object and their neighbours, by a maximum over 3 x 3; W = 0 is
    the plain loss. The defaults are the paper's."""
    r.at_least(r.TINY, omega=omega, theta=theta, epsilon=epsilon)
    r.at_least(2, alpha=alpha)
    r.at_least(0, map_weight=map_weight)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    error, power = (g - p).abs(), alpha - g
    # The line has the value and the slope of the curve where it takes over.
    edge = (theta / epsilon) ** power
    slope = omega / (1 + edge) * power * edge / theta
    curve = omega * torch.log1p((error.clamp(max=theta) / epsilon) ** power)
    cost = torch.where(error < theta, curve, slope * (error - theta) + omega * torch.log1p(edge))
    if map_weight:
        pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(px.space)]
        near = pool(r.image(g, px), 3, stride=1, padding=1).flatten(2)
        cost = cost * (map_weight * near + 1)
    return r.pixel_mean(r.mask(cost, px).mean(1), px, over)


@loss(
    "ce_soft",
    family="distribution",
    cite="Szegedy 2016; several raters: Jungo 2018",
    formula="-mean_i Σ_c q_ic log p_ic, q the share of class c at pixel i",
    penalises_empty=True,
    empty="as ce",
    aliases=("soft_label_ce",),
    soft=True,
    cost="1.0x",
)
def ce_soft(logits, target, *, over: r.Over = "batch", ignore_index=None):
    """Cross-entropy against shares of the classes: what several raters said, or what another network says.

    ``target``: shares (N, C, *S) of floats, all 0 where void, or class ids (N, *S), of which it is ``ce``.
    The mean over raters of their cross-entropies is that of their shares."""
    px, q = r.see_shares(logits, target, ignore_index)
    # A share of 0 counts as 0 whatever the logit: 0 times minus infinity would be NaN.
    return r.pixel_mean(-torch.where(q > 0, q * r.log_probabilities(px), 0).sum(1), px, over)
