"""Independent random streams, one for each purpose, derived from the data set and the seed, never from the
loss.
"""

from __future__ import annotations

import hashlib

import numpy as np

PURPOSES = ("scenes", "split", "patches", "budget", "init", "order", "augment", "dropout", "loss", "tune")


def stream(purpose: str, name: str, seed: int) -> np.random.Generator:
    """Return the generator of one purpose: the same for every loss of a block, independent between purposes,
    names and seeds.
    """
    return np.random.default_rng(integer(purpose, name, seed))


def integer(purpose: str, name: str, seed: int) -> int:
    """Return a 63-bit seed for libraries that take a number."""
    if purpose not in PURPOSES:
        raise ValueError(f"no random stream for {purpose!r}; there are {PURPOSES}")
    digest = hashlib.sha256(f"{purpose}\0{name}\0{int(seed)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
