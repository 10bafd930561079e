"""A loss for thin, connected structures: overlap of soft skeletons."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r


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
    cost="55x",
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
