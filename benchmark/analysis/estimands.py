"""What a test estimates, in one line that names columns and losses: the same words for the report, the tables and the messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sentence(test: Any) -> str:
    """Return the estimand of a ``claims.Test``: what, how it is summarised, on which data sets, against which null."""
    how = {
        "mean": "mean",
        "slope": f"slope on {test.dose}, all else equal" if test.dose else "change per tenfold foreground",
        "each": "in every data set",
        "agreement": "mean over data sets",
        "regret": "worst data set",
    }[test.shape]
    parts = [_what(test), how, _where(test)]
    if test.tuned:
        parts.append("each loss at the learning rate that its validation score prefers")
    if test.null:
        parts.append(f"tested against {test.null:g}")
    return "; ".join(parts)


def per(test: Any) -> str:
    """Return what the effect of a test is counted per: "a decade" of foreground, "per unit of" a dose; empty where it is no slope."""
    if test.shape != "slope":
        return ""
    return f"per unit of {test.dose.split('.')[-1].replace('_', ' ')}" if test.dose else "a decade"


def value(of: str | Mapping[str, float], absolute: bool = False) -> str:
    """Return a tested value in the way it would be written down: dice@0.5, (dice@0.5 - dice@val), |log_size_ratio_soft|."""
    if isinstance(of, str):
        text = of
    else:
        parts = [f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} '}{c}" for c, w in of.items()]
        text = " ".join(parts).removeprefix("+ ")
        text = f"({text})" if len(parts) > 1 else text
    return f"|{text}|" if absolute else text


def loss(name: str | tuple[str, ...]) -> str:
    """Return a loss, or what a list of losses stands for."""
    return name if isinstance(name, str) else f"the best on validation of {', '.join(name)}"


def _what(test: Any) -> str:
    tested = value(test.value, test.absolute)
    if test.shape == "agreement":
        return f"rank agreement (Kendall's tau) of the losses by {tested} and by {test.with_}"
    if test.shape == "regret":
        whom = "the loss for which it is smallest" if test.of == "any" else test.of
        than = f" minus that of {test.against}" if test.against else ""
        return f"{tested}: largest regret of {whom}{than}, among {', '.join(test.among)}"
    return f"{tested} of {loss(test.of)}" + (f" minus {loss(test.against)}" if test.against else "")


def _where(test: Any) -> str:
    places = " and ".join(test.data) or (f"part{'s' * (len(test.part) > 1)} {', '.join(test.part)}" if test.part else "all data sets")
    if test.data and test.part:
        places += f" of {', '.join(test.part)}"
    if test.foreground:
        low, high = test.foreground
        places += f", foreground {f'{low:g} to ' if low else 'up to '}{high:g}"
    for column, wanted in test.where.items():
        name = column.split(".")[-1].replace("_", " ")
        places += f", {name} " + (f"{wanted[0]:g} to {wanted[1]:g}" if isinstance(wanted, tuple) else f"{wanted}")
    return places
