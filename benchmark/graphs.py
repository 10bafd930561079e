"""A training step recorded once and replayed: on a card, hundreds of small operations start as one.

What a graph replays is what it saw: it cannot wait for a value, branch on one, or hear of anything that Python counts. So a stack is
replayed only if every loss in it is shown to be a fixed list of operations (``replayable``), and if replayed steps leave what steps leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.signals import call_loss

if TYPE_CHECKING:
    from benchmark.steps import Step
    from benchmark.training import Job

CHECKED = 2  # ordinary steps before a recording, in which libraries choose their kernels, and with which replayed ones are compared
MOST = 1000  # constants kept: a loss whose numbers change from call to call must not fill the memory
FEWEST = 20  # steps below which a recording is not worth it

# Operations that make the processor wait for the device, or whose result has as many numbers as the values say.
WAITS = {
    "_local_scalar_dense", "bincount", "equal", "histc", "is_nonzero", "lift_fresh", "masked_select", "nonzero",
    "repeat_interleave", "unique_consecutive", "unique_dim", "_unique2",
}  # fmt: skip


class NotReplayable(Exception):
    """An operation that no graph can hold."""


class Tape(TorchDispatchMode):
    """The operations of a call, recorded while it runs and replayed on the same memory: on any device what a CUDA graph does on a card."""

    def __init__(self, call: Callable[[], None]):
        super().__init__()
        self.entries: list[tuple] = []
        with self:
            call()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        masked = name in ("index", "index_put", "index_put_") and any(t.dtype in (torch.bool, torch.uint8) for t in args[1] if t is not None)
        if name in WAITS or masked:
            raise NotReplayable(name)
        result = function(*args, **(kwargs or {}))
        self.entries.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def __call__(self) -> None:
        """Run the recorded operations again; what the first run left in memory is overwritten, what it read is read anew."""
        for function, args, kwargs, old in self.entries:
            known = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            new = function(*args, **kwargs)
            for before, after in zip(tree_leaves(old), tree_leaves(new), strict=True):
                if isinstance(after, Tensor) and _memory(after) not in known:  # neither a view nor written in place
                    before.copy_(after)


class Constants(TorchFunctionMode):
    """Keeps on the device what a loss makes of Python's numbers at every call: bringing it there would wait, and no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple, Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        numbers = args and function in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and isinstance(args[-1], list | tuple | int | float)
        if not numbers or kwargs.get("requires_grad") or len(self.kept) >= MOST:
            return function(*args, **kwargs)
        like = [(t.dtype, t.device) for t in args[:-1]]
        key = (function, repr(args[-1]), *like, *sorted((name, str(value)) for name, value in kwargs.items()))
        if key not in self.kept:
            self.kept[key] = function(*args, **kwargs)
        return self.kept[key].clone()  # the loss may write into it


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def replay(step: Step) -> Callable[[int], None] | None:
    """Return what stands for ``step`` from now on, or None where that must run as it is."""
    if step.counter.device.type != "cuda" or step.recipe.steps < FEWEST or not all(map(replayable, step.jobs)):
        return None
    try:
        return recorded(step, _on_card)
    except RuntimeError:  # the driver or a kernel refuses to be captured: slower, not wrong
        torch.cuda.synchronize()
        return None


def recorded(step: Step, record: Callable[[Callable[[], None]], Callable[[], None]]) -> Callable[[int], None] | None:
    """Record a step; return its replay if that leaves what the step itself leaves, else None. The step's state stays as it was."""
    before = [value.clone() for value in step.state]

    def restore() -> None:
        for value, old in zip(step.state, before, strict=True):
            value.copy_(old)

    def outcome(run: Callable[[], None]) -> list[Tensor]:
        restore()
        for _ in range(CHECKED):
            run()
        return [value[:CHECKED].clone() for value in (step.losses, step.norms)] + [step.stack.values - before[0]]

    theirs, failed = outcome(lambda: step(0)), (dict(step.errors), set(step.dead))
    again = record(lambda: step(0))
    held = step.gradients, step.targets
    if step.errors != failed[0]:  # a loss ran, and could not be recorded
        step.errors, step.dead = failed
        restore()
        return None
    ours = outcome(again)
    restore()
    for ran, stood in zip(ours[:2], theirs[:2], strict=True):
        if not torch.allclose(ran, stood, rtol=1e-3, atol=1e-6, equal_nan=True):
            return None
    if (ours[2] - theirs[2]).norm() > 0.1 * theirs[2].norm():  # kernels on a card may add in another order, and small gradients change sign
        return None

    def run(done: int) -> None:
        again()
        step.gradients, step.targets = held

    return run


def _on_card(call: Callable[[], None]) -> Callable[[], None]:
    """Capture a call, which has run before, as a CUDA graph; on the current stream, since what autograd keeps of those runs names that one."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        call()
    return graph.replay


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Run what is within on a stream of this process's own, if on a card: nothing can be captured on the default one."""
    if device == "cpu":
        yield
        return
    stream, outer = _stream(), torch.cuda.current_stream()
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)


@cache
def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()


_known: WeakKeyDictionary = WeakKeyDictionary()  # losses that were looked at


def replayable(job: Job) -> bool:
    """Return whether a job's loss is a fixed list of operations: recorded on one input, it gives on another what it gives there itself."""
    if "progress" in job.needs:
        return False
    if job.loss not in _known:
        _known[job.loss] = _same_again(job)
    return _known[job.loss]


def _same_again(job: Job) -> bool:
    data = job.data
    masks, classes = np.asarray(data.masks), len(data.classes)
    generator = torch.Generator().manual_seed(0)
    full = torch.from_numpy(masks[np.argsort((masks != 0).reshape(len(masks), -1).sum(1))[-2:]]).long()
    half = full.clone()
    half[..., : half.shape[-1] // 2] = 0
    shape = (len(full), classes, *masks.shape[1:])
    inputs = [(torch.randn(shape, generator=generator), target, torch.randn(shape, generator=generator)) for target in (full, half)]
    logits, target, distances = (part.clone() for part in inputs[0])
    value, slope = torch.zeros(()), torch.zeros(shape)
    frequency = torch.full((classes,), 1 / classes)

    def call() -> None:
        own = logits.detach().requires_grad_()
        found = call_loss(job, own, target, distances, frequency, 0.0)
        (gradient,) = torch.autograd.grad(found, own)
        value.copy_(found.detach())
        slope.copy_(gradient)

    try:
        with Constants():
            call()
            tape = Tape(call)
        for part, new in zip((logits, target, distances), inputs[1], strict=True):
            part.copy_(new)
        call()
        expected = value.clone(), slope.clone()
        tape()
    except Exception:  # whatever it raises it will raise again in training, where that is told
        return False
    return all(torch.allclose(ran, stood, equal_nan=True) for ran, stood in zip((value, slope), expected, strict=True))
