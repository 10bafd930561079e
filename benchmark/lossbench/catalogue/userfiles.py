"""Files of the user's: how they are run, and which other files what they compute depends on.

Helpers of one name in two folders never meet: what a file imports from the user's own folders is put into
``sys.modules`` while its code runs, and taken out again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import logging
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
from lossbench.base.process import cache_root, end_with_parent
from lossbench.catalogue import source
from lossbench.catalogue.source import fingerprint

PREFIX = "lossbench_user_"  # begins the module names of users' files

LIBRARIES = {"site-packages", "dist-packages"}  # folders of what is installed

log = logging.getLogger(__name__)

LIMIT = 60.0  # seconds that running a file may take, to see what it opens

CALL = 10.0  # seconds that calling one function of it may take then

# Words that may read a file, or run one, that no text names: where code says one of them, by whatever name it
# goes on to use it, only running it shows which.
READERS = {
    *("__import__", "__loader__", "__spec__", "__builtins__", "exec", "eval", "compile", "getattr", "vars"),
    *("open", "load", "loads", "read", "read_text", "read_bytes", "get_data", "imread", "loadmat", "hub"),
    *("loadtxt", "genfromtxt", "fromfile", "from_file", "fromregex", "memmap", "open_memmap", "DataSource"),
    *("load_library", "import_module", "run_path", "iterdir", "listdir", "scandir", "walk", "rglob", "io"),
}

# Modules that read no file of the user's but by these words; any other module may.
PLAIN = {
    *("__future__", "abc", "collections", "copy", "dataclasses", "decimal", "enum", "fractions", "functools"),
    *("itertools", "math", "numbers", "operator", "random", "statistics", "string", "types", "typing"),
    *("warnings", "lossbench", "torch", "numpy", "scipy", "torchvision", "monai", "kornia", "einops"),
}

SYSTEM = ("/proc/", "/sys/", "/dev/")  # folders of what is no file

SUFFIXES = tuple(importlib.machinery.all_suffixes())  # of what can be imported: text, bytes, compiled


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
    module.__lossbench_names__ = {entry.name.split(".")[0] for entry in path.parent.iterdir()}
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
    # By their names, too: two that are exchanged are not the same; but wherever their folder lies.
    parts += sorted(f"{_within(file, path.parent)} {_content(file)}" for file in set(files))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _within(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if folder in file.parents else file.name


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
    nodes = list(ast.walk(tree))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


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
    """Whether code may read or run files that its text does not name."""
    words = _words(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            dotted = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            words.update(*(name.split(".") for name in dotted))
    return bool(words & READERS)


def _imported(node: ast.Import | ast.ImportFrom, file: Path, home: Path) -> tuple[list[Path], bool]:
    """Return the user's files that an import may run, and whether it reads no others."""
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
        roots = _roots(top, home)
        for root in roots:
            files += _files_of(root, word)
        known &= bool(roots) or top in PLAIN
    return files, known


def _roots(top: str, home: Path) -> list[Path]:
    """Return the user's folders in which a module may be found: up to the first that holds it, and any before
    that hold a folder of its name, which Python passes over if it finds better.
    """
    roots = []
    for root in [home, *map(Path, sys.path)]:
        whole = any(_is(root / f"{top}{suffix}", Path.is_file) for suffix in SUFFIXES)
        if (whole or _is(root / top, Path.is_dir)) and is_users(root / top):
            roots.append(root)
        if whole or _is(root / top / "__init__.py", Path.is_file):
            return roots
    with suppress(ImportError, ValueError, AttributeError):  # what is installed in place has a finder
        spec = importlib.util.find_spec(top)
        places = [spec.origin, *(spec.submodule_search_locations or ())]
        roots += [Path(place).parent for place in filter(None, places) if is_users(place)]
    return roots


def _files_of(root: Path, dotted: str) -> list[Path]:
    """Return the files of a module and of the packages above it; the last word may be a name within, and
    ``*`` stands for all.
    """
    files, base = [], root
    for word in dotted.split("."):
        if word == "*":
            files += sorted(base.glob("*.py"))
        base = base / word
        names = [*(base.with_name(f"{word}{suffix}") for suffix in SUFFIXES), base / "__init__.py"]
        files += [file for file in names if _is(file, Path.is_file)]
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
    long as none of these files changes, and none comes or goes beside them.
    """
    places = [place for place in sys.path if is_users(place)]
    name = hashlib.sha256("\n".join([str(path), *map(_digest, static), *places]).encode()).hexdigest()[:24]
    memory = cache_root() / "userfiles" / f"{name}.json"
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        known = json.loads(memory.read_bytes())
        if all(_digest(Path(file)) == digest for file, digest in known["files"].items()):
            return [Path(file) for word in ("", function) for file in known["opened"].get(word, ())]
    opened = _opened(path)
    seen = {Path(file) for files in opened.values() for file in files}
    digests = {str(file): _digest(file) for file in seen | {file.parent for file in {path, *seen}}}
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps({"files": digests, "opened": opened}).encode())
    return [Path(file) for word in ("", function) for file in opened.get(word, ())]


def _opened(path: Path) -> dict[str, list[str]]:
    """Return the user's files that are opened when a file is loaded (""), and when each of its losses and
    networks is tried.
    """
    functions = _called(path)
    what = f"trying out {', '.join(functions)}" if functions else "running it"
    # Where nobody has set up logging, Python prints it to stderr.
    log.warning("%s: %s to see which files it reads; this may take a minute ...", path.name, what)
    program = f"import sys; sys.path[:] = {sys.path!r}; from lossbench.catalogue import userfiles; "
    program += f"userfiles.tell({str(path)!r}, {functions!r}, {LIMIT!r}, {CALL!r})"
    nothing, grouped = subprocess.DEVNULL, hasattr(os, "killpg")
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=nothing,
        stdout=subprocess.PIPE,
        stderr=nothing,
        start_new_session=grouped,
    )
    try:
        out, _ = run.communicate(timeout=3 * (LIMIT + CALL * len(functions)))
    except subprocess.TimeoutExpired as late:  # its own alarm did not end it; what it opened until then
        out = late.stdout or b""
    finally:
        with suppress(OSError):  # with all that it has started
            os.killpg(run.pid, signal.SIGKILL) if grouped else run.kill()
        run.communicate()
    opened: dict[str, set[str]] = {}
    for line in out.decode(errors="replace").splitlines():
        word, tab, file = line.partition("\t")
        known = tab and word in ("", *functions) and not file.startswith(SYSTEM)
        if known and is_users(file) and Path(file).is_file():
            opened.setdefault(word, set()).add(str(Path(file).resolve()))
    return {word: sorted(files) for word, files in opened.items()}


def _called(path: Path) -> dict[str, str]:
    """Return the losses and networks of a file: its functions, and what each is."""
    functions = [node for node in source.read_source(path).tree.body if isinstance(node, ast.FunctionDef)]
    kinds = {node.name: set(map(source.decorator_name, node.decorator_list)) for node in functions}
    return {name: kind for name, own in kinds.items() for kind in ("loss", "network") if kind in own}


def tell(path: str, functions: dict[str, str], limit: float, call: float) -> None:
    """Load a file in this process, try its losses and networks on a small input, each in a copy of the
    process, and print every file that its code opens beside who opened it.
    """
    end_with_parent()
    began = time.monotonic()
    import torch  # noqa: F401  (loaded before anything of the user's)

    from lossbench.catalogue import loss_module  # noqa: F401

    slow = time.monotonic() - began  # so long on a machine that has other work, too
    out, word = os.fdopen(os.dup(1), "w"), ""
    os.dup2(2, 1)

    def hear(event: str, args: tuple) -> None:
        # Compiled modules are opened by the linker.
        place = {"open": 0, "import": 1, "ctypes.dlopen": 0, "sqlite3.connect": 0}.get(event)
        if place is None or not isinstance(args[place], str | bytes | os.PathLike) or not _by_user():
            return
        file = os.path.abspath(os.fsdecode(args[place]))
        if file.endswith(".pyc"):
            with suppress(ValueError, NotImplementedError):
                file = importlib.util.source_from_cache(file)
        print(word, file, sep="\t", file=out, flush=True)

    sys.addaudithook(hear)
    _end_after(max(limit, 3 * slow))
    loaded = {name: load(Path(path), name) for name in functions}
    _end_after(0)
    for word, function in loaded.items():
        copy = os.fork() if hasattr(os, "fork") else 0
        if copy:
            _wait(copy, max(call, 3 * slow))
            continue
        end_with_parent()
        with suppress(BaseException):
            _try(function, functions[word])
        if hasattr(os, "fork"):
            os._exit(0)


def _by_user() -> bool:
    """Whether a file is opened by an import itself, or by code of the user's and all that it calls; not by a
    library that is being imported, whose settings and caches are none of its business.
    """
    frame = sys._getframe(2)
    if frame.f_code.co_filename.startswith("<frozen "):
        return True
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return False
        if not name.startswith("<frozen") and _is_users(name):
            return True
        frame = frame.f_back
    return False


_is_users = functools.cache(is_users)


def _end_after(seconds: float) -> None:
    """Let the kernel end this process then, whatever it does; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _wait(child: int, seconds: float) -> None:
    """Wait for a process to end, and end it when it takes too long: it may have stopped itself, too."""
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def _try(function: Callable, kind: str) -> None:
    """Call a loss, or build a network and let it predict."""
    import torch

    from lossbench.catalogue.loss_module import example

    code = function.__wrapped__.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if kind == "network":
        module = function(1, 2, 2, **({"cells": 1} if "cells" in names else {}))
        module(torch.zeros(2, 1, 64, 64))
    else:
        logits, target, more = example(2)
        function(logits, target, **{name: more[name] for name in names if name in more})


def _content(file: Path) -> str:
    """Return a hash of what a file says: of Python without comments and layout."""
    if file.suffix == ".py":
        with suppress(UserError):
            return hashlib.sha256(ast.dump(source.read_source(file).tree).encode()).hexdigest()
    return _digest(file)


def _digest(file: Path) -> str:
    """Return a hash of a file, or of the names in a folder; "" where there is neither.

    Folders of results are left out: they come while a file is used, and no loss reads them."""
    with suppress(OSError):
        if file.is_dir():
            names = sorted(entry for entry in os.listdir(file) if entry[0] not in "._")
            names = [entry for entry in names if not (file / entry / "leases").is_dir()]
            return hashlib.sha256("\n".join(names).encode()).hexdigest()
        return sha256_of(file)
    return ""
