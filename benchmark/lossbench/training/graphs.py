"""A training step recorded once and replayed: on a GPU, hundreds of small operations start as one.

What a graph replays is what it saw: it cannot wait for a value, branch on one, or hear of anything that
Python counts. So a stack is replayed only after replayed steps have left what ordinary ones leave, and
otherwise trained step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import torch
from torch import Tensor

from lossbench.training.step import Step

# Ordinary steps before a recording: libraries choose their kernels in them, and replayed steps are compared
# with them.
CHECKED = 2

FEWEST = 20  # steps below which a recording is not worth it

Record = Callable[[Callable[[], None]], Callable[[], None]]  # from a call to what replays it


def replay(step: Step, record: Record | None = None) -> Callable[[int], None] | None:
    """Return what stands for ``step`` from now on, or None where that must run as it is: on a CPU, and
    with a loss that has a schedule.

    The step is recorded as a CUDA graph, or by ``record``, and its replay is used if it leaves what the step
    leaves. The step stays as it was."""
    record = record or (_on_card if step.counter.device.type == "cuda" else None)
    if record is None or step.recipe.steps < FEWEST:
        return None
    if any("progress" in job.needs for job in step.jobs):
        return None
    before = [value.clone() for value in step.state]

    def restore() -> None:
        step.errors.clear()
        step.dead.clear()
        for value, old in zip(step.state, before, strict=True):
            value.copy_(old)

    def outcome(run: Callable[[int], None]) -> list[Tensor]:
        restore()
        for done in range(CHECKED):
            run(done)
        return [step.losses[:CHECKED].clone(), step.norms[:CHECKED].clone(), step.stack.values - before[0]]

    ordinary, again = outcome(step), None
    if not step.errors:  # a loss that raises does so when its step comes
        with suppress(Exception):  # whatever the driver or a kernel refuses to record: slower, not wrong
            again = record(lambda: step(0))
    if again is None or step.errors:  # the refusal may have come up inside a loss
        restore()
        return None
    held = step.gradients, step.targets
    replayed = outcome(lambda done: again())
    restore()
    if not _alike(step, replayed, ordinary):
        return None

    def run(done: int) -> None:
        again()
        step.gradients, step.targets = held

    return run


def _alike(step: Step, ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Return whether two runs left the same losses and norms, and the same changes of weights, cell by cell.

    Kernels on a GPU may add in another order, and with AdamW a gradient near zero then changes its weight
    the other way."""
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True):
            return False
    apart, whole = (step.stack.norms(change) for change in (ours[2] - theirs[2], theirs[2]))
    return bool(((apart <= 0.1 * whole) | (apart.isnan() & whole.isnan())).all())


def _on_card(call: Callable[[], None]) -> Callable[[], None]:
    """Capture a call, which has run before, as a CUDA graph; on the current stream, since what autograd keeps
    of those runs names that one.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        call()
    return graph.replay


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Run what is within on a stream of this process's own, if on a GPU: nothing can be captured on the
    default one.
    """
    if device == "cpu":
        yield
        return
    stream, outer = _stream(), torch.cuda.current_stream()
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)


@cache
def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
