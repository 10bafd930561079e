"""A Python file as its text says it, and the fingerprint of a function in it: parsed and never run, so that
nothing is executed just to be listed.
"""

from __future__ import annotations

import ast
import hashlib
import json
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
    return word_of(decorator) if isinstance(decorator, ast.Call) else ""


def word_of(decorator: ast.expr) -> str:
    """Return ``loss`` of ``@loss`` too, which registers nothing."""
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(name).split(".")[-1]


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


# --- fingerprints
#
# A fingerprint of a function's source changes exactly when what the function computes may have changed.
#
# It covers the function's own code and every function, class and constant of ours that this code uses,
# however indirectly. What does not compute is left out first:
#
# - docstrings, comments, annotations, and decorators that only register;
# - branches that end in ``raise UserError(...)``: they check arguments and write messages;
# - statements that only call a function of ours of which nothing remains then: a check.
#
# Code is hashed beside the numbers of the definitions that its names lead to, in the order in which they are
# met. So no name of a file counts, two helpers of one name are kept apart, and functions may call each other
# in circles.

# Where names are bound that the function around does not see.
INNER = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.comprehension


def fingerprint(path: Path, function: str) -> str:
    """Return the fingerprint (16 hex) of a function in a file."""
    # Each definition once, in the order in which it is met: a circle ends by itself.
    places: list[Place] = [(Path(path), function)]
    parts = []
    for file, name in places:  # grows while it is walked
        code, uses = _bare(read_source(file), name)
        places += [place for place in dict.fromkeys(uses.values()) if place not in places]
        parts.append([code, {word: places.index(place) for word, place in uses.items()}])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _bare(source: Source, name: str) -> tuple[str, dict[str, Place]]:
    """Return the code behind a definition that computes, and the definitions that its words lead to."""
    code, uses, judged = source.bare.get(name, ("", {}, None))
    # What was left out depends on the files of the functions called there: they may have changed since.
    if judged is None or any(read_source(other.path) is not other for other in judged):
        judged = []
        tree = _computing(source, name, frozenset(), judged)
        code, uses = ast.unparse(tree), _uses(source, tree)
        source.bare[name] = code, uses, judged
    return code, uses


def _uses(source: Source, tree: ast.AST) -> dict[str, Place]:
    """Return the words of a piece of code that lead to definitions of ours, in a fixed order."""
    bound = _bound(tree)
    uses = {}
    for node in ast.walk(tree):
        place = source.place(node)
        word = ast.unparse(node) if place else ""
        if place and word.split(".")[0] not in bound:
            uses[word] = place
    return uses


def _computing(source: Source, name: str, within: frozenset[Place], judged: list[Source]) -> ast.AST:
    # The parsed file is shared by all its readers: a fresh copy is changed in its place.
    copy = ast.parse(ast.unparse(source.definitions[name])).body[0]
    return _Computing(source, within | {(source.path, name)}, judged).visit(copy)


class _Computing(ast.NodeTransformer):
    """Leaves of a definition what computes; ``within`` are the definitions that are being looked at, and
    ``judged`` gathers the files of the functions that were taken for checks or not.
    """

    def __init__(self, source: Source, within: frozenset[Place], judged: list[Source]):
        self.source, self.within, self.judged = source, within, judged

    def visit_FunctionDef(self, node):
        # Other decorators may compute: they stay.
        node.decorator_list = [d for d in node.decorator_list if decorator_name(d) not in KINDS]
        node.returns = None
        return self.visit_ClassDef(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)

    def visit_arg(self, node):
        # Types change no number.
        node.annotation = None
        return node

    def visit_If(self, node):
        # Before the children are visited: they take the message out of the raise.
        refuses = _refuses(node.body[-1])
        self.generic_visit(node)
        if refuses or not node.body:  # what is left is the ``else``, and without one nothing
            return node.orelse
        return node

    def visit_For(self, node):
        self.generic_visit(node)
        return node if node.body else node.orelse

    def visit_Pass(self, node):
        return None

    def visit_Raise(self, node):
        # That a function refuses here counts, in which words does not.
        return ast.Raise() if _refuses(node) else self.generic_visit(node)

    def visit_Expr(self, node):
        place = self.source.place(node.value.func) if isinstance(node.value, ast.Call) else None
        return None if place and self._is_check(place) else self.generic_visit(node)

    def _is_check(self, place: Place) -> bool:
        source, name = read_source(place[0]), place[1]
        self.judged.append(source)
        # A function that is being looked at calls itself: nobody can say that nothing remains of it.
        if place in self.within or not isinstance(source.definitions[name], ast.FunctionDef):
            return False
        return not _computing(source, name, self.within, self.judged).body


def _refuses(statement: ast.stmt) -> bool:
    call = getattr(statement, "exc", None) if isinstance(statement, ast.Raise) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "UserError"


def _bound(definition: ast.AST) -> set[str]:
    """Return the names that a function binds itself: where such a name stands, it leads to nothing else."""
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    bound = {arg.arg for arg in ast.walk(definition.args) if isinstance(arg, ast.arg)}
    shared: set[str] = set()
    todo: list[ast.AST] = list(definition.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Global):
            shared.update(node.names)
        if not isinstance(node, INNER):
            todo += ast.iter_child_nodes(node)
    return bound - shared
