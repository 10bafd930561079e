"""Data sets as a sample of data sets: a random-effects mean, and what a new data set would show.

The unit is the data set. Each has an effect and a variance, that of other seeds or of other test groups,
whichever is larger. Their mean is that of a random-effects model (DerSimonian and Laird 1986) with the
interval of Hartung and Knapp (2001) and Sidik and Jonkman (2002), on t with k - 1 degrees of freedom. Its
scale is never taken below one, since a chance agreement of few sets would else show too much (Roever, Knapp
and Friede 2015). A new data set lies, with 95 %, within mean +- t(k - 2) sqrt(tau^2 + se^2) (Higgins,
Thompson and Spiegelhalter 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

from lossbench.analysis.flips import Sided


@dataclass(frozen=True)
class Pooled(Sided):
    """The mean effect over k data sets."""

    estimate: float
    k: int
    se: float
    tau: float  # standard deviation of the true effects of data sets

    def above(self, null: float = 0.0) -> float:
        return self._tail(null - self.estimate)

    def below(self, null: float = 0.0) -> float:
        return self._tail(self.estimate - null)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean; unbounded for fewer than two data sets."""
        return _around(self.estimate, self.se, self.k - 1, level)

    def prediction(self, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the effect on a new data set; unbounded for fewer than three."""
        return _around(self.estimate, float(np.hypot(self.tau, self.se)), self.k - 2, level)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that the test can give: a t test of two data sets or more has no floor."""
        return 0.0 if self.k > 1 else 1.0

    def _tail(self, below: float) -> float:
        """Return P(t <= below / se) on k - 1 degrees of freedom."""
        if self.k < 2:
            return 1.0
        if self.se == 0:
            return 0.0 if below < 0 else 1.0
        return float(stdtr(self.k - 1, below / self.se))


@lru_cache(maxsize=256)
def detectable(k: int, tests: int = 1, power: float = 0.8) -> float:
    """Return the smallest true mean that ``tests`` such tests (Holm's first step) find with this power.

    It is in standard deviations of the effects of k data sets, of equal variances: then the test is a t test
    over data sets, and its power that of the noncentral t. inf for fewer than two data sets."""
    if k < 2:
        return float("inf")
    from scipy.optimize import brentq  # slow to import, as scipy.stats is
    from scipy.stats import nct

    cut = float(stdtrit(k - 1, 1 - 0.025 / tests))
    found = brentq(lambda shift: nct.sf(cut, k - 1, shift * np.sqrt(k)) - power, 0, 1e4)
    return float(found)


def _around(centre: float, se: float, df: int, level: float) -> tuple[float, float]:
    if df < 1:
        return -np.inf, np.inf
    half = float(stdtrit(df, 0.5 + level / 2)) * se
    return centre - half, centre + half


def pooled(effects: Sequence[float], variances: Sequence[float]) -> Pooled:
    """Return the random-effects mean of data sets; effects and variances: shape (k,)."""
    y = np.asarray(effects, dtype=float)
    # A set whose seeds agree exactly would else carry all the weight.
    v = np.maximum(np.asarray(variances, dtype=float), 1e-12 * max(1.0, float(np.max(np.square(y)))))
    if len(y) < 2:
        return Pooled(float(y[0]), len(y), float(np.sqrt(v[0])), 0.0)
    from statsmodels.stats.meta_analysis import combine_effects  # slow to import

    # statsmodels lets a negative tau^2 through; with tau^2 known the model is a weighted mean.
    with np.errstate(invalid="ignore", divide="ignore"):
        tau2 = max(0.0, float(combine_effects(y, v, method_re="chi2").tau2))
        found = combine_effects(y, v + tau2, method_re="chi2")
    se = float(found.sd_eff_w_fe) * np.sqrt(max(1.0, float(found.scale_hksj_fe)))
    return Pooled(float(found.mean_effect_fe), len(y), float(se), float(np.sqrt(tau2)))
