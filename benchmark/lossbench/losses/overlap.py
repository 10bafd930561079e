"""Losses that compare a predicted region with the true one by a ratio of sums, class by class: the Dice
family.
"""

from __future__ import annotations

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r


# The ratio is taken once per image and class, never per pixel. An empty image has TP = G = 0, so the loss
# is P / (P + s) there: near 1, with a slope of s / (P + s)² that only a large s makes visible.
@loss(
    "dice",
    family="overlap",
    cite="Milletari 2016; linear denominator: Drozdzal 2016",
    formula="1 - (2 TP + s) / (P + G + s)",
    tune={"smooth": (1e-05, 1.0)},
    penalises_empty=False,
    empty=(
        "loss near 1 for any false positive, but a gradient of s/(P+s)² per pixel: no signal unless s is "
        "large; where many images are empty, to mark nothing costs less, and long training may find it"
    ),
    aliases=("soft_dice",),
    cost="0.7x",
)
def dice(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice loss, linear denominator, of the foreground classes of each image.

    TP = Σ p g, P = Σ p, G = Σ g over the pixels of a sample (or of the batch); the mean runs over classes and
    samples. ``smooth``: one number, or (numerator, denominator). ``absent="skip"`` leaves classes out that
    the image lacks."""
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.average(1 - r.ratio(2 * s.tp, s.p + s.g, smooth), s.g, absent)


# A loss of its own although dice(classes="all") is the same: it is the default of other libraries, and
# published results that say "Dice" mean it.
@loss(
    "dice_all",
    family="overlap",
    cite="Milletari 2016; with background: MONAI's default",
    formula="1 - (2 TP + s) / (P + G + s), mean over all classes, background too",
    penalises_empty=True,
    empty="the background's own Dice term penalises false positives",
    aliases=("dice_with_background",),
    cost="1.0x",
)
def dice_all(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="all",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice loss with the background in the mean, per image."""
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.average(1 - r.ratio(2 * s.tp, s.p + s.g, smooth), s.g, absent)


# One ratio for the whole batch: images without the class are then judged beside those that have it.
@loss(
    "batch_dice",
    family="overlap",
    cite="Kamnitsas 2017 (DeepMedic); Isensee 2021 (nnU-Net)",
    formula="1 - (2 TP + s) / (P + G + s), sums over the batch",
    penalises_empty=False,
    empty="an empty image is penalised beside images with the class; a batch of empty images gives no signal",
    cost="0.7x",
)
def batch_dice(
    logits,
    target,
    *,
    over: r.Over = "batch",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice loss with sums over the whole batch; DeepMedic's is ``batch_dice(classes="all")``."""
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.average(1 - r.ratio(2 * s.tp, s.p + s.g, smooth), s.g, absent)


@loss(
    "dice_squared",
    family="overlap",
    cite="Milletari 2016",
    formula="1 - (2 TP + s) / (Σ p² + Σ g² + s)",
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("vnet_dice",),
    cost="0.8x",
)
def dice_squared(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice loss with squared denominator (V-Net); without smoothing Σ (p-g)² / (Σ p² + Σ g²)."""
    # Σ g² = Σ g for hard labels, so only the prediction is squared.
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    tp, g_sum = r.pool(p * g, over), r.pool(g, over)
    return r.average(1 - r.ratio(2 * tp, r.pool(p * p, over) + g_sum, smooth), g_sum, absent)


@loss(
    "log_dice",
    family="overlap",
    cite="Wong 2018",
    formula="-log[(2 TP + s) / (P + G + s)]",
    penalises_empty=True,
    empty="pulls P towards 0 with slope 1/(P + s), so it speaks up on empty images",
    cost="0.7x",
)
def log_dice(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Negative log of the soft Dice: the gradient of Dice divided by Dice; ``smooth`` must be positive."""
    # Two logarithms instead of that of a ratio: both stay finite as long as each is smoothed.
    s_n, s_d = r.smoothing(smooth)
    r.at_least(r.TINY, smooth=min(s_n, s_d))
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.average((s.p + s.g + s_d).log() - (2 * s.tp + s_n).log(), s.g, absent)


@loss(
    "jaccard",
    family="overlap",
    cite="Rahman & Wang 2016",
    formula="1 - (TP + s) / (P + G - TP + s)",
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("iou", "soft_iou"),
    cost="0.7x",
)
def jaccard(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Jaccard (IoU) loss; without smoothing J = D / (2 - D)."""
    # P + G - TP is the union, counted once.
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.average(1 - r.ratio(s.tp, s.p + s.g - s.tp, smooth), s.g, absent)


def tversky_index(logits, target, fp_weight, fn_weight, over, classes, smooth, ignore_index):
    """(TP + s) / (TP + a FP + b FN + s) per image and class, and G; a weighs false positives, b false
    negatives.
    """
    r.at_least(0, fp_weight=fp_weight, fn_weight=fn_weight)
    a, b = fp_weight, fn_weight
    # FP = P - TP and FN = G - TP: the denominator needs no sums beyond the three.
    s = r.region_sums(r.see(logits, target, ignore_index), classes, over)
    return r.ratio(s.tp, (1 - a - b) * s.tp + a * s.p + b * s.g, smooth), s.g


@loss(
    "tversky",
    family="overlap",
    cite="Salehi 2017",
    formula="1 - (TP + s) / (TP + a FP + b FN + s)",
    tune={"fp_weight": (0.1, 0.9)},
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    cost="0.7x",
)
def tversky(
    logits,
    target,
    *,
    fp_weight=0.3,
    fn_weight=0.7,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Tversky loss; (.5, .5) is Dice, (1, 1) is Jaccard; the defaults, for recall, are the paper's."""
    # The parameters say what is weighed, for libraries disagree on which letter is which.
    index, g = tversky_index(logits, target, fp_weight, fn_weight, over, classes, smooth, ignore_index)
    return r.average(1 - index, g, absent)


@loss(
    "focal_tversky",
    family="overlap",
    cite="Abraham & Khan 2019",
    formula="mean_c (1 - TI_c)^(1/γ)",
    tune={"gamma": (0.5, 3.0)},
    penalises_empty=False,
    empty="as tversky: no signal unless s is large",
    cost="0.8x",
)
def focal_tversky(
    logits,
    target,
    *,
    gamma=1.3333333333333333,
    fp_weight=0.3,
    fn_weight=0.7,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Tversky loss of each class raised to 1/γ (not the mean raised); γ = 1 is Tversky.

    For γ above 1 the slope at a perfect class is kept finite: 1e-7 is added before the power."""
    r.at_least(1e-3, gamma=gamma)
    # The power is taken class by class: of the mean, as some libraries do, it is another loss.
    index, g = tversky_index(logits, target, fp_weight, fn_weight, over, classes, smooth, ignore_index)
    return r.average(r.bounded_power(1 - index, 1 / gamma), g, absent)


@loss(
    "dsc_pp",
    family="overlap",
    cite="Yeung 2023",
    formula="1 - (2 TP + s) / (2 TP + Σ FN_i^γ + Σ FP_i^γ + s), FN_i = g(1-p), FP_i = (1-g)p",
    tune={"gamma": (1.0, 4.0)},
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("dice_plus_plus",),
    cost="0.8x",
)
def dsc_pp(
    logits,
    target,
    *,
    gamma=2.0,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Dice++: each pixel's error is raised to γ before summing, which forgives half-hearted errors; γ = 1 is
    Dice.
    """
    r.at_least(1, gamma=gamma)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    error = (g - p) ** 2 if gamma == 2 else (g - p).abs() ** gamma  # FN_i and FP_i never meet in one pixel
    # TP enters numerator and denominator alike; only the errors are raised to γ.
    tp = r.pool(p * g, over)
    return r.average(1 - r.ratio(2 * tp, 2 * tp + r.pool(error, over), smooth), r.pool(g, over), absent)


@loss(
    "dice_semimetric",
    family="overlap",
    cite="Wang 2023",
    formula="1 - (‖p‖₁ + ‖g̃‖₁ - ‖p-g̃‖₁ + s) / (‖p‖₁ + ‖g̃‖₁ + s), g̃ = (1-ε) g + ε/C",
    tune={"epsilon": (0.0, 0.3)},
    penalises_empty=True,
    empty="the soft label ε/C is a target of its own: both more and less than ε/C are penalised",
    aliases=("soft_label_dice",),
    cost="0.8x",
)
def dice_semimetric(
    logits,
    target,
    *,
    epsilon=0.1,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Dice for soft labels, zero exactly where the prediction is the label; ε smooths the labels, ε = 0 is
    Dice.
    """
    r.between(0, 1, epsilon=epsilon)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, hard = r.probabilities(px, ids), r.truth(px, ids)
    # Void pixels get no share of the smoothed label either.
    g = r.mask((1 - epsilon) * hard + epsilon / px.n_classes, px)
    total = r.pool(p, over) + r.pool(g, over)
    # (|p| + |g| - |p - g|) / 2 = Σ min(p, g): TP for hard labels, and for soft ones |g| exactly where p = g.
    score = r.ratio(total - r.pool((p - g).abs(), over), total, smooth)
    return r.average(1 - score, r.pool(hard, over), absent)


def shares_and_errors(logits, target, over, classes, ignore_index):
    """Σ p + Σ q, Σ |p - q| and Σ q of the chosen classes, (n|1, k), against class ids or shares q."""
    px, q = r.see_shares(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, q = r.probabilities(px, ids), r.chosen(q, ids)
    size = r.pool(q, over)
    return r.pool(p, over) + size, r.pool((p - q).abs(), over), size


@loss(
    "dice_soft",
    family="overlap",
    cite="Wang 2023 (Dice semimetric losses)",
    formula="1 - (Σ p + Σ q - Σ|p-q| + s) / (Σ p + Σ q + s), q the shares of the class",
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("dice_semimetric_of_shares",),
    soft=True,
    cost="0.8x",
)
def dice_soft(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Dice against shares of the classes, 0 exactly where the prediction is the share; of class ids it is
    ``dice``.

    ``target``: shares (N, C, *S) of floats, all 0 where void, or class ids (N, *S). Dice with TP = Σ p q is
    least at a hard label instead, whatever the shares."""
    total, error, size = shares_and_errors(logits, target, over, classes, ignore_index)
    return r.average(1 - r.ratio(total - error, total, smooth), size, absent)


@loss(
    "jaccard_soft",
    family="overlap",
    cite="Wang 2023 (Jaccard metric losses)",
    formula="1 - (Σ p + Σ q - Σ|p-q| + s) / (Σ p + Σ q + Σ|p-q| + s), q the shares of the class",
    penalises_empty=False,
    empty="as dice: no signal unless s is large",
    aliases=("jml", "jaccard_metric"),
    soft=True,
    cost="0.7x",
)
def jaccard_soft(
    logits,
    target,
    *,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Jaccard against shares of the classes, the first of the paper's two; of class ids it is ``jaccard``.

    ``target``: shares (N, C, *S) of floats, all 0 where void, or class ids (N, *S)."""
    total, error, size = shares_and_errors(logits, target, over, classes, ignore_index)
    return r.average(1 - r.ratio(total - error, total + error, smooth), size, absent)
