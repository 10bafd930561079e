"""What the best training of each loss marks on the test images, as files that any viewer opens.

A sweep over one's own data, or with ``--keep predictions``, keeps the last weights of its cells. When it is
done, only those of the best cell of each loss stay. The best and the worst loss show their errors in a
picture; with ``--keep predictions`` the masks of all are written.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from lossbench.base.files import write_atomically
from lossbench.data.cards import COLOURS, shown_slice
from lossbench.data.container import VOID, Data
from lossbench.data.sheet import LINE, SIDE, font, small
from lossbench.experiment.cells import Cell, Experiment
from lossbench.store.store import Store
from lossbench.sweep.train_stack import PREDICTIONS, jobs_of, weights_of

BEST = "val_dice_all@0.5"  # never a test score: that would choose the images that are shown

SHOWN = 6  # images in the picture of errors

GAP = 4  # pixels between two pictures
STRIDE = SIDE + GAP

# White, vermillion and blue, which the colour-blind can tell apart, too.
RIGHT, FALSE, MISSED = (255, 255, 255), (213, 94, 0), (0, 114, 178)


def write(
    experiment: Experiment,
    cells: Iterable[Cell],
    results: Path,
    say: Callable[[str], None],
    masks: bool = True,
) -> None:
    """Write the predictions of the best cell of each data set, recipe and loss whose weights are here;
    without ``masks``, only a picture of errors at the longest training.
    """
    store, chosen, cells = Store(results), {}, list(cells)
    for cell in cells:
        record = store.read(*cell.pair) if weights_of(results, cell.key).is_file() else None
        if record:
            # Of equal scores the first seed, so that the same cell is shown again.
            own = (record["metrics"].get(BEST) or -1.0, -cell.seed)
            kind = (cell.data.text, cell.recipe.digest, cell.loss.text)
            chosen[kind] = max(chosen.get(kind, (own, cell)), (own, cell), key=lambda pair: pair[0])
    if not chosen and masks:
        say("predictions  none: what an earlier sweep trained has kept no weights")
    for _, cell in chosen.values() if masks else ():
        folder = _predict(cell, results, experiment.extra_files)
        say(f"predictions  {cell.title}, {cell.recipe.steps} steps: {folder}")
    longest = max((cell.recipe.steps for _, cell in chosen.values()), default=0)
    for kind in dict.fromkeys(kind[:2] for kind in chosen):
        own = sorted((pair for key, pair in chosen.items() if key[:2] == kind), key=lambda pair: pair[0])
        if len(own) > 1 and (masks or own[0][1].recipe.steps == longest):
            say(f"errors       {_errors(own[-1][1], own[0][1], results, experiment.extra_files)}")
    best = {cell.key for _, cell in chosen.values()}
    # Weights of another experiment in this folder are not ours to remove.
    for cell in cells:
        if cell.key not in best:
            weights_of(results, cell.key).unlink(missing_ok=True)


def _predict(cell: Cell, results: Path, extra_files: tuple[str, ...]) -> Path:
    """Write the mask of every scored test image, and return their folder."""
    folder = _folder(cell, results) / f"{_plain(cell.loss.label)}_{cell.key[:8]}"
    for data, n, mask in _masks(cell, results, extra_files):
        _write_mask(folder / _plain(_name(data, n)), mask, data.spacing)
    return folder


def _masks(cell: Cell, results: Path, extra_files: tuple[str, ...]) -> Iterator[tuple[Data, int, np.ndarray]]:
    """Yield the data set, the number of a test image, and the class ids that a cell gives its pixels."""
    import torch

    from lossbench.networks.stack import Stack
    from lossbench.training.blocks import blocks_of, network_of
    from lossbench.training.predict import predict

    (job,) = jobs_of([cell], extra_files)
    weights = torch.load(weights_of(results, cell.key), map_location="cpu", weights_only=True)
    cells = 2 if cell.grouped else 1  # as in training: a network of one group takes other kernels
    stack = Stack(network_of(job), [weights] * cells, precision=cell.recipe.precision)
    tiles = blocks_of([job], "cpu")[cell.block].test
    for number, (begin, _), logits in predict(stack, [tiles] * cells, cell.recipe.batch):
        for place, own in enumerate(logits if number == 0 else ()):
            mask = own.argmax(0).numpy().astype(np.uint8)
            yield job.data, int(tiles.index[begin + place]), mask


def _errors(best: Cell, worst: Cell, results: Path, extra_files: tuple[str, ...]) -> Path:
    """Write a picture of the test images on which the best loss does worst: image, truth, and what the best
    and the worst loss mark: rightly in white, falsely in orange; what they miss in blue. Return its path.
    """
    from PIL import Image, ImageDraw

    rows = []
    both = (_masks(cell, results, extra_files) for cell in (best, worst))
    # Both start from one split, so their images come in one order.
    for (data, n, ours), (_, _, theirs) in zip(*both, strict=True):
        rows.append((_dice(ours, np.asarray(data.masks[n])), n, data, ours, theirs))
    rows = sorted(rows, key=lambda row: row[:2])[:SHOWN]
    lines = [[small(panel) for panel in _panels(data, n, masks)] for _, n, data, *masks in rows]
    # Wide pictures take low rows.
    heights = [max(panel.height for panel in panels) + LINE + GAP for panels in lines]
    picture = Image.new("RGB", (4 * STRIDE, LINE + sum(heights)), "white")
    draw = ImageDraw.Draw(picture)
    for column, head in enumerate(("image", "truth", best.loss.label, worst.loss.label)):
        draw.text((column * STRIDE, 0), head, fill="black", font=font())
    top = LINE
    for (dice, n, data, *_), panels, height in zip(rows, lines, heights, strict=True):
        text = f"{_name(data, n)}: Dice {dice:.2f}"
        draw.text((0, top + height - LINE - GAP), text, fill="black", font=font())
        for column, panel in enumerate(panels):
            picture.paste(panel, (column * STRIDE, top))
        top += height
    buffer, file = io.BytesIO(), _folder(best, results) / f"errors_{best.recipe.digest}.png"
    picture.save(buffer, "PNG", optimize=True)
    write_atomically(file, buffer.getvalue())
    return file


def _panels(data: Data, n: int, masks: list[np.ndarray]) -> list[np.ndarray]:
    """Return an image, its truth and the errors of some masks, as uint8 (H, W, 3)."""
    truth = np.asarray(data.masks[n])
    image, flat = shown_slice(np.asarray(data.images[n]), truth, data.ignore_index)
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    if truth.ndim == 3:  # of a volume the slice that is shown
        z = next(z for z in range(truth.shape[2]) if np.array_equal(truth[..., z], flat))
        masks = [mask[..., z] for mask in masks]
    known = flat != (VOID if data.ignore_index is None else data.ignore_index)
    panels = [image, _tinted(image, flat > 0, known, RIGHT)]
    for mask in masks:
        right = _tinted(image, (flat > 0) & (mask == flat), known, RIGHT)
        missed = _tinted(right, (flat > 0) & (mask != flat), known, MISSED)
        panels.append(_tinted(missed, (mask > 0) & (flat == 0), known, FALSE))
    return panels


def _tinted(image: np.ndarray, where: np.ndarray, known: np.ndarray, colour: tuple) -> np.ndarray:
    out = image.copy()
    out[where & known] = (0.4 * out[where & known] + 0.6 * np.array(colour)).astype(np.uint8)
    return out


def _dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice of all foreground together; 1 where neither holds any."""
    both, sizes = ((mask == truth) & (truth > 0)).sum(), (mask > 0).sum() + (truth > 0).sum()
    return float(2 * both / sizes) if sizes else 1.0


def _folder(cell: Cell, results: Path) -> Path:
    return results / PREDICTIONS / _plain(cell.data_label)


def _name(data: Data, n: int) -> str:
    names = data.card.get("names")
    return names[n] if names else str(n)


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
    picture = Image.fromarray(mask)
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
