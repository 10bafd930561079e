"""Losses that see the form of what is marked: the lines of thin structures, and objects one by one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r
from lossbench.losses.compound import dice_ce


@loss(
    "cldice",
    family="topology",
    cite="Shit 2021",
    formula=(
        "(1-a) Dice + a [1 - 2 T_p T_s / (T_p + T_s + 1e-4)], T_p = Σ S(p) g / Σ S(p), "
        "T_s = Σ S(g) p / Σ S(g)"
    ),
    released=(
        "jocpae/clDice sums over images and classes before it divides, has no 1e-4, takes 10 iterations "
        "whatever it is given, and all channels: cldice(variant='released', iterations=10, classes='all')"
    ),
    tune={"skeleton_weight": (0.1, 0.9)},
    penalises_empty=True,
    empty="smoothing of 1 pixel gives false positives a slope of 1/(P+1)²",
    aliases=("soft_dice_cldice",),
    dims=(2, 3),
    cost="40.8x",
)
def cldice(
    logits,
    target,
    *,
    skeleton_weight=0.5,
    iterations=3,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1.0,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Dice plus clDice, the overlap of each region with the other's soft skeleton S, for tubular structures.

    ``iterations`` of soft thinning must reach half the width of the structures, in pixels. The 1e-4 in the
    harmonic mean keeps it finite where both parts are 0, which only ``smooth=0`` allows.
    ``variant="released"``: one ratio for all classes and images, and no 1e-4."""
    r.one_of(r.VARIANT, variant=variant)
    r.between(0, 1, skeleton_weight=skeleton_weight)
    r.at_least(0, iterations=iterations)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    # Both skeletons are soft; that of the mask is the usual one up to its ends.
    skeleton_p = soft_skeleton(r.image(p, px), iterations).flatten(2)
    skeleton_g = soft_skeleton(r.image(g, px), iterations).flatten(2)
    # How much of the predicted lines lies in the object, and how much of its lines is covered.
    sums = [r.pool(x, over) for x in (skeleton_p * g, skeleton_p, skeleton_g * p, skeleton_g, p * g, p, g)]
    if variant == "released":
        sums = [x.sum().reshape(1, 1) for x in sums]
    hit, predicted, covered, true, tp, size_p, size = sums
    precision, sensitivity = r.ratio(hit, predicted, smooth), r.ratio(covered, true, smooth)
    # The harmonic mean of both, as F1 is of precision and recall.
    floor = 1e-4 if variant == "paper" else r.TINY
    lines = 1 - 2 * precision * sensitivity / (precision + sensitivity + floor)
    overlap = 1 - r.ratio(2 * tp, size_p + size, smooth)
    return r.average((1 - skeleton_weight) * overlap + skeleton_weight * lines, size, absent)


def soft_skeleton(x, iterations):
    """Differentiable thinning of ``x (n, k, *s)``: what an opening removes, over repeated erosions."""
    skeleton = (x - _open(x)).relu()
    # Each erosion removes a layer; what an opening cannot give back was the ridge of that layer.
    for _ in range(int(iterations)):
        x = _erode(x)
        ridge = (x - _open(x)).relu()
        # The product keeps a pixel that was collected before from being counted twice.
        skeleton = skeleton + (ridge - skeleton * ridge).relu()
    return skeleton


def _max_pool(x, kernel):
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    return pool(x, kernel, stride=1, padding=tuple(k // 2 for k in kernel))


def _erode(x):
    """Minimum over the pixel and its neighbours along the axes."""
    d = x.ndim - 2
    # A minimum is a maximum of negatives, and pooling is what all backends are fast at.
    lines = [-_max_pool(-x, tuple(3 if axis == a else 1 for a in range(d))) for axis in range(d)]
    return torch.stack(lines).amin(0) if d > 2 else torch.minimum(*lines)


def _open(x):
    return _max_pool(_erode(x), (3,) * (x.ndim - 2))


@loss(
    "clce",
    family="topology",
    cite="Acebes 2024 (centerline cross-entropy)",
    formula="w CE + λ mean_i [S(p)_i + S(g)_i] CE_i, mean over classes too, S the soft skeleton",
    tune={"line_weight": (0.1, 10.0)},
    penalises_empty=True,
    empty="penalises false positives through cross-entropy, and more along their lines",
    aliases=("centerline_ce",),
    dims=(2, 3),
    cost="41.8x",
)
def clce(
    logits,
    target,
    *,
    line_weight=1.0,
    ce_weight=1.0,
    iterations=3,
    over: r.Over = "batch",
    classes="fg",
    ignore_index=None,
):
    """Cross-entropy that counts more on the soft skeleton S of the object and on that of the prediction.

    ``iterations`` of soft thinning must reach half the width of the structures, in pixels. Beside Dice, as
    the authors use it too: ``dice(over='batch', smooth=1) + clce(ce_weight=0)``."""
    r.at_least(0, line_weight=line_weight, ce_weight=ce_weight, iterations=iterations)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    cost = r.nll(px)
    p, g = (r.image(x, px) for x in (r.probabilities(px, ids), r.truth(px, ids)))
    # What is missed lies on the lines of the object, what is invented on those of the prediction.
    lines = soft_skeleton(p, iterations) + soft_skeleton(g, iterations)
    weight = ce_weight + line_weight * lines.flatten(2).mean(1)
    return r.pixel_mean(weight * cost, px, over)


@loss(
    "skeleton_recall",
    family="topology",
    cite="Kirchhoff 2024",
    formula="Dice + CE + λ [1 - (Σ p t + s) / (Σ t + s)], t the skeleton of the truth, 2 pixels thicker",
    tune={"recall_weight": (0.1, 3.0)},
    penalises_empty=True,
    empty="penalises false positives through Dice + CE; recall knows none",
    dims=(1, 2, 3),
    cost="7.3x",
)
def skeleton_recall(
    logits,
    target,
    *,
    recall_weight=1.0,
    tube=2,
    over: r.Over = "sample",
    classes="fg",
    absent: r.Absent = "eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Dice and cross-entropy, and how much of the true skeleton is predicted: for thin structures, at the
    price of one thinning of the mask.

    The skeleton is that of all chosen classes together, by scikit-image; it is made ``tube`` pixels thicker
    on each side, and each of its pixels belongs to the class of the mask there."""
    r.at_least(0, recall_weight=recall_weight, tube=tube)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    line = g * _tubes(r.image(g, px).amax(1), tube).flatten(1).unsqueeze(1)
    length = r.pool(line, over)
    recall = r.average(1 - r.ratio(r.pool(p * line, over), length, smooth), length, absent)
    region = dice_ce(
        logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index
    )
    return region + recall_weight * recall


def _tubes(masks, radius):
    """1 within ``radius`` steps along the axes from the skeleton of each of the ``masks (n, *s)``."""
    from scipy.ndimage import binary_dilation
    from skimage.morphology import skeletonize

    tubes = np.zeros(masks.shape, bool)
    # scikit-image thins one mask at a time; on a GPU this waits for the device.
    for index, mask in enumerate((masks > 0).cpu().numpy()):
        # A volume of one layer is an image, whose thinning is another one.
        sides = [side for side in mask.shape if side > 1]
        line = skeletonize(mask.reshape(*sides, *[1] * (2 - len(sides)))).reshape(mask.shape)
        tubes[index] = binary_dilation(line, iterations=int(radius)) if radius else line
    return torch.from_numpy(tubes).to(masks)


@loss(
    "blob",
    family="topology",
    cite="Kofler 2022 (blob loss)",
    formula="α (Dice + CE) + β mean over the blobs of Dice + CE, each on the background and this blob alone",
    released=(
        "neuronflow/blob_loss sets the logits under other blobs to 0, which is p = 1/2 there, and divides by "
        "all pixels: variant='released'"
    ),
    tune={"blob_weight": (0.1, 4.0)},
    penalises_empty=True,
    empty="penalises false positives through Dice + CE; there is no blob",
    aliases=("blob_loss",),
    cost="5.7x",
)
def blob(
    logits,
    target,
    *,
    blob_weight=1.0,
    region_weight=1.0,
    classes="fg",
    smooth=1e-5,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Dice and cross-entropy of the image, and those of each connected object by itself, so that small ones
    count as much as large ones.

    Objects touch along edges and corners. The means run over the objects of an image, images that have any,
    and classes, each against all others."""
    r.one_of(r.VARIANT, variant=variant)
    r.at_least(0, blob_weight=blob_weight, region_weight=region_weight)
    px = r.see(logits, target, ignore_index)
    terms = [_blob_term(px, c, smooth, variant == "released") for c in r.class_ids(classes, px.n_classes)]
    region = dice_ce(logits, target, classes=classes, smooth=smooth, ignore_index=ignore_index)
    return region_weight * region + blob_weight * torch.stack(terms).mean()


def _blob_term(px, c, smooth, released):
    sums = _sums_by_object(px, c, near=False)
    each = sums[..., 1:]
    tp, p, g, cost, size = each + sums[..., :1]
    if released:
        # Under the other blobs all classes are alike, and the truth is background.
        others = each[4].sum(1, keepdim=True) - each[4]
        p = p + others / px.n_classes
        cost = cost - others * float(np.log(1 - 1 / px.n_classes))
        size = size + others
    return _mean_of_objects(_dice_and_ce(tp, p, g, cost, size, smooth), each[2])


@loss(
    "cc_dice_ce",
    family="topology",
    cite="Bouteille 2025 (CC-DiceCE)",
    formula="α (Dice + CE) + mean over the objects of Dice + CE, each on the pixels nearest to that object",
    tune={"region_weight": (0.0, 2.0)},
    penalises_empty=True,
    empty="penalises false positives as cross-entropy: the image is one cell",
    cost="5.9x",
)
def cc_dice_ce(logits, target, *, region_weight=0.0, classes="fg", smooth=0.0, ignore_index=None):
    """Dice and cross-entropy of each Voronoi cell: the pixels that are nearer to one connected object than to
    any other.

    Objects touch along edges and corners. The means run over the cells of an image, images and classes, each
    against all others; an image without objects is one cell. ``region_weight`` α adds those of the whole
    image, as the authors' "global" trainer does."""
    r.at_least(0, region_weight=region_weight)
    px = r.see(logits, target, ignore_index)
    terms = []
    for c in r.class_ids(classes, px.n_classes):
        sums = _sums_by_object(px, c, near=True)
        cells = _dice_and_ce(*sums, smooth)
        # All that has no object to be near to is the first cell, which is empty in other images.
        without = (sums[2, :, 1:].sum(1, keepdim=True) == 0) & (sums[4, :, :1] > 0)
        terms.append(_mean_of_objects(cells, torch.cat([without, sums[2, :, 1:] > 0], 1)))
    cells = torch.stack(terms).mean()
    if not region_weight:
        return cells
    return region_weight * dice_ce(logits, target, classes=classes, ignore_index=ignore_index) + cells


def _dice_and_ce(tp, p, g, cost, size, smooth):
    return 1 - r.ratio(2 * tp, p + g, smooth) + cost / size.clamp_min(1)


def _mean_of_objects(terms, present):
    """Mean of ``terms (n, objects)`` over the objects of an image, then over images that have any."""
    present = (present > 0).to(terms.dtype)
    objects = present.sum(1)
    means = (terms * present).sum(1) / objects.clamp_min(1)
    return means.sum() / (objects > 0).sum().clamp_min(1)


def _sums_by_object(px, c, near):
    """TP, P, G, the cost of class c against all others, and pixels, of each object: (5, n, 1 + objects), what
    belongs to no object first.
    """
    p, g = r.probabilities(px, (c,)), r.truth(px, (c,))
    pixels = r.mask(torch.ones_like(p), px)
    values = torch.cat([p * g, p, g, _binary_nll(px, c).unsqueeze(1), pixels], 1).transpose(0, 1)
    numbers = _objects(r.image(g, px)[:, 0], near).flatten(1)
    sums = values.new_zeros(*values.shape[:2], 1 + int(numbers.max()))
    return sums.scatter_add(2, numbers.expand_as(values), values)


def _binary_nll(px, c):
    """-log p_c where the truth is c and -log (1 - p_c) elsewhere, (n, m), zero on void pixels."""
    if px.n_classes == 2:
        return r.nll(px)
    log_p = r.log_probabilities(px)
    # The sum of the others, for 1 - p would be 0 long before its logarithm is out of reach.
    others = torch.cat([log_p[:, :c], log_p[:, c + 1 :]], 1).logsumexp(1)
    return r.mask(-torch.where(px.y == c, log_p[:, c], others).unsqueeze(1), px).squeeze(1)


def _objects(masks, near):
    """The number of the connected object at each pixel of ``masks (n, *s)``, from 1, and 0 where there is
    none; with ``near`` that of the nearest object, and 0 in an image without any.
    """
    from scipy.ndimage import distance_transform_edt, label

    numbers = np.zeros(masks.shape, np.int64)
    # One mask at a time, on the CPU.
    for index, mask in enumerate((masks > 0).cpu().numpy()):
        objects, count = label(mask, np.ones([3] * mask.ndim))
        if near and count:
            nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            objects = objects[tuple(nearest)]
        numbers[index] = objects
    return torch.from_numpy(numbers).to(masks.device)
