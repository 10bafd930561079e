"""Training what a plan chose: cut into tasks, run on the engine, every outcome noted; an interrupted sweep
resumes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TextIO

from lossbench.base.errors import UserError, must_divide
from lossbench.catalogue import userfiles
from lossbench.catalogue.registry import get_dataset, get_loss, parse_dataset
from lossbench.data import cards
from lossbench.data.container import Data
from lossbench.data.patches import Patches, side_of
from lossbench.data.prepare import is_prepared
from lossbench.engine import display, isolated
from lossbench.engine import run as engine
from lossbench.engine.tasks import STACK, EngineOptions, Result, Summary, Task
from lossbench.experiment.cells import Cell, Experiment
from lossbench.store.store import Store
from lossbench.sweep import plan as plans
from lossbench.sweep import train_stack
from lossbench.sweep.plan import Plan

HERE = "lossbench"  # what tasks are ``apart`` by that run none of the user's files

CHECK = 120.0  # seconds that trying out the losses of a user's file may take at most


def open_results(results: str | Path, say: Callable[[str], None]) -> None:
    """Make sure that the folder can be written, and say which damaged files were set aside and which packed
    records are damaged (their cells are trained again).
    """
    store = Store(results)
    store.open_for_writing()
    store.check_pack()
    for note in store.notes:
        say(note)


def tasks(
    planned: Plan,
    cells: list[Cell],
    results: Path,
    provenance: dict,
    options: EngineOptions,
    alone: Collection[str] = (),
) -> list[Task]:
    """Return the tasks that train these cells: stacks of one block, at all lengths that are left of it, where
    it has two or more trunks left, else across seeds.

    Stacks larger than the usual ones hold cells of all seeds of a data set and recipe. Where the worker finds
    out how many to train together, a task holds many. A cell that failed before, or that is among ``alone``,
    takes no companions with it.
    """
    size = options.stack or train_stack.HANDED
    if options.gpus and not options.stack:
        # Each worker gets a share of the trunks: several on one card are faster than one.
        size = max(2, min(size, -(-len({cell.trunk for cell in cells}) // options.count)))
    groups: dict[tuple, list[list[Cell]]] = defaultdict(list)
    stacks: list[list[list[Cell]]] = []
    for lengths, trunks in train_stack.alike(cells).items():
        for trunk in trunks:
            if any(planned.states[cell.key].status == "failed" or cell.key in alone for cell in trunk):
                stacks.append([trunk])
                continue
            shared = trunk[0].bundle if size <= STACK else trunk[0].kind
            groups[shared, lengths].append(trunk)
    lone: dict[tuple, list[list[Cell]]] = defaultdict(list)
    for (_, lengths), group in groups.items():
        first = group[0][0]
        if not first.grouped:
            stacks += [[trunk] for trunk in group]
        elif len(group) == 1:
            lone[first.kind, lengths] += group
        else:
            stacks += train_stack.even(group, size)
    # Cells that are alone in their block, of several seeds: after a resumed sweep there may be many.
    for group in lone.values():
        stacks += train_stack.even(group, size)
    # In the order of the plan, so that an interrupted sweep has finished whole comparisons.
    order = {cell.key: number for number, cell in enumerate(planned.cells)}
    flat = [[cell for trunk in stack for cell in trunk] for stack in stacks]
    flat.sort(key=lambda stack: min(order[cell.key] for cell in stack))
    extra_files = planned.experiment.extra_files
    # A data set of the user's may have changed this process when it was opened; and nothing can stop a stack
    # that is trained here.
    elsewhere = options.serial and (userfiles.ran() or options.time_limit)
    here = HERE if elsewhere else ""
    return [
        Task(
            name=_name(stack),
            payload=train_stack.payload(
                stack, results, extra_files, provenance, options.device, options.stack, options.keep
            ),
            cells=tuple(cell.key for cell in stack),
            cost=planned.cost(stack).total,
            group="/".join(stack[0].kind),
            apart=train_stack.apart(stack[0]) or here,
        )
        for stack in flat
    ]


def _name(stack: list[Cell]) -> str:
    """Name a stack for people, and uniquely: data set, losses, seeds, the beginning of a key."""
    first, seeds = stack[0], sorted({cell.seed for cell in stack})
    labels = [cell.loss.label for cell in stack] if len(seeds) == 1 else [first.loss.label]
    losses = ", ".join(dict.fromkeys(labels))
    return f"{first.data_label} · {losses} · seed {', '.join(map(str, seeds))} · {first.key[:6]}"


@dataclass
class Tally:
    """What a sweep has done so far."""

    cells: dict[str, Cell]  # by key: all that are to be trained
    store: Store
    served: dict[str, Cell] = field(default_factory=dict)  # key of a cell -> its twin, trained along with it
    trained: set[str] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)  # sentence -> cells
    busy: list[Cell] = field(default_factory=list)  # that another sweep trains
    alone: set[str] = field(default_factory=set)  # whose stack failed: to be tried again without companions

    def again(self, result: Result) -> bool:
        """Whether the cells of a task that ended badly are tried once more, each alone."""
        # One bad loss ends a whole stack; before any is blamed, each is tried alone.
        return (
            not (result.ok or result.fatal) and len({self.cells[key].trunk for key in result.task.cells}) > 1
        )

    def take(self, result: Result) -> None:
        """Note the result of a task; of one that ended badly each cell without a record keeps the error.

        UserError where nothing can be kept any more."""
        if result.fatal:
            raise UserError(result.error)
        if self.again(result):
            self.alone.update(result.task.cells)
        elif not result.ok:
            error, label = result.error, self.cells[result.task.cells[0]].loss.label
            # What ended one of ours in a process of its own, as a time limit may, is one failure of all.
            if result.task.apart not in ("", HERE) and f"'{label}'" not in error:
                error = f"loss '{label}': {error}"
            facts = {"kind": result.kind, "trace": result.trace, "attempts": result.attempts}
            for key in result.task.cells:
                pair = self.cells[key].pair
                if not self.store.has(*pair):
                    self.failures[error] += 1
                    self.store.write_error(*pair, error=error, **facts)
        else:
            self.busy += [self.cells[key] for key in result.value["busy"]]
            self._count(result.value["outcomes"])
        self.share(result.task.cells)

    def hear(self, event: dict) -> None:
        """Note a recorded cell; the result of a task says nothing of those before its worker died."""
        if event["kind"] == "cell" and event["outcome"] != "failed":
            self.trained.add(event["cell"])

    def share(self, keys: Iterable[str]) -> None:
        """Give what is recorded of these cells to their twins, which are the same trainings."""
        for cell in filter(None, map(self.served.get, keys)):
            if not self.store.has(*cell.pair):
                train_stack.copy(cell, self.store)

    def _count(self, outcomes: dict[str, str]) -> None:
        for key, outcome in outcomes.items():
            if outcome == "failed":
                error = self.store.read_error(*self.cells[key].pair) or {}
                self.failures[error.get("error", f"cell {key} failed")] += 1
            else:
                self.trained.add(key)

    def sentences(self) -> list[str]:
        """Return one sentence for each kind of failure, the most frequent first."""
        return [f"{text} ({count} cell{'s' * (count > 1)})" for text, count in self.failures.most_common()]


class Ran(NamedTuple):
    """How a run went: the last round of the engine with the seconds of all, cells that it trained, one
    sentence for each kind of failure, cells whose training is that of their twin.
    """

    summary: Summary
    trained: int
    failures: list[str]
    copied: int


def run(
    planned: Plan,
    todo: list[Cell],
    results: str | Path,
    options: EngineOptions | None = None,
    *,
    provenance: dict,
    mode: str = "auto",
    stream: TextIO | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Ran:
    """Train the cells ``todo`` into a folder that ``open_results`` has opened.

    ``mode``, ``stream``: how and where a person sees it, see ``engine.display``."""
    options, folder = options or EngineOptions(), Path(results).resolve()
    store = Store(folder)
    check(todo, planned.experiment.extra_files, options, say)
    copies = plans.copies(todo, store)
    served = {copies[cell.key].key: cell for cell in todo if cell.key in copies}
    tally = Tally({cell.key: cell for cell in todo}, store, served=served)
    tally.share(served)  # with what an earlier sweep trained
    summary, seconds = Summary(0, 0, 0, False, 0.0), 0.0
    waiting, alone, notes = [cell for cell in todo if cell.key not in copies], set(), {}
    while waiting:
        queue = tasks(planned, waiting, folder, provenance, options, alone)
        tally.busy.clear()
        tally.alone.clear()
        with display.show(queue, workers=options.count, mode=mode, stream=stream) as shown:

            def on_event(event: dict, shown: display.Display = shown) -> None:
                if event["kind"] == "lost" and event.get("owner"):
                    # What a dead worker of another host held is free at once.
                    store.leases.bury(event["owner"])
                if event["kind"] == "note":
                    notes[event["text"]] = None
                tally.hear(event)
                shown.event(event)

            def on_result(result: Result, shown: display.Display = shown) -> None:
                shown.result(result, tally.again(result))
                tally.take(result)

            summary = engine.run(
                queue, train_stack.run_stack, options, on_event=on_event, on_result=on_result
            )
        seconds += summary.seconds
        if summary.left or not (tally.busy or tally.alone):
            break
        alone |= tally.alone
        waiting = [tally.cells[key] for key in tally.alone if not store.has(*tally.cells[key].pair)]
        if waiting:
            say(
                f"{len(waiting)} cells have no record, since their stack ended badly: each is now tried alone"
            )
        if tally.busy:
            # Another sweep on this folder holds these: wait for its records, train what it leaves behind.
            say(f"another sweep on {results} is training {len(tally.busy)} cells; waiting for them")
            _, free = store.wait(*train_stack.leased(tally.busy))
            waiting += [tally.cells[key] for key, _ in free]
    tally.share(served)  # with what another sweep trained meanwhile
    for text in notes:
        say(text)
    gone = [key for key in tally.trained if not store.has(*tally.cells[key].pair)]
    if gone:
        tally.failures[f"the records are gone from {results}; was the folder removed meanwhile?"] = len(gone)
    copied = sum(store.has(*cell.pair) for cell in served.values())
    return Ran(replace(summary, seconds=seconds), len(tally.trained) - len(gone), tally.sentences(), copied)


def foresee(planned: Plan, say: Callable[[str], None]) -> None:
    """Refuse of a plan what a sweep would refuse at its start, as far as no data are prepared for it."""
    experiment = planned.experiment
    for spec in {cell.data.text: cell.data for cell in planned.missing}.values():
        if spec.entry.family == "synthetic":
            get_dataset(spec, experiment.seeds[0], experiment.extra_files)
    check(planned.missing, experiment.extra_files, EngineOptions(), say, prepare=False)


def check(
    cells: list[Cell],
    extra_files: Iterable[str],
    options: EngineOptions,
    say: Callable[[str], None],
    prepare: bool = True,
) -> None:
    """Try each distinct loss and network once, before anything starts; those of the user's files in a process
    of their own and for a limited time. ``prepare``: also networks whose data must be prepared for it.
    """
    groups: dict[str, dict[tuple, Cell]] = defaultdict(dict)
    for cell in cells:
        groups[train_stack.apart(cell)].setdefault((cell.loss.text, *_seen(cell)), cell)
    check_losses(groups[""].values())
    check_networks(groups[""].values(), extra_files, prepare)
    for name, distinct in groups.items():
        if not name:
            continue
        payload = {
            "cells": [cell.to_json() for cell in distinct.values()],
            "extra_files": [str(Path(file).resolve()) for file in extra_files],
            "prepare": prepare,
        }
        # A loss that never returns would otherwise stop a sweep before it has begun.
        limit = min(options.time_limit or CHECK, CHECK)
        out = isolated.call(name, f"{__name__}:checked", payload, lambda event: None, limit=limit)
        if out.get("user_error"):
            raise UserError(out["error"])
        if out["kind"] != "ok":  # its own cells will fail, and no others
            labels = ", ".join(dict.fromkeys(f"'{cell.loss.label}'" for cell in distinct.values()))
            say(f"trying out {labels} before the sweep: {out['error']}")
    if not options.serial:
        isolated.close()


def checked(payload: dict) -> None:
    """Try out the losses and networks of these cells."""
    cells = [Cell.from_json(facts, payload["extra_files"]) for facts in payload["cells"]]
    with _silent():
        check_losses(cells)
        check_networks(cells, payload["extra_files"], payload["prepare"])


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what is printed, which in the driver's terminal would stand between its own lines."""
    before, nothing = [os.dup(number) for number in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    try:
        yield
    finally:
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nothing)


def open_data(experiment: Experiment, results: Path, options: EngineOptions) -> dict[str, str]:
    """Open every data set once, so that what is wrong with one is said before anything is trained, and write
    the cards that are not there yet; return label -> file name. Those of the user's files are opened in
    processes of their own.
    """
    sets = [variant[:3] for variant in experiment.datasets]
    seed, extra_files = experiment.seeds[0], experiment.extra_files
    files = cards.store(results, [one for one in sets if not one[0].entry.own], seed, extra_files)
    for spec, identity, label in sets:
        if not spec.entry.own:
            continue
        payload = {
            "results": str(results),
            "set": (spec.text, identity, label),
            "seed": seed,
            "extra_files": [str(Path(file).resolve()) for file in extra_files],
        }
        name = f"data {spec.entry.file}"
        out = isolated.call(name, f"{__name__}:opened", payload, lambda _: None, limit=options.time_limit)
        if out["kind"] != "ok":
            raise UserError(out["error"] if out.get("user_error") else f"{label}: {out['error']}")
        files |= out["value"]
    if not options.serial:
        isolated.close()
    return files


def opened(payload: dict) -> dict[str, str]:
    """Open a data set of a user's file; return label -> file name of its card."""
    text, *facts = payload["set"]
    spec = parse_dataset(text, payload["extra_files"])
    with _silent():
        return cards.store(payload["results"], [(spec, *facts)], payload["seed"], payload["extra_files"])


def check_losses(cells: Iterable[Cell]) -> None:
    """Call each distinct loss once on tiny inputs, so that an impossible parameter stops the sweep before
    anything starts.
    """
    for spec in {cell.loss.text: cell.loss for cell in cells}.values():
        # Ours by their defaults are sound, and PyTorch need not be loaded to say so.
        if all(term.entry and not term.entry.own and not term.given for term in spec.terms):
            continue
        function = get_loss(spec)
        complaint = _complaint(function, 2)
        if complaint and _complaint(function, 12):  # it may name classes that only a larger set has
            raise UserError(f"loss '{spec.label}': {complaint}")


def check_networks(cells: Iterable[Cell], extra_files: Iterable[str] = (), prepare: bool = True) -> None:
    """Try each distinct network once on the sides that it will see, so that a library that is not there, an
    impossible parameter, a head without bias, weights of another network, or a patch that fits neither it nor
    the data set stops the sweep before anything starts; ``prepare``: also where data must be prepared for it.
    """
    for cell in {_seen(cell): cell for cell in cells}.values():
        recipe = cell.recipe
        # Images of one size divide by four, and our U-Net builds: then nothing need be opened.
        plain = recipe.network is None and len(recipe.widths) <= 3 and recipe.weights is None
        if plain and recipe.patch is None and recipe.sampler == "uniform":
            continue
        made_here = cell.data.entry.family not in ("public", "folder")
        if not (prepare or made_here or is_prepared(cell.data)):
            continue
        data = get_dataset(cell.data, cell.seed, extra_files)
        side = side_of(recipe, data)
        if side is not None:
            Patches(data, side, recipe.sampler)
        _try(cell, data, side or data.shape)


def _seen(cell: Cell) -> tuple:
    """Return what cells share whose networks see images of the same sides and channels."""
    recipe = cell.recipe
    return cell.data.text, cell.network, recipe.head, recipe.patch, recipe.sampler, recipe.weights_hash


def _try(cell: Cell, data: Data, sides: tuple[int, ...]) -> None:
    recipe = cell.recipe
    if recipe.network is None:  # ours, of which all is known: PyTorch need not be loaded for it
        step = 2 ** (len(recipe.widths) - 1)
        if any(side % step for side in sides):
            shown = "x".join(map(str, sides))
            raise UserError(
                f"{cell.data_label}: images of {shown} do not fit network '{cell.network.text}': "
                f"{must_divide(sides, step)}"
            )
        if recipe.weights is None:
            return
    from lossbench.networks.build import Network, check_shape, heads

    network = Network(cell.network, data.channels, len(data.classes), sides)
    check_shape(network, recipe.batch)
    if recipe.head == "prior":
        heads(network)
    if recipe.weights is not None:
        network.start(0, None, train_stack.start_weights(recipe), recipe.weights)


def _complaint(function: Callable, classes: int) -> UserError | None:
    """Return what a loss says against its own parameters, on a tiny input of so many classes."""
    from lossbench.catalogue.loss_module import example

    logits, target, supplied = example(classes)
    try:
        function(logits, target, **supplied)
    except UserError as error:
        return error
    except (Exception, SystemExit):
        pass  # a user's loss may not suit this shape; if it suits none, its own cells will say so
    return None
