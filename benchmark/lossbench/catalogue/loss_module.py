"""What ``get_loss`` returns, a torch module around the functions that a spec names, and its look at what it
is called with: a mistake gets one sentence, with its likely cause.

The shapes and types of tensors are looked at wherever a loss is called. The labels are read only where that
neither waits for a device nor breaks a recording."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError, nearest


class Part(NamedTuple):
    """One summand of a loss: a function, its parameters, and the keywords of a call that it takes."""

    weight: float
    function: Callable[..., Tensor]
    params: dict[str, Any]
    takes: frozenset[str]
    guest: bool  # not one of ours, which leave void pixels out themselves
    soft: bool = False  # takes the shares of the classes as a target, too
    name: str = ""
    dims: tuple[int, ...] = ()  # the numbers of spatial axes that it takes; none given: any


class Loss(nn.Module):
    """A loss for any training loop: ``loss(logits, target) -> scalar``.

    logits (N, C, *S) of floats, computed in float32; target (N, *S) of class ids below C or ``ignore_index``;
    one channel stands for two classes. Soft losses (``ce_soft`` and its kin) take shares (N, C, *S) of the
    classes as well, of floats. Keywords: ``ignore_index`` (label of void pixels), ``progress`` (0 to
    1), ``distance_map`` (N, C, *S), ``class_frequency`` (C,), where the loss needs them.

    With ``check`` a wrong call raises UserError with one sentence: types, shapes and keywords are looked at
    in each eager call, labels as ``check_labels`` says, nothing under ``torch.compile``."""

    def __init__(
        self,
        text: str,
        parts: tuple[Part, ...],
        check: bool = True,
        again: Callable[[], Loss] | None = None,
    ):
        super().__init__()
        self.text, self.parts, self.check = text, parts, check
        self.needs = frozenset(name for part in parts for name in part.takes & MEANING.keys())
        self._void = {part.params["ignore_index"] for part in parts if "ignore_index" in part.params}
        self._takes_shares = all(part.soft for part in parts)
        self._of_some_axes = [part for part in parts if part.dims]
        self._again = again or partial(Loss, text, parts, check)

    def forward(self, logits: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        # None is what a trainer passes for what its data do not have.
        supplied = {name: value for name, value in supplied.items() if value is not None}
        if self.check:
            self._look(logits, target, supplied)
        total = None
        for part in self.parts:
            value = _call(part, logits, target, supplied)
            # Without the product where it would change nothing, for speed and to the last bit.
            value = value if part.weight == 1 else part.weight * value
            total = value if total is None else total + value
        return total

    def _look(self, logits: Tensor, target: Tensor, supplied: dict[str, Any]) -> None:
        # Reading labels would break a graph; a compiled step has been tried in eager mode before. Asked here
        # and not by the caller: after a break the rest of a call is eager, and what it calls is compiled.
        if torch.compiler.is_compiling():
            return
        check_supplied(supplied, self.needs)
        if self._takes_shares and isinstance(target, Tensor) and target.is_floating_point():
            check_shares(logits, target)
            check_sums(target)
        else:
            check_tensors(logits, target)
            check_labels(logits, target, (*self._void, supplied.get("ignore_index")))
        for part in self._of_some_axes:
            check_axes(logits, part.name, part.dims)

    def extra_repr(self) -> str:
        return self.text if self.check else f"{self.text}, check=False"

    def __reduce__(self):
        # A user's function, or one around a library's loss, cannot be pickled: the loss is made again.
        return self._again, ()


class MultiLabel(nn.Module):
    """Classes that do not exclude each other: one sigmoid and one loss for each, and the mean of these.

    logits (N, C, *S); target (N, C, *S) of 0 and 1, or ``ignore_index``; the loss sees one channel at a
    time, and one that is not ours sees its two classes [0, z]. Raises UserError for a loss that needs
    distances or frequencies, which are those of exclusive classes."""

    def __init__(self, loss: Loss):
        super().__init__()
        for name in loss.needs - {"progress"}:
            raise UserError(
                f"{loss.text} needs {name}=..., which there is for classes that exclude each other"
            )
        self.loss = loss
        # Of one channel a user's softmax would be 1 everywhere.
        self.lifts = any(part.guest for part in loss.parts)

    def forward(self, logits: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor) or logits.shape != target.shape:
            raise UserError("a loss of several labels takes logits and a target of one shape, (N, C, *S)")
        if self.loss.check and target.is_floating_point():
            raise UserError(
                "a loss of several labels takes a target of whole numbers, 0 and 1; target.long()"
            )
        one = logits.split(1, 1)
        if self.lifts:
            one = [torch.cat([torch.zeros_like(z), z], 1) for z in one]
        channels = zip(one, target.unbind(1), strict=True)
        return torch.stack([self.loss(z, y, **supplied) for z, y in channels]).mean()


def _call(part: Part, logits: Tensor, target: Tensor, supplied: dict[str, Any]) -> Tensor:
    arguments = {name: supplied[name] for name in part.takes if name in supplied} | part.params
    label = arguments.get("ignore_index")
    if label is not None and not _holds(target.dtype, label):
        target = target.long()  # a comparison would wrap round: torch.uint8 == -100 is true of 156
    shares = part.soft and target.is_floating_point()
    if part.guest and (shares or "ignore_index" in arguments):
        # No NaN of a void pixel may reach the sums. Finite logits stay as they are, so that ``lossbench
        # check`` still sees a loss that counts void pixels.
        void = target.sum(1) == 0 if shares else target == arguments["ignore_index"]
        void = void.unsqueeze(1)
        logits = logits.masked_fill(void & ~logits.isfinite(), 0)
    return part.function(logits, target, **arguments)


def _holds(dtype: torch.dtype, label: int) -> bool:
    """Whether a comparison of labels of this type with this one means what it says."""
    limits = LIMITS.get(dtype)
    return limits is None or not isinstance(label, int) or limits[0] <= label <= limits[1]


# --- the look at what a loss is called with

WHOLE = (torch.int64, torch.uint8, torch.bool, torch.int32, torch.int16, torch.int8)

# Of the smaller ones, which torch compares in their own type.
LIMITS = {
    dtype: (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    for dtype in (torch.uint8, torch.int32, torch.int16, torch.int8)
}

# What a loss may need beside logits and target.
MEANING = {
    "progress": "how far training is, from 0 to 1",
    "distance_map": "the signed distance (N, C, *S) of each pixel to the boundary of each class",
    "class_frequency": "the share (C,) of each class among the pixels of the training images",
}

KEYWORDS = (*MEANING, "ignore_index")

TAKES = "a loss takes logits (N, C, *S) of floats and a target (N, *S) of class ids"


def example(classes: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return logits (2, classes, 8, 8), a target, and all that a loss may need beside: to try one out on."""
    logits = torch.linspace(-1, 1, 2 * classes * 8 * 8).reshape(2, classes, 8, 8)
    frequency = torch.full((classes,), 1 / classes)
    supplied = {"distance_map": torch.zeros_like(logits), "class_frequency": frequency, "progress": 0.5}
    return logits, (logits[:, 1] > 0.3).long(), supplied


def check_tensors(logits: Tensor, target: Tensor) -> None:
    """Raise UserError unless logits (N, C, *S) of floats and a target (N, *S) of integers belong together."""
    # One condition for all sound calls: this runs in every step of somebody's training.
    if (
        not isinstance(logits, Tensor)
        or not isinstance(target, Tensor)
        or not logits.is_floating_point()
        or target.dtype not in WHOLE
        or logits.ndim < 3
        or target.shape != logits.shape[:1] + logits.shape[2:]
        or not target.numel()
        or not logits.shape[1]
        or target.layout != torch.strided
    ):
        raise UserError(_mismatch(logits, target))


def check_axes(logits: Tensor, name: str, dims: Collection[int]) -> None:
    """Raise UserError unless logits (N, C, *S) have as many spatial axes as the loss of this name takes."""
    axes = logits.ndim - 2
    if axes not in dims:
        *others, last = (f"{number}-D" for number in dims)
        taken = f"{', '.join(others)} and {last}" if others else last
        found = f"{axes} spatial {'axis' if axes == 1 else 'axes'}"
        raise UserError(f"{name} is for {taken} images; logits of shape {tuple(logits.shape)} have {found}")


def check_shares(logits: Tensor, target: Tensor) -> None:
    """Raise UserError unless logits (N, C, *S) of floats and the shares (N, C, *S) of the classes, of floats
    too, belong together; one channel of logits takes one, the share of class 1, or two.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise UserError(_mismatch(logits, target))
    channels = (1, 2) if logits.shape[1:2] == (1,) else logits.shape[1:2]
    places = logits.shape[:1] + logits.shape[2:]
    matched = logits.ndim > 2 and target.numel() and target.shape[:1] + target.shape[2:] == places
    if not matched or target.shape[1] not in channels:
        raise UserError(
            f"logits of shape {tuple(logits.shape)} and shares of shape {tuple(target.shape)} do not belong "
            "together; soft labels are the share (N, C, *S) of each class at each pixel"
        )


def check_sums(target: Tensor) -> None:
    """Raise UserError where shares (N, C, *S) are no distribution: negative, or of another sum than 1; all 0
    is a void pixel. One channel is the share of class 1. Read on a CPU, and not under ``torch.func``.
    """
    target = target.detach()
    if target.shape[1] == 1:
        target = torch.cat([1 - target, target], 1)
    # In float32, and with room for what half precision rounds away. NaN is neither 0 nor near to 1.
    total = target.sum(1, dtype=torch.promote_types(target.dtype, torch.float32))
    sound = ((target >= 0).all(1) & ((total - 1).abs() < 0.01)) | ((target == 0).all(1))
    try:
        wrong = target.is_cpu and not bool(sound.all())
    except RuntimeError:
        return
    if wrong:
        raise UserError(
            "the shares of the classes are negative or do not sum to 1 at some pixel; divide them by their "
            "sum (one channel, the share of class 1, by its largest value, as 255), and leave all 0 where no "
            "rater has a label"
        )


def _mismatch(logits: Any, target: Any) -> str:
    for what, value in (("logits are", logits), ("target is", target)):
        if not isinstance(value, Tensor):
            kind = "numpy array" if isinstance(value, np.ndarray) else type(value).__name__
            return f"the {what} a {kind}; {TAKES}; torch.as_tensor() makes a tensor"
    if not logits.is_floating_point():
        # The commonest reason: other libraries take the target first.
        swapped = "; are logits and target swapped?" if target.is_floating_point() else ""
        return f"the logits are of {_dtype(logits)}; {TAKES}{swapped}"
    if target.shape == logits.shape and logits.shape[1] > 1:
        return (
            f"the target has the shape of the logits; {TAKES}; of one-hot labels, target.argmax(1); soft "
            "labels are for ce_soft, dice_soft and jaccard_soft (of floats), classes that do not exclude "
            "each other for get_loss(..., multilabel=True)"
        )
    if target.dtype not in WHOLE:
        one = "squeeze(1)." if target.shape == (logits.shape[0], 1, *logits.shape[2:]) else ""
        hint = "" if target.is_complex() else f"; where they are whole numbers, target.{one}long()"
        return f"the target is of {_dtype(target)}; {TAKES}{hint}"
    both = f"logits of shape {tuple(logits.shape)} and target of shape {tuple(target.shape)}"
    if logits.ndim < 3 or target.shape != logits.shape[:1] + logits.shape[2:]:
        return f"{both} do not belong together; {TAKES}{_hint(logits, target)}"
    if target.layout != torch.strided:
        return f"the target is sparse; {TAKES}; target.to_dense()"
    if not logits.shape[1]:
        return f"{both}: the logits have no channel; {TAKES}"
    return f"{both} hold no pixel; an empty batch has no loss"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _hint(logits: Tensor, target: Tensor) -> str:
    if target.shape == (logits.shape[0], 1, *logits.shape[2:]):
        return "; target.squeeze(1) drops the axis of one channel"
    if logits.ndim < 5 and target.shape == logits.shape[1:]:
        return "; of one image, logits.unsqueeze(0) and target.unsqueeze(0)"
    return ""


def check_supplied(supplied: Mapping[str, Any], needs: Collection[str]) -> None:
    """Raise UserError for a keyword that no loss takes, for one that this loss needs and did not get, and for
    a value that cannot be meant.
    """
    for name, value in supplied.items():
        if name not in KEYWORDS:
            raise UserError(f"a loss takes no '{name}'{nearest(name, KEYWORDS)}")
        if name == "ignore_index" and (not isinstance(value, int) or isinstance(value, bool)):
            raise UserError(f"ignore_index={value!r}: must be one whole number, the label of void pixels")
        # A tensor stays on its device: whether its value is sound is not worth waiting for.
        number = name == "progress" and not isinstance(value, Tensor)
        if number and not (isinstance(value, Real) and 0 <= value <= 1):
            raise UserError(f"progress={value!r}: must be {MEANING['progress']}")
        if name in ("distance_map", "class_frequency") and not isinstance(value, Tensor):
            raise UserError(f"{name} is a {type(value).__name__}; it must be a tensor: {MEANING[name]}")
    for name in needs:
        if name not in supplied:
            raise UserError(f"this loss needs {name}=... at each call: {MEANING[name]}")


# The target that was last found right: whoever tries several losses on one batch pays for one look.
_last: tuple[Callable[[], Tensor | None], tuple] = (lambda: None, ())


def check_labels(logits: Tensor, target: Tensor, void: Collection[int | None] = ()) -> None:
    """Raise UserError where a label is neither a class of the logits nor one of ``void``.

    On a CPU the labels are read at each call; on a CUDA device an assertion is queued, which fails when the
    device comes to it. Nothing is read while a graph is captured, nor under ``torch.func``; a tensor that was
    read last and not changed by torch since is not read again."""
    global _last
    classes = max(2, logits.shape[1])  # one channel z stands for the two classes [0, z]
    if target.is_cpu:
        # Not by its address, which the next tensor may get.
        state = (classes, frozenset(void), None if target.is_inference() else target._version)
        if _last[0]() is target and _last[1] == state and not target.is_inference():
            return
        try:
            labels = target.numpy()
        except RuntimeError:  # under torch.func, or of a fake tensor, there is nothing to read
            return
        # As unsigned numbers negative labels are huge: one maximum, half as expensive as torch's two bounds.
        unsigned = labels.view(f"u{labels.itemsize}")
        if unsigned.max() >= classes and not _only_void(labels, unsigned, classes, void):
            raise UserError(_stray(target, classes, void))
        _last = weakref.ref(target), state
    elif target.is_cuda and not torch.cuda.is_current_stream_capturing():
        _assert_later(target, classes, void)


def _assert_later(target: Tensor, classes: int, void: Collection[int | None]) -> None:
    known = (target >= 0) & (target < classes)
    for label in _outside(void, classes):
        if _holds(target.dtype, label):
            known = known | (target == label)
    torch._assert_async(known.all(), f"lossbench: a label is not one of {classes} classes or ignore_index")


def _only_void(labels: np.ndarray, unsigned: np.ndarray, classes: int, void: Collection[int | None]) -> bool:
    """Whether as many labels are void as are no class; counting in numpy is several times as fast here."""
    outside = np.count_nonzero(unsigned >= classes)
    return outside == sum(np.count_nonzero(labels == label) for label in _outside(void, classes))


def _outside(void: Collection[int | None], classes: int) -> set[int]:
    return {label for label in void if label is not None and not 0 <= label < classes}


def _stray(target: Tensor, classes: int, void: Collection[int]) -> str:
    values = target.unique().tolist()
    strays = [value for value in values if value not in (*range(classes), *void)]
    named = ", ".join(map(str, strays[:3])) + (", ..." if len(strays) > 3 else "")
    # The causes by how often they are met: masks saved as pictures, labels from 1, void pixels.
    if set(values) <= {0, 255}:
        cause = "a 0/255 mask? divide by 255, or ignore_index=255 where 255 marks void pixels"
    elif len(strays) > 1 and values[-1] > 247 and all(v in (*range(8), *range(248, 256)) for v in values):
        cause = "a 0/255 mask with blurred edges, as of a JPEG? (target > 127).long()"
    elif 0 not in values and strays == [classes]:
        cause = "do the labels begin at 1? subtract 1"
    elif strays == [classes]:
        cause = f"have the logits a channel for each class? or void pixels, then ignore_index={classes}"
    elif len(strays) == 1:
        cause = f"void pixels? ignore_index={strays[0]}"
    else:
        cause = "are they class ids, and have the logits a channel for each class?"
    return f"label{'s' * (len(strays) > 1)} {named} with {classes} classes: {cause}"
