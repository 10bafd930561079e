"""Lets the loss tests share the pairs of perf/peer_pairs.py and the slow oracles beside them."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "perf")]
