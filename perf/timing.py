"""What the timing scripts share: warm worker processes, medians with ranges, what the machine is, where tables go."""

from __future__ import annotations

import datetime
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmark.provenance import hardware  # noqa: E402

DOCS = ROOT / "docs"
REFERENCE = "scenes(foreground=0.01, noise=0.8)"  # the data of the reference cell: 64 x 64, two classes, 1 % foreground
BUSY = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # much above 0: other work ran, do not trust the numbers
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def one_thread() -> None:
    """Make this process what a worker of a sweep is; call it before torch is imported."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    from benchmark import worker

    worker.prepare()
    import torch

    torch.set_num_threads(1)


class Worker:
    """A process that stays warm between calls, with its own number of threads; ``ready`` is what it took to come up."""

    def __init__(self, threads: int):
        context = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        began = time.perf_counter()
        self.end, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, threads))
        self.process.start()
        theirs.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        self.result()
        self.ready = time.perf_counter() - began

    def send(self, function: Callable, *arguments: Any) -> None:
        self.end.send((function, arguments))

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
        self.process.join(20)


def _serve(end, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    end.send((True, None))
    while True:
        try:
            function, arguments = end.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            end.send((True, function(*arguments)))
        except Exception:
            end.send((False, traceback.format_exc(limit=-3)))


def together(calls: Iterable[tuple]) -> tuple[float, list]:
    """Run (worker, function, arguments...) at once, one a worker; return the seconds until all are done, and the values."""
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
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {platform.system()}; load average {load} as the run began"


def finish(script: str, name: str, title: str, body: str, packages: tuple[str, ...], quick: bool) -> None:
    """Print the page, and write it to docs/<name>.md unless it was only a tiny check."""
    today = datetime.date.today().isoformat()
    head = f"# {title}\n\nWritten by `perf/{script}` on {today}; do not edit. Medians, with the range in brackets; all from one run.\n"
    text = f"{head}{machine()}.\n{versions(*packages)}.\n\n{body.strip()}\n"
    print("\n" + text)
    if quick:
        print(f"A tiny check: docs/{name}.md is left as it was.")
    else:
        (DOCS / f"{name}.md").write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}.md")
