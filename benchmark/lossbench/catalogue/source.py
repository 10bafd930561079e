"""A Python file as its text says it: parsed and never run, so that nothing is executed just to be listed."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lossbench.base.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


class Kind(NamedTuple):
    """What a decorator registers: its name in a sentence, the arguments that come by position, and the
    keywords that lossbench supplies to a function that names them.
    """

    word: str
    takes: tuple[str, ...]
    needs: tuple[str, ...]


# By the name of the decorator.
KINDS = {
    "loss": Kind("loss", ("logits", "target"), ("progress", "distance_map", "class_frequency")),
    "dataset": Kind("data set", (), ("seed",)),
    "network": Kind("network", ("in_channels", "classes", "dims"), ("cells",)),
}


Place = tuple[Path, str]  # a definition: its file and its name there


@dataclass(frozen=True)
class Source:
    """A parsed file: its top-level definitions, and what it imports from other files of ours."""

    path: Path
    tree: ast.Module
    definitions: dict[str, ast.AST]
    imports: dict[str, tuple[Path, str | None]]  # local name -> (file, name there; None for the file itself)
    bare: dict[str, tuple] = field(default_factory=dict, compare=False)  # what fingerprints remember of it

    def place(self, node: ast.AST) -> Place | None:
        """Return the definition of ours that a name, or an attribute of an imported module, leads to."""
        if isinstance(node, ast.Name):
            return resolve(self, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            # Of an imported module the attribute is the name there.
            file, inner = self.imports.get(node.value.id, (None, None))
            if file and inner is None:
                return resolve(read_source(file), node.attr)
        return None


def decorator_name(decorator: ast.expr) -> str:
    """Return ``loss`` of ``@loss(...)`` and of ``@lossbench.loss(...)``; "" where it is not a call."""
    return ast.unparse(decorator.func).split(".")[-1] if isinstance(decorator, ast.Call) else ""


def resolve(source: Source, name: str) -> Place | None:
    """Follow a name from file to file to where it is defined; None where that is not in a file of ours."""
    seen = set()
    # A file may hand a name on that it has imported, in a circle even.
    while name not in source.definitions:
        file, inner = source.imports.get(name, (None, None))
        if inner is None or (file, inner) in seen:
            return None
        seen.add((file, inner))
        source, name = read_source(file), inner
    return source.path, name


def read_source(path: Path) -> Source:
    """Return the parsed file; UserError where it cannot be read or is not Python."""
    path = Path(path)
    try:
        # The time and size of a file say whether it has to be parsed again.
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_source(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read_source(path: Path, _mtime: int, _size: int) -> Source:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    # Null bytes give ValueError, deep nesting RecursionError or MemoryError.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{path}:{line}: not valid Python ({getattr(error, 'msg', error)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    source = Source(path, tree, {}, {})
    for node in tree.body:
        source.definitions.update(dict.fromkeys(defined(node), node))
        source.imports.update(_imported(path, node))
    return source


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a function, a class or a plain assignment defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _imported(path: Path, node: ast.stmt) -> dict[str, tuple[Path, str | None]]:
    if isinstance(node, ast.ImportFrom):
        return _imported_from(path, node)
    if isinstance(node, ast.Import):
        files = {alias.asname: _own_file(path, alias.name) for alias in node.names if alias.asname}
        return {name: (file, None) for name, file in files.items() if file}
    return {}


def _imported_from(path: Path, node: ast.ImportFrom) -> dict[str, tuple[Path, str | None]]:
    base = _folder(path, node)
    if base is None:
        return {}
    imports: dict[str, tuple[Path, str | None]] = {}
    for alias in node.names:
        local = alias.asname or alias.name
        # ``from package import module``, ``from module import name``, or from a package's ``__init__``.
        if _is_file(base / f"{alias.name}.py"):
            imports[local] = (base / f"{alias.name}.py", None)
        elif _is_file(base.with_suffix(".py")):
            imports[local] = (base.with_suffix(".py"), alias.name)
        elif _is_file(base / "__init__.py"):
            imports[local] = (base / "__init__.py", alias.name)
    return imports


def _folder(path: Path, node: ast.ImportFrom) -> Path | None:
    """Return the folder, or the file without its ending, that a ``from ... import`` takes names from."""
    if node.level:
        base = path.parents[node.level - 1] if node.level <= len(path.parents) else None
        return base and base.joinpath(*(node.module or "").split(".")) if node.module else base
    file = _own_file(path, node.module or "")
    if file is None:
        return None
    return file.parent if file.name == "__init__.py" else file.with_suffix("")


def _own_file(path: Path, dotted: str) -> Path | None:
    """Return the file behind an absolute import: in the package, or beside the importing file; else None."""
    # Anything else is a library, whose version stands in the record.
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
