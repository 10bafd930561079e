"""A sweep of toy cells in the real store on the real engine, as a program that tests can kill."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from lossbench.base import process
from lossbench.engine.run import run
from lossbench.engine.tasks import EngineOptions, Result, Task
from lossbench.engine.worker import emit
from lossbench.store.store import Store

GOLDEN = Path(__file__).parent.parent / "golden" / "record_v1.json"
FP = "9f8e7d6c5b4a3928"


def key(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def cells(count: int) -> list[str]:
    return [key(number) for number in range(count)]


def note(folder: Path, what: str) -> None:
    """Append a line in one write; what several processes append does not mix."""
    with open(folder / "log", "a") as file:
        file.write(what + "\n")


def train(payload: dict) -> dict:
    """Pretend to train a stack of cells; each leaves a line when it starts and a line when its record is
    written.
    """
    folder = Path(payload["folder"])
    if payload["far"]:  # each worker on a host of its own, as far as leases can tell
        process.host = lambda: f"{os.getpid():08x}"
    store, pairs = Store(folder / "results"), [(k, FP) for k in payload["cells"]]
    with store.claim(pairs) as mine:
        for k, fp in mine:
            note(folder, f"start {k} {os.getpid()}")
            for step in range(5):
                emit("step", cell=k, step=step, steps=5, loss=1.0)
                time.sleep(payload["seconds"] / 5)
            if k == payload["poison"]:
                os.kill(os.getpid(), 9)
            store.write({**json.loads(GOLDEN.read_text()), "key": k, "loss_fingerprint": fp})
            note(folder, f"done {k} {os.getpid()}")
            emit("cell", cell=k, outcome="done", seconds=payload["seconds"])
    return {"busy": [k for k, fp in pairs if (k, fp) not in mine and not store.has(k, fp)]}


def main(words: list[str]) -> int:
    """Sweep what is missing; exit with 130 when interrupted, 1 when a cell failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--stack", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--poison", type=int, default=-1)
    parser.add_argument("--serial", action="store_true")
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--cluster")
    parser.add_argument("--scheduler")
    parser.add_argument("--logs", type=Path)
    chosen = parser.parse_args(words)
    store = Store(chosen.folder / "results")
    store.open_for_writing()
    states = store.state([(k, FP) for k in cells(chosen.cells)])
    missing = [k for k, state in states.items() if state.status != "done"]
    facts = {
        "folder": str(chosen.folder),
        "seconds": chosen.seconds,
        "poison": key(chosen.poison),
        "far": chosen.far,
    }
    options = EngineOptions(
        workers=chosen.workers,
        serial=chosen.serial,
        cluster=chosen.cluster,
        scheduler=chosen.scheduler,
        insecure=True,
        logs=chosen.logs,
    )
    failed = []

    def on_event(event: dict) -> None:
        if event["kind"] == "lost":
            store.leases.bury(event["owner"])
        if event["kind"] in ("start", "lost", "engine"):
            print(json.dumps(event), flush=True)

    def on_result(result: Result) -> None:
        if not result.ok:
            failed.append(result)
            for k in result.task.cells:
                if not store.has(k, FP):
                    store.write_error(k, FP, error=result.error, kind=result.kind)

    while missing:
        stacks = [missing[i : i + chosen.stack] for i in range(0, len(missing), chosen.stack)]
        tasks = [Task(stack[0], {**facts, "cells": stack}, cells=tuple(stack)) for stack in stacks]
        summary = run(tasks, train, options, on_event=on_event, on_result=on_result)
        if summary.interrupted:
            print("interrupted", flush=True)
            return 130
        tried = {k for result in failed for k in result.task.cells}
        _, free = store.wait([(k, FP) for k in missing if k not in tried], poll=0.2)
        missing = [k for k, _ in free]
    print("finished", flush=True)
    return bool(failed)


if __name__ == "__main__":
    import toy_sweep  # by its name, so that workers find the task's function

    sys.exit(toy_sweep.main(sys.argv[1:]))
