"""The command line, put together: parse, call, print. Everything heavy is imported inside the command that
needs it.
"""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from lossbench.base.errors import UserError
from lossbench.cli import catalogue, data, experiments, plan, results
from lossbench.cli.options import grouped
from lossbench.cli.results import say

app = typer.Typer(
    name="lossbench",
    help="Which segmentation loss, and why? Identical networks, identical batches, every loss.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback is for a report of a fault: plain, as Python prints it.
    pretty_exceptions_enable=False,
    # Brackets in a help text are meant as they stand.
    rich_markup_mode=None,
)

for command in (
    experiments.sweep,
    plan.plan,
    plan.status,
    experiments.tune,
    experiments.export,
):
    app.command()(grouped(command))
for command in (data.inspect, results.report, results.figures, catalogue.check):
    app.command()(command)
app.add_typer(catalogue.app, name="list")
app.add_typer(data.app, name="data")
for command in (results.verify, results.merge, results.pack):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        from lossbench import __version__

        say(f"lossbench {__version__}")
        raise typer.Exit


@app.callback()
def _any(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends with its sentence and exit code 2, without a traceback."""
    # A plan of ten thousand cells is no garbage: looking for some took a quarter of its time.
    gc.set_threshold(100_000)
    try:
        app()
    except UserError as error:
        say(f"lossbench: {error}", error=True)
        # 2, as any command line says that it was misused.
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        say("interrupted", error=True)
        # 128 + SIGINT, as shells have it.
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read has enough, as `head` does; Python would complain of it at its end.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        # What nobody foresaw of a file is a sentence all the same.
        where = f"{error.filename}: " if error.filename else ""
        say(f"lossbench: {where}{error.strerror or error}", error=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
