"""What is trained: the recipe that all losses share, the cell with its key, and the experiment as the parts
that its cells come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lossbench.base.errors import UserError
from lossbench.base.specs import as_json
from lossbench.catalogue.registry import (
    DataSpec,
    LossSpec,
    NetworkSpec,
    parse_dataset,
    parse_loss,
    parse_network,
)
from lossbench.data.patches import parse_sampler
from lossbench.experiment.rates import Rates

# Raised whenever the same cell would give another result. 1: one stream for all levels of a ladder, crops of
# public sets, thresholds by the Dice of images that hold the class. 2: docs/protocol.md.
PROTOCOL = 2

# A field of the recipe that comes later is left out of its digest at its first meaning, so that the keys of
# all records stay as they are.
LATER: dict[str, Any] = {}

PLACES = ("weights",)  # names a place on this machine, so it is in no digest; the file's hash is


class Strict(BaseModel):
    """Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


Side = Annotated[int, Field(ge=8, le=4096)]
Patch = Side | Annotated[tuple[Side, ...], Field(min_length=2, max_length=3, strict=False)] | None


# What stands below a field is its row in docs/experiment.md.


class Recipe(Strict):
    """What is identical across losses: network, optimiser, schedule, batches, augmentation."""

    network: str | None = None
    """Spec of a network, as `smp:Unet(encoder_name='resnet18')`; without one our U-Net."""
    widths: Annotated[
        tuple[Annotated[int, Field(ge=2, le=1024)], ...], Field(min_length=2, max_length=6, strict=False)
    ] = (8, 16, 32)
    """Channels of each level of our U-Net."""
    head: Literal["default", "prior"] = "default"
    """Start of the last layer's bias: what the network draws, or the classes' log-frequencies."""
    weights: str | None = None
    """A local file of weights that training starts from; read with `weights_only`."""
    weights_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Hash of what that file holds; filled in where it is left out."""
    patch: Patch = None
    """Side, or sides, of the patches that training draws; without it images of one size as they are, patches
    of 64 where sizes differ."""
    sampler: str = "uniform"
    """How patches are drawn: anywhere, or `foreground(share=0.33)`, a third of them centred on foreground."""
    all_test: bool = False
    """Whether all test images are scored, whatever their pixels."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 300
    """Steps of the optimiser, where the file has no `lengths`."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    """Patches, or images, a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW or SGD as torch.optim has them."""
    learning_rate: Annotated[float, Field(gt=0, le=100, strict=False)] | Literal["own", "shared"] = 0.005
    """Peak of the schedule; or what `lossbench tune` chose, for each loss its own or one for all."""
    weight_decay: Annotated[float, Field(ge=0, le=1, strict=False)] = 1e-4
    """Of either optimiser."""
    momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.9
    """Of SGD."""
    schedule: Literal["one_cycle", "constant", "poly", "wsd"] = "one_cycle"
    """How the rate changes; `wsd` (warm-up, stable, decay) is what several lengths need."""
    warmup: Annotated[int, Field(ge=0, le=100_000)] = 50
    """Steps over which the rate of `wsd` rises."""
    clip: Annotated[float, Field(gt=0, strict=False)] | None = None
    """Largest norm of the gradient."""
    augment: Literal["none", "flips", "full"] = "flips"
    """Flips alone, or also rotations and a random gain and offset; drawn alike for all losses."""
    validations: Annotated[int, Field(ge=1, le=1000)] = 6
    """Looks at the validation images, the last one after the last step."""
    stacked: bool = True
    """Whether cells of one start train beside each other in one network of groups."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic; weights, losses and scores stay float32."""

    @model_validator(mode="after")
    def _warm_before_decay(self) -> Recipe:
        if self.schedule == "wsd" and self.warmup >= self.decay_begins:
            raise ValueError(
                f"{self.steps} steps are too few for a warm-up of {self.warmup}: the rate falls again after "
                f"{self.decay_begins}; take more steps, or a shorter 'warmup'"
            )
        return self

    @field_validator("sampler")
    @classmethod
    def _one_spelling(cls, sampler: str) -> str:
        try:
            return str(parse_sampler(sampler))
        except UserError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_network(self) -> Recipe:
        if self.network is not None and self.widths != Recipe.model_fields["widths"].default:
            raise ValueError("'widths' are those of our U-Net; leave them out beside 'network'")
        return self

    @property
    def decay_begins(self) -> int:
        """Steps after which the rate of the schedule wsd falls: four fifths of them."""
        return self.steps - self.steps // 5

    @property
    def digest(self) -> str:
        """Eight hex digits that name the recipe."""
        # Not kept on the instance: ``model_copy`` would carry it over to a changed recipe.
        return _recipe_digest(self)

    @property
    def public(self) -> Recipe:
        """The same recipe as records name it: of the path to weights only its last part."""
        return self.model_copy(update={"weights": self.weights and Path(self.weights).name})


@lru_cache(maxsize=4096)
def _recipe_digest(recipe: Recipe) -> str:
    fields = recipe.model_dump(mode="json")
    first = [key for key, value in LATER.items() if fields[key] == value]
    kept = {key: value for key, value in fields.items() if key not in (*first, *PLACES)}
    return _sha256(as_json(kept))[:8]


@lru_cache(maxsize=4096)
def _without_steps(recipe: Recipe) -> str:
    """Return the recipe as JSON, as all its lengths have it."""
    left_out = ("steps", *PLACES)
    fields = recipe.model_dump(mode="json").items()
    return as_json({name: value for name, value in fields if name not in left_out})


@lru_cache(maxsize=4096)
def _at_rate(recipe: Recipe, learning_rate: float | str) -> Recipe:
    return recipe.model_copy(update={"learning_rate": learning_rate})


@dataclass(frozen=True)
class Cell:
    """One training: a data set variant, a loss with all its parameters, a seed, a recipe.

    It is one object from the plan to the record, and ``to_json`` is its only spelling."""

    data: DataSpec
    data_identity: str
    data_label: str
    loss: LossSpec
    seed: int
    recipe: Recipe
    learning_rate: float  # peak of the schedule: the recipe's, or the loss's own
    network: NetworkSpec
    parts: tuple[str, ...] = ()  # of the experiment that it belongs to; not part of the key
    protocol: int = PROTOCOL

    @classmethod
    def of(
        cls,
        data: str,
        loss: str,
        seed: int = 0,
        recipe: Recipe | None = None,
        extra_files: Iterable[str] = (),
    ) -> Cell:
        """Return a cell outside of any experiment, from two spec strings."""
        spec, recipe = parse_dataset(data, extra_files), recipe or Recipe()
        label = spec.public.text
        network = _network_spec(recipe, extra_files)
        own = _covering(parse_loss(loss, extra_files), network)
        return cls(spec, "", label, own, seed, recipe, recipe.learning_rate, network)

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits over all that decides the result, except source code, paths and machines."""
        own = {"loss": self.loss.as_json}
        if self.recipe.learning_rate == "own":  # the one part of a recipe that may differ within a block
            own["learning_rate"] = as_json(self.learning_rate)
        return _digest(self._shared() | own)[:16]

    @cached_property
    def block(self) -> str:
        """Eight hex digits shared by all cells that start from the same weights and see the same batches."""
        return _digest(self._shared())[:8]

    def _shared(self) -> dict[str, str]:
        """What the cells of a block have in common, each as JSON."""
        return {
            "protocol": str(self.protocol),
            "data": f'["{self.data.name}",{self.data.as_json},{as_json(self.data_identity)}]',
            "seed": str(self.seed),
            "recipe": f'"{self.recipe.digest}"',
        }

    @property
    def alone(self) -> str:
        """Why the cell shares its training with no other length, in a clause; empty where it may."""
        if self.recipe.schedule != "wsd":
            return f"the schedule '{self.recipe.schedule}' depends on the length from its first step"
        if "progress" in self.loss.needs:
            return "the loss changes with the progress of training"
        return ""

    @cached_property
    def bundle(self) -> str:
        """Eight hex digits shared by the cells that one stack may hold: a block at all its lengths."""
        if self.recipe.schedule != "wsd":
            return self.block
        return _digest(self._shared() | {"recipe": _without_steps(self.recipe)})[:8]

    @cached_property
    def trunk(self) -> str:
        """Sixteen hex digits shared by cells that are equal but for their steps: up to where the decay of
        the shorter one begins, their trainings are the same.
        """
        if self.alone:
            return self.key
        own = f'[{self.loss.as_json},"{self.loss.fingerprint}",{as_json(self.learning_rate)}]'
        return _sha256(f'["{self.bundle}",{own}]')[:16]

    @property
    def twin(self) -> Cell:
        """The cell whose training is the same, bit for bit: there the recipe names the rate that is the
        loss's own here, or the other way round.
        """
        rate = self.learning_rate if self.recipe.learning_rate == "own" else "own"
        return replace(self, recipe=_at_rate(self.recipe, rate))

    @property
    def pair(self) -> tuple[str, str]:
        """Key and fingerprint of the loss's source: what the store knows the cell by."""
        return self.key, self.loss.fingerprint

    @property
    def grouped(self) -> bool:
        """Whether the cell may train beside others in one network."""
        return self.recipe.stacked and self.network.grouped

    @property
    def stream(self) -> str:
        """The name that random streams know the data set by: without the path to a user's own."""
        return self.data.public.text

    @property
    def kind(self) -> tuple[str, str]:
        """Data set and recipe: cells of one kind take about the same time."""
        return self.data.text, self.recipe.digest

    @property
    def title(self) -> str:
        """The cell in words: ``rare · dice · seed 0``."""
        return f"{self.data_label} · {self.loss.label} · seed {self.seed}"

    @property
    def public(self) -> Cell:
        """The same cell as records name it: of the path to a user's data or weights only its last part."""
        return replace(self, data=self.data.public, recipe=self.recipe.public)

    def to_json(self) -> dict[str, Any]:
        """Return the cell in plain JSON values: the part of a record that says what was trained."""
        return {
            "key": self.key,
            "cell": {
                "dataset": self.data.text,
                "dataset_name": self.data.name,
                "data_params": self.data.params,
                "data_identity": self.data_identity,
                "data_label": self.data_label,
                "loss": self.loss.text,
                "loss_terms": self.loss.identity(),
                "seed": self.seed,
                "learning_rate": self.learning_rate,
                "block": self.block,
                "recipe": self.recipe.model_dump(mode="json"),
                "recipe_digest": self.recipe.digest,
                "protocol": self.protocol,
            },
            "loss_label": self.loss.label,
            "family": self.loss.family,
            "loss_fingerprint": self.loss.fingerprint,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], extra_files: Iterable[str] = ()) -> Cell:
        """Return the cell of a record, or of what ``to_json`` gave.

        UserError where its loss or data set is unknown here, or another than it was then."""
        own, extra_files = facts["cell"], tuple(extra_files)
        if own["protocol"] != PROTOCOL:
            raise UserError(f"it was trained under protocol {own['protocol']}, this is protocol {PROTOCOL}")
        recipe = Recipe.model_validate(own["recipe"])
        network = _network_spec(recipe, extra_files)
        loss = _covering(parse_loss(own["loss"], extra_files, facts["loss_label"]), network)
        if loss.fingerprint != facts["loss_fingerprint"]:
            also = f" or of {recipe.network}" if network.own else ""
            raise UserError(f"the source of loss '{loss.label}'{also} has changed since")
        cell = cls(
            parse_dataset(own["dataset"], extra_files),
            own["data_identity"],
            own["data_label"],
            loss,
            own["seed"],
            recipe,
            own["learning_rate"],
            network,
            protocol=own["protocol"],
        )
        if cell.key != facts["key"]:
            raise UserError(
                f"'{cell.title}' is another cell by today's defaults ({cell.key}) than it was then"
            )
        return cell


def _network_spec(recipe: Recipe, extra_files: Iterable[str] = ()) -> NetworkSpec:
    """Return the network of a recipe, from ``extra_files`` too."""
    return parse_network(recipe.network or f"unet(widths={list(recipe.widths)})", extra_files)


def _covering(loss: LossSpec, network: NetworkSpec) -> LossSpec:
    """Return the loss with a fingerprint that covers the source of a user's own network, too.

    Our U-Net changes with the protocol, a library's network with the version in the provenance."""
    if not network.own:
        return loss
    return replace(loss, fingerprint=_sha256(as_json([loss.fingerprint, network.fingerprint]))[:8])


class Variant(NamedTuple):
    """A data set as one part trains on it."""

    data: DataSpec
    identity: str  # hex; changes when the data change
    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Part:
    """A full cross of losses, data sets and seeds; the claims say which part they speak of."""

    name: str
    seeds: tuple[int, ...]
    losses: tuple[LossSpec, ...]
    datasets: tuple[Variant, ...]
    title: str = ""  # the question that it answers
    fixed: bool = False  # no further loss joins it, and it stays out of the leaderboards


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment: what its file says, and the cells that follow from it."""

    name: str
    title: str
    parts: tuple[Part, ...]
    skipped: tuple[str, ...]  # sentences about optional data sets that are not at hand
    extra_files: tuple[str, ...]
    file: str
    rates: Rates | None = None  # what `lossbench tune` chose, where a recipe asks for it
    # Data set -> the Dice by which it counts as learnt, and where that comes from.
    references: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    looks: tuple[int, ...] = ()  # numbers of seeds at which a sequential experiment decides
    choice: bool = False  # one loss is to be chosen: what is clearly worse trains no further

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of all parts, in the order of the file."""
        return tuple(dict.fromkeys(seed for part in self.parts for seed in part.seeds))

    @property
    def losses(self) -> tuple[LossSpec, ...]:
        """All losses of all parts, each once, as its first part labels it."""
        once: dict[str, LossSpec] = {}
        for part in self.parts:
            for loss in part.losses:
                once.setdefault(loss.text, loss)
        return tuple(once.values())

    @property
    def datasets(self) -> tuple[Variant, ...]:
        """All data set variants of all parts, each once a recipe."""
        once: dict[tuple[str, str], Variant] = {}
        for part in self.parts:
            for variant in part.datasets:
                once.setdefault((variant.data.text, variant.recipe.digest), variant)
        return tuple(once.values())

    def cells(self) -> list[Cell]:
        """Return all cells, each once; block after block, so that an interrupted sweep holds complete
        comparisons.
        """
        cells: dict[str, Cell] = {}
        recipes = {variant.recipe for part in self.parts for variant in part.datasets}
        networks = {recipe: _network_spec(recipe, self.extra_files) for recipe in recipes}
        # Seeds outermost: after the first turn every comparison of every part has been made once.
        for turn in range(max(len(part.seeds) for part in self.parts)):
            for part in self.parts:
                if turn >= len(part.seeds):
                    continue
                for variant in part.datasets:
                    network = networks[variant.recipe]
                    for cell in self._block(part, variant, part.seeds[turn], network):
                        known = cells.get(cell.key)
                        cells[cell.key] = replace(known, parts=(*known.parts, part.name)) if known else cell
        return list(cells.values())

    def _block(self, part: Part, variant: Variant, seed: int, network: NetworkSpec) -> list[Cell]:
        data, identity, label, recipe = variant
        rates = [(loss, self.rate(loss, recipe)) for loss in part.losses]
        return [
            Cell(data, identity, label, _covering(loss, network), seed, recipe, rate, network, (part.name,))
            for loss, rate in rates
            if rate is not None
        ]

    def rate(self, loss: LossSpec, recipe: Recipe) -> float | None:
        """Return the peak learning rate of a loss: the recipe's, or its own; None where no rate that was
        tried was surely best.
        """
        if recipe.learning_rate != "own":
            return recipe.learning_rate
        lender = self.rates.lender(loss, recipe.head)
        return None if lender.edge else lender.learning_rate


def _digest(members: Mapping[str, str]) -> str:
    """Return the hash of a JSON object whose members are written already: a study of 100,000 cells asks for
    four of them a cell, and most of a cell is that of many others.
    """
    return _sha256("{" + ",".join(f'"{name}":{members[name]}' for name in sorted(members)) + "}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
