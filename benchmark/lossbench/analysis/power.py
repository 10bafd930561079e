"""What a planned study can decide, before a cell of it is trained: its own tests on made-up scores.

A planned cell says everything of a record but its scores. With standard normal scores in their place every
test runs as it will run on the records, which tells how many seeds and data sets it will rest on. From these
follow the smallest p that it can reach after Holm, and the smallest effect that it will detect, in standard
deviations of the numbers that it rests on, one a seed or one a data set; trials tell how large these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lossbench.analysis import across_sets, flips
from lossbench.analysis.claims import Claim, Test
from lossbench.analysis.evidence import Measured, in_deviations, measure, seeds_needed
from lossbench.analysis.flips import ALPHA
from lossbench.base.errors import UserError

CHOICES = ("val_dice@0.5", "val_dice@val", "val_dice_all@0.5")  # what losses and rates are chosen by

NAN = float("nan")


@dataclass(frozen=True)
class Power:
    """What one primary test of a planned study can show."""

    test: Test
    tests: int  # of its family, over which Holm adjusts
    n_seeds: int = 0
    n_sets: int = 0
    smallest_p: float = 1.0  # after Holm, if all tests of the family come out as clearly as they can
    detectable: float = NAN  # in standard deviations of its numbers, with 80 % power, in Holm's first step
    spread: float = NAN  # that standard deviation in trials
    problem: str = ""  # why it cannot be tested on what is planned

    @property
    def mde(self) -> float:
        """The minimum detectable effect in the unit of the test, nan where no trials tell the spread."""
        return self.detectable * self.spread

    @property
    def hopeless(self) -> bool:
        """Whether its cells are planned, but too few seeds to bring its p below .05."""
        return not self.problem and self.smallest_p >= ALPHA


def power(claims: Iterable[Claim], planned: pd.DataFrame, trials: pd.DataFrame | None = None) -> list[Power]:
    """Return what each primary test can show on planned cells; ``trials``: cells of tuning seeds."""
    claims = tuple(claims)
    found = []
    for family in dict.fromkeys(claim.family for claim in claims):
        tests = [test for claim in claims if claim.family == family for test in claim.tests]
        tests = [test for test in tests if test.role == "primary"]
        tried = [_tried(test, planned) for test in tests]
        reach = flips.holm([_smallest(test, own) for test, own in zip(tests, tried, strict=True)])
        for test, own, smallest in zip(tests, tried, reach, strict=True):
            if isinstance(own, str):
                found.append(Power(test, len(tests), problem=own))
                continue
            sizes = (len(tests), own.n_seeds, own.n_sets, float(smallest), _detectable(test, own, len(tests)))
            found.append(Power(test, *sizes, spread=_spread(test, trials)))
    return found


def refusal(found: Iterable[Power]) -> str:
    """Return the sentence that names the primary tests that no outcome could decide, or nothing."""
    lost = [own for own in found if own.hopeless]
    if not lost:
        return ""
    needed = max(seeds_needed(own.test, own.tests) for own in lost)
    names = ", ".join(f"{own.test.id} ({own.n_seeds} seeds)" for own in lost)
    return (
        f"no outcome could bring p below {ALPHA:g} after Holm's adjustment in {names}: plan {needed} seeds, "
        'or make them exploratory (role = "exploratory")'
    )


def _tried(test: Test, planned: pd.DataFrame) -> Measured | str:
    """Return what a test measures on made-up scores, or why it cannot."""
    asked = [test.value] if isinstance(test.value, str) else list(test.value)
    asked += [*CHOICES, *filter(None, [test.with_])]
    # Any numbers do, since what is asked is how many there are; equal ones would tie.
    draw = np.random.default_rng(0)
    scores = {name: draw.normal(size=len(planned)) for name in asked}
    try:
        return measure(test, planned.assign(**scores))
    except UserError as error:
        return str(error)


def _smallest(test: Test, own: Measured | str) -> float:
    if isinstance(own, str):
        return 1.0
    return own.evidence.smallest_equal(test.margin) if test.expect == "equal" else own.evidence.smallest_p


def _detectable(test: Test, own: Measured, tests: int) -> float:
    if own.over_sets:
        return across_sets.detectable(own.n_sets, tests)
    return in_deviations(test, own, tests)


def _spread(test: Test, trials: pd.DataFrame | None) -> float:
    try:
        return NAN if trials is None else float(measure(test, trials).sd)
    except UserError:  # no trial was of its cells
        return NAN
