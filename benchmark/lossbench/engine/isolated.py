"""Processes for tasks that run a user's code: whatever that does to its process, no other task meets it.

A worker, or the driver of ``--serial``, keeps such a process for each name that tasks are apart by, hands it
one task after the other, and passes on its events. A process that died, hung or gave an error is not used
again."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from lossbench.base.process import end_with_parent
from lossbench.engine import worker

KEPT = 2  # processes that wait for a next task of their name; each holds a few hundred megabytes

LIVES = 2  # processes that may die of one task; the first may have been ended by the kernel or by hand

LOOK = 0.2  # seconds between looks whether a process that says nothing still lives

_waiting: OrderedDict[str, _Process] = OrderedDict()

Send = Callable[[dict], None]


def call(
    name: str, function: str, payload: Any, send: Send, *, interval: float = 0.0, limit: float | None = None
) -> dict:
    """Run one task as ``worker.call`` does, in the process of that name, and return what became of it.

    ``limit``: seconds after which the process is ended."""
    request = {"function": function, "payload": payload, "interval": interval}
    deaths: list[str] = []
    while len(deaths) < LIVES:
        process = _waiting.pop(name, None) or _Process()
        try:
            out = process.ask(request, send, limit)
        except BaseException:  # the user's interrupt, say
            process.end()
            raise
        if out is None:
            deaths.append(process.end())
            send({"kind": "lost", "why": deaths[-1], "owner": process.owner})
        elif out["kind"] == "ok" and process.popen.poll() is None:
            _keep(name, process)
            return out
        else:
            process.end()
            return out
    return {"kind": "killed", "error": f"{deaths[-1]}, {len(deaths)} times"}


def close() -> None:
    """End all processes that wait for a task."""
    while _waiting:
        _waiting.popitem()[1].end()


def _keep(name: str, process: _Process) -> None:
    _waiting[name] = process
    while len(_waiting) > KEPT:
        _waiting.popitem(last=False)[1].end()


def _sound(said: Any) -> dict:
    """Return what a process says if it is an event, or what became of a task."""
    what = said["event"] if "event" in said else said["out"]
    if not isinstance(what["kind"], str):
        raise ValueError(said)
    return said


class _Process:
    """One process, as the one that started it sees it: requests go in and events come out, a line each."""

    def __init__(self) -> None:
        program = "import sys; sys.path[:] = {!r}; from lossbench.engine import isolated; isolated.serve()"
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **worker.ENVIRONMENT},
            # A group of its own: Ctrl-C of the terminal is the driver's, and what it forks ends with it.
            start_new_session=hasattr(os, "killpg"),
        )
        self.owner = ""
        self.said: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        # What is not of this conversation ends it: the user's code may have found the pipe.
        with contextlib.suppress(ValueError, OSError, RecursionError, TypeError, KeyError):
            for line in self.popen.stdout:
                self.said.put(_sound(json.loads(line)))
        self.said.put(None)

    def ask(self, request: dict, send: Send, limit: float | None) -> dict | None:
        """Hand over a task and return what became of it; None where the process died."""
        begin = time.monotonic()
        try:
            self.popen.stdin.write(json.dumps(request).encode() + b"\n")
            self.popen.stdin.flush()
        except OSError:
            return None
        while True:
            seconds = time.monotonic() - begin
            if limit and seconds > limit:
                error = f"stopped after {seconds:.0f} s, over its time limit of {limit:g} s"
                return {"kind": "time limit", "error": error, "seconds": seconds}
            try:
                said = self.said.get(timeout=LOOK)
            except queue.Empty:
                # What it forked may hold the pipe open when it is gone itself.
                if self.popen.poll() is not None and self.said.empty():
                    return None
                continue
            if said is None:
                return None
            if "out" in said:
                return said["out"]
            self.owner = said["event"].get("owner", self.owner)
            send(said["event"])

    def end(self) -> str:
        """End the process and all that it started; return how it ended, as a clause."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(LOOK)  # it may be about to end by itself, which is what to say then
        with contextlib.suppress(OSError):
            os.killpg(self.popen.pid, signal.SIGKILL) if hasattr(os, "killpg") else self.popen.kill()
        code = self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        if code >= 0:
            return f"its process ended by itself with status {code}"
        with contextlib.suppress(ValueError):
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process was killed by signal {-code}"


# Inside such a process


def serve() -> None:
    """Run what is asked for, one task after the other, until nobody asks any more."""
    home, requests = os.getpid(), queue.SimpleQueue()
    # What a user's code prints must not mix with what is said here.
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    end_with_parent()
    threading.Thread(target=_listen, args=(os.dup(0), requests), daemon=True).start()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    lock = threading.Lock()

    def say(**what: Any) -> None:
        if os.getpid() != home:  # the user's code has forked, and this is the copy
            os._exit(1)
        with lock:
            out.write(json.dumps(what) + "\n")
            out.flush()

    while True:
        request = requests.get()
        try:
            said = worker.call(
                request["function"], request["payload"], lambda event: say(event=event), request["interval"]
            )
        except KeyboardInterrupt as error:  # nobody but the user's code sends one here
            said = {"kind": "error", "error": worker.sentence(error)}
        say(out=said)


def _listen(pipe: int, requests: queue.SimpleQueue) -> None:
    with os.fdopen(pipe, "rb") as lines:
        for line in lines:
            requests.put(json.loads(line))
    # The parent is gone, and nobody hears what would be said.
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
