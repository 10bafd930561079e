"""Training a stack of cells from the identical start on the identical batches: a pure function from jobs to
results.

No files, no printing, no global state. No weight is shared between the cells of a stack, so each gets exactly
the gradient that it would have alone, and a cell that turns not-finite does not touch its neighbours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from torch import Tensor

from lossbench.experiment.cells import Recipe
from lossbench.networks.stack import Stack
from lossbench.training import graphs
from lossbench.training.blocks import Block, blocks_of, network_of
from lossbench.training.job import Job, Trained
from lossbench.training.signals import predict, validate
from lossbench.training.step import Step

READ = 16  # steps between two looks at the losses on a device that must be waited for


def train(
    jobs: list[Job],
    recipe: Recipe,
    *,
    on_step: Callable[[int, list[float]], None] | None = None,
    device: str = "cpu",
) -> list[Trained]:
    """Train all jobs as one stack and return what each left.

    ``on_step(step, losses)`` is told of each step, on a card some steps later. A stacked recipe never runs
    fewer than two groups, since a network of one group takes other kernels: with two or more, on the CPU with
    one thread, a cell's numbers do not depend on its companions."""
    with graphs.own_stream(device):
        return _train(jobs, recipe, on_step, device)


def _train(
    jobs: list[Job], recipe: Recipe, on_step: Callable[[int, list[float]], None] | None, device: str
) -> list[Trained]:
    began, cpu_began = time.perf_counter(), time.process_time()
    real = len(jobs)
    if recipe.stacked and real == 1:
        jobs = jobs * 2
    blocks = blocks_of(jobs, recipe, device)
    members = [blocks[job.data_name, job.seed] for job in jobs]
    starts = [block.start for block in members]
    stack = Stack(network_of(jobs[0], recipe), starts, device, recipe.precision)
    results = [Trained({}, {}, {}, block.certificate, 0.0, len(jobs)) for block in members]
    step, checkpoints, told = Step(stack, jobs, blocks, recipe), _checkpoints(recipe), 0

    run = graphs.replay(step) or step
    for done in range(recipe.steps):
        if len(step.dead) == len(jobs):
            break
        run(done)
        look = done + 1 in checkpoints
        if not look and (done + 1) % reading(device) and len(step.dead) < len(jobs):
            continue
        _note(results, step, told, done + 1)
        if all(result.error for result in results):
            break
        if look:
            validate(stack, jobs, members, results, recipe, done + 1, step.targets, step.gradients)
        for row in range(told, done + 1) if on_step else ():
            on_step(row + 1, [_loss_at(result, row) for result in results[:real]])
        told = done + 1

    for cell, result in enumerate(results):
        result.weights = stack.weights(cell)
    _predict(stack, members, results, recipe)
    for result in results[:real]:
        result.seconds = (time.perf_counter() - began) / real
        result.cpu_seconds = (time.process_time() - cpu_began) / real
    return results[:real]


def _predict(stack: Stack, members: list[Block], results: list[Trained], recipe: Recipe) -> None:
    """Give each cell its probabilities on validation and test images with the last weights, and on test
    images with the best.
    """

    def images(split: str) -> list[Tensor]:
        return [block.held_out[split] for block in members]

    def note(name: str, logits: list[Tensor]) -> None:
        for result, part in zip(results, logits, strict=True):
            result.predictions[name] = part.float().softmax(1).cpu().numpy()

    if not all(
        "val" in result.predictions for result in results
    ):  # the validation after the last step has kept them
        note("val", predict(stack, images("val"), recipe.batch))
    note("test", predict(stack, images("test"), recipe.batch))
    best = [result.best_weights or result.weights for result in results]
    if any(result.best[1] != recipe.steps for result in results):
        stack.load(best)
        note("test_best", predict(stack, images("test"), recipe.batch))
    else:
        for result in results:
            result.predictions["test_best"] = result.predictions["test"]


def _checkpoints(recipe: Recipe) -> set[int]:
    """Return the steps after which all cells are validated: evenly spaced, the last step among them."""
    return {math.ceil(recipe.steps * (i + 1) / recipe.validations) for i in range(recipe.validations)}


def reading(device: str) -> int:
    """Return after how many steps the losses are read: on a processor after each, on a card rarely, since
    reading waits for it.
    """
    return 1 if device == "cpu" else READ


def _note(results: list[Trained], step: Step, begin: int, end: int) -> None:
    """Append the losses and gradient norms of some steps to each cell's, up to the one that was not finite."""
    rows = zip(
        range(begin, end), step.losses[begin:end].tolist(), step.norms[begin:end].tolist(), strict=True
    )
    for number, losses, norms in rows:
        for cell, (result, loss, norm) in enumerate(zip(results, losses, norms, strict=True)):
            if result.error or result.not_finite_at is not None:
                continue
            raised, error = step.errors.get(cell, (None, None))
            if number == raised:
                result.error = error
                continue
            result.train_loss.append(loss)
            result.grad_norm.append(norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                result.not_finite_at = number + 1
                step.dead.add(cell)


def _loss_at(result: Trained, row: int) -> float:
    """Return a cell's loss at a step, its last one where it has none any more."""
    return result.train_loss[min(row, len(result.train_loss) - 1)] if result.train_loss else math.nan
