"""Losses and data sets as their source declares them, read without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue import source as files
from lossbench.catalogue import userfiles
from lossbench.catalogue.source import KINDS, Source, fingerprint, read_source, word_of

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Entry:
    """One registered loss or data set, as its source declares it.

    ``params`` maps each keyword-only parameter to its default, ``choices`` those annotated with
    ``Literal[...]`` to what they may be, ``needs`` lists the parameters without default that the trainer
    supplies (``progress``, ``distance_map``, ...)."""

    kind: str
    name: str
    family: str
    params: dict[str, Any]
    choices: dict[str, tuple]
    needs: tuple[str, ...]
    meta: dict[str, Any]
    file: Path
    function: str
    line: int
    doc: str = ""

    @cached_property
    def own(self) -> bool:
        """Whether it stands in a file of the user's, or of a plug-in."""
        return files.PACKAGE not in self.file.resolve().parents

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the function's code and of all of ours that it uses; computed for what is named, which
        most entries are not.
        """
        if self.own:
            return userfiles.mark(self.file.resolve(), self.function, self.meta.get("depends", ()))
        return fingerprint(self.file, self.function)


def read_entries(path: Path) -> list[Entry]:
    """Return every function of a file that is decorated with ``@loss``, ``@dataset`` or ``@network``."""
    source = read_source(path)
    found = []
    for node in source.tree.body:
        for decorator in node.decorator_list if isinstance(node, DEFINITIONS) else ():
            kind = word_of(decorator)
            if kind not in KINDS:
                continue
            where = f"{path}:{node.lineno}: @{kind}"
            if isinstance(node, ast.ClassDef):
                why = "decorate a function, not a class; the function may call the class"
                raise UserError(f"{where} stands above the class '{node.name}'; {why}")
            if not isinstance(decorator, ast.Call):
                raise UserError(f"{where} needs a name, as in @{kind}('{node.name}')")
            found.append(_entry(source, node, decorator, kind))
    return found


def misplaced(path: Path) -> str:
    """Return what is wrong with a decorator of a file that registers nothing; "" where it has none."""
    for node in ast.walk(read_source(path).tree):
        if isinstance(node, ast.Call) and word_of(node) in KINDS:
            kind = word_of(node)
            return f"{path}:{node.lineno}: write @{kind}(...) above a function; a call of it is not read"
        for kind in map(word_of, node.decorator_list if isinstance(node, DEFINITIONS) else ()):
            if kind in KINDS:
                why = f"stands within other code; @{kind} is read at the top level of a file"
                return f"{path}:{node.lineno}: '{node.name}' {why}"
    return ""


def _entry(source: Source, node: ast.FunctionDef, decorator: ast.Call, kind: str) -> Entry:
    where = f"{source.path}:{node.lineno}"
    # The facts must be literals, for they are read and not run.
    meta = {}
    if not decorator.args:
        raise UserError(f"{where}: @{kind} needs a name, as in @{kind}('{node.name}')")
    name = _literal(decorator.args[0], f"{where}: the name of @{kind}")
    if not isinstance(name, str) or not name.isidentifier():
        raise UserError(
            f"{where}: the name of @{kind} must be a plain word such as '{node.name}', got {name!r}"
        )
    for keyword in decorator.keywords:
        if keyword.arg is None:
            raise UserError(f"{where}: the arguments of @{kind} must be written out, '**' is not read")
        meta[keyword.arg] = _literal(keyword.value, f"{where}: '{keyword.arg}' of @{kind}({name!r})")
    dims = meta.get("dims", ())
    if not isinstance(dims, tuple | list) or not all(isinstance(axes, int) for axes in dims):
        raise UserError(f"{where}: dims of @{kind}({name!r}) lists numbers of axes, as (2, 3), got {dims!r}")
    _check_positions(node, kind, f"{where}: {KINDS[kind].word} '{name}'")
    params, choices, needs = {}, {}, []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None or (kind == "network" and arg.arg == "cells"):
            if arg.arg not in KINDS[kind].needs:
                raise UserError(
                    f"{where}: parameter '{arg.arg}' of {kind} '{name}' has no default; give it one "
                    f"(lossbench supplies only {', '.join(KINDS[kind].needs)})"
                )
            needs.append(arg.arg)
        elif arg.arg in KINDS[kind].needs:  # with a default it would never be supplied
            raise UserError(
                f"{where}: lossbench supplies '{arg.arg}' of {KINDS[kind].word} '{name}': write it without a "
                "default"
            )
        else:
            params[arg.arg] = _literal(default, f"{where}: the default of '{arg.arg}' of {kind} '{name}'")
            allowed = _literal_choices(source, arg.annotation)
            if allowed:
                choices[arg.arg] = allowed
    tune = meta.get("tune") or {}
    if not isinstance(tune, dict):
        raise UserError(f"{where}: tune of @{kind}({name!r}) maps parameters to ranges, got {tune!r}")
    for key in tune.keys() - params.keys():
        near = nearest(key, params)
        raise UserError(f"{where}: tune of @{kind}({name!r}) names '{key}', which is no parameter{near}")
    family = meta.pop("family", "user")
    return Entry(
        kind, name, family, params, choices, tuple(needs), meta, source.path, node.name, node.lineno,
        ast.get_docstring(node) or "",
    )  # fmt: skip


def _check_positions(node: ast.FunctionDef, kind: str, who: str) -> None:
    """UserError unless the tensors alone come by position: a parameter goes by its name, in specs as in
    calls.
    """
    takes = KINDS[kind].takes
    given = [arg.arg for arg in node.args.posonlyargs + node.args.args]
    if len(given) < len(takes):
        wanted = ", ".join([*takes, "*", "parameters..."])
        raise UserError(f"{who} must take ({wanted}), it takes ({', '.join(given)})")
    more = given[len(takes) :]
    if more:
        first = ", ".join([*given[: len(takes)], "*", more[0]])
        dots = ", ..." if more[1:] or node.args.kwonlyargs else ""
        raise UserError(f"{who}: put a * before '{more[0]}', as parameters go by name: ({first}{dots})")


def _literal(node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(
            f"{what} must be a plain number, string, list or None, got '{ast.unparse(node)}'"
        ) from None


def _literal_choices(source: Source, annotation: ast.expr | None) -> tuple:
    """Return the values of a ``Literal[...]`` annotation, spelled out or by the name of one of ours."""
    # ``over: r.Over`` is as good as ``over: Literal["sample", "batch"]``.
    place = source.place(annotation)
    if place:
        source = read_source(place[0])
        annotation = getattr(source.definitions[place[1]], "value", None)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).split(".")[-1] == "Literal":
        values = ast.literal_eval(annotation.slice)
        return values if isinstance(values, tuple) else (values,)
    return ()
