"""A made-up study of 64 tiny cells with known answers: scenes at four foreground fractions x four losses x
four seeds.

Plain `random.Random` arithmetic, so that the same numbers come out of every numpy. What is built in: Dice
beats CE at 0.5, more so the rarer the foreground; nine tenths of that gap is the threshold; CE's soft size is
true to 1 %, its hard size too small; Dice's size is 2 % too large; focal is CE's hard size with a six-fold
soft size; one focal cell collapsed. `study` adds a part "rates" (at three times the rate CE gains three
points and Dice loses two) and a part "uncertain" (Dice's soft size shrinks by .6 a unit of boundary shift).
"""

from __future__ import annotations

import hashlib
import math
import random

from lossbench.base import specs

FOREGROUND = (0.002, 0.01, 0.05, 0.2)
LOSSES = {"ce": "distribution", "dice": "overlap", "0.5*ce + 0.5*dice": "compound", "focal": "distribution"}
LABELS = {"0.5*ce + 0.5*dice": "dice_ce"}
RECIPE = {"model": "unet", "widths": [4, 8], "steps": 60, "batch": 4, "learning_rate": 0.005}


def _hash(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


# What a scene is where its spec does not say it, as far as analysis and figures ask.
SCENES = {"foreground": 0.01, "noise": 0.6, "size": 64, "classes": 2, "size_ratio": 1.0, "empty": 0.0}
SCENES |= {"boundary_shift": 0.0, "rim": 0.0, "rim_probability": 0.4}


def named(dataset: str) -> dict:
    """Return what the record of a cell says of its data set: spec, name and all parameters."""
    term = specs.parse(dataset)[0]
    params = {**(SCENES if term.name == "scenes" else {}), **term.arguments}
    return {"dataset": dataset, "dataset_name": term.name, "data_params": params}


def record(
    dataset: str,
    foreground: float,
    loss: str,
    seed: int,
    images: int = 6,
    steps: int = 6,
    spread: float = 1.0,
    parts: str = "",
    rate: float = RECIPE["learning_rate"],
    shift: float = 0.0,
) -> dict:
    """Return one record; everything in it follows from the arguments."""
    shared = random.Random(_hash(dataset, seed))
    own = random.Random(_hash(dataset, loss, seed))
    rare = -math.log10(foreground)  # 0.7 ... 2.7
    best = 0.97 - 0.16 * (rare - 0.7) + shared.gauss(0, 0.02) * spread
    gap = {
        "ce": 0.055 * max(rare - 0.9, 0) ** 2,
        "dice": 0.0,
        "0.5*ce + 0.5*dice": 0.004,
        "focal": 0.065 * max(rare - 0.9, 0) ** 2,
    }
    rest = {"ce": 0.1, "dice": 0.0, "0.5*ce + 0.5*dice": 0.5, "focal": 0.12}
    noise = own.gauss(0, 0.004) * spread
    at_half, tuned = (
        best - gap[loss] + noise,
        best - rest[loss] * gap[loss] + noise + own.gauss(0, 0.002) * spread,
    )
    hard = {
        "ce": -0.35 * (rare - 0.7),
        "dice": 0.02,
        "0.5*ce + 0.5*dice": -0.03,
        "focal": -0.35 * (rare - 0.7),
    }
    soft = {"ce": 0.01, "dice": 0.025, "0.5*ce + 0.5*dice": 0.02, "focal": math.log(1 + 2.2 * rare)}
    if rate != RECIPE["learning_rate"]:
        gain = {"ce": 0.03, "dice": -0.02}.get(loss, 0.0)
        at_half, tuned = at_half + gain, tuned + gain
    size = hard[loss] + own.gauss(0, 0.02) * spread
    soft_size = soft[loss] + own.gauss(0, 0.008) * spread - 0.6 * shift
    collapsed = loss == "focal" and foreground == FOREGROUND[0] and seed == 3 and dataset.startswith("scenes")
    if collapsed:
        at_half = tuned = 0.0
        size = -5.5
    recipe = RECIPE | {"learning_rate": rate}
    key = _hash(dataset, loss, seed, *([rate] if recipe != RECIPE else []))[:16]
    metrics = {
        "dice@0.5": at_half,
        "dice@val": tuned,
        "iou@0.5": at_half / (2 - at_half),
        "iou@val": tuned / (2 - tuned),
        "dice_pooled@0.5": at_half * 0.99,
        "dice_pooled@val": tuned * 0.99,
        "hd95@0.5": 40 * (1 - at_half),
        "hd95@val": 40 * (1 - tuned),
        "assd@0.5": 9 * (1 - at_half),
        "assd@val": 9 * (1 - tuned),
        "nsd_1@0.5": at_half**0.8,
        "nsd_1@val": tuned**0.8,
        "log_size_ratio_hard@0.5": size,
        "log_size_ratio_hard@val": 0.2 * size,
        "log_size_ratio_soft": soft_size,
        "size_ratio_hard@0.5": math.exp(size),
        "size_ratio_hard@val": math.exp(0.2 * size),
        "size_ratio_soft": math.exp(soft_size),
        "nll": 0.1 + 0.2 * (loss == "dice") + own.random() * 0.01,
        "ece": 0.01 + 0.02 * (loss == "dice") + own.random() * 0.001,
        "foreground_true": foreground * (1 + shared.gauss(0, 0.02)),
        "threshold_val": 0.5 if "dice" in loss else round(0.5 - 0.12 * rare, 2),
        "train_loss_last": 0.1,
        "val_dice@0.5": at_half + 0.004,
        "val_dice@val": tuned + 0.005,
        "val_dice_best": tuned + 0.005,
        "step_best": 50,
        "n_present": images,
        "n_empty": 0,
        "missed@0.5": 1.0 if collapsed else 0.0,
        "missed@val": 1.0 if collapsed else 0.0,
    }
    if dataset.startswith("scenes"):  # which tells generated data, whose images are as many as one likes
        metrics["nll_bayes"] = 0.1
    at = [10 * (i + 1) for i in range(steps)]
    speed = {"ce": 3.0, "dice": 5.0, "0.5*ce + 0.5*dice": 5.0, "focal": 2.5}[loss]
    rise = [1 - math.exp(-speed * (i + 1) / steps) for i in range(steps)]
    return {
        "schema": 1,
        "key": key,
        "experiment": "mini",
        "parts": parts or ("ladder" if dataset.startswith("scenes") else "public"),
        "cell": {
            **named(dataset),
            "loss": loss,
            "seed": seed,
            "recipe": recipe,
            "data_identity": _hash(dataset)[:16],
            "protocol": 1,
        },
        "loss_label": LABELS.get(loss, loss),
        "family": LOSSES[loss],
        "loss_fingerprint": _hash(loss)[:8],
        "outcome": "collapsed" if collapsed else "done",
        "collapse": "background" if collapsed else "",
        "metrics": {name: round(value, 6) for name, value in metrics.items()} | {"n_test": images},
        "images": {
            "image": list(range(images)),
            "class": ["object"] * images,
            "group": list(range(images)),
            "size": [round(4096 * foreground * (0.5 + shared.random()), 1) for _ in range(images)],
            "dice@0.5": [round(at_half, 4)] * images,
            "dice@val": [round(tuned, 4)] * images,
        },
        "curves": {
            "step": at,
            "train_loss": [round(1 - 0.8 * r, 4) for r in rise],
            "val_dice": [round(max(at_half, 0) * r, 4) for r in rise],
            "size_ratio_soft": [round(math.exp(soft_size + 2 * (1 - r)), 4) for r in rise],
            "size_ratio_hard": [round(math.exp(size) * r, 4) for r in rise],
        },
        "steps": {
            "train_loss": [round(1 - 0.8 * min(i / 30, 1) + own.gauss(0, 0.02), 4) for i in range(60)],
            "grad_norm": [round(math.exp(own.gauss(0, 0.3)), 4) for _ in range(60)],
        },
        "certificate": {
            "init": _hash("init", dataset, seed)[:16],
            "order": _hash("order", dataset, seed)[:16],
            "split": _hash("split", dataset)[:16],
        },
        "cost": {"seconds": 3.0 + len(loss) / 10, "cpu_seconds": 3.0 + len(loss) / 10, "stack": 4},
        "provenance": {
            "commit": "0123456789abcdef",
            "dirty": False,
            "device": "cpu",
            "threads": 1,
            "version": "0.1.0",
            "python": "3.11",
            "platform": "Linux x86_64",
            "hardware": {"cpu": "a processor", "cores": 2},
            "packages": {"numpy": "2.4", "torch": "2.15"},
        },
    }


def records(
    seeds: int = 4, real: bool = False, losses=tuple(LOSSES), foreground=FOREGROUND, **options
) -> list[dict]:
    """Return the records of the mini study; ``real=True`` adds two public sets, whose foreground is measured,
    not set.
    """
    found = [
        record(f"scenes(foreground={f})", f, loss, seed, **options)
        for f in foreground
        for seed in range(seeds)
        for loss in losses
    ]
    if real:
        for name, f in (("magnetic_tile", 0.025), ("sirst", 0.0006)):
            found += [record(name, f, loss, seed, **options) for seed in range(seeds) for loss in losses]
    return found


SEEDS = 8  # of ``study``: the fewest that the tests of a family of six can decide with


def study() -> list[dict]:
    """Return the records of the ladder, of two losses at three times the rate, and of Dice on two levels of
    boundary shift.
    """
    found = [
        r | {"parts": "ladder,rates,uncertain"} if "foreground=0.05" in r["cell"]["dataset"] else r
        for r in records(SEEDS)
    ]
    for seed in range(SEEDS):
        for loss in ("ce", "dice"):
            found.append(record("scenes(foreground=0.05)", 0.05, loss, seed, parts="rates", rate=0.015))
    for seed in range(SEEDS):
        for shift in (0.1, 0.2, 0.4):
            dataset = f"scenes(boundary_shift={shift}, foreground=0.05)"
            found.append(record(dataset, 0.05, "dice", seed, parts="uncertain", shift=shift))
    return found
