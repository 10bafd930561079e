"""Independent random streams, one for each purpose, derived from the data set and the seed, never from the
loss; and choices that depend on a name alone, the same in every process, on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np

# Listed, so that a purpose that is misspelt is an error and no other stream.
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
    # The sign bit stays free: some libraries take signed numbers alone.
    return int.from_bytes(digest[:8], "big") >> 1


# --- choices by name


def shuffle_key(text: str) -> str:
    """Return a hash to sort by; the order nests (the first 60 lie in the first 100)."""
    return hashlib.sha256(text.encode()).hexdigest()


def rng_of(text: str) -> np.random.Generator:
    """Return a generator that depends on a name alone, so that prepared images are the same for every
    seed.
    """
    # 64 of the 256 bits are plenty to keep names apart.
    return np.random.default_rng(int(shuffle_key(text)[:16], 16))
