"""How losses, networks and data sets are named and found: three decorators, and a catalogue read from source
without running it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lossbench.base import specs
from lossbench.base.errors import UserError, nearest
from lossbench.base.files import last_part
from lossbench.catalogue import userfiles
from lossbench.catalogue.entries import Entry, misplaced, read_entries
from lossbench.catalogue.source import KINDS, PACKAGE

PATHS = ("path", "root")  # parameters of data sets that name a place on this machine

# Arguments by which libraries fetch weights: a benchmark starts from weights that it can name and hash.
PRETRAINED = ("weights", "weights_backbone", "encoder_weights", "pretrained")

FOLDERS = {"loss": "losses", "dataset": "data", "network": "networks"}

# What builds the losses and networks of other libraries; by name, for both import torch, late.
ADAPTERS = {"loss": "lossbench.catalogue.adapters", "network": "lossbench.networks.adapters"}

# Functions that running code has registered, with their facts, for those that stand in no file (notebooks).
_live: dict[tuple[str, str], tuple[Callable, dict[str, Any]]] = {}


def loss(name: str, *, family: str = "user", **meta: Any) -> Callable[[Callable], Callable]:
    """Register ``function(logits, target, *, parameters...) -> scalar`` as a loss; the function is returned
    unchanged.

    logits (N, C, *S) floats, target (N, *S) integer class ids. Keyword-only parameters with literal defaults
    are its schema; a parameter without default asks for ``progress`` (0 to 1), ``distance_map`` (N, C, *S) or
    ``class_frequency`` (C,). Optional facts: ``cite``, ``formula``, ``tune`` (ranges to search),
    ``penalises_empty``, ``empty``, ``cost``, ``aliases``, ``released`` (what the paper's own code computes,
    where that differs), ``soft`` (it takes shares (N, C, *S) of the classes, too), ``dims`` (how many axes *S
    may have, as (2, 3), where it does not take any number)."""
    return _register("loss", name, meta)


def dataset(
    name: str, *, family: str = "user", version: int = 1, **meta: Any
) -> Callable[[Callable], Callable]:
    """Register ``function(*, seed, parameters...) -> Data`` as a data set; raise ``version`` whenever its
    arrays change.
    """
    return _register("dataset", name, meta)


def network(name: str, *, family: str = "user", **meta: Any) -> Callable[[Callable], Callable]:
    """Register ``function(in_channels, classes, dims, *, parameters...) -> nn.Module`` as a network; the
    function is returned unchanged.

    The module maps images (N, in_channels, *S), S of ``dims`` axes, to logits (N, classes, *S). A function
    that names ``cells`` can build K networks as one whose convolutions have K groups: it maps (N, K *
    in_channels, *S) to (N, K * classes, *S), cell after cell, and every weight holds the cells' weights one
    after the other along its first axis. Optional facts: ``cite``."""
    return _register("network", name, meta)


def _register(kind: str, name: str, meta: dict[str, Any]) -> Callable[[Callable], Callable]:
    if not isinstance(name, str):
        raise UserError(f"@{kind} needs a name, as in @{kind}('mine')")

    def keep(function: Callable) -> Callable:
        # In a file such a name is refused when it is read; a notebook's is never read.
        if not function.__module__.startswith(f"{PACKAGE.name}.") and name in _built_in(kind):
            there = _built_in(kind)[name].file
            raise UserError(
                f"a {KINDS[kind].word} named '{name}' exists already (in {there.name}); choose another name"
            )
        _live[kind, name] = function, meta
        return function

    return keep


def losses(extra_files: Iterable[str | Path] = ()) -> dict[str, Entry]:
    """Return every known loss by name: built in, from installed plug-ins, and from the given files."""
    return _catalogue("loss", extra_files)


def datasets(extra_files: Iterable[str | Path] = ()) -> dict[str, Entry]:
    """Return every known data set by name."""
    return _catalogue("dataset", extra_files)


def networks(extra_files: Iterable[str | Path] = ()) -> dict[str, Entry]:
    """Return every known network by name, without those of other libraries."""
    return _catalogue("network", extra_files)


def _catalogue(kind: str, extra_files: Iterable[str | Path]) -> dict[str, Entry]:
    found = dict(_installed(kind))
    for file in extra_files:
        # Read, never run: what is listed may be anybody's file.
        entries = read_entries(Path(file))
        if not entries:
            raise UserError(
                misplaced(Path(file))
                or f"{file}: registers nothing; decorate a function with @loss('name'), @network('name') or "
                "@dataset('name') (from lossbench import loss, network, dataset)"
            )
        for entry in entries:
            if entry.kind != kind:
                continue
            # The same file may be given twice, also as a plug-in; two losses of one name may not.
            if entry.name in found and found[entry.name].file.resolve() != entry.file.resolve():
                there = found[entry.name].file
                raise UserError(
                    f"{file}:{entry.line}: a {KINDS[kind].word} named '{entry.name}' exists already (in "
                    f"{there.name}); choose another name"
                )
            found[entry.name] = entry
    return found


@lru_cache(maxsize=len(KINDS))
def _built_in(kind: str) -> dict[str, Entry]:
    return _entries(kind, sorted((PACKAGE / FOLDERS[kind]).glob("*.py")))


@lru_cache(maxsize=len(KINDS))
def _installed(kind: str) -> dict[str, Entry]:
    files = []
    # A plug-in is found by its entry point, and read like any other file.
    for point in entry_points(group="lossbench"):
        located = importlib.util.find_spec(point.value)
        if located and located.origin:
            files.append(Path(located.origin))
    return _built_in(kind) | _entries(kind, files)


def _entries(kind: str, files: Iterable[Path]) -> dict[str, Entry]:
    return {entry.name: entry for file in files for entry in read_entries(file) if entry.kind == kind}


def _unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    if (kind, name) in _live:
        return UserError(
            f"{kind} '{name}' was registered by running code, which is enough for get_{kind}('{name}'); with "
            f"parameters, or in a sum, it needs its file: get_{kind}(..., extra_files=['my_file.py'])"
        )
    return UserError(f"unknown {kind} '{name}'{nearest(name, known)}")


def aliases(extra_files: Iterable[str | Path] = ()) -> dict[str, str]:
    """Return alternative loss names and what they stand for."""
    return {
        alias: entry.name for entry in losses(extra_files).values() for alias in entry.meta.get("aliases", ())
    }


@dataclass(frozen=True)
class LossTerm:
    """One resolved summand: every default filled in; ``entry`` is None for a loss of another library."""

    weight: float
    library: str | None
    name: str
    params: dict[str, Any]
    given: dict[str, Any]
    entry: Entry | None


@dataclass(frozen=True)
class LossSpec:
    """A loss as it enters a cell: canonical text, resolved terms, what it needs, and the fingerprint (8 hex)
    of its source.
    """

    text: str
    terms: tuple[LossTerm, ...]
    needs: tuple[str, ...]
    family: str
    fingerprint: str
    label: str = ""

    @property
    def soft(self) -> bool:
        """Whether it takes shares of the classes as a target: all of its summands do."""
        return all(term.entry is not None and bool(term.entry.meta.get("soft")) for term in self.terms)

    def identity(self) -> list:
        """Return what enters the cell key: names and all parameters, without source or files."""
        return [[t.weight, f"{t.library}:{t.name}" if t.library else t.name, t.params] for t in self.terms]

    @cached_property
    def as_json(self) -> str:
        """The identity as JSON; a plan asks for it of every cell."""
        return specs.as_json(self.identity())


@dataclass(frozen=True)
class DataSpec:
    """A data set variant as it enters a cell."""

    text: str
    name: str
    params: dict[str, Any]
    given: dict[str, Any]
    entry: Entry

    @cached_property
    def as_json(self) -> str:
        """The parameters that enter the cell key, all but places, as JSON."""
        return specs.as_json({name: value for name, value in self.params.items() if name not in PATHS})

    @property
    def public(self) -> DataSpec:
        """The same variant as records and reports name it: of a path only its last part, for it may hold a
        user's name.
        """
        # Only the last part of a path: what lies above it may hold a user's name.
        hidden = {key: last_part(str(self.params[key])) for key in PATHS if self.params.get(key)}
        given = {**self.given, **hidden}
        shown = {k: v for k, v in given.items() if v != self.entry.params[k]}
        return DataSpec(
            specs.render(self.name, shown), self.name, {**self.params, **hidden}, given, self.entry
        )


@dataclass(frozen=True)
class NetworkSpec:
    """A network as it enters a recipe: canonical text, all parameters, and the fingerprint of its source;
    ``entry`` is None for a network of another library.
    """

    text: str
    fingerprint: str
    library: str | None = field(compare=False)
    name: str = field(compare=False)
    params: dict[str, Any] = field(compare=False)
    entry: Entry | None = field(compare=False)

    @property
    def grouped(self) -> bool:
        """Whether K cells can be built as one network; any other trains one cell at a time."""
        return self.entry is not None and "cells" in self.entry.needs

    @property
    def own(self) -> bool:
        """Whether it stands in a file of the user's."""
        return self.entry is not None and self.entry.own

    def identity(self) -> list:
        """Return what enters the cell key: the name and all parameters, without source or files."""
        return [f"{self.library}:{self.name}" if self.library else self.name, self.params]


def parse_loss(text: str, extra_files: Iterable[str | Path] = (), label: str = "") -> LossSpec:
    """Resolve a loss spec string against the catalogue; every mistake is a UserError that names the nearest
    valid thing.
    """
    extra_files = tuple(map(str, extra_files))
    known = losses(extra_files)
    other = aliases(extra_files)
    terms = []
    for term in specs.parse(text, "loss"):
        # A library is imported when one of its losses is built; until then any name may be right.
        if term.library:
            terms.append(LossTerm(term.weight, term.library, term.name, term.arguments, term.arguments, None))
            continue
        name = other.get(term.name, term.name)
        if name not in known:
            raise _unknown("loss", term.name, [*known, *other])
        entry = known[name]
        given = _checked(term.arguments, entry, text)
        terms.append(LossTerm(term.weight, None, name, entry.params | given, given, entry))
    needs = tuple(sorted({need for t in terms if t.entry for need in t.entry.needs}))
    families = {t.entry.family if t.entry else t.library for t in terms}
    canonical = " + ".join(_term_text(t, len(terms)) for t in terms)
    # Of a library's loss the mark is its name: its version stands in the record.
    marks = [term.entry.fingerprint if term.entry else f"{term.library}:{term.name}" for term in terms]
    family = families.pop() if len(families) == 1 and len(terms) == 1 else "compound"
    return LossSpec(canonical, tuple(terms), needs, family, _mark(marks), label or canonical)


def _mark(marks: list[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(marks)).encode()).hexdigest()[:8]


def parse_dataset(text: str, extra_files: Iterable[str | Path] = ()) -> DataSpec:
    """Resolve a data set spec string against the catalogue."""
    known = datasets(tuple(map(str, extra_files)))
    terms = specs.parse(text, "data set")
    if len(terms) != 1 or terms[0].weight != 1 or terms[0].library:
        raise UserError(f"'{text}' is not one data set; write it like 'scenes(foreground=0.01)'")
    term = terms[0]
    if term.name not in known:
        raise UserError(f"unknown data set '{term.name}'{nearest(term.name, known)}")
    entry = known[term.name]
    # What equals its default is left out, so that one variant has one text.
    given = _checked(term.arguments, entry, text)
    shown = {k: v for k, v in given.items() if v != entry.params[k]}
    return DataSpec(specs.render(term.name, shown), term.name, entry.params | given, given, entry)


def parse_network(text: str, extra_files: Iterable[str | Path] = ()) -> NetworkSpec:
    """Resolve a network spec string against the catalogue; a library's network is looked up when built."""
    terms = specs.parse(text, "network")
    if len(terms) != 1 or terms[0].weight != 1:
        raise UserError(f"'{text}' is not one network; write it like {specs.EXAMPLES['network']}")
    term = terms[0]
    if term.library:
        return _library_network(term, text)
    known = networks(tuple(map(str, extra_files)))
    if term.name not in known:
        raise _unknown("network", term.name, known)
    entry = known[term.name]
    defaults = {key: specs.plain(value) for key, value in entry.params.items()}
    given = _checked(term.arguments, entry, text)
    shown = {key: value for key, value in given.items() if value != defaults[key]}
    text = specs.render(term.name, shown)
    return NetworkSpec(text, entry.fingerprint, None, term.name, defaults | given, entry)


def _library_network(term: specs.Term, text: str) -> NetworkSpec:
    for key in PRETRAINED:
        if term.arguments.get(key):
            raise UserError(
                f"'{key}' in '{text}' would download trained weights; leave it out, and name a local file by "
                "'weights' in the recipe"
            )
    given = {key: value for key, value in term.arguments.items() if key not in PRETRAINED}
    name = f"{term.library}:{term.name}"
    return NetworkSpec(specs.render(name, given), name, term.library, term.name, given, None)


def _term_text(term: LossTerm, count: int) -> str:
    shown = {k: v for k, v in term.given.items() if term.entry is None or v != term.entry.params[k]}
    name = f"{term.library}:{term.name}" if term.library else term.name
    text = specs.render(name, shown)
    # Six digits as a rule; all of them where the text would name another weight.
    short = f"{term.weight:g}"
    weight = short if float(short) == term.weight else repr(term.weight)
    return text if term.weight == 1 else f"{weight}*{text}"


def _checked(arguments: dict[str, Any], entry: Entry, text: str) -> dict[str, Any]:
    """Return the arguments with numbers in the type of their default, or raise for an unknown name or a wrong
    type or choice.
    """
    checked = {}
    what = KINDS[entry.kind].word
    for key, value in arguments.items():
        if key not in entry.params:
            raise UserError(
                f"{what} '{entry.name}' has no parameter '{key}'{nearest(key, entry.params)} (in '{text}')"
            )
        default = entry.params[key]
        if key in entry.choices and value not in entry.choices[key]:
            allowed = ", ".join(map(repr, entry.choices[key]))
            raise UserError(
                f"'{key}' of {what} '{entry.name}' must be one of {allowed}, got {value!r} (in '{text}')"
            )
        if not _fits(value, default):
            raise UserError(
                f"'{key}' of {what} '{entry.name}' must be {_kind(default)}, got {value!r} (in '{text}')"
            )
        checked[key] = float(value) if type(default) is float and type(value) is int else value
    return checked


def _fits(value: Any, default: Any) -> bool:
    if default is None or value is None:
        return True
    # True is an int to Python, and a mistake here.
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int):
        return isinstance(value, int)
    if isinstance(default, float):
        return isinstance(value, int | float | list)
    return isinstance(value, str | list | int | float)


def _kind(default: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a string or list"}
    return names.get(type(default), "a list")


def load_function(entry: Entry) -> Callable:
    """Import the file of an entry and return its function (this is the only place where a user's file is
    run).
    """
    path = entry.file.resolve()
    if entry.own:
        return userfiles.load(path, entry.function)
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    return getattr(module, entry.function)


def get_loss(
    spec: str | LossSpec,
    extra_files: Iterable[str | Path] = (),
    *,
    check: bool = True,
    multilabel: bool = False,
    **parameters: Any,
):
    """Return the loss that a spec names as an ``nn.Module``: ``loss(logits, target, *, ignore_index=None,
    progress=None, distance_map=None, class_frequency=None) -> scalar``; see ``loss_module.Loss``.

    ``check=False`` leaves out the look at every input, where masks have been checked once. ``multilabel``:
    classes that do not exclude each other, a target (N, C, *S) of 0 and 1; see ``loss_module.MultiLabel``."""
    from lossbench.catalogue.loss_module import Loss, MultiLabel, Part

    if not isinstance(spec, (str, LossSpec)):
        raise UserError(f"a loss is named by a text, as 'dice' or 'tversky(fp_weight=0.3)', not by {spec!r}")
    if parameters:
        inside = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        raise UserError(f'parameters of a loss stand in its spec: get_loss("{spec}({inside})")')
    if multilabel:
        return MultiLabel(get_loss(spec, extra_files, check=check))

    if isinstance(spec, str):
        # A function that a notebook has registered stands in no file.
        live, meta = _live.get(("loss", spec), (None, {}))
        if live is not None and spec not in losses(extra_files):
            takes = inspect.signature(live).parameters.keys() & {"ignore_index", *KINDS["loss"].needs}
            part = Part(1.0, live, {}, frozenset(takes), True, *_facts(spec, meta))
            return Loss(spec, (part,), check)
        spec = parse_loss(spec, extra_files)
    # A copy in another process is made from these again.
    files = {str(term.entry.file) for term in spec.terms if term.entry and term.entry.own}
    again = partial(get_loss, spec.text, tuple(files), check=check)
    return Loss(spec.text, tuple(Part(*_part(term)) for term in spec.terms), check, again)


def _part(term: LossTerm) -> tuple:
    """Return the fields of a ``loss_module.Part``."""
    if term.entry is None:
        # Its parameters are checked against the library's own signature, and bound.
        function = importlib.import_module(ADAPTERS["loss"]).build(term.library, term.name, dict(term.params))
        return term.weight, function, {}, frozenset({"ignore_index"}), True
    params = dict(term.params)
    takes = {*term.entry.needs} | ({"ignore_index"} & params.keys())
    if params.get("ignore_index", 0) is None:  # not given in the spec: the caller's is taken
        del params["ignore_index"]
    facts = _facts(term.name, term.entry.meta)
    return term.weight, load_function(term.entry), params, frozenset(takes), term.entry.own, *facts


def _facts(name: str, meta: dict[str, Any]) -> tuple[bool, str, tuple[int, ...]]:
    """Return what a ``loss_module.Part`` says of itself: whether it is soft, its name, and its ``dims``."""
    return bool(meta.get("soft")), name, tuple(meta.get("dims", ()))


def get_dataset(spec: str | DataSpec, seed: int = 0, extra_files: Iterable[str | Path] = ()):
    """Build (or open from the cache) the data set that a spec names; see ``lossbench.data.container.Data``
    for its fields.
    """
    if isinstance(spec, str):
        spec = parse_dataset(spec, extra_files)
    return load_function(spec.entry)(seed=seed, **spec.params)


def get_network(
    spec: str | NetworkSpec,
    in_channels: int = 1,
    classes: int = 2,
    dims: int = 2,
    *,
    cells: int = 1,
    extra_files: Iterable[str | Path] = (),
):
    """Return the ``nn.Module`` that a spec names, for images of so many channels, classes and axes (2 or 3).

    It maps (N, in_channels, *S) to logits (N, classes, *S); its weights come from PyTorch's global generator.
    ``cells`` builds that many in one, where the network can be grouped."""
    if isinstance(spec, str):
        live, _ = _live.get(("network", spec), (None, {}))
        if live is not None and spec not in networks(extra_files):
            return live(in_channels, classes, dims)
        spec = parse_network(spec, extra_files)
    if spec.entry is None:
        adapters = importlib.import_module(ADAPTERS["network"])
        return adapters.build(spec.library, spec.name, spec.params, in_channels, classes, dims)
    supplied = {"cells": cells} if "cells" in spec.entry.needs else {}
    return load_function(spec.entry)(in_channels, classes, dims, **spec.params, **supplied)
