"""Ways to injure files, and what each must come to: read, or refused in one sentence, and soon."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from lossbench.base.errors import UserError

# Seconds of the processor after which one case counts as a hang; asleep it may be thirty times as long.
LIMIT = 20
VALUES = [None, True, -1, 0, 2**70, 1e308, 1e-320, "", "NaN", "<b>", "\u0000", "\ud800"]
VALUES += [[], {}, [[]], {"a": {"b": [None]}}, "9" * 5000]
RAW = [b"NaN", b"Infinity", b"1e999", b"-0", b"null", b"{", b"[" * 20_000, b'"', b"\x00", b"\xff", b"9" * 400]


class Hang(BaseException):
    """A case took longer than LIMIT; not an Exception, so that nothing under test can swallow it."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise Hang inside after LIMIT seconds."""

    def stop(*_: Any) -> None:
        raise Hang

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.alarm(30 * LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def refusal(function: Callable[[], Any]) -> str:
    """Run a case; return the sentences that refuse it, or nothing. Whatever else it raises fails the test."""
    try:
        with limited():
            function()
    except UserError as error:
        assert all(line.strip() for line in str(error).split("\n")), error
        return str(error)
    return ""


def damage(data: bytes, draw: Random) -> bytes:
    """Return the bytes after one to four injuries: bits flipped, cuts, holes, spans doubled, zeros."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(len(data) + 1)
        span = draw.choice([1, 4, 50, 1000])
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = data[at : at + span]
        elif kind == 4:
            data[at : at + draw.choice([0, 1, span])] = draw.choice(RAW)
        else:
            data[at : at + span] = bytes(len(data[at : at + span]))
    return bytes(data)


def twist(record: dict, draw: Random) -> bytes:
    """Return JSON with values of other types, changed names or deep nests; without a check sum."""
    record = json.loads(json.dumps(record))
    for _ in range(draw.choice([1, 1, 2, 3])):
        _twist_once(_place(record, draw), draw)
    return (json.dumps(record) + "\n").encode()


def _place(place: Any, draw: Random) -> Any:
    """Return a random dictionary or list within a nest of them."""
    while True:
        values = place.values() if isinstance(place, dict) else place
        inner = [item for item in values if isinstance(item, dict | list) and item]
        if not inner or draw.random() < 0.3:
            return place
        place = draw.choice(inner)


def _twist_once(place: Any, draw: Random) -> None:
    if not place:
        return
    name = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
    kind = draw.randrange(4)
    if kind == 0 and isinstance(place, dict):
        place[draw.choice(["", "x", name + "_", name[::-1]])] = place.pop(name)
    elif kind == 1:
        del place[name]
    elif kind == 2:
        place[name] = _nest(draw.choice([3, 90, 900]))
    else:
        place[name] = draw.choice(VALUES)


def _nest(depth: int) -> list:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    return deep
