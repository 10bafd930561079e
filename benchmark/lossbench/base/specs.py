"""Spec strings: ``dice``, ``tversky(fp_weight=0.3)``, ``0.5*ce + 0.5*dice``, ``monai:DiceFocalLoss(gamma=2)``
- parsed, never evaluated.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lossbench.base.errors import UserError

LIBRARIES = {
    "loss": ("monai", "smp", "kornia", "torch", "topolosses"),
    "network": ("monai", "smp", "torchvision"),
}

# How each kind of thing is written, for the sentence about a spec that cannot be read.
EXAMPLES = {
    "loss": "'dice', 'tversky(fp_weight=0.3)' or '0.5*ce + 0.5*dice'",
    "data set": "'scenes(foreground=0.01)'",
    "network": "'unet(widths=[8, 16, 32])' or 'smp:Unet(encoder_name='resnet18')'",
}

LARGEST = 1e100  # what a number in a spec stays below

LONGEST = 2000  # characters, those within quotes not counted: a user's folder may leave out many long names

MOST_QUOTED = 100_000  # characters in all

# What stands in quotes: a path may be called 'run:a'. After a letter, as in f'...', it may hold code.
_QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")

# "monai:Dice" is no Python: its colon becomes a mark before the parser sees it.
_ADAPTER = re.compile(_QUOTED.pattern + r"|\b([A-Za-z_]\w*)\s*:\s*([A-Za-z_]\w*)")

_MARK = "__of__"

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def as_json(value: Any) -> str:
    """Return a value as the one JSON text of which keys and digests are made."""
    return _CANONICAL.encode(value)


@dataclass(frozen=True)
class Term:
    """One summand of a spec: ``weight * [library:]name(**arguments)``; arguments as written, not yet
    resolved.
    """

    weight: float
    library: str | None
    name: str
    arguments: dict[str, Any]


def parse(text: str, what: str = "loss") -> list[Term]:
    """Return the summands of a spec string, in the order written; a single sentence says what is wrong with a
    bad one.
    """
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"a {what} is named by a string such as {EXAMPLES[what]}, got {text!r}")
    # Python's parser takes memory by the depth of what it reads.
    if len(text) > MOST_QUOTED or len(_QUOTED.sub("", text)) > LONGEST:
        raise UserError(f"the {what} '{text[:40]}...' is longer than {LONGEST} characters")
    marked = _ADAPTER.sub(lambda m: m[1] + _MARK + m[2] if m[1] else m[0], text.strip())
    try:
        tree = ast.parse(marked, mode="eval").body
        return _terms(tree, 1.0, text, what)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"cannot read the {what} '{_begin(text)}'; write it like {EXAMPLES[what]}") from None


def _terms(node: ast.expr, weight: float, text: str, what: str) -> list[Term]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _terms(node.left, weight, text, what) + _terms(node.right, weight, text, what)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for number, rest in ((node.left, node.right), (node.right, node.left)):
            # By type, not isinstance: True would count as 1.
            if isinstance(number, ast.Constant) and type(number.value) in (int, float):
                if not 0 < number.value < LARGEST:
                    what = f"positive and below {LARGEST:g}"
                    raise UserError(f"the weights in '{_begin(text)}' must be {what}")
                return _terms(rest, weight * number.value, text, what)
    if isinstance(node, ast.Name):
        return [Term(weight, *_split(node.id, text, what), {})]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.args:
            raise UserError(f"name the parameters in '{text}', as in tversky(fp_weight=0.3)")
        arguments: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise UserError(f"'**' is not read in '{text}'")
            if keyword.arg in arguments:
                raise UserError(f"parameter '{keyword.arg}' stands twice in '{text}'")
            arguments[keyword.arg] = _value(keyword.value, keyword.arg, text)
        return [Term(weight, *_split(node.func.id, text, what), arguments)]
    raise UserError(f"cannot read the {what} '{text}'; write it like {EXAMPLES[what]}")


def _value(node: ast.expr, name: str, text: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        # What cannot be read gets the same sentence as what is read and not allowed.
        value = ...
    if not _is_plain(value):
        bare = f"; quote it: {name}='{node.id}'" if isinstance(node, ast.Name) else ""
        kinds = "a finite number, a string, a list, True, False or None"
        raise UserError(f"the value of '{name}' in '{_begin(text)}' must be {kinds}{bare}")
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    """Whether a value can stand in a record: no complex number, set, dictionary or bytes, and no number that
    is not finite.
    """
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, int | float):
        return -LARGEST < value < LARGEST
    return value is None or isinstance(value, str)


def _begin(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:60]}..."


def _split(name: str, text: str, what: str) -> tuple[str | None, str]:
    library, mark, rest = name.partition(_MARK)
    if not mark:
        return None, name
    libraries = LIBRARIES.get(what, ())
    if library not in libraries:
        known = f"the libraries are {', '.join(libraries)}" if libraries else f"no library has a {what}"
        raise UserError(f"'{library}:{rest}' in '{text}': {known}")
    return library, rest


def render(name: str, arguments: dict[str, Any]) -> str:
    """Return ``name(key=value, ...)`` with the arguments sorted; ``name`` alone when there are none."""
    inner = ", ".join(f"{key}={plain(value)!r}" for key, value in sorted(arguments.items()))
    return f"{name}({inner})" if inner else name


def render_sum(terms: Iterable[tuple[float, str, dict[str, Any]]]) -> str:
    """Return the spec of a weighted sum of (weight, name, arguments); a weight of one is not written."""
    texts = ((weight, render(name, arguments)) for weight, name, arguments in terms)
    return " + ".join(text if weight == 1 else f"{weight:g}*{text}" for weight, text in texts)


def means(text: str, name: str, spellings: Iterable[str]) -> bool:
    """Return whether ``text`` is one more way to write the spec ``name``.

    ``spellings`` write ``name`` out with every parameter, one for each name that it goes by. Parameters that
    ``name`` leaves out are at their defaults, so ``text`` may give them or not; all others it must give.
    """
    try:
        asked, shown = parse(text), parse(name)
        return any(_agree(asked, shown, parse(full)) for full in spellings)
    except UserError:  # a name of another kind, such as a label
        return False


def _agree(asked: list[Term], shown: list[Term], full: list[Term]) -> bool:
    if not len(asked) == len(shown) == len(full):
        return False
    for given, short, whole in zip(asked, shown, full, strict=True):
        if (given.weight, given.library, given.name) != (whole.weight, whole.library, whole.name):
            return False
        if not short.arguments.keys() <= given.arguments.keys():
            return False
        if any(item not in whole.arguments.items() for item in given.arguments.items()):
            return False
    return True


def plain(value: Any) -> Any:
    """Return a value with its tuples as lists, as JSON and a spec string hold them."""
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


# --- what a network is called

# As their authors write them; of another encoder or model the name stays as it is.
ENCODERS = {"resnet": "ResNet", "densenet": "DenseNet", "efficientnet": "EfficientNet", "vgg": "VGG"}
ENCODERS |= {"mobilenet": "MobileNet", "mit": "MiT", "xception": "Xception"}
MODELS = {"unet": "U-Net", "Unet": "U-Net", "UnetPlusPlus": "U-Net++"}

# A label of before networks had names: ", network smp:Unet(encoder_name='resnet18')".
_CLAUSE = re.compile(r"(?<=, )network ((?:\w+:)?\w+(?:\([^()]*\))?)(?=,|$)")


def network_name(text: str) -> str:
    """Return what a reader calls a network: "smp:Unet(encoder_name='resnet18')" is "ResNet-18 U-Net".

    Whatever else its spec says stands in brackets, so that two networks never share a name."""
    try:
        term = parse(text, "network")[0]
    except UserError:  # a name that is no spec
        return text
    rest = dict(term.arguments)
    encoder = rest.pop("encoder_name", None)
    name = MODELS.get(term.name, term.name)
    if isinstance(encoder, str):
        name = f"{_encoder(encoder)} {name}"
    elif term.library:
        name = f"{name} of {term.library}"
    given = ", ".join(f"{key} {plain(value)}" for key, value in sorted(rest.items()))
    given = given.replace("[", "").replace("]", "")
    return f"{name} ({given})" if given else name


def _encoder(name: str) -> str:
    kind, size = re.fullmatch(r"([a-z]*)[-_]?(.*)", name).groups()
    return f"{ENCODERS[kind]}-{size}" if kind in ENCODERS and size else name


def network_named(label: str) -> str:
    """Return the label of a data set variant with its network as a reader calls it."""

    def named(clause: re.Match) -> str:
        # Of a user's own network the name alone would not say that it is one.
        name = network_name(clause[1])
        return clause[0] if name == clause[1] else name

    return _CLAUSE.sub(named, label)


# --- the call of a builder as a spec


def without_seed(variables: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a builder from its ``locals()``, taken in its first line."""
    # The seed is no part of what a data set is called or prepared from.
    return {key: plain(value) for key, value in variables.items() if key != "seed"}


def canonical(function: Callable, given: dict[str, Any]) -> str:
    """Return the spec string of a builder's call: only what differs from its defaults, sorted."""
    # Lists stand in spec strings, tuples in signatures: both are compared as lists.
    defaults = {key: plain(p.default) for key, p in inspect.signature(function).parameters.items()}
    changed = {key: value for key, value in given.items() if plain(value) != defaults[key]}
    return render(function.__name__, changed)
