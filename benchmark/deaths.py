"""Why a worker process died: the signal that Dask's nannies saw, or the last words of its own log."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def seen() -> Iterator[dict[int, str]]:
    """Learn from the log of Dask's nannies which signal ended which process: {pid: clause}."""
    died: dict[int, str] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.match(
                r"Worker process (\d+) (?:was killed by signal (\d+)|exited with status (\d+))", record.getMessage()
            )
            if found:
                died[int(found[1])] = (
                    _clause(int(found[2])) if found[2] else f"its worker exited with status {found[3]}"
                )

    logger, listener = logging.getLogger("distributed.nanny"), Listener()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        yield died
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _clause(number: int) -> str:
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        hint = ": out of memory, or killed by hand" if name == "SIGKILL" else ""
        return f"its worker was killed by {name}{hint}"
    return f"its worker was killed by signal {number}"


def crash(log: str) -> str:
    """The line in which a worker's log says why it crashed, when it does."""
    with contextlib.suppress(OSError):
        lines = Path(log).read_text(errors="replace").splitlines() if log else []
        fatal = [line for line in lines if line.startswith("Fatal Python error:")]
        return f"its worker crashed ({fatal[-1].removeprefix('Fatal Python error: ')})" if fatal else ""
    return ""
