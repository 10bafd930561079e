"""What every loss must keep, as tests that measure it: what ``lossbench check`` runs on a spec or a file.

A test takes a :class:`Subject` and yields rows; its docstring is the name of its row when the loss raises
instead. Whatever a loss does, exceptions and NaN included, becomes a row: only a spec that cannot be read
raises UserError."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossbench.base.check import Report, Row
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss, parse_loss
from lossbench.catalogue.source import PACKAGE
from lossbench.metrics.surface import signed_distances

VOID = 255


def disc(size: int = 16, images: int = 2, axes: int = 2) -> Tensor:
    """Class ids (images, size, ...): one disc of class 1, of another radius in each image."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(size) - size / 2 + 0.5] * axes, indexing="ij"))
    radius = torch.linspace(0.2, 0.35, images) * size
    return (grid.square().sum(0).sqrt() < radius.view(-1, *[1] * axes)).long()


def three_classes(size: int = 16, images: int = 2) -> Tensor:
    """As :func:`disc`, with class 2 in the lower half of the disc of the first image only."""
    target = disc(size, images)
    target[0, size // 2 :] *= 2
    return target


def noise(target: Tensor, classes: int = 2, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random logits (N, classes, *S) for a target (N, *S)."""
    return (torch.randn(target.shape[0], classes, *target.shape[1:], dtype=torch.float64) * scale).to(dtype)


def certain(target: Tensor, classes: int = 2, scale: float = 50.0) -> Tensor:
    """Logits of ``scale`` for the class that the target names and 0 for the others; void is class 0."""
    target = torch.where(target < classes, target, 0)
    return torch.zeros(target.shape[0], classes, *target.shape[1:]).scatter_(1, target.unsqueeze(1), scale)


class Unsuitable(Exception):
    """The loss says itself, by a UserError, that it is not made for this input."""


@dataclass(frozen=True)
class Subject:
    """A loss under test, with what it needs beside logits and target computed from the target at hand."""

    text: str
    function: Callable[..., Tensor]
    needs: tuple[str, ...]
    takes_void: bool
    claims_empty: bool | None
    soft: bool = False  # takes shares of the classes as a target, too

    def supply(self, target: Tensor, classes: int, void: int | None = None, progress: float = 0.5) -> dict:
        """Return the keyword arguments that a trainer would give for this target."""
        target = target.argmax(1) if target.is_floating_point() else target
        given: dict = {"ignore_index": void, "progress": progress}
        if "distance_map" in self.needs:
            spacing = (1.0,) * (target.ndim - 1)
            given["distance_map"] = torch.from_numpy(signed_distances(target.numpy(), classes, spacing, void))
        if "class_frequency" in self.needs:
            counts = (
                np.bincount(target[target != VOID].reshape(-1).numpy(), minlength=classes)[:classes] + 1.0
            )
            given["class_frequency"] = torch.from_numpy(counts / counts.sum()).float()
        return given

    def call(self, logits: Tensor, target: Tensor, void: int | None = None, progress: float = 0.5) -> Tensor:
        """Return the loss; raises Unsuitable where it raises UserError."""
        given = self.supply(target, max(2, logits.shape[1]), void, progress)
        try:
            return self.function(logits, target, **given)
        except UserError as error:
            raise Unsuitable(str(error)) from None


def evaluate(
    subject: Subject, logits: Tensor, target: Tensor, void: int | None = None, **more
) -> tuple[Tensor, Tensor]:
    """Return value and gradient; TypeError when the result is not a scalar that depends on the logits."""
    z = logits.detach().clone().requires_grad_()
    value = subject.call(z, target.clone(), void, **more)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shown = (
            f"a tensor of shape {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else f"a {type(value).__name__}"
        )
        raise TypeError(f"returned {shown} instead of a scalar tensor")
    if not value.requires_grad:
        raise TypeError(
            "returned a value without gradient: it must be computed from the logits by torch operations"
        )
    (gradient,) = torch.autograd.grad(value.reshape(()), z)
    return value.detach().reshape(()), gradient


def sentence(error: Exception) -> str:
    """The message of an exception, with the place in the user's file where it arose."""
    # The last frame outside torch and this package is where the user's own code went wrong.
    place, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "torch" not in file.parts and PACKAGE not in file.parents:
            place = f" ({file.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__) + place


def attempt(
    test: str, subject: Subject, logits: Tensor, target: Tensor, void: int | None = None, **more
) -> Row:
    """A row that passes when value and gradient are finite."""
    try:
        value, gradient = evaluate(subject, logits, target, void, **more)
    except Unsuitable as error:
        return Row(test, None, "does not apply", str(error))
    except Exception as error:  # a user's loss may raise anything
        return Row(test, False, type(error).__name__, sentence(error))
    good = bool(value.isfinite() and gradient.isfinite().all())
    what = (
        "the value"
        if not value.isfinite()
        else f"{int((~gradient.isfinite()).sum())} entries of the gradient"
    )
    return Row(test, good, f"{value:.4g}", "" if good else f"{what} not finite")


def optional(row: Row, why: str) -> Row:
    """Turn a row that failed by an exception into one that does not apply: a loss may be made for less."""
    raised = row.passed is False and "not finite" not in row.note
    return Row(row.test, None, "does not apply", f"{why}: {row.note}") if raised else row


def scalar(subject):
    """is a scalar that depends on the logits."""
    target = disc()
    value, gradient = evaluate(subject, noise(target), target)
    yield Row("is a scalar that depends on the logits", bool(gradient.abs().sum() > 0), f"{value:.4g}")


def finite(subject):
    """finite value and gradient."""
    target, empty = disc(), torch.zeros(2, 16, 16, dtype=torch.long)
    pixel = empty.clone()
    pixel[:, 5, 7] = 1
    cases = {
        "random": (noise(target), target),
        "all background": (noise(empty), empty),
        "all foreground": (noise(empty), empty + 1),
        "one pixel": (noise(pixel), pixel),
        "an empty image beside another": (noise(target), target * torch.tensor([1, 0]).view(-1, 1, 1)),
        "perfect": (certain(target), target),
        "wrong everywhere": (certain(1 - target), target),
        "perfect on all background": (certain(empty), empty),
        "logits of ±50": (noise(target).sign() * 50, target),
    }
    for name, (logits, labels) in cases.items():
        yield attempt(f"finite: {name}", subject, logits, labels)
    if "progress" in subject.needs:
        yield attempt("finite: start of training", subject, noise(target), target, progress=0.0)
        yield attempt("finite: end of training", subject, noise(target), target, progress=1.0)
    present = optional(
        attempt("finite: three classes", subject, noise(target, 3), three_classes()), "two classes only"
    )
    yield present
    if present.passed is not None:
        yield attempt("finite: one of three classes absent", subject, noise(target, 3), disc() * 2)
    if subject.takes_void:
        yield attempt("finite: fully ignored", subject, noise(target), torch.full_like(target, VOID), VOID)


def refusals(subject):
    """wrong calls are refused."""
    target = disc()
    z, given = noise(target), subject.supply(target, 2)
    stray = target.clone()
    stray[0, 0, 0] = 2
    calls = {
        "label 2 of two classes": (z, stray, {}),
        "label -1": (z, -target, {}),
        "a 0/255 mask": (z, target * 255, {}),
        "a float target": (z, target.float(), {}),
        "a complex target": (z, target.to(torch.complex64), {}),
        "a one-hot target": (z, torch.stack([1 - target, target], 1), {}),
        "a target of another size": (z, target[:, 1:], {}),
        "numpy arrays": (z.numpy(), target.numpy(), {}),
        "an empty batch": (z[:0], target[:0], {}),
        "an unknown keyword": (z, target, {"ignore_indx": VOID}),
    }
    taken = [
        name
        for name, (logits, labels, more) in calls.items()
        if not _refused(subject, logits, labels, given | more)
    ]
    yield Row(
        "wrong calls are refused", not taken, f"{len(calls) - len(taken)} of {len(calls)}", ", ".join(taken)
    )


def _refused(subject, logits, labels, given) -> bool:
    """Whether a call gets the one sentence of a UserError."""
    try:
        subject.function(logits, labels, **given)
    except UserError:
        return True
    except Exception:  # a traceback is no answer to a user's mistake
        return False
    return False


def other_axes(subject):
    """1-D signals and 3-D volumes."""
    for name, target in (("1-D signals", disc(24, axes=1)), ("3-D volumes", disc(8, axes=3))):
        row = attempt(name, subject, noise(target), target)
        yield optional(row, "not made for these, which @loss(..., dims=(2,)) says in a sentence")


def one_channel(subject):
    """one channel z equals two channels [0, z]."""
    target, name = disc(), "one channel z equals two channels [0, z]"
    z = noise(target, 1)
    row = optional(attempt(name, subject, z, target), "one channel per class only")
    if row.passed is None:
        yield row
        return
    one, _ = evaluate(subject, z, target)
    two, _ = evaluate(subject, torch.cat([torch.zeros_like(z), z], 1), target)
    gap = abs(float(one - two))
    yield Row(name, gap <= 1e-5 * max(1, abs(float(two))), f"{gap:.1e} apart")


def half_precision(subject):
    """float16 and bfloat16 logits."""
    target = disc(300, 1)
    for dtype in (torch.float16, torch.bfloat16):
        name = f"{str(dtype).removeprefix('torch.')} logits, 300 × 300"
        half = noise(target, scale=4, dtype=dtype)
        reference, _ = evaluate(subject, half.float(), target)
        try:
            value, gradient = evaluate(subject, half, target)
        except Exception as error:
            yield Row(name, False, type(error).__name__, sentence(error))
            continue
        gap = abs(float(value) - float(reference)) / max(1e-6, abs(float(reference)))
        good = bool(gradient.isfinite().all()) and gap <= 1e-2
        note = "" if good else f"float32 gives {reference:.4g}: compute in float32 inside (logits.float())"
        yield Row(name, good, f"{value:.4g}", note)


def derivative(subject):
    """gradient equals finite differences."""
    target = disc(6)
    z = noise(target, dtype=torch.float64)
    value, gradient = evaluate(subject, z, target)
    double = value.dtype == torch.float64
    # Central differences lose half of the digits: a float32 loss cannot be held to more.
    step, allowed = (1e-6, 1e-5) if double else (2e-2, 2e-2)
    worst = 0.0
    for _ in range(8):
        direction = torch.randn_like(z)
        with torch.no_grad():
            ahead, behind = (float(subject.call(z + s * step * direction, target)) for s in (1, -1))
        expected = float((gradient * direction).sum())
        worst = max(worst, abs((ahead - behind) / (2 * step) - expected) / max(1e-3, float(gradient.norm())))
    name = f"gradient equals finite differences in {'float64' if double else 'float32'}"
    yield Row(
        name, worst <= allowed, f"{worst:.1e} apart", "" if worst <= allowed else f"allowed are {allowed:g}"
    )


def permutation(subject):
    """the order of the images does not matter."""
    target = disc(16, 3)
    z, order = noise(target), torch.tensor([2, 0, 1])
    value, gradient = evaluate(subject, z, target)
    other, moved = evaluate(subject, z[order], target[order])
    gap = max(abs(float(value - other)), float((gradient[order] - moved).abs().max()))
    yield Row(
        "the order of the images does not matter", gap <= 1e-5 * max(1, abs(float(value))), f"{gap:.1e} apart"
    )


def pure(subject):
    """same input, same value; the inputs stay as they are."""
    target = torch.randint(0, 2, (2, 16, 16))
    z = noise(target)
    kept_z, kept_target = z.clone(), target.clone()
    values = [float(subject.call(z, target)) for _ in range(3)]
    untouched = bool(torch.equal(z, kept_z) and torch.equal(target, kept_target))
    note = "" if len(set(values)) == 1 else "three calls gave different values"
    note = note if untouched else "it writes into its inputs"
    yield Row("same input, same value; the inputs stay as they are", not note, f"{values[0]:.4g}", note)


def void_pixels(subject):
    """void pixels count for nothing."""
    name = "void pixels count for nothing"
    if not subject.takes_void:
        yield Row(
            name,
            None,
            "does not apply",
            "it has no parameter ignore_index: use it on data without void pixels",
        )
        return
    target = disc()
    void = torch.zeros_like(target, dtype=torch.bool)
    void[:, :, :5] = True
    labels = torch.where(void, VOID, target)
    z = noise(target)
    yield from _beside_void(subject, z, labels, void, VOID, "void pixels")
    without, _ = evaluate(subject, z, target)
    unused, _ = evaluate(subject, z, target, VOID)
    gap = abs(float(without - unused))
    good = gap <= 1e-6 * max(1, abs(float(without)))
    yield Row("ignore_index without void pixels changes nothing", good, f"{gap:.1e} apart")


def _beside_void(subject, z, target, void, label, what):
    """Rows on what the logits hold at the pixels ``void (N, *S)``, which ``target`` marks."""
    value, gradient = evaluate(subject, z, target, label)
    moved = torch.where(void.unsqueeze(1), noise(void, scale=3), z)
    other, _ = evaluate(subject, moved, target, label)
    leak = float(gradient.movedim(1, -1)[void].abs().max())
    gap = abs(float(value - other))
    good = leak == 0 and gap <= 1e-6 * max(1, abs(float(value)))
    note = (
        ""
        if good
        else f"largest gradient there {leak:.1e}; the value moves by {gap:.1e} with the logits there"
    )
    yield Row(f"{what} count for nothing", good, f"{max(leak, gap):.1e}", note)
    # A network may say anything outside of the image, even NaN.
    broken, gradient = evaluate(subject, torch.where(void.unsqueeze(1), torch.nan, z), target, label)
    good = bool(gradient.isfinite().all()) and abs(float(broken - value)) <= 1e-6 * max(1, abs(float(value)))
    yield Row(f"NaN under {what} enters nothing", good, f"{broken:.4g}", "" if good else f"not {value:.4g}")


def shares(subject):
    """class ids give what their shares give."""
    if not subject.soft:
        return
    # As many images as classes: a target of ids that meets a tensor of shares would broadcast in silence.
    target = disc()
    z = noise(target)
    hot = torch.stack([1 - target, target], 1).to(z.dtype)
    value, gradient = evaluate(subject, z, hot)
    other, moved = evaluate(subject, z, target)
    gap = max(abs(float(value - other)), float((gradient - moved).abs().max()))
    good = gap <= 1e-5 * max(1, abs(float(value)))
    note = "" if good else f"shares give {value:.4g}, class ids {other:.4g}: make one-hot shares of class ids"
    yield Row("class ids give what their shares give", good, f"{gap:.1e} apart", note)
    yield attempt("finite: shares of two raters", subject, z, (hot + hot.flip(-1)) / 2)
    hot[..., :5] = 0
    yield from _beside_void(subject, z, hot, hot.sum(1) == 0, None, "void shares")


def false_positives(subject):
    """pushes false positives down on empty images."""
    blob, empty = disc(), torch.zeros(2, 16, 16, dtype=torch.long)
    # One confident false object on an empty image; what a step would do to it is the gradient there.
    margin = torch.where(blob > 0, 1.0, -4.0)
    _, gradient = evaluate(subject, torch.stack([torch.zeros_like(margin), margin], 1), empty)
    pressure = float((gradient[:, 1] - gradient[:, 0])[blob > 0].sum()) / 2
    # Beside the pressure of cross-entropy, so that the scale of the loss does not matter.
    relative = pressure / float(margin.sigmoid()[blob > 0].sum() / empty.numel())
    name, measured = "pushes false positives down on empty images", f"{relative:.2g} × cross-entropy's"
    if subject.claims_empty:
        yield Row(
            name, relative > 1e-3, measured, "" if relative > 1e-3 else "it claims penalises_empty=True"
        )
    else:
        yield Row(name, None, measured, "not claimed" if relative <= 1e-3 else "")


def reduction(subject):
    """what is averaged over what."""
    target = disc(16, 2)
    # Images with unequal amounts of the class tell the two reductions apart.
    target[0, :, :5] = 0
    z = noise(target)
    # If the value of the batch is the mean of its images' values, images are reduced one by one.
    both = float(subject.call(z, target))
    alone = [float(subject.call(z[i : i + 1], target[i : i + 1])) for i in range(2)]
    gap = abs(both - sum(alone) / 2)
    per_image = gap <= 1e-5 * max(1e-3, abs(both))
    yield Row(
        "reduction",
        None,
        "mean over images" if per_image else "over the batch",
        f"{gap:.1e} from the images' mean",
    )


def learning(subject):
    """descending it finds the target."""
    target = disc(16, 2)
    # Free logits can fit any mask: what stays wrong after that is the loss.
    z = (noise(target) * 0.1).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.2)
    steps = 60
    for step in range(steps):
        optimizer.zero_grad()
        subject.call(z, target, progress=step / steps).backward()
        optimizer.step()
    found = z.detach().argmax(1) if z.shape[1] > 1 else (z.detach()[:, 0] > 0).long()
    overlap = 2 * float((found * target).sum()) / max(1, float(found.sum() + target.sum()))
    good = overlap > 0.9
    note = "" if good else "minimising it on free logits does not reach the target: is the sign right?"
    yield Row("descending it finds the target", good, f"Dice {overlap:.3f} after {steps} steps", note)


def cost(subject):
    """cost, forward and backward."""
    target = disc(128, 4)
    z = noise(target).requires_grad_()
    # Maps and frequencies are data, computed once: no part of the loss's cost.
    given = subject.supply(target, 2)
    runs = {"own": (subject.function, given), "ce": (get_loss("ce"), {})}
    seconds: dict[str, list[float]] = {"own": [], "ce": []}
    for _ in range(7):
        for name, (function, arguments) in runs.items():
            began = time.perf_counter()
            torch.autograd.grad(function(z, target, **arguments), z)
            seconds[name].append(time.perf_counter() - began)
    own, ce = (statistics.median(values) for values in seconds.values())
    yield Row(
        "cost, forward and backward",
        None,
        f"{own / ce:.1f} × cross-entropy",
        "4 × 2 × 128 × 128, median of 7",
    )


TESTS = (
    *(scalar, finite, refusals, other_axes, one_channel, half_precision, derivative, permutation, pure),
    *(void_pixels, shares, false_positives, reduction, learning, cost),
)


def run(spec_text: str, extra_files: Iterable[str | Path] = ()) -> Report:
    """Test the loss that a spec names, from ``extra_files`` too; UserError for a spec that cannot be read."""
    extra_files = tuple(extra_files)
    spec = parse_loss(spec_text, extra_files)
    native = [term.entry for term in spec.terms if term.entry is not None]
    # What a loss claims of itself is said of its defaults.
    claims = [None if t.given else t.entry.meta.get("penalises_empty") for t in spec.terms if t.entry]
    subject = Subject(
        spec.text,
        get_loss(spec, extra_files),
        spec.needs,
        takes_void=all("ignore_index" in entry.params for entry in native),
        claims_empty=any(claims) if claims and None not in claims else None,
        soft=spec.soft,
    )
    # Every test draws the same numbers, whatever ran before it and on whichever machine.
    state = torch.get_rng_state()
    rows: list[Row] = []
    # A loss may print at every call.
    with redirect_stdout(io.StringIO()) as printed:
        for test in TESTS:
            torch.manual_seed(0)
            rows.extend(_guarded(test, subject))
            if test is TESTS[0] and rows[-1].passed is False:
                break  # without a scalar that depends on the logits every other row would say the same
    torch.set_rng_state(state)
    lines = printed.getvalue().splitlines()
    if lines:
        rows.append(Row("prints", None, f"{len(lines)} lines", f"the first: {lines[0]}"))
    return Report(spec.text, tuple(rows))


def _guarded(test: Callable[[Subject], Iterable[Row]], subject: Subject) -> list[Row]:
    """Run one test; an exception of the loss becomes a row."""
    name = (test.__doc__ or test.__name__).split("\n")[0].rstrip(".")
    try:
        return list(test(subject))
    except Unsuitable as error:
        return [Row(name, None, "does not apply", str(error))]
    except Exception as error:  # a user's loss may raise anything
        return [Row(name, False, type(error).__name__, sentence(error))]
