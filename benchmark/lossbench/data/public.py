"""What all public sets share: how a loader's pairs become a data set that knows where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.data.container import Data
from lossbench.data.identity import source_of
from lossbench.data.naming import canonical
from lossbench.data.pairs import Arrays, Pairs
from lossbench.data.prepare import open_prepared
from lossbench.data.sources import get_source


def open_public(
    function: Callable,
    given: dict[str, Any],
    build: Callable[[], Pairs | Arrays],
    version: int = 1,
) -> Data:
    """Return a public set, prepared from its raw files where it is not in the cache yet.

    ``function`` is the registered builder, ``given`` its parameters; ``version`` as in its decorator.
    """
    name = function.__name__
    # Where it comes from travels with the data, so that a report needs no look at this file.
    card = get_source(source_of(name, given)).card()
    return open_prepared(name, canonical(function, given), given, version, build, card)


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Return a number for each different name, in their order: the groups of a set."""
    return {name: number for number, name in enumerate(sorted(set(names)))}


def channels_first(picture: np.ndarray) -> np.ndarray:
    """Return (C, H, W) of a picture (H, W) or (H, W, C)."""
    return picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)


def as_it_came(path: Path) -> Path:
    """Return a TIFF, or the PNG that a local copy holds in its place."""
    return path if path.is_file() else path.with_suffix(".png")
