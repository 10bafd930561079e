"""What an experiment file may say: its tables and keys, each with what is allowed.

What stands below a field is its row in docs/experiment.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lossbench.experiment.cells import Recipe, Strict

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$"

Name = Annotated[str, Field(pattern=NAME)]

Seed = Annotated[int, Field(ge=0, lt=2**31)]

Seeds = (
    Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)]
)


# Steps of the trainings: each cell is trained at all of them, and those of one schedule wsd share a trunk.
Lengths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...], Field(min_length=1, max_length=8, strict=False)
]


# Numbers of seeds at which it is looked whether more are needed.
Looks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]


# What the last layer's bias starts from: each cell is trained from each of them.
Heads = Annotated[tuple[Literal["default", "prior"], ...], Field(min_length=1, strict=False)]


class LossItem(Strict):
    """A loss. Its spec alone, `"dice"`, is the short form."""

    use: str
    """The spec: `"tversky(fp_weight=0.3)"`, `"0.5*ce + 0.5*dice"`, `"monai:DiceLoss(sigmoid=True)"`."""
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    """What tables and figures call it; else its spec."""


class DataItem(Strict):
    """A data set. Its spec alone, `"hyta_sky"`, is the short form."""

    use: str
    """The spec: `"scenes(foreground=0.01)"`, `"folder(path='my_folder')"`. A path is taken from the working
    directory or, where nothing is there, from the folder of this file."""
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    """What tables and figures call it; else its spec."""
    optional: bool = False
    """Whether it may be missing: it is then left out, and the report says so."""
    reference: Annotated[float, Field(gt=0, le=1)] | None = None
    """The Dice by which it counts as learnt."""
    reference_source: str = "given in the experiment's file"
    """Where that comes from."""
    recipe: dict[str, Any] = Field(default={})
    """Fields of the recipe that differ for this data set."""


class _Crossed(Strict):
    """Losses x data sets; a short form names them alone."""

    losses: Annotated[tuple[LossItem, ...], Field(strict=False)] = ()
    """Losses, each a spec or a table."""
    datasets: Annotated[tuple[DataItem, ...], Field(strict=False)] = ()
    """Data sets, each a spec or a table."""

    @field_validator("losses", "datasets", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return [{"use": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


class PartItem(_Crossed):
    """One cross, a table `[[part]]`; what it leaves out is taken from the top of the file."""

    name: Name
    """Letters, digits, `_`, `.` and `-`."""
    title: str = ""
    """The question that it answers, for the report."""
    seeds: Seeds | None = None
    """Its own, as at the top."""
    lengths: Lengths | None = None
    """Its own, as at the top."""
    heads: Heads | None = None
    """Its own, as at the top."""
    recipe: dict[str, Any] = Field(default={})
    """Fields of the recipe that differ in this part."""
    fixed: bool = False
    """Whether losses that are added on the command line stay out."""


class ExperimentFile(_Crossed):
    """What stands at the top of the file."""

    name: Name
    """Letters, digits, `_`, `.` and `-`."""
    title: str = ""
    """Heading of the report."""
    seeds: Seeds = 3
    """How many, from 0 up, or a list of them."""
    looks: Looks = ()
    """Numbers of seeds at which decided pairs stop. They increase and end at the number of seeds, and all
    parts have the same seeds."""
    choice: bool = False
    """Whether a loss that is worse than another by more than a point is trained no further; needs `looks`."""
    lengths: Lengths | None = None
    """Up to eight numbers of steps, multiples of the shortest; several need `schedule = "wsd"`."""
    heads: Heads | None = None
    """Starts of the last layer, each trained: `["default", "prior"]`."""
    rates: str | None = None
    """File that `lossbench tune` wrote; else `NAME.chosen.toml` beside this one."""
    recipe: Recipe = Recipe()
    """The table `[recipe]`."""
    part: Annotated[tuple[PartItem, ...], Field(strict=False)] = ()
    """The tables `[[part]]`; without one, the file is a single cross."""
