"""Reading experiment files: TOML into losses, data sets, seeds and recipes, every name resolved.

Every mistake in a file is reported at once, each with file, line, key and the nearest valid name.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from lossbench.base.errors import UserError, nearest
from lossbench.base.files import write_atomically
from lossbench.catalogue.registry import DataSpec, LossSpec, parse_dataset, parse_loss
from lossbench.experiment.cells import Experiment, Part, Recipe, Strict

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = [PACKAGE.parents[1] / "experiments", PACKAGE / "experiments"]  # of a checkout, of a wheel

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]

Seed = Annotated[int, Field(ge=0, lt=2**31)]

Seeds = (
    Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)]
)

Variant = tuple[DataSpec, str, str, Recipe]


class LossItem(Strict):
    """A loss by its spec, and the name that tables and figures give it."""

    use: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None


class DataItem(Strict):
    """A data set by its spec, its name, and what its recipe changes."""

    use: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    optional: bool = False
    recipe: dict[str, Any] = Field(default={})


class _Crossed(Strict):
    """Losses x data sets; a short form names them alone."""

    losses: Annotated[tuple[LossItem, ...], Field(strict=False)] = ()
    datasets: Annotated[tuple[DataItem, ...], Field(strict=False)] = ()

    @field_validator("losses", "datasets", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return [{"use": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


class PartItem(_Crossed):
    """One cross of an experiment; what it leaves out is taken from the top of the file."""

    name: Name
    title: str = ""  # the question that it answers, for the report
    seeds: Seeds | None = None
    recipe: dict[str, Any] = Field(default={})
    fixed: bool = False  # losses that are added on the command line do not join


class ExperimentFile(_Crossed):
    """The keys of an experiment file."""

    name: Name
    title: str = ""
    seeds: Seeds = 3
    tuned: str | None = None  # file that `lossbench tune` wrote; default: NAME.tuned.toml beside this one
    recipe: Recipe = Recipe()
    part: Annotated[tuple[PartItem, ...], Field(strict=False)] = ()


def find_experiment(name: str | Path) -> Path:
    """Return the file of an experiment given by path, or by name among those that ship with lossbench."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = {
        file.stem: file for folder in SHIPPED if folder.is_dir() for file in sorted(folder.glob("*.toml"))
    }
    shipped = {
        name: file for name, file in shipped.items() if name != "claims" and not name.endswith(".tuned")
    }
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
    """Read and resolve an experiment file; ``data`` replaces its data sets, ``add_losses`` and
    ``extra_files`` add to its losses.

    ``tuning`` leaves tuned learning rates open: that is when they are about to be searched.
    """
    path = find_experiment(name)
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        raise UserError(
            f"{path}:{place[1] if place else 1}: not valid TOML ({str(error).split(' (at')[0]})"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None
    if data:
        raw = _on_other_data(raw, data)
    if seeds is not None:
        raw["seeds"] = seeds
        for part in raw.get("part", []) if isinstance(raw.get("part"), list) else []:
            part.pop("seeds", None)
    try:
        parsed = ExperimentFile.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(sentences(error, path, text, _keys_at))) from None
    return _Reading(parsed, path, text, extra_files, add_losses, bool(data)).experiment(tuning)


def _on_other_data(raw: dict[str, Any], data: tuple[str, ...]) -> dict[str, Any]:
    """Return the file's content as one cross on the data sets that the command line names; without losses of
    its own, with those of all parts.
    """
    parts = raw.get("part") if isinstance(raw.get("part"), list) else []
    losses = raw.get("losses") or [
        loss for part in parts if isinstance(part, dict) for loss in part.get("losses", [])
    ]
    kept = {str(loss.get("use") if isinstance(loss, dict) else loss): loss for loss in losses}
    return {key: value for key, value in raw.items() if key != "part"} | {
        "datasets": list(data),
        "losses": list(kept.values()),
    }


class _Reading:
    """One file on its way to an experiment: collects what is wrong, resolves every spec once."""

    def __init__(
        self,
        parsed: ExperimentFile,
        path: Path,
        text: str,
        extra_files: tuple[str, ...],
        add_losses: tuple[str, ...],
        given_data: bool,
    ):
        self.parsed, self.path, self.text, self.extra_files, self.given_data = (
            parsed,
            path,
            text,
            tuple(map(str, extra_files)),
            given_data,
        )
        self.problems: list[str] = []
        self.skipped: list[str] = []
        self.added = [LossItem(use=use) for use in add_losses] + _own_losses(extra_files)

    def experiment(self, tuning: bool) -> Experiment:
        """Return the experiment; UserError with every mistake found."""
        parsed = self.parsed
        items = parsed.part or (PartItem(name=parsed.name),)
        parts = [
            part
            for number, item in enumerate(items)
            if (part := self._part(item, f"part[{number}]." if parsed.part else ""))
        ]
        names = [part.name for part in parts]
        self.problems += [
            f"{self.path}: two parts are called '{name}'"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        self._names(parts)
        parts = self._labelled(parts)
        if self.problems:
            raise UserError("\n".join(dict.fromkeys(self.problems)))
        if not parts:
            raise UserError(f"{self.path}: none of its data sets is at hand; " + "; ".join(self.skipped))
        found = Experiment(
            parsed.name,
            parsed.title,
            tuple(parts),
            tuple(dict.fromkeys(self.skipped)),
            self.extra_files,
            str(self.path),
        )
        return found if tuning else replace(found, rates=self._rates(found))

    def _part(self, item: PartItem, where: str) -> Part | None:
        """Return one part, or None where none of its data sets is at hand."""
        listed = {key: getattr(item, key) or getattr(self.parsed, key) for key in ("losses", "datasets")}
        for key, values in listed.items():
            if not values:
                self.problems.append(
                    f"{self.path}:{line_of(self.text, [item.name] if where else [])}: {where}{key}: "
                    "is missing"
                )
        losses = self._losses(
            listed["losses"], () if item.fixed else self.added, "" if not item.losses else where
        )
        datasets = self._datasets(item, listed["datasets"], "" if not item.datasets else where)
        seeds = item.seeds if item.seeds is not None else self.parsed.seeds
        seeds = tuple(range(seeds)) if isinstance(seeds, int) else seeds
        if len(set(seeds)) != len(seeds):
            self.problems.append(
                f"{self.path}:{line_of(self.text, ['seeds'])}: {where}seeds: a seed stands twice"
            )
        return Part(item.name, seeds, losses, datasets, item.title, item.fixed) if datasets else None

    def _wrong(self, key: str, number: int, use: str, error: object, typed: str = "") -> None:
        place = (
            f"{typed} {use}"
            if typed
            else f"{self.path}:{line_of(self.text, [key.split('.')[-1], use])}: {key}[{number}]"
        )
        self.problems.append(f"{place}: {error}")

    def _losses(
        self, items: tuple[LossItem, ...], added: list[LossItem] | tuple, where: str
    ) -> tuple[LossSpec, ...]:
        found: dict[str, LossSpec] = {}
        for number, item in enumerate([*items, *added]):
            typed = "--loss" if number >= len(items) else ""
            try:
                spec = parse_loss(item.use, self.extra_files, item.label or "")
                if spec.text in found:
                    if typed:
                        continue
                    raise UserError(f"'{spec.text}' stands twice")
            except UserError as error:
                self._wrong(f"{where}losses", number, item.use, error, typed)
                continue
            found[spec.text] = spec
        return tuple(found.values())

    def _datasets(self, part: PartItem, items: tuple[DataItem, ...], where: str) -> tuple[Variant, ...]:
        from lossbench.data.identity import identity
        from lossbench.data.prepare import missing

        found: dict[tuple[str, str], Variant] = {}
        for number, item in enumerate(items):
            typed = "--data" if self.given_data else ""
            try:
                spec = parse_dataset(item.use, self.extra_files)
                recipe = Recipe.model_validate(
                    {**self.parsed.recipe.model_dump(), **part.recipe, **item.recipe}
                )
                why = missing(spec)
                if why and item.optional:
                    self.skipped.append(f"{item.use} is left out: {why}")
                    continue
                if why:
                    raise UserError(why)
                if (spec.text, recipe.digest) in found:
                    raise UserError(f"'{spec.text}' stands twice")
                found[spec.text, recipe.digest] = (
                    spec,
                    identity(spec),
                    item.label or spec.public.text,
                    recipe,
                )
            except UserError as error:
                self._wrong(f"{where}datasets", number, item.use, error, typed)
            except ValidationError as error:
                place = f"{where}datasets[{number}].recipe" if item.recipe else f"{where}recipe"
                self.problems += sentences(error, self.path, self.text, _keys_at, place)
        return tuple(found.values())

    def _labelled(self, parts: list[Part]) -> list[Part]:
        """Return the parts with labels that also tell the recipes of one data set apart, by what each changes
        of the file's own recipe.
        """
        recipes: dict[str, set[str]] = {}
        for part in parts:
            for _, _, label, recipe in part.datasets:
                recipes.setdefault(label, set()).add(recipe.digest)
        usual = self.parsed.recipe.model_dump()

        def name(label: str, recipe: Recipe) -> str:
            changes = (
                [f"{key} {value}" for key, value in recipe.model_dump().items() if value != usual[key]]
                if len(recipes[label]) > 1
                else []
            )
            return ", ".join([label, *changes])

        return [
            replace(part, datasets=tuple((*v[:2], name(v[2], v[3]), v[3]) for v in part.datasets))
            for part in parts
        ]

    def _names(self, parts: list[Part]) -> None:
        """A name must mean one thing in all parts: tables and figures know losses and data sets by it."""
        names: dict[str, str] = {}
        folders: dict[str, str] = {}
        for part in parts:
            for loss in part.losses:
                if names.setdefault(loss.label, loss.text) != loss.text:
                    self.problems.append(f"{self.path}: the label '{loss.label}' stands twice")
            for spec, *_ in part.datasets:
                if folders.setdefault(spec.public.text, spec.text) != spec.text:
                    where = "--data" if self.given_data else f"{self.path}:"
                    self.problems.append(
                        f"{where} {spec.text}: another data set is called '{spec.public.text}' too; "
                        "rename one of the folders"
                    )

    def _rates(self, found: Experiment) -> dict[tuple[str, str], float] | None:
        wanted = [
            (v[0].text, loss.text)
            for part in found.parts
            for v in part.datasets
            if v[3].learning_rate == "tuned"
            for loss in part.losses
        ]
        if not wanted:
            return None

        file = (
            self.path.parent / self.parsed.tuned
            if self.parsed.tuned
            else self.path.with_name(f"{self.path.stem}.tuned.toml")
        )
        return read_rates(file, list(dict.fromkeys(wanted)))


def _own_losses(extra_files: tuple[str, ...]) -> list[LossItem]:
    """Return the losses that stand in the user's own files."""
    from lossbench.catalogue.registry import losses as known_losses

    own = {str(Path(file).resolve()) for file in extra_files}
    return [
        LossItem(use=entry.name)
        for entry in known_losses(extra_files).values()
        if str(entry.file.resolve()) in own
    ]


def _keys_at(place: list, prefix: str) -> list[str]:
    names = [str(p) for p in place[:-1] if not isinstance(p, int)]
    inside = names[-1] if names else ""
    model = (
        Recipe
        if prefix or inside == "recipe"
        else {"losses": LossItem, "datasets": DataItem, "part": PartItem}.get(inside, ExperimentFile)
    )
    return list(model.model_fields)


# --- What is wrong in an experiment file, as sentences for its author: with file, line, key and the
# nearest valid name.


def sentences(
    error: ValidationError, path: Path, text: str, keys_at: Callable[[list, str], list[str]], prefix: str = ""
) -> list[str]:
    """Return one line per mistake: ``file:line: key: what is wrong`` with the nearest valid key.

    ``keys_at(place, prefix)`` names the keys that are valid where an unknown one stands.
    """
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        # Union branches and validators add their own words to the location; only keys and indices stand in
        # the file.
        place = [p for p in item["loc"] if isinstance(p, int) or re.fullmatch(r"[A-Za-z_]\w*", str(p))]
        place = [p for p in place if p not in ("int", "tuple", "float", "constrained")]
        key = prefix
        for part in place:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        line = line_of(text, [str(p) for p in place if not isinstance(p, int)])
        if item["type"] == "extra_forbidden":
            last = str(item["loc"][-1])  # whatever the user wrote, also what is no plain word
            key = key if place and str(place[-1]) == last else f"{key}.{last}" if key else last
            message = f"unknown key{nearest(last, keys_at(place, prefix))}"
        elif item["type"] == "missing":
            message = "is missing"
        else:
            got = item.get("input")
            shown = f" (got {str(got)[:60]!r})" if isinstance(got, str) else f" (got {str(got)[:60]})"
            message = item["msg"].removeprefix("Value error, ") + shown
        lines.setdefault(key, f"{path}:{line}: {key or 'file'}: {message}")
    # A list with a wrong item is also reported as a whole; the item says it better.
    return [
        sentence for key, sentence in lines.items() if not any(other.startswith(f"{key}[") for other in lines)
    ]


def line_of(text: str, names: list[str]) -> int:
    """Return the line where the last of the names first stands after the others; TOML readers keep no line
    numbers.
    """
    lines, start, found = text.splitlines(), 0, 1
    for name in names:
        for number in range(start, len(lines)):
            if name in lines[number]:
                start, found = number, number + 1
                break
    return found


# --- The file that ``lossbench tune`` writes and experiments name: for each data set and loss the
# learning rate that the same budget found. [budget] what every loss was given: trials, tuning seeds,
# sampler, range, objective [[chosen]] data, loss, learning_rate, objective, edge (the optimum lies at the
# end of the range), trials


def read_rates(file: Path, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Return (data set, loss) -> learning rate; UserError when the file or one of the wanted pairs is
    missing.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        rates = {(item["data"], item["loss"]): float(item["learning_rate"]) for item in raw["chosen"]}
    except FileNotFoundError:
        raise UserError(
            f"learning_rate = \"tuned\" needs {file}, which is not there; 'lossbench tune' writes it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: is not a file that 'lossbench tune' wrote ({type(error).__name__}: {error})"
        ) from None
    for data, loss in wanted:
        rate = rates.get((data, loss))
        if rate is None:
            raise UserError(
                f"{file}: has no learning rate for loss '{loss}' on '{data}'; 'lossbench tune' on "
                "this experiment adds it"
            )
        if not 0 < rate < float("inf"):
            raise UserError(
                f"{file}: the learning rate of loss '{loss}' on '{data}' must be positive, it is {rate}"
            )
    return rates


def write(file: Path, budget: dict[str, Any], chosen: list[dict[str, Any]]) -> None:
    """Write the file atomically: a header for the reader, the budget, one table for each choice."""
    lines = [
        "# Written by `lossbench tune`; every loss had the same candidates and the same number of trials.",
        "[budget]",
    ]
    lines += [f"{key} = {_toml(value)}" for key, value in budget.items()]
    for item in chosen:
        lines += ["", "[[chosen]]", *(f"{key} = {_toml(value)}" for key, value in item.items())]
    try:
        write_atomically(file, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}" if "." in f"{value:.6g}" or "e" in f"{value:.6g}" else f"{value:.6g}.0"
    return json.dumps(value, ensure_ascii=False)
