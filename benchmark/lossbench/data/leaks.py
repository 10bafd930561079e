"""Images that show one thing: near-duplicates, and groups that file names tell."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from lossbench.data.container import Data
from lossbench.data.reading import thumbnail

MOST = 2000  # images of each part of a split whose thumbnails are compared after a sweep

ALIKE = 0.99  # correlation of two thumbnails above which two images probably show one thing

KIN = 0.5  # share of the images whose nearest neighbour is in their group, at least, where names tell groups

TIMES_CHANCE = 2.0  # and by what factor that is more than chance


ROWS = 1000  # of the matrix of all likenesses that memory holds at once


def near_duplicates(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return links between images (N, pixels) that look alike: as few as join all of them."""
    links, group = [], np.arange(len(thumbnails))
    for start in range(0, len(thumbnails), ROWS):
        for row, alike in enumerate(thumbnails[start : start + ROWS] @ thumbnails.T > ALIKE, start):
            # Each frame of a still video is like all others: all pairs would be millions.
            own = group[alike]
            if not len(own) or (own == own[0]).all():
                continue
            _, first = np.unique(own, return_index=True)
            found = np.flatnonzero(alike)[first]
            links += [(row, int(other)) for other in found if group[other] != group[row]]
            group[np.isin(group, own)] = group[row]
    return links


def nearest_outside(test: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Return (test image, other image) by their places, one for each of the first thumbnails that looks like
    one of the others.
    """
    found = []
    for start in range(0, len(test) if len(others) else 0, ROWS):
        alike = test[start : start + ROWS] @ others.T
        nearest = alike.argmax(1)
        found += [(start + n, int(nearest[n])) for n in np.flatnonzero(alike.max(1) > ALIKE).tolist()]
    return found


def across(data: Data, most: int = MOST) -> list[tuple[int, int]]:
    """Return pairs of a test image and a near-duplicate of it in training or validation, one a test image; of
    the first so many images of each part.
    """
    test = data.split["test"][:most]
    others = np.concatenate([data.split[part][:most] for part in ("train", "val")])
    ours, theirs = (np.stack([thumbnail(np.asarray(data.images[n])) for n in own]) for own in (test, others))
    return [(int(test[n]), int(others[m])) for n, m in nearest_outside(ours, theirs)]


def guessed_groups(names: list[str], thumbnails: np.ndarray) -> list[str]:
    """Return a group for each image as names tell it, or [] where they tell none.

    Names alone prove nothing ('exp1_num_17' may be the first exposure or the first patient). So a guess
    counts where images resemble those of their own group most, or where left and right are named.
    """
    sides = [re.sub(r"(?<=\d)[_-]?([LR]|left|right|OD|OS)$", "", name) for name in names]
    if set(Counter(sides).values()) == {2}:
        return sides
    guesses = (
        [re.sub(r"[_\-. ]*[a-zA-Z]*\d+$", "", name) for name in names],  # volume_17 of slice volume_17_3
        [re.split(r"[_\-. ]", name.split("/")[-1])[0] for name in names],
        [name.rpartition("/")[0] for name in names],
    )
    for groups in guesses:
        if "" not in groups and _resemble(groups, thumbnails):
            return groups
    return []


def _resemble(groups: list[str], thumbnails: np.ndarray) -> bool:
    """Return whether images have their nearest neighbour in their own group, and not by chance."""
    sizes = Counter(groups)
    if not 3 <= len(sizes) <= len(groups) / 2:
        return False
    own = np.unique(groups, return_inverse=True)[1]
    chosen = np.unique(np.linspace(0, len(groups) - 1, min(len(groups), 500)).astype(int))
    alike = thumbnails[chosen] @ thumbnails.T
    alike[np.arange(len(chosen)), chosen] = -np.inf
    share = (own[alike.argmax(1)] == own[chosen]).mean()
    chance = np.mean([(sizes[groups[n]] - 1) / (len(groups) - 1) for n in chosen])
    return share >= max(KIN, TIMES_CHANCE * chance)


def joined(groups: list[str], alike: list[tuple[int, int]], names: list[str]) -> list[str]:
    """Return groups in which near-duplicates are together; images of no group are their own."""
    groups = list(groups or names)
    leader = {group: group for group in groups}

    def first(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    for a, b in alike:
        one, other = sorted((first(groups[a]), first(groups[b])))
        leader[other] = one
    return [first(group) for group in groups]


def divided(groups: list[str], parts: list[str]) -> int:
    """Return how many test images have an image of their group in training or validation."""
    known = {group for group, part in zip(groups, parts, strict=True) if part in ("train", "val")}
    return sum(part == "test" and group in known for group, part in zip(groups, parts, strict=True))


def says(data: Data) -> str:
    """Return a sentence where test images have a near-duplicate outside of test; else nothing."""
    alike, names = across(data), data.card.get("names")
    if not alike or not names:
        return ""
    one, other = (names[n] for n in alike[0])
    scored = f"{len(alike)} test images have a near-duplicate outside test ('{one}' and '{other}')"
    return f"{scored}: scores are too good; 'lossbench inspect --groups' helps"
