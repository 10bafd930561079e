"""Losses of other libraries under one call: right activation, right target, float32, and the corrections they
need.

``monai:NAME``, ``smp:NAME``, ``kornia:NAME``, ``topolosses:NAME`` and ``torch:NAME`` take the library's own
constructor arguments.
A library is imported when one of its losses is built, never before. What the adapter sets itself (activation,
target format, mode, reduction) cannot be given, and is reported by :func:`injected`.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from lossbench.base.errors import UserError, nearest

MODULES = {
    "monai": ("monai.losses", "monai"),
    "smp": ("segmentation_models_pytorch.losses", "segmentation-models-pytorch"),
    "kornia": ("kornia.losses", "kornia"),
    "torch": ("torch.nn", "torch"),
    "topolosses": ("topolosses.losses", "topolosses"),
}
# What of ours is installed with a library, by the name after 'lossbench'.
EXTRAS = {"topolosses": "topology"}


@dataclass(frozen=True)
class Peer:
    """How one class wants to be called: ``logits`` and ``target`` make its arguments of z (N, C, *S) and y
    (N, *S).
    """

    logits: Callable[[Tensor], Tensor]
    target: Callable[[Tensor, Tensor], Tensor]
    fixed: dict[str, Any] = field(default_factory=dict)  # set by the adapter; a user may not give them
    default: dict[str, Any] = field(default_factory=dict)  # set unless the user gives them
    # Arguments that depend on the number of classes and of spatial axes.
    shape: Callable[[int, int], dict[str, Any]] | None = None
    two_classes: bool = False
    axes: tuple[int, ...] = (2, 3)
    note: str = ""


def _logits(z):
    return z


def _softmax(z):
    return z.softmax(1)


def _margin(z):
    return z[:, 1:] - z[:, :1]


def _foreground_probability(z):
    return _margin(z).sigmoid()


def _ids(z, y):
    return y.long()


def _ids_channel(z, y):
    return y.long().unsqueeze(1)


def _one_hot(z, y):
    # By comparison: void labels have no class, and their pixels are zero in every channel.
    classes = torch.arange(z.shape[1], device=y.device).view(-1, *[1] * (y.ndim - 1))
    return (y.unsqueeze(1) == classes).to(z.dtype)


def _binary(z, y):
    return (y == 1).unsqueeze(1).to(z.dtype)


_ONE_HOT = {"to_onehot_y": False}

_MONAI = Peer(
    _logits, _one_hot, _ONE_HOT | {"softmax": True, "sigmoid": False, "other_act": None, "reduction": "mean"}
)

_SMP = Peer(_logits, _ids, {"mode": "multiclass", "from_logits": True})

_SIGMOID_FOCAL = Peer(
    _logits, _one_hot, _MONAI.fixed, note="its focal part is a sigmoid focal loss, one class against all"
)

# Topology of one class at a time, beside a Dice loss that has the weight 1 whatever alpha is.
_TOPOLOGY = Peer(
    _logits, _one_hot, {"softmax": True, "sigmoid": False, "base_loss": None, "num_processes": 1}
)
_TOPOLOGY_2D = replace(_TOPOLOGY, axes=(2,))

_REDUCED = {"reduction": "mean"}

_TORCH = _REDUCED | {"size_average": None, "reduce": None}

PEERS: dict[str, dict[str, Peer]] = {
    "monai": {
        **dict.fromkeys(
            (
                *("DiceLoss", "DiceCELoss", "GeneralizedDiceLoss", "TverskyLoss", "MCCLoss"),
                *("SoftclDiceLoss", "SoftDiceclDiceLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"),
            ),
            _MONAI,
        ),
        "DiceFocalLoss": _SIGMOID_FOCAL,
        "GeneralizedDiceFocalLoss": _SIGMOID_FOCAL,
        "BoundaryLoss": Peer(_logits, _one_hot, _MONAI.fixed, {"include_background": False}),
        "FocalLoss": Peer(_logits, _one_hot, _ONE_HOT | _REDUCED | {"use_softmax": True}),
        "AsymmetricUnifiedFocalLoss": Peer(
            _softmax, _one_hot, _ONE_HOT | _REDUCED | {"num_classes": 2}, two_classes=True
        ),
        "GeneralizedWassersteinDiceLoss": Peer(
            _logits, _ids, _REDUCED, shape=lambda c, d: {"dist_matrix": 1 - torch.eye(c)}
        ),
        "NACLLoss": Peer(_logits, _ids, shape=lambda c, d: {"classes": c, "dim": d}),
    },
    "smp": {
        **dict.fromkeys(("DiceLoss", "JaccardLoss", "TverskyLoss", "LovaszLoss"), _SMP),
        "FocalLoss": Peer(
            _logits, _ids, _SMP.fixed | _REDUCED, note="it is a sigmoid focal loss, one class against all"
        ),
        "MCCLoss": Peer(_foreground_probability, _binary, two_classes=True),
        "SoftCrossEntropyLoss": Peer(_logits, _ids, _REDUCED | {"dim": 1}, {"smooth_factor": 0.0}),
        "SoftBCEWithLogitsLoss": Peer(_margin, _binary, _REDUCED, two_classes=True),
    },
    "kornia": {
        "DiceLoss": Peer(_logits, _ids, axes=(2,)),
        "TverskyLoss": Peer(_logits, _ids, default={"alpha": 0.5, "beta": 0.5}, axes=(2,)),
        "FocalLoss": Peer(_logits, _ids, _REDUCED, {"alpha": None}),
        "BinaryFocalLossWithLogits": Peer(_margin, _binary, _REDUCED, {"alpha": None}, two_classes=True),
        "LovaszSoftmaxLoss": Peer(_logits, _ids, axes=(2,)),
        "LovaszHingeLoss": Peer(_margin, _ids, two_classes=True, axes=(2,)),
        "HausdorffERLoss": Peer(_softmax, _ids_channel, _REDUCED, axes=(2,)),
        "HausdorffERLoss3D": Peer(_softmax, _ids_channel, _REDUCED, axes=(3,)),
    },
    # Not its MosinLoss, which downloads the weights of a trained network.
    "topolosses": {
        **dict.fromkeys(("BettiMatchingLoss", "HutopoLoss", "DiceLoss"), _TOPOLOGY),
        **dict.fromkeys(("TopographLoss", "CLDiceLoss"), _TOPOLOGY_2D),
        "WarpingLoss": replace(_TOPOLOGY_2D, two_classes=True),
    },
    "torch": {
        "CrossEntropyLoss": Peer(_logits, _ids, _TORCH),
        "BCEWithLogitsLoss": Peer(_margin, _binary, _TORCH, two_classes=True),
    },
}


def version(library: str) -> str:
    """Return the installed version of a library, by its short name; UserError when it is not installed."""
    try:
        return metadata.version(MODULES[_known(library)][1])
    except metadata.PackageNotFoundError:
        raise UserError(_missing(library)) from None


def injected(library: str, name: str) -> dict[str, Any]:
    """Return what the adapter adds to the arguments of a loss, for the record."""
    peer = _peer(library, name)
    allowed = _parameters(_class(library, name))
    return {key: value for key, value in (peer.fixed | peer.default).items() if key in allowed}


def build(library: str, name: str, kwargs: dict[str, Any]) -> Callable[..., Tensor]:
    """Return ``function(logits, target, *, ignore_index=None)`` around a loss of another library.

    logits (N, C, *S) of any float type, computed in float32; target (N, *S) class ids; one channel is lifted
    to two. The arguments are checked here, against the library's own signature. Raises UserError for a
    missing library, a name that is no segmentation loss, and arguments that do not exist, are set by the
    adapter or that the library refuses."""
    where = f"{library}:{name}"
    peer, kind = _peer(library, name), _class(library, name)
    allowed = _parameters(kind)
    given, kwargs = kwargs, _checked(where, kwargs, peer, allowed)
    if peer.note:
        warnings.warn(f"{where}: {peer.note}", stacklevel=2)

    modules: dict[tuple, torch.nn.Module] = {}

    def module(classes: int, axes: int, ignore_index: int | None) -> torch.nn.Module:
        key = (classes, axes, ignore_index)
        if key not in modules:
            shape = peer.shape(classes, axes) if peer.shape else {}
            arguments = {
                k: v for k, v in (peer.default | shape | peer.fixed).items() if k in allowed
            } | kwargs
            # Classes of MONAI that know void pixels make the one-hot target themselves.
            if ignore_index is not None:
                arguments["ignore_index"] = ignore_index
                arguments |= {"to_onehot_y": True} if "to_onehot_y" in allowed else {}
            modules[key] = kind(**arguments)
        return modules[key]

    def compute(logits: Tensor, target: Tensor, *, ignore_index: int | None = None) -> Tensor:
        z = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
        classes, axes = z.shape[1], z.ndim - 2
        _suits(where, peer, classes, axes)
        if ignore_index is not None and "ignore_index" not in allowed:
            raise UserError(
                f"{where} has no ignore_index, and the data set has void pixels ({ignore_index}); "
                "leave it out"
            )
        # Some constructors ask for the number of classes or axes: one module for each, made when first met.
        loss = module(classes, axes, ignore_index).to(z.device)
        by_class_id = ignore_index is not None and peer.target in (_one_hot, _binary)
        truth = _ids_channel(z, target) if by_class_id else peer.target(z, target)
        if by_class_id and peer.target is _binary:
            truth = truth.to(z.dtype)
        # Under autocast these libraries would compute in half precision, and be wrong for large images.
        with torch.autocast(z.device.type, enabled=False):
            value = loss(peer.logits(z), truth)
        # MONAI's focal loss divides by pixels with ignore_index and by pixels x classes without it
        return value / classes if where == "monai:FocalLoss" and ignore_index is not None else value

    _try_out(where, compute, peer, given)
    return compute


def _try_out(where, compute, peer, given):
    """Call the loss once on a tiny image, so that values which the library refuses are named before any
    training.
    """
    # A list may hold one number per class, so its length is tried as their number, too.
    lengths = {len(value) for value in given.values() if isinstance(value, list | tuple)}
    refusal = None
    for classes in (
        [2] if peer.two_classes else sorted({2, 3} | lengths - {0, 1})
    ):  # a list may be one number per class
        target = torch.zeros(2, *[8] * peer.axes[0], dtype=torch.long)
        target[:, 2:6] = 1
        try:
            compute(torch.zeros(2, classes, *target.shape[1:]), target)
            return
        # A library may raise anything for a value that it does not like.
        except Exception as error:
            refusal = refusal or error
    shown = ", ".join(f"{key}={value!r}" for key, value in given.items())
    raise UserError(
        f"{where}({shown}) is refused by the library: "
        f"{(str(refusal) or type(refusal).__name__).splitlines()[0]}"
    )


def _known(library: str) -> str:
    if library not in MODULES:
        raise UserError(f"unknown library '{library}'{nearest(library, MODULES)}")
    return library


def _missing(library: str) -> str:
    return (
        f"'{library}:' losses need {MODULES[library][1]}, which is not installed; pip install "
        f"'lossbench[{EXTRAS.get(library, 'peers')}]'"
    )


def _peer(library: str, name: str) -> Peer:
    peers = PEERS[_known(library)]
    if name not in peers:
        raise UserError(
            f"{library}:{name} is not one of its segmentation losses{nearest(name, peers, limit=20)}"
        )
    return peers[name]


def _class(library: str, name: str) -> type:
    try:
        module = importlib.import_module(MODULES[library][0])
    except ImportError:
        raise UserError(_missing(library)) from None
    kind = getattr(module, name, None)
    if kind is None:
        raise UserError(f"{library} {version(library)} has no {name}; a newer release has it")
    return kind


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    return {k: p for k, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD}


def _checked(where, kwargs, peer, allowed):
    """Return the arguments, lists as tensors where the library wants those; UserError for what cannot be
    given.
    """
    set_here = (
        set(peer.fixed) | {"ignore_index"} | set(peer.shape(2, 2) if peer.shape else {}) - {"dist_matrix"}
    )
    free = [k for k in allowed if k not in set_here]
    for key in kwargs:
        if key in set_here and key in allowed:
            raise UserError(
                f"'{key}' of {where} is set by lossbench; its free arguments are: {', '.join(free)}"
            )
        if key not in allowed:
            raise UserError(f"{where} has no argument '{key}'{nearest(key, free, limit=30)}")
    if where == "monai:FocalLoss" and kwargs.get("include_background") is False:
        raise UserError(
            f"{where}(include_background=False) drops the background before the softmax, which is 0 "
            "for two classes; "
            "leave it out, or take the native focal"
        )
    tensors = {
        k for k in kwargs if isinstance(kwargs[k], list | tuple) and "Tensor" in str(allowed[k].annotation)
    }
    return {k: torch.tensor(v, dtype=torch.float32) if k in tensors else v for k, v in kwargs.items()}


def _suits(where, peer, classes, axes):
    if peer.two_classes and classes != 2:
        raise UserError(f"{where} is for two classes, the data set has {classes}")
    if axes not in peer.axes:
        raise UserError(
            f"{where} is for {' and '.join(f'{a}-D' for a in peer.axes)} images, the data set is {axes}-D"
        )
