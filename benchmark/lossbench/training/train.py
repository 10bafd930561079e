"""Training a stack of cells from the identical start on the identical batches: a pure function from jobs to
results.

No files, no printing, no global state. No weight is shared between the cells of a stack, so each gets exactly
the gradient that it would have alone, and a cell that turns not-finite does not touch its neighbours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from lossbench.experiment.cells import Recipe
from lossbench.networks.stack import Stack
from lossbench.training import graphs
from lossbench.training.blocks import Block, blocks_of, network_of
from lossbench.training.job import Job, Trained
from lossbench.training.signals import predict, validate
from lossbench.training.step import Step

READ = 16  # steps between two looks at the losses on a device that must be waited for

OnStep = Callable[[int, list[float]], None]


def train(jobs: list[Job], *, on_step: OnStep | None = None, device: str = "cpu") -> list[Trained]:
    """Train all jobs, which share a recipe, as one stack and return what each left.

    ``on_step(step, losses)`` is called for each step, on a card some steps later. A stacked recipe never runs
    fewer than two groups, since a network of one group takes other kernels: with two or more, on the CPU with
    one thread, a cell's numbers do not depend on its companions."""
    if len({job.cell.recipe for job in jobs}) != 1:
        raise ValueError("jobs that are trained together must share one recipe")
    with graphs.own_stream(device):
        return _train(jobs, on_step, device)


def _train(jobs: list[Job], on_step: OnStep | None, device: str) -> list[Trained]:
    began, cpu_began = time.perf_counter(), time.process_time()
    real, recipe = len(jobs), jobs[0].cell.recipe
    if recipe.stacked and real == 1:
        jobs = jobs * 2  # the second is thrown away
    blocks = blocks_of(jobs, device)
    members = [blocks[job.cell.block] for job in jobs]
    starts = [block.start for block in members]
    stack = Stack(network_of(jobs[0]), starts, device, recipe.precision)
    results = [Trained(block.certificate, stack=len(jobs)) for block in members]
    step, checkpoints, read = Step(stack, jobs, blocks), validation_steps(recipe), 0

    run = graphs.replay(step) or step
    for done in range(1, recipe.steps + 1):
        run(done - 1)
        all_dead = len(step.dead) == len(jobs)
        if done not in checkpoints and done % reading(device) and not all_dead:
            continue
        # Only now are losses read from the device; a cell may have died some steps ago.
        _note(results, step, read, done)
        if all(result.error for result in results):
            break
        if done in checkpoints:
            validate(stack, jobs, members, results, done, step.targets, step.gradients)
        if on_step:  # also for the steps since the last look
            for row in range(read, done):
                on_step(row + 1, [_loss_at(result, row) for result in results[:real]])
        read = done
        if len(step.dead) == len(jobs):
            break

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

    def keep(name: str, split: str) -> None:
        images = [block.held_out[split] for block in members]
        for result, logits in zip(results, predict(stack, images, recipe.batch), strict=True):
            result.predictions[name] = logits.float().softmax(1).cpu().numpy()

    # The validation after the last step has kept these already, unless training ended early.
    if not all("val" in result.predictions for result in results):
        keep("val", "val")
    keep("test", "test")
    # Where the best weights are the last ones, nothing need be predicted again.
    if all(result.best[1] == recipe.steps for result in results):
        for result in results:
            result.predictions["test_best"] = result.predictions["test"]
    else:
        stack.load([result.best_weights or result.weights for result in results])
        keep("test_best", "test")


def validation_steps(recipe: Recipe) -> set[int]:
    """Return the steps after which all cells are validated: evenly spaced, the last step among them."""
    return {math.ceil(recipe.steps * (i + 1) / recipe.validations) for i in range(recipe.validations)}


def reading(device: str) -> int:
    """Return after how many steps the losses are read: on a processor after each, on a card rarely, since
    reading waits for it.
    """
    return 1 if device == "cpu" else READ


def _note(results: list[Trained], step: Step, begin: int, end: int) -> None:
    """Append the losses and gradient norms of the steps from ``begin`` to ``end`` to each cell's, up to the
    one that was not finite.
    """
    losses, norms = step.losses[begin:end].tolist(), step.norms[begin:end].tolist()
    for cell, result in enumerate(results):
        raised, error = step.errors.get(cell, (None, None))
        for number in range(begin, end):
            if result.error or result.not_finite_at is not None:
                break
            if number == raised:
                result.error = error
                break
            loss, norm = losses[number - begin][cell], norms[number - begin][cell]
            result.train_loss.append(loss)
            result.grad_norm.append(norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                result.not_finite_at = number + 1
                step.dead.add(cell)


def _loss_at(result: Trained, row: int) -> float:
    """Return a cell's loss at a step, its last one where it has none any more."""
    return result.train_loss[min(row, len(result.train_loss) - 1)] if result.train_loss else math.nan
