"""Reading losses and data sets from their source text, so that nothing is executed just to learn its name,
parameters or fingerprint.

A fingerprint is the hash of a function's own code and of every function and constant of ours that it uses,
without docstrings, comments, annotations and decorators: it changes exactly when the computation may have
changed."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lossbench.base.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


class Kind(NamedTuple):
    """What a decorator registers: its name in a sentence, the arguments that come by position, and the
    keywords that lossbench supplies to a function that names them.
    """

    word: str
    takes: tuple[str, ...]
    needs: tuple[str, ...]


KINDS = {
    "loss": Kind("loss", ("logits", "target"), ("progress", "distance_map", "class_frequency")),
    "dataset": Kind("data set", (), ("seed",)),
    "network": Kind("network", ("in_channels", "classes", "dims"), ("cells",)),
}


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
    def fingerprint(self) -> str:
        """The hash of the function's code and of all of ours that it uses; computed for what is named, which
        most entries are not.
        """
        return fingerprint(self.file, self.function)


@dataclass(frozen=True)
class Module:
    """A parsed file: its tree, its top-level definitions, and which names it imports from other files of
    ours.
    """

    path: Path
    tree: ast.Module
    definitions: dict[str, ast.AST]
    imports: dict[
        str, tuple[Path, str | None]
    ]  # local name -> (file, name in that file; None for the module itself)
    summaries: dict[str, tuple[str, list]] = field(default_factory=dict, compare=False)


def read_entries(path: Path) -> list[Entry]:
    """Return every function of a file that is decorated with ``@loss``, ``@dataset`` or ``@network``."""
    module = read_module(path)
    found = []
    for node in module.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            kind = _decorator_kind(decorator)
            if kind:
                found.append(_entry(module, node, decorator, kind))
    return found


def read_module(path: Path) -> Module:
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_module(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read_module(path: Path, _mtime: int, _size: int) -> Module:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{path}:{line}: not valid Python ({getattr(error, 'msg', error)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    definitions: dict[str, ast.AST] = {}
    imports: dict[str, tuple[Path, str | None]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        definitions[name.id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            definitions[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            imports.update(_own_imports(path, node))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                file = _own_file(path, alias.name)
                if file and alias.asname:
                    imports[alias.asname] = (file, None)
    return Module(path, tree, definitions, imports)


def fingerprint(path: Path, function: str) -> str:
    """Return the hash (16 hex) of a function's code together with all code of ours that it uses, however
    indirectly.
    """
    seen: set[tuple[Path, str]] = set()
    parts: list[str] = []
    todo = [(Path(path), function)]
    while todo:
        file, name = todo.pop()
        if (file, name) in seen:
            continue
        seen.add((file, name))
        module = read_module(file)
        if name not in module.summaries:
            module.summaries[name] = _summary(module, name)
        code, uses = module.summaries[name]
        parts.append(code)
        todo.extend(uses)
    return hashlib.sha256("\n".join(sorted(filter(None, parts))).encode()).hexdigest()[:16]


def _summary(module: Module, name: str) -> tuple[str, list[tuple[Path, str]]]:
    """Return the bare code behind a name and what of ours it refers to."""
    node = module.definitions.get(name)
    if node is not None:
        return f"{module.path.stem}.{name}\n{_code(node)}", _uses(module, node)
    target, original = module.imports.get(name, (None, None))  # re-exported, or not ours
    return "", [(target, original)] if original is not None else []


def _uses(module: Module, node: ast.AST) -> list[tuple[Path, str]]:
    """Return the (file, name) pairs of our own code that a definition refers to."""
    found = []
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            if child.id in module.definitions:
                found.append((module.path, child.id))
            elif child.id in module.imports and module.imports[child.id][1] is not None:
                found.append(module.imports[child.id])
        elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            target = module.imports.get(child.value.id)
            if target and target[1] is None:
                found.append((target[0], child.attr))
    return found


class _Bare(ast.NodeTransformer):
    """Drops what does not change the computation: docstrings, annotations, decorators."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.decorator_list, node.returns = [], None
        node.body = _without_docstring(node.body)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        node.body = _without_docstring(node.body)
        return node

    def visit_arg(self, node):
        node.annotation = None
        return node


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return body[1:] or [ast.Pass()]
    return body


def _code(node: ast.AST) -> str:
    # A fresh parse instead of a deep copy: unparse and parse again is faster and leaves the cached tree
    # alone.
    copy = ast.parse(ast.unparse(node))
    return ast.unparse(_Bare().visit(copy))


def _own_imports(path: Path, node: ast.ImportFrom) -> dict[str, tuple[Path, str | None]]:
    if node.level:
        base = path.parent
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split(".")) if node.module else base
    else:
        base = _own_file(path, node.module or "")
        base = (
            base.with_suffix("") if base and base.name != "__init__.py" else (base.parent if base else None)
        )
    if base is None:
        return {}
    found = {}
    for alias in node.names:
        local = alias.asname or alias.name
        if _is_file(base / f"{alias.name}.py"):
            found[local] = (base / f"{alias.name}.py", None)
        elif _is_file(base.with_suffix(".py")):
            found[local] = (base.with_suffix(".py"), alias.name)
        elif _is_file(base / "__init__.py"):
            found[local] = (base / "__init__.py", alias.name)
    return found


def _own_file(path: Path, dotted: str) -> Path | None:
    """Return the file behind an absolute import where it is ours: inside the package, or beside the importing
    file.
    """
    parts = dotted.split(".")
    root = PACKAGE.parent if parts[0] == PACKAGE.name else path.parent
    base = root.joinpath(*parts)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if _is_file(file):
            return file
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _decorator_kind(decorator: ast.expr) -> str | None:
    if not isinstance(decorator, ast.Call):
        return None
    called = decorator.func
    name = (
        called.id
        if isinstance(called, ast.Name)
        else called.attr
        if isinstance(called, ast.Attribute)
        else ""
    )
    return name if name in KINDS else None


def _entry(module: Module, node: ast.FunctionDef, decorator: ast.Call, kind: str) -> Entry:
    where = f"{module.path}:{node.lineno}"
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
    params, choices, needs = {}, {}, []
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if default is None or (kind == "network" and arg.arg == "cells"):
            if arg.arg not in KINDS[kind].needs:
                raise UserError(
                    f"{where}: parameter '{arg.arg}' of {kind} '{name}' has no default; give it one "
                    f"(lossbench supplies only {', '.join(KINDS[kind].needs)})"
                )
            needs.append(arg.arg)
        else:
            params[arg.arg] = _literal(default, f"{where}: the default of '{arg.arg}' of {kind} '{name}'")
            allowed = _literal_choices(arg.annotation)
            if allowed:
                choices[arg.arg] = allowed
    extra = [a.arg for a in node.args.posonlyargs + node.args.args]
    if len(extra) != len(KINDS[kind].takes):
        wanted = ", ".join([*KINDS[kind].takes, "*", "parameters..."])
        raise UserError(
            f"{where}: {KINDS[kind].word} '{name}' must take ({wanted}), it takes ({', '.join(extra)})"
        )
    family = meta.pop("family", "user")
    return Entry(
        kind, name, family, params, choices, tuple(needs), meta, module.path, node.name, node.lineno,
        ast.get_docstring(node) or "",
    )  # fmt: skip


def _literal(node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(
            f"{what} must be a plain number, string, list or None, got '{ast.unparse(node)}'"
        ) from None


def _literal_choices(annotation: ast.expr | None) -> tuple:
    """Return the values of every ``Literal[...]`` inside an annotation, when nothing else is allowed beside
    them.
    """
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).split(".")[-1] == "Literal":
        values = ast.literal_eval(annotation.slice)
        return values if isinstance(values, tuple) else (values,)
    return ()
