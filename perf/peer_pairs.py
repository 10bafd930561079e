"""Which native loss is the same as which loss of another library, and the inputs on which that is shown.

Used by the parity table (perf/parity.py), by the parity tests and by the frozen constants in tests/golden.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lossbench.catalogue import adapters
from lossbench.catalogue.registry import get_loss, parse_loss
from lossbench.metrics.surface import signed_distances


@dataclass(frozen=True)
class Pair:
    """``native`` = ``factor`` x ``peer``; both are spec strings, ``{C}`` stands for the number of classes."""

    native: str
    peer: str
    factor: str = "1"
    classes: tuple[int, ...] = (2, 3)
    axes: tuple[int, ...] = (2, 3)
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-5  # of the gradient, relative to its largest entry
    shares: bool = False  # the target holds shares of the classes, no class ids
    why: str = ""

    def scale(self, classes: int) -> float:
        return float(classes) if self.factor == "C" else float(self.factor)


MEAN = "the peer divides by pixels times classes"
STEPS = "the peer takes differences of the Jaccard loss, which lose digits in float32"
SHARES = "the target holds shares"
FG = "include_background=False"
PAIRS = (
    Pair("dice", f"monai:DiceLoss({FG})"),
    Pair("dice_all", "monai:DiceLoss"),
    Pair("batch_dice", f"monai:DiceLoss({FG}, batch=True)"),
    Pair("batch_dice(classes='all')", "monai:DiceLoss(batch=True)"),
    Pair("dice_squared", f"monai:DiceLoss({FG}, squared_pred=True)"),
    Pair("dice_squared(over='batch')", f"monai:DiceLoss({FG}, squared_pred=True, batch=True)"),
    Pair("dice_semimetric(epsilon=0)", f"monai:DiceLoss({FG}, soft_label=True)"),
    Pair("dice_soft", f"monai:DiceLoss({FG}, soft_label=True)", shares=True, why=SHARES),
    Pair("jaccard_soft", f"monai:DiceLoss({FG}, soft_label=True, jaccard=True)", shares=True, why=SHARES),
    Pair("jaccard(smooth=0)", f"monai:DiceLoss({FG}, jaccard=True, smooth_nr=0, smooth_dr=0)"),
    Pair("tversky", f"monai:TverskyLoss({FG}, alpha=0.3, beta=0.7)"),
    Pair(
        "tversky(fp_weight=0.8, fn_weight=0.4, over='batch')",
        f"monai:TverskyLoss({FG}, alpha=0.8, beta=0.4, batch=True)",
    ),
    Pair("generalized_dice(smooth=0)", "monai:GeneralizedDiceLoss(smooth_nr=0, smooth_dr=0)"),
    Pair(
        "generalized_dice(weighting='simple', smooth=0)",
        "monai:GeneralizedDiceLoss(w_type='simple', smooth_nr=0, smooth_dr=0)",
    ),
    Pair(
        "generalized_dice(weighting='uniform', smooth=0)",
        "monai:GeneralizedDiceLoss(w_type='uniform', smooth_nr=0, smooth_dr=0)",
    ),
    Pair(
        "generalized_dice(over='batch', smooth=0)",
        "monai:GeneralizedDiceLoss(batch=True, smooth_nr=0, smooth_dr=0)",
    ),
    Pair("focal", "monai:FocalLoss", "C", why=MEAN),
    Pair("focal(gamma=1.5, alpha=0.25)", "monai:FocalLoss(gamma=1.5, alpha=0.25)", "C", why=MEAN),
    Pair("dice_ce", f"monai:DiceCELoss({FG})"),
    Pair("dice_ce(over='batch')", f"monai:DiceCELoss({FG}, batch=True)"),
    Pair("dice_ce(classes='all')", "monai:DiceCELoss"),
    Pair(
        "dice_ce(dice_weight=0.5, ce_weight=2)",
        "0.5*monai:DiceLoss(include_background=False) + 2*torch:CrossEntropyLoss",
    ),
    Pair("dice_focal", "monai:DiceLoss(include_background=False) + {C}*monai:FocalLoss"),
    Pair("mcc", f"monai:MCCLoss({FG})"),
    Pair("mcc(classes='all')", "monai:MCCLoss"),
    Pair("wasserstein_dice", "monai:GeneralizedWassersteinDiceLoss"),
    Pair(
        "wasserstein_dice(distances=[[0, 1, 1], [1, 0, 0.5], [1, 0.5, 0]])",
        "monai:GeneralizedWassersteinDiceLoss(dist_matrix=[[0, 1, 1], [1, 0, 0.5], [1, 0.5, 0]])",
        classes=(3,),
    ),
    Pair(
        "unified_focal(delta=0.7, smooth=1e-7)",
        "monai:AsymmetricUnifiedFocalLoss",
        "2",
        (2,),
        why="MONAI takes means over the two classes where the paper has sums",
    ),
    Pair("boundary(schedule='alone')", "monai:BoundaryLoss"),
    Pair("hausdorff_dt", "monai:HausdorffDTLoss"),
    Pair("log_hausdorff_dt", "monai:LogHausdorffDTLoss"),
    Pair("nacl", "monai:NACLLoss"),
    Pair("cldice", f"monai:SoftDiceclDiceLoss({FG})", classes=(2,)),
    Pair("cldice(skeleton_weight=1)", f"monai:SoftclDiceLoss({FG})", classes=(2,)),
    Pair("batch_dice(smooth=0)", "smp:DiceLoss(classes=[1])", classes=(2,)),
    Pair("batch_dice(classes='all', smooth=0)", "smp:DiceLoss"),
    Pair("log_dice(over='batch', classes='all', smooth=1e-9)", "smp:DiceLoss(log_loss=True)"),
    Pair("jaccard(over='batch', classes='all', smooth=0)", "smp:JaccardLoss"),
    Pair("tversky(over='batch', classes='all', smooth=0)", "smp:TverskyLoss(alpha=0.3, beta=0.7)"),
    Pair(
        "focal_tversky(over='batch', smooth=0)",
        "smp:TverskyLoss(alpha=0.3, beta=0.7, gamma=0.75, classes=[1])",
        classes=(2,),
        why="the peer takes the power of the mean of the classes",
    ),
    Pair("lovasz", "smp:LovaszLoss", tolerance=1e-4, why=STEPS),
    Pair("lovasz(over='sample')", "smp:LovaszLoss(per_image=True)", tolerance=1e-4, why=STEPS),
    Pair("mcc(over='batch')", "smp:MCCLoss", classes=(2,)),
    Pair("ls_ce", "smp:SoftCrossEntropyLoss(smooth_factor=0.1)"),
    Pair("ce", "smp:SoftCrossEntropyLoss"),
    Pair("ce", "smp:SoftBCEWithLogitsLoss", classes=(2,)),
    Pair("focal", "kornia:FocalLoss", "C", why=MEAN),
    Pair("focal(alpha=0.25)", "kornia:FocalLoss(alpha=0.25)", "C", why=MEAN),
    Pair("focal", "kornia:BinaryFocalLossWithLogits", classes=(2,)),
    Pair("generalized_dice(weighting='uniform', smooth=0)", "kornia:DiceLoss", axes=(2,)),
    Pair("dice_all(smooth=0, absent='skip')", "kornia:DiceLoss(average='macro')", axes=(2,)),
    Pair(
        "tversky(classes='all', smooth=0, absent='skip')",
        "kornia:TverskyLoss(alpha=0.3, beta=0.7)",
        axes=(2,),
    ),
    Pair(
        "jaccard(classes='all', smooth=0, absent='skip')",
        "kornia:TverskyLoss(alpha=1.0, beta=1.0)",
        axes=(2,),
    ),
    Pair(
        "lovasz(over='sample', absent='eps')",
        "kornia:LovaszSoftmaxLoss",
        axes=(2,),
        dtype=torch.float64,
        why="in float64",
    ),
    Pair("lovasz_hinge", "kornia:LovaszHingeLoss", classes=(2,), axes=(2,), tolerance=1e-4, why=STEPS),
    Pair("ce", "torch:CrossEntropyLoss"),
    Pair("ce", "torch:BCEWithLogitsLoss", classes=(2,)),
    Pair("ce_soft", "torch:CrossEntropyLoss", shares=True, why=SHARES),
    Pair("ce(weights=[1, 5, 2])", "torch:CrossEntropyLoss(weight=[1, 5, 2])", classes=(3,)),
    Pair("ls_ce(epsilon=0.2)", "torch:CrossEntropyLoss(label_smoothing=0.2)"),
)


def inputs(classes: int, axes: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (3, C, *S) and target (3, *S) without a random generator: the same numbers on every machine and
    version.
    """
    size = (12, 16) if axes == 2 else (6, 8, 4)
    count = 3 * classes * math.prod(size)
    t = torch.arange(count, dtype=torch.float64)
    logits = (2 * torch.sin(12.9898 * t + 0.3) + torch.cos(0.37 * t * t % 6.2831853)).reshape(
        3, classes, *size
    )
    pixels = torch.arange(3 * math.prod(size), dtype=torch.float64)
    target = (
        ((torch.sin(0.11 * pixels) + torch.sin(0.017 * pixels) + 2) / 4 * classes)
        .long()
        .clamp(0, classes - 1)
    )
    return logits.to(dtype), target.reshape(3, *size)


def discs(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two masks that overlap: an ellipse that the border cuts, and the same moved."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    radius = 0.35 * shape[0]
    return tuple(
        (row - radius + move) ** 2 + 0.5 * (column - 0.5 * shape[1] - 2 * move) ** 2 < radius**2
        for move in (2, 0)
    )


def needs(target: torch.Tensor, classes: int, progress: float = 0.5) -> dict:
    """What a trainer supplies: distance maps, class frequencies and progress."""
    spacing = (1.0,) * (target.ndim - 1)
    counts = torch.bincount(target.reshape(-1), minlength=classes).float()
    return {
        "distance_map": torch.from_numpy(signed_distances(target.numpy(), classes, spacing)),
        "class_frequency": counts / counts.sum(),
        "progress": progress,
    }


def value_and_gradient(
    spec: str, classes: int, axes: int, dtype: torch.dtype = torch.float32, shares: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate a spec string on :func:`inputs`, or on shares of the classes in place of their ids."""
    logits, target = inputs(classes, axes, dtype)
    text = spec.replace("{C}", str(classes))
    if shares:
        # Other scores of the classes at each pixel than the logits, so that prediction and target differ.
        target = (0.8 * logits.roll(5, -1)).softmax(1)
        loss, supplied = _of_shares(text), {}
    else:
        loss, supplied = get_loss(parse_loss(text)), needs(target, classes)
    logits.requires_grad_()
    value = loss(logits, target, **supplied)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def _of_shares(text: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a loss that takes shares: of a library its own class, for the adapters take class ids alone."""
    (term,) = parse_loss(text).terms
    if term.library is None:
        return get_loss(text)
    kind = getattr(importlib.import_module(adapters.MODULES[term.library][0]), term.name)
    return kind(**adapters.injected(term.library, term.name) | term.params)
