"""The one exception that a user is meant to see, and what its sentence names: the nearest valid thing, the
command that mends it.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its sentence and exits with 2, without a
    traceback.
    """


class CannotWrite(UserError):
    """A results folder refused a write, so that what else is trained could not be kept either."""


def said(error: BaseException) -> str:
    """Return what an error says; one of a user's may fail even at that."""
    try:
        return str(error)
    except (Exception, SystemExit):
        return "(its text cannot be made)"


def typed(*words: object) -> str:
    """Return a command of lossbench as one types it: a folder whose name holds a space stands in quotes."""
    return shlex.join(["lossbench", *map(str, words)])


def nearest(name: str, choices: Iterable[str], limit: int = 12, key: Callable[[str], str] = str) -> str:
    """Return the tail of a sentence: ``; did you mean 'dice'?`` or, when nothing is close, what there is.

    ``key`` says what of a choice is compared with the name; upper and lower case are alike."""
    # Sorted, so that the same mistake gets the same sentence on every machine.
    choices = sorted(str(c) for c in choices)
    compared = {key(choice).lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), compared, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{compared[close[0]]}'?"
    if not choices:
        return ""
    shown = ", ".join(choices[:limit]) + (", ..." if len(choices) > limit else "")
    return f"; there are: {shown}"


def must_divide(sides: Iterable[int], step: int) -> str:
    """Return the clause that says by what sides must be divisible, and the nearest ones that are."""
    near = "x".join(str(max(1, round(side / step)) * step) for side in sides)
    return f"every side must be divisible by {step}; the nearest is {near}"
