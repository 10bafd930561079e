"""The command line as a user types it, within this process: a new one takes longer than most commands."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def command(folder: Path | str, *words: str) -> Done:
    """Run ``lossbench WORDS`` in a folder; it never prints a traceback."""
    from lossbench.cli import main as cli

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["lossbench", *words]
    code = 0
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    done = Done(code, out.getvalue(), err.getvalue())
    assert "Traceback" not in done.err, done.err
    return done


def lossbench(folder: Path | str, *words: str, code: int = 0) -> str:
    """Run a command that ends with this exit code; return all that it printed."""
    done = command(folder, *words)
    assert done.code == code, done
    return done.out + done.err
