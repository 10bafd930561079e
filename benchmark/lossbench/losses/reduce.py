"""What every loss counts over: pixels, classes, images; one place for the sums, the absent class and the
smoothing.

Axes are named in order: n images, k chosen classes, c all classes, m pixels of one image (space is
flattened). Everything is a plain tensor expression without in-place writes, data-dependent branches or
boolean indexing, so that it runs under ``torch.func.vmap`` and ``torch.compile``, and without matrix products
or convolutions, so that autocast leaves it in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue.loss_module import check_shares, check_tensors

Over = Literal["sample", "batch"]
Absent = Literal["eps", "skip"]
Variant = Literal["paper", "released"]  # what the paper says, or what the code computes that goes with it
OVER, ABSENT, VARIANT = get_args(Over), get_args(Absent), get_args(Variant)

TINY = 1e-12  # keeps 0/0 and 0**-x out of gradients; far below any smoothing in use


class Pixels(NamedTuple):
    """One batch as the losses see it: ``z (n, c, m)``, ``y (n, m)``, ``valid (n, m)`` or None when no pixel
    is void.
    """

    z: Tensor
    y: Tensor
    valid: Tensor | None
    space: tuple[int, ...]

    @property
    def n_classes(self) -> int:
        return self.z.shape[1]


class Sums(NamedTuple):
    """Region sums, each ``(n, k)``, or ``(1, k)`` over a batch: TP = Σ p g, P = Σ p, G = Σ g; ``n`` valid
    pixels.
    """

    tp: Tensor
    p: Tensor
    g: Tensor
    n: Tensor | int


def see(logits: Tensor, target: Tensor, ignore_index: int | None = None) -> Pixels:
    """Bring logits (N, C, *S) of any float type and a target (N, *S) of class ids into one form.

    One channel z means the two classes [0, z] (softmax then is the sigmoid, exactly). float16 and bfloat16
    are computed in float32, float64 stays. Pixels equal to ``ignore_index`` are void: they enter no sum and
    get no gradient. Raises UserError for wrong shapes and types.
    """
    check_tensors(logits, target)
    z = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    z, y, valid = z.flatten(2), target.flatten(1), None
    if ignore_index is not None:
        void = y == ignore_index
        z, valid = Shield.apply(z, void.unsqueeze(1)), numbers(~void, z.dtype)
    # After the shield, for [0, z] has nothing to hide in its first channel.
    if z.shape[1] == 1:
        z = torch.cat([torch.zeros_like(z), z], 1)
    return Pixels(z, y, valid, tuple(target.shape[1:]))


def see_shares(logits: Tensor, target: Tensor, ignore_index: int | None = None) -> tuple[Pixels, Tensor]:
    """As :func:`see`, and the share of each class at each pixel, (n, c, m), zero on void pixels: 0 or 1 of a
    target of class ids, or those of a target (N, C, *S) of floats, where all zero is void.
    """
    if not target.is_floating_point():
        px = see(logits, target, ignore_index)
        return px, truth(px, tuple(range(px.n_classes)))
    check_shares(logits, target)
    z = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    z, g = z.flatten(2), target.flatten(2).to(z.dtype)
    if g.shape[1] == 1:
        g = torch.cat([1 - g, g], 1)
    void = g.sum(1) == 0
    z = Shield.apply(z, void.unsqueeze(1))
    z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    return Pixels(z, void.long(), numbers(~void, z.dtype), tuple(logits.shape[2:])), g


class Shield(torch.autograd.Function):
    """Zero logits under void pixels, so that what a network says there, NaN included, reaches no sum.

    No gradient comes back from void pixels, for every sum leaves them out: it is handed on as it is, which is
    half as expensive as to zero it again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, void: Tensor) -> Tensor:
        # Every bit of a logit or none of them: on a CPU a third of the time of masked_fill.
        whole = torch.int64 if z.dtype == torch.float64 else torch.int32
        bits = (~void).view(torch.int8).to(whole).neg()
        return (z.view(whole) & bits).view(z.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def numbers(truth: Tensor, dtype: torch.dtype) -> Tensor:
    """0 and 1 for False and True; by way of bytes, which on a CPU takes a seventh of the time."""
    return truth.view(torch.uint8).to(dtype)


def probabilities(px: Pixels, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Softmax probabilities of the chosen classes, (n, k, m), zero on void pixels.

    Two classes need one sigmoid of the difference, which is cheaper and as exact as a softmax.
    """
    z = px.z
    if px.n_classes == 2 and len(ids) == 1:
        z0, z1 = z.unbind(1)
        margin = z1 - z0 if ids[0] == 1 else z0 - z1
        p = (margin if temperature == 1 else margin * temperature).sigmoid().unsqueeze(1)
    else:
        p = (z if temperature == 1 else z * temperature).softmax(1)
        p = p[:, ids[0] : ids[-1] + 1] if _contiguous(ids) else p[:, list(ids)]
    return mask(p, px)


def truth(px: Pixels, ids: Sequence[int]) -> Tensor:
    """One-hot target of the chosen classes by comparison, (n, k, m): any rank, any label, void pixels all
    zero.
    """
    # A comparison instead of one_hot: void labels and any rank just work, also under vmap.
    wanted = ids[0] if len(ids) == 1 else torch.as_tensor(ids, device=px.y.device).view(-1, 1)
    return mask(numbers(px.y.unsqueeze(1) == wanted, px.z.dtype), px)


def chosen(x: Tensor, ids: Sequence[int]) -> Tensor:
    """The chosen classes of ``x (n, c, m)``, (n, k, m); by a slice where they follow each other, for a list
    of numbers would have to be brought to the device.
    """
    return x[:, ids[0] : ids[-1] + 1] if _contiguous(ids) else x[:, list(ids)]


def most_probable(px: Pixels, ids: Sequence[int]) -> Tensor:
    """1 where one of the chosen classes is the most probable of all, (n, k, m), zero on void pixels."""
    return truth(px._replace(y=px.z.argmax(1)), ids)


def log_probabilities(px: Pixels, temperature: float = 1.0) -> Tensor:
    """log p of all classes, (n, c, m); stable at any logit; void pixels are *not* masked here."""
    return F.log_softmax(px.z if temperature == 1 else px.z * temperature, 1)


def nll(px: Pixels, log_p: Tensor | None = None) -> Tensor:
    """-log p of the true class, (n, m), zero on void pixels."""
    log_p = log_probabilities(px) if log_p is None else log_p
    # gather needs an index that exists; what it finds at void pixels is multiplied away.
    y = px.y.long()
    y = y if px.valid is None else torch.where(px.valid > 0, y, 0)
    loss = -log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    return loss if px.valid is None else loss * px.valid


def mask(x: Tensor, px: Pixels) -> Tensor:
    """Zero ``x (n, k, m)`` on void pixels."""
    return x if px.valid is None else x * px.valid.unsqueeze(1)


def class_ids(classes: str | Sequence[int], n_classes: int) -> tuple[int, ...]:
    """Resolve ``"fg"`` (all but class 0), ``"all"`` or a list of class ids."""
    if isinstance(classes, str):
        one_of(("fg", "all"), classes=classes)
        return tuple(range(classes == "fg", n_classes))
    ids = tuple(classes)
    if not _are_ids(ids, n_classes):
        raise UserError(
            f"classes={list(ids)} does not fit {n_classes} classes; give 'fg', 'all' or different ids "
            f"from 0 to {n_classes - 1}"
        )
    return ids


def _are_ids(ids: tuple, n_classes: int) -> bool:
    whole = all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k < n_classes for k in ids)
    return whole and 0 < len(ids) == len(set(ids))


def pool(x: Tensor, over: str) -> Tensor:
    """Sum ``x (n, k, m)`` over the pixels of each sample -> (n, k), or over the pixels of the batch -> (1,
    k).
    """
    one_of(OVER, over=over)
    return x.sum(2) if over == "sample" else x.sum((0, 2)).unsqueeze(0)


def count(px: Pixels, over: str) -> Tensor | int:
    """Valid pixels that one sum of :func:`pool` runs over, (n, 1) or of the batch; a plain integer where no
    pixel is void.
    """
    if over == "batch":
        return total(px)
    return px.z.shape[2] if px.valid is None else px.valid.sum(1, keepdim=True)


def total(px: Pixels) -> Tensor | int:
    """Valid pixels of the batch, at least 1."""
    return px.y.numel() if px.valid is None else px.valid.sum().clamp_min(1)


def image(x: Tensor, px: Pixels) -> Tensor:
    """Give ``x (n, k, m)`` its spatial axes back."""
    return x.reshape(*x.shape[:2], *px.space)


def region_sums(px: Pixels, classes: str | Sequence[int], over: str) -> Sums:
    """TP, P, G of the chosen classes over each sample or over the batch."""
    ids = class_ids(classes, px.n_classes)
    p, g = probabilities(px, ids), truth(px, ids)
    return Sums(pool(p * g, over), pool(p, over), pool(g, over), count(px, over))


def ratio(numerator: Tensor, denominator: Tensor, smooth: float | Sequence[float]) -> Tensor:
    """(numerator + s_n) / (denominator + s_d); ``smooth`` is one number for both or the pair (s_n, s_d).

    With s_d = 0 an empty region over an empty prediction counts as 0, never as NaN.
    """
    s_n, s_d = smoothing(smooth)
    return (numerator + s_n) / (denominator + s_d).clamp_min(TINY)


def average(loss: Tensor, g: Tensor, absent: str = "eps") -> Tensor:
    """Mean of ``loss (n, k)`` over images and classes.

    ``absent="eps"`` keeps classes that the target lacks (the smoothing then decides their value);
    ``absent="skip"`` takes the mean over the classes present in each image, then over the images that have
    any; 0 when there is none."""
    one_of(ABSENT, absent=absent)
    if absent == "eps":
        # The smoothing alone decides what an absent class is worth: near 1, or 0 where nothing is predicted.
        return loss.mean()
    # Weights instead of indexing: shapes must not depend on the data.
    present = (g > 0).to(loss.dtype)
    classes = present.sum(1)
    return ((loss * present).sum(1) / classes.clamp_min(1)).sum() / (classes > 0).sum().clamp_min(1)


def pixel_mean(loss: Tensor, px: Pixels, over: str = "batch") -> Tensor:
    """Mean of ``loss (n, m)``, zero on void pixels, over all valid pixels; or the mean over images of their
    means.
    """
    one_of(OVER, over=over)
    if over == "batch" or px.valid is None:
        return loss.sum() / total(px)
    # An image that is void altogether has no mean and leaves that of the images.
    n = px.valid.sum(1)
    return (loss.sum(1) / n.clamp_min(1)).sum() / (n > 0).sum().clamp_min(1)


def bounded_power(x: Tensor, exponent: float) -> Tensor:
    """x**exponent for x >= 0; (x + 1e-7)**exponent where that is below 1, for a finite slope at 0."""
    return x if exponent == 1 else (x.clamp_min(0) + (1e-7 if exponent < 1 else 0)) ** exponent


def smoothing(smooth: float | Sequence[float]) -> tuple[float, float]:
    """Resolve ``smooth`` to (numerator, denominator)."""
    pair = tuple(smooth) if isinstance(smooth, list | tuple) else (smooth, smooth)
    if len(pair) != 2:
        raise UserError(f"smooth={smooth!r} is neither a number nor a pair (numerator, denominator)")
    at_least(0, smooth=pair[0])
    at_least(0, smooth=pair[1])
    return pair


def class_vector(values: Sequence[float] | Tensor, px: Pixels) -> Tensor:
    """One number per class as a tensor (c,) like the logits."""
    values = values if isinstance(values, Tensor) else torch.tensor([float(value) for value in values])
    return values.to(px.z)


def per_pixel(vector: Tensor, px: Pixels) -> Tensor:
    """The entry of ``vector (c,)`` that belongs to each pixel's true class, (n, m), zero on void pixels."""
    y = px.y.long()
    if px.valid is None:
        return vector[y]
    return vector[torch.where(px.valid > 0, y, 0)] * px.valid


def _contiguous(ids: Sequence[int]) -> bool:
    return tuple(ids) == tuple(range(ids[0], ids[-1] + 1))


# The checks of parameters. They are statements of their own and return nothing, so that a fingerprint can
# tell them from what computes; a value goes by the name of its parameter, for the message.


def one_of(choices: Sequence, **values: object) -> None:
    """Raise UserError unless each value is one of ``choices``."""
    for name, value in values.items():
        if value not in choices:
            raise UserError(f"{name}={value!r} is not known{nearest(str(value), choices)}")


def at_least(low: float, **values: object) -> None:
    """Raise UserError unless each value is a number of at least ``low``."""
    for name, value in values.items():
        if not _is_number(value) or not value >= low:
            raise UserError(f"{name}={value!r} is not a number of at least {low:g}{_clamped(value, low)}")


def between(low: float, high: float, **values: object) -> None:
    """Raise UserError unless each value is a number in [low, high]."""
    for name, value in values.items():
        if not _is_number(value) or not low <= value <= high:
            near = _clamped(value, low, high)
            raise UserError(f"{name}={value!r} is not a number between {low:g} and {high:g}{near}")


def one_per_class(px: Pixels, **values: Sequence[float] | Tensor) -> None:
    """Raise UserError unless each value holds one number for each class, none of them negative."""
    for name, vector in values.items():
        if not isinstance(vector, Tensor):
            for value in vector:
                at_least(0, **{name: value})
        if len(vector) != px.n_classes:
            raise UserError(
                f"{name} has {len(vector)} entries for {px.n_classes} classes; give one number per class"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _clamped(value: object, low: float, high: float = float("inf")) -> str:
    """Return the tail of a sentence that names the nearest number allowed."""
    if not isinstance(value, Real) or value != value:  # NaN is near to nothing
        return ""
    return f"; the nearest is {min(max(value, low), high):g}"
