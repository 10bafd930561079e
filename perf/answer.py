"""What an answer costs: the same question, to the same standard, by a MONAI loop and by lossbench.

    python perf/answer.py [--rounds 1] [--results FOLDER] [--quick]     writes docs/speed_answer.md

Four losses, a learning curve at three lengths, paired seeds until each pair is decided or equivalent by one
point of Dice, at most 20. lossbench runs its side to the end, in a results folder that may be kept: a run
that was cut goes on. The loop trains one seed of a loss at each length for real; what 20 seeds of all losses
would take is that times their number. Costs are CPU seconds in processes of one thread, taken in
turns (A B B A), so that other work on the machine adds to both sides alike.

The question is asked twice: with the last layer started from the class frequencies, as the file of
`lossbench inspect --write` has it, and as PyTorch draws it. The loop starts from the same weights each time.

Predicted before the first run, from PyTorch's start: a step 1.4 times, of sharing the trunk 1.25 times, of
evaluation 2 times, of the stopping rule 1.5 times; in all 3 times the loop at its best layout, 4.5 times the
default, 2 with the same rule. Predicted before the first run from the class frequencies, where no training
collapses: all pairs are decided or equal at the first look, so twice what PyTorch's start gives without the
rule, 3.8 and 6.0. The goals of the project: 4, 6 and 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import LOSSES, run_loop, run_stack, set_up_loop
from timing import REFERENCE, Worker, finish, spread, table, there_and_back

from lossbench.cli import plan
from lossbench.experiment.reading import read_experiment
from lossbench.store.store import Store

SEEDS, LOOKS, LENGTHS = 20, (10, 14, 20), (60, 120, 240)

GOALS = {"best": 4, "default": 6, "rule": 2}

# One process of two threads over two of one, a cell, on a machine at rest (docs/speed_peers.md): in that
# layout a thread that waits counts as work, so that CPU seconds say nothing.
DEFAULT = 3.09 / 1.97

# What the last layer starts from: the section's title, and the value of ``head``.
STARTS = {
    "prior": "From the class frequencies, as `lossbench inspect --write` asks",
    "default": "From the start that PyTorch draws",
}

TEXT = """name = "answer"
seeds = {seeds}
looks = {looks}
choice = true
losses = {losses}
lengths = {lengths}
datasets = ["{data}"]
[recipe]
"""


def on_processor(function, *arguments) -> tuple[float, object]:
    """Call a function; return the CPU seconds that it took, and what it returned."""
    began = time.process_time()
    value = function(*arguments)
    return time.process_time() - began, value


def ours_of(payloads: list[dict]) -> float:
    return sum(on_processor(run_stack, payload)[0] for payload in payloads)


def loop_of(data: str, name: str, settings: dict, lengths: tuple[int, ...]) -> list[dict]:
    """Train a loss at each length by itself; return the scores of each with its seconds."""
    cells = []
    for steps in lengths:
        began = time.perf_counter()
        seconds, scores = on_processor(run_loop, "monai", data, name, 0, {**settings, "steps": steps}, 0)
        share = scores["evaluating"] / (time.perf_counter() - began)
        cells.append({**scores, "steps": steps, "seconds": seconds, "evaluation": share * seconds})
    return cells


def written(folder: Path, data: str, settings: dict, lengths: tuple[int, ...], sequential: bool) -> Path:
    """Write the question as an experiment's file."""
    text = TEXT.format(
        seeds=SEEDS, looks=list(LOOKS), losses=list(LOSSES), lengths=list(lengths), data=data
    ).replace("'", '"')
    if not sequential:
        text = text.replace(f"looks = {list(LOOKS)}\nchoice = true\n", "").replace("seeds = 20", "seeds = 1")
    values = [f"{key} = {list(v) if isinstance(v, tuple) else v!r}" for key, v in settings.items()]
    file = folder / f"answer{'' if sequential else len(list(folder.iterdir()))}.toml"
    file.write_text(text + "\n".join(values).replace("'", '"') + "\n")
    return file


class Stack:
    """Our side of one seed at some lengths: all losses in one stack."""

    def __init__(self, folder: Path, file: Path):
        self.folder, self.count, self.file = folder, 0, file
        self.cells = read_experiment(file).cells()
        self.data = self.cells[0].data.text

    def payload(self) -> dict:
        from lossbench.store import provenance
        from lossbench.sweep import train_stack

        self.count += 1
        self.results = self.folder / f"{self.file.stem}-{self.count}"
        facts = provenance.collect(results=self.folder)
        return train_stack.payload(self.cells, self.results, (), facts, size=len(LOSSES))

    def records(self) -> list[tuple]:
        """Return each cell with the record of the last training."""
        return [(cell, Store(self.results).read(*cell.pair)) for cell in self.cells]


def measure(rounds: int, data: str, settings: dict, lengths: tuple[int, ...]) -> dict:
    """Return the seconds of each arm by half-round, and what the loop's cells scored."""
    found: dict = {"loop": [], "ours": [], "apart": [], "records": {}}
    with tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
        folder = Path(scrap)
        whole = Stack(folder, written(folder, data, settings, lengths, False))
        single = [Stack(folder, written(folder, data, settings, (steps,), False)) for steps in lengths]
        worker, peer = Worker(1), Worker(1)
        peer.call(set_up_loop, whole.data, (0,), {**settings, "steps": lengths[0]})
        # Warm: the same calls on the shortest length, whose seconds nobody counts.
        worker.call(ours_of, [single[0].payload()])
        peer.call(loop_of, whole.data, LOSSES[0], settings, lengths[:1])
        for half, arm in there_and_back(("loop", "ours", "apart"), rounds):
            if arm == "loop":
                name = LOSSES[half % len(LOSSES)]
                cells = peer.call(loop_of, whole.data, name, settings, lengths)
                found[arm].append([{**cell, "loss": name} for cell in cells])
            else:
                stacks = [whole] if arm == "ours" else single
                found[arm].append(worker.call(ours_of, [stack.payload() for stack in stacks]))
            print(f"{half}  {arm}", flush=True)
        for cell, record in whole.records():
            found["records"][cell.loss.text, cell.recipe.steps] = record
        found["apart records"] = [record for stack in single for _, record in stack.records()]
        worker.close()
        peer.close()
    return found


def answered(file: Path, results: Path) -> dict:
    """Run our side to its end; return the Dice of each loss, seed by seed, and what is said of each pair."""
    command = [sys.executable, "-m", "lossbench", "sweep", str(file), "--no-report"]
    subprocess.run([*command, "--results", str(results)], check=True)
    experiment = read_experiment(file)
    _, planned = plan.at_look(experiment, results)
    dice: dict[str, list[float]] = {}
    for cell in planned.cells:
        if cell.recipe.steps == max(LENGTHS):
            record = Store(results).read(*cell.pair)
            dice.setdefault(cell.loss.text, []).append(record["metrics"]["dice@0.5"])
    return {"dice": dice, "said": [text for _, text in plan.decided(experiment, planned.cells, results)]}


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def section(title: str, found: dict, answer: dict) -> str:
    """Return what the answer to one question cost either side, and what it is made of."""
    # One loss of the loop stands for all four, whose steps cost nearly the same.
    loop = [len(LOSSES) * sum(cell["seconds"] for cell in cells) for cells in found["loop"]]
    looking = [len(LOSSES) * sum(cell["evaluation"] for cell in cells) for cells in found["loop"]]
    stepping = [a - b for a, b in zip(loop, looking, strict=True)]
    ours, apart = found["ours"], found["apart"]
    seeds = sum(map(len, answer["dice"].values())) / len(LOSSES)
    share = evaluation_of(found["apart records"])
    pairs = ratios(loop, ours)
    factors = {
        "steps: in a stack, and what surrounds them": ratios(stepping, [(1 - share) * c for c in apart]),
        "evaluation": ratios(looking, [share * c for c in apart]),
        "both together": ratios(loop, apart),
        "one trunk for three lengths": ratios(apart, ours),
        "seeds that are not needed": [SEEDS / seeds],
    }
    # Name, seeds that it trains, how its layout compares, goal.
    sides = (
        (f"MONAI loop, default layout, {SEEDS} seeds", SEEDS, DEFAULT, GOALS["default"]),
        (f"MONAI loop, best layout, {SEEDS} seeds", SEEDS, 1, GOALS["best"]),
        ("MONAI loop, best layout, the same stopping rule", seeds, 1, GOALS["rule"]),
    )
    rows = []
    for name, count, layout, goal in sides:
        times = [layout * count / seeds * own for own in pairs]
        minutes = [layout * count * own / 60 for own in loop]
        met = "met" if statistics.median(times) >= goal else "missed"
        rows.append([name, spread(minutes, 1), spread(times, 1), f"{goal}: {met}"])
    rows.append(["lossbench", spread([seeds * own / 60 for own in ours], 1), "1", ""])
    scores = []
    for cell in (cell for cells in found["loop"] for cell in cells):
        own = found["records"][cell["loss"], cell["steps"]]["metrics"]["dice@0.5"]
        name = f"`{cell['loss']}`, {cell['steps']} steps"
        scores.append([name, f"{cell['dice']:.3f}", f"{own:.3f}", f"{own - cell['dice']:+.3f}"])
    means = [[f"`{loss}`", len(own), f"{statistics.mean(own):.3f}"] for loss, own in answer["dice"].items()]
    a_step = [1000 * own / len(LOSSES) / sum(LENGTHS) for own in stepping]
    return f"""
## {title}

Minutes of one core. *Times ours*: of the same half-round.

{table(["", "core-minutes", "times ours", "goal"], rows)}

The loop took {spread(a_step, 1)} ms a step. What the factors come from:

{table(["", "factor"], [[name, spread(values)] for name, values in factors.items()])}

Of our time {share:.0%} is evaluation, of the loop's {spread([100 * v for v in ratios(looking, loop)], 0)} %.

The verdicts:

{chr(10).join(f"- {text}" for text in answer["said"])}

{table(["loss", "seeds trained", f"mean Dice at {LENGTHS[-1]} steps"], means)}

The loop comes to the same ones as far as its scores are the same. Of the cells that it trained:

{table(["cell, seed 0", "loop", "lossbench", "difference"], scores)}
"""


def page(sections: list[str], data: str, settings: dict) -> str:
    losses, lengths = ", ".join(f"`{name}`" for name in LOSSES), ", ".join(map(str, LENGTHS))
    return f"""
The question: which of {losses} on `{data}`,
at {lengths} steps of {settings["batch"]} images by a U-Net {"-".join(map(str, settings["widths"]))}?
Paired seeds until each pair is decided, or equal within a point of Dice, at most {SEEDS}; lossbench looks at
{", ".join(map(str, LOOKS))} seeds, and a loss that is worse by more than a point is out.

Our side was run to its end; what one seed of all losses and lengths costs it was timed beside the loop. The
loop trained a loss at each length by itself, one seed a half-round, from our weights and on our batches; its
rows are that times losses and seeds. Its default layout takes {DEFAULT:.2f} times as long as its best one on
a machine at rest ([speed_peers.md](speed_peers.md)): that was not timed again.
{"".join(sections)}"""


def evaluation_of(records: list[dict]) -> float:
    """Return the share of our time that goes into validation and test."""
    costs = [record["cost"] for record in records]
    looking = sum(cost["validation_seconds"] + cost["test_seconds"] for cost in costs)
    return looking / sum(cost["seconds"] for cost in costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="rounds of two half-rounds each")
    parser.add_argument("--results", type=Path, help="folder of our records; one that is there goes on")
    parser.add_argument("--quick", action="store_true", help="a tiny check of the timing; writes nothing")
    chosen = parser.parse_args()
    if importlib.util.find_spec("monai") is None:
        sys.exit("MONAI is not installed: it comes with the extra 'peers'")
    settings = {"widths": (8, 16, 32), "batch": 8, "learning_rate": 0.005, "schedule": "wsd"}
    settings |= {"warmup": 20, "validations": 2}
    data, lengths = f"{REFERENCE[:-1]}, n_test=60)", LENGTHS
    if chosen.quick:
        settings["warmup"] = 2
        found = measure(1, f"{REFERENCE[:-1]}, n_test=8)", settings, (4, 8))
        print({arm: found[arm] for arm in ("ours", "apart")})
        return
    sections = []
    for head, title in STARTS.items():
        own = settings | {"head": head}
        with tempfile.TemporaryDirectory(prefix="lossbench-") as scrap:
            results = (chosen.results or Path(scrap) / "results") / head
            answer = answered(written(Path(scrap), data, own, lengths, True), results)
            found = measure(chosen.rounds, data, own, lengths)
        sections.append(section(title, found, answer))
    body = page(sections, data, settings)
    packages = ("torch", "numpy", "scipy", "monai")
    finish("answer.py", "speed_answer", "What an answer costs", body, packages, False)


if __name__ == "__main__":
    main()
