"""The number of the rules by which cells are drawn, trained and scored; it stands in every key and record."""

from __future__ import annotations

PROTOCOL = 1  # raised whenever the same cell would give another result


def is_since(number: int) -> bool:
    """Return whether the rules of that protocol hold; what came with it is drawn otherwise before."""
    return number <= PROTOCOL
