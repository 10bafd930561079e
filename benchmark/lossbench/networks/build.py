"""A network as one data set needs it: built from a seed, tried on images of that size, asked what it demands.

What a network can do is found by trying it, never by its name: whether it keeps the shape of an image, what
the sides must be divisible by, and where the bias of its head is."""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lossbench.base.errors import UserError, must_divide
from lossbench.catalogue.registry import NetworkSpec, get_network
from lossbench.catalogue.source import PACKAGE
from lossbench.networks.initial import find_heads, set_head, set_weights

TORCH = Path(torch.__file__).parent

# By the number of axes. Sides of the smallest images that are tried: instance normalisation, for one, refuses
# a deepest level of a single pixel, and that says nothing of what divides.
LEAST = {2: 65, 3: 33}

# Powers of two that are tried: up to 128, in 3-D up to 32, beyond which an image would fill the memory.
STEPS = {2: 7, 3: 5}


@dataclass(frozen=True)
class Network:
    """A network for images with ``in_channels`` and the sides ``shape`` (2 or 3 of them), and for
    ``classes``.
    """

    spec: NetworkSpec
    in_channels: int
    classes: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"network '{self.spec.text}'"

    def build(self, seed: int = 0, cells: int = 1) -> nn.Module:
        """Return the module of ``cells`` cells on the CPU, its weights drawn from ``seed`` alone."""
        try:
            with seeded(seed):
                module = get_network(self.spec, self.in_channels, self.classes, len(self.shape), cells=cells)
        except UserError:
            raise
        except Exception as error:  # a library or a user's builder may raise anything
            raise UserError(f"{self} cannot be built for {self._purpose()}: {_said(error)}") from None
        if not isinstance(module, nn.Module):
            raise UserError(f"{self} must be built as a torch.nn.Module, got a {type(module).__name__}")
        return module

    def start(
        self,
        seed: int,
        bias: Tensor | None = None,
        weights: dict[str, Tensor] | None = None,
        path: str = "the file of weights",
    ) -> dict[str, Tensor]:
        """Return weights and buffers of one cell at the start, a function of the arguments alone.

        ``bias`` (classes,): what the head's bias is set to (head = "prior"); ``weights``: those of a file
        ``path``, instead of drawn ones."""
        module = self.build(seed)
        if weights is not None:
            set_weights(module, weights, path)
        # After the weights, since a file holds a bias of its own.
        if bias is not None:
            set_head(module, bias, heads(self))
        return {name: value.detach().clone() for name, value in module.state_dict().items()}

    def images(self, count: int = 1, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return normal noise (count, in_channels, *shape), the same at every call."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.in_channels, *(shape or self.shape), generator=generator)

    def _purpose(self) -> str:
        channels = f"{self.in_channels} channel{'s' * (self.in_channels > 1)}"
        return f"{len(self.shape)}-D images with {channels} and {self.classes} classes"


class Refusal(NamedTuple):
    """What is wrong with a network's answer, and whether images of other sides may do."""

    said: str
    may_be_sides: bool


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu", everything: bool = False) -> Iterator[None]:
    """Draw from ``seed`` within, and leave PyTorch's global generators as they were.

    ``everything``: those of numpy and Python, too, which other threads of a worker may draw from."""
    devices = [] if torch.device(device).type == "cpu" else [torch.device(device)]
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which would also seed the cards that are not restored here.
        torch.default_generator.manual_seed(seed)
        for card in devices:
            index = torch.cuda.current_device() if card.index is None else card.index
            torch.cuda.default_generators[index].manual_seed(seed)
        if not everything:
            yield
            return
        others = np.random.get_state(), random.getstate()
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(others[0])
            random.setstate(others[1])


@lru_cache(maxsize=64)
def heads(network: Network) -> tuple[str, ...]:
    """Return the names of the parameters that are the bias of the head; UserError when there are none."""
    return tuple(find_heads(network.build(), network.images(), network.classes, str(network)))


@lru_cache(maxsize=256)
def check_shape(network: Network, batch: int = 2) -> None:
    """Raise UserError unless a batch of the network's images keeps its sides, in training and in evaluation.

    In training, because normalisation over the batch refuses what evaluation takes, and because some
    networks give more than logits there."""
    images = network.images(min(batch, 2))
    for training in (True, False):
        # A new module each time: the first pass moves running means.
        refusal = _refusal(network.build().train(training), images, network)
        if refusal:
            raise UserError(_why(network, refusal, "training" if training else "evaluation"))


def _why(network: Network, refusal: Refusal, mode: str) -> str:
    sides, step = "x".join(map(str, network.shape)), 1
    if refusal.may_be_sides:
        # What the sides must be says more than what a layer deep within raised.
        with suppress(UserError):
            step = divisor(network)
    if any(side % step for side in network.shape):
        return f"images of {sides} do not fit {network}: {must_divide(network.shape, step)}"
    return f"images of {sides} do not fit {network} in {mode}: {refusal.said}"


@lru_cache(maxsize=64)
def divisor(network: Network) -> int:
    """Return the smallest power of two that the sides of an image must be divisible by.

    Found by trying: each power on an image whose sides are odd multiples of it, so that no larger power
    divides them. UserError when no image keeps its shape."""
    module, dims = network.build().eval(), len(network.shape)
    for step in (2**power for power in range(STEPS[dims] + 1)):
        sides = _sides(step, dims)
        refusal = _refusal(module, network.images(1, sides), network)
        if refusal is None:
            return step
    shown = "x".join(map(str, sides))
    raise UserError(f"{network} keeps the shape of no image that was tried; {shown}: {refusal.said}")


def _sides(step: int, dims: int) -> tuple[int, ...]:
    """Return unequal odd multiples of ``step``: at least three times it, so that the deepest level of a
    network is more than a pixel, and at least ``LEAST``.
    """
    factor = max(3, math.ceil(LEAST[dims] / step)) | 1
    return (factor * step, (factor + 2) * step, factor * step)[:dims]


@torch.no_grad()
def _refusal(module: nn.Module, images: Tensor, network: Network) -> Refusal | None:
    """Return what is wrong with a network's answer to images, None where nothing is."""
    wanted = (images.shape[0], network.classes, *images.shape[2:])
    try:
        with seeded(0):  # for dropout
            logits = module(images)
    except Exception as error:  # whatever a network raises on images that do not fit
        return Refusal(_said(error), True)
    if not isinstance(logits, Tensor):
        return Refusal(f"it returns a {type(logits).__name__} instead of logits {wanted}", False)
    if tuple(logits.shape) != wanted:
        said = f"it returns {tuple(logits.shape)} instead of logits {wanted}"
        return Refusal(said, logits.ndim == images.ndim)
    return None


def _said(error: Exception) -> str:
    """Return the kind of an exception, its first line, and where outside torch and lossbench it arose."""
    first = (str(error).strip().splitlines() or [""])[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not {PACKAGE, TORCH} & set(Path(frame.filename).parents)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' if first else ''}{first}{place}"
