"""How a loss is written in MONAI, segmentation-models-pytorch (SMP) and nnU-Net: what the answer of a sweep
prints and what ``lossbench export`` writes. Tests build what stands here and compare it with our loss.

A spelling is exact: the same value and gradient for targets that hold every class. A loss that a library does
not have has no spelling there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lossbench.catalogue.registry import LossSpec, LossTerm

LIBRARIES = ("monai", "smp", "nnunet")


class Code(NamedTuple):
    """Python that builds a loss, and an expression that calls it.

    ``call`` speaks of ``loss``, ``logits`` (N, C, *S) and ``target`` (N, *S), integer class ids; ``void`` is
    the argument of ``make`` by which it leaves out a class id, where it can."""

    imports: str
    make: str
    call: str = "loss(logits, target)"
    void: str = ""

    def without(self, label: str) -> str:
        """Return ``make`` that leaves out a class id, the value of a variable, unless that is None."""
        start = self.make.removesuffix(")")
        # The cross-entropy of torch takes no None.
        given = f'**({{}} if {label} is None else {{"{self.void}": {label}}})'
        return f"{start}{'' if start.endswith('(') else ', '}{given})"


def spelled(loss: LossSpec) -> dict[str, str]:
    """Return how a loss is written in each library that has it, for data of ``n_classes`` classes; libraries
    without it are left out.

    What is called as it is built is its constructor alone; else the call stands behind it."""
    known = {library: code(loss, library) for library in LIBRARIES}
    return {library: _shown(own) for library, own in known.items() if own}


def _shown(own: Code) -> str:
    # The channel of the target is the library's custom, and stands in its pages.
    usual = own.call in ("loss(logits, target)", _CHANNEL)
    return own.make if usual else f"loss = {own.make}; {own.call}"


def code(loss: LossSpec, library: str, classes: int | None = None) -> Code | None:
    """Return the code of a loss of one summand in a library; None where it has no counterpart.

    ``classes``: their number; without it the code calls it ``n_classes``."""
    if len(loss.terms) != 1 or loss.terms[0].weight != 1 or loss.terms[0].library:
        return None
    term: LossTerm = loss.terms[0]
    write = WRITERS[library].get(term.name)
    return write(term.params, classes) if write else None


Params = Mapping[str, Any]


def _plain(p: Params, **others: Any) -> bool:
    """Return whether all parameters but the named ones are what the libraries have, too."""
    usual = {"absent": "eps", "smooth": 1e-5, "weights": None, "alpha": None, "ignore_index": None, **others}
    return all(p.get(name, value) == value for name, value in usual.items())


_CE = Code("from torch import nn", "nn.CrossEntropyLoss()")


def _ce(p: Params, classes: int | None) -> Code | None:
    return _CE if _plain(p, over="batch") else None


# --- MONAI: its losses take one channel of class ids, (N, 1, *S)

_CHANNEL = "loss(logits, target.unsqueeze(1))"


def _monai(name: str, arguments: str, call: str = _CHANNEL) -> Code:
    every = f"{arguments}, " if arguments else ""
    return Code(f"from monai.losses import {name}", f"{name}({every}to_onehot_y=True, softmax=True)", call)


def _reduction(p: Params, by_default: str = "sample") -> str | None:
    """Return the arguments of MONAI's Dice that say what is averaged over what; None for a list of
    classes.
    """
    if p.get("classes") not in ("fg", "all"):
        return None
    parts = ["include_background=False"] if p["classes"] == "fg" else []
    parts += ["batch=True"] if p.get("over", by_default) == "batch" else []
    return ", ".join(parts)


def _monai_dice(p: Params, classes: int | None, extra: str = "", name: str = "DiceLoss") -> Code | None:
    how = _reduction(p)
    if how is None or not _plain(p):
        return None
    return _monai(name, ", ".join(filter(None, (how, extra))))


def _monai_dice_ce(p: Params, classes: int | None) -> Code | None:
    weights = {"lambda_dice": p["dice_weight"], "lambda_ce": p["ce_weight"]}
    extra = ", ".join(f"{key}={value}" for key, value in weights.items() if value != 1)
    return _monai_dice(p, classes, extra, "DiceCELoss")


def _monai_tversky(p: Params, classes: int | None) -> Code | None:
    return _monai_dice(p, classes, f"alpha={p['fp_weight']}, beta={p['fn_weight']}", "TverskyLoss")


def _monai_focal(p: Params, classes: int | None) -> Code | None:
    if not _plain(p, over="batch"):
        return None
    # Its mean runs over classes, too; ours over pixels.
    made = f"FocalLoss(gamma={p['gamma']}, to_onehot_y=True, use_softmax=True)"
    return Code("from monai.losses import FocalLoss", made, f"logits.shape[1] * {_CHANNEL}")


# --- SMP: all its region losses sum over the batch; one image at a time they are those of an image

_EACH = "torch.stack([loss(z[None], y[None]) for z, y in zip(logits, target)]).mean()"


def _smp(name: str, p: Params, classes: int | None, extra: str = "") -> Code | None:
    if p.get("classes") not in ("fg", "all") or not _plain(p):
        return None
    every = "list(range(1, n_classes))" if classes is None else list(range(1, classes))
    own = "" if p["classes"] == "all" else f"classes={every}, "
    made = f'{name}("multiclass", {own}{extra}smooth=1e-5)'
    imports = f"from segmentation_models_pytorch.losses import {name}"
    return Code(imports, made, "loss(logits, target)" if p["over"] == "batch" else _EACH)


def _smp_dice(p: Params, classes: int | None) -> Code | None:
    return _smp("DiceLoss", p, classes)


def _smp_tversky(p: Params, classes: int | None) -> Code | None:
    return _smp("TverskyLoss", p, classes, f"alpha={p['fp_weight']}, beta={p['fn_weight']}, ")


def _smp_dice_ce(p: Params, classes: int | None) -> Code | None:
    own = _smp("DiceLoss", p, classes)
    if own is None:
        return None
    ce = "torch.nn.functional.cross_entropy(logits, target)"
    weighted = [(p["dice_weight"], own.call), (p["ce_weight"], ce)]
    terms = [call if weight == 1 else f"{weight:g} * {call}" for weight, call in weighted]
    return own._replace(call=" + ".join(terms))


# --- nnU-Net: Dice losses are minus Dice, one less than ours; targets have a channel

_NNUNET = "nnunetv2.training.loss"

_SOFT = "MemoryEfficientSoftDiceLoss"


def _nnunet_dice(p: Params, classes: int | None) -> Code | None:
    if p.get("classes") not in ("fg", "all") or not _plain(p):
        return None
    imports = (
        f"from {_NNUNET}.dice import {_SOFT}\nfrom nnunetv2.utilities.helpers import softmax_helper_dim1"
    )
    return Code(imports, f"{_SOFT}(softmax_helper_dim1, {_nnunet_options(p)})", _CHANNEL)


def _nnunet_options(p: Params) -> str:
    return f"batch_dice={p['over'] == 'batch'}, do_bg={p['classes'] == 'all'}, smooth=1e-5, ddp=False"


def _nnunet_dice_ce(p: Params, classes: int | None) -> Code | None:
    if p.get("classes") not in ("fg", "all") or not _plain(p):
        return None
    weights = f"weight_ce={p['ce_weight']:g}, weight_dice={p['dice_weight']:g}"
    made = f"DC_and_CE_loss(dict({_nnunet_options(p)}), {{}}, {weights}, dice_class={_SOFT})"
    imports = f"from {_NNUNET}.compound_losses import DC_and_CE_loss\nfrom {_NNUNET}.dice import {_SOFT}"
    return Code(imports, made, _CHANNEL, "ignore_label")


def _nnunet_ce(p: Params, classes: int | None) -> Code | None:
    imports = f"from {_NNUNET}.robust_ce_loss import RobustCrossEntropyLoss"
    made = Code(imports, "RobustCrossEntropyLoss()", _CHANNEL, "ignore_index")
    return made if _plain(p, over="batch") else None


Writer = Callable[[Params, int | None], Code | None]

WRITERS: dict[str, dict[str, Writer]] = {
    "monai": {
        "ce": _ce,
        **dict.fromkeys(("dice", "batch_dice", "dice_all"), _monai_dice),
        "dice_ce": _monai_dice_ce,
        "tversky": _monai_tversky,
        "focal": _monai_focal,
    },
    "smp": {
        "ce": _ce,
        **dict.fromkeys(("dice", "batch_dice", "dice_all"), _smp_dice),
        "dice_ce": _smp_dice_ce,
        "tversky": _smp_tversky,
    },
    "nnunet": {
        "ce": _nnunet_ce,
        **dict.fromkeys(("dice", "batch_dice", "dice_all"), _nnunet_dice),
        "dice_ce": _nnunet_dice_ce,
    },
}
