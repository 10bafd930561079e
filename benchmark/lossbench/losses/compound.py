"""Sums of a distribution loss and an overlap loss, fixed or moving with training."""

from __future__ import annotations

from typing import Literal

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r
from lossbench.losses.overlap import dice
from lossbench.losses.pixel import ce, focal, topk_ce


# The weights are named after their terms: α and 1 - α mean opposite things in different papers.
@loss(
    "dice_ce",
    family="compound",
    cite="Taghanaki 2019; Isensee 2021 (nnU-Net)",
    formula="w_d Dice + w_c CE",
    tune={"dice_weight": (0.1, 3.0)},
    penalises_empty=True,
    empty="penalises false positives through the cross-entropy",
    aliases=("ce_dice",),
    cost="1.7x",
)
def dice_ce(
    logits,
    target,
    *,
    dice_weight=1.0,
    ce_weight=1.0,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice plus cross-entropy; ``over``, ``classes``, ``absent`` and ``smooth`` are those of Dice."""
    r.at_least(0, dice_weight=dice_weight, ce_weight=ce_weight)
    overlap = dice(
        logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index
    )
    return dice_weight * overlap + ce_weight * ce(logits, target, ignore_index=ignore_index)


@loss(
    "dice_focal",
    family="compound",
    cite="Zhu 2019",
    formula="w_d Dice + w_f Focal",
    tune={"dice_weight": (0.1, 3.0)},
    penalises_empty=True,
    empty="penalises false positives through the focal term",
    cost="1.8x",
)
def dice_focal(
    logits,
    target,
    *,
    dice_weight=1.0,
    focal_weight=1.0,
    gamma=2.0,
    alpha=None,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice plus softmax focal loss."""
    r.at_least(0, dice_weight=dice_weight, focal_weight=focal_weight)
    overlap = dice(
        logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index
    )
    # The focal part is a softmax focal loss; in some libraries it is one sigmoid per class.
    pixels = focal(logits, target, gamma=gamma, alpha=alpha, ignore_index=ignore_index)
    return dice_weight * overlap + focal_weight * pixels


@loss(
    "dice_topk",
    family="compound",
    cite="Isensee 2021 (nnU-Net)",
    formula="w_d Dice + w_t TopK-CE",
    tune={"dice_weight": (0.1, 3.0)},
    penalises_empty=True,
    empty="penalises the worst false positives through the top-k term",
    cost="2.3x",
)
def dice_topk(
    logits,
    target,
    *,
    dice_weight=1.0,
    topk_weight=1.0,
    percent=10.0,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice plus the mean cross-entropy of the hardest ``percent`` of the pixels of the batch."""
    r.at_least(0, dice_weight=dice_weight, topk_weight=topk_weight)
    overlap = dice(
        logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index
    )
    # The hardest pixels are sought in the whole batch, whatever ``over`` says of Dice.
    pixels = topk_ce(logits, target, percent=percent, ignore_index=ignore_index)
    return dice_weight * overlap + topk_weight * pixels


@loss(
    "ce_to_dice",
    family="compound",
    cite="Galdran 2022",
    formula=(
        "a(t) CE + (1 - a(t)) Dice; linear a = 1 - t, combo a = 1/2, finetune a = 1 until t > switch, then 0"
    ),
    tune={"switch": (0.5, 0.95)},
    penalises_empty=True,
    empty="penalises false positives while cross-entropy has a share",
    cost="1.7x",
)
def ce_to_dice(
    logits,
    target,
    *,
    progress,
    schedule: Literal["linear", "combo", "finetune"] = "linear",
    switch=0.9,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """From cross-entropy to Dice as training proceeds; ``progress`` t runs from 0 to 1."""
    r.one_of(("linear", "combo", "finetune"), schedule=schedule)
    r.between(0, 1, switch=switch)
    # Of progress alone: no schedule follows a loss value, or runs would not be comparable.
    a = {"linear": 1 - progress, "combo": 0.5, "finetune": float(progress <= switch)}[schedule]
    overlap = dice(
        logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index
    )
    return a * ce(logits, target, ignore_index=ignore_index) + (1 - a) * overlap


@loss(
    "unified_focal",
    family="compound",
    cite="Yeung 2022",
    formula="l maF + (1-l) maFT; maF = mean_i [δ -log p_y | rare; (1-δ)(1-p_y)^γ -log p_y | else]; "
    "maFT = Σ_rare (1-mTI_c)^(1-γ) + Σ_else (1-mTI_c), mTI = (TP+s)/(TP + δ FN + (1-δ) FP + s)",
    released=(
        "mlyg/unified-focal-loss gives l to the Tversky part, 1-l to the focal part, and takes the mean of "
        "the Tversky terms of both classes; it clips p at 1e-7. MONAI halves the focal part besides"
    ),
    tune={"delta": (0.5, 0.9), "gamma": (0.1, 0.9)},
    penalises_empty=True,
    empty="penalises false positives through the focal term and the background's Tversky term",
    aliases=("asymmetric_unified_focal",),
    cost="3.3x",
)
def unified_focal(
    logits,
    target,
    *,
    weight=0.5,
    delta=0.6,
    gamma=0.5,
    rare="fg",
    symmetric=False,
    over: r.Over = "sample",
    smooth=1e-5,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Unified focal loss: focal suppression for common classes, focal enhancement for ``rare`` ones.

    ``weight`` l between focal and focal Tversky part; ``delta`` weighs false negatives; ``gamma`` 0 to 1. The
    sums over classes are sums, as in the paper, for any number of classes. ``symmetric``: suppression and
    enhancement for all classes. ``weight=1`` is the asymmetric focal loss alone, 0 the Tversky part (the
    other way round with ``variant="released"``). Before a power below 1, 1e-7 is added, so that the slope at
    what is perfect stays finite."""
    r.one_of(r.VARIANT, variant=variant)
    r.between(0, 1, weight=weight, delta=delta)
    r.between(0, 0.999, gamma=gamma)
    px = r.see(logits, target, ignore_index)
    rare = r.class_ids(rare, px.n_classes)
    # Rare classes keep their full cost; common ones are suppressed where they are already right.
    is_rare = px.z.new_tensor([float(c in rare) for c in range(px.n_classes)])
    cost = r.nll(px)
    # Per pixel 1 where its true class is a common one, and 0 on void pixels.
    common = r.per_pixel(1 - is_rare, px)
    suppressed = r.bounded_power(1 - (-cost).exp(), gamma) if gamma else 1.0
    of_rare = delta * (1 - common) * (suppressed if symmetric else 1.0)
    focal_part = r.pixel_mean(cost * ((1 - delta) * suppressed * common + of_rare), px)
    s = r.region_sums(px, "all", over)
    # The modified Tversky index has δ for false negatives and 1 - δ for false positives.
    miss = 1 - r.ratio(s.tp, delta * s.g + (1 - delta) * s.p, smooth)
    # An exponent below 1 steepens what is nearly right, for rare classes alone.
    enhanced = r.bounded_power(miss, 1 - gamma)
    if not symmetric:
        enhanced = is_rare * enhanced + (1 - is_rare) * miss
    if variant == "released":
        return weight * enhanced.mean() + (1 - weight) * focal_part
    return weight * focal_part + (1 - weight) * enhanced.sum(1).mean()


@loss(
    "exp_log",
    family="compound",
    cite="Wong 2018",
    formula="w_d mean_c (-ln Dice_c)^γ + w_x mean_i w_{y_i} (-ln p_{i,y_i})^γ, w_c = (Σ_k f_k / f_c)^½",
    tune={"gamma": (0.2, 2.0)},
    penalises_empty=True,
    empty="penalises false positives through both terms",
    cost="3.3x",
)
def exp_log(
    logits,
    target,
    *,
    class_frequency,
    dice_weight=0.8,
    ce_weight=0.2,
    gamma=0.3,
    over: r.Over = "sample",
    classes="all",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Exponential logarithmic loss: logarithms of Dice and of p, raised to γ, so that easy parts keep their
    slope.

    ``class_frequency (C,)``: pixel fractions of the training split. The slope at a perfect pixel is kept
    finite by 1e-7 that is added before a power below 1: at γ = 0.3 such a pixel costs 0.008 of its weight."""
    r.at_least(0, dice_weight=dice_weight, ce_weight=ce_weight)
    r.at_least(1e-3, gamma=gamma)
    s_n, s_d = r.smoothing(smooth)
    r.at_least(r.TINY, smooth=min(s_n, s_d))
    px = r.see(logits, target, ignore_index)
    r.one_per_class(px, class_frequency=class_frequency)
    # A class that never occurs in training would get an infinite weight.
    f = r.class_vector(class_frequency, px).clamp_min(1e-6)
    s = r.region_sums(px, classes, over)
    # The logarithm of Dice as a difference, as in log_dice.
    log_dice = (s.p + s.g + s_d).log() - (2 * s.tp + s_n).log()
    overlap = r.average(r.bounded_power(log_dice, gamma), s.g, absent)
    # γ < 1 has an infinite slope at a perfect pixel, which bounded_power cuts off.
    pixels = r.bounded_power(r.nll(px), gamma) * r.per_pixel((f.sum() / f).sqrt(), px)
    return dice_weight * overlap + ce_weight * r.pixel_mean(pixels, px)
