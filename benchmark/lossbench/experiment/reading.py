"""Reading experiment files: TOML into losses, data sets, seeds and recipes, every name resolved.

Every mistake in a file is reported at once, each with file, line, key and the nearest valid name.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossbench.base.errors import UserError, nearest
from lossbench.base.files import file_hash
from lossbench.base.specs import network_named, render
from lossbench.catalogue.registry import PATHS, DataSpec, LossSpec, parse_dataset, parse_loss, parse_network
from lossbench.catalogue.registry import losses as known_losses
from lossbench.experiment.cells import PLACES, Experiment, Part, Recipe, Variant
from lossbench.experiment.form import DataItem, ExperimentFile, LossItem, PartItem
from lossbench.experiment.mistakes import line_of, sentences
from lossbench.experiment.rates import Rates
from lossbench.experiment.rates import read as read_rates

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = [PACKAGE.parents[1] / "experiments", PACKAGE / "experiments"]  # of a checkout, of a wheel

ALPHA = 0.05


def find_experiment(name: str | Path) -> Path:
    """Return the file of an experiment given by path, or by name among those that ship with lossbench."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_experiments()
    # "quick", "quick.toml" and "experiments/quick.toml" name what ships; a longer path is the user's own.
    if path.suffix in ("", ".toml") and path.stem in shipped and len(path.parts) <= 2:
        return shipped[path.stem]
    # Files at hand count too: one of the user's may be mistyped.
    folders = path.parent, Path(), Path("experiments")
    known = {file.stem: str(file) for folder in folders for file in _experiments_in(folder)}
    known |= {title: title for title in shipped}
    near = nearest(path.stem, known.values(), key=lambda choice: Path(choice).stem)
    raise UserError(f"no experiment file '{name}'{near}")


def shipped_experiments() -> dict[str, Path]:
    """Return the experiment files that come with lossbench, by name."""
    return {file.stem: file for folder in SHIPPED for file in _experiments_in(folder)}


def _experiments_in(folder: Path) -> list[Path]:
    # Beside them lie the claims, and what tuning chose.
    others = ("claims", ".chosen", ".parameters", "pyproject")
    return [file for file in sorted(folder.glob("*.toml")) if not file.stem.endswith(others)]


def read_experiment(
    name: str | Path,
    extra_files: tuple[str, ...] = (),
    *,
    data: tuple[str, ...] = (),
    seeds: int | None = None,
    add_losses: tuple[str, ...] = (),
    network: str | None = None,
    tuning: bool = False,
    all_test: bool = False,
) -> Experiment:
    """Read and resolve an experiment file; ``data`` replaces its data sets and ``network`` its networks,
    ``add_losses`` and ``extra_files`` add to its losses, ``all_test`` lifts the budget of test pixels.

    ``tuning`` leaves learning rates open: that is when they are about to be searched.
    """
    path = find_experiment(name)
    text, raw = _toml(path)
    if data:
        raw = _on_other_data(raw, data)
    if seeds is not None:  # in all parts
        raw["seeds"] = seeds
        if isinstance(raw.get("looks"), list):  # as far as they go, and one at the end
            raw["looks"] = [*(n for n in raw["looks"] if isinstance(n, int) and n < seeds), seeds]
        for part in raw.get("part", []) if isinstance(raw.get("part"), list) else []:
            part.pop("seeds", None)
    if network is not None:
        _with_network(raw, network, tuple(map(str, extra_files)))
    if all_test and isinstance(raw.setdefault("recipe", {}), dict):
        raw["recipe"]["all_test"] = True
    try:
        parsed = ExperimentFile.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(sentences(error, path, text))) from None
    return _Reading(parsed, path, text, extra_files, add_losses, bool(data), tuning).experiment()


def _toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file and what it says."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        why = str(error).split(" (at")[0]
        raise UserError(f"{path}:{place[1] if place else 1}: not valid TOML ({why})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply") from None


def _on_other_data(raw: dict[str, Any], data: tuple[str, ...]) -> dict[str, Any]:
    """Return the file's content as one cross on the data sets that the command line names; without losses of
    its own, with those of all parts.
    """
    listed = raw.get("losses")
    if not listed:
        listed = []
        for part in raw.get("part") if isinstance(raw.get("part"), list) else []:
            listed += part.get("losses", []) if isinstance(part, dict) else []
    once = {str(loss.get("use") if isinstance(loss, dict) else loss): loss for loss in listed}
    whole = {key: value for key, value in raw.items() if key != "part"}
    return whole | {"datasets": list(data), "losses": list(once.values())}


def _with_network(raw: dict[str, Any], network: str, files: tuple[str, ...]) -> None:
    """Put one network in the place of all that the file names; UserError where there is no such network."""
    try:
        parse_network(network, files)
    except UserError as error:
        raise UserError(f"--network {network}: {error}") from None
    parts = _tables(raw, "part")
    holders = [raw, *parts, *(data for holder in (raw, *parts) for data in _tables(holder, "datasets"))]
    for recipe in (holder.get("recipe") for holder in holders):
        if isinstance(recipe, dict):
            for key in ("network", "widths", "weights", "weights_hash"):
                recipe.pop(key, None)
    # A recipe that is no table is refused with the rest of the file.
    if isinstance(raw.setdefault("recipe", {}), dict):
        raw["recipe"]["network"] = network


def _tables(raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = raw.get(key)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


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
        tuning: bool,
    ):
        self.parsed, self.path, self.text, self.given_data = parsed, path, text, given_data
        self.tuning = tuning
        self.extra_files = tuple(map(str, extra_files))
        self.problems: list[str] = []
        self.skipped: list[str] = []
        self.references: dict[str, tuple[float, str]] = {}
        # Losses of the command line join every part that is not fixed.
        self.added = [LossItem(use=use) for use in add_losses] + _own_losses(self.extra_files)

    def experiment(self) -> Experiment:
        """Return the experiment; UserError with every mistake in the file."""
        parsed = self.parsed
        if parsed.part:
            parts = [self._part(item, f"part[{number}].") for number, item in enumerate(parsed.part)]
        else:
            parts = [self._part(PartItem(name=parsed.name), "")]
        parts = [part for part in parts if part is not None]
        self._check_names(parts)
        parts = self._labelled(parts)
        self._check_looks(parts)
        owns = [part for part in parts if _trains_at_own(part)] if not self.tuning else []
        for part in owns:
            self._check_own_rates(part)
        if self.problems:
            raise UserError("\n".join(dict.fromkeys(self.problems)))
        skipped = tuple(dict.fromkeys(self.skipped))
        if not parts:
            raise UserError(f"{self.path}: none of its data sets is at hand; " + "; ".join(skipped))
        rates = self.rates if owns else None
        return Experiment(
            parsed.name,
            parsed.title,
            tuple(parts),
            skipped,
            self.extra_files,
            str(self.path),
            rates,
            self.references,
            parsed.looks,
            parsed.choice,
        )

    def _part(self, item: PartItem, where: str) -> Part | None:
        """Return one part, or None where none of its data sets is at hand."""
        losses, datasets = (item.losses or self.parsed.losses), (item.datasets or self.parsed.datasets)
        for key, listed in (("losses", losses), ("datasets", datasets)):
            if not listed:
                self._wrong([item.name] if where else [], f"{where}{key}", "is missing, or an empty list")
        added = [] if item.fixed else self.added
        specs = self._losses(losses, added, where if item.losses else "")
        variants = self._datasets(item, datasets, where if item.datasets else "")
        seeds = item.seeds if item.seeds is not None else self.parsed.seeds
        seeds = tuple(range(seeds)) if isinstance(seeds, int) else seeds
        if len(set(seeds)) != len(seeds):
            self._wrong(["seeds"], f"{where}seeds", "a seed stands twice")
        return Part(item.name, seeds, specs, variants, item.title, item.fixed) if variants else None

    def _check_looks(self, parts: list[Part]) -> None:
        """Note what is wrong with the looks of a sequential experiment."""
        looks, losses = self.parsed.looks, max((len(part.losses) for part in parts), default=0)
        if not looks:
            return self._wrong(["choice"], "choice", "needs looks") if self.parsed.choice else None
        seeds = {part.seeds for part in parts}
        counts = {len(own) for own in seeds}
        if list(looks) != sorted(set(looks)):
            what = f"{list(looks)} do not increase"
        elif len(seeds) > 1:
            what = "all parts need the same seeds"
        elif any(list(own) != sorted(own) for own in seeds):
            what = "the seeds must increase, too: the first look takes the first of them"
        elif counts and looks[-1] != max(counts):
            what = (
                f"the last one is at {looks[-1]} seeds, and there are {max(counts)}: end with {max(counts)}"
            )
        elif losses and losses < 2:
            what = "there is one loss only, and nothing to decide"
        elif len(looks) > 1 and reach(looks, losses) >= ALPHA:
            first = next(n for n in range(looks[0], 64) if reach((n, *looks[1:]), losses) < ALPHA)
            what = (
                f"with {losses} losses no pair can be decided at {looks[0]} seeds (smallest p "
                f"{reach(looks, losses):.2g}, over all pairs and looks); begin with {first}"
            )
        else:
            return
        self._wrong(["looks"], "looks", what)

    def _wrong(self, names: list[str], key: str, what: object, typed: str = "") -> None:
        """Note a mistake: where the last of these names stands in the file, or the option that was typed."""
        place = typed or f"{self.path}:{line_of(self.text, names)}: {key}"
        self.problems.append(f"{place}: {what}")

    def _losses(self, items: tuple[LossItem, ...], added: list[LossItem], where: str) -> tuple[LossSpec, ...]:
        specs: dict[str, LossSpec] = {}
        for number, item in enumerate([*items, *added]):
            typed = f"--loss {item.use}" if number >= len(items) else ""
            try:
                spec = parse_loss(item.use, self.extra_files, item.label or "")
                if spec.text in specs and typed:  # it is there already: nothing to add
                    continue
                if spec.text in specs:
                    raise UserError(f"'{spec.text}' stands twice")
            except UserError as error:
                self._wrong(["losses", item.use], f"{where}losses[{number}]", error, typed)
            else:
                specs[spec.text] = spec
        return tuple(specs.values())

    def _datasets(self, part: PartItem, items: tuple[DataItem, ...], where: str) -> tuple[Variant, ...]:
        variants: dict[tuple[str, str], Variant] = {}
        for number, item in enumerate(items):
            key = f"{where}datasets[{number}]"
            try:
                for variant in self._variants(part, item):
                    kind = variant.data.text, variant.recipe.digest
                    if kind in variants:
                        raise UserError(f"'{variant.data.text}' stands twice")
                    variants[kind] = variant
            except UserError as error:
                typed = f"--data {item.use}" if self.given_data else ""
                self._wrong(["datasets", item.use], key, error, typed)
            except ValidationError as error:
                place = f"{key}.recipe" if item.recipe else f"{where}recipe"
                self.problems += sentences(error, self.path, self.text, place)
        return tuple(variants.values())

    def _variants(self, part: PartItem, item: DataItem) -> list[Variant]:
        """Return a data set under its recipe, from each head, at each length; none where it is optional and
        not at hand.
        """
        from lossbench.data.prepare import identity, missing

        spec = self._placed(parse_dataset(item.use, self.extra_files))
        usual = self._recipe(part.recipe, item.recipe)
        lengths = part.lengths or self.parsed.lengths or (usual.steps,)
        fields = usual.model_dump()
        recipes = [
            Recipe.model_validate({**fields, "head": head, "steps": steps})
            for head in part.heads or self.parsed.heads or (usual.head,)
            for steps in lengths
        ]
        _check_lengths(lengths, max(recipes, key=lambda recipe: recipe.steps))
        why = missing(spec)
        if why and not item.optional:
            raise UserError(why)
        if why:
            self.skipped.append(f"{item.use} is left out: {why}")
            return []
        if item.reference is not None:
            self.references[spec.text] = item.reference, item.reference_source
        mark, label = identity(spec), item.label or spec.public.text
        return [Variant(spec, mark, label, recipe) for recipe in recipes]

    def _placed(self, spec: DataSpec) -> DataSpec:
        """Return a data set whose folder, where the working directory has none of that path, is taken from
        the folder of the experiment file.
        """
        found = {}
        for name in PATHS:
            own = str(spec.given.get(name) or "")
            beside = self.path.parent / own
            if own and not self.given_data and not Path(own).expanduser().exists() and beside.exists():
                found[name] = os.path.abspath(beside)
        return parse_dataset(render(spec.name, spec.given | found), self.extra_files) if found else spec

    def _recipe(self, *changes: dict[str, Any]) -> Recipe:
        """Return the file's recipe with the changes of a part and of a data set; its network is resolved, its
        weights are found.
        """
        fields = self.parsed.recipe.model_dump()
        for change in changes:
            if "widths" in change and "network" not in change:
                fields["network"] = None  # our U-Net again
            if "network" in change and "widths" not in change:
                del fields["widths"]
            fields |= change
        recipe = Recipe.model_validate(fields)
        if recipe.weights is not None:
            recipe = recipe.model_copy(update=self._weights(recipe))
        if recipe.learning_rate == "shared" and not self.tuning:
            recipe = recipe.model_copy(update={"learning_rate": self.rates.shared})
        if recipe.network is None:
            return recipe
        spec = parse_network(recipe.network, self.extra_files)
        # One spelling for one network, whoever asks for our U-Net by its name.
        own = {"network": None, "widths": tuple(spec.params["widths"])} if spec.name == "unet" else {}
        return recipe.model_copy(update=own or {"network": spec.text})

    def _weights(self, recipe: Recipe) -> dict[str, str]:
        """Return path and hash of the file of weights, which stands beside the experiment's unless its path
        is absolute.
        """
        path = (self.path.parent / recipe.weights).resolve()
        mark = file_hash(path)
        if recipe.weights_hash not in (None, mark):
            raise UserError(f"{path}: holds other weights ({mark}) than those of weights_hash")
        return {"weights": str(path), "weights_hash": mark}

    def _labelled(self, parts: list[Part]) -> list[Part]:
        """Return the parts with labels that also tell the recipes of one data set apart, by what each changes
        of the file's own recipe.
        """
        usual = self.parsed.recipe.model_dump()
        if usual["learning_rate"] == "shared" and parts and not self.tuning:
            usual["learning_rate"] = self.rates.shared  # as the variants of the parts have it
        recipes: dict[str, set[str]] = {}
        for part in parts:
            for variant in part.datasets:
                recipes.setdefault(variant.label, set()).add(variant.recipe.digest)

        def labelled(variant: Variant) -> Variant:
            if len(recipes[variant.label]) == 1:
                return variant
            own = variant.recipe.model_dump()
            shown = {key: value for key, value in own.items() if key not in PLACES}
            changes = [f"{key} {value}" for key, value in shown.items() if value != usual[key]]
            return variant._replace(label=network_named(", ".join([variant.label, *changes])))

        return [replace(part, datasets=tuple(map(labelled, part.datasets))) for part in parts]

    def _check_names(self, parts: list[Part]) -> None:
        """A name must mean one thing in all parts: tables and figures know parts, losses and data by it."""
        names = [part.name for part in parts]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                self.problems.append(f"{self.path}: two parts are called '{name}'")
        losses: dict[str, str] = {}
        folders: dict[str, str] = {}
        for part in parts:
            for loss in part.losses:
                if losses.setdefault(loss.label, loss.text) != loss.text:
                    self.problems.append(f"{self.path}: the label '{loss.label}' stands twice")
            for spec, *_ in part.datasets:
                shown = spec.public.text
                if folders.setdefault(shown, spec.text) != spec.text:
                    where = "--data" if self.given_data else f"{self.path}:"
                    self.problems.append(
                        f"{where} {spec.text}: another data set is called '{shown}' too; "
                        "rename one of the folders"
                    )

    @cached_property
    def rates(self) -> Rates:
        """The learning rates that ``lossbench tune`` chose."""
        return read_rates(self.path.parent / self._rates_name)

    @property
    def _rates_name(self) -> str:
        return self.parsed.rates or f"{self.path.stem}.chosen.toml"

    def _check_own_rates(self, part: Part) -> None:
        """Note which losses of a part have no rate of their own, and so no place in it."""
        name = self._rates_name
        for head in dict.fromkeys(variant.recipe.head for variant in part.datasets):
            for loss in part.losses:
                lender = self.rates.lender(loss, head)
                if lender is None:
                    what = f"{name}: has no learning rate for loss '{loss.text}' with the head '{head}'"
                    self.problems.append(f"{what}; 'lossbench tune' on an experiment with both adds it")
                elif lender.edge:
                    what = f"part '{part.name}': {loss.label} with the head '{head}' is left out, since"
                    whose = "its" if lender.loss == loss.text else f"the {lender.loss}'s"
                    self.skipped.append(f"{what} {whose} best rate lies at the edge of those tried ({name})")


def _check_lengths(lengths: tuple[int, ...], longest: Recipe) -> None:
    """UserError where lengths do not belong together: the validations of one would fall beside the other's,
    or a trunk would end before the shorter one leaves it.
    """
    if len(set(lengths)) != len(lengths):
        raise UserError(f"lengths {list(lengths)}: one stands twice")
    odd = [steps for steps in lengths if steps % min(lengths)]
    if odd:
        raise UserError(
            f"lengths {list(lengths)}: {odd[0]} is no multiple of {min(lengths)}; the nearest is "
            f"{max(1, round(odd[0] / min(lengths))) * min(lengths)}"
        )
    if len(lengths) > 1 and longest.schedule != "wsd":
        raise UserError(
            f'lengths {list(lengths)} need schedule = "wsd", under which they share their first steps; '
            f'the recipe says "{longest.schedule}"'
        )


def reach(looks: tuple[int, ...], losses: int) -> float:
    """Return the smallest p that the first look can give, adjusted over all pairs of losses and all looks."""
    # All differences of one sign: 2 of 2^n sign patterns.
    return 2.0 ** (1 - looks[0]) * math.comb(losses, 2) * len(looks)


def _trains_at_own(part: Part) -> bool:
    return any(variant.recipe.learning_rate == "own" for variant in part.datasets)


def _own_losses(extra_files: tuple[str, ...]) -> list[LossItem]:
    """Return the losses that stand in the user's own files."""
    own = {Path(file).resolve() for file in extra_files}
    return [
        LossItem(use=entry.name)
        for entry in known_losses(extra_files).values()
        if entry.file.resolve() in own
    ]
