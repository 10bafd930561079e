"""``lossbench sweep`` and ``tune``, which train, and ``export``, which hands on what a sweep recommends."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from lossbench.base.errors import UserError, typed
from lossbench.cli import options
from lossbench.cli.plan import (
    counts,
    decided,
    duration,
    expected,
    print_plan,
    rounds,
    say_too_short,
    table_of,
    timed,
    unguessable,
)
from lossbench.cli.results import answer, say
from lossbench.store import note

WORST = 3  # test images that are named


def sweep(
    context: typer.Context,
    chosen: options.Selection,
    engine: options.Engine,
    seeds: options.Seeds = None,
    results: options.Results = Path("results"),
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Train only as many complete blocks as fit, e.g. 90s, 30m or 2h.",
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
        bool, typer.Option("--json-lines", help="Print events as JSON lines, all else to stderr.")
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
    from lossbench.experiment.describe import describe
    from lossbench.sweep import plan as plans
    from lossbench.sweep import predictions, run

    _refuse_mistyped(keep, shard, budget)
    events = sys.stdout
    if json_lines:
        # A program reads every line of stdout as JSON.
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    experiment = chosen.resolve(seeds)
    where = dataclasses.replace(engine.options(), keep=bool(keep) or _own_pictures(experiment))
    run.open_results(results, say=say)
    began = time.monotonic()
    whole = plans.plan(experiment, results)
    if budget is not None and unguessable(whole):
        whole = timed(whole)
    print_plan(whole)
    cards = run.open_data(experiment, results, where)
    limits = [budget, shard and f"shard {shard}", *(f"part {name}" for name in part or ())]
    todo: list = []
    for cells in rounds(experiment, results):
        planned = plans.plan(experiment, results, cells)
        # What was trained meanwhile says better than a few timed steps how long the rest takes.
        planned = dataclasses.replace(planned, paces=whole.paces | planned.paces)
        # All workers share the budget, and so do all looks and what timing took.
        spent = time.monotonic() - began
        todo = plans.select(planned, budget, shard, where.count, part or (), spent, least=not todo)
        if len(todo) < len(planned.missing):
            chosen_by = ", ".join(filter(None, limits))
            say(f"  {len(todo)} of {len(planned.missing)} cells chosen ({chosen_by})")
            if experiment.looks and budget is not None:
                say_too_short(planned, where.count)
        if budget is not None:
            where = dataclasses.replace(where, until=_until(planned, todo, budget, spent, where.count))
        # First, so that an interrupted sweep can be reported, too.
        note.write(results, describe(experiment, cells, cards))
        failed = _train(planned, todo, results, where, events if json_lines else None)
        # What is missing of one look must be there before the next.
        if failed or len(todo) < len(planned.missing):
            break
        if experiment.looks:
            pairs = decided(experiment, cells, results)
            say(f"  {sum(ready for ready, _ in pairs)} of {len(pairs)} pairs are decided")
    # After failures, too: what is there is shown, and the exit code says that some of it is missing.
    if where.keep:
        predictions.write(experiment, cells, results, say, masks=bool(keep))
    if report:
        _report(results, experiment, failed)
    if failed:
        raise typer.Exit(1)


def _refuse_mistyped(keep: str, shard: str | None, budget: str | None) -> None:
    """Say what the user mistyped before data are read and folders are made."""
    from lossbench.sweep import plan as plans

    if keep not in ("", "predictions"):
        raise UserError(f"--keep {keep}: only 'predictions' can be kept; records always are")
    if shard is not None:
        plans.shard_of(shard)
    if budget is not None:
        plans.seconds_of(budget)


def _until(planned: Any, todo: list, budget: str, spent: float, workers: int) -> float | None:
    """Return when a budget is over; None where the first block alone takes longer, since it is trained
    whole.
    """
    from lossbench.sweep import plan as plans

    left, needs = plans.seconds_of(budget) - spent, planned.cost(todo).total / workers
    if needs <= left:
        # On busy cores all takes longer than a plan for free ones says.
        return time.monotonic() + left
    if todo:
        say(f"  one block of all losses takes about {duration(needs)}, longer than the budget: trained whole")
    return None


def _report(results: Path, experiment: Any, failed: bool) -> None:
    """Write the report and say what it says; where every cell failed there is none, which is no misuse."""
    try:
        answer(results)
        say_images(results, experiment)
    except UserError as error:
        if not failed:
            raise
        say(str(error), error=True)


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
        typer.Option(
            "--trials",
            metavar="N",
            min=2,
            max=10_000,
            help="Points that each loss is tried at (default: 16).",
        ),
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
    # Trials are of other seeds, and all of them are trained.
    experiment = dataclasses.replace(chosen.resolve(tuning=not parameters), looks=(), choice=False)
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
        say(f"{experiment.name}: {counts(planned)}; to train: {expected(planned)}")
        failed = _train(planned, planned.missing, results, where)


def export(
    chosen: options.Selection,
    to: Annotated[str, typer.Option("--to", metavar="LIBRARY", help="monai, smp or nnunet.")],
    use: Annotated[
        str,
        typer.Option(
            "--use", metavar="LOSS", help="The loss to train with (default: what the sweep recommended)."
        ),
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


def _own_pictures(experiment: Any) -> bool:
    """Return whether errors on the user's own images are drawn; not of other networks, whose weights would
    fill a disk.
    """
    return all(data.name == "folder" and not own.network for data, _, _, own in experiment.datasets)


def _recommended(results: Path, experiment: Any) -> str:
    """Return the loss that the last report of an experiment recommends for its first data set."""
    held = note.read(results)
    advised = _advised(results) if held and held.name == experiment.name else []
    # The script trains on the first data set; the table may begin with another one, and another loss.
    first = experiment.datasets[0][0].public.text
    own = next((row for row in advised if row["dataset"] == first), None)
    if own:
        return own["loss"]
    # Never a guess: a script that trains for days should not start from a loss that nobody has chosen.
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


def _train(planned: Any, todo: list, results: Path, where: Any, events: TextIO | None = None) -> bool:
    """Train these cells of a plan and say how it went; return whether cells failed or have no record. Leaves
    with 130 when interrupted. ``events``: where events go as JSON lines instead of being shown.
    """
    from lossbench.store import provenance
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    if not todo:  # collecting provenance asks git and takes a moment
        return False
    facts = provenance.collect(results=results)
    shown = {"mode": "json" if events else "auto", "stream": events}
    done = run.run(planned, todo, results, where, provenance=facts, say=say, **shown)
    for sentence in done.failures:
        say(f"failed: {sentence}", error=True)
    if done.summary.interrupted:
        again = typed(*sys.argv[1:])
        say(f"interrupted; every finished cell is kept. To go on: {again}", error=True)
        # 128 + SIGINT, as shells have it.
        raise typer.Exit(130)
    missing = len(plans.plan(planned.experiment, results, todo).missing)
    others = len(todo) - missing - done.trained - done.copied
    elsewhere = f", {others} came from another sweep" if others > 0 else ""
    same = f", {done.copied} are the same trainings at a loss's own rate" if done.copied else ""
    say(f"trained {done.trained} cells in {duration(done.summary.seconds)}{same}{elsewhere}")
    over = done.summary.left > 0
    if over:
        say(f"the budget is over; {missing} of these cells wait for the same command")
    elif missing:
        say(
            f"{missing} cells have no record ('lossbench status --why' says why); the same "
            "command tries them again",
            error=True,
        )
    return bool(done.failures or (missing and not over))


def say_images(results: Path, experiment: Any) -> None:
    """Name the test images on which the recommended loss does worst, those that training has seen nearly
    alike, and classes that a part of the split lacks, of data whose images have names.
    """
    from lossbench.catalogue.registry import get_dataset
    from lossbench.data import leaks, parts

    advised = {row["dataset"]: row for row in _advised(results)}
    for spec in {data.public.text: data for data, *_ in experiment.datasets}.values():
        if spec.entry.own:  # a file of the user's is not run in this process
            continue
        data = get_dataset(spec, experiment.seeds[0], experiment.extra_files)
        names, row = data.card.get("names"), advised.get(spec.public.text)
        if not names or row is None:
            continue
        worst = ", ".join(f"{names[n]} ({100 * dice:.0f})" for n, dice in _worst(results, row).items())
        say(f"worst    of {row['loss_label']}, mean Dice in points: {worst}")
        leak = leaks.says(data)
        if leak:
            say(f"leakage  {leak}")
        for lack in parts.lacks(data):
            say(f"split    {lack}")


def _worst(results: Path, row: dict[str, str]) -> dict[int, float]:
    """Return the test images with the lowest Dice of a recommended loss, mean over its cells."""
    from lossbench.tables.files import load_table

    cells, images = load_table(results, "cells"), load_table(results, "images")
    for name in ("dataset", "recipe", "loss"):
        cells = cells[cells[name] == row[name]]
    own = images[images["key"].isin(cells["key"])]
    return own.groupby("image")["dice@0.5"].mean().nsmallest(WORST).to_dict()


def print_tuning(rates: Any) -> None:
    """Print the rate that tuning chose for each loss and head, its mean rank and validation score, and
    whether it lies at the edge of the range.
    """
    from rich.console import Console

    table = table_of(["loss", "head"], ["learning rate", "mean rank", "validation", "rates"])
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

    table = table_of(["loss", "best"], ["validation", "as it is", "trials"])
    for item in chosen:
        scores = dict(zip(item["tried"], item["scores"], strict=True))
        usual = f"{scores[item['loss']]:.3f}" if item["loss"] in scores else ""
        table.add_row(item["loss"], item["best"], f"{item['score']:.3f}", usual, str(len(item["tried"])))
    Console().print(table)
