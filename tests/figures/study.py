"""A made-up study with parts, every cell of which follows from the mini study: what each figure of the whole
study needs, and no more.
"""

from __future__ import annotations

import math

import mini_study
import numpy as np
import pandas as pd

from lossbench.base import specs

SEEDS = 3
SHIFTS = (0.0, 0.2, 0.4)
EMPTY = (0.0, 0.7)
TERMS = ("ce", "ce_l1", "ce_l1(size_weight=0.1)", "ce_l1(temperature=1.0)", "ce_kl", "ce_kl(temperature=1.0)")
PUBLIC = {"magnetic_tile": 0.025, "sirst": 0.0006}
FAMILIES = {
    "batch_dice": "overlap",
    "dice_ce": "compound",
    "ce + log_dice": "compound",
    "ce_l1": "size",
    "ce_kl": "size",
}
SIZE_TERM = {"size_weight": 1.0, "temperature": 10.0}  # defaults
LIKE = {"batch_dice": "dice", "dice_ce": "0.5*ce + 0.5*dice", "ce + log_dice": "0.5*ce + 0.5*dice"}


def cell(part: str, dataset: str, foreground: float, loss: str, seed: int, **recipe) -> dict:
    """Return the record of one cell; a loss that the mini study does not know is like one that it knows."""
    found = mini_study.record(
        dataset, foreground, LIKE.get(loss, loss if loss in mini_study.LOSSES else "ce"), seed
    )
    name = loss.split("(")[0]
    found["key"] = mini_study._hash(part, dataset, loss, seed, recipe)[:16]
    terms = [[t.weight, t.name, SIZE_TERM | t.arguments] for t in specs.parse(loss)]
    found["cell"] |= {"loss": loss, "loss_terms": terms, "recipe": {**found["cell"]["recipe"], **recipe}}
    found |= {
        "parts": part,
        "loss_label": loss,
        "family": FAMILIES.get(name, found["family"]),
        "loss_fingerprint": mini_study._hash(loss)[:8],
    }
    found["threshold_curve"] = [
        round(found["metrics"]["dice@val"] * (1 - (t / 100 - 0.4) ** 2), 4) for t in range(1, 100)
    ]
    found["reliability"] = _bins(0.9 if "dice" in loss else 1.0)
    found["steps"] = {
        "train_loss": [math.exp(-i / 20) + 0.01 * (-1) ** i for i in range(60)],
        "grad_norm": [1.0] * 60,
    }
    found["images"]["predicted@0.5"] = [
        round(size * (0.8 if loss == "ce" else 1.1)) for size in found["images"]["size"]
    ]
    found["curves"] |= decomposed(found["curves"]["size_ratio_soft"], foreground)
    return found


def decomposed(ratios: list[float], yh: float) -> dict[str, list[float]]:
    """Return the terms of the decomposition of two classes at soft sizes r = ph / yh, and half a bit of
    matching.
    """
    rows = [(min(r * yh, 0.9), yh) for r in ratios]
    size = [y * math.log(y / p) + (1 - y) * math.log((1 - y) / (1 - p)) for p, y in rows]
    return {
        "size_ratio_soft": [p / y for p, y in rows],
        "size_ce": size,
        "size_dice": [math.log(p + y) for p, y in rows],
        "match_ce": [0.35] * len(rows),
        "match_dice": [1.0] * len(rows),
    }


def _bins(slope: float) -> dict[str, list]:
    """Return ten bins of 1000 pixels whose frequency is ``slope`` times the probability, and one that is
    nearly empty.
    """
    probability = [(b + 0.5) / 10 for b in range(10)]
    one = {
        "bin": list(range(10)),
        "low": [b / 10 for b in range(10)],
        "high": [(b + 1) / 10 for b in range(10)],
        "n": [1000] * 9 + [3],
    }
    one |= {"probability": probability, "frequency": [slope * p for p in probability]}
    both = {name: values * 2 for name, values in one.items()}
    return {"class": ["object"] * 20, "region": ["all"] * 10 + ["fg"] * 10, **both}


def records() -> list[dict]:
    """Return all records: parts ladder, public, rates, length, curves, uncertain, terms, sizes and empty."""
    found = []
    for seed in range(SEEDS):
        for foreground in mini_study.FOREGROUND:
            found += [
                cell("ladder", f"scenes(foreground={foreground})", foreground, loss, seed)
                for loss in ("ce", "dice", "dice_ce", "focal")
            ]
        for name, foreground in PUBLIC.items():
            found += [
                cell("public", name, foreground, loss, seed)
                for loss in ("ce", "dice", "dice_ce", "ce + log_dice", "ce_l1")
            ]
        found += [
            cell("rates", "scenes(foreground=0.01)", 0.01, loss, seed, learning_rate=0.015)
            for loss in ("ce", "dice")
        ]
        found += [
            cell("length", "scenes(foreground=0.002)", 0.002, loss, seed, steps=240)
            for loss in ("ce", "dice")
        ]
        found += [
            cell("curves", "scenes(foreground=0.02)", 0.02, loss, seed, batch=batch)
            for loss in ("ce", "dice")
            for batch in (1, 16)
        ]
        for loss in ("ce", "dice", "batch_dice"):
            found += [
                cell("uncertain", f"scenes(boundary_shift={s}, foreground=0.05)", 0.05, loss, seed)
                for s in SHIFTS
            ]
            found.append(
                cell("uncertain", "scenes(foreground=0.05, rim=0.5, rim_probability=0.4)", 0.05, loss, seed)
            )
            found.append(cell("sizes", "scenes(foreground=0.02, size_ratio=50)", 0.02, loss, seed))
            for share in EMPTY:
                found.append(
                    cell("empty", f"scenes(empty={share}, empty_test=0.5, foreground=0.03)", 0.03, loss, seed)
                )
                found[-1]["metrics"] |= {"fp_rate@0.5": 0.8 - share, "fp_rate@val": 0.5}
        found += [cell("terms", "scenes(foreground=0.03)", 0.03, loss, seed) for loss in TERMS]
    return found


def panel() -> pd.DataFrame:
    """Return the pictures of one public set: an image, its truth, and a mask of each of two losses."""
    truth = np.zeros((32, 32), np.uint8)
    truth[10:14, 20:26] = 1
    shows = {
        "image": (truth * 200, ""),
        "truth": (truth, ""),
        "ce": (truth * 0, "ce"),
        "dice": (truth, "dice"),
    }
    facts = {"dataset": "sirst", "data_label": "sirst", "image": 7, "height": 32}
    rows = []
    for name, (pixels, loss) in shows.items():
        dice = float(name == "dice") if loss else np.nan
        rows.append({**facts, "shows": name, "loss": loss, "dice": dice, "pixels": pixels.tobytes()})
    return pd.DataFrame(rows)
