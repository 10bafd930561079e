"""The house, measured: who imports whom, and how large things are. ``python -m tools.house`` writes both into
CONTRIBUTING.md.

Imports are read from the source, those inside functions and for types alone included, so nothing has to run.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "benchmark" / "lossbench"
PAGE = ROOT / "CONTRIBUTING.md"

# A room may import every room of an earlier line, and itself.
WRITING = (
    ("base",),
    ("catalogue", "metrics", "theory"),
    ("losses", "networks", "data"),
    ("experiment",),
    ("training", "store"),
    ("engine",),
    ("sweep",),
)
# A room of the reading half may import those to its left, and base and theory besides.
READING = ("store", "tables", "analysis", "figures", "report")
SHARED = ("base", "theory")


class Import(NamedTuple):
    """One import: the module that has it, its line, and the module that it names."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def room(module: str) -> str:
    """Return the folder of a module; the package itself is `lossbench`, and `__main__` a part of the cli."""
    parts = [*module.split("."), "lossbench"]
    return "cli" if parts[1] == "__main__" else parts[1]


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return the file of every module by its dotted name; a folder goes by its own name."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        dotted = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        names[dotted.removesuffix(".__init__")] = path
    return names


@cache
def imports(package: Path = PACKAGE) -> tuple[Import, ...]:
    """Return every import within the package."""
    known = modules(package)
    edges = set()
    for name, path in known.items():
        for line, target in _names(path):
            if target.split(".")[0] == package.name:
                edges.add(Import(name, line, _module(target, known)))
    return tuple(sorted(edges))


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative imports would hide which room they lead to; the house has none.
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _module(target: str, known: dict[str, Path]) -> str:
    """Return the module of an imported name, which may be one of its functions."""
    while target not in known:
        target = target.rpartition(".")[0]
    return target


def outside(name: str, package: Path = PACKAGE) -> set[str]:
    """Return the modules that import the library `name` anywhere."""
    return {
        module
        for module, path in modules(package).items()
        if any(target.split(".")[0] == name for _, target in _names(path))
    }


def allowed(source: str, target: str) -> bool:
    """Say whether one room may import another."""
    if source == target or source in ("cli", "lossbench"):
        return True
    if source in READING[1:]:
        return target in SHARED or target in READING[: READING.index(source)]
    heights = {name: height for height, names in enumerate(WRITING) for name in names}
    return heights.get(target, len(WRITING)) < heights.get(source, -1)


def climbing(edges: Iterable[Import]) -> set[str]:
    """Return the imports that the layers forbid."""
    return {str(edge) for edge in edges if not allowed(room(edge.source), room(edge.target))}


def reached(starts: Iterable[str], edges: Iterable[Import]) -> dict[str, str]:
    """Return every module that the starting ones lead to, each with the module that led to it."""
    following = defaultdict(set)
    for edge in edges:
        following[edge.source].add(edge.target)
    by = dict.fromkeys(starts, "")
    waiting = list(by)
    for module in waiting:
        for target in sorted(following[module] - by.keys()):
            by[target] = module
            waiting.append(target)
    return by


def circles(pairs: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Return the groups of names that lead back to themselves."""
    following = defaultdict(set)
    for source, target in pairs:
        if source != target:
            following[source].add(target)
    edges = [Import(source, 0, target) for source, targets in following.items() for target in targets]
    reach = {name: set(reached(following[name], edges)) for name in list(following)}
    groups = []
    for name in sorted(following):
        group = {other for other in reach[name] if name in reach.get(other, ())}
        if group and group not in groups:
            groups.append(group)
    return groups


# --- measures


class Measures(NamedTuple):
    """What HOUSE measures of a package; a code line holds neither comment nor docstring alone."""

    modules: int
    at_root: int
    module_median: int
    lines: int
    code_lines: int
    characters: int
    function_median: int
    function_p90: int
    function_max: int
    wide: int
    comments_per_100: float


def measures(package: Path = PACKAGE) -> Measures:
    """Measure all modules of a package."""
    files = list(modules(package).values())
    texts = [path.read_text(encoding="utf-8") for path in files]
    lengths = sorted(length for text in texts for length in _functions(text))
    code = [line for text in texts for line in _code(text).values()]
    comments = sum(_comments(text) for text in texts)
    return Measures(
        modules=len(files),
        at_root=sum(path.parent == package for path in files),
        module_median=round(statistics.median(len(text.splitlines()) for text in texts if text.strip())),
        lines=sum(len(text.splitlines()) for text in texts),
        code_lines=len(code),
        characters=sum(len(line) + 1 for line in code),
        function_median=round(statistics.median(lengths)),
        function_p90=lengths[int(0.9 * len(lengths))],
        function_max=lengths[-1],
        wide=sum(len(line) > 110 for line in code),
        comments_per_100=round(100 * comments / len(code), 1),
    )


def _code(text: str) -> dict[int, str]:
    """Return the lines of code by number: no blank ones, no comments, no docstrings."""
    silent = {
        number
        for node in ast.walk(ast.parse(text))
        if (docstring := _docstring(node))
        for number in range(docstring.lineno, docstring.end_lineno + 1)
    }
    return {
        number: line
        for number, line in enumerate(text.splitlines(), 1)
        if number not in silent and line.strip() and not line.lstrip().startswith("#")
    }


def _docstring(node: ast.AST) -> ast.expr | None:
    """Return the docstring of a module, class or function."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
        return first.value
    return None


def _functions(text: str) -> Iterator[int]:
    """Yield the number of code lines of every function."""
    code = _code(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield sum(number in code for number in range(node.lineno, node.end_lineno + 1))


def _comments(text: str) -> int:
    """Count the comments of a file, those beside code included."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


# --- the contribution guide


def graph(edges: Iterable[Import]) -> str:
    """Return the imports by folder as a table, lowest room first; each is `room: rooms that it imports`."""
    pairs = {(room(edge.source), room(edge.target)) for edge in edges}
    order = [name for names in WRITING for name in names]
    order += [name for name in READING if name not in order]
    order += ["cli", "lossbench"]
    lines = []
    for source in order:
        targets = [target for target in order if target != source and (source, target) in pairs]
        lines.append(f"{source:11}{' '.join(targets) or '-'}")
    return "\n".join(["```", *lines, "```"])


def table(found: Measures) -> str:
    """Return the measures as a table in Markdown."""
    rows = {
        "modules / in the root": f"{found.modules} / {found.at_root}",
        "lines of a module, median": f"{found.module_median}",
        "source lines / code lines": f"{found.lines} / {found.code_lines}",
        "characters of code": f"{found.characters}",
        "lines of a function, median / p90 / max": (
            f"{found.function_median} / {found.function_p90} / {found.function_max}"
        ),
        "code lines over 110 columns": f"{found.wide}",
        "comments per 100 code lines": f"{found.comments_per_100}",
    }
    lines = ["| measure | lossbench |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines)


def fill(text: str, name: str, block: str) -> str:
    """Return the page with the block between the markers of this name replaced."""
    pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- / -->)"
    new, count = re.subn(pattern, lambda match: f"{match[1]}{block}\n{match[2]}", text, flags=re.DOTALL)
    assert count == 1, f"the page has {count} blocks {name}"
    return new


def main() -> None:
    """Write graph and measures into the contribution guide."""
    text = PAGE.read_text(encoding="utf-8")
    text = fill(text, "graph", graph(imports()))
    PAGE.write_text(fill(text, "measures", table(measures())), encoding="utf-8")


if __name__ == "__main__":
    main()
