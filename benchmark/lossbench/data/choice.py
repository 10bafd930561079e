"""Choices that look random and depend on a name alone: the same in every process, on every machine."""

from __future__ import annotations

import hashlib

import numpy as np


def shuffle_key(text: str) -> str:
    """Return a hash to sort by; the order nests (the first 60 lie in the first 100)."""
    return hashlib.sha256(text.encode()).hexdigest()


def rng_of(text: str) -> np.random.Generator:
    """Return a generator that depends on a name alone, so that prepared images are the same for every
    seed.
    """
    # 64 of the 256 bits are plenty to keep names apart.
    return np.random.default_rng(int(shuffle_key(text)[:16], 16))
