"""What the values of masks mean: which are classes, which are void, which are a mistake."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.data.container import VOID, class_names

MOST_GREY = 65535

COLOUR = 1 << 24  # raw values from here on are colours: COLOUR + 0xRRGGBB

MANY = 24  # more distinct values than this are no class ids

STRAY = 1e-3  # share of the foreground below which a value may be a mistake

STRAY_FILES = 0.1  # share of the masks that hold a mistake, at most

STRAY_PIXELS = 32  # of a mistake in one mask, on average, at most


class Unclear(UserError):
    """Mask values that do not speak for themselves; ``options`` are the likely meaning."""

    def __init__(self, sentence: str, options: dict[str, Any]):
        super().__init__(sentence)
        self.options = options


@dataclass
class Values:
    """Which raw values the masks of a data set hold: pixels and masks of each, and one mask that has it."""

    pixels: Counter = field(default_factory=Counter)
    masks: Counter = field(default_factory=Counter)
    first: dict[int, str] = field(default_factory=dict)
    count: int = 0

    def add(self, mask: np.ndarray, name: str) -> None:
        self.count += 1
        for value, pixels in self._counts(mask).items():
            self.pixels[value] += pixels
            self.masks[value] += 1
            self.first.setdefault(value, name)

    def merge(self, other: Values) -> None:
        """Add what was seen of other masks."""
        self.count += other.count
        self.pixels.update(other.pixels)
        self.masks.update(other.masks)
        self.first = other.first | self.first

    def _counts(self, mask: np.ndarray) -> dict[int, int]:
        if mask.dtype != np.int32:
            counts = np.bincount(mask.ravel())
            return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        # Colours are few: to take them away one by one is faster than to sort all pixels.
        counts, rest = {}, mask.ravel()
        while len(rest) and len(counts) < MANY:
            value, before = int(rest[0]), len(rest)
            rest = rest[rest != value]
            counts[value] = before - len(rest)
        values, numbers = np.unique(rest, return_counts=True)
        return counts | dict(zip(values.tolist(), numbers.tolist(), strict=True))


@dataclass(frozen=True)
class Options:
    """What the user says about mask values.

    Those above ``threshold`` are foreground; ``ignore_index`` is void; ``values[i]``, a value or several, is
    class i. Colours are written '#rrggbb'.
    """

    threshold: int | None = None
    ignore_index: int | str | None = None
    values: tuple = ()

    def __post_init__(self) -> None:
        # Also checks each of them.
        flat = [raw for group in self.groups for raw in group]
        if len(set(flat)) != len(flat) or len(self.values) == 1:
            raise UserError(f"'values' must list at least two different mask values, got {list(self.values)}")
        for value in (self.threshold, self.ignore_index):
            if value is not None:
                raw_of(value)

    @cached_property
    def groups(self) -> list[list[int]]:
        """The raw values of each class."""
        return [
            [raw_of(v) for v in (value if isinstance(value, list | tuple) else [value])]
            for value in self.values
        ]


def raw_of(value: Any) -> int:
    """Return the raw value of a number or of a colour '#rrggbb'; a grey colour is its grey value."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        number = int(value[1:], 16)
        # A grey picture may have been saved in colour: both are the same value.
        return number & 255 if number % 0x010101 == 0 else COLOUR + number
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_GREY:
        raise UserError(f"mask values lie between 0 and {MOST_GREY} or are colours '#rrggbb', got {value!r}")
    return value


def shown(value: int) -> int | str:
    """Return a raw value as a user writes it."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else value


@dataclass(frozen=True)
class Coding:
    """How raw values become class ids: ``ids`` of each value, 255 for void; ``above`` in place of ``ids``
    makes foreground of larger values. ``text`` says so, ``names`` are those of the classes.
    """

    ids: dict[int, int]
    classes: int
    text: str
    above: int | None = None
    names: tuple[str, ...] | None = None

    def apply(self, values: np.ndarray, path: Path | str) -> np.ndarray:
        """Return the mask as class ids uint8; UserError names a file with an undeclared value."""
        # Below, -1 stands for a value that nobody declared.
        ids = self._above(values) if self.above is not None else self._listed(values)
        if (ids < 0).any():
            strange = shown(int(values[ids < 0].min()))
            raise UserError(
                f"{path}: holds the mask value {strange}, which no other mask explains; {self.text}"
            )
        return ids.astype(np.uint8)

    def of(self, value: int) -> int:
        """Return the class id of one raw value, -1 where it has none."""
        return (
            int(value > self.above)
            if self.above is not None and value not in self.ids
            else self.ids.get(value, -1)
        )

    def _above(self, values: np.ndarray) -> np.ndarray:
        ids = (values > self.above).astype(np.int16)
        for value, kind in self.ids.items():
            ids[values == value] = kind
        return ids

    def _listed(self, values: np.ndarray) -> np.ndarray:
        if values.dtype != np.int32:
            return self._table[values]
        ids = np.full(values.shape, -1, np.int16)
        for value, kind in self.ids.items():
            ids[values == value] = kind
        return ids

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(MOST_GREY + 1, -1, np.int16)
        for value, kind in self.ids.items():
            if value <= MOST_GREY:
                table[value] = kind
        return table


def understand(seen: Values, options: Options, declared: int | None, where: str) -> Coding:
    """Return how the values of all masks become class ids.

    The user's options come first, then the ``declared`` number of classes of a task file. Without these:
    {0, v} is binary, with soft edges too where they are few; 0..K-1 are class ids; 255 beside them is void;
    colours are classes. Anything else raises ``Unclear``, with the option that would settle it.
    """
    # Last in every union, so that it wins over every other reading of that value.
    void = {} if options.ignore_index is None else {raw_of(options.ignore_index): VOID}
    if options.values:
        ids = {raw: kind for kind, group in enumerate(options.groups) for raw in group}
        coding = Coding(ids | void, len(options.values), f"the declared values are {list(options.values)}")
    elif options.threshold is not None:
        text = f"values above {options.threshold} are foreground"
        coding = Coding(void, 2, text, above=options.threshold)
    elif declared is not None:
        ids = dict.fromkeys(range(declared))
        ids = {value: value for value in ids} | {VOID: VOID} | void
        coding = Coding(ids, declared, f"the task declares the classes 0 to {declared - 1}")
    else:
        coding = _guess(seen, void, where)
    return coding


def _guess(seen: Values, void: dict[int, int], where: str) -> Coding:
    """Return the coding of values that speak for themselves."""
    # Black is 0, so it comes first.
    values = sorted(value for value in seen.pixels if value not in void)
    strays = strays_in(seen, values)
    main = [value for value in values if value not in strays]
    # Of several true classes a rare one may look like a mistake; of two, what is besides them is none.
    if strays and (len(main) == 2 or len(main) <= MANY <= main[-1]):
        mend = mended(main, strays)
        raise Unclear(
            f"{where}: {describe(seen, strays)}: a mistake? If so, write values={mend['values']}", mend
        )
    if values and values[-1] >= COLOUR:
        return _palette(seen, values, void, where)
    if len(values) <= 2 and 0 in values:
        ids = {value: kind for kind, value in enumerate(values)}
        return Coding(ids | void, 2, f"the values are {values}")
    # Gaps are allowed: a class may be rare enough to be missing from these masks.
    known = [value for value in values if value != VOID]
    if len(known) >= 2 and known[0] and known[-1] < MANY:
        mend = {"values": known} | ({"ignore_index": VOID} if VOID in values else {})
        lowest = f"no mask holds 0; if {known[0]} is the background, write values={known}"
        raise Unclear(f"{where}: {lowest}, with 0 in front if it is not", mend)
    if len(known) >= 2 and known[-1] < MANY:
        count = known[-1] + 1
        ids = {value: value for value in range(count)} | ({VOID: VOID} if VOID in values else {}) | void
        return Coding(ids, count, f"the classes are 0 to {count - 1}")
    # No set has so many classes in masks of one channel without a file that says so.
    if len(values) > MANY:
        return _soft(seen, values, void, where)
    listed = [shown(value) for value in values]
    mend = f"list them in the order of the classes, as in folder(path='...', values={listed})"
    sentence = f"{where}: the mask values {_list(values)} are not class ids 0, 1, 2, ...; {mend}"
    raise Unclear(f"{sentence}, or cut with 'threshold'", {"values": listed} if len(values) > 1 else {})


def _palette(seen: Values, values: list[int], void: dict[int, int], where: str) -> Coding:
    if len(values) > MANY:
        raise UserError(
            f"{where}: the masks hold {len(values)} colours, too many for classes; were they saved "
            "as JPEG or with smoothing? Save them as PNG, or as one channel of class ids"
        )
    # Black is the background wherever there is black, else the commonest colour.
    background = 0 if 0 in values else max(values, key=lambda value: seen.pixels[value])
    order = [background, *(value for value in values if value != background)]
    ids = {value: kind for kind, value in enumerate(order)}
    names = ("background", *(_hex(value) for value in order[1:]))
    return Coding(ids | void, len(order), f"the colours are {', '.join(map(_hex, order))}", names=names)


def _hex(value: int) -> str:
    return f"#{value - COLOUR if value >= COLOUR else value * 0x010101:06x}"


def _soft(seen: Values, values: list[int], void: dict[int, int], where: str) -> Coding:
    """Return the coding of two levels with soft edges between them, or say what many values may be."""
    # Many values that are as frequent as the top are no edges.
    common = [value for value in values if seen.pixels[value] > 0.5 * seen.pixels[values[-1]]]
    low, high = values[0], max(values, key=lambda value: (value > values[-1] / 2) * seen.pixels[value])
    inside = sum(seen.pixels[value] for value in values if value > high / 2)
    between = sum(seen.pixels[value] for value in values if high / 10 < value < 0.9 * high)
    half = high // 2
    if low == 0 and values[-1] <= VOID and between < inside and len(common) < MANY:
        text = f"the edges are soft ({len(values)} values): foreground is above {half}"
        return Coding(void, 2, text, above=half)
    # Objects are numbered from 1 in each image, so low numbers occur in more masks.
    numbered = seen.masks[1] >= seen.masks[values[-1]] and 2 * len(values) > values[-1] - values[0]
    if values[-1] > VOID or (numbered and between > inside):
        many = f"the masks hold {len(values)} values, as where each object has a number of its own"
        raise Unclear(f"{where}: {many}; write threshold=0 to make all of them foreground", {"threshold": 0})
    edges, half = f"the masks hold {len(values)} different values and look anti-aliased", values[-1] // 2
    raise Unclear(
        f"{where}: {edges}; say where to cut, as in folder(path='...', threshold={half})", {"threshold": half}
    )


def strays_in(seen: Values, values: list[int]) -> list[int]:
    """Return the values that few pixels of few masks hold, where something else remains."""
    foreground = sum(seen.pixels[value] for value in values if value)
    # Of a small set one mask is more than that share.
    few = max(1, STRAY_FILES * seen.count)
    strays = [
        value
        for value in values
        if value > 0
        and seen.pixels[value] < STRAY * foreground
        and seen.masks[value] <= few
        and seen.pixels[value] <= STRAY_PIXELS * seen.masks[value]
    ]
    # Of four masks nothing can be said to be rare.
    return strays if seen.count >= 5 and len(values) - len(strays) >= 2 else []


def mended(main: list[int], strays: list[int]) -> dict[str, Any]:
    """Return the option that reads each stray value as the nearest true one."""
    groups = {value: [value] for value in main}
    for stray in strays:
        # 253 beside 255 is an edge or a slip of the brush.
        groups[min(main, key=lambda value: abs(value - stray))].append(stray)
    return {"values": [[*map(shown, g)] if len(g) > 1 else shown(g[0]) for g in groups.values()]}


def describe(seen: Values, strays: list[int]) -> str:
    """Return which values stand where."""
    pixels = sum(seen.pixels[value] for value in strays)
    most = max(seen.masks[value] for value in strays)
    masks = f"{most} of {seen.count} masks" if len(strays) == 1 else f"few of {seen.count} masks"
    stand = "the mask values" if len(strays) > 1 else "the mask value"
    where = f"{pixels} pixels of {masks} ('{seen.first[strays[0]]}')"
    return f"{stand} {_list(strays)} stand{'s' * (len(strays) == 1)} in {where}"


def _list(values: list[int]) -> str:
    return ", ".join(str(shown(value)) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def values_of(coding: Coding, kind: int, seen: Values) -> str:
    """Return which values are read as a class, in a few words."""
    if coding.above is not None:
        return f"above {coding.above}" if kind else f"to {coding.above}"
    return _list([value for value in sorted(seen.pixels) if coding.of(value) == kind])


def names_of(coding: Coding, declared: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names of the classes: as declared, where their number fits, by colour, or by number."""
    # Names of a task file are of no use where the user declares other classes than it does.
    if declared and len(declared) == coding.classes:
        return declared
    return coding.names or class_names(coding.classes)
