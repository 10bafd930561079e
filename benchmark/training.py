"""Training a stack of cells from the identical start on the identical batches: a pure function from jobs to results.

No files, no printing, no global state. The losses of a stack are summed and differentiated once: since no weight is shared, the
gradient of the sum is exactly each cell's own gradient, and a cell that turns not-finite does not touch its neighbours.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark import seeds
from benchmark.cells import Recipe
from benchmark.data.augment import augment
from benchmark.models import Stack, initial_weights, weights_hash
from benchmark.signals import call_loss, predict, validate


@dataclass(frozen=True)
class Job:
    """One cell, ready to train: its loss as a function, what that needs, its data in memory, and its seed."""

    loss: Callable[..., Tensor]
    needs: tuple[str, ...]
    data: Any  # benchmark.data.container.Data
    data_name: str
    seed: int
    learning_rate: float | None = None  # peak of the schedule; None: the recipe's


@dataclass
class Trained:
    """What training left of one cell."""

    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    curves: dict[str, list[float]]
    certificate: dict[str, str]
    seconds: float
    stack: int
    cpu_seconds: float = 0.0
    not_finite_at: int | None = None
    error: str | None = None
    best: tuple[float, int] = (-1.0, 0)  # validation Dice and its step
    train_loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)  # "val", "test", "test_best": probabilities (N, classes, *S)


@dataclass(frozen=True)
class Block:
    """What all cells of one data set variant and seed share: tensors, batch order, start."""

    images: Tensor
    masks: Tensor
    order: np.ndarray
    start: dict[str, Tensor]
    augment_seed: int
    frequency: Tensor
    certificate: dict[str, str]
    distances: Tensor | None


def train(jobs: list[Job], recipe: Recipe, *, on_step: Callable[[int, list[float]], None] | None = None, device: str = "cpu") -> list[Trained]:
    """Train all jobs as one stack and return what each left.

    ``on_step(step, losses)`` is told after each step. A stacked recipe never runs fewer than two groups, since a network of one group takes
    other kernels: with two or more, on the CPU with one thread, a cell's numbers do not depend on its companions.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    real = len(jobs)
    if recipe.stacked and real == 1:
        jobs = jobs * 2
    blocks = _blocks(jobs, recipe, device)
    members = [blocks[job.data_name, job.seed] for job in jobs]
    data = jobs[0].data
    dims = data.masks.ndim - 1
    stack = Stack([block.start for block in members], data.images.shape[1], len(data.classes), recipe.widths, dims, device, recipe.precision)
    optimizer = _optimizer(stack, recipe)
    tops = [job.learning_rate or recipe.learning_rate for job in jobs]
    generators = {key: torch.Generator().manual_seed(block.augment_seed) for key, block in blocks.items()}
    results = [Trained({}, {}, {}, block.certificate, 0.0, len(jobs)) for block in members]
    checkpoints = _checkpoints(recipe)

    for step in range(recipe.steps):
        for group, top in zip(optimizer.param_groups, tops, strict=True):
            group["lr"] = learning_rate(recipe, step, top)
        batches = {key: _batch(block, step, generators[key], recipe) for key, block in blocks.items()}
        parts = [batches[job.data_name, job.seed] for job in jobs]
        x = parts[0][0] if len(parts) == 1 else torch.cat([part[0] for part in parts], 1)
        logits = stack(x)
        look = step + 1 in checkpoints
        if look:
            logits.retain_grad()
        losses = _losses(jobs, results, logits, parts, members, step / max(recipe.steps - 1, 1), step)
        optimizer.zero_grad(set_to_none=True)
        alive = [value for value in losses if value is not None]
        if not alive:
            break
        torch.stack(alive).sum().backward()
        norms = _clip(stack, recipe.clip)
        optimizer.step()
        _note(results, losses, norms, step)
        if look:
            validate(stack, jobs, members, results, recipe, step + 1, [part[1] for part in parts], logits)
        if on_step:
            on_step(step + 1, [r.train_loss[-1] if r.train_loss else math.nan for r in results[:real]])

    for cell, result in enumerate(results):
        result.weights = stack.weights(cell)
    _predict(stack, jobs, members, results, recipe)
    for result in results[:real]:
        result.seconds = (time.perf_counter() - began) / real
        result.cpu_seconds = (time.process_time() - cpu_began) / real
    return results[:real]


def _predict(stack: Stack, jobs: list[Job], members: list[Block], results: list[Trained], recipe: Recipe) -> None:
    """Give each cell its probabilities on validation and test images with the last weights, and on test images with the best."""
    def images(split: str) -> list[Tensor]:
        kept = {id(b): b.images[torch.from_numpy(j.data.split[split])] for j, b in zip(jobs, members, strict=True)}
        return [kept[id(b)] for b in members]

    def note(name: str, logits: list[Tensor]) -> None:
        for result, part in zip(results, logits, strict=True):
            result.predictions[name] = part.float().softmax(1).cpu().numpy()

    if not all("val" in result.predictions for result in results):  # the validation after the last step has kept them
        note("val", predict(stack, images("val"), recipe.batch))
    note("test", predict(stack, images("test"), recipe.batch))
    best = [result.best_weights or result.weights for result in results]
    if any(result.best[1] != recipe.steps for result in results):
        stack.load(best)
        note("test_best", predict(stack, images("test"), recipe.batch))
    else:
        for result in results:
            result.predictions["test_best"] = result.predictions["test"]


def learning_rate(recipe: Recipe, step: int, top: float) -> float:
    """Return the rate of a step (0-based) under a schedule with the peak ``top``: a function of the step alone, never of a loss value.

    one_cycle: half a cosine from 1/25 of the rate up to it over the first 30 %, then half a cosine down to 1/10,000 of it.
    poly: rate * (1 - t)^0.9.
    """
    t = step / max(recipe.steps - 1, 1)
    if recipe.schedule == "constant":
        return top
    if recipe.schedule == "poly":
        return top * (1 - t) ** 0.9
    low, high, phase = (top / 25, top, t / 0.3) if t < 0.3 else (top, top * 1e-4, (t - 0.3) / 0.7)
    return low + (high - low) * (1 - math.cos(math.pi * phase)) / 2


def batch_order(count: int, batch: int, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Return int64 (steps, batch): positions in the training split, every image once before any comes again."""
    rounds = math.ceil(steps * batch / count)
    return np.concatenate([generator.permutation(count) for _ in range(rounds)])[: steps * batch].reshape(steps, batch)


def _blocks(jobs: list[Job], recipe: Recipe, device: str) -> dict[tuple[str, int], Block]:
    from benchmark.data.distance import signed_distances

    blocks: dict[tuple[str, int], Block] = {}
    for job in jobs:
        key = (job.data_name, job.seed)
        if key in blocks:
            continue
        data, classes = job.data, len(job.data.classes)
        train = data.split["train"]
        start = initial_weights(
            data.images.shape[1], classes, recipe.widths, data.masks.ndim - 1, seeds.integer("init", job.data_name, job.seed)
        )
        order = batch_order(len(train), recipe.batch, recipe.steps, seeds.stream("order", job.data_name, job.seed))
        augment_seed = seeds.integer("augment", job.data_name, job.seed)
        masks = np.asarray(data.masks)
        counts = np.bincount(masks[train].reshape(-1), minlength=classes)[:classes].astype(np.float64)
        wanted = any("distance_map" in other.needs for other in jobs if (other.data_name, other.seed) == key)
        distances = signed_distances(masks, classes, data.spacing, data.ignore_index) if wanted else None
        blocks[key] = Block(
            images=_shared(data.images).to(device),
            masks=_shared(masks).to(device),
            order=train[order],
            start=start,
            augment_seed=augment_seed,
            frequency=torch.from_numpy((counts / max(counts.sum(), 1)).astype(np.float32)).to(device),
            certificate=_certificate(start, train[order], augment_seed, data),
            distances=None if distances is None else torch.from_numpy(distances).to(device),
        )
    return blocks


def _shared(array: np.ndarray) -> Tensor:
    """Return a tensor on the array's own memory, which may be a read-only file that many workers map; nobody writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array))


def _certificate(start: dict[str, Tensor], order: np.ndarray, augment_seed: int, data: Any) -> dict[str, str]:
    """Return the proof of pairing: two cells with equal hashes had the same start, the same batches and the same split."""
    from hashlib import sha256

    split = b"".join(name.encode() + np.ascontiguousarray(data.split[name], np.int64).tobytes() for name in sorted(data.split))
    return {
        "init": weights_hash(start),
        "order": sha256(np.ascontiguousarray(order, np.int64).tobytes() + str(augment_seed).encode()).hexdigest()[:16],
        "split": sha256(split).hexdigest()[:16],
        "data": data.fingerprint,
    }


def _optimizer(stack: Stack, recipe: Recipe) -> torch.optim.Optimizer:
    """Return one optimiser with a parameter group a cell."""
    groups = [{"params": list(cell.values())} for cell in stack.cells]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, foreach=True)
    return torch.optim.SGD(
        groups, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0, foreach=True
    )  # fmt: skip


def _checkpoints(recipe: Recipe) -> set[int]:
    """Return the steps after which all cells are validated: evenly spaced, the last step among them."""
    return {math.ceil(recipe.steps * (i + 1) / recipe.validations) for i in range(recipe.validations)}


def _batch(block: Block, step: int, generator: torch.Generator, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor | None]:
    index = torch.from_numpy(block.order[step])
    extra = None if block.distances is None else block.distances[index]
    return augment(block.images[index], block.masks[index].long(), extra, generator, recipe.augment)


def _losses(jobs, results, logits: Tensor, parts, members: list[Block], progress: float, step: int) -> list[Tensor | None]:
    """Return each cell's loss, or None for a cell that has failed or turned not-finite before."""
    values: list[Tensor | None] = []
    for cell, job in enumerate(jobs):
        result = results[cell]
        if result.error or result.not_finite_at is not None:
            values.append(None)
            continue
        try:
            values.append(call_loss(job, logits[:, cell].contiguous(), parts[cell][1], parts[cell][2], members[cell].frequency, progress))
        except (Exception, SystemExit) as error:  # a user's loss may raise anything; it costs its own cell only
            result.error = f"{type(error).__name__} in step {step + 1}: {error}"
            values.append(None)
    return values


def _clip(stack: Stack, limit: float | None) -> Tensor:
    """Return the gradient norm of each cell (K,), after scaling each cell's gradient down to the limit where one is set."""
    return torch.stack([torch.nn.utils.clip_grad_norm_(cell.values(), math.inf if limit is None else limit) for cell in stack.cells])


def _note(results: list[Trained], losses: list[Tensor | None], norms: Tensor, step: int) -> None:
    values = iter(torch.stack([v.detach() for v in losses if v is not None]).tolist())
    for result, loss, norm in zip(results, losses, norms.tolist(), strict=True):
        if loss is None:
            continue
        value = next(values)
        result.train_loss.append(value)
        result.grad_norm.append(norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            result.not_finite_at = step + 1
