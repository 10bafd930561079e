"""What the timing scripts share: warm worker processes, medians with ranges, what the machine is, where
tables go.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lossbench.store.provenance import hardware  # noqa: E402

DOCS = ROOT / "docs"
# the data of the reference cell: 64 x 64, two classes, 1 % foreground
REFERENCE = "scenes(foreground=0.01, noise=0.8)"
BUSY = (
    os.getloadavg()[0] if hasattr(os, "getloadavg") else None
)  # much above 0: other work ran, do not trust the numbers
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def one_thread() -> None:
    """Make this process what a worker of a sweep is; call it before torch is imported."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    from lossbench.engine import worker

    worker.prepare()
    import torch

    torch.set_num_threads(1)


class Worker:
    """A process that stays warm between calls, with its own number of threads; its loader workers are like
    those of any script.

    A process of multiprocessing's own will not do: loader workers forked from one take seconds to end, which
    no user's script sees."""

    def __init__(self, threads: int):
        self.end, theirs = multiprocessing.Pipe()
        code = (
            f"import sys; sys.path[:0] = [{str(ROOT / 'perf')!r}]; import timing; "
            f"timing.serve({theirs.fileno()}, {threads})"
        )
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env=environment
        )
        theirs.close()
        self.result()

    def send(self, function: Callable, *arguments: Any) -> None:
        """Start a function of a module in perf/ on the process."""
        self.end.send((Path(function.__code__.co_filename).stem, function.__name__, arguments))

    def result(self) -> Any:
        try:
            ok, value = self.end.recv()
        except EOFError:
            sys.exit("a worker process of this measurement died")
        if not ok:
            sys.exit(f"a worker process of this measurement failed:\n{value}")
        return value

    def call(self, function: Callable, *arguments: Any) -> Any:
        self.send(function, *arguments)
        return self.result()

    def close(self) -> None:
        self.end.close()
        self.process.wait(20)


def serve(channel: int, threads: int) -> None:
    """Be a worker: answer calls until the other end is closed."""
    import torch

    torch.set_num_threads(threads)
    end = Connection(channel)
    end.send((True, None))
    while True:
        try:
            module, name, arguments = end.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            end.send((True, getattr(importlib.import_module(module), name)(*arguments)))
        except Exception:
            end.send((False, traceback.format_exc(limit=-3)))


def together(calls: Iterable[tuple]) -> tuple[float, list]:
    """Run (worker, function, arguments...) at once, one a worker; return the seconds until all are done, and
    the values.
    """
    calls = list(calls)
    time.sleep(0.3)  # threads of the arm before stop spinning
    began = time.perf_counter()
    for worker, function, *arguments in calls:
        worker.send(function, *arguments)
    values = [worker.result() for worker, *_ in calls]
    return time.perf_counter() - began, values


def there_and_back(arms: Iterable, rounds: int) -> Iterable[tuple[int, Any]]:
    """Yield (half-round, arm), A B C then C B A, so that two arms stand beside each other in both orders."""
    arms = list(arms)
    for half in range(2 * rounds):
        for arm in arms if half % 2 == 0 else reversed(arms):
            yield half, arm


def spread(values: Iterable[float], digits: int = 2, scale: float = 1.0) -> str:
    """Return "median (smallest to largest)"."""
    values = [scale * v for v in values]
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def versions(*names: str) -> str:
    """Return "Python 3.12.1, torch 2.11.0, ..." of what is installed."""
    found = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def machine() -> str:
    """Return the processor, its cores, and how busy the machine was before; no names."""
    facts = hardware()
    load = "unknown" if BUSY is None else f"{BUSY:.1f}"
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {platform.system()}; load "
        f"average {load} as the run began"
    )


def finish(script: str, name: str, title: str, body: str, packages: tuple[str, ...], quick: bool) -> None:
    """Print the page, and write it to docs/<name>.md unless it was only a tiny check."""
    today = datetime.date.today().isoformat()
    head = (
        f"# {title}\n\nWritten by `perf/{script}` on {today}; do not edit. Medians, with the range in "
        "brackets; all from one run.\n"
    )
    text = f"{head}{machine()}.\n{versions(*packages)}.\n\n{body.strip()}\n"
    print("\n" + text)
    if quick:
        print(f"A tiny check: docs/{name}.md is left as it was.")
    else:
        (DOCS / f"{name}.md").write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}.md")
