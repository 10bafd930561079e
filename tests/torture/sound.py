"""Sound results to injure: records that differ from each other, and the note of their experiment."""

from __future__ import annotations

import json
from pathlib import Path

from lossbench.store.store import Store

GOLDEN = Path(__file__).parents[1] / "golden" / "record_v1.json"
FINGERPRINT = "9f8e7d6c5b4a3928"


def record(number: int) -> dict:
    """Return a record of its own: of three losses, two data sets and as many seeds as it takes."""
    golden = json.loads(GOLDEN.read_text())
    loss, seed, share = ("ce", "dice", "dice_ce")[number % 3], number // 6, (0.01, 0.1)[number // 3 % 2]
    noise = number * 7919 % 101 / 1000
    cell = {
        "dataset": f"scenes(foreground={share})",
        "dataset_name": "scenes",
        "data_params": {"foreground": share, "size": 64},
        "data_label": f"scenes {share:.0%}",
        "learning_rate": 0.01,
        "block": f"b{number // 3}",
        "loss": loss,
        "seed": seed,
    }
    metrics = {
        "dice@0.5": 0.5 + number / 1000,
        "dice@val": 0.6 + noise,
        "val_dice@0.5": 0.5 + number / 1000,
        "val_dice@val": 0.6 + noise,
        "foreground_true": share,
        "n_test": 12,
        "size_ratio_soft": 1 + noise,
        "log_size_ratio_soft": noise,
        "log_size_ratio_hard@0.5": -noise,
        "nll": 0.1 + noise,
        "ece": noise,
    }
    reliability = {
        "class": ["thing"] * 4,
        "region": ["all"] * 4,
        "bin": [0, 1, 2, 3],
        "n": [9, 5, 3, 2],
        "probability": [0.1, 0.4, 0.6, 0.9],
        "frequency": [0.0, 0.5, 0.5, 1.0],
    }
    return {
        **golden,
        "key": f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}",
        "loss_label": loss,
        "loss_fingerprint": FINGERPRINT,
        "cell": {**golden["cell"], **cell},
        "metrics": {**golden["metrics"], **metrics},
        "steps": {"train_loss": [1 / (1 + step) for step in range(60)]},
        "reliability": reliability,
    }


def note(records: list[dict]) -> dict:
    """Return what a sweep notes about the experiment of these records."""
    rows = []
    for one in records:
        cell = one["cell"]
        rows.append([one["key"], FINGERPRINT, one["loss_label"], cell["data_label"], cell["block"], ""])
    return {"name": "fuzz", "title": "", "cells": rows}


def store(folder: Path, records: list[dict]) -> Store:
    """Write the records into a results folder of their own."""
    made = Store(folder)
    made.open_for_writing()
    for one in records:
        made.write(one)
    return made
