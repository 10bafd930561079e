"""Patches of whole images, drawn anew in each step from a stream of (data set, seed, step).

So every loss of a block sees the same patches. Where an image is smaller than the patch it is reflected, and
the mask is void there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lossbench.base import specs
from lossbench.base.errors import UserError, nearest
from lossbench.base.seeds import stream
from lossbench.data.container import VOID, Data, Places, gather, places_of
from lossbench.data.ragged import Ragged

FIRST = 1000  # patches that stand for what training shows

SHARE = 0.33  # of the patches that nnU-Net centres on foreground (Isensee et al. 2021)


@dataclass(frozen=True)
class Sampler:
    """How patches are drawn: the share that is centred on foreground; the others lie anywhere."""

    share: float

    def __str__(self) -> str:
        return f"foreground(share={self.share:g})" if self.share else "uniform"


def parse_sampler(text: str) -> Sampler:
    """Return the sampler of ``uniform`` or ``foreground(share=0.33)``; UserError for anything else."""
    terms = specs.parse(text, "sampler")
    name, given = terms[0].name, terms[0].arguments
    if len(terms) > 1 or terms[0].weight != 1 or name not in ("uniform", "foreground"):
        raise UserError(f"there is no sampler '{text}'{nearest(name, ('uniform', 'foreground(share=0.33)'))}")
    share = given.get("share", SHARE if name == "foreground" else 0.0)
    if set(given) - {"share"} or (given and name == "uniform"):
        raise UserError(f"sampler '{text}': 'foreground' takes 'share', and 'uniform' takes nothing")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f"sampler '{text}': 'share' must lie between 0 and 1, got {share!r}")
    return Sampler(float(share))


USUAL = 64  # pixels of a patch's side, where images differ in size and the recipe names none


def side_of(recipe: Any, data: Data) -> tuple[int, ...] | None:
    """Return the sides of the patches that a recipe draws from a data set; None where images of one size are
    taken as they are.
    """
    patch, whole = recipe.patch, not isinstance(data.images, Ragged)
    if patch is None:
        side = data.shape if whole else (USUAL,) * data.dims
    else:
        side = (patch,) * data.dims if isinstance(patch, int) else patch
    # An image as large as the patch is simply the image.
    return None if whole and side == data.shape and recipe.sampler == "uniform" else side


class Patches:
    """Patches of one part of a data set's split.

    - ``side``: pixels along each axis, one number or one for each axis; ``sampler``: see ``parse_sampler``;
    - ``name`` stands for the data set in the stream.

    Images take turns, in an order that is drawn anew for each round. A patch that is centred on foreground
    takes an image that has some, one of its classes, and one of that class's pixels, each with equal chance.
    """

    def __init__(
        self,
        data: Data,
        side: int | tuple[int, ...],
        sampler: str = "uniform",
        *,
        part: str = "train",
        name: str = "",
    ):
        self.data, self.name = data, name or data.name
        self.side = np.array([side] * data.dims if isinstance(side, int) else side)
        self.sampler = parse_sampler(sampler)
        self.index = data.split[part]
        self.sizes = data.sizes
        self._check(part)

    def _check(self, part: str) -> None:
        where, sizes = f"data set '{self.data.name}'", self.sizes[self.index]
        if len(self.side) != self.data.dims or self.side.min() < 1:
            raise UserError(f"{where}: a patch of {self.side.tolist()} does not fit {self.data.dims} axes")
        # Below half a patch most of what training shows would be reflection and void.
        if (2 * sizes.max(0) < self.side).any():
            largest = "x".join(map(str, sizes.max(0)))
            patch, most = "x".join(map(str, self.side)), "x".join(map(str, 2 * sizes.max(0)))
            raise UserError(
                f"{where}: all images are smaller than half a patch of {patch}; the largest is {largest}, "
                f"so a patch may be {most} at most"
            )
        if self.sampler.share and not len(self.with_foreground):
            raise UserError(f"{where}: no image of '{part}' holds foreground to centre patches on")

    @property
    def ignore_index(self) -> int | None:
        """What marks void in the masks of patches: the data set's own value, or 255 where patches are
        padded.
        """
        # Scenes have no void of their own; 255 is no class of theirs either.
        padded = (self.sizes[self.index] < self.side).any()
        return VOID if self.data.ignore_index is None and padded else self.data.ignore_index

    @cached_property
    def with_foreground(self) -> np.ndarray:
        """The images that patches can be centred in."""
        return self.index[self.data.counts[self.index, 1:].any(1)]

    @cached_property
    def places(self) -> Places:
        """Where foreground lies; looked up here for sets that were not prepared with it."""
        if self.data.places is not None:
            return self.data.places
        classes = len(self.data.classes)
        return gather((places_of(mask, classes, str(n)) for n, mask in enumerate(self.data.masks)), classes)

    def draw(self, seed: int, step: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images (batch, C, *side) float32 and masks (batch, *side) uint8 of one step."""
        where = self.where(seed, step, batch)
        return self.images_at(*where), self.masks_at(*where)

    def where(self, seed: int, step: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (batch,) and the corner (batch, dims) of each patch of one step.

        A corner is negative along an axis where the patch is larger than the image: it begins in the padding.
        """
        # All chance of a step is drawn here, in one order, whatever becomes of it: so two samplers that
        # differ in their share still agree on where the other patches lie.
        rng = stream("patches", f"{self.name}/{step}", seed)
        # The image of each patch follows from its number since the first step: no state is carried along, and
        # a training that goes on from any step sees what it would have seen.
        turns = range(step * batch, (step + 1) * batch)
        images = np.array(
            [self.index[self._round(seed, turn // len(self.index))[turn % len(self.index)]] for turn in turns]
        )
        anywhere = rng.random((batch, self.data.dims))
        chosen = rng.random((batch, 3))
        centred = int(self.sampler.share * batch + rng.random())  # its mean is the share, whatever the batch
        corners = np.empty(anywhere.shape, np.int64)
        for j in range(batch):
            if j < batch - centred:  # as in nnU-Net, the last of a batch are the centred ones
                room = self.sizes[images[j]] - self.side
                corners[j] = np.where(room >= 0, anywhere[j] * (room + 1), -(-room // 2))
            else:
                images[j], corners[j] = self._centred(chosen[j])
        return images, corners

    def _round(self, seed: int, number: int) -> np.ndarray:
        return _order(self.name, seed, number, len(self.index))

    def _centred(self, chosen: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the image and the corner of a patch around a pixel of foreground; three numbers in [0,
        1).
        """
        image = _pick(self.with_foreground, chosen[0])
        kind = _pick(np.flatnonzero(self.data.counts[image, 1:]) + 1, chosen[1])
        pixel = _pick(self.places.of(image, kind), chosen[2])
        size = self.sizes[image]
        room = size - self.side
        # Near a border the patch is moved inside, so its pixel is then not in the middle.
        corner = np.array(np.unravel_index(pixel, size)) - self.side // 2
        return image, np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), -(-room // 2))

    def images_at(self, images: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Return float32 (batch, C, *side), reflected where a patch reaches beyond its image."""
        out = np.empty((len(images), self.data.channels, *self.side), np.float32)
        for j, (n, window, margins) in enumerate(self._windows(images, corners)):
            part = self.data.images[(n, slice(None), *window)]
            out[j] = np.pad(part, [(0, 0), *margins], "reflect") if margins else part
        return out

    def masks_at(self, images: np.ndarray, corners: np.ndarray, codes: bool = False) -> np.ndarray:
        """Return uint8 (batch, *side), void where a patch reaches beyond its image; ``codes``: what raters
        say, where there are several.
        """
        source = self.data.labels if codes else self.data.masks
        out = np.full((len(images), *self.side), self.ignore_index or 0, np.uint8)
        for j, (n, window, margins) in enumerate(self._windows(images, corners)):
            inside = tuple(slice(low, s - high) for (low, high), s in zip(margins, self.side, strict=False))
            out[(j, *inside)] = source[(n, *window)]
        return out

    def _windows(self, images: np.ndarray, corners: np.ndarray) -> Iterator[tuple]:
        """Yield image, the part of it that a patch shows, and the pixels added on either side, if any are."""
        first, last = np.maximum(corners, 0), np.minimum(corners + self.side, self.sizes[images])
        low, high = first - corners, corners + self.side - last
        padded = (low + high).any(1).tolist()
        for j, n in enumerate(images.tolist()):
            window = tuple(map(slice, first[j].tolist(), last[j].tolist()))
            yield n, window, list(zip(low[j].tolist(), high[j].tolist(), strict=True)) if padded[j] else []

    def frequency(self) -> np.ndarray:
        """Return the share of each class in the first 1,000 patches of seed 0, void left out: float64
        (K,).
        """
        counts = np.bincount(self.masks_at(*self.where(0, 0, FIRST)).ravel(), minlength=256)
        counts = counts[: len(self.data.classes)]
        return counts / max(counts.sum(), 1)

    def bare(self) -> float:
        """Return the share of the same patches that hold no foreground."""
        masks = self.masks_at(*self.where(0, 0, FIRST)).reshape(FIRST, -1)
        return float(1 - ((masks > 0) & (masks < len(self.data.classes))).any(1).mean())


@lru_cache(maxsize=8)
def _order(name: str, seed: int, number: int, count: int) -> np.ndarray:
    """Return the order of the images in one round."""
    return stream("patches", f"{name}/round {number}", seed).permutation(count)


def _pick(choices: np.ndarray, chance: float) -> int:
    return int(choices[int(chance * len(choices))])
