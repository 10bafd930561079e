"""Losses beside the code that was released with their papers: ``python -m tools.released FOLDER``.

FOLDER holds clones of the repositories, each named ``owner+name``; nothing is fetched, and what is not there
is skipped. Value and gradient of the released code go to tests/golden/losses_released.json, so that the tests
and the page of parity need neither clones nor a copy of anybody's code.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from skimage.morphology import dilation, skeletonize
from torch import Tensor

from perf.peer_pairs import STEPS, discs, inputs, needs
from tools import arguments

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "losses_released.json"

# Imported by released files for things that no loss of theirs needs.
UNUSED = (
    "config",
    "medpy",
    "medpy.metric",
    "medpy.metric.binary",
    "skimage.io",
    "yacs",
    "yacs.config",
    "pycocotools",
    "pycocotools.mask",
)


@dataclass(frozen=True)
class Released:
    """``native`` is the spec of our loss, ``call(module, logits, target, supplied)`` runs the other code."""

    native: str
    repository: str
    file: str
    call: Callable[[Any, Tensor, Tensor, dict], Tensor]
    what: str  # the class or function there, with the arguments that are given
    classes: tuple[int, ...] = (2, 3)
    axes: tuple[int, ...] = (2, 3)
    note: str = ""


def hot(z: Tensor, y: Tensor) -> Tensor:
    """One-hot target (N, C, *S) of floats."""
    return F.one_hot(y, z.shape[1]).movedim(-1, 1).to(z.dtype)


def last(x: Tensor) -> Tensor:
    """Channels last, as in Keras."""
    return x.movedim(1, -1)


def margin(z: Tensor) -> Tensor:
    """The one channel whose sigmoid is the probability of class 1."""
    return z[:, 1:] - z[:, :1]


def region(name: str, one: bool = False) -> Callable:
    """Return the call of a compound loss of SegLossBias, on all channels or on one."""

    def call(module, z, y, _):
        made = getattr(module, name)("binary" if one else "multiclass", **REGION[name])
        return made(margin(z) if one else z, y)[0]

    return call


# The released settings of the paper, which are the defaults here.
REGION = {
    "CrossEntropyWithL1": {"alpha": 1.0, "temp": 10.0},
    "CrossEntropyWithKL": {"alpha": 1.0, "temp": 10.0},
    "CrossEntropyWithDB": {"alpha": 0.1},
}
BIAS = "by-liu/SegLossBias", "seglossbias/modeling/compound_losses.py"
KERVADEC = "LIVIAETS/boundary-loss", "losses.py"
YEUNG = "mlyg/unified-focal-loss", "loss_functions.py"
KERAS = "2-D, two classes; Keras functions carried out by torch; clips p at 1e-7"

# What nnU-Net sets, without the gathering over several GPUs; it trains with minus Dice.
NNUNET = {"do_bg": False, "smooth": 1e-5, "ddp": False}
NN = "MIC-DKFZ/nnUNet", "nnunetv2/training/loss/compound_losses.py"


def nnunet(name: str, batch: bool = True, **more: Any) -> Callable:
    """Return the call of a compound loss of nnU-Net."""

    def call(module, z, y, _):
        dice = {"batch_dice": batch, **NNUNET}
        made = getattr(module, name)(dice, more, dice_class=module.MemoryEfficientSoftDiceLoss)
        return 1 + made(z, y[:, None])

    return call


def nnunet_dice(batch: bool) -> Callable:
    """Return the call of nnU-Net's Dice."""

    def call(module, z, y, _):
        return 1 + module.MemoryEfficientSoftDiceLoss(batch_dice=batch, **NNUNET)(z.softmax(1), y[:, None])

    return call


def nnunet_topk(batch: bool) -> Callable:
    """Return the call of nnU-Net's Dice with its top-k cross-entropy, of a tenth of the pixels."""

    def call(module, z, y, _):
        return 1 + module.DC_and_topk_loss({"batch_dice": batch, **NNUNET}, {"k": 10})(z, y[:, None])

    return call


def skeleton_recall(module, z, y, _):
    """The loss of Skeleton-Recall, of the skeleton that its transform makes beside the mask."""
    line = np.stack([dilation(dilation(skeletonize(mask > 0))) * mask for mask in y.numpy()])
    dice = {"batch_dice": False, **NNUNET}
    made = module.DC_SkelREC_and_CE_loss(dice, dice, {}, dice_class=module.MemoryEfficientSoftDiceLoss)
    return 2 + made(z, y[:, None], torch.from_numpy(line)[:, None])


def blob(module, z, y, _):
    """Main and blob loss alike, of the criteria in the docstring of the released function."""
    blobs = np.stack([label(mask, np.ones([3] * mask.ndim))[0] for mask in y.numpy()])
    overlap = importlib.import_module("monai.losses").DiceLoss(sigmoid=True)
    criteria = {
        name: {"name": name, "loss": criterion, "weight": 1.0, "sigmoid": False}
        for name, criterion in (("bce", torch.nn.BCEWithLogitsLoss()), ("dice", overlap))
    }
    weights = {"main_weight": 1, "blob_weight": 1}
    true, parts = y[:, None].float(), torch.from_numpy(blobs)[:, None]
    return module.compute_loss(weights, criteria, criteria, margin(z), true, parts)[0]


def t_loss(module, z, y, _):
    """The released loss less its constants, per pixel, and with as many pixels as there are."""
    data = types.SimpleNamespace(image_size=1)
    made = module.TLoss(types.SimpleNamespace(data=data, device="cpu"))
    made.D, made.lambdas = torch.tensor(float(y[0].numel())), torch.ones(y.shape[1:])
    true = y.to(z.dtype)
    return (made(z.softmax(1)[:, 1], true) - made(true, true)) / made.D


def rmi(module, z, y, _):
    torch.cholesky = torch.linalg.cholesky  # its old name
    return module.RMILoss(num_classes=z.shape[1])(z, y)


DICE = "MemoryEfficientSoftDiceLoss(batch_dice={}, do_bg=False, smooth=1e-05) + 1"
RELEASED = (
    Released("dice", *NN, nnunet_dice(False), DICE.format(False), note="3-D full resolution"),
    Released("batch_dice", *NN, nnunet_dice(True), DICE.format(True), note="2-D, and 3-D in a cascade"),
    Released(
        "dice_ce", *NN, nnunet("DC_and_CE_loss", False), "DC_and_CE_loss() + 1", note="3-D full resolution"
    ),
    Released(
        "dice_ce(over='batch')",
        *NN,
        nnunet("DC_and_CE_loss"),
        "DC_and_CE_loss(batch_dice=True) + 1",
        note="2-D, and 3-D in a cascade",
    ),
    Released(
        "topk_ce",
        *NN,
        lambda m, z, y, _: m.TopKLoss(k=10)(z, y[:, None]),
        "TopKLoss(k=10)",
    ),
    Released("dice_topk", *NN, nnunet_topk(False), "DC_and_topk_loss() + 1", note="3-D full resolution"),
    Released(
        "dice_topk(over='batch')",
        *NN,
        nnunet_topk(True),
        "DC_and_topk_loss(batch_dice=True) + 1",
        note="2-D, and 3-D in a cascade",
    ),
    Released(
        "dice_all",
        *NN,
        lambda m, z, y, _: 1 + m.SoftDiceLoss(**NNUNET | {"do_bg": True})(z.softmax(1), y[:, None]),
        "SoftDiceLoss(do_bg=True, smooth=1e-05) + 1",
    ),
    Released(
        "ce", *NN, lambda m, z, y, _: m.RobustCrossEntropyLoss()(z, y[:, None]), "RobustCrossEntropyLoss()"
    ),
    Released(
        "lovasz",
        "bermanmaxim/LovaszSoftmax",
        "pytorch/lovasz_losses.py",
        lambda m, z, y, _: m.lovasz_softmax(z.softmax(1), y),
        "lovasz_softmax()",
        axes=(2,),
        note=STEPS,
    ),
    Released(
        "lovasz_hinge",
        "bermanmaxim/LovaszSoftmax",
        "pytorch/lovasz_losses.py",
        lambda m, z, y, _: m.lovasz_hinge(margin(z)[:, 0], y),
        "lovasz_hinge()",
        (2,),
        (2,),
        STEPS,
    ),
    Released(
        "ohem(kept=10)",
        "HRNet/HRNet-Semantic-Segmentation",
        "lib/core/criterion.py",
        lambda m, z, y, _: m.OhemCrossEntropy(min_kept=10)._ohem_forward(z, y),
        "OhemCrossEntropy(min_kept=10)",
        axes=(2,),
    ),
    Released(
        "symmetric_ce",
        "HanxunH/SCELoss-Reproduce",
        "loss.py",
        lambda m, z, y, _: m.SCELoss(0.1, 1.0, z.shape[1])(last(z).flatten(0, -2), y.flatten()),
        "SCELoss(alpha=0.1, beta=1)",
    ),
    Released(
        "generalized_ce",
        "AlanChou/Truncated-Loss",
        "TruncatedLoss.py",
        lambda m, z, y, _: m.TruncatedLoss(trainset_size=1)(z, y, 0) + (1 - 0.5**0.7) / 0.7,
        "TruncatedLoss() + (1 - k^q)/q",
        note="unofficial; untruncated, which is its first epoch",
    ),
    Released(
        "t_loss(variant='released')",
        "Digital-Dermatology/t-loss",
        "tloss.py",
        t_loss,
        "TLoss(), less constants, / pixels",
        (2,),
        (2,),
        "theirs learns ν, and this is where it begins",
    ),
    Released(
        "poly_ce",
        "abhuse/polyloss-pytorch",
        "polyloss.py",
        lambda m, z, y, _: m.Poly1CrossEntropyLoss(z.shape[1], reduction="mean")(
            last(z).flatten(0, -2), y.flatten()
        ),
        "Poly1CrossEntropyLoss()",
        note="unofficial",
    ),
    Released(
        "unified_focal(variant='released', smooth=1e-07)",
        *YEUNG,
        lambda m, z, y, _: m.asym_unified_focal_loss()(last(hot(z, y)), last(z.softmax(1))),
        "asym_unified_focal_loss()",
        (2,),
        (2,),
        KERAS,
    ),
    Released(
        "unified_focal(variant='released', symmetric=True, smooth=1e-07)",
        *YEUNG,
        lambda m, z, y, _: m.sym_unified_focal_loss()(last(hot(z, y)), last(z.softmax(1))),
        "sym_unified_focal_loss()",
        (2,),
        (2,),
        KERAS,
    ),
    Released(
        "mbls(variant='released', margin=1)",
        "by-liu/MbLS",
        "calibrate/losses/logit_margin_l1.py",
        lambda m, z, y, _: m.LogitMarginL1(margin=1)(z, y)[0],
        "LogitMarginL1(margin=1)",
    ),
    Released(
        "nacl(variant='released')",
        "Bala93/MarginLoss",
        "calibrate/losses/spatial_adaptive_margin.py",
        lambda m, z, y, _: m.AdaptMarginSVLS(classes=z.shape[1])(z, y, None)[0],
        "AdaptMarginSVLS()",
        axes=(2,),
    ),
    Released(
        "cldice(variant='released', iterations=10, classes='all')",
        "jocpae/clDice",
        "cldice_loss/pytorch/cldice.py",
        lambda m, z, y, _: m.soft_dice_cldice()(hot(z, y), z.softmax(1)),
        "soft_dice_cldice()",
    ),
    Released(
        "clce(ce_weight=0, classes=[1])",
        "cesaracebes/centerline_CE",
        "retina_experiments/utils/loss_factory.py",
        lambda m, z, y, _: m.clCELoss()(z, hot(z, y)),
        "clCELoss()",
    ),
    Released(
        "skeleton_recall",
        "MIC-DKFZ/Skeleton-Recall",
        NN[1],
        skeleton_recall,
        "DC_SkelREC_and_CE_loss(batch_dice=False, smooth=1e-05) + 2",
    ),
    Released(
        "blob(variant='released')",
        "neuronflow/blob_loss",
        "blob_loss.py",
        blob,
        "compute_loss(main_weight=1, blob_weight=1), BCE and MONAI's Dice",
        (2,),
    ),
    Released("rmi(variant='released')", "ZJULearning/RMI", "losses/rmi/rmi.py", rmi, "RMILoss()", axes=(2,)),
    Released(
        "adaptive_wing(map_weight=0, omega=1)",
        "elliottzheng/AdaptiveWingLoss",
        "adaptive_wing_loss.py",
        lambda m, z, y, _: m.AdaptiveWingLoss(omega=1)(z.softmax(1)[:, 1:], hot(z, y)[:, 1:]),
        "AdaptiveWingLoss(omega=1)",
        note="unofficial; it divides errors by ω where the paper has ε, so both are 1 here",
    ),
    Released(
        "boundary(schedule='alone')",
        *KERVADEC,
        lambda m, z, y, given: m.BoundaryLoss(idc=list(range(1, z.shape[1])))(
            z.softmax(1), given["distance_map"].to(z)
        ),
        "BoundaryLoss(idc=[1, ...])",
        axes=(2,),
    ),
    Released(
        "hausdorff_dt(variant='released')",
        *KERVADEC,
        lambda m, z, y, _: m.HausdorffLoss(idc=list(range(1, z.shape[1])))(z.softmax(1), hot(z, y)),
        "HausdorffLoss(idc=[1, ...])",
        axes=(2,),
    ),
    Released(
        "gen_surface(schedule='alone', smooth=1e-06)",
        "aecelaya/gen-surf-loss",
        "runtime/loss.py",
        lambda m, z, y, given: m.GenSurfLoss(None)(y[:, None], z, given["distance_map"].to(z), 0.0),
        "GenSurfLoss(None), alpha 0",
        axes=(3,),
        note="the smoothing there is absolute, here relative to the largest class",
    ),
    Released(
        "gen_surface(schedule='alone', variant='released', classes='fg', smooth=1e-06)",
        "mist-medical/MIST",
        "mist/loss_functions/losses/generalized_surface.py",
        lambda m, z, y, given: m.GenSurfLoss()(y[:, None], z, dtm=given["distance_map"].to(z), alpha=0.0),
        "GenSurfLoss(), alpha 0",
        axes=(3,),
    ),
    Released("ce_l1", *BIAS, region("CrossEntropyWithL1"), "CrossEntropyWithL1(alpha=1, temp=10)", axes=(2,)),
    Released("ce_kl", *BIAS, region("CrossEntropyWithKL"), "CrossEntropyWithKL(alpha=1, temp=10)", axes=(2,)),
    Released("ce_db", *BIAS, region("CrossEntropyWithDB"), "CrossEntropyWithDB(alpha=0.1)", axes=(2,)),
    Released(
        "ce_db(classes='fg')",
        *BIAS,
        region("CrossEntropyWithDB", one=True),
        "CrossEntropyWithDB('binary', alpha=0.1)",
        (2,),
        (2,),
        "one channel",
    ),
)


def module_of(clone: Path, file: str) -> types.ModuleType:
    """Import one file of a clone, and of its packages only what it imports itself."""
    path, before = clone / file, set(sys.modules)
    sys.path.insert(0, str(clone))
    sys.modules.update({name: _Nothing(name) for name in UNUSED if name not in sys.modules})
    # Packages without what their __init__ would import.
    for folder in (parent for parent in clone.rglob("*") if parent.is_dir() and ".git" not in parent.parts):
        package = types.ModuleType(".".join(folder.relative_to(clone).parts))
        package.__path__ = [str(folder)]
        sys.modules.setdefault(package.__name__, package)
    if "tensorflow" in path.read_text():
        sys.modules.update(_keras())
    try:
        name = file.removesuffix(".py").replace("/", ".")
        module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path))
        exec(compile(_readable(path), str(path), "exec"), module.__dict__)
        return module
    finally:
        sys.path.remove(str(clone))
        # Other clones have modules of the same names.
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is None or str(clone) in origin:
                del sys.modules[name]


class _Nothing(types.ModuleType):
    """A module of which every name is there and none works."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def _readable(path: Path) -> str:
    """Return the source as it runs here: without a docstring below its function's depth, for which a file
    does not parse, and without the name of its folder and the card that another one insists on.
    """
    text = path.read_text().replace("RMI.losses", "losses").replace("torch.cuda.Double", "torch.Double")
    return re.sub(r'(def loss_function\(y_true, y_pred\):\n)    """.*?"""\n', r"\1", text, flags=re.S)


def _keras() -> dict[str, types.ModuleType]:
    """Return modules under the names of Keras whose functions are those of torch."""
    backend = types.ModuleType("tensorflow.keras.backend")
    backend.epsilon = lambda: 1e-7
    backend.clip, backend.log, backend.pow = torch.clamp, torch.log, torch.pow
    backend.sum = lambda x, axis=None: x.sum() if axis is None else x.sum(axis)
    backend.mean = lambda x: x.mean()
    flow, keras = types.ModuleType("tensorflow"), types.ModuleType("tensorflow.keras")
    flow.stack = lambda parts, axis: torch.stack(parts, axis)
    flow.keras, keras.backend = keras, backend
    return {"tensorflow": flow, "tensorflow.keras": keras, "tensorflow.keras.backend": backend}


def numbers(entry: Released, module: types.ModuleType, classes: int, axes: int) -> dict:
    """Return value, gradient mass and a few entries of the gradient of the released code."""
    logits, target = inputs(classes, axes)
    logits.requires_grad_()
    # Keras asks a tensor for its shape by a method.
    Tensor.get_shape = lambda self: self.shape
    value = entry.call(module, logits, target, needs(target, classes))
    (gradient,) = torch.autograd.grad(value, logits)
    entries = gradient.reshape(-1)[:: gradient.numel() // 6][:6]
    short = [
        float(f"{float(x):.9g}")
        for x in (value.detach(), gradient.abs().sum(), gradient.abs().max(), *entries)
    ]
    return {"value": short[0], "mass": short[1], "largest": short[2], "entries": short[3:]}


def overlaps(clone: Path) -> dict[str, dict]:
    """Return the boundary IoU of two pairs of masks by the code of boundary-iou-api; nothing without cv2."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        return {}
    band = module_of(clone, "boundary_iou/utils/boundary_utils.py").mask_to_boundary
    cases = {}
    for shape in ((40, 60), (150, 200)):
        mine, theirs = (band(mask.astype(np.uint8)) > 0 for mask in discs(shape))
        cases["{} x {}".format(*shape)] = {"value": float((mine & theirs).sum() / (mine | theirs).sum())}
    return cases


def write(folder: Path, golden: Path = GOLDEN) -> list[str]:
    """Run what is in the folder and write its numbers; return a line for each loss."""
    frozen = json.loads(golden.read_text()) if golden.is_file() else {}
    lines = []
    for entry in RELEASED:
        clone = folder / entry.repository.replace("/", "+")
        if not (clone / entry.file).is_file():
            lines.append(f"{entry.native}: {entry.repository} is not here")
            continue
        module = module_of(clone, entry.file)
        cases = {
            f"{classes} classes {axes}-D": numbers(entry, module, classes, axes)
            for classes in entry.classes
            for axes in entry.axes
        }
        frozen[f"{entry.native} | {entry.repository}"] = {
            "native": entry.native,
            "code": f"{entry.repository}@{_commit(clone)}",
            "what": entry.what,
            "note": entry.note,
            "cases": cases,
        }
        lines.append(f"{entry.native}: {len(cases)} cases")
    clone = folder / "bowenc0221+boundary-iou-api"
    if clone.is_dir() and (cases := overlaps(clone)):
        code = f"bowenc0221/boundary-iou-api@{_commit(clone)}"
        note = "a metric: evaluate(..., released=True)"
        what = {"code": code, "what": "mask_to_boundary(), then IoU", "note": note}
        frozen["boundary_iou_released"] = {"native": "boundary_iou_released", **what, "cases": cases}
        lines.append(f"boundary_iou_released: {len(cases)} cases")
    golden.write_text(json.dumps(frozen, indent=1) + "\n", encoding="utf-8")
    return lines


def _commit(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    (folder,) = arguments("FOLDER", "a folder of clones, each named owner+name")
    print("\n".join(write(Path(folder))))
