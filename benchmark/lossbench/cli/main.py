"""The command line: parse, call, print. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from lossbench.base.errors import UserError
from lossbench.cli import data as cli_data
from lossbench.cli import options
from lossbench.cli import results as cli_results
from lossbench.store import note

app = typer.Typer(
    name="lossbench",
    help="Which segmentation loss, and why? Identical networks, identical batches, every loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ExperimentArg = Annotated[
    str, typer.Argument(help="An experiment file, or the name of one that ships: quick, smoke, paper.")
]

With = Annotated[
    list[Path] | None,
    typer.Option("--with", help="A Python file with losses of your own (@loss); may be repeated."),
]

Results = Annotated[Path, typer.Option("--results", help="Folder of records, tables, figures and report.")]

Existing = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of results (default: results; without any, the committed study)."),
]

DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Your images and masks (a path), or a data set spec.")
]

Losses = Annotated[
    list[str] | None,
    typer.Option(
        "--loss", help="One more loss, as a spec such as 'tversky(fp_weight=0.3)'; may be repeated."
    ),
]

Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Number of seeds, instead of the experiment's.")
]


def _version(asked: bool) -> None:
    if asked:
        from lossbench import __version__

        _say(f"lossbench {__version__}")
        raise typer.Exit


@app.callback()
def _any(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


def _resolve(
    experiment: str,
    with_: list[Path] | None,
    data: list[str] | None,
    losses: list[str] | None,
    seeds: int | None,
    tuning: bool = False,
):
    from lossbench.experiment.reading import read_experiment

    for file in with_ or ():
        if not file.is_file():
            raise UserError(f"--with {file}: there is no such file")
    return read_experiment(
        experiment,
        tuple(str(file) for file in with_ or ()),
        data=tuple(_data_spec(item) for item in data or ()),
        seeds=seeds,
        add_losses=tuple(losses or ()),
        tuning=tuning,
    )


def _data_spec(text: str) -> str:
    """Return a spec for what the user typed after --data: a path becomes folder(path=...)."""
    from lossbench.catalogue.registry import datasets

    path = Path(text).expanduser()
    if text.strip() and path.exists():
        return f"folder(path={str(path.resolve())!r})"
    if "(" in text or text in datasets():
        return text
    raise UserError(
        f"--data {text}: there is no such folder or file, and it names no data set; 'lossbench data "
        "list' shows the sets"
    )


@app.command()
def sweep(
    experiment: ExperimentArg = "quick",
    with_: With = None,
    data: DataOption = None,
    loss: Losses = None,
    seeds: Seeds = None,
    results: Results = Path("results"),
    workers: options.Workers = None,
    serial: options.Serial = False,
    cluster: options.Cluster = None,
    scheduler: options.Scheduler = None,
    gpus: options.Gpus = None,
    per_gpu: options.PerGpu = 1,
    device: options.Device = None,
    stack: options.Size = None,
    time_limit: options.TimeLimit = None,
    logs: options.Logs = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Train only as many complete blocks as fit, e.g. 30m or 2h."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Train only part i of n of the blocks, as 2/5.")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Print events as JSON lines, for machines.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Draw figures and write the report at the end.")
    ] = True,
) -> None:
    """Train what is missing of an experiment, then write tables, figures and the report."""
    from lossbench.cli import listing
    from lossbench.data import cards as cardfile
    from lossbench.store import note
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    engine = options.options(
        workers, serial, cluster, scheduler, gpus, per_gpu, device, stack, time_limit, logs
    )
    resolved = _resolve(experiment, with_, data, loss, seeds)
    run.open_results(results, say=_say)
    planned = plans.plan(resolved, results)
    listing.print_plan(planned)
    # Opens every data set once, so that what is wrong with one is said before anything is trained.
    cards = cardfile.store(
        results,
        [(spec, mark, label) for spec, mark, label, _ in resolved.datasets],
        resolved.seeds[0],
        resolved.extra_files,
    )
    chosen = plans.select(planned, budget, shard, workers)
    if len(chosen) < len(planned.missing):
        _say(
            f"  {len(chosen)} of {len(planned.missing)} cells chosen "
            f"({', '.join(filter(None, [budget, shard and f'shard {shard}']))})"
        )
    note.write(
        resolved, planned.cells, results, cards
    )  # first, so that an interrupted sweep can be reported, too
    failed = _train(planned, results, json_lines, only=chosen, **engine)
    if report:
        _answer(results)
    if failed:
        raise typer.Exit(1)


def _train(planned, results: Path, json_lines: bool = False, only=None, **engine) -> bool:
    """Train what a plan lacks and say how it went; return whether cells failed. Leaves with 130 when
    interrupted.
    """
    from lossbench.cli import listing
    from lossbench.store import provenance
    from lossbench.sweep import plan as plans
    from lossbench.sweep import run

    todo = planned.missing if only is None else only
    if not todo:
        return False
    facts = provenance.collect(results=results)
    mode = "json" if json_lines else "auto"
    summary, trained, failures = run.run(
        planned, todo, results, provenance=facts, mode=mode, say=_say, **engine
    )
    for sentence in failures:
        _say(f"failed: {sentence}", error=True)
    if summary.interrupted:
        _say(f"interrupted; every finished cell is kept. To go on: {_again()}", error=True)
        raise typer.Exit(130)
    after = plans.plan(planned.experiment, results, todo)
    others = len(todo) - len(after.missing) - trained
    _say(
        f"trained {trained} cells in {listing.duration(summary.seconds)}"
        + (f", {others} came from another sweep" if others > 0 else "")
    )
    if failures:
        _say(
            f"{len(after.missing)} cells have no record ('lossbench status --why' says why); the same "
            "command tries them again",
            error=True,
        )
    return bool(failures)


@app.command()
def plan(
    experiment: ExperimentArg = "quick",
    with_: With = None,
    data: DataOption = None,
    loss: Losses = None,
    seeds: Seeds = None,
    results: Results = Path("results"),
) -> None:
    """Show what an experiment would train and what it would cost, without training."""
    from lossbench.cli import listing
    from lossbench.sweep import plan as plans

    planned = plans.plan(_resolve(experiment, with_, data, loss, seeds), results)
    listing.print_plan(planned)
    listing.print_costs(planned)


@app.command()
def status(
    experiment: ExperimentArg = "quick",
    with_: With = None,
    data: DataOption = None,
    loss: Losses = None,
    seeds: Seeds = None,
    results: Results = Path("results"),
    why: Annotated[
        bool, typer.Option("--why", help="Name every cell that is not done, and the reason.")
    ] = False,
) -> None:
    """Say which cells of an experiment are done, missing, stale or failed."""
    from lossbench.sweep import plan as plans

    planned = plans.plan(_resolve(experiment, with_, data, loss, seeds), results)
    counts = planned.counts()
    parts = [f"{counts[name]} {name}" for name in ("done", "missing", "stale", "failed") if counts.get(name)]
    _say(f"{planned.experiment.name}: {len(planned.cells)} cells: {', '.join(parts)}")
    if results == note.OWN and not counts.get("done") and note.STUDY.is_dir():
        held = plans.plan(planned.experiment, note.STUDY).counts().get("done", 0)
        if held:
            _say(f"the committed study holds {held} of them: '--results {note.STUDY}'")
    if not why:
        if planned.missing:
            _say("'--why' names each; 'lossbench sweep' trains them")
        return
    for cell in planned.missing:
        state = planned.states[cell.key].status
        _say(
            f"  {state:8} {cell.data_label} · {cell.loss.label} · seed {cell.seed}  "
            f"{plans.why(planned, cell, results)}"
        )


@app.command()
def tune(
    experiment: ExperimentArg = "quick",
    with_: With = None,
    data: DataOption = None,
    loss: Losses = None,
    results: Results = Path("results"),
    trials: Annotated[
        int, typer.Option("--trials", min=2, help="Learning rates that every loss is tried at.")
    ] = 8,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Tuning seeds a trial (disjoint from reported seeds).")
    ] = 1,
    parameters: Annotated[
        bool,
        typer.Option(
            "--parameters", help="Search each loss's own declared parameters with as many trials again."
        ),
    ] = False,
    objective: Annotated[
        str, typer.Option("--objective", help="val_dice@val (at the validation threshold) or val_dice@0.5.")
    ] = "val_dice@val",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the choices (default: NAME.tuned.toml beside the experiment)."),
    ] = None,
    workers: options.Workers = None,
    serial: options.Serial = False,
) -> None:
    """Search the learning rate of every loss with the same candidates and budget, on validation images and
    tuning seeds.
    """
    from lossbench.cli import listing
    from lossbench.sweep import run, tuning

    if objective not in tuning.OBJECTIVES:
        raise UserError(f"--objective {objective}: must be one of {', '.join(tuning.OBJECTIVES)}")
    resolved = _resolve(experiment, with_, data, loss, None, tuning=True)
    budget = tuning.Budget(trials=trials, seeds=seeds, parameters=parameters, objective=objective)
    run.open_results(results, say=_say)
    planned = tuning.plan(resolved, budget, results)
    listing.print_plan(planned)
    failed = _train(planned, results, workers=workers, serial=serial)
    file = out or Path(resolved.file).with_name(f"{Path(resolved.file).stem}.tuned.toml")
    chosen = tuning.finish(resolved, budget, results, file)
    listing.print_tuning(chosen, {data.text: label for data, _, label, _ in resolved.datasets})
    _say(f"chosen   {file}\ntrials   {results / 'tuning' / (resolved.name + '.csv')}")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    results: Existing = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    images: Annotated[
        bool,
        typer.Option(
            "--images/--no-images", help="Show pictures of real data; not all licences let them be passed on."
        ),
    ] = True,
) -> None:
    """Write tables, figures and the report again from what is stored; trains nothing."""
    path = _answer(note.reading(results, _say), images)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command()
def figures(results: Existing = None) -> None:
    """Draw every figure from the stored tables; trains nothing."""
    from lossbench.figures import drawing

    folder = note.reading(results, _say)
    paths = drawing.draw_all(folder)
    _say(f"{len(paths)} files in {folder / 'figures'}")


app.command()(cli_results.check)

app.add_typer(cli_results.list_app, name="list")

app.add_typer(cli_data.app, name="data")

app.command()(cli_results.verify)

app.command()(cli_results.merge)


app.command()(cli_results.pack)


def _answer(results: Path, images: bool = True) -> Path:
    """Write tables, figures and report of a results folder, print where they are and the verdicts."""
    from lossbench.report import make

    made = make.make_all(Path(results), images)
    for line in made.lines:
        _say(line)
    return made.report


def _again() -> str:
    import shlex

    return "lossbench " + " ".join(shlex.quote(arg) for arg in sys.argv[1:])


def _say(text: str, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def main() -> None:
    """Run the command line; a user's mistake ends with its sentence and exit code 2, never with a traceback."""
    gc.set_threshold(
        100_000
    )  # a plan of ten thousand cells is no garbage: looking for some took a quarter of its time
    try:
        app()
    except UserError as error:
        _say(f"lossbench: {error}", error=True)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        _say("interrupted", error=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"lossbench: {where}{error.strerror or error}", error=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
