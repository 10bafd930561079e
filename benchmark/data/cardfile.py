"""Data cards on disk: what the report shows of each data set, as one JSON file with its pictures inside, written by a sweep."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.files import cannot_write, write_atomically

# One colour for each foreground class, told apart by the colour-blind (Okabe and Ito 2008); more classes start again.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
SIDE = 320  # pixels of the longer side above which a picture is made smaller


def name(spec: Any, identity: str) -> str:
    """Return the file name of a data set variant's card."""
    return hashlib.sha256(f"{spec.public.text}\0{identity}".encode()).hexdigest()[:16] + ".json"


def store(results: str | Path, variants: list[tuple[Any, str, str]], seed: int, extra_files: tuple[str, ...] = ()) -> dict[str, str]:
    """Write the card of each variant (spec, identity, label) that has none yet; return label -> file name."""
    from benchmark.data.cards import card
    from benchmark.registry import get_dataset

    folder = Path(results) / "cards"
    found = {}
    for spec, identity, label in variants:
        found[label] = name(spec, identity)
        if (folder / found[label]).is_file():
            continue
        facts = card(get_dataset(spec, seed, extra_files))
        facts["name"], facts["seed"] = spec.public.text, seed
        facts["samples"] = [picture(image, mask) for image, mask in facts["samples"]]
        try:
            write_atomically(folder / found[label], (json.dumps(facts, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise cannot_write(Path(results), error) from None
    return found


def picture(image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Return an image (H, W[, 3]) beside the same image under its mask (H, W), as base64 PNG with its size."""
    from PIL import Image

    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    marked = colour.copy()
    for kind in range(1, 255):
        inside = mask == kind
        if inside.any():
            marked[inside] = (0.45 * marked[inside] + 0.55 * np.array(COLOURS[(kind - 1) % len(COLOURS)])).astype(np.uint8)
    marked[mask == 255] = 128
    gap = np.full((colour.shape[0], max(2, colour.shape[1] // 32), 3), 255, np.uint8)
    both = Image.fromarray(np.concatenate([colour, gap, marked], 1))
    if max(colour.shape[:2]) > SIDE:
        both = both.resize([round(s * SIDE / max(colour.shape[:2])) for s in both.size])
    buffer = io.BytesIO()
    both.save(buffer, "PNG", optimize=True)
    return {"png": base64.b64encode(buffer.getvalue()).decode(), "width": both.width, "height": both.height}
