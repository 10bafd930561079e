"""What every network must satisfy, as tests that measure: shape, logits, sides, sameness, gradients, cost.

Each test takes a :class:`Network` and yields rows; its docstring is the name of its row when the network
raises instead."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from lossbench.base.check import Report, Row
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_network
from lossbench.networks.build import Network, check_shape, divisor, heads, seeded
from lossbench.networks.initial import prior_bias, weights_hash
from lossbench.networks.stack import Stack

BATCH = 4  # images
FREQUENCIES = (0.99, 0.01)  # of the classes, for the prior head
TIMED = 7  # steps


def shapes(network: Network) -> Iterator[Row]:
    """maps images to logits of their size."""
    check_shape(network, BATCH)
    sides = "x".join(map(str, network.shape))
    yield Row("maps images to logits of their size", True, f"{BATCH} x {network.in_channels} x {sides}")


def logits(network: Network) -> Iterator[Row]:
    """returns logits."""
    # Every loss takes its own softmax: of probabilities it would be that of numbers between 0 and 1.
    stack, images = _new(network), network.images(BATCH)
    found = stack.infer(images), stack(images).detach()
    note = next(filter(None, (_squashed(network, values) for values in found)), "")
    low, high = min(float(v.min()) for v in found), max(float(v.max()) for v in found)
    yield Row("returns logits", not note, f"{low:.2g} to {high:.2g}", note)


def other_sizes(network: Network) -> Iterator[Row]:
    """other channels, classes and axes."""
    colour = dataclasses.replace(network, in_channels=3, classes=5)
    volume = dataclasses.replace(network, shape=(32, 32, 32))
    for name, other in {"3 channels, 5 classes": colour, "3-D volumes": volume}.items():
        try:
            check_shape(other, 2)
            yield Row(name, True, "takes them")
        except UserError as error:
            yield Row(name, None, "does not apply", str(error))


def sides(network: Network) -> Iterator[Row]:
    """the sides of an image must be divisible by."""
    yield Row("the sides of an image must be divisible by", None, str(divisor(network)))


def start(network: Network) -> Iterator[Row]:
    """one seed, one start; another seed, another start."""
    one, again, other = (weights_hash(network.start(seed)) for seed in (1, 1, 2))
    note = "" if one == again else "two builds from one seed differ: draw from torch's global generator only"
    note = "two seeds give the same weights" if one == other else note
    yield Row("one seed, one start; another seed, another start", not note, one, note)


def training(network: Network) -> Iterator[Row]:
    """training twice gives the same bits."""
    # Two steps, so that what the first draws or counts shows in the second.
    one, again = (_trained(network) for _ in range(2))
    same = weights_hash(one.weights(0)) == weights_hash(again.weights(0))
    drawn = "draws random numbers (dropout)" if one.draws else "draws nothing"
    note = "" if same else "something in it is random and does not come from torch's global generator"
    yield Row("training twice gives the same bits", same, drawn, note)


def evaluation(network: Network) -> Iterator[Row]:
    """an image's logits do not depend on its companions."""
    stack, images = _trained(network), network.images(BATCH)
    together, again = stack.infer(images), stack.infer(images)
    alone = torch.cat([stack.infer(image[None]) for image in images])
    # Other kernels are chosen for another batch, which rounds otherwise.
    apart = float((together - alone).abs().max() / together.abs().max().clamp_min(1))
    note = "" if apart <= 1e-3 else "evaluation uses statistics of the batch: keep running ones"
    note = note if torch.equal(together, again) else "two calls in evaluation mode differ"
    yield Row("an image's logits do not depend on its companions", not note, f"{apart:.1e} apart", note)


def gradients(network: Network) -> Iterator[Row]:
    """the gradient reaches every weight."""
    stack = _new(network)
    for turn in range(3):  # dropout and a dead unit may hide a weight once
        _differentiate(stack, seed=turn)
    dead = [name for name, part in stack.parts.items() if not stack.slopes[part].any()]
    finite = bool(stack.slopes.isfinite().all())
    note = f"not: {', '.join(dead[:5])}{', ...' if len(dead) > 5 else ''}" if dead else ""
    note = note if finite else "it is not finite"
    yield Row("the gradient reaches every weight", not note, f"{len(stack.parts) - len(dead)} tensors", note)


def cells(network: Network) -> Iterator[Row]:
    """K cells in one network are K networks."""
    name = "K cells in one network are K networks"
    if not network.spec.grouped:
        yield Row(name, None, "does not apply", "it does not take 'cells': trained one cell at a time")
        return
    starts, images = [network.start(seed) for seed in (1, 2, 3)], network.images(2)
    together = Stack(network, starts)(torch.cat([images] * 3, 1)).detach()
    alone = torch.cat([Stack(network, [own])(images).detach() for own in starts], 1)
    apart = float((together - alone).abs().max())
    good = apart <= 1e-4 * max(1.0, float(alone.abs().max()))
    note = "" if good else "every weight must hold the cells' weights one after the other on its first axis"
    yield Row(name, good, f"{apart:.1e} apart", note)


def head(network: Network) -> Iterator[Row]:
    """the bias of the head."""
    bias = prior_bias(FREQUENCIES)
    found = Row("bias of the head, which head = 'prior' sets", None, "", "")
    for kind, own in {"default": None, "prior": bias}.items():
        try:
            begin = network.start(1, own)
        except UserError as error:
            yield dataclasses.replace(found, measured="none", note=str(error))
            return
        # In training mode, as the first step sees it: running means are far off at the start.
        logits = Stack(network, [begin])(network.images(BATCH)).detach()
        shown = logits.softmax(2).transpose(0, 2).flatten(1).mean(1)
        wanted = f"wanted is {FREQUENCIES[1]:.3f}" if kind == "prior" else ""
        yield Row(f"mean foreground at the start, head = '{kind}'", None, f"{float(shown[1]):.3f}", wanted)
    yield dataclasses.replace(found, passed=True, measured=", ".join(heads(network)))


def cost(network: Network) -> Iterator[Row]:
    """size and cost."""
    stack = _new(network)
    numbers = sum(part.stop - part.start for part in stack.parts.values())
    yield Row("weights that are trained", None, f"{numbers:,}")
    seconds = []
    for turn in range(TIMED):
        began = time.perf_counter()
        _differentiate(stack, seed=turn)
        seconds.append(time.perf_counter() - began)
    size = f"{BATCH} x {network.in_channels} x {'x'.join(map(str, network.shape))}"
    measured = f"{1000 * statistics.median(seconds):.0f} ms"
    yield Row("forward and backward", None, measured, f"{size}, median of {TIMED}")


TESTS = (shapes, logits, other_sizes, sides, start, training, evaluation, gradients, cells, head, cost)


def run(spec_text: str, extra_files: Iterable[str | Path] = ()) -> Report:
    """Test the network that a spec names on images of 64 x 64 with one channel and two classes; UserError for
    a spec that cannot be read.
    """
    spec = parse_network(spec_text, tuple(extra_files))
    network = Network(spec, 1, 2, (64, 64))
    if spec.library:
        network.build()  # a name or an argument that the library does not have is a mistake in the spec
    rows: list[Row] = []
    for test in TESTS:
        rows.extend(_guarded(test, network))
        if test is TESTS[0] and rows[-1].passed is False:
            break  # without logits every other row would say the same
    return Report(spec.text, tuple(rows))


def _guarded(test: Callable[[Network], Iterable[Row]], network: Network) -> list[Row]:
    name = (test.__doc__ or test.__name__).rstrip(".")
    try:
        return list(test(network))
    except UserError as error:
        return [Row(name, False, "refused", str(error))]
    except Exception as error:  # a user's network may raise anything
        return [Row(name, False, type(error).__name__, str(error).splitlines()[0] if str(error) else "")]


def _new(network: Network) -> Stack:
    return Stack(network, [network.start(1)])


def _squashed(network: Network, values: Tensor) -> str:
    """Return why values (N, 1, C, *S) seem to be probabilities, "" where they do not."""
    if float(values.min()) < 0 or float(values.max()) > 1:
        return ""
    if float((values.sum(2) - 1).abs().max()) < 1e-4:
        return "they lie in 0..1 and sum to 1: leave the softmax out, each loss has its own"
    if not values.any():  # a head that starts at zero
        return ""
    try:
        heads(network)  # a bias that moves its logits one for one: no sigmoid stands behind it
    except UserError:
        return "they lie in 0..1: leave the sigmoid out, each loss has its own"
    return ""


def _differentiate(stack: Stack, seed: int) -> None:
    """Add the gradient of a random linear function of the logits, which no symmetry of a loss can cancel."""
    network = stack.network
    with seeded(seed):
        images = torch.randn(BATCH, network.in_channels, *network.shape)
        logits = stack(images, seed)
        (logits * torch.randn_like(logits)).sum().backward()


def _trained(network: Network) -> Stack:
    """Return a stack of one cell after two steps of plain gradient descent."""
    stack = _new(network)
    for step in range(2):
        stack.slopes.zero_()
        _differentiate(stack, seed=step)
        # By the direction alone: a deep network without normalisation may have any length of gradient.
        stack.values -= 1e-3 * stack.slopes / stack.norms(stack.slopes).clamp_min(1e-12)
    return stack
