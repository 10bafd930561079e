"""The command that trains what a test lacks: its experiment, losses that no part of it holds, or more seeds."""

from __future__ import annotations

import shlex
import tomllib
from typing import Any

import numpy as np

from benchmark.analysis import permutation, resampling
from benchmark.analysis.claims import Test
from benchmark.analysis.effects import Effect
from benchmark.analysis.selection import canonical
from benchmark.errors import UserError


def fill(test: Test, experiment: str) -> str:
    """Return the command that trains the missing cells of a test."""
    there = _losses(_content(experiment))
    return " ".join(["lossbench sweep", experiment, *(f"--loss {shlex.quote(x)}" for x in test.losses if canonical(x) not in there)])


def more_seeds(test: Test, experiment: str, measured: Effect, alpha: float) -> str:
    """Return the command that trains enough seeds: the experiment as it is where it plans that many, else with more of them."""
    needed = _needed(test, measured, alpha)
    command = fill(test, experiment)
    return command if _planned(_content(experiment), test.part) >= needed else f"{command} --seeds {needed}"


def _needed(test: Test, measured: Effect, alpha: float) -> int:
    """Return the seeds a data set that let the test reach ``alpha``; for sign flips, when it has as many pairs a seed as now."""
    if test.shape in ("agreement", "regret"):
        return resampling.FEWEST
    if test.expect == "equal":  # a spread needs two
        return 2
    pairs = 1 - np.log2(measured.smallest_p)
    seeds = measured.n_blocks / measured.n_datasets
    return int(np.ceil(permutation.blocks_needed(alpha) * seeds / pairs))


def _content(experiment: str) -> dict[str, Any]:
    from benchmark.experiment import find_experiment

    try:
        return tomllib.loads(find_experiment(experiment).read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        return {}


def _losses(content: dict[str, Any]) -> set[str]:
    crosses = [content, *content.get("part", [])]
    return {canonical(item if isinstance(item, str) else item.get("use", "")) for cross in crosses for item in cross.get("losses", [])}


def _planned(content: dict[str, Any], parts: tuple[str, ...]) -> int:
    """Return the smallest number of seeds that the parts (or, without parts, the experiment) plan."""
    usual = content.get("seeds", 3) if content else 0
    planned = [part.get("seeds", usual) for part in content.get("part", []) if part.get("name") in parts] or [usual]
    return min(seeds if isinstance(seeds, int) else len(seeds) for seeds in planned)
