"""A network of another library, which trains alone: lossbench beside plain PyTorch loops of several layouts.

    python perf/larger.py [--rounds 3] [--quick]     writes docs/speed_larger.md; on a GPU where there is one

The loops only train: their data lie in memory, on a GPU on the card, and they read the loss after each step.
lossbench does all that it does in a step of a sweep. Predicted before the first run: as fast as a loop."""

from __future__ import annotations

import argparse
import statistics
import time

from timing import finish, one_thread, spread, table, there_and_back

NETWORK = "smp:Unet(encoder_name='resnet18', encoder_weights=None)"

# Sides of the images, and steps that are timed, by device: a step takes a fraction of a second on a core.
SIZES = {"cpu": (64, 10), "cuda": (256, 40), "quick": (32, 2)}

# How a careful user writes the loop: precision, memory format, compiled.
LAYOUTS = {
    "cpu": (("float32", False, False), ("float32", True, False)),
    "cuda": tuple(
        (precision, last, compiled)
        for precision in ("float32", "bfloat16")
        for last, compiled in ((False, False), (True, False), (True, True))
    ),
}

WARM = 3  # steps before the first one that counts


def plain(job, device: str, count: int, precision: str, last: bool, compiled: bool) -> float:
    """Return the median seconds of a step of a loop."""
    import torch

    from lossbench.training.blocks import blocks_of, network_of

    (block,) = blocks_of([job], device).values()
    module = network_of(job).build()
    module.load_state_dict(block.start)
    layout = torch.channels_last if last else torch.contiguous_format
    module.to(device, memory_format=layout).train()
    network = torch.compile(module) if compiled else module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    seconds = []
    for step in range(count + WARM):
        began = time.perf_counter()
        images, masks, _ = block.batch(torch.tensor([step], device=device))
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images.contiguous(memory_format=layout))
        loss = job.loss(logits.float(), masks)
        loss.backward()
        optimizer.step()
        loss.item()  # which waits for the card
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM:])


def measure(rounds: int, device: str, side: int, count: int) -> list[list]:
    """Return rows: milliseconds of a step, how fast that is where the best loop of the same precision is 1,
    and the memory that the step takes on a card.
    """
    import torch

    from lossbench.catalogue.registry import get_dataset, get_loss
    from lossbench.experiment.cells import Cell, Recipe
    from lossbench.sweep import train_stack
    from lossbench.training.blocks import Job

    text = f"scenes(foreground=0.05, noise=0.8, size={side}, n_train=32, n_val=8, n_test=8)"
    data, jobs = get_dataset(text, 0), {}
    layouts = LAYOUTS[device]
    for precision in dict.fromkeys(precision for precision, *_ in layouts):
        cell = Cell.of(
            text, "dice_ce", recipe=Recipe(network=NETWORK, steps=count + WARM, precision=precision)
        )
        jobs[precision] = Job(cell, data, get_loss(cell.loss, check=False))
    arms = [("loop", *layout) for layout in layouts]
    arms += [("lossbench", precision, False, False) for precision in jobs]
    seen: dict[tuple, list[float]] = {arm: [] for arm in arms}
    memory: dict[tuple, float] = {}
    for _, arm in there_and_back(arms, rounds):
        who, precision, *how = arm
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        if who == "loop":
            taken = plain(jobs[precision], device, count, precision, *how)
        else:
            taken = train_stack.step_seconds([jobs[precision]], device, 1)
        seen[arm].append(1e3 * taken)
        memory[arm] = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    rows = []
    for arm, taken in seen.items():
        who, precision, last, compiled = arm
        rivals = [own for other, own in seen.items() if other[:2] == ("loop", precision)]
        best = min(rivals, key=statistics.median)
        told = [precision, *(["channels last"] if last else []), *(["compiled"] if compiled else [])]
        ratios = [a / b for a, b in zip(best, taken, strict=True)]
        row = [f"{who}, {', '.join(told)}", spread(taken, 0), spread(ratios, 2)]
        rows.append([*row, f"{memory[arm]:.2f}"] if device == "cuda" else row)
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of two half-rounds each")
    parser.add_argument("--quick", action="store_true", help="a tiny check; writes nothing")
    chosen = parser.parse_args()
    one_thread()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, count = SIZES["quick" if chosen.quick else device]
    rows = measure(1 if chosen.quick else chosen.rounds, device, side, count)
    where = torch.cuda.get_device_name() if device == "cuda" else "One thread of a CPU"
    heads = ["", "ms a step", "speed", *(["GB on the card"] if device == "cuda" else [])]
    body = f"""
{where}; a ResNet-18 U-Net of segmentation_models_pytorch (14.3 million weights), Dice + CE, batches of 8
images of {side} x {side}, AdamW. *Speed*: the best loop of the same precision is 1. Goal: 1.

{table(heads, rows)}
"""
    packages = ("torch", "segmentation_models_pytorch")
    finish("larger.py", "speed_larger", "A network that trains alone", body, packages, chosen.quick)


if __name__ == "__main__":
    main()
