"""Write docs/speed_losses.md: what a native loss costs beside the same loss of other libraries, and beside
cross-entropy.

    python perf/losses.py [--rounds 60] [--look] [--large]

Native and peer alternate in one run, so that a busy machine slows both, and CPU time is what counts. Each is
called on logits (8, 2, 128, 128) with an integer target, forward and backward, on one thread. Peers run
through their adapters, which give them the target in the form that they take (a one-hot by comparison is
faster than their own). Needs the extra 'peers'."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from peer_pairs import PAIRS, needs

from lossbench.catalogue import adapters
from lossbench.catalogue.registry import get_loss, losses
from lossbench.losses.contract import disc, noise

ROOT = Path(__file__).resolve().parent.parent
SORTING = ("lovasz", "topk_ce", "dice_topk")
LIMIT = 1.5


def alternate(functions: dict[str, Callable], rounds: int, warmup: int = 5) -> dict[str, list[float]]:
    """Return milliseconds of CPU time, forward and backward, of each function in each of the alternating
    rounds.
    """
    torch.manual_seed(0)
    target = disc(128, 8)
    logits = noise(target)
    given = needs(target, 2)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for step in range(rounds + warmup):
        for name, function in functions.items():
            z = logits.clone().requires_grad_()
            began = time.process_time()
            function(z, target, **given).backward()
            if step >= warmup:
                times[name].append(1e3 * (time.process_time() - began))
    return times


def summary(values: list[float]) -> str:
    """Median and the range of the middle 90 % of the rounds."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    return f"{statistics.median(values):.2f} ({low:.2f}-{high:.2f})"


def against_peers(rounds: int) -> tuple[list[str], list[str]]:
    """Return the table of native losses against all their peers, and the natives that cost more than LIMIT x
    the fastest.
    """
    peers: dict[str, list[str]] = {}
    for pair in PAIRS:
        if 2 in pair.classes and 2 in pair.axes:
            peers.setdefault(pair.native, []).append(pair.peer.replace("{C}", "2"))
    rows, slow = [], []
    for native, others in peers.items():
        heavy = any(name in native for name in ("hausdorff", "cldice"))
        times = alternate(
            {text: get_loss(text) for text in (native, *others)}, rounds // 6 if heavy else rounds
        )
        medians = {text: statistics.median(values) for text, values in times.items()}
        fastest = min(others, key=medians.get)
        ratio = statistics.median(a / b for a, b in zip(times[native], times[fastest], strict=True))
        others_text = "; ".join(
            f"`{text}` {summary(times[text])}" for text in sorted(others, key=medians.get)
        )
        sorting = native.split("(")[0] in SORTING
        rows.append(
            f"| `{native}` | {summary(times[native])} | {others_text} | "
            f"{ratio:.2f}{' (sorts)' if sorting else ''} |"
        )
        if ratio > LIMIT and not sorting:
            slow.append(native)
    return rows, slow


def against_cross_entropy(rounds: int) -> list[str]:
    """Return the table of all presets, at their defaults, beside cross-entropy."""
    rows = []
    for name in sorted(losses()):
        times = alternate({"ce ": get_loss("ce"), name: get_loss(name)}, rounds // 2)
        ratio = statistics.median(times[name]) / statistics.median(times["ce "])
        rows.append(f"| `{name}` | {summary(times[name])} | {ratio:.1f} |")
    return rows


def look(rounds: int) -> str:
    """Return the section on what the look at every input costs, in CPU time alone."""
    torch.manual_seed(0)
    mask = disc(128, 8)
    logits = noise(mask)
    rows, loss = [], {check: get_loss("dice", check=check) for check in (True, False)}
    for dtype, fresh in product((torch.int64, torch.uint8), (True, False)):
        labels, times = mask.to(dtype), {True: [], False: []}
        for step in range(4 * rounds + 10):
            # Which of the two comes first would matter: it warms the caches.
            for check in (True, False) if step % 2 else (False, True):
                z, y = logits.clone().requires_grad_(), labels.clone() if fresh else labels
                began = time.process_time()
                loss[check](z, y).backward()
                times[check].append(time.process_time() - began)
        with_look, without = (statistics.median(times[check][10:]) for check in (True, False))
        kind = (
            f"{str(dtype).removeprefix('torch.')}, {'another' if fresh else 'the same'} target at each call"
        )
        share = f"{100 * (with_look / without - 1):.0f} %"
        rows.append(f"| {kind} | {1e3 * without:.2f} | {1e3 * with_look:.2f} | {share} |")
    return LOOK + "\n".join(rows) + "\n"


LOOK = """## The look at every input

What `get_loss("dice")` takes on logits (8, 2, 128, 128), forward and backward, without and with the look at
types, shapes and labels: milliseconds of CPU time, medians. All labels are read once, so the price is that of
their bytes: a mebibyte of int64 takes 17 us from the cache, whatever is asked of it (a maximum, a bitwise or,
a sum), and 26 us with all else. So the goal of 2 % is met where the target was read before, and missed by new
ones; masks of uint8 cost less. `get_loss(..., check=False)` has no look. Beside other work the share is
larger, for the cache is shared: 6 % and 5 % on a machine with less to do were 17 % and 8 % beside a load of
40.

| target | without, ms | with, ms | more |
|---|---|---|---|
"""


def large(classes: int = 20) -> str:
    """Return the section on the Lovász loss of a large image, at once and class by class."""
    rows = []
    for how, side in (("all classes at once", 1024), ("class by class", 2048)):
        # Each in a process of its own, whose peak is its own.
        command = [sys.executable, __file__, "--one", how, str(side), str(classes)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(f"| {side} x {side} | {how} | {out.strip()} |")
    return LARGE + "\n".join(rows) + "\n"


def one(how: str, side: int, classes: int) -> str:
    """Return seconds of CPU time, the peak of the memory above that of logits and target, and the
    value.
    """
    z = torch.randn(1, classes, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.randint(0, classes, (1, side, side), generator=torch.Generator().manual_seed(1))
    each = ["'all'"] if how.startswith("all") else [[c] for c in y.unique().tolist()]
    before, began, total = _peak(), time.process_time(), 0.0
    for chosen in each:
        value = get_loss(f"lovasz(classes={chosen})", check=False)(z, y) / len(each)
        value.backward()
        total += value.item()
    spent = time.process_time() - began
    return f"{spent:.0f} | {(_peak() - before) / 2**20:.2f} | {total:.6f}"


def _replace(page: Path, title: str, section: str) -> None:
    """Put a section in the place of the one of its title, or at the end."""
    before, _, old = page.read_text(encoding="utf-8").partition(title)
    _, mark, after = old.partition("\n## ")
    page.write_text(f"{before.rstrip()}\n\n{section}{mark}{after}", encoding="utf-8")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


LARGE = """## A large image

`lovasz` on one image with 20 classes, forward and backward, on one thread. At once it keeps errors, order and
steps of all classes for the way back: at 2048 x 2048 that is four times what stands here, and more than 1.5
GiB. Class by class, each differentiated before the next, it is the same loss and gradient in a part of the
memory: `get_loss(f"lovasz(classes=[{c}])")(logits, target) / present`, then `backward()`, for each class that
the batch holds.

| image | | s | GiB beside logits and target | value |
|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--look", action="store_true", help="only the section on the look at every input")
    parser.add_argument("--large", action="store_true", help="only the section on a large image")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rounds, page = arguments.rounds, ROOT / "docs/speed_losses.md"
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.one:
        how, *sizes = arguments.one
        print(one(how, *map(int, sizes)))
        return
    for wanted, head, write in (
        (arguments.look, LOOK, lambda: look(rounds)),
        (arguments.large, LARGE, large),
    ):
        if wanted:
            _replace(page, head.splitlines()[0], write())
    if arguments.look or arguments.large:
        return
    peers, slow = against_peers(rounds)
    presets = against_cross_entropy(rounds)
    versions = ", ".join(
        f"{name} {adapters.version(name)}" for name in adapters.MODULES if name not in adapters.EXTRAS
    )
    missed = ", ".join(f"`{name}`" for name in slow)
    verdict = (
        f"Above {LIMIT} x the fastest peer: {missed}."
        if slow
        else f"No native loss costs more than {LIMIT} x its fastest peer."
    )
    text = f"""# Speed of the losses

Written by `perf/losses.py`; do not edit. Milliseconds of CPU time, forward and backward, on logits (8,
2, 128, 128), one thread; median of {rounds} rounds (90 % of them in the range). Native and peers alternate in
one run. *Ratio*: median over rounds of native / fastest peer. Versions: {versions}.

## Beside the same loss of other libraries

{verdict}

| native | ms | peers, ms | ratio |
|---|---|---|---|
{chr(10).join(peers)}

## Beside cross-entropy

Every preset at its defaults. Distance maps and class frequencies are data and not timed.

| loss | ms | x cross-entropy |
|---|---|---|
{chr(10).join(presets)}

{look(rounds)}
{large()}"""
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
