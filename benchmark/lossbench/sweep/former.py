"""Records of protocol 1 count although their losses have other fingerprints now.

Fingerprints were narrowed to what computes: those of all built-in losses changed once, and no number did.
This file, ``catalogue/former.json`` and ``LossSpec.former`` go with protocol 2, which trains all anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lossbench.base.protocol import PROTOCOL
from lossbench.experiment.cells import Cell
from lossbench.store.store import Store


def as_recorded(cells: Iterable[Cell], store: Store) -> list[Cell]:
    """Return the cells, each under the fingerprint by which the store has its record."""
    if PROTOCOL != 1:
        return list(cells)
    return [_as_recorded(cell, store) for cell in cells]


def _as_recorded(cell: Cell, store: Store) -> Cell:
    former = cell.loss.former
    if not former or store.has(*cell.pair) or not store.has(cell.key, former):
        return cell
    return replace(cell, loss=cell.loss.as_of(former))
