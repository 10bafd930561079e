"""``lossbench plan`` and ``status``: what an experiment needs, what is recorded of it, what is decided."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError, typed
from lossbench.base.process import peak_memory, usable_memory, usable_workers
from lossbench.cli import options
from lossbench.cli.results import say
from lossbench.store import note

# In the order in which a line counts them.
STATES = ("done", "missing", "stale", "failed")


def plan(
    chosen: options.Selection,
    seeds: options.Seeds = None,
    results: options.Results = Path("results"),
    trials: Annotated[
        Path | None,
        typer.Option("--trials", help="Results of tuning seeds: how far the numbers of a test scatter."),
    ] = None,
    time: Annotated[
        bool | None,
        typer.Option(
            "--time/--no-time", help="Train a few steps of what was never measured (own data: always)."
        ),
    ] = None,
) -> None:
    """Show what an experiment would train, what it would cost and what its claims could show, without
    training.
    """
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    experiment = chosen.resolve(seeds)
    planned = plans.plan(experiment, results)
    # Before anything is timed: a loss that hangs would stop that.
    run.foresee(planned, say)
    if time or (time is None and unguessable(planned)):
        planned = timed(planned)
        say_memory(peak_memory())
    print_plan(planned)
    say_cards(planned)
    say_protocol(results)
    say_scored(planned)
    print_costs(planned)
    say_split(planned)
    print_power(planned, results, trials)


def unguessable(planned: Any) -> bool:
    """Whether nobody can guess what the missing cells take: the images are the user's own, and no cell of
    their kind was ever measured.
    """
    own = all(data.name == "folder" for data, *_ in planned.experiment.datasets)
    return own and not planned.measured


def timed(planned: Any) -> Any:
    """Return the plan with what a few steps of each loss take, which are trained for it."""
    from lossbench.sweep import plan as plans

    say(f"{planned.experiment.name}: timing a few steps of each loss, validation and test ...")
    return plans.timing(planned)


def status(
    chosen: options.Selection,
    seeds: options.Seeds = None,
    results: options.Results = Path("results"),
    why: Annotated[bool, typer.Option("--why", help="Say which cells are not done, and the reason.")] = False,
) -> None:
    """Say which cells of an experiment are done, missing, stale or failed."""
    from lossbench.store import integrity
    from lossbench.store.store import Store
    from lossbench.sweep import plan as plans

    experiment = chosen.resolve(seeds)
    taken, planned = at_look(experiment, results)
    say(f"{experiment.name}: {len(planned.cells)} cells: {counts(planned)}")
    if experiment.looks:
        say(f"  {len(experiment.looks)} looks, at {_listed(experiment.looks)} seeds: {taken} complete")
        for _, text in decided(experiment, planned.cells, results):
            say(f"  {text}")
    # A name in the directory of the pack counts as done; whether its record can be read, only reading shows.
    found = integrity.check_records(Store(results), loose=False)
    sweep = typed("sweep", *(word for word in sys.argv[2:] if word != "--why"))
    pack = typed("pack", "--results", results)
    for line in found.damaged:
        mends = f"to remove it: {pack}" if line in found.unneeded else f"to train its cell again: {sweep}"
        say(f"damaged: {line}; {mends}")
    # A fresh clone has no results of its own, but the committed study may hold these cells.
    if results == note.OWN and not planned.counts().get("done") and note.STUDY.is_dir():
        held = plans.plan(planned.experiment, note.STUDY).counts().get("done", 0)
        if held:
            say(f"the committed study holds {held} of them: '--results {note.STUDY}'")
        say_protocol(note.STUDY)
    say_protocol(results)
    for text in _said(results, planned):
        say(f"  {text}")
    if not why:
        if planned.missing:
            say(f"'--why' names each; to train them: {sweep}")
        return
    never, before = defaultdict(list), plans.swept(planned, results)
    for cell in planned.missing:
        state, reason = planned.states[cell.key].status, plans.why(planned, cell, results, before)
        if state == "missing":
            never[cell.data_label, reason].append(cell)
        else:
            say(f"  {state:8} {cell.title}  {reason}")
    # What was never begun may be thousands of cells, and there is one thing to say of all of them.
    for (label, reason), cells in never.items():
        losses = ", ".join(dict.fromkeys(cell.loss.label for cell in cells))
        seeds = ", ".join(dict.fromkeys(str(cell.seed) for cell in cells))
        say(f"  missing  {label}: {len(cells)} cells of {losses}, seeds {seeds}  {reason}")


def _said(results: Path, planned: Any) -> list[str]:
    """Return what the last report said of the lengths, on the data sets of this plan alone."""
    from lossbench.tables.files import said

    held = note.read(results)
    # The folder may have been swept since with another experiment, or with other data of the same name.
    noted = {cell.key for cell in held.cells} if held else set()
    return said(results, {cell.stream for cell in planned.cells if cell.key in noted})


# Sequential seeds: which cells each look needs


def rounds(experiment: Any, results: Path) -> Iterator[list[Any]]:
    """Yield the cells that each look of a sequential experiment needs, those of the looks before among them;
    of any other experiment all cells at once.

    What a look needs follows from the records of the seeds before it alone, so that a sweep that was killed
    goes on as it would have gone."""
    cells = experiment.cells()
    if not experiment.looks:
        yield cells
        return
    needed: dict[str, Any] = {}
    for taken, count in enumerate(experiment.looks):
        own = [cell for cell in cells if cell.seed in experiment.seeds[:count] and cell.key not in needed]
        needed |= {cell.key: cell for cell in _undecided(experiment, own, needed.values(), results, taken)}
        yield [cell for cell in cells if cell.key in needed]


def at_look(experiment: Any, results: Path) -> tuple[int, Any]:
    """Return how many looks are complete, and the plan of the first one that is not, or of the last."""
    from lossbench.sweep import plan as plans

    for taken, cells in enumerate(rounds(experiment, results)):
        planned = plans.plan(experiment, results, cells)
        # Looks are taken in their order: what a later one needs is known only when this one is whole.
        if planned.missing:
            return taken, planned
    return taken + 1, planned


def _undecided(experiment: Any, cells: list[Any], before: Any, results: Path, taken: int) -> list[Any]:
    """Return those of these cells whose loss is in a pair that is still open after so many looks."""
    from lossbench.analysis import decisions

    if not taken:
        return cells
    looks, ends = seeds_of(experiment), _longest(experiment)
    found = decisions.unsettled(*recorded(before, results), looks, experiment.choice, taken)
    # Where nothing is compared, nothing can be decided.
    return [c for c in cells if c.loss.text in found.get((c.stream, ends[c.kind]), {c.loss.text})]


def seeds_of(experiment: Any) -> list[tuple[int, ...]]:
    """Return the seeds of each look."""
    return [experiment.seeds[:count] for count in experiment.looks]


def _longest(experiment: Any) -> dict[tuple[str, str], str]:
    """Return by data set and recipe the digest of the recipe that differs from it in its length alone and is
    the longest.
    """
    longest: dict[tuple[str, str], Any] = {}
    kinds = {(data.text, recipe.digest): recipe for data, _, _, recipe in experiment.datasets}
    same = {kind: (kind[0], recipe.model_copy(update={"steps": 1}).digest) for kind, recipe in kinds.items()}
    for kind, recipe in sorted(kinds.items(), key=lambda item: item[1].steps):
        longest[same[kind]] = recipe.public.digest
    return {kind: longest[same[kind]] for kind in kinds}


def recorded(cells: Any, results: Path) -> tuple[Any, Any]:
    """Return the recorded ones of these cells as a table, with their scores by test group."""
    from lossbench.analysis.resampling import ByGroup
    from lossbench.store.store import Store
    from lossbench.tables.compact import compact

    store, found = Store(results), []
    for cell in cells:
        record = store.read(*cell.pair)
        if record:
            labels = {"data_label": cell.data_label, "block": cell.block}
            found.append({**record, "loss_label": cell.loss.label, "cell": {**record["cell"], **labels}})
    tables = compact(found)
    return tables["cells"], ByGroup(tables["groups"]) if len(tables["groups"]) else None


def decided(experiment: Any, cells: Any, results: Path) -> list[tuple[bool, str]]:
    """Return of each pair of losses of a sequential experiment whether it is decided, and what to say."""
    from lossbench.analysis import decisions

    table, by_group = recorded(cells, results)
    if not len(table):
        return []
    found = decisions.decided(table, by_group, seeds_of(experiment), experiment.choice)
    return [(row.verdict != decisions.OPEN, f"{row.data_label}: {row.says}") for row in found.itertuples()]


# What they print


def print_plan(planned: Any) -> None:
    """Print how many cells an experiment has, what is recorded, and what the rest is expected to take."""
    experiment, cells, missing = planned.experiment, len(planned.cells), len(planned.missing)
    if len(experiment.parts) == 1:
        say(f"{experiment.name}: {cells} cells = {_product(experiment.parts[0])}")
    else:
        shared = "what two parts share is trained once"
        say(f"{experiment.name}: {cells} cells in {len(experiment.parts)} parts ({shared})")
        for part in experiment.parts:
            say(f"  {part.name:10} {_product(part)}")
    for sentence in experiment.skipped:
        say(f"  {sentence}")
    if experiment.looks:
        say_looks(experiment)
    for reason, count in planned.alone().items():
        say(f"  {count} cells share no training with their other lengths: {reason}")
    if planned.copies:
        say(f"  {len(planned.copies)} cells are the training of another: their own rate is the shared one")
    if not missing:
        say(f"  {counts(planned)}; nothing to train")
        return
    say(f"  {counts(planned)}; to train: {expected(planned)}")


def say_cards(planned: Any) -> None:
    """Say of a machine with GPUs that a sweep trains on the CPU unless it is told otherwise."""
    from lossbench.store import provenance

    count = len(provenance.gpus())
    if planned.missing and count:
        say(f"  a sweep trains on the CPU; '--gpus {count}' trains on the GPUs that are here, much faster")


def say_memory(each: float) -> None:
    """Say what a worker holds that trains like the one that was timed, and how many fit into this machine."""
    if math.isnan(each):
        return
    usual, fit = usable_workers(), usable_workers(each)
    share = f"{usual * each / 1e9:.1f} of {usable_memory() / 1e9:.0f} GB"
    text = f"  a worker holds {each / 1e9:.1f} GB, {usual} of them {share}"
    say(text if fit >= usual else f"{text}: too much; '--workers {fit}' fits")


def say_looks(experiment: Any) -> None:
    """Say when a sequential experiment looks, and what its first look can show."""
    from lossbench.experiment.reading import reach

    losses = max(len(part.losses) for part in experiment.parts)
    smallest = f"smallest p at the first one {reach(experiment.looks, losses):.2g}, over all pairs and looks"
    more = "a loss trains on only while a pair of it is open"
    out = ", and one that is worse by more than a point is out" if experiment.choice else ""
    say(f"  looks at {_listed(experiment.looks)} seeds ({smallest}): {more}{out}")


def say_too_short(planned: Any, workers: int) -> None:
    """Say that a budget ends before the look that these cells are for, and what the look takes from here."""
    seeds = len({cell.seed for cell in planned.cells})
    needs = duration(planned.cost().total / workers)
    say(
        f"  too little for the look at {seeds} seeds, which takes about {needs}: before it no pair is decided"
    )


def _listed(numbers: Any) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def expected(planned: Any) -> str:
    """Return how many cells are to be trained, and how long that takes."""
    # Of this machine: a plan asks no cluster.
    cores = usable_workers()
    about = "" if planned.measured else " (a guess until the first cells are measured)"
    count = len(planned.missing) - len(planned.copies)
    return f"{count}, about {duration(planned.cost().total / cores)} on {cores} free cores{about}"


def say_scored(planned: Any) -> None:
    """Say of which prepared data sets the budgets of pixels leave test images out."""
    from lossbench.data import splitting

    for spec, label, recipe, data in _prepared(planned.experiment):
        share = 1 if recipe.all_test else splitting.shares(data, spec.public.text)["test"]
        if share < 1:
            say(f"  {label}: {share:.0%} of the test images are scored; '--all-test' scores all")


def say_split(planned: Any) -> None:
    """Say of which prepared data sets a part of the split holds too few images, or none of a class."""
    from lossbench.catalogue.registry import get_dataset
    from lossbench.data import parts, prepare

    experiment = planned.experiment
    for spec, label, _, data in {spec.text: (spec, *rest) for spec, *rest in _prepared(experiment)}.values():
        few = parts.too_few(data)
        if few and spec.name in prepare.OWN:

            def opened(share: float, spec: Any = spec) -> Any:
                other = replace(spec, params={**spec.params, "test_fraction": share})
                return get_dataset(other, experiment.seeds[0], experiment.extra_files)

            share = parts.larger(opened)
            few += f"; 'test_fraction={share}' in its spec holds enough" if share else ""
        for text in [few, *parts.lacks(data)]:
            if text:
                say(f"  {label}: {text}")


def _prepared(experiment: Any) -> Iterator[tuple[Any, str, Any, Any]]:
    """Yield (spec, label, recipe, data) of the data sets that are prepared: to prepare one takes minutes."""
    from lossbench.catalogue.registry import get_dataset
    from lossbench.data import prepare

    seen = set()
    for spec, _, label, recipe in experiment.datasets:
        kind = spec.text, recipe.all_test
        if not spec.entry.own and kind not in seen and prepare.is_prepared(spec):
            seen.add(kind)
            yield spec, label, recipe, get_dataset(spec, experiment.seeds[0], experiment.extra_files)


def say_protocol(results: Path) -> None:
    """Say so where a folder holds records of another protocol: they are read, and no cell of today's."""
    from lossbench.experiment.cells import PROTOCOL
    from lossbench.store.store import Store

    # One record stands for all: to read each would take minutes.
    first = next(Store(results).records(), None) if results.is_dir() else None
    if first and first["cell"]["protocol"] != PROTOCOL:
        own = f"holds cells of protocol {first['cell']['protocol']}, this is protocol {PROTOCOL}"
        shows = typed("report", "--results", results)
        say(f"{results} {own}: '{shows}' shows them, and none is trained again")


def counts(planned: Any) -> str:
    counts = planned.counts()
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts.get(name))


def _product(part: Any) -> str:
    variants, sets = len(part.datasets), len({data.text for data, *_ in part.datasets})
    heads, lengths = (len({getattr(own, name) for *_, own in part.datasets}) for name in ("head", "steps"))
    where = [(sets, "data set", "data sets")]
    if sets * heads * lengths == variants:
        where += [(heads, "", "heads"), (lengths, "", "lengths")]
    elif sets != variants:  # some data sets have heads or lengths of their own
        where = [(variants, "setting", "settings")]
    counts = [(len(part.losses), "loss", "losses"), *where, (len(part.seeds), "seed", "seeds")]
    # A single head or length goes without saying.
    named = [(count, one if count == 1 else many) for count, one, many in counts]
    return " x ".join(f"{count} {name}" for count, name in named if name)


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_costs(planned: Any) -> None:
    """Print cells and expected core-minutes of each data set variant, and what the planned seeds can
    decide.
    """
    from rich.console import Console

    table = table_of(["data set"], ["cells", "to train", "training", "validation", "test"])
    groups = defaultdict(list)
    for cell in planned.cells:
        groups[cell.data_label].append(cell)
    # Copies of another training cost nothing.
    missing = {cell.key for cell in planned.missing} - planned.copies.keys()
    for label, cells in groups.items():
        todo = [cell for cell in cells if cell.key in missing]
        minutes = [f"{seconds / 60:.1f}" for seconds in planned.cost(todo)]
        table.add_row(label, str(len(cells)), str(len(todo)), *minutes)
    whole = planned.cost()
    table.add_section()
    minutes = [f"{seconds / 60:.1f}" for seconds in whole]
    table.add_row("all", str(len(planned.cells)), str(len(missing)), *minutes)
    console = Console()
    console.print(table)
    guess = "" if planned.measured else "; where no cell of a kind has been measured, a guess"
    console.print(f"Training, validation and test in minutes of a free core{guess}.", highlight=False)
    from lossbench.analysis.flips import smallest_p

    seeds = len(planned.experiment.seeds)
    smallest = smallest_p(seeds)  # where all differences have one sign
    within = f"On one data set, {seeds} paired seed{'s' * (seeds > 1)} can reach p = {smallest:.3g} at best"
    never = "; .05 cannot be reached there, only across data sets or by trend" if smallest > 0.05 else ""
    console.print(f"\n{within} (exact sign-flip test, two-sided){never}.", highlight=False)
    say_pairs(planned.experiment, smallest)


def say_pairs(experiment: Any, smallest: float) -> None:
    """Say what that p is after adjustment over all pairs of losses, and how many seeds would do."""
    from lossbench.analysis.flips import ALPHA, seeds_needed

    losses = max(len(part.losses) for part in experiment.parts)
    pairs = math.comb(losses, 2)
    # Of sequential seeds the first look is told, and refused where it is too early.
    if experiment.looks or pairs < 2 or smallest > ALPHA:
        return
    adjusted = min(1.0, pairs * smallest)
    more = "" if adjusted < ALPHA else f": to call one loss better takes {seeds_needed(pairs)} seeds"
    say(f"With {losses} losses that is {adjusted:.3g} after adjustment over {pairs} pairs{more}.")


def print_power(planned: Any, results: Path, trials: Path | None) -> None:
    """Print what each primary test of the experiment's claims can show; UserError where one of them could
    show nothing, whatever comes out.
    """
    from rich.console import Console

    from lossbench.analysis.claims import find_claims
    from lossbench.analysis.power import power, refusal
    from lossbench.tables.compact import planned as as_table
    from lossbench.tables.files import load_table

    name = planned.experiment.name
    claims = [claim for claim in find_claims(results).claims if claim.experiment == name]
    if not claims or len(planned.experiment.parts) < 2:  # on data of one's own no claim's part is trained
        return
    facts = [{**cell.to_json(), "parts": ",".join(cell.parts)} for cell in planned.cells]
    found = power(claims, as_table(facts), load_table(trials, "cells") if trials else None)
    table = table_of(["primary test"], ["seeds", "sets", "smallest p", "detectable", "of interest"])
    for own in found:
        if own.problem:
            say(f"{own.test.id} cannot be tested: {own.problem}")
            continue
        # Without trials nobody knows how far the numbers scatter: the effect is then in standard deviations.
        detects = f"{own.detectable:.2f} sd" if math.isnan(own.mde) else f"{own.mde:.2g}"
        numbers = str(own.n_seeds), str(own.n_sets), f"{own.smallest_p:.2g}", detects
        table.add_row(own.test.id, *numbers, f"{own.test.margin:g}")
    Console().print(table)
    say("smallest p: after Holm's adjustment; detectable: by the test itself, with 80 % power, after it")
    short = [own.test.id for own in found if own.mde > own.test.margin]
    if short:
        say(f"cannot reach their smallest effect of interest: {', '.join(short)}")
    # Last, so that the table above shows which tests are meant.
    refused = refusal(found)
    if refused:
        raise UserError(f"{name}: {refused}")


def table_of(words: list[str], numbers: list[str]) -> Any:
    """Return a table with columns of words, then columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
