"""Losses that compare regions across classes or beyond a plain ratio: generalized, Wasserstein, Lovász, MCC,
cosine, mutual information of patches.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r

POWERS = {"square": 2, "simple": 1, "uniform": 0}


@loss(
    "generalized_dice",
    family="overlap",
    cite="Sudre 2017",
    formula="1 - (2 Σ_c w_c TP_c + s) / (Σ_c w_c (P_c + G_c) + s), w_c = 1/G_c², scaled to max 1",
    penalises_empty=True,
    empty="the absent class shares the largest weight of the present ones, so its false positives count",
    aliases=("gdl",),
    cost="1.0x",
)
def generalized_dice(
    logits,
    target,
    *,
    weighting: Literal["square", "simple", "uniform"] = "square",
    over: r.Over = "sample",
    classes="all",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Generalized Dice: one ratio of sums over classes, each class weighted by its true size.

    ``weighting``: "square" 1/G², "simple" 1/G, "uniform" 1. Weights are divided by their largest before
    smoothing, so that the value does not depend on the number of pixels. A class that the target lacks takes
    the largest weight of the present ones (``absent="eps"``) or weight 0 (``absent="skip"``).
    """
    r.one_of(POWERS, weighting=weighting)
    r.one_of(r.ABSENT, absent=absent)
    # One ratio over all classes, each with a weight: not the mean of ratios of the others.
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    present = s.g > 0
    w = present.to(s.g.dtype) / s.g.clamp_min(1) ** POWERS[weighting]
    largest = w.amax(1, keepdim=True)
    if absent == "eps":
        w = torch.where(present, w, largest)
    # Without this the weights are of the order of 1/G², and s = 1e-5 would outweigh a large object.
    w = w / largest.clamp_min(torch.finfo(w.dtype).tiny)
    return (1 - r.ratio(2 * (w * s.tp).sum(1), (w * (s.p + s.g)).sum(1), smooth)).mean()


@loss(
    "wasserstein_dice",
    family="overlap",
    cite="Fidon 2017",
    formula="1 - 2 TP / (2 TP + Σ_i W_i), W_i = Σ_c M_{y_i,c} p_ic, TP = Σ_{i in fg} (1 - W_i)",
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("gwdl", "generalized_wasserstein_dice"),
    cost="1.4x",
)
def wasserstein_dice(
    logits,
    target,
    *,
    distances=None,
    over: r.Over = "sample",
    smooth=1e-5,
    ignore_index=None,
):
    """Generalized Wasserstein Dice: a wrong class costs as much as it is far from the true one.

    ``distances``: C lists of C distances between classes, zero on the diagonal, scaled to maximum 1; None
    makes all classes equally far (for two classes this is Dice).
    """
    px = r.see(logits, target, ignore_index)
    p = r.probabilities(px, tuple(range(px.n_classes)))
    # All classes equally far: W is one minus the probability of the true class.
    if distances is None:
        y = px.y.long() if px.valid is None else torch.where(px.valid > 0, px.y.long(), 0)
        w = 1 - p.gather(1, y.unsqueeze(1)).squeeze(1)
        w = w if px.valid is None else w * px.valid
    else:
        _check_distances(distances, px.n_classes)
        m = torch.tensor(distances).to(px.z)
        m = m / m.max().clamp_min(r.TINY)
        w = sum(r.per_pixel(m[:, c], px) * p[:, c] for c in range(px.n_classes))
    # Background pixels are no true positives, but their errors count in W.
    fg = r.mask(r.numbers(px.y != 0, w.dtype).unsqueeze(1), px)
    tp = r.pool(fg * (1 - w.unsqueeze(1)), over)
    return (1 - r.ratio(2 * tp, 2 * tp + r.pool(w.unsqueeze(1), over), smooth)).mean()


def _check_distances(distances, c):
    if len(distances) != c or any(not isinstance(row, list | tuple) or len(row) != c for row in distances):
        raise UserError(f"distances={distances!r} is not {c} lists of {c} numbers, as {c} classes need")
    for k, row in enumerate(distances):
        for value in row:
            r.at_least(0, distances=value)
        if row[k] != 0:
            raise UserError(f"distances={distances!r} is not zero on the diagonal: class {k} to itself")


@loss(
    "lovasz",
    family="overlap",
    cite="Berman 2018",
    formula="mean_c Σ_j e_(j) ΔJ_j, errors e = |g - p| in falling order, ΔJ the steps of the Jaccard loss",
    penalises_empty=True,
    empty="the background's term and, with absent='eps', the worst false positive",
    aliases=("lovasz_softmax",),
    cost="7.8x",
)
def lovasz(
    logits,
    target,
    *,
    over: r.Over = "batch",
    classes="all",
    absent: r.Absent = "skip",
    ignore_index=None,
):
    """Lovász extension of the Jaccard loss; the defaults, present classes over the batch, are the paper's."""
    r.one_of(r.OVER, over=over)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    g = r.truth(px, ids)
    # With two classes |g_0 - p_0| = |g_1 - p_1|: one sort serves both.
    sorted_ids = ids[-1:] if px.n_classes == 2 else ids
    errors = (g[:, -len(sorted_ids) :] - r.probabilities(px, sorted_ids)).abs()
    costs, size = lovasz_extension(errors, g, over)
    return r.average(costs, size, absent)


def lovasz_extension(errors, g, over):
    """The Lovász extension of the Jaccard loss at ``errors (n, k, m)`` with the truth ``g``: its values and
    the sizes of the true regions, both (n|1, k).
    """
    # Pixels of all images in one row per class, as if they were one image.
    if over == "batch":
        g, errors = (x.transpose(0, 1).flatten(1).unsqueeze(0) for x in (g, errors))
    # The sort finds the order in which pixels would be lost, worst first; each gets the step of the Jaccard
    # loss at its place as its weight, which is the gradient of the Lovász extension.
    errors, order = errors.sort(dim=2, descending=True)
    g = g.gather(2, order.expand_as(g))
    size = g.sum(2, keepdim=True)
    missed = size - g.cumsum(2)  # true pixels not yet counted as errors
    union = size + (1 - g).cumsum(2)
    # The union before a background pixel entered; 0 only for the first pixel of an absent class.
    before = union - 1
    step = torch.where(before > 0, missed / (union * before.clamp_min(1)), 1.0)
    # A true pixel that is missed takes 1 / union; the steps of a present class sum up to 1.
    step = torch.where(g > 0, 1 / union.clamp_min(1), step)
    return (errors * step).sum(2), size.squeeze(2)


@loss(
    "lovasz_hinge",
    family="overlap",
    cite="Yu & Blaschko 2015; Berman 2018",
    formula="mean_c Σ_j max(0, e_(j)) ΔJ_j, e = 1 ∓ m in falling order, m = log p_c/(1-p_c) the margin",
    penalises_empty=False,
    empty="pushes down the worst false positive of each image and no other",
    cost="6.2x",
)
def lovasz_hinge(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    ignore_index=None,
):
    """Lovász extension of the Jaccard loss at hinge errors: on logits, and free beyond a margin of 1.

    Two classes have the margin z_1 - z_0; of more, each stands against all others together."""
    r.one_of(r.OVER, over=over)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    g = r.truth(px, ids)
    margin = torch.stack([_margin(px.z, c) for c in ids], 1)
    # Cut at 0 before the sort: what is right by more than the margin has no weight anyhow.
    errors = r.mask((1 - margin * (2 * g - 1)).relu(), px)
    costs, size = lovasz_extension(errors, g, over)
    return r.average(costs, size, absent)


def _margin(z, c):
    """log p_c / (1 - p_c) from logits z (n, C, m), (n, m)."""
    others = torch.cat([z[:, :c], z[:, c + 1 :]], 1)
    return z[:, c] - (others.squeeze(1) if others.shape[1] == 1 else others.logsumexp(1))


@loss(
    "mcc",
    family="overlap",
    cite="Abhishek & Hamarneh 2021",
    formula="1 - (TP TN - FP FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN) + s)",
    penalises_empty=False,
    empty="loss 1 without gradient: the coefficient is undefined",
    cost="0.8x",
)
def mcc(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Matthews correlation coefficient of each class, as 1 - MCC in [0, 2]; ``smooth`` is one number."""
    r.at_least(0, smooth=smooth)
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    # TP TN - FP FN = n TP - P G, exactly 0 in theory and not in float32 where a class is absent or everywhere
    defined = ((s.g > 0) & (s.g < s.n)).to(s.p.dtype)
    top = (s.tp * s.n - s.p * s.g) * defined
    # n - P can fall below 0 by rounding, and a negative product would have no root.
    bottom = s.p * s.g * (s.n - s.g) * (s.n - s.p).clamp_min(0)
    return r.average(1 - top * (bottom + max(smooth, r.TINY)).rsqrt(), s.g, absent)


@loss(
    "sens_spec",
    family="overlap",
    cite="Brosch 2015",
    formula="r (Σ (g-p)² g + s) / (Σ g + s) + (1-r) (Σ (g-p)² (1-g) + s) / (Σ (1-g) + s)",
    tune={"sensitivity_weight": (0.01, 0.5)},
    penalises_empty=True,
    empty="the specificity term penalises false positives",
    aliases=("sensitivity_specificity",),
    cost="0.8x",
)
def sens_spec(
    logits,
    target,
    *,
    sensitivity_weight=0.05,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Squared errors on the object and on the rest, each as its own mean; r is ``sensitivity_weight``.

    The smoothing s stands in the numerators, too: an image without the class costs r where it is perfect."""
    r.between(0, 1, sensitivity_weight=sensitivity_weight)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    squared = (g - p) ** 2
    # Two means of their own, so that a small object is not outvoted by a large background.
    inside, size = r.pool(squared * g, over), r.pool(g, over)
    outside = r.pool(squared, over) - inside
    sensitivity = r.ratio(inside, size, smooth)
    specificity = r.ratio(outside, r.count(px, over) - size, smooth)
    return r.average(sensitivity_weight * sensitivity + (1 - sensitivity_weight) * specificity, size, absent)


@loss(
    "cosine",
    family="overlap",
    cite="textbook cosine distance",
    formula="1 - Σ p g / √(Σ p² Σ g² + s²)",
    penalises_empty=False,
    empty="left out: the angle to an empty region is undefined",
    cost="0.7x",
)
def cosine(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "skip",
    smooth=1e-5,
    ignore_index=None,
):
    """One minus the cosine between predicted and true region; but for the smoothing, and where the class is
    present, never above the squared Dice loss. ``smooth`` is one number.
    """
    r.at_least(0, smooth=smooth)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    tp, size = r.pool(p * g, over), r.pool(g, over)
    # The floor of 1e-8 keeps the angle to an empty prediction defined.
    length = (r.pool(p * p, over) * size + max(smooth, 1e-8) ** 2).rsqrt()
    return r.average(1 - tp * length, size, absent)


# det(A) of a singular A has no logarithm; the authors' constant.
RIDGE = 5e-4


@loss(
    "rmi",
    family="compound",
    cite="Zhao 2019 (region mutual information)",
    formula="λ CE + (1-λ) Σ_c mean_n log det(Σ_g - Σ_gp Σ_p⁻¹ Σ_pg + αI) / 2d, over patches of d pixels",
    released=(
        "ZJULearning/RMI takes the sigmoid of each logit, the binary cross-entropy summed over classes and "
        "divided by one pixel more: rmi(variant='released')"
    ),
    tune={"ce_weight": (0.1, 0.9)},
    penalises_empty=True,
    empty="penalises false positives through cross-entropy",
    aliases=("region_mutual_information",),
    dims=(2, 3),
    cost="6.1x",
)
def rmi(
    logits,
    target,
    *,
    ce_weight=0.5,
    radius=3,
    stride=3,
    classes="all",
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Cross-entropy, and a lower bound of the mutual information of true and predicted patches.

    Prediction and truth are pooled to their maxima over ``stride`` pixels; each point with its neighbours is
    then a vector of d = ``radius``^axes numbers. What of the true vectors the predicted ones do not explain,
    as a Gaussian would, is small where structures agree. Computed in float64; it may be negative."""
    r.one_of(r.VARIANT, variant=variant)
    r.between(0, 1, ce_weight=ce_weight)
    r.at_least(1, radius=radius, stride=stride)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    if variant == "released":
        z = r.chosen(px.z, ids)
        p = r.mask(z.sigmoid(), px)
        cost = F.binary_cross_entropy_with_logits(z, g, reduction="none")
        pixel_term = r.mask(cost, px).sum() / (r.total(px) + 1)
    else:
        pixel_term = r.pixel_mean(r.nll(px), px)
    true, predicted = (_patches(r.image(x, px), int(radius), int(stride)) for x in (g, p + 1e-6))
    spread = _log_det(_unexplained(true, predicted)) / (2 * true.shape[2])
    return ce_weight * pixel_term + (1 - ce_weight) * spread.mean(0).sum().to(pixel_term.dtype)


def _patches(x, radius, stride):
    """Centred vectors of neighbouring numbers of ``x (n, k, *s)``, pooled before: (n, k, d, points)."""
    if stride > 1:
        # An axis of one pixel stays one: a volume of depth one is an image.
        pool = {2: F.max_pool2d, 3: F.max_pool3d}[x.ndim - 2]
        sides = [stride if side > 1 else 1 for side in x.shape[2:]]
        x = pool(x, sides, sides, [side // 2 for side in sides])
    reach = [min(radius, side) for side in x.shape[2:]]
    kept = [side - size + 1 for side, size in zip(x.shape[2:], reach, strict=True)]
    shifts = product(*map(range, reach))
    views = [x[:, :, *(slice(at, at + n) for at, n in zip(shift, kept, strict=True))] for shift in shifts]
    vectors = torch.stack([view.flatten(2) for view in views], 2).double()
    return vectors - vectors.mean(3, keepdim=True)


def _unexplained(true, predicted):
    """The part of the covariance of ``true`` that a linear map of ``predicted`` leaves, (n, k, d, d); sums
    instead of means, as in the authors' code, so that the ridge is small beside them.
    """
    across = true @ predicted.mT
    ridge = RIDGE * torch.eye(true.shape[2], dtype=true.dtype, device=true.device)
    explained = across @ torch.linalg.solve_ex(predicted @ predicted.mT + ridge, across.mT).result
    return true @ true.mT - explained + ridge


def _log_det(matrix):
    """log det of positive definite matrices; without the look at success that would wait for a GPU."""
    factor = torch.linalg.cholesky_ex(matrix).L
    return 2 * (factor.diagonal(dim1=-2, dim2=-1) + 1e-8).log().sum(-1)
