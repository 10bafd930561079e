"""The loops that peers.py measures lossbench against: one cell as a user of MONAI, or of Lightning, would
train and score it.

Both train lossbench's own network from the same start on the same batches with the same learning rates, and
look at the same images after the same steps. Data are tensors in memory, and the best weights are kept in
memory, which favours the peer."""

from __future__ import annotations

import copy
import math
import time
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from lossbench.base import seeds
from lossbench.catalogue.registry import get_dataset, get_loss, parse_loss
from lossbench.experiment.cells import Cell, Recipe
from lossbench.networks.initial import weights_hash
from lossbench.networks.unet import UNet, max_pool
from lossbench.training.blocks import Job, blocks_of
from lossbench.training.optim import learning_rate
from lossbench.training.train import validation_steps

warnings.filterwarnings("ignore")

LOSSES = ("ce", "dice", "dice_ce", "focal")


def criterion(name: str) -> Any:
    """Return the peer's own loss that is the same function as ours of that name; maps (logits, labels (N, 1,
    *S)) to a scalar.
    """
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss

    soft = {"include_background": False, "to_onehot_y": True, "softmax": True}
    if name == "ce":
        loss = nn.CrossEntropyLoss()
        return lambda logits, label: loss(logits, label[:, 0])
    if (
        name == "focal"
    ):  # softmax, not MONAI's default sigmoid; it divides by pixels times classes, we by pixels
        loss = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)
        return lambda logits, label: logits.shape[1] * loss(logits, label)
    return {"dice": DiceLoss, "dice_ce": DiceCELoss}[name](**soft)


class InMemory(torch.utils.data.Dataset):
    """Images and labels, a dictionary each; an index is (image, which axes to flip, whether to swap)."""

    def __init__(self, images, masks):
        self.images, self.masks = images, masks

    def __getitem__(self, index) -> dict:
        number, draw = index if isinstance(index, tuple) else (index, None)
        image, label = self.images[number], self.masks[number].long()[None]
        if draw:
            axes = [1 + axis for axis in range(len(draw) - 1) if draw[axis]]
            image, label = image.flip(axes), label.flip(axes)
            if draw[-1]:
                image, label = image.transpose(1, 2), label.transpose(1, 2)
        return {"image": image, "label": label}

    def __len__(self) -> int:
        return len(self.images)


class Batches(list):
    """A batch sampler: one list of indices a step."""


@lru_cache(maxsize=4)
def shared(data_text: str, seed: int) -> Any:
    return get_dataset(data_text, seed)


def prepare(data_text: str, seed: int, recipe: Recipe, loader_workers: int) -> tuple[Any, Any, dict]:
    """Return the data, the block (start, order, stream of flips) and the loaders of one cell."""
    from monai.data import DataLoader

    data = shared(data_text, seed)
    (block,) = blocks_of([Job(Cell.of(data_text, "ce", seed, recipe), data, None)], "cpu").values()
    generator = torch.Generator().manual_seed(seeds.integer("augment", data_text, seed))
    axes = data.masks.ndim
    plan = Batches()
    for row in block.batches.order.tolist():
        draws = (torch.rand(len(row), axes, generator=generator) < 0.5).tolist()
        plan.append([(number, tuple(draw)) for number, draw in zip(row, draws, strict=True)])
    loaders = {
        "train": DataLoader(
            InMemory(block.batches.images, block.batches.masks),
            batch_sampler=plan,
            num_workers=loader_workers,
        )
    }
    for split in ("val", "test"):
        index = torch.from_numpy(data.split[split])
        loaders[split] = DataLoader(
            InMemory(block.batches.images[index], block.batches.masks[index]), batch_size=recipe.batch
        )
    return data, block, loaders


def metrics(every: bool) -> dict:
    """Return MONAI's metrics: Dice for validation; with ``every``, also those of the test."""
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric

    found = {"dice": DiceMetric(include_background=False)}
    if every:
        found["hd95"] = HausdorffDistanceMetric(include_background=False, percentile=95)
        found["assd"] = SurfaceDistanceMetric(include_background=False, symmetric=True)
        found["nsd_1"] = SurfaceDiceMetric(class_thresholds=[1.0], include_background=False)
    return found


def discrete(logits, label, classes: int) -> tuple[list, list]:
    """Return predictions and labels as one-hot lists, as MONAI's tutorials make them."""
    from monai.data import decollate_batch
    from monai.transforms import AsDiscrete

    hot, true = AsDiscrete(argmax=True, to_onehot=classes), AsDiscrete(to_onehot=classes)
    return [hot(part) for part in decollate_batch(logits)], [true(part) for part in decollate_batch(label)]


@torch.no_grad()
def evaluate(network, loader, loss, classes: int, every: bool) -> dict[str, float]:
    """Return the mean loss and the metrics of all images of a loader."""
    wanted, losses = metrics(every), []
    network.eval()
    for batch in loader:
        logits = network(batch["image"])
        losses.append(float(loss(logits, batch["label"])))
        predicted, true = discrete(logits, batch["label"], classes)
        for metric in wanted.values():
            metric(y_pred=predicted, y=true)
    network.train()
    return {
        "loss": sum(losses) / len(losses),
        **{name: float(metric.aggregate()) for name, metric in wanted.items()},
    }


def start_network(data, block, recipe: Recipe, channels_last: bool) -> UNet:
    network = UNet(data.images.shape[1], len(data.classes), recipe.widths, data.masks.ndim - 1)
    network.load_state_dict(block.start)
    network.pool = max_pool  # as every other loop; lossbench's own gives the same bits, sooner
    return network.to(memory_format=torch.channels_last) if channels_last else network


def optimiser(network: UNet, recipe: Recipe) -> tuple:
    made = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    last = recipe.steps - 1
    return made, torch.optim.lr_scheduler.LambdaLR(
        made, lambda step: learning_rate(recipe, min(step, last), 1.0)
    )


def monai_cell(
    data_text: str, name: str, seed: int, settings: dict, loader_workers: int, channels_last: bool = False
) -> dict:
    """Train and score one cell in a plain MONAI loop; returns its test scores and the seconds spent on
    evaluation.
    """
    recipe = Recipe(**settings)
    data, block, loaders = prepare(data_text, seed, recipe, loader_workers)
    network, loss = start_network(data, block, recipe, channels_last), criterion(name)
    optimizer, scheduler = optimiser(network, recipe)
    looks, evaluating, best, best_weights, total = validation_steps(recipe), 0.0, -1.0, None, 0.0
    for step, batch in enumerate(loaders["train"], 1):
        optimizer.zero_grad()
        value = loss(network(batch["image"]), batch["label"])
        value.backward()
        optimizer.step()
        scheduler.step()
        total += value.item()
        if step in looks:
            began = time.perf_counter()
            seen = evaluate(network, loaders["val"], loss, len(data.classes), every=False)
            if seen["dice"] > best:
                best, best_weights = seen["dice"], copy.deepcopy(network.state_dict())
            evaluating += time.perf_counter() - began
    began = time.perf_counter()
    scores = evaluate(network, loaders["test"], loss, len(data.classes), every=True)
    evaluating += time.perf_counter() - began
    return {
        **scores,
        "evaluating": evaluating,
        "init": weights_hash(block.start),
        "kept": best_weights is not None,
    }


def lightning_cell(
    data_text: str, name: str, seed: int, settings: dict, loader_workers: int, channels_last: bool = False
) -> dict:
    """The same cell in a Lightning loop, without logger, checkpoints and progress bar."""
    import logging

    import pytorch_lightning as lightning

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    recipe = Recipe(**settings)
    data, block, loaders = prepare(data_text, seed, recipe, loader_workers)
    classes, loss, checks = len(data.classes), criterion(name), {"evaluating": 0.0}

    class Cell(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = start_network(data, block, recipe, channels_last)
            self.best, self.best_weights = -1.0, None

        def training_step(self, batch, _):
            value = loss(self.network(batch["image"]), batch["label"])
            self.log("train_loss", value)
            return value

        def begin(self, every: bool):
            self.wanted, self.began = metrics(every), time.perf_counter()

        def look(self, batch):
            logits = self.network(batch["image"])
            self.log("loss", loss(logits, batch["label"]), batch_size=len(logits))
            predicted, true = discrete(logits, batch["label"], classes)
            for metric in self.wanted.values():
                metric(y_pred=predicted, y=true)

        def finish(self) -> dict:
            checks["evaluating"] += time.perf_counter() - self.began
            return {key: float(metric.aggregate()) for key, metric in self.wanted.items()}

        def on_validation_epoch_start(self):
            self.begin(every=False)

        def validation_step(self, batch, _):
            self.look(batch)

        def on_validation_epoch_end(self):
            dice = self.finish()["dice"]
            if dice > self.best:
                self.best, self.best_weights = dice, copy.deepcopy(self.network.state_dict())

        def on_test_epoch_start(self):
            self.begin(every=True)

        def test_step(self, batch, _):
            self.look(batch)

        def on_test_epoch_end(self):
            checks.update(self.finish())

        def configure_optimizers(self):
            optimizer, scheduler = optimiser(self.network, recipe)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    trainer = lightning.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        val_check_interval=math.ceil(recipe.steps / recipe.validations),
        check_val_every_n_epoch=None,
    )
    cell = Cell()
    trainer.fit(cell, loaders["train"], loaders["val"])
    trainer.test(cell, loaders["test"], verbose=False)
    if trainer.global_step != recipe.steps:
        raise RuntimeError(f"Lightning made {trainer.global_step} steps of {recipe.steps}")
    return {**checks, "init": weights_hash(block.start)}


def set_up(data_text: str, seeds: tuple[int, ...], settings: dict) -> dict:
    """Import, open the data, show that losses and batches are the same as ours; returns seconds and largest
    differences.
    """
    began = time.perf_counter()
    import monai.data
    import monai.losses
    import monai.metrics  # noqa: F401

    imported = time.perf_counter()
    for seed in seeds:
        shared(data_text, seed)
    opened = time.perf_counter()
    recipe = Recipe(**settings)
    _, block, loaders = prepare(data_text, seeds[0], recipe, 0)
    for step, batch in zip(range(3), loaders["train"], strict=False):
        image, mask, _ = block.batch(torch.tensor([step]))
        if not (torch.equal(image, batch["image"]) and torch.equal(mask, batch["label"][:, 0])):
            raise RuntimeError(f"the loop's batch {step} is not ours")
    gaps = {}
    for name in LOSSES:
        logits = [
            torch.randn(
                len(mask), 2, *mask.shape[1:], generator=torch.Generator().manual_seed(0)
            ).requires_grad_()
            for _ in range(2)
        ]
        get_loss(parse_loss(name))(logits[0], mask).backward()
        criterion(name)(logits[1], mask[:, None]).backward()
        gaps[name] = float((logits[0].grad - logits[1].grad).abs().max() / logits[1].grad.abs().max())
        if gaps[name] > 1e-4:
            raise RuntimeError(f"the loop's '{name}' is not ours: gradients differ by {gaps[name]:.1e}")
    return {"import": imported - began, "data": opened - imported, "gaps": gaps}
