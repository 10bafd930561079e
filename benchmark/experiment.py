"""What is run: the experiment file, the recipe that all losses share, and the cell with its key.

An experiment is a TOML file. Every mistake in it is reported at once, each with file, line, key and the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from benchmark.errors import UserError, nearest
from benchmark.mistakes import line_of, sentences
from benchmark.registry import PATHS, DataSpec, LossSpec, parse_dataset, parse_loss

PROTOCOL = 1  # raised whenever training, scoring or the network changes what the same cell would give

SHIPPED = [Path(__file__).resolve().parent.parent / "experiments", Path(__file__).resolve().parent / "experiments"]


Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Recipe(_Strict):
    """Everything that is identical across losses: network, optimiser, schedule, steps, batches, augmentation."""

    model: Literal["unet"] = "unet"
    widths: Annotated[tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=2, max_length=6, strict=False)] = (8, 16, 32)
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 300
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=100, strict=False)] | Literal["tuned"] = 0.005
    weight_decay: Annotated[float, Field(ge=0, le=1, strict=False)] = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.9
    schedule: Literal["one_cycle", "constant", "poly"] = "one_cycle"
    clip: Annotated[float, Field(gt=0, strict=False)] | None = None
    augment: Literal["none", "flips", "full"] = "flips"
    validations: Annotated[int, Field(ge=1, le=1000)] = 6
    stacked: bool = True

    @property
    def digest(self) -> str:
        """Eight hex digits that name the recipe (not kept on the instance: ``model_copy`` would carry it over to a changed recipe)."""
        return _recipe_digest(self)


@lru_cache(maxsize=4096)
def _recipe_digest(recipe: Recipe) -> str:
    return _digest(recipe.model_dump(mode="json"))[:8]


class LossItem(_Strict):
    use: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None


class DataItem(_Strict):
    use: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    optional: bool = False
    recipe: dict[str, Any] = {}


class ExperimentFile(_Strict):
    """The keys of an experiment file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
    title: str = ""
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = 3
    tuned: str | None = None  # file that `lossbench tune` wrote; default: NAME.tuned.toml beside this one
    losses: Annotated[tuple[LossItem, ...], Field(min_length=1, strict=False)]
    datasets: Annotated[tuple[DataItem, ...], Field(min_length=1, strict=False)]
    recipe: Recipe = Recipe()

    @field_validator("losses", "datasets", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return [{"use": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Cell:
    """One training: a data set variant, a loss with all its parameters, a seed, a recipe."""

    data: DataSpec
    data_identity: str
    data_label: str
    loss: LossSpec
    seed: int
    recipe: Recipe
    learning_rate: float

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits over everything that decides the result, except source code, paths and machines."""
        own = {"loss": self.loss.identity()}
        if self.recipe.learning_rate == "tuned":  # the one part of a recipe that may differ within a block
            own["learning_rate"] = self.learning_rate
        return _digest({**self._shared(), **own})[:16]

    @cached_property
    def block(self) -> str:
        """Eight hex digits shared by all cells that start from the same weights and see the same batches."""
        return _digest(self._shared())[:8]

    def _shared(self) -> dict:
        return {
            "protocol": PROTOCOL,
            "data": [self.data.name, {k: v for k, v in self.data.params.items() if k not in PATHS}, self.data_identity],
            "seed": self.seed,
            "recipe": self.recipe.digest,
        }


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: what its file says, and the cells that follow from it, in complete-block order."""

    name: str
    title: str
    seeds: tuple[int, ...]
    losses: tuple[LossSpec, ...]
    datasets: tuple[tuple[DataSpec, str, str, Recipe], ...]  # spec, identity, label, recipe
    skipped: tuple[str, ...]  # sentences about optional data sets that are not at hand
    extra_files: tuple[str, ...]
    file: str
    rates: dict[tuple[str, str], float] | None = None  # (data set, loss) -> tuned learning rate

    def cells(self) -> list[Cell]:
        """Return all cells; block after block (seeds outermost), so that an interrupted sweep holds complete comparisons."""
        return [
            Cell(data, identity, label, loss, seed, recipe, self.rate(data, loss, recipe))
            for seed in self.seeds
            for data, identity, label, recipe in self.datasets
            for loss in self.losses
        ]

    def rate(self, data: DataSpec, loss: LossSpec, recipe: Recipe) -> float:
        """Return the peak learning rate of a loss on a data set: the recipe's, or the tuned one."""
        return (self.rates or {})[data.text, loss.text] if recipe.learning_rate == "tuned" else recipe.learning_rate


def find_experiment(name: str | Path) -> Path:
    """Return the file of an experiment given by path, or by name among those that ship with lossbench."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for folder in SHIPPED if folder.is_dir() for file in sorted(folder.glob("*.toml"))}
    shipped = {name: file for name, file in shipped.items() if name != "claims" and not name.endswith(".tuned")}
    if path.suffix in ("", ".toml") and path.stem in shipped and len(path.parts) <= 2:
        return shipped[path.stem]
    raise UserError(f"no experiment file '{name}'{nearest(path.stem, shipped)}")


def read_experiment(
    name: str | Path,
    extra_files: tuple[str, ...] = (),
    *,
    data: tuple[str, ...] = (),
    seeds: int | None = None,
    add_losses: tuple[str, ...] = (),
    tuning: bool = False,
) -> Experiment:
    """Read and resolve an experiment file; ``data`` replaces its data sets, ``add_losses`` and ``extra_files`` add to its losses.

    ``tuning`` leaves tuned learning rates open: that is when they are about to be searched.
    """
    path = find_experiment(name)
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        raise UserError(f"{path}:{place[1] if place else 1}: not valid TOML ({str(error).split(' (at')[0]})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    if data:
        raw["datasets"] = list(data)
    if seeds is not None:
        raw["seeds"] = seeds
    try:
        parsed = ExperimentFile.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(sentences(error, path, text, _keys_at))) from None
    return _resolve(parsed, path, text, extra_files, add_losses, tuning, bool(data))


def _resolve(
    parsed: ExperimentFile, path: Path, text: str, extra_files: tuple[str, ...], add_losses: tuple[str, ...],
    tuning: bool = False, given_data: bool = False,
) -> Experiment:  # fmt: skip
    from benchmark.data.identity import identity
    from benchmark.data.prepare import missing
    from benchmark.registry import losses as known_losses

    problems: list[str] = []

    def at(key: str, index: int, use: str, error: UserError) -> None:
        typed = "--data" if key == "datasets" and given_data else "--loss" if key == "losses" and index >= len(parsed.losses) else ""
        place = f"{typed} {use}" if typed else f"{path}:{line_of(text, [key, use])}: {key}[{index}]"
        problems.append(f"{place}: {error}")

    resolved: list[LossSpec] = []
    items = list(parsed.losses) + [LossItem(use=use) for use in add_losses]
    own = {str(Path(file).resolve()) for file in extra_files}
    items += [LossItem(use=e.name) for e in known_losses(extra_files).values() if str(e.file.resolve()) in own]
    for index, item in enumerate(items):
        try:
            spec = parse_loss(item.use, extra_files, item.label or "")
        except UserError as error:
            at("losses", index, item.use, error)
            continue
        if spec.text in {other.text for other in resolved}:
            if index < len(parsed.losses):
                at("losses", index, item.use, UserError(f"'{spec.text}' stands twice"))
            continue
        if spec.label in {other.label for other in resolved}:
            at("losses", index, item.use, UserError(f"the label '{spec.label}' stands twice"))
            continue
        resolved.append(spec)

    variants: list[tuple[DataSpec, str, str, Recipe]] = []
    skipped: list[str] = []
    for index, item in enumerate(parsed.datasets):
        try:
            spec = parse_dataset(item.use, extra_files)
            recipe = Recipe.model_validate({**parsed.recipe.model_dump(), **item.recipe})
            why = missing(spec)
            if why and item.optional:
                skipped.append(f"{item.use} is left out: {why}")
                continue
            if why:
                raise UserError(why)
            variant = (spec, identity(spec), item.label or spec.public.text, recipe)
        except UserError as error:
            at("datasets", index, item.use, error)
            continue
        except ValidationError as error:
            problems.extend(sentences(error, path, text, _keys_at, f"datasets[{index}].recipe"))
            continue
        if spec.public.text in {v[0].public.text for v in variants if v[0].text != spec.text}:
            at("datasets", index, item.use, UserError(f"another data set is called '{spec.public.text}' too; rename one of the folders"))
            continue
        if (spec.text, recipe.digest) in {(v[0].text, v[3].digest) for v in variants}:
            at("datasets", index, item.use, UserError(f"'{spec.text}' stands twice"))
            continue
        variants.append(variant)
    if problems:
        raise UserError("\n".join(problems))
    if not variants:
        raise UserError(f"{path}: none of its data sets is at hand; " + "; ".join(skipped))
    rates = None
    if not tuning and any(recipe.learning_rate == "tuned" for *_, recipe in variants):
        from benchmark.tuned import read_rates

        file = path.parent / parsed.tuned if parsed.tuned else path.with_name(f"{path.stem}.tuned.toml")
        rates = read_rates(file, [(v[0].text, loss.text) for v in variants if v[3].learning_rate == "tuned" for loss in resolved])
    seeds = tuple(range(parsed.seeds)) if isinstance(parsed.seeds, int) else parsed.seeds
    if len(set(seeds)) != len(seeds):
        raise UserError(f"{path}:{line_of(text, ['seeds'])}: seeds: a seed stands twice")
    return Experiment(
        parsed.name, parsed.title, seeds, tuple(resolved), tuple(variants), tuple(skipped), tuple(map(str, extra_files)), str(path), rates
    )  # fmt: skip


def _keys_at(place: list, prefix: str) -> list[str]:
    names = [str(p) for p in place[:-1] if not isinstance(p, int)]
    model = Recipe if prefix or names[:1] == ["recipe"] else {"losses": LossItem, "datasets": DataItem}.get(names[0] if names else "", ExperimentFile)
    return list(model.model_fields)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()
