"""How much faster the one-pass metrics are than MONAI's calls for the same numbers, alternating in one run.

    OMP_NUM_THREADS=1 python perf/metrics.py [--rounds 9]     writes docs/speed_metrics.md

Every round times both sides in the order A B B A on the same masks, so that a busy machine slows both. The
numbers are compared before anything is timed. Needs the extra 'peers'.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
from scipy.ndimage import gaussian_filter

from lossbench.base.counts import overlap
from lossbench.metrics import choose_threshold, evaluate, score_images
from lossbench.metrics.surface import surface_scores

warnings.filterwarnings("ignore")
DOCS = Path(__file__).parents[1] / "docs" / "speed_metrics.md"
CASES = {"128 x 128": ((128, 128), 24), "256 x 256": ((256, 256), 12), "64 x 64 x 64": ((64, 64, 64), 4)}
FOREGROUND = 0.06


def masks(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` smooth masks of 6 % foreground and as many roughly right predictions, (count, *shape)
    bool.
    """
    rng = np.random.default_rng(0)
    sigma = (0, *(n / 16 for n in shape))
    field = gaussian_filter(rng.normal(size=(count, *shape)), sigma)
    other = field + 0.35 * gaussian_filter(rng.normal(size=field.shape), sigma)
    return tuple(f > np.quantile(f, 1 - FOREGROUND) for f in (other, field))


def ours(pred: np.ndarray, true: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """HD95, ASSD, NSD at 2 and Dice of a stack, (4, N); HD, MASD, NSD at 1, boundary IoU come with them."""
    worst = np.full(
        len(pred), np.sqrt(sum((n * s) ** 2 for n, s in zip(pred.shape[1:], spacing, strict=True)))
    )
    surface = surface_scores(pred, true, spacing, worst)
    flat = pred.reshape(len(pred), -1), true.reshape(len(true), -1)
    dice = overlap((flat[0] & flat[1]).sum(1), flat[0].sum(1), flat[1].sum(1))["dice"]
    return np.stack([surface["hd95"], surface["assd"], surface["nsd_2"], dice])


def monai(pred, true, spacing: tuple[float, ...]) -> np.ndarray:
    """The same four from MONAI's functions, on torch tensors (N, 1, *S) made beforehand."""
    from monai.metrics import compute_average_surface_distance as assd
    from monai.metrics import compute_dice as dice
    from monai.metrics import compute_hausdorff_distance as hausdorff
    from monai.metrics import compute_surface_dice as nsd

    where = {"include_background": True, "spacing": list(spacing)}
    scores = [
        hausdorff(pred, true, percentile=95, **where),
        assd(pred, true, symmetric=True, **where),
        nsd(pred, true, class_thresholds=[2.0], **where),
        dice(pred, true, include_background=True),
    ]
    return np.stack([s.numpy().ravel() for s in scores])


def alternate(sides: dict, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each side, measured A B B A in every round after one call of each to warm up."""
    for call in sides.values():
        call()
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name in [*sides, *reversed(sides)]:
            start = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - start)
    return times


def spread(values: list[float], scale: float) -> str:
    low, mid, high = (scale * f(values) for f in (min, statistics.median, max))
    return f"{mid:.2f} ({low:.2f} to {high:.2f})"


def compare(rounds: int) -> list[str]:
    """Return the rows of the table: one pair a call (`evaluate` does more than asked), and the stack in one
    call.
    """
    import torch

    torch.set_num_threads(1)
    rows = []
    for name, (shape, count) in CASES.items():
        pred, true = masks(shape, count)
        spacing = (1.0,) * len(shape)
        tensors = [torch.from_numpy(m[:, None].astype(np.float32)) for m in (pred, true)]
        mine, theirs = ours(pred, true, spacing), monai(*tensors, spacing)
        # Relative: MONAI takes its percentile in single precision, which shows where the distances jump.
        gap = (np.abs(mine - theirs) / np.maximum(1, np.abs(theirs))).max()
        assert gap < 1e-4, f"{name}: the two sides differ by {gap}"
        times = alternate(
            {
                "monai": lambda t=tensors, s=spacing: monai(*t, s),
                "ours": lambda p=pred, t=true, s=spacing: ours(p, t, s),
                "single": lambda p=pred, t=true, s=spacing: [
                    ours(p[n : n + 1], t[n : n + 1], s) for n in range(len(p))
                ],
                "evaluate": lambda p=pred, t=true: [evaluate(a, b) for a, b in zip(p, t, strict=True)],
            },
            rounds,
        )
        middle = {side: statistics.median(v) for side, v in times.items()}
        cells = [spread(times[side], 1e3 / count) for side in times]
        ratios = [f"{middle['monai'] / middle[side]:.0f}x" for side in ("ours", "single", "evaluate")]
        rows.append(f"| {name} | {' | '.join(cells)} | {' / '.join(ratios)} | {gap:.0e} |")
        print(rows[-1], flush=True)
    return rows


def whole_test_set(rounds: int) -> list[str]:
    """Return the rows for what training calls once a cell: all scores of a test set, two threshold arms."""
    rows = []
    for images, size, classes in ((100, 64, 2), (100, 64, 3), (100, 128, 2), (1, 512, 2)):
        rng = np.random.default_rng(1)
        field = (
            gaussian_filter(rng.normal(size=(images, classes, size, size)), (0, 0, size / 16, size / 16))
            * size
        )
        field[:, 0] += 1.5 * field.std()
        truth = field.argmax(axis=1).astype(np.uint8)
        logits = field + 0.35 * size * gaussian_filter(
            rng.normal(size=field.shape), (0, 0, size / 16, size / 16)
        )
        prob = np.exp(logits - logits.max(axis=1, keepdims=True))
        prob = (prob / prob.sum(axis=1, keepdims=True)).astype(np.float32)
        arms = {"0.5": None, "val": 0.37}
        times = alternate(
            {
                "score": lambda p=prob, t=truth, a=arms: score_images(p, t, thresholds=a),
                "choose": lambda p=prob, t=truth: choose_threshold(p, t),
            },
            rounds,
        )
        share = (truth > 0).mean()
        cells = [spread(times[side], 1e3) for side in ("score", "choose")]
        rows.append(f"| {images} of {size} x {size} | {classes} | {share:.0%} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    import monai as peer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    pairs, sets = compare(rounds), whole_test_set(rounds)
    pairs_of = ", ".join(str(count) for _, count in CASES.values())
    DOCS.write_text(f"""# How fast the metrics are

Written by `perf/metrics.py`, {2 * rounds} calls a side in alternating order, one thread, one run. Median and
range.
{cpu()}; numpy {np.__version__}, scipy {scipy.__version__}, MONAI {peer.__version__}.

## The same numbers from MONAI's calls

HD95, ASSD, surface Dice at 2 px and Dice of mask pairs with {FOREGROUND:.0%} foreground, milliseconds a pair
({pairs_of} pairs). *MONAI*: its four functions on a ready batch of tensors. *Stack*: `surface_scores` and
`overlap` on the same batch, *single*: the same one pair a call; both give HD, MASD, surface Dice at 1 px and
boundary IoU as well. *evaluate*: one pair a call, every score, objects included. Faster: MONAI's median over
that of stack / single / evaluate.

| masks | MONAI | stack | single | evaluate | faster | largest relative difference |
|---|---|---|---|---|---|---|
{chr(10).join(pairs)}

## What training calls once a cell

`score_images` with two threshold arms (every score of [metrics.md](metrics.md)) and `choose_threshold`,
milliseconds for the whole test set.

| images | classes | foreground | score_images | choose_threshold |
|---|---|---|---|---|
{chr(10).join(sets)}
""")
    print(f"wrote {DOCS}")


if __name__ == "__main__":
    main()
