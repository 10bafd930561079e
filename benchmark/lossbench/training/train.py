"""Training a stack of cells from the identical start on the identical batches: from jobs to results.

No files, no printing, no global state. No weight is shared between the cells of a stack, so each gets exactly
the gradient that it would have alone, and a cell that turns not-finite does not touch its neighbours.

Cells that are equal but for their steps share a trunk: under the schedule wsd their trainings are the same up
to where the decay of the shorter one begins. There the trunk is kept, the shorter one trained to its end and
scored, and the trunk goes on as if nothing had been. On a CPU with one thread every number is the same with
and without sharing, and after a training that went on from a kept state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lossbench.metrics import Truth
from lossbench.networks.stack import Stack
from lossbench.training import graphs
from lossbench.training.blocks import Job, Trained, blocks_of, network_of
from lossbench.training.outcome import Scoring
from lossbench.training.predict import Tiles, predict
from lossbench.training.signals import gradient_share, look, note
from lossbench.training.step import Step

READ = 16  # steps between two looks at the losses on a device that must be waited for

# Called with the steps of the length that is trained, a step of it, and each cell's loss there.
OnStep = Callable[[int, int, list[float]], None]
State = dict[str, Any]


def train(
    jobs: list[Job], *, on_step: Callable[[int, list[float]], None] | None = None, device: str = "cpu"
) -> list[Trained]:
    """Train all jobs and return what each left, in their order: as one stack, or one trunk after the other
    where their network cannot be grouped.

    ``on_step(step, losses)`` is called for each step of a stack, on a GPU some steps later."""
    left: dict[int, Trained] = {}
    for places in _stacks(jobs):
        own = [jobs[place] for place in places]
        training = Training(own, device, on_step and (lambda steps, step, losses: on_step(step, losses)))
        for finished in training.run():
            left.update({places[number]: result for number, result in finished.items()})
    return [left[place] for place in range(len(jobs))]


def _stacks(jobs: list[Job]) -> list[list[int]]:
    """Return the places of the jobs that can be trained together."""
    if jobs[0].cell.network.grouped:
        return [list(range(len(jobs)))]
    trunks: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        trunks.setdefault(job.cell.trunk, []).append(place)
    return list(trunks.values())


class Training:
    """A stack of trunks on its way: ``run`` trains it, ``state`` says where it stands.

    ``jobs`` are a full cross of trunks and lengths; without the schedule wsd all have one length. A stack
    that can be grouped never has fewer than two groups, since a network of one group takes other kernels:
    with two or more, on the CPU with one thread, a cell's numbers do not depend on its companions."""

    def __init__(self, jobs: list[Job], device: str = "cpu", on_step: OnStep | None = None):
        self.jobs, self.device, self.on_step = jobs, device, on_step
        self.lengths, self.places = _crossed(jobs)
        self.real = len(self.places[self.lengths[0]])
        longest = [jobs[place] for place in self.places[self.lengths[-1]]]
        if longest[0].cell.grouped and self.real == 1:
            longest = longest * 2
        self.longest, recipe = longest, longest[0].cell.recipe
        self.recipes = {steps: jobs[self.places[steps][0]].cell.recipe for steps in self.lengths}
        self.blocks = blocks_of(longest, device)
        self.members = [self.blocks[job.cell.block] for job in longest]
        starts = [block.start for block in self.members]
        self.stack = Stack(network_of(longest[0]), starts, device, recipe.precision)
        self.step = Step(self.stack, longest, self.blocks)
        self.results = {steps: self._blank(steps) for steps in self.lengths}
        self.done = 0  # steps of the way that is walked: of the trunk, or of a length that leaves it
        self.read = 0  # steps whose losses have been noted
        self.kept: State | None = None  # the trunk, while a shorter length is trained to its end
        self.spent = _Clock()

    def _blank(self, steps: int) -> list[Trained]:
        count = len(self.longest)
        return [Trained(block.certificate(steps), stack=count) for block in self.members]

    def run(
        self, due: Callable[[], bool] = lambda: False, keep: Callable[[State], None] = lambda state: None
    ) -> Iterator[dict[int, Trained]]:
        """Train, and yield what each length left when it ends: the place of a job among ``jobs`` -> result.

        Wherever ``due()`` says so, ``keep`` gets the state from which a later run goes on."""
        with graphs.own_stream(self.device):
            run = graphs.replay(self.step) or self.step
            for steps in self.lengths:
                ahead = [length for length in self.lengths if length >= steps]
                fork = self.recipes[steps].decay_begins if len(ahead) > 1 else steps
                if self.kept is None:
                    self._walk(run, fork, ahead, due, keep)
                    if len(ahead) > 1:
                        self.kept = {**self._place(), "leaves": steps}
                self.step.update.follow(self.recipes[steps])
                self._walk(run, steps, [steps], due, keep)
                yield self._finished(steps)
                self.results[steps] = None
                if self.kept is not None:
                    self._return(self.kept)
                    self.kept = None
                    self.step.update.follow(self.recipes[self.lengths[-1]])

    def _walk(self, run: Callable, until: int, lengths: list[int], due: Callable, keep: Callable) -> None:
        """Train up to a step; what is seen on the way counts for all these lengths."""
        results = {steps: self.results[steps] for steps in lengths}
        looks = {steps: validation_steps(self.recipes[steps]) for steps in lengths}
        while self.done < until and not self._all_dead():
            self.step.feed(self.done)
            run(self.done)
            self.done += 1
            self.spent.steps += 1
            done = self.done
            seen = {steps: results[steps] for steps in lengths if done in looks[steps]}
            if not seen and done % reading(self.device) and done < until and not self._all_dead():
                continue
            for row in results.values():
                _note(row, self.step, self.read, done)
            # A cell whose loss raised is out; where all are, there is nothing to look at.
            if seen and not all(result.error for result in results[lengths[0]]):
                self._note_shares(seen)
                if done not in seen:  # else the images are looked at where that length is scored
                    self._validate(seen)
            self._tell(lengths[0], done)
            self.read = done
            if due():
                keep(self.state())

    def _all_dead(self) -> bool:
        return len(self.step.dead) == len(self.longest)

    def _tell(self, steps: int, done: int) -> None:
        if self.on_step is None:
            return
        results = self.results[steps][: self.real]
        for row in range(self.read, done):
            self.on_step(steps, row + 1, [_loss_at(result, row) for result in results])

    def _note_shares(self, lengths: dict[int, list[Trained]]) -> None:
        """Note each cell's gradient share of the step just taken, whose gradients no state keeps."""
        for cell in range(self.real):
            target, gradient = self.step.targets[cell], self.step.gradients[cell]
            share = gradient_share(gradient, target, self.members[cell].ignore_index)
            for results in lengths.values():
                results[cell].grad_fg_share = share

    def _validate(self, lengths: dict[int, list[Trained]], also: Callable | None = None) -> None:
        """Look at the validation images, and note what they say for these lengths."""
        began = time.perf_counter()
        rows = look(self.stack, self.longest[: self.real], self.members, self.done, also)
        for cell, row in enumerate(rows):
            note(row, [results[cell] for results in lengths.values()])
        self.spent.add("validation", began)

    def _finished(self, steps: int) -> dict[int, Trained]:
        """Score the last weights of a length, in one pass over validation and one over test; return its
        results.
        """
        results, batch = self.results[steps], self.recipes[steps].batch
        scorings = [
            Scoring(job, block) for job, block in zip(self.longest[: self.real], self.members, strict=False)
        ]

        def validated(cell: int, logits: Tensor, truth: Truth) -> None:
            scorings[cell].add_validation(logits, truth)

        if self.done == steps and not all(result.error for result in results):
            self._validate({steps: results}, validated)
        else:  # no cell is alive, so there is nothing to note
            self._pass("validation", [block.during for block in self.members], batch, validated)
        self._pass("validation", [block.later for block in self.members], batch, validated)
        tests = [block.test for block in self.members]
        self._pass("test", tests, batch, lambda cell, logits, truth: scorings[cell].add_test(logits, truth))
        began = time.perf_counter()
        for cell, scoring in enumerate(scorings):
            results[cell].weights, results[cell].scores = self.stack.weights(cell), scoring.scores()
        self.spent.add("test", began)
        cost = self.spent.lap(self.real)
        for result in results:
            result.cost = cost
        return dict(zip(self.places[steps], results, strict=False))

    def _pass(self, kind: str, sets: list[Tiles], batch: int, take: Callable) -> None:
        """Predict images of one kind once, and give each cell's logits and their truth to ``take``."""
        began = time.perf_counter()
        for cell, group, logits in predict(self.stack, sets, batch):
            if cell < self.real:
                take(cell, logits, sets[cell].truth(group))
        self.spent.add(kind, began)

    # Where it stands

    def _place(self) -> State:
        """Return a copy of all that steps change and later steps read."""
        return {
            "done": self.done,
            "tensors": [value.clone() for value in self.step.state],
            "dead": sorted(self.step.dead),
            "errors": dict(self.step.errors),
        }

    def _return(self, place: State) -> None:
        done, dead, errors = place["done"], set(place["dead"]), dict(place["errors"])
        for value, old in zip(self.step.state, place["tensors"], strict=True):
            value.copy_(old)
        self.done = self.read = done
        self.step.dead, self.step.errors = dead, errors

    def state(self) -> State:
        """Return where the training stands, in tensors and plain values; ``go_on`` takes it in another
        process.
        """
        results = {
            steps: None if row is None else [_plain(result) for result in row]
            for steps, row in self.results.items()
        }
        return {"here": self._place(), "trunk": self.kept, "results": results, "spent": self.spent.so_far()}

    def go_on(self, state: State) -> None:
        """Stand where the state says; ValueError, and nothing is changed, if it is one of another stack or
        does not know all lengths, or is past one.
        """
        here, trunk, spent = state["here"], state["trunk"], _Clock(*state["spent"])
        if trunk and trunk["leaves"] not in self.lengths:
            # The length that was on its way to its end has been recorded since: only the trunk is left.
            here, trunk = trunk, None
        if [value.shape for value in here["tensors"]] != [value.shape for value in self.step.state]:
            raise ValueError("a state of another stack")
        known = {steps: state["results"].get(steps) for steps in self.lengths}
        # One that was yielded before is asked for again if its record is gone; one may be new.
        if not all(known.values()):
            raise ValueError("a state that does not know all these lengths, or is past one of them")
        results = {steps: [Trained(**facts) for facts in rows] for steps, rows in known.items()}
        self._return(here)
        self.results, self.kept, self.spent = results, trunk, spent


def _crossed(jobs: list[Job]) -> tuple[list[int], dict[int, list[int]]]:
    """Return the lengths, ascending, and for each the places of its jobs, trunk by trunk in one order."""
    lengths = sorted({job.cell.recipe.steps for job in jobs})
    places = {steps: [] for steps in lengths}
    if len(lengths) == 1:
        places[lengths[0]] = list(range(len(jobs)))
    else:
        trunks = {(job.cell.trunk, job.cell.recipe.steps): place for place, job in enumerate(jobs)}
        names = list(dict.fromkeys(name for name, _ in trunks))
        if len(trunks) != len(jobs) or len(names) * len(lengths) != len(jobs):
            raise ValueError(
                "jobs must share one recipe but for its steps, as a full cross of trunks and lengths"
            )
        for steps in lengths:
            places[steps] = [trunks[name, steps] for name in names]
    for row in places.values():
        if len({jobs[place].cell.recipe for place in row}) != 1:
            raise ValueError("jobs that are trained together must share one recipe")
    return lengths, places


def _plain(result: Trained) -> dict[str, Any]:
    """Return a result without what is made at the end, copied where training goes on writing."""
    facts = {name: value for name, value in vars(result).items() if name != "scores"}
    copied = {name: list(facts[name]) for name in ("train_loss", "grad_norm")}
    return {**facts, **copied, "curves": {name: list(values) for name, values in result.curves.items()}}


@dataclass
class _Clock:
    """Seconds of the wall and of the CPU since the last lap, those of an earlier process included, and of the
    wall's those over validation and test images; steps.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    validation: float = 0.0
    test: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def add(self, kind: str, began: float) -> None:
        """Count what went by since ``began`` as "validation" or "test"."""
        setattr(self, kind, getattr(self, kind) + time.perf_counter() - began)

    def so_far(self) -> tuple[float, ...]:
        """Return what ``_Clock`` takes to go on from here."""
        wall, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        return self.seconds + wall, self.cpu_seconds + cpu, self.validation, self.test, self.steps

    def lap(self, cells: int) -> dict[str, float]:
        """Return what each of the cells took, by the names of a record, and start anew."""
        *seconds, steps = self.so_far()
        self.__init__()
        names = ("seconds", "cpu_seconds", "validation_seconds", "test_seconds")
        return {**{name: spent / cells for name, spent in zip(names, seconds, strict=True)}, "steps": steps}


def validation_steps(recipe: Any) -> set[int]:
    """Return the steps after which all cells are validated: evenly spaced, the last step among them."""
    return {math.ceil(recipe.steps * (i + 1) / recipe.validations) for i in range(recipe.validations)}


def reading(device: str) -> int:
    """Return after how many steps the losses are read: on a CPU after each, on a GPU rarely, since
    reading waits for it.
    """
    return 1 if device == "cpu" else READ


def _note(results: list[Trained], step: Step, begin: int, end: int) -> None:
    """Append the losses and gradient norms of the steps from ``begin`` to ``end`` to each cell's, up to the
    one that was not finite.
    """
    losses, norms = step.losses[begin:end].tolist(), step.norms[begin:end].tolist()
    for cell, result in enumerate(results):
        raised, error = step.errors.get(cell, (None, None))
        for number in range(begin, end):
            if result.error or result.not_finite_at is not None:
                break
            if number == raised:
                result.error = error
                break
            loss, norm = losses[number - begin][cell], norms[number - begin][cell]
            result.train_loss.append(loss)
            result.grad_norm.append(norm)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                result.not_finite_at = number + 1
                step.dead.add(cell)


def _loss_at(result: Trained, row: int) -> float:
    """Return a cell's loss at a step, its last one where it has none any more."""
    return result.train_loss[min(row, len(result.train_loss) - 1)] if result.train_loss else math.nan
