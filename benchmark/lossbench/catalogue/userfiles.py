"""Files of the user's: how they are run, and which other files what they compute depends on.

Helpers of one name in two folders never meet: what a file imports from the user's own folders is put into
``sys.modules`` while its code runs, and taken out again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from lossbench.base.errors import UserError
from lossbench.base.files import sha256_of, write_atomically
from lossbench.base.process import cache_root
from lossbench.catalogue import source
from lossbench.catalogue.fingerprint import fingerprint

PREFIX = "lossbench_user_"  # begins the module names of users' files

LIBRARIES = {"site-packages", "dist-packages"}  # folders of what is installed

LIMIT = 60.0  # seconds that running a file may take, to see what it opens

CALL = 10.0  # seconds that calling one function of it may take then

# Words of code whose files only running it shows: names, and attributes.
NAMES = {"__import__", "exec", "eval", "compile", "open", "importlib", "runpy", "pkgutil", "glob"}
ATTRIBUTES = {
    *("import_module", "open", "load", "loadtxt", "genfromtxt", "fromfile", "read_text", "read_bytes"),
    *("read_csv", "read_json", "iterdir", "listdir", "scandir", "rglob"),
}


def is_users(file: str | Path) -> bool:
    """Whether a file belongs to the user: to no library, and not to lossbench."""
    file = Path(file).resolve()
    if LIBRARIES.intersection(file.parts) or source.PACKAGE in (file, *file.parents):
        return False
    return not _standard().intersection(file.parents)


@functools.cache
def _standard() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    return frozenset(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib"))


# Running a file


def load(path: Path, function: str) -> Callable:
    """Return a function of a user's file, which is run once, and again when it has changed; it finds its
    helpers whenever it is called.
    """
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module, mark = sys.modules.get(name), _digest(path)
    if module is None or getattr(module, "__lossbench_fingerprint__", None) != mark:
        module = _run(name, path)
        module.__lossbench_fingerprint__ = mark
    run = getattr(module, function)

    @functools.wraps(run)
    def at_home(*args, **kwargs):
        with _home(module, path.parent):
            return run(*args, **kwargs)

    return at_home


def ran() -> bool:
    """Whether a file of a user's has been run in this process."""
    return any(name.startswith(PREFIX) for name in sys.modules)


def _run(name: str, path: Path) -> ModuleType:
    located = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(located)
    module.__lossbench_helpers__ = {}
    module.__lossbench_names__ = {entry.stem for entry in path.parent.iterdir()}
    sys.modules[name] = module
    try:
        with _home(module, path.parent):
            located.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from None
    return module


@contextmanager
def _home(module: ModuleType, folder: Path) -> Iterator[None]:
    """Let the code of a file find the helpers beside it, and no others of their names."""
    helpers = module.__lossbench_helpers__
    aside = {}
    for name in module.__lossbench_names__ | helpers.keys():
        other = sys.modules.get(name)
        if other is not None and _is_helper(other):
            aside |= {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == name}
    sys.modules.update(helpers)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have changed it
            sys.path.remove(str(folder))
        new = {name: sys.modules[name] for name in sys.modules.keys() - before}
        helpers.update({name: value for name, value in new.items() if _is_helper(value)})
        for name in helpers:
            sys.modules.pop(name, None)
        sys.modules.update(aside)


def _is_helper(module: object) -> bool:
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", []))  # a folder without __init__.py
    own = bool(places) and all(is_users(place) for place in places)
    return own and not getattr(module, "__name__", "").startswith((PREFIX, "__main__", "__mp_main__"))


# What a file depends on


def mark(path: Path, function: str, depends: Iterable[str] = ()) -> str:
    """Return the fingerprint (16 hex) of a function of a user's file: of its own code, of what runs when the
    file is loaded, and of the content of every file that it imports, reads or names in ``depends``.
    """
    parsed = source.read_source(path)
    around, names = _around(parsed)
    parts = [fingerprint(path, function), around, *(fingerprint(path, name) for name in names)]
    files = [file for file in dependencies(path, function) if file != path]
    for name in depends:
        file = path.parent / name
        if not file.is_file():
            raise UserError(f"{path}: '{function}' depends on '{name}', and there is no such file beside it")
        files.append(file.resolve())
    parts += sorted({_content(file) for file in files})
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _around(parsed: source.Source) -> tuple[str, list[str]]:
    """Return what runs when a file is loaded beside plain definitions, and the definitions that it uses."""
    count: dict[str, int] = {}
    for node in parsed.tree.body:
        for name in source.defined(node):
            count[name] = count.get(name, 0) + 1
    kept = []
    for node in parsed.tree.body:
        names = source.defined(node)
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        plain = names and all(count[name] == 1 for name in names)
        if not (text or plain or isinstance(node, ast.Import | ast.ImportFrom)):
            kept.append(node)
    if any(_words(node) & {"globals", "eval", "exec"} for node in parsed.tree.body):
        kept = parsed.tree.body  # which definitions count, nobody can say
    used = sorted(set().union(*map(_words, kept)) & parsed.definitions.keys())
    return "\n".join(map(ast.unparse, kept)), used


def _words(tree: ast.AST) -> set[str]:
    return set().union(*_names_and_attributes(tree))


def _names_and_attributes(tree: ast.AST) -> tuple[set[str], set[str]]:
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names, {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def dependencies(path: Path, function: str) -> list[Path]:
    """Return the user's files that a file leads to: itself, what it imports in whatever form, and what it
    reads; found in the text where that says it, else by running it in a process of its own.
    """
    files, unsure = _static([path], path.parent)
    if not unsure:
        return files
    seen = _by_running(path, function, files)
    return sorted({*files, *seen, *_static([file for file in seen if file.suffix == ".py"], path.parent)[0]})


def _static(paths: Iterable[Path], home: Path) -> tuple[list[Path], bool]:
    """Return the files that the text of these names, and whether there may be more."""
    files = [path.resolve() for path in paths]
    unsure = False
    for file in files:  # grows while it is walked
        if file.suffix != ".py":
            continue
        tree = source.read_source(file).tree
        unsure |= _is_dynamic(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                new, known = _imported(node, file, home)
                unsure |= not known
                files += [other for other in new if other not in files]
        files += [other for other in _named(tree, {file.parent, home}, file) if other not in files]
    return files, unsure


def _is_dynamic(tree: ast.AST) -> bool:
    names, attributes = _names_and_attributes(tree)
    return bool(names & NAMES or attributes & ATTRIBUTES or ("sys" in names and "path" in attributes))


def _imported(node: ast.Import | ast.ImportFrom, file: Path, home: Path) -> tuple[list[Path], bool]:
    """Return the user's files that an import may run, and whether it is known where it leads."""
    if isinstance(node, ast.Import):
        words = [alias.name for alias in node.names]
    elif node.level:
        base = file.parents[node.level - 1]
        words = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
        return [other for word in words for other in _files_of(base, word)], True
    else:
        words = [f"{node.module}.{alias.name}" for alias in node.names]
    files, known = [], True
    for word in words:
        top = word.split(".")[0]
        for root in [home, *map(Path, sys.path)]:
            if _exists(root, top):
                files += _files_of(root, word) if is_users(root / top) else []
                break
        else:
            known &= top in sys.stdlib_module_names or top in sys.modules or _is_installed(top)
    return files, known


def _exists(root: Path, top: str) -> bool:
    return (root / f"{top}.py").is_file() or (root / top).is_dir()


def _is_installed(top: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(top) is not None
    return False


def _files_of(root: Path, dotted: str) -> list[Path]:
    """Return the files of a module and of the packages above it; the last word may be a name within, and
    ``*`` stands for all.
    """
    files, base = [], root
    for word in dotted.split("."):
        if word == "*":
            files += sorted(base.glob("*.py"))
        base = base / word
        files += [file for file in (base.with_name(f"{word}.py"), base / "__init__.py") if file.is_file()]
    return [file.resolve() for file in files]


def _named(tree: ast.AST, folders: set[Path], file: Path) -> list[Path]:
    """Return the files that words in quotation marks name: beside the file, or in a folder named so, too."""
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    words = {word for word in words if isinstance(word, str) and 0 < len(word) < 200 and word.isprintable()}
    within = {folder / word for folder in folders for word in words if word.strip("./") and "\0" not in word}
    found = [path for path in within if _is(path, Path.is_file)]
    folders = [path for path in within if _is(path, Path.is_dir)]
    found += [folder / word for folder in folders for word in words if _is(folder / word, Path.is_file)]
    found += [file.with_suffix(word) for word in words if word[0] == "." and word[1:].isalnum()]
    return sorted({path.resolve() for path in found if _is(path, Path.is_file)})


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    with suppress(OSError, ValueError):
        return kind(path)
    return False


def _by_running(path: Path, function: str, static: list[Path]) -> list[Path]:
    """Return the user's files that a file opens when it is loaded and a function of it called; remembered as
    long as none of these files changes.
    """
    name = hashlib.sha256("\n".join([str(path), *map(_digest, static)]).encode()).hexdigest()[:24]
    memory = cache_root() / "userfiles" / f"{name}.json"
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        known = json.loads(memory.read_bytes())
        if all(_digest(Path(file)) == digest for file, digest in known["files"].items()):
            return [Path(file) for word in ("", function) for file in known["opened"].get(word, ())]
    opened = _opened(path)
    digests = {file: _digest(Path(file)) for files in opened.values() for file in files}
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps({"files": digests, "opened": opened}).encode())
    return [Path(file) for word in ("", function) for file in opened.get(word, ())]


def _opened(path: Path) -> dict[str, list[str]]:
    """Return the user's files that are opened when a file is loaded (""), and when each of its losses is
    called.
    """
    losses = _losses(path)
    program = f"import sys; sys.path[:] = {sys.path!r}; from lossbench.catalogue import userfiles; "
    program += f"userfiles.tell({str(path)!r}, {losses!r})"
    nothing = subprocess.DEVNULL
    words = [sys.executable, "-c", program]
    run = subprocess.Popen(words, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing)
    try:
        out, _ = run.communicate(timeout=LIMIT + CALL * len(losses))
    except subprocess.TimeoutExpired as late:  # what it opened until then
        run.kill()
        out = late.stdout or b""
        run.communicate()
    opened: dict[str, set[str]] = {}
    for line in out.decode(errors="replace").splitlines():
        word, tab, file = line.partition("\t")
        if tab and word in ("", *losses) and is_users(file) and Path(file).is_file():
            opened.setdefault(word, set()).add(str(Path(file).resolve()))
    return {word: sorted(files) for word, files in opened.items()}


def _losses(path: Path) -> list[str]:
    functions = [node for node in source.read_source(path).tree.body if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if "loss" in map(source.decorator_name, node.decorator_list)]


def tell(path: str, losses: list[str]) -> None:
    """Load a file in this process, call its losses on a small input, each in a copy of the process, and print
    every file that is opened beside who opened it.
    """
    from lossbench.catalogue.inputs import example

    out, word = os.fdopen(os.dup(1), "w"), ""
    os.dup2(2, 1)

    def hear(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            file = os.path.abspath(os.fsdecode(args[0]))
            if file.endswith(".pyc"):
                with suppress(ValueError, NotImplementedError):
                    file = importlib.util.source_from_cache(file)
            print(word, file, sep="\t", file=out, flush=True)

    sys.addaudithook(hear)
    logits, target, more = example(2)
    functions = {name: load(Path(path), name) for name in losses}
    for word, function in functions.items():  # noqa: B007 - what is heard belongs to it
        copy = os.fork() if hasattr(os, "fork") else 0
        if copy:
            _wait(copy)
            continue
        with suppress(BaseException):
            code = function.__wrapped__.__code__
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            function(logits, target, **{name: more[name] for name in names if name in more})
        if hasattr(os, "fork"):
            os._exit(0)


def _wait(child: int) -> None:
    """Wait for a process to end, and end it when it takes too long."""
    end = time.monotonic() + CALL
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def _content(file: Path) -> str:
    """Return a hash of what a file says: of Python without comments and layout."""
    if file.suffix == ".py":
        with suppress(UserError):
            return hashlib.sha256(ast.dump(source.read_source(file).tree).encode()).hexdigest()
    return _digest(file)


def _digest(file: Path) -> str:
    with suppress(OSError):
        return sha256_of(file)
    return ""  # it is gone
