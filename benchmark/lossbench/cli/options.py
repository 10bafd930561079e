"""Options that several commands share, in groups: a command takes a group, its user types single options.

Each option is listed once, as a field of its group, and checked before anything starts.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from lossbench.base.errors import UserError, nearest
from lossbench.engine.tasks import STACK, EngineOptions

if TYPE_CHECKING:  # the command line starts without what trains
    from lossbench.experiment.cells import Experiment

With = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="FILE",
        help="A Python file with losses (@loss) or networks (@network) of your own; may be repeated.",
    ),
]

Seeds = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", min=1, help="Number of seeds, instead of the experiment's."),
]

Results = Annotated[
    Path, typer.Option("--results", metavar="FOLDER", help="Folder of records, tables, figures and report.")
]

# None and not a folder: which one is read depends on what is there (``note.reading``).
Existing = Annotated[
    Path | None,
    typer.Option(
        "--results",
        metavar="FOLDER",
        help="Folder of results (default: results; without any, the committed study).",
    ),
]


def grouped(command: Callable) -> Callable:
    """Return a command whose parameters of a dataclass type are typed option by option, as typer sees it."""
    # Annotations are texts here (``from __future__``), and what typer reads stands in their extras.
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        group = groups[parameter.name]
        own = get_type_hints(group, include_extras=True)
        for field in dataclasses.fields(group):
            option = {"default": field.default, "annotation": own[field.name]}
            parameters.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, **option))
    # Keyword only, since a group may stand before parameters that have no default.
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]

    # Its name and docstring are the name and the help of the command.
    @functools.wraps(command)
    def typed(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        return command(**given)

    # Typer asks for both: names, defaults and kinds from one, types from the other.
    typed.__signature__ = inspect.Signature(parameters)
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which experiment, and what the command line changes of it."""

    experiment: Annotated[
        str, typer.Argument(help="An experiment file, or the name of one that ships: quick, smoke, paper.")
    ] = "quick"
    with_: With = None
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="PATH|SPEC", help="Your images and masks (a path), or a data set spec."
        ),
    ] = None
    loss: Annotated[
        list[str] | None,
        typer.Option(
            "--loss",
            metavar="SPEC",
            help="One more loss, as a spec such as 'tversky(fp_weight=0.3)'; may be repeated.",
        ),
    ] = None

    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="SPEC",
            help="Train this network instead, as 'smp:Unet', 'unet(widths=[16, 32])', or one of --with.",
        ),
    ] = None
    all_test: Annotated[
        bool,
        typer.Option("--all-test", help="Score all test images, however many pixels they have (20 million)."),
    ] = False

    def resolve(self, seeds: int | None = None, tuning: bool = False) -> Experiment:
        """Read the experiment; UserError with all that is wrong with it."""
        from lossbench.experiment.reading import read_experiment

        # First: losses and data sets of the user's files may be named in all that follows.
        files = own_files(self.with_)
        return read_experiment(
            self.experiment,
            files,
            data=tuple(_data_spec(text, files) for text in self.data or ()),
            seeds=seeds,
            add_losses=tuple(self.loss or ()),
            network=self.network,
            tuning=tuning,
            all_test=self.all_test,
        )


def own_files(given: list[Path] | None) -> tuple[str, ...]:
    """Return the user's own files as typed; UserError where one is not there."""
    for file in given or ():
        if not file.is_file():
            raise UserError(f"--with {file}: there is no such file")
    return tuple(map(str, given or ()))


def _data_spec(text: str, files: tuple[str, ...]) -> str:
    """Return a spec for what the user typed after --data: a path becomes folder(path=...)."""
    from lossbench.catalogue.registry import datasets

    # A shell leaves the ~ of --data=~/images as it is.
    path = Path(text).expanduser()
    # A folder called "scenes" goes before the data set of that name: whoever types a path sees it.
    if text.strip() and path.exists():
        return f"folder(path={str(path.resolve())!r})"
    # What looks like a spec is read by the catalogue, which says better what is wrong with one.
    known = datasets(files)
    if "(" in text or text in known:
        return text
    raise UserError(
        f"--data {text}: there is no such folder or file, and it names no data set ('lossbench data list' "
        f"shows them){nearest(text, known, limit=4)}"
    )


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where to train, as typed."""

    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, help="Worker processes (default: one a core that has 1 GB)."
        ),
    ] = None
    serial: Annotated[
        bool, typer.Option("--serial", help="Train in this process, one stack after the other.")
    ] = False
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="FILE", help="A TOML file that describes a batch system (dask-jobqueue)."
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="Address or scheduler file of a running Dask cluster."
        ),
    ] = None
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="N|LIST", help="Train on GPUs: how many (2), or which (0,1)."),
    ] = None
    per_gpu: Annotated[
        int, typer.Option("--per-gpu", metavar="N", min=1, help="Workers that share each card of --gpus.")
    ] = 1
    # None, so that a cpu that was typed differs from none: only the first contradicts --gpus.
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu (default) or cuda; --gpus means cuda.")
    ] = None
    stack: Annotated[
        str | None,
        typer.Option(
            "--stack",
            metavar="N|auto",
            help="Cells trained together: a number, or auto to try (default: 4; auto on GPUs).",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", metavar="SECONDS", min=1, help="Seconds after which a stack of cells is given up."
        ),
    ] = None
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", metavar="NAME", help="Another way to run tasks, by its name in engine/run.py."
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow --cluster and --scheduler without TLS.")
    ] = False
    logs: Annotated[
        Path | None, typer.Option("--logs", metavar="FOLDER", help="Folder for what workers and jobs print.")
    ] = None

    def options(self) -> EngineOptions:
        """Return what the engine takes; UserError when two options contradict each other, or there is no such
        card.
        """
        self._check()
        device = "cuda" if self.gpus is not None else self.device or "cpu"
        return EngineOptions(
            workers=self.workers,
            serial=self.serial,
            cluster=self.cluster,
            scheduler=self.scheduler,
            gpus=() if self.gpus is None else slots(self.gpus),
            per_gpu=self.per_gpu,
            device=device,
            stack=_stack(self.stack or (str(STACK) if device == "cpu" else "auto")),
            time_limit=self.time_limit,
            engine=self.engine,
            insecure=self.insecure,
            logs=self.logs,
        )

    def _check(self) -> None:
        places = {
            "--serial": self.serial,
            "--cluster": self.cluster,
            "--scheduler": self.scheduler,
            "--gpus": self.gpus,
            "--engine": self.engine,
        }
        # Any two of them contradict each other, so the first two are enough to say so.
        given = [name for name, value in places.items() if value]
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} name two places to train at; give one of them")
        # With --serial one worker is harmless; everywhere else something other sets the number.
        if self.workers is not None and given and not self.serial:
            instead = {
                "--gpus": "--per-gpu sets how many share a GPU",
                "--cluster": "the file's 'jobs' and 'cores' set it",
                "--scheduler": "the scheduler has its own",
                "--engine": "that engine has its own",
            }
            what = f"--workers counts processes of this machine; with {given[0]}"
            raise UserError(f"{what}, {instead[given[0]]}")
        if self.serial and self.logs is not None:
            why = "there are no workers, everything is printed here"
            raise UserError(f"--logs does nothing with --serial: {why}; leave one of the two out")
        if self.device not in (None, "cpu", "cuda"):
            raise UserError(f"--device {self.device}: must be cpu or cuda")
        if self.gpus is None and self.per_gpu != 1:
            raise UserError("--per-gpu needs --gpus, which says on which GPUs")
        if self.gpus is not None and self.device == "cpu":
            raise UserError("--gpus and --device cpu contradict each other; leave one of the two out")
        # Workers of another place have GPUs of their own, which nobody sees from here.
        if self.device == "cuda" and self.gpus is None and not (self.cluster or self.scheduler):
            _visible("--device cuda")


def _stack(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or not 2 <= int(text) <= 10_000:
        raise UserError(f"--stack {text}: write a number of cells, 2 or more, or auto")
    return int(text)


def slots(text: str, visible: Callable[[str], list[str]] | None = None) -> tuple[str, ...]:
    """Return what CUDA_VISIBLE_DEVICES must hold for each GPU that ``text`` names: a number of GPUs, or
    indices joined by commas.

    Indices count the GPUs that this process may use, so that a share given by a batch system is kept.
    """
    # An empty last word is meant: "0," is card 0, where "0" would be no card at all.
    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers = all(word.isdecimal() for word in words) and text.strip() != "0"
    if not words or not numbers or len(set(words)) < len(words):
        raise UserError(
            f"--gpus {text}: write how many GPUs (2), or which ones (0,1; or 0, with a comma for "
            "card 0 alone)"
        )
    there = (visible or _visible)(f"--gpus {text}")
    # "2" counts GPUs, "0,1" lists them.
    wanted = [int(word) for word in words] if "," in text else list(range(int(text)))
    if max(wanted) >= len(there):
        last = f"0 to {len(there) - 1}" if len(there) > 1 else "0"
        known = f"{len(there)} usable GPU{'s' * (len(there) > 1)}"
        raise UserError(f"--gpus {text}: this machine has {known}, number {last}")
    return tuple(there[number] for number in wanted)


def _visible(option: str) -> list[str]:
    """Return how CUDA names the GPUs that this process may use."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        # The commonest reason is a torch that was installed without CUDA, which no driver mends.
        no_gpu_build = torch.version.cuda is None and torch.version.hip is None
        why = "this torch is built for CPUs alone" if no_gpu_build else "torch sees none"
        raise UserError(
            f"{option}: there is no usable GPU here ({why}); leave the option out to train on the CPU"
        )
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    # A batch system that gives a job some of its GPUs names them here, perhaps by their UUID.
    return named[:count] if named else [str(number) for number in range(count)]
