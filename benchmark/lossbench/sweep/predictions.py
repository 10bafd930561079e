"""What the best training of each loss marks on the test images, as files that any viewer opens.

A sweep with ``--keep predictions`` keeps the last weights of its cells. When it is done, the best cell of
each loss on each data set predicts the test images, and the other weights go.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lossbench.base.files import write_atomically
from lossbench.data.cards import COLOURS
from lossbench.experiment.cells import Cell, Experiment
from lossbench.store.store import Store
from lossbench.sweep.work import PREDICTIONS, jobs_of, weights_of

BEST = "val_dice_all@0.5"  # never a test score: that would choose the images that are shown


def write(experiment: Experiment, cells: Iterable[Cell], results: Path, say: Callable[[str], None]) -> None:
    """Write the predictions of the best cell of each data set, recipe and loss whose weights are here."""
    store, chosen = Store(results), {}
    for cell in cells:
        record = store.read(*cell.pair) if weights_of(results, cell.key).is_file() else None
        if record:
            own = (record["metrics"].get(BEST) or -1.0, -cell.seed)
            kind = (cell.data.text, cell.recipe.digest, cell.loss.text)
            chosen[kind] = max(chosen.get(kind, (own, cell)), (own, cell), key=lambda pair: pair[0])
    if not chosen:
        say("predictions  none: what an earlier sweep trained has kept no weights")
    for _, cell in chosen.values():
        folder = _predict(cell, results, experiment.extra_files)
        say(f"predictions  {cell.title}, {cell.recipe.steps} steps: {folder}")
    best = {cell.key for _, cell in chosen.values()}
    for file in weights_of(results, "").parent.glob("*.pt"):
        if file.stem not in best:
            file.unlink()


def _predict(cell: Cell, results: Path, extra_files: tuple[str, ...]) -> Path:
    """Write the mask of every scored test image, and return their folder."""
    import torch

    from lossbench.networks.stack import Stack
    from lossbench.training.blocks import blocks_of, network_of
    from lossbench.training.predict import predict

    (job,) = jobs_of([cell], extra_files)
    weights = torch.load(weights_of(results, cell.key), map_location="cpu", weights_only=True)
    cells = 2 if cell.grouped else 1  # as in training: a network of one group takes other kernels
    stack = Stack(network_of(job), [weights] * cells, precision=cell.recipe.precision)
    tiles = blocks_of([job], "cpu")[cell.block].test
    names = job.data.card.get("names") or [str(n) for n in range(len(job.data))]
    folder = results / PREDICTIONS / _plain(cell.data_label) / f"{_plain(cell.loss.label)}_{cell.key[:8]}"
    for number, (begin, _), logits in predict(stack, [tiles] * cells, cell.recipe.batch):
        for place, own in enumerate(logits if number == 0 else ()):
            mask = own.argmax(0).numpy().astype(np.uint8)
            _write_mask(folder / _plain(names[int(tiles.index[begin + place])]), mask, job.data.spacing)
    return folder


def _plain(name: str) -> str:
    """Return a name as a file may be called."""
    return "".join(letter if letter.isalnum() or letter in "-_.@" else "_" for letter in name).strip("_.")


def _write_mask(stem: Path, mask: np.ndarray, spacing: tuple[float, ...]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    if mask.ndim == 3:
        write_atomically(stem.with_name(f"{stem.name}.nii"), nifti(mask, spacing))
        return
    from PIL import Image

    # Its values are the class ids; the palette only shows them.
    picture = Image.fromarray(mask, "P")
    picture.putpalette([0, 0, 0, *(value for colour in COLOURS for value in colour)])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_atomically(stem.with_name(f"{stem.name}.png"), buffer.getvalue())


def nifti(mask: np.ndarray, spacing: tuple[float, ...]) -> bytes:
    """Return a uint8 volume as NIfTI-1, without compression; spacing in mm."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *mask.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # uint8, eight bits
    struct.pack_into("<8f", header, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<4s", header, 344, b"n+1\0")
    return bytes(header) + mask.tobytes(order="F")
