"""The number of the rules by which cells are drawn, trained and scored; it stands in every key and record."""

from __future__ import annotations

# Raised whenever the same cell would give another result. 1: one stream for all levels of a ladder, crops of
# public sets, thresholds by the Dice of images that hold the class. 2: docs/protocol.md.
PROTOCOL = 2
