"""``lossbench sweep``, ``plan``, ``status`` and ``tune``: commands about an experiment and its cells."""

from __future__ import annotations

import csv
import dataclasses
import math
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lossbench.base.errors import UserError
from lossbench.base.process import usable_cores
from lossbench.cli import options
from lossbench.cli.results import answer, say
from lossbench.store import note

WORST = 3  # test images that are named

# In the order in which a line counts them.
STATES = ("done", "missing", "stale", "failed")


def sweep(
    chosen: options.Selection,
    engine: options.Engine,
    seeds: options.Seeds = None,
    results: options.Results = Path("results"),
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="TIME", help="Train only as many complete blocks as fit, e.g. 30m or 2h."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Train only part i of n of the blocks, as 2/5."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="NAME", help="Train only this part of the experiment; may be repeated."
        ),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print events as JSON lines, for machines.")
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="WHAT",
            help="'predictions': also write what the best cell of each loss marks on test images.",
        ),
    ] = "",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw figures and write the report at the end.")
    ] = True,
) -> None:
    """Train what is missing of an experiment, then write tables, figures and the report."""
    from lossbench.data import cards as datacards
    from lossbench.experiment.describe import describe
    from lossbench.sweep import plan as plans
    from lossbench.sweep import predictions, run

    # What the user mistyped is said before data are read and folders are made.
    if keep not in ("", "predictions"):
        raise UserError(f"--keep {keep}: only 'predictions' can be kept; records always are")
    where = dataclasses.replace(engine.options(), keep=bool(keep))
    experiment = chosen.resolve(seeds)
    run.open_results(results, say=say)
    planned = plans.plan(experiment, results)
    print_plan(planned)
    # Opens every data set once, so that what is wrong with one is said before anything is trained.
    sets = [variant[:3] for variant in experiment.datasets]
    cards = datacards.store(results, sets, experiment.seeds[0], experiment.extra_files)
    # All workers share the budget.
    todo = plans.select(planned, budget, shard, where.count, part or ())
    if len(todo) < len(planned.missing):
        limits = [budget, shard and f"shard {shard}", *(f"part {name}" for name in part or ())]
        say(f"  {len(todo)} of {len(planned.missing)} cells chosen ({', '.join(filter(None, limits))})")
    # First, so that an interrupted sweep can be reported, too.
    note.write(results, describe(experiment, planned.cells, cards))
    failed = _train(planned, todo, results, where, mode="json" if json_lines else "auto")
    # After failures, too: what is there is shown, and the exit code says that some of it is missing.
    if keep:
        predictions.write(experiment, planned.cells, results, say)
    if report:
        answer(results)
        say_images(results, experiment)
    if failed:
        raise typer.Exit(1)


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
    # Of a user's own images nobody can guess how long they take.
    own = all(data.name == "folder" for data, *_ in experiment.datasets)
    if time or (time is None and own and not planned.measured):
        say(f"{experiment.name}: timing a few steps of each loss, validation and test ...")
        planned = plans.timing(planned)
    print_plan(planned)
    say_protocol(results)
    say_scored(planned)
    print_costs(planned)
    print_power(planned, results, trials)
    # Last, since it may load PyTorch. A sweep tries what must be prepared first, too, and a user's files.
    run.check_networks(filter(run.at_hand, planned.missing))


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

    planned = plans.plan(chosen.resolve(seeds), results)
    say(f"{planned.experiment.name}: {len(planned.cells)} cells: {_counts(planned)}")
    # A name in the directory of the pack counts as done; whether its record can be read, only reading shows.
    for line in integrity.check_records(Store(results), loose=False).damaged:
        say(f"damaged: {line}; 'lossbench sweep' trains its cell again")
    # A fresh clone has no results of its own, but the committed study may hold these cells.
    if results == note.OWN and not planned.counts().get("done") and note.STUDY.is_dir():
        held = plans.plan(planned.experiment, note.STUDY).counts().get("done", 0)
        if held:
            say(f"the committed study holds {held} of them: '--results {note.STUDY}'")
        say_protocol(note.STUDY)
    say_protocol(results)
    for text in _said(results, planned.experiment.name):
        say(f"  {text}")
    if not why:
        if planned.missing:
            say("'--why' names each; 'lossbench sweep' trains them")
        return
    never = defaultdict(list)
    for cell in planned.missing:
        state, reason = planned.states[cell.key].status, plans.why(planned, cell, results)
        if state == "missing":
            never[cell.data_label, reason].append(cell)
        else:
            say(f"  {state:8} {cell.title}  {reason}")
    # What was never begun may be thousands of cells, and there is one thing to say of all of them.
    for (label, reason), cells in never.items():
        losses = ", ".join(dict.fromkeys(cell.loss.label for cell in cells))
        seeds = ", ".join(dict.fromkeys(str(cell.seed) for cell in cells))
        say(f"  missing  {label}: {len(cells)} cells of {losses}, seeds {seeds}  {reason}")


def _said(results: Path, experiment: str) -> list[str]:
    """Return what the last report of an experiment said of its lengths."""
    from lossbench.tables.files import said

    held = note.read(results)
    return said(results) if held and held.name == experiment else []


def tune(
    chosen: options.Selection,
    engine: options.Engine,
    results: Annotated[
        Path, typer.Option("--results", metavar="FOLDER", help="Folder of the trials' records.")
    ] = Path("results/tuning"),
    seeds: Annotated[
        int,
        typer.Option("--seeds", metavar="N", min=1, max=1000, help="Tuning seeds, which no study reports."),
    ] = 3,
    middle: Annotated[
        float,
        typer.Option(
            "--middle", metavar="RATE", min=1e-6, max=1, help="Middle of the five rates, a factor 3 apart."
        ),
    ] = 0.005,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="Search the losses' own parameters instead, at the rates given."),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=2, max=10_000, help="Points that each loss is tried at (default: 16)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File for the choices (default: NAME.chosen.toml or NAME.parameters.toml beside it).",
        ),
    ] = None,
) -> None:
    """Find the learning rate of every loss under every head that validation prefers over all data sets of an
    experiment, or the losses' own parameters.
    """
    from lossbench.experiment import rates as files
    from lossbench.sweep import tuning

    if trials and not parameters:
        raise UserError("--trials belongs to '--parameters'; every loss is tried at the same five rates")
    where = engine.options()
    experiment = chosen.resolve(tuning=not parameters)
    source = Path(experiment.file)
    if parameters:
        budget = tuning.Budget(trials or 16, seeds)
        named, failed = _search(experiment, tuning.search_parameters, budget, results, where)
        best = tuning.best_parameters(experiment, budget, named)
        file = out or source.with_name(f"{source.stem}.parameters.toml")
        files.write_choice(file, "`lossbench tune --parameters`; every loss got as many trials", best)
        print_parameters(best["chosen"])
    else:
        wanted = tuning.Search(middle, seeds)
        tried, failed = _search(experiment, tuning.search, wanted, results, where)
        rates = tuning.chosen(experiment, wanted, tried)
        file = out or source.with_name(f"{source.stem}.chosen.toml")
        files.write(file, rates)
        print_tuning(rates)
    say(f"chosen   {file}\ntrials   {results}")
    if failed:
        raise typer.Exit(1)


def _search(experiment: Any, search: Any, wanted: Any, results: Path, where: Any) -> tuple[Any, bool]:
    """Train what a search asks for until it asks no more; return what it tried, and whether cells failed."""
    from lossbench.experiment.describe import describe
    from lossbench.store.store import Store
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    for sentence in experiment.skipped:
        say(sentence)
    run.open_results(results, say=say)
    failed = False
    # What is asked next follows from what is recorded: rates beyond the best one, further points.
    while True:
        asked, tried = search(experiment, wanted, Store(results))
        planned = plans.plan(asked, results)
        note.write(results, describe(asked, planned.cells, {}))
        # What has failed stays missing: to search on would try it again for ever.
        if failed or not planned.missing:
            return tried, failed
        say(f"{experiment.name}: {_counts(planned)}; to train: {_expected(planned)}")
        failed = _train(planned, planned.missing, results, where)


def export(
    chosen: options.Selection,
    to: Annotated[str, typer.Option("--to", help="monai, smp or nnunet.")],
    use: Annotated[
        str, typer.Option("--use", help="The loss to train with (default: what the sweep recommended).")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write (default: train_LIBRARY.py).")
    ] = None,
    results: options.Results = Path("results"),
) -> None:
    """Write a training script for MONAI or SMP, or a trainer for nnU-Net, with the loss that was chosen."""
    from lossbench.base.errors import nearest
    from lossbench.base.files import cannot_write, write_atomically
    from lossbench.catalogue.spellings import LIBRARIES
    from lossbench.sweep.export import export

    if to not in LIBRARIES:
        raise UserError(f"--to {to}: there is no such library here{nearest(to, LIBRARIES)}")
    experiment = chosen.resolve()
    loss = use or _recommended(results, experiment)
    file = out or Path(f"train_{to}.py")
    text = export(experiment, loss, to)
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise cannot_write(file.parent, error) from None
    say(f"{file}: trains with {loss}")


def _recommended(results: Path, experiment: Any) -> str:
    """Return the loss that the last report of an experiment recommends."""
    held = note.read(results)
    advised = _advised(results) if held and held.name == experiment.name else []
    if advised:
        return advised[0]["loss"]
    losses = ", ".join(loss.text for loss in experiment.losses)
    how = f"'lossbench sweep' first, or name a loss with --use ({losses})"
    raise UserError(f"{results} recommends no loss for '{experiment.name}': {how}")


def _advised(results: Path) -> list[dict[str, str]]:
    """Return the rows of the table of recommendations, where a report wrote one."""
    file = results / "tables" / "recommendations.csv"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def _train(planned: Any, todo: list, results: Path, where: Any, mode: str = "auto") -> bool:
    """Train these cells of a plan and say how it went; return whether cells failed. Leaves with 130 when
    interrupted.
    """
    from lossbench.store import provenance
    from lossbench.store.store import Store
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    if not todo:  # collecting provenance asks git and takes a moment
        return False
    facts = provenance.collect(results=results)
    # Asked before anything is trained: later they are recorded like all others.
    copies = plans.copies(todo, Store(results))
    summary, trained, failures = run.run(planned, todo, results, where, provenance=facts, mode=mode, say=say)
    for sentence in failures:
        say(f"failed: {sentence}", error=True)
    if summary.interrupted:
        again = "lossbench " + shlex.join(sys.argv[1:])
        say(f"interrupted; every finished cell is kept. To go on: {again}", error=True)
        # 128 + SIGINT, as shells have it.
        raise typer.Exit(130)
    # Looked up, not subtracted: another sweep on the folder may have trained some meanwhile.
    left = {cell.key for cell in plans.plan(planned.experiment, results, todo).missing}
    missing, copied = len(left), len(copies.keys() - left)
    others = len(todo) - missing - trained - copied  # that another sweep on the folder has trained meanwhile
    elsewhere = f", {others} came from another sweep" if others > 0 else ""
    same = f", {copied} are the same trainings at a loss's own rate" if copied else ""
    say(f"trained {trained} cells in {duration(summary.seconds)}{same}{elsewhere}")
    if failures:
        say(
            f"{missing} cells have no record ('lossbench status --why' says why); the same "
            "command tries them again",
            error=True,
        )
    return bool(failures)


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
    for reason, count in planned.alone().items():
        say(f"  {count} cells share no training with their other lengths: {reason}")
    if planned.copies:
        say(f"  {len(planned.copies)} cells are the training of another: their own rate is the shared one")
    if not missing:
        say(f"  {_counts(planned)}; nothing to train")
        return
    say(f"  {_counts(planned)}; to train: {_expected(planned)}")


def _expected(planned: Any) -> str:
    """Return how many cells are to be trained, and how long that takes."""
    # Of this machine: a plan asks no cluster.
    cores = usable_cores()
    about = "" if planned.measured else " (a guess until the first cells are measured)"
    count = len(planned.missing) - len(planned.copies)
    return f"{count}, about {duration(planned.cost().total / cores)} on {cores} free cores{about}"


def say_scored(planned: Any) -> None:
    """Say of which prepared data sets the budgets of pixels leave test images out."""
    from lossbench.catalogue.registry import get_dataset
    from lossbench.data import prepare, splitting

    experiment, said = planned.experiment, set()
    for spec, _, label, recipe in experiment.datasets:
        # Of prepared sets alone: to prepare one may take minutes.
        if recipe.all_test or spec.text in said or not prepare.is_prepared(spec):
            continue
        said.add(spec.text)
        data = get_dataset(spec, experiment.seeds[0], experiment.extra_files)
        share = splitting.shares(data, spec.public.text)["test"]
        if share < 1:
            say(f"  {label}: {share:.0%} of the test images are scored; '--all-test' scores all")


def say_images(results: Path, experiment: Any) -> None:
    """Name the test images on which the recommended loss does worst, and those that training has seen nearly
    alike, of data whose images have names.
    """
    from lossbench.catalogue.registry import get_dataset
    from lossbench.data import leaks

    advised = {row["dataset"]: row for row in _advised(results)}
    for spec in {data.public.text: data for data, *_ in experiment.datasets}.values():
        data = get_dataset(spec, experiment.seeds[0], experiment.extra_files)
        names, row = data.card.get("names"), advised.get(spec.public.text)
        if not names or row is None:
            continue
        worst = ", ".join(f"{names[n]} ({100 * dice:.0f})" for n, dice in _worst(results, row).items())
        say(f"worst    of {row['loss_label']}, mean Dice in points: {worst}")
        alike = leaks.across(data)
        if alike:
            one, other = (names[n] for n in alike[0])
            scored = f"{len(alike)} test images have a near-duplicate outside test ('{one}' and '{other}')"
            say(f"leakage  {scored}: scores are too good; 'lossbench inspect --groups' helps")


def _worst(results: Path, row: dict[str, str]) -> dict[int, float]:
    """Return the test images with the lowest Dice of a recommended loss, mean over its cells."""
    from lossbench.tables.files import load_table

    cells, images = load_table(results, "cells"), load_table(results, "images")
    for name in ("dataset", "recipe", "loss"):
        cells = cells[cells[name] == row[name]]
    own = images[images["key"].isin(cells["key"])]
    return own.groupby("image")["dice@0.5"].mean().nsmallest(WORST).to_dict()


def say_protocol(results: Path) -> None:
    """Say so where a folder holds records of another protocol: they are read, and no cell of today's."""
    from lossbench.experiment.cells import PROTOCOL
    from lossbench.store.store import Store

    # One record stands for all: to read each would take minutes.
    first = next(Store(results).records(), None) if results.is_dir() else None
    if first and first["cell"]["protocol"] != PROTOCOL:
        own = f"holds cells of protocol {first['cell']['protocol']}, this is protocol {PROTOCOL}"
        say(f"{results} {own}: 'lossbench report --results {results}' shows them, and none is trained again")


def _counts(planned: Any) -> str:
    counts = planned.counts()
    return ", ".join(f"{counts[name]} {name}" for name in STATES if counts.get(name))


def _product(part: Any) -> str:
    counts = (
        (len(part.losses), "loss", "losses"),
        (len(part.datasets), "data set", "data sets"),
        (len(part.seeds), "seed", "seeds"),
    )
    return " x ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


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

    table = _table(["data set"], ["cells", "to train", "training", "validation", "test"])
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
    seeds = len(planned.experiment.seeds)
    smallest = 2 / 2**seeds  # all differences of one sign: 2 of 2**seeds sign patterns
    within = f"On one data set, {seeds} paired seed{'s' * (seeds > 1)} can reach p = {smallest:.3g} at best"
    never = "; .05 cannot be reached there, only across data sets or by trend" if smallest > 0.05 else ""
    console.print(f"\n{within} (exact sign-flip test, two-sided){never}.", highlight=False)


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
    table = _table(["primary test"], ["seeds", "sets", "smallest p", "detectable", "of interest"])
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


def print_tuning(rates: Any) -> None:
    """Print the rate that tuning chose for each loss and head, its mean rank and validation score, and
    whether it lies at the edge of the range.
    """
    from rich.console import Console

    table = _table(["loss", "head"], ["learning rate", "mean rank", "validation", "rates"])
    table.add_column("")
    for item in rates.chosen:
        best = item.tried.index(item.learning_rate)
        numbers = f"{item.learning_rate:.3g}", f"{item.mean_rank[best]:.2f}", f"{item.mean_score[best]:.3f}"
        # The best rate may lie beyond the edge, so none of these is taken for it.
        mark = "still at the edge: no rate of its own" if item.edge else ""
        table.add_row(item.loss, item.head, *numbers, str(len(item.tried)), mark)
    Console().print(table)
    say(f"one rate for all: {rates.shared:g}")


def print_parameters(chosen: list[dict[str, Any]]) -> None:
    """Print the spec that tuning chose for each loss, its validation score, and that of the loss as it is."""
    from rich.console import Console

    table = _table(["loss", "best"], ["validation", "as it is", "trials"])
    for item in chosen:
        scores = dict(zip(item["tried"], item["scores"], strict=True))
        usual = f"{scores[item['loss']]:.3f}" if item["loss"] in scores else ""
        table.add_row(item["loss"], item["best"], f"{item['score']:.3f}", usual, str(len(item["tried"])))
    Console().print(table)


def _table(words: list[str], numbers: list[str]) -> Any:
    """Return a table with columns of words, then columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
