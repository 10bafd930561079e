"""Pictures for the qualitative panel: a few recorded cells are trained again and their masks of one test
image each are kept.

The image is chosen by a rule, not by eye: of the test images that hold every class, the one whose mean Dice
over the losses, as recorded, is the median. Only synthetic scenes and sets whose licence allows it are shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.store import note as notes

# Those of them that a block holds are shown, if there are three or more.
LOSSES = ("ce", "dice", "batch_dice(classes='all')", "dice_ce", "ce + log_dice", "ce_l1")
FEWEST = 3

# Generated; CC BY-SA 4.0; any purpose; MIT. Pictures of the others may not be passed on.
OPEN = ("scenes", "msd_hippocampus", "magnetic_tile", "coffee_leaf")

PARTS = ("ladder", "rare", "common", "public", "public_l1", "held_out")


def make(results: Path, everything: bool = False) -> str:
    """Train one block of each data set of the ladder and of the open public sets again; write
    ``tables/panel.parquet``, return the line that says so.

    ``everything`` takes the other sets too: for one's own eyes, not to be passed on. Raises UserError where
    the records do not hold these cells, or where what was trained again does not score what its record says.
    """
    import pandas as pd

    from lossbench.tables.files import write_tables
    from lossbench.tables.make import records

    note = notes.read(results)
    blocks: dict[tuple, dict[str, dict]] = {}
    for record in records(results, note) if note else ():
        cell = record["cell"]
        shown = (everything or cell["dataset_name"] in OPEN) and set(PARTS) & set(record["parts"].split(","))
        if shown and cell["loss"] in LOSSES:
            where = (cell["dataset"], cell["recipe_digest"], cell["seed"])
            blocks.setdefault(where, {})[cell["loss"]] = record
    chosen = chosen_blocks(blocks)
    if not chosen:
        absent = f"no block with {FEWEST} of {', '.join(LOSSES)}"
        raise UserError(f"{results} holds {absent}; 'lossbench sweep paper --results {results}' trains them")
    rows = [row for block in chosen for row in _rows([block[name] for name in LOSSES if name in block])]
    write_tables({"panel": pd.DataFrame(rows)}, results / "tables")
    return f"panel    {results / 'tables' / 'panel.parquet'} ({len(chosen)} images, all as recorded)"


def chosen_blocks(blocks: dict[tuple, dict[str, dict]]) -> list[dict[str, dict]]:
    """Return one block a data set: that with most losses, then of the longest training, then of the first
    seed.
    """
    best: dict[str, tuple] = {}
    for (dataset, recipe, seed), block in blocks.items():
        steps = next(iter(block.values()))["cell"]["recipe"]["steps"]
        rank = (-len(block), -steps, seed, recipe)
        if len(block) >= FEWEST and (dataset not in best or rank < best[dataset][0]):
            best[dataset] = (rank, block)
    return [block for _, block in best.values()]


def choose(images: list[dict[str, list]]) -> int:
    """Return the image whose mean Dice over losses and classes is the median, among those that hold every
    class.
    """
    scores: dict[int, list[float]] = {}
    for columns in images:
        for image, value in zip(columns["image"], columns["dice@0.5"], strict=True):
            scores.setdefault(image, []).append(np.nan if value is None else value)
    means = sorted(
        (float(np.mean(values)), image) for image, values in scores.items() if not np.isnan(values).any()
    )
    if not means:
        raise UserError("no test image holds every class, so none can be shown")
    return means[len(means) // 2][1]


def _rows(records: list[dict]) -> list[dict[str, Any]]:
    """Return the image, its truth and each loss's mask; one row a picture."""
    from lossbench.experiment.cells import Cell
    from lossbench.metrics import thresholds
    from lossbench.sweep import train_stack
    from lossbench.training.outcome import label_dice
    from lossbench.training.train import train

    jobs = train_stack.jobs_of([Cell.from_json(record) for record in records])
    trained, data = train(jobs), jobs[0].data
    image = choose([record["images"] for record in records])
    picture, truth = data.images[image, 0], np.asarray(data.masks[image])
    low, high = np.percentile(picture, [1, 99])
    facts = {
        "dataset": records[0]["cell"]["dataset"],
        "data_label": records[0]["cell"]["data_label"],
        "seed": records[0]["cell"]["seed"],
        "recipe": records[0]["cell"]["recipe_digest"],
        "image": image,
        "height": truth.shape[0],
    }

    def row(shows: str, pixels: np.ndarray, loss: str = "", dice: float = np.nan) -> dict[str, Any]:
        own = {"shows": shows, "loss": loss, "dice": dice, "pixels": pixels.astype(np.uint8).tobytes()}
        return facts | own

    grey = np.clip((picture - low) / max(high - low, 1e-9) * 255, 0, 255)
    rows = [row("image", grey), row("truth", truth)]
    for record, job, result in zip(records, jobs, trained, strict=True):
        mask = thresholds.labels_at(_probabilities(job, result.weights, image)[None], None)
        dice = label_dice(mask, truth[None], len(data.classes), data.ignore_index)
        columns = record["images"]
        of_image = np.array(columns["image"]) == image
        recorded = float(np.mean(np.array(columns["dice@0.5"], float)[of_image]))
        if abs(recorded - dice) > 1e-6:
            what = f"{record['cell']['data_label']} · {record['loss_label']} · image {image}"
            raise UserError(
                f"{what}: Dice {dice:.4f} when trained again, {recorded:.4f} as recorded: the "
                "records come from another environment"
            )
        rows.append(row(record["loss_label"], mask[0], record["cell"]["loss"], dice))
    return rows


def _probabilities(job: Any, weights: dict, image: int) -> np.ndarray:
    """Return what one cell says of an image, (classes, *S)."""
    from lossbench.data.patches import side_of
    from lossbench.networks.stack import Stack
    from lossbench.training.blocks import network_of
    from lossbench.training.predict import Tiles, predict

    cells = 2 if job.cell.grouped else 1  # as in training: a network of one group takes other kernels
    stack = Stack(network_of(job), [weights] * cells, precision=job.cell.recipe.precision)
    tiles = Tiles(job.data, np.array([image]), side_of(job.cell.recipe, job.data))
    _, _, logits = next(predict(stack, [tiles] * cells, job.cell.recipe.batch))
    return logits[0].softmax(0).numpy()


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--all"]
    print(make(Path(words[0] if words else "results"), "--all" in sys.argv))
