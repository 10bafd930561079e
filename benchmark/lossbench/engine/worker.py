"""What runs inside a worker: one task at a time, its events on their way to the driver, a process fit for
training.

An error here is one of the whole task. Where one loss raises, ``training/step.py`` notes it, and the other
cells of the stack train on.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from lossbench.base.errors import CannotWrite, UserError, said
from lossbench.base.process import owner

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

STEP_INTERVAL = 0.25  # seconds between two "step" events of one cell, at least

SCRATCH = "dask-scratch-space"

LOG_FOLDER = "LOSSBENCH_WORKER_LOGS"

_here = threading.local()  # .send, .last and .interval of the task that runs in this thread

_prepared = False

_log = None


def emit(kind: str, **facts: Any) -> None:
    """Send an event of the running task to the driver. "step" events are thinned; nothing is sent outside a
    task.
    """
    send = getattr(_here, "send", None)
    if send is None:
        return
    if kind == "step":
        cell, now = facts.get("cell"), time.monotonic()
        if cell in _here.last and now - _here.last[cell] < _here.interval:
            return
        _here.last[cell] = now
    send({"kind": kind, **facts})


def prepare() -> None:
    """Make this process fit for training, once: large malloc thresholds, and first in line when memory runs
    out.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    # Dask's folder of each worker: what is remembered of a user's file depends on where its helpers may lie.
    sys.path[:] = [place for place in sys.path if SCRATCH not in place]
    raise_malloc_thresholds()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # the kernel should end a worker, whose cell runs again, not the driver


def raise_malloc_thresholds() -> bool:
    """Keep freed memory in the process: every step frees and asks for the same tensors. False where it is not
    glibc.
    """
    trim, top_pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # 32 MB is the most that glibc takes for mmap.
    wanted = {mmap: 32 << 20, trim: 1 << 30, top_pad: 64 << 20}
    done = [mallopt(option, value) for option, value in wanted.items()]
    return all(done)


def call(function: str | Callable, payload: Any, send: Callable[[dict], None], interval: float = 0.0) -> dict:
    """Run one task and return what became of it; an exception becomes a sentence, so that nothing odd is
    pickled.
    """
    prepare()
    # Per thread: Dask runs a task in a thread of the worker, the serial launcher in the main one.
    _here.send, _here.last, _here.interval = send, {}, max(interval, STEP_INTERVAL)
    start = time.perf_counter()
    send({"kind": "start", "pid": os.getpid(), "log": getattr(_log, "name", ""), "owner": owner()})
    try:
        out = {"kind": "ok", "value": _find(function)(payload)}
    except UserError as error:
        fatal = isinstance(error, CannotWrite)
        out = {"kind": "error", "error": str(error), "user_error": True, "fatal": fatal}
    except KeyboardInterrupt:  # the user's wish, not the task's error
        raise
    except BaseException as error:
        out = {"kind": "error", "error": sentence(error), "trace": traceback.format_exc(limit=-20)}
    finally:
        _here.send = None
    send({"kind": "end", "ok": out["kind"] == "ok"})
    return {**out, "seconds": time.perf_counter() - start}


def readable(text: str, most: int = 300) -> str:
    """Return the beginning of a text, which may come from anywhere, as it can be printed and stored."""
    return text[:most].encode("utf-8", "replace").decode()


def sentence(error: BaseException) -> str:
    """The first line of an error with its type, short enough for a table."""
    if isinstance(error, SystemExit):
        return f"the task left with exit({error.code!r})"
    text = next(iter(said(error).strip().splitlines()), "")
    return readable(f"{type(error).__name__}: {text}") if text else type(error).__name__


def named(function: Callable) -> str:
    """Return the words by which another process finds a function of the module level."""
    return f"{function.__module__}:{function.__qualname__}"


def dask_setup(worker: Any) -> None:
    """Called by Dask when a worker process is up (this module is its preload)."""
    prepare()
    folder = os.environ.get(LOG_FOLDER)
    if folder:
        with contextlib.suppress(OSError):
            redirect_output(folder)


def redirect_output(folder: str) -> None:
    """Send what this process prints, crashes included, to ``folder/worker-<pid>.log`` and not into the live
    display.
    """
    global _log
    _log = open(os.path.join(folder, f"worker-{os.getpid()}.log"), "a", buffering=1)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(_log.fileno(), stream.fileno())
    faulthandler.enable(_log)


def _find(function: str | Callable) -> Callable:
    if callable(function):
        return function
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)
