"""One training step of a stack: a function of a counter on the device alone, so that a graph of it can be
replayed.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossbench.base import seeds
from lossbench.base.errors import said
from lossbench.networks.stack import Stack
from lossbench.training.blocks import Block, Job
from lossbench.training.optim import clip, optimizer
from lossbench.training.signals import call_loss


class Step:
    """Calling it takes the next batch of every block, trains all cells by one step and counts.

    The losses are looped, each differentiated for its own cell's logits; the network is differentiated once,
    since no weight is shared. What a step leaves stays on the device: nothing here waits for it, moves
    anything to or from it, or depends on anything that Python counts, except ``progress`` for losses that
    need it.
    """

    def __init__(self, stack: Stack, jobs: list[Job], blocks: dict[str, Block]):
        device, recipe = stack.values.device, jobs[0].cell.recipe
        self.stack, self.jobs, self.blocks, self.recipe = stack, jobs, blocks, recipe
        self.update = optimizer(stack, recipe, [job.cell.learning_rate for job in jobs])
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        # (steps, cells); nan too where no loss was computed
        self.losses = torch.full((recipe.steps, len(jobs)), torch.nan, dtype=torch.float64, device=device)
        self.norms = torch.zeros_like(self.losses)
        self.aside = nullcontext() if device.type == "cpu" else Constants()
        self.dead: set[int] = set()  # cells whose loss is not computed any more
        # cell -> the step in which its loss raised an error, from 0, and what it said
        self.errors: dict[int, tuple[int, str]] = {}
        self.gradients: list[Tensor] = []  # of the last step, each cell's loss by its logits (N, classes, *S)
        self.targets: list[Tensor] = []  # of the last step, each cell's masks (N, *S)

    def feed(self, done: int) -> None:
        """Make the batches of the next step ready; ``done`` steps came before. Before each call, since no
        graph can hold it.
        """
        for block in self.blocks.values():
            block.batches.feed(done)

    @property
    def state(self) -> list[Tensor]:
        """All that a step changes and a later step reads."""
        return [*self.stack.state, self.counter, *self.update.state]

    def __call__(self, done: int) -> None:
        """Train one step; ``done`` steps came before."""
        batches = {name: block.batch(self.counter) for name, block in self.blocks.items()}
        members = [batches[job.cell.block] for job in self.jobs]
        self.targets = [
            self.blocks[job.cell.block].target(masks)
            for job, (_, masks, _) in zip(self.jobs, members, strict=True)
        ]
        images = [images for images, _, _ in members]
        first = self.jobs[0].cell
        seed = seeds.integer("dropout", f"{first.stream} {done}", first.seed)
        logits = self.stack(images[0] if len(images) == 1 else torch.cat(images, 1), seed)
        with self.aside:
            values = self._differentiate(logits.detach(), members, done)
        if len(self.dead) < len(self.jobs):  # else the network is not differentiated at all
            self.stack.slopes.zero_()
            logits.backward(torch.stack(self.gradients, 1))
            self.norms.index_copy_(0, self.counter, clip(self.stack, self.recipe.clip).double()[None])
            self.update(self.counter)
        self.losses.index_copy_(0, self.counter, torch.stack(values)[None])
        self.counter.add_(1)

    def _differentiate(self, logits: Tensor, members: list, done: int) -> list[Tensor]:
        """Set each cell's gradient by its logits, zero for a cell that is dead, and return the losses."""
        nothing = torch.full((), torch.nan, dtype=torch.float64, device=logits.device)
        progress, values = done / max(self.recipe.steps - 1, 1), []
        self.gradients = []
        for cell, (job, (_, masks, distances)) in enumerate(zip(self.jobs, members, strict=True)):
            # A leaf of its own: the loss is differentiated up to here, the network once for all cells.
            own, value = logits[:, cell].requires_grad_(), nothing
            if cell not in self.dead:
                block = self.blocks[job.cell.block]
                try:
                    value = call_loss(job, block, own, masks, distances, progress)
                    if value.requires_grad:  # a loss may give a plain number where a batch holds nothing
                        value.backward()
                except torch.OutOfMemoryError:  # the stack's fault
                    raise
                # A user's loss may raise anything, or leave the program; it costs its own cell only.
                except (Exception, SystemExit) as error:
                    self.errors[cell] = done, f"{type(error).__name__} in step {done + 1}: {said(error)}"
                    self.dead.add(cell)
                    own.grad, value = None, nothing
            values.append(value.detach().to(nothing))
            self.gradients.append(torch.zeros_like(own) if own.grad is None else own.grad)
        return values


# --- Python's numbers inside a loss, kept on the device: bringing them there at every call would wait for it


MOST_KEPT = 1000  # constants kept: a loss whose numbers change from call to call must not fill the memory


class Constants(TorchFunctionMode):
    """While it is active, what a loss makes of Python's numbers is made once and copied from then on.

    No graph can hold the way from the CPU to the GPU."""

    MAKERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        source, others = None, args
        if args and function in self.MAKERS:
            source, others = _numbers(args[-1]), args[:-1]
        elif function is Tensor.to:  # of a tensor that was made here a moment ago
            source, others = getattr(args[0], "_made_of", None), args[1:]
        if source is None or kwargs.get("requires_grad"):
            return function(*args, **kwargs)
        how = [*others, *(item for pair in sorted(kwargs.items()) for item in pair)]
        key = (function, source, *map(_mark, how))
        if key not in self.kept:
            if len(self.kept) >= MOST_KEPT:
                return function(*args, **kwargs)
            self.kept[key] = function(*args, **kwargs)
        made = self.kept[key].clone()  # the loss may write into it
        made._made_of = key  # so that moving it to the device is known, too
        return made


def _mark(option: Any) -> Any:
    """Return what tells one option of a call from another."""
    return (option.dtype, option.device) if isinstance(option, Tensor) else str(option)


def _numbers(value: Any) -> tuple | None:
    """Return what tells plain numbers, or lists of them, from others; None for anything else, which may
    change behind its name.
    """
    if type(value) in (bool, int, float):
        return type(value), repr(value)
    if type(value) not in (list, tuple):
        return None
    parts = tuple(_numbers(part) for part in value)
    return None if None in parts else parts
