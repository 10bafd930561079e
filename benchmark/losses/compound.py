"""Sums of a distribution loss and an overlap loss, fixed or moving with training."""

from __future__ import annotations

from benchmark.losses import reduce as r
from benchmark.losses.overlap import dice
from benchmark.losses.pixel import ce
from benchmark.registry import loss


@loss(
    "dice_ce",
    family="compound",
    cite="Taghanaki 2019; Isensee 2021 (nnU-Net)",
    formula="w_d Dice + w_c CE",
    tune={"dice_weight": (0.1, 3.0)},
    penalises_empty=True,
    empty="through the cross-entropy",
    aliases=("ce_dice",),
    cost="2x",
)
def dice_ce(
    logits,
    target,
    *,
    dice_weight=1.0,
    ce_weight=1.0,
    over="sample",
    classes="fg",
    absent="eps",
    smooth=1e-5,
    ignore_index=None,
):
    """Soft Dice plus cross-entropy; ``over``, ``classes``, ``absent`` and ``smooth`` speak of the Dice term."""
    a, b = r.number("dice_weight", dice_weight, 0), r.number("ce_weight", ce_weight, 0)
    overlap = dice(logits, target, over=over, classes=classes, absent=absent, smooth=smooth, ignore_index=ignore_index)
    return a * overlap + b * ce(logits, target, ignore_index=ignore_index)
