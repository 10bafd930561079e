"""docs/cases.md, our losses on the cases of other projects' tests: ``python -m tools.cases FOLDER``.

FOLDER holds clones of the repositories, each named ``owner+name``; nothing is fetched, and a project whose
clone or library is not here keeps its rows. MONAI's cases of losses are tables of arguments, inputs and an
expected number: ours is asked for that number. The tests of SMP and kornia, and those of the metrics of MONAI
and MetricsReloaded (tools/metric_cases.py), run as they are: at each call ours is asked for the number that
theirs gives. nnU-Net and SegLossBias test no loss: theirs are called with each of their options. Agreed is
within 1e-4, or 1e-3 of the number.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss
from perf.peer_pairs import inputs
from tools import arguments
from tools.metric_cases import Ours, load, metricsreloaded, monai_metrics, whole
from tools.released import module_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cases.md"
COLUMNS = ("tried", "agreed", "not expressible", "differ")


def logit(p: Tensor) -> Tensor:
    """Logits of probabilities; 0 and 1 are far out, but finite."""
    return torch.logit(p.double().clamp(0, 1)).clamp(-80, 80)


def one_hot(target: Tensor, channels: int) -> Tensor:
    return torch.cat([target == c for c in range(channels)], 1).long()


# --- MONAI


def monai(kind: str, given: dict, x: Tensor, y: Tensor) -> Ours:
    """Return our spelling of a call of MONAI's class."""
    weight = given.get("weight")
    if given.get("other_act") or (weight is not None and set(torch.as_tensor(weight).tolist()) != {1.0}):
        return None
    if x.ndim == 2:  # MONAI takes classes without pixels, too
        x, y = x.unsqueeze(2), y.unsqueeze(2)
    y = one_hot(y, x.shape[1]) if given.get("to_onehot_y") else y
    if given.get("softmax") or given.get("use_softmax"):
        p = x.double().softmax(1)
    else:
        p = x.double().sigmoid() if given.get("sigmoid") or kind == "FocalLoss" else x.double()
    if p.min() < 0 or p.max() > 1:
        return None
    if kind == "DiceLoss" and given.get("soft_label") and x.shape[1] == 1:
        return lambda: get_loss(f"dice_soft({smoothing(given)})")(logit(p), y.double())
    if not whole(y):
        return None
    y, kept = y.long(), slice(int(not given.get("include_background", True) and x.shape[1] > 1), None)
    parts = MONAI[kind](given, p, y, x)
    # Each channel by itself, as MONAI has it: two classes each, of which one counts.
    return parts and (lambda: sum(part(logit(p)[:, kept], y[:, kept]) for part in parts))


def channels(spec: str) -> Callable[[Tensor, Tensor], Tensor]:
    return get_loss(spec, multilabel=True)


def smoothing(given: dict, factor: float = 1.0) -> str:
    return f"smooth=[{factor * given.get('smooth_nr', 1e-5)}, {factor * given.get('smooth_dr', 1e-5)}]"


def over(given: dict) -> str:
    return f"over={'batch' if given.get('batch') else 'sample'!r}"


def monai_dice(given, p, y, x):
    if given.get("jaccard"):
        return (
            None
            if given.get("squared_pred")
            else [channels(f"jaccard({smoothing(given, 0.5)}, {over(given)})")]
        )
    name = "dice_squared" if given.get("squared_pred") else "dice"
    return [channels(f"{name}({smoothing(given)}, {over(given)})")]


def monai_dice_ce(given, p, y, x):
    # Cross-entropy is of all classes together and knows of no background.
    z, labels = x.double(), y[:, 0] if x.shape[1] == 1 else y.argmax(1)
    dice, share = monai_dice(given, p, y, x), given.get("lambda_ce", 1.0)
    return dice and [
        lambda q, g: given.get("lambda_dice", 1.0) * dice[0](q, g),
        lambda q, g: share * get_loss("ce")(z, labels),
    ]


def monai_tversky(given, p, y, x):
    weights = f"fp_weight={given.get('alpha', 0.5)}, fn_weight={given.get('beta', 0.5)}"
    return [channels(f"tversky({weights}, {smoothing(given)}, {over(given)})")]


def monai_focal(given, p, y, x):
    alpha, gamma = given.get("alpha"), given.get("gamma", 2.0)
    spec = f"focal(gamma={gamma}{'' if alpha is None else f', alpha={alpha}'})"
    if not given.get("use_softmax"):
        return [channels(spec)]
    if not given.get("include_background", True):
        return None  # theirs drops the background before the softmax
    return [lambda q, g: get_loss(spec)(x.double(), y.argmax(1)) / x.shape[1]]


def monai_generalized(given, p, y, x):
    if given.get("sigmoid") and x.shape[1] > 1:
        return None
    z = logit(p) if x.shape[1] == 1 else p.clamp_min(1e-30).log()
    kept = "fg" if x.shape[1] == 1 or not given.get("include_background", True) else "all"
    power = given.get("w_type", "square")
    spec = f"generalized_dice(weighting={power!r}, classes={kept!r}, {smoothing(given)}, {over(given)})"
    labels = y[:, 0] if x.shape[1] == 1 else y.argmax(1)
    return [lambda q, g: get_loss(spec)(z, labels)]


def monai_hausdorff(given, p, y, x):
    return [channels(f"hausdorff_dt(alpha={given.get('alpha', 2.0)})")]


def monai_log_hausdorff(given, p, y, x):
    return [lambda q, g: monai_hausdorff(given, p, y, x)[0](q, g).log1p()]


MONAI = {
    "DiceLoss": monai_dice,
    "DiceCELoss": monai_dice_ce,
    "TverskyLoss": monai_tversky,
    "FocalLoss": monai_focal,
    "GeneralizedDiceLoss": monai_generalized,
    "HausdorffDTLoss": monai_hausdorff,
    "LogHausdorffDTLoss": monai_log_hausdorff,
}
MONAI_FILES = {
    "test_dice_loss.py": {"TEST_CASES": "DiceLoss"},
    "test_dice_ce_loss.py": {"TEST_CASES": "DiceCELoss"},
    "test_tversky_loss.py": {"TEST_CASES": "TverskyLoss"},
    "test_focal_loss.py": {"TEST_CASES": "FocalLoss"},
    "test_generalized_dice_loss.py": {"TEST_CASES": "GeneralizedDiceLoss"},
    "test_hausdorff_loss.py": {"TEST_CASES": "HausdorffDTLoss", "TEST_CASES_LOG": "LogHausdorffDTLoss"},
}


def monai_cases(clone: Path) -> Iterator[tuple[str, Ours, float]]:
    """Yield the class, our spelling and the expected number of each case."""
    for file, tables in MONAI_FILES.items():
        module = load(clone / "tests" / "losses" / file)
        for table, kind in tables.items():
            for given, data, expected in getattr(module, table):
                x, y = (torch.as_tensor(value) for value in data.values())
                yield kind, monai(kind, given, x, y), _mean(kind, given, x, np.asarray(expected, float))


def _mean(kind: str, given: dict, x: Tensor, expected: np.ndarray) -> float:
    """Return the mean of what was not reduced to it; the logarithm is of what was reduced."""
    logarithm = kind == "LogHausdorffDTLoss"
    expected = np.expm1(expected) if logarithm else expected
    if given.get("reduction") == "sum":
        kept = x.shape[1] - (not given.get("include_background", True) and x.shape[1] > 1)
        kept = 1 if kind == "GeneralizedDiceLoss" else kept
        pixels = x[0, 0].numel() if kind == "FocalLoss" else 1
        expected = expected / (kept * pixels * (1 if given.get("batch") else len(x)))
    return float(np.log1p(expected.mean()) if logarithm else expected.mean())


# --- segmentation-models-pytorch and kornia: at each call of a test


def smp(loss: Any, x: Tensor, y: Tensor) -> Ours:
    """Return our spelling of a call of a class of segmentation-models-pytorch."""
    kind = type(loss).__name__
    if any(getattr(loss, name, None) is not None for name in ("classes", "class_weights")):
        return None
    if getattr(loss, "log_loss", False):
        return None
    if kind == "SoftCrossEntropyLoss":
        z, labels = x.double().unsqueeze(2), y.unsqueeze(1)
        void = loss.ignore_index
        # Theirs divides by all pixels, void ones included.
        known = (labels != void).double().mean()
        spec = f"ls_ce(epsilon={loss.smooth_factor or 0.0})"
        return lambda: known * get_loss(spec)(z, labels, ignore_index=void)
    if kind == "MCCLoss":
        return lambda: get_loss("mcc(over='batch')")(logit(x.reshape(1, 1, -1)), y.reshape(1, -1).long())
    names = {
        "DiceLoss": "dice(smooth=0",
        "JaccardLoss": "jaccard(smooth=0",
        "TverskyLoss": "tversky(smooth=0",
    }
    if kind not in names or loss.smooth or not whole(y):
        return None
    spec = names[kind]
    if kind == "TverskyLoss":
        spec += f", fp_weight={loss.alpha}, fn_weight={loss.beta}"
    if loss.mode == "binary":
        p, g = x.reshape(1, 1, -1), y.reshape(1, 1, -1)
    else:
        p = x.reshape(*x.shape[:2], -1)
        g = one_hot(y.reshape(len(y), 1, -1), x.shape[1]) if loss.mode == "multiclass" else y.reshape(p.shape)
    activation = torch.softmax if loss.mode == "multiclass" else lambda z, _: z.sigmoid()
    p = activation(p.double(), 1) if loss.from_logits else p
    # A class that is absent counts 0 there.
    return lambda: channels(f"{spec}, over='batch', absent='skip')")(logit(p), g.long())


def kornia(loss: Any, x: Tensor, y: Tensor) -> Ours:
    """Return our spelling of a call of a class of kornia."""
    kind, void = type(loss).__name__, getattr(loss, "ignore_index", None)
    if (
        getattr(loss, "weight", None) is not None
        or x.ndim < 3
        or getattr(loss, "reduction", "mean") != "mean"
    ):
        return None
    specs = {
        "DiceLoss": "dice_all(smooth=0, absent='skip')"
        if getattr(loss, "average", "") == "macro"
        else "generalized_dice(weighting='uniform', smooth=0)",
        "LovaszSoftmaxLoss": "lovasz(over='sample', absent='eps')",
        "LovaszHingeLoss": "lovasz_hinge",
        "FocalLoss": f"focal(gamma={getattr(loss, 'gamma', 2.0)})",
    }
    if kind not in specs or (kind == "FocalLoss" and loss.alpha is not None):
        return None
    scale = 1 / x.shape[1] if kind == "FocalLoss" else 1.0
    return lambda: scale * get_loss(specs[kind])(x.double(), y.long(), ignore_index=void)


WRAPPED = (
    *("DiceLoss", "JaccardLoss", "TverskyLoss", "MCCLoss", "SoftCrossEntropyLoss", "FocalLoss"),
    *("LovaszSoftmaxLoss", "LovaszHingeLoss"),
)


def calls(clone: Path, files: list[str], module: str, spell: Callable) -> Iterator[tuple[str, Ours, float]]:
    """Run tests of a clone; yield each call of a loss that gives one number."""
    import pytest

    home, seen = importlib.import_module(module), []
    # The tests take the names from the library, so that is where ours listen.
    for name in WRAPPED:
        if kind := getattr(home, name, None):
            setattr(home, name, _listening(kind, seen))
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(
            [*(str(clone / file) for file in files), "-q", "-p", "no:cacheprovider", f"--rootdir={clone}"]
        )
    for loss, x, y, value in seen:
        yield type(loss).__name__, spell(loss, x, y), value


def _listening(kind: type, seen: list) -> type:
    def forward(self, x, y):
        value = kind.forward(self, x, y)
        if value.numel() == 1 and not x.is_meta:
            seen.append((self, x.detach().clone(), y.detach().clone(), float(value.detach())))
        return value

    return type(kind.__name__, (kind,), {"forward": forward})


# --- nnU-Net and SegLossBias: each option of their losses


def nnunet(clone: Path) -> Iterator[tuple[str, Ours, float]]:
    """Yield the losses of nnU-Net with each of their options; it trains with minus Dice."""
    module = module_of(clone, "nnunetv2/training/loss/compound_losses.py")
    for classes, axes, batch, background in product((2, 3), (2, 3), (True, False), (True, False)):
        z, y = inputs(classes, axes, torch.float64)
        dice = {"batch_dice": batch, "do_bg": background, "smooth": 1e-5, "ddp": False}
        how = f"over={'batch' if batch else 'sample'!r}, classes={'all' if background else 'fg'!r}"
        for name in ("SoftDiceLoss", "MemoryEfficientSoftDiceLoss"):
            theirs = getattr(module, name)(**dice)(z.softmax(1), y[:, None])
            yield name, partial(get_loss(f"dice({how})"), z, y), 1 + float(theirs)
        for weights, void in product(((1, 1), (0.5, 2)), (None, 255)):
            target = y.clone()
            target[:, :2] = target[:, :2] if void is None else void
            own = {"weight_ce": weights[0], "weight_dice": weights[1], "ignore_label": void}
            kind = module.MemoryEfficientSoftDiceLoss
            theirs = module.DC_and_CE_loss(dict(dice), {}, dice_class=kind, **own)(z, target[:, None])
            spec = f"dice_ce({how}, ce_weight={weights[0]}, dice_weight={weights[1]})"
            ours = partial(get_loss(spec), z, target, ignore_index=void)
            yield "DC_and_CE_loss", ours, weights[1] + float(theirs)
        theirs = module.DC_and_topk_loss(dict(dice), {"k": 10})(z, y[:, None])
        spec = f"dice({how}) + topk_ce"
        yield "DC_and_topk_loss", partial(get_loss(spec), z, y), 1 + float(theirs)
        if background:  # classes that do not exclude each other: each is one channel's foreground
            regions, spec = F.one_hot(y, classes).movedim(-1, 1), how.replace("'all'", "'fg'")
            theirs = module.DC_and_BCE_loss({}, dict(dice))(z, regions.double())
            ours = partial(channels(f"dice_ce({spec})"), z, regions)
            yield "DC_and_BCE_loss", ours, 1 + float(theirs)


def seglossbias(clone: Path) -> Iterator[tuple[str, Ours, float]]:
    """Yield the losses of SegLossBias with each of their options."""
    module = module_of(clone, "seglossbias/modeling/compound_losses.py")
    for classes, alpha, sharp, kind in product((2, 3), (0.1, 1.0), (1.0, 10.0), ("L1", "KL")):
        z, y = inputs(classes, 2, torch.float64)
        theirs = getattr(module, f"CrossEntropyWith{kind}")("multiclass", alpha=alpha, temp=sharp)
        spec = f"ce_{kind.lower()}(size_weight={alpha}, temperature={sharp})"
        yield f"CrossEntropyWith{kind}", partial(get_loss(spec), z, y), float(theirs(z, y)[0])


# --- the page


# Repository: title, the library that must be installed beside its clone, and its cases.
PROJECTS = {
    "Project-MONAI+MONAI": (
        "MONAI",
        "monai",
        lambda clone: chain(monai_cases(clone), monai_metrics(clone)),
    ),
    "qubvel-org+segmentation_models.pytorch": (
        "SMP",
        "segmentation_models_pytorch",
        lambda clone: calls(clone, ["tests/test_losses.py"], "segmentation_models_pytorch.losses", smp),
    ),
    "kornia+kornia": (
        "kornia",
        "kornia",
        lambda clone: calls(
            clone,
            [
                f"tests/losses/test_{name}.py"
                for name in ("dice", "focal_loss", "lovaz_softmax", "lovaz_hinge")
            ],
            "kornia.losses",
            kornia,
        ),
    ),
    "Project-MONAI+MetricsReloaded": ("MetricsReloaded", "sklearn", metricsreloaded),
    "MIC-DKFZ+nnUNet": ("nnU-Net", "torch", nnunet),
    "by-liu+SegLossBias": ("SegLossBias", "torch", seglossbias),
}


def counted(found: Iterator[tuple[str, Ours, float]]) -> dict[str, Counter]:
    """Return for each class how many cases were tried, agreed, have no spelling here, and differ."""
    table: dict[str, Counter] = {}
    for kind, ours, expected in found:
        row = table.setdefault(kind, Counter())
        row["tried"] += 1
        if ours is None:
            row["not expressible"] += 1
            continue
        try:
            value = float(ours())
        except UserError:  # a target that no loss of ours takes
            row["not expressible"] += 1
            continue
        # NaN in both: neither has a score there.
        good = abs(value - expected) <= max(1e-4, 1e-3 * abs(expected)) or np.isnan([value, expected]).all()
        row["agreed" if good else "differ"] += 1
        if not good:
            print(f"{kind}: {value:.6g}, expected {expected:.6g}")
    return table


HEAD = """# Our losses and metrics on other projects' tests

Written by `python -m tools.cases FOLDER`, which runs clones and fetches nothing. MONAI's tables of cases of
its losses hold the number that is expected; of SMP, kornia and MetricsReloaded each call of a loss or measure
in their tests is a case, and expected is what theirs gives. MONAI's metrics are heard in the same way: a case
is one pair of masks with its options, counted once. nnU-Net and SegLossBias test no loss: a case is one of
their options, on pictures and volumes of two and three classes.

*Agreed*: also where neither has a score, as of a class that the truth does not hold. *Not expressible*: class
weights, targets of floats in losses that take none here, focal losses by sigmoid of class ids, predictions
that are no probabilities (tanh, or 100); of metrics, a score where the truth is empty, which has none here,
and a missed object, whose distance is the image diagonal here and infinite there; directed, chessboard and
taxicab distances, distances within voxels, what has no column (13 of the 17 scores of four counts); the
boundary IoU of the border alone. *Differ*: the coefficient of Matthews where the truth is one class alone,
which is undefined and 1 here, is 1/2 or 3/2 in SMP.

| project | commit | class | tried | agreed | not expressible | differ |
|---|---|---|---|---|---|---|
"""


def write(folder: Path, page: Path = PAGE) -> None:
    """Write the rows of the projects that are here, and keep those of the others."""
    old = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    rows = []
    for name, (title, library, cases) in PROJECTS.items():
        clone = folder / name
        if not clone.is_dir() or importlib.util.find_spec(library) is None:
            rows += [line for line in old if line.startswith(f"| {title} ")]
            continue
        command = ["git", "-C", str(clone), "rev-parse", "--short=7", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        for kind, row in counted(cases(clone)).items():
            rows.append(f"| {title} | {commit} | `{kind}` | {' | '.join(str(row[c]) for c in COLUMNS)} |")
    columns = zip(*([int(cell) for cell in row.split("|")[4:8]] for row in rows), strict=True)
    total = " | ".join(str(sum(column)) for column in columns)
    page.write_text(HEAD + "\n".join([*rows, f"| all | | | {total} |"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    (folder,) = arguments("FOLDER", "a folder of clones, each named owner+name")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    write(Path(folder))
