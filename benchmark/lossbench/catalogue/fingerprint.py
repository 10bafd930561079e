"""A fingerprint of a function's source: it changes exactly when what the function computes may have changed.

It covers the function's own code and every function, class and constant of ours that this code uses, however
indirectly. What does not compute is left out first:

- docstrings, comments, annotations, and decorators that only register;
- branches that end in ``raise UserError(...)``: they check arguments and write messages;
- statements that only call a function of ours of which nothing remains then: a check.

Code is hashed beside the numbers of the definitions that its names lead to, in the order in which they are
met. So no name of a file counts, two helpers of one name are kept apart, and functions may call each other in
circles."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

from lossbench.catalogue.source import KINDS, Place, Source, decorator_name, read_source

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
