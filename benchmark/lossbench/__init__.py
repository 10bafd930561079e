"""lossbench: an empirical benchmark of segmentation losses on imbalanced data."""

from __future__ import annotations

from typing import Any

from lossbench.catalogue.registry import dataset, get_dataset, get_loss, get_network, loss, network

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "dataset",
    "get_dataset",
    "get_loss",
    "get_network",
    "load_table",
    "loss",
    "network",
]


def load_table(results: str = "results", name: str = "cells") -> Any:
    """Return one of the tables of a results folder as a pandas DataFrame: ``cells``, ``images`` or
    ``curves``.
    """
    from lossbench.tables.files import load_table as load

    return load(results, name)
