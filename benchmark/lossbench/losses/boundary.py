"""Losses that weigh an error by its distance from the true boundary; the distances come as data, computed
once.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import loss
from lossbench.losses import reduce as r
from lossbench.losses.compound import dice_ce


def distances_of(px, distance_map, ids):
    """The chosen classes of the signed distance map, (n, k, m), zero on void pixels."""
    n, c, m = px.z.shape
    if distance_map.shape != (n, c, *px.space):
        raise UserError(
            f"distance_map has shape {tuple(distance_map.shape)}, the batch needs "
            f"{(n, c, *px.space)}: one signed distance per class, image and pixel"
        )
    return r.mask(distance_map.to(px.z).reshape(n, c, m)[:, list(ids)], px)


@loss(
    "boundary",
    family="boundary",
    cite="Kervadec 2019",
    formula="a (Dice + CE) + (1-a) mean_{i,c} φ_c(i) p_ic, a = max(1 - progress, floor), φ < 0 inside",
    tune={"floor": (0.01, 0.5)},
    penalises_empty=True,
    empty=(
        "penalises false positives through Dice + CE; its own term is 0, for an absent class has no distances"
    ),
    cost="2.0x",
)
def boundary(
    logits,
    target,
    *,
    progress,
    distance_map,
    schedule: Literal["rebalance", "increase", "constant", "alone"] = "rebalance",
    boundary_weight=1.0,
    floor=0.1,
    over: r.Over = "sample",
    classes="fg",
    smooth=1e-5,
    ignore_index=None,
):
    """Kervadec's boundary loss beside Dice + CE.

    ``distance_map (N, C, *S)``: signed distance φ, negative inside; ``progress`` t from 0 to 1. Schedules:
    "rebalance" a R + (1-a) B with a = max(1-t, floor), "increase" R + t B, "constant" R + B, "alone" B; R is
    Dice + CE and B the mean of φ p over classes and pixels, times ``boundary_weight``. B is negative near the
    perfect prediction."""
    r.one_of(("rebalance", "increase", "constant", "alone"), schedule=schedule)
    r.at_least(0, boundary_weight=boundary_weight)
    r.between(0, 1, floor=floor)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    # φ is negative inside: mass inside the object lowers the value, mass far outside raises it most.
    flux = r.probabilities(px, ids) * distances_of(px, distance_map, ids)
    border = boundary_weight * flux.sum() / (r.total(px) * len(ids))
    if schedule == "alone":
        return border
    # Where little is predicted the term and its slope are close to 0: it needs a region loss beside it.
    region = dice_ce(logits, target, over=over, classes=classes, smooth=smooth, ignore_index=ignore_index)
    a = max(1 - progress, floor)
    # The shares are those of the paper; progress replaces its count of epochs.
    a, b = {"rebalance": (a, 1 - a), "increase": (1, progress), "constant": (1, 1)}[schedule]
    return a * region + b * border


@loss(
    "gen_surface",
    family="boundary",
    cite="Celaya 2023",
    formula="a (Dice + CE) + (1-a) [1 - Σ_c w_c Σ (D(1-g-p))² / Σ_c w_c Σ D²], w = 1/(G²+1), a = 1 - t",
    released=(
        "the authors' first code (aecelaya/gen-surf-loss) is the paper's; their MIST of today takes the mean "
        "over images and foreground classes of ratios without weights: variant='released', classes='fg'"
    ),
    penalises_empty=True,
    empty="penalises false positives through Dice + CE while they have a share",
    aliases=("generalized_surface",),
    cost="2.8x",
)
def gen_surface(
    logits,
    target,
    *,
    progress,
    distance_map,
    schedule: Literal["linear", "constant", "alone"] = "linear",
    over: r.Over = "sample",
    classes="all",
    smooth=1e-5,
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Generalized surface loss beside Dice + CE, bounded by 0 and 1 whatever the scale of the distances.

    ``schedule``: "linear" moves from Dice + CE to the surface term with ``progress``, "constant" takes the
    mean of both, "alone" the surface term. ``over``, ``classes`` and ``smooth`` speak of the surface term;
    of ``smooth`` the denominator's part alone is used. ``variant="released"``: one ratio for each class,
    without weights, and their mean."""
    r.one_of(r.VARIANT, variant=variant)
    r.one_of(("linear", "constant", "alone"), schedule=schedule)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    d = distances_of(px, distance_map, ids)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    top, bottom = r.pool((d * (1 - g - p)) ** 2, over), r.pool(d * d, over)
    # No smoothing of the numerator: it would reward an image without any boundary.
    s_n, s_d = r.smoothing(smooth)
    if variant == "paper":
        # Large classes weigh less, as in generalized Dice; the 1 is for absent ones.
        w = 1 / (r.pool(g, over) ** 2 + 1)
        scale = (w * bottom).amax(1, keepdim=True).clamp_min(1e-20)  # smoothing is relative to the largest
        top, bottom = (w * top / scale).sum(1), (w * bottom / scale).sum(1)
    surface = (1 - r.ratio(top, bottom, (0 * s_n, s_d))).mean()
    if schedule == "alone":
        return surface
    a = 1 - progress if schedule == "linear" else 0.5
    return a * dice_ce(logits, target, ignore_index=ignore_index) + (1 - a) * surface


@loss(
    "hausdorff_dt",
    family="boundary",
    cite="Karimi & Salcudean 2019",
    formula="mean_{i,c} (p - g)² (d_p^α + d_g^α), d the distance to the boundary of the thresholded region",
    released=(
        "LIVIAETS/boundary-loss measures distances inside the regions alone, those of the prediction in "
        "whole pixels, and predicted is what is most probable; MONAI is as here"
    ),
    tune={"alpha": (0.5, 3.0)},
    penalises_empty=True,
    empty="d_g = 0, but d_p weighs false positives by their distance to the predicted boundary",
    cost="16.7x",
)
def hausdorff_dt(
    logits,
    target,
    *,
    alpha=2.0,
    classes="fg",
    variant: r.Variant = "paper",
    ignore_index=None,
):
    """Hausdorff loss by distance transforms, in pixels: every step transforms the prediction, hence its
    price.

    A region that is empty or fills the image has no boundary and distance 0. ``variant="released"``: 0
    outside of the regions, so that a false positive costs by its own depth, and what is missed by the depth
    of the object; of the class that is most probable at each pixel, in whole pixels."""
    r.one_of(r.VARIANT, variant=variant)
    r.at_least(0, alpha=alpha)
    px = r.see(logits, target, ignore_index)
    ids = r.class_ids(classes, px.n_classes)
    p, g = r.probabilities(px, ids), r.truth(px, ids)
    # The distances are no part of the gradient: thresholding has none.
    inside = variant == "released"
    marked = r.most_probable(px, ids) if inside else p.detach()
    d_p, d_g = (_unsigned_distance(r.image(x, px), inside).reshape(p.shape) for x in (marked, g))
    # The released code keeps the predicted distances among integers.
    d_p = d_p.floor() if inside else d_p
    return ((p - g) ** 2 * (d_p**alpha + d_g**alpha)).sum() / (r.total(px) * len(ids))


@loss(
    "log_hausdorff_dt",
    family="boundary",
    cite="Karimi & Salcudean 2019; logarithm: MONAI 2023",
    formula="log(1 + Hausdorff DT)",
    tune={"alpha": (0.5, 3.0)},
    penalises_empty=True,
    empty="as hausdorff_dt, and less where that is large",
    cost="15.0x",
)
def log_hausdorff_dt(logits, target, *, alpha=2.0, classes="fg", ignore_index=None):
    """The logarithm of 1 + the Hausdorff loss, whose values then are of the size of other losses'."""
    return hausdorff_dt(logits, target, alpha=alpha, classes=classes, ignore_index=ignore_index).log1p()


def _unsigned_distance(region, inside_only=False):
    """Distance of every pixel to the other side of the boundary of ``region > 0.5``, (n, k, *s)."""
    from scipy.ndimage import distance_transform_edt

    field = np.zeros(region.shape, np.float32)
    # scipy transforms one region at a time; on a GPU this waits for the device, hence the price.
    for index in np.ndindex(*region.shape[:2]):
        inside = (region[index] > 0.5).cpu().numpy()
        if inside.any() and not inside.all():
            field[index] = distance_transform_edt(inside)
            if not inside_only:
                field[index] += distance_transform_edt(~inside)
    return torch.from_numpy(field).to(region)
