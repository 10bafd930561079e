"""A contact sheet: images of a user's data beside themselves under their masks, one row a pair."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lossbench.data.cards import COLOURS, shown_slice
from lossbench.data.coding import Coding
from lossbench.data.container import VOID
from lossbench.data.pairs import Layout
from lossbench.data.reading import read_image, read_mask

SIDE = 320  # pixels of the longer side of each picture

LINE = 18  # pixels of a line of text

COLUMNS = 2  # pairs beside one another


def contact_sheet(
    layout: Layout, coding: Coding, chosen: Iterable[tuple[str, str]], title: str
) -> Image.Image:
    """Return a picture of the chosen images (what, name), each with its mask in colour."""
    pairs = {pair.name: pair for pair in layout.pairs}
    cells = []
    for what, name in chosen:
        values, _ = read_mask(pairs[name])
        image, mask = shown_slice(read_image(pairs[name], values.shape), coding.apply(values, name), VOID)
        cells.append((f"{name}: {what}" if what else name, image, _marked(image, mask)))
    rows = math.ceil(len(cells) / COLUMNS)
    width, height = 2 * SIDE + 16, SIDE + LINE + 8
    sheet = Image.new("RGB", (COLUMNS * width + 8, rows * height + LINE + 8), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 4), title, fill="black", font=font())
    for number, (text, *pictures) in enumerate(cells):
        x, y = 8 + number % COLUMNS * width, LINE + 8 + number // COLUMNS * height
        draw.text((x, y), text[-100:], fill="black", font=font())
        for at, picture in enumerate(pictures):
            sheet.paste(small(picture), (x + at * (SIDE + 4), y + LINE))
    return sheet


@functools.cache
def font() -> ImageFont.FreeTypeFont:
    """Return a font for names of files: Pillow's own has no umlauts and no Cyrillic."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 11)


def small(picture: np.ndarray) -> Image.Image:
    """Return a picture uint8 (H, W[, 3]) at the size of the sheet."""
    image = Image.fromarray(picture).convert("RGB")
    scale = SIDE / max(image.size)
    # Small ones are enlarged pixel by pixel, so that each can be seen.
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    return image.resize([max(1, round(side * scale)) for side in image.size], how)


def _marked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image uint8 (H, W[, 3]) in colour, with the classes painted over it and outlined."""
    from scipy import ndimage

    out = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    out = out.copy()
    # As thick as two pixels of the sheet: else an object of one pixel would vanish from it.
    thick = max(1, round(2 * max(mask.shape) / SIDE))
    for kind in np.setdiff1d(np.unique(mask), (0, VOID)):
        inside, tint = mask == kind, np.array(COLOURS[(kind - 1) % len(COLOURS)])
        out[inside] = (0.55 * out[inside] + 0.45 * tint).astype(np.uint8)
        out[ndimage.binary_dilation(inside, iterations=thick) & ~inside & (mask == 0)] = tint
    out[mask == VOID] = 128  # grey: nobody asks what is there
    return out
