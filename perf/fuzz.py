"""Mutate experiment files, loss files and spec strings thousands of times: each must be read or refused with
one sentence, quickly.

    python perf/fuzz.py [--files 10000] [--seed 0]

Prints how many were read and refused, the slowest, and every exception that is not a sentence (there must be
none)."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import losses
from lossbench.experiment.reading import read_experiment

ROOT = Path(__file__).resolve().parent.parent
WORDS = [*"=[]{}\"'#\n\0é+()", "", "1e999", "-1", "nan", "true", "ce", "dice", "0.5*", "seeds", "9" * 400]
OWN = (
    "from lossbench import loss\n\n@loss('mine', family='overlap', cite='me')\ndef mine(logits, "
    "target, *, power=2.0, weights=None):\n"
    "    return (logits - target).abs().pow(power).mean()\n"
)


def mutate(text: str, draw: random.Random) -> str:
    """Return the text with one to five random edits: a word put in, a span cut, doubled or moved, a character
    changed.
    """
    for _ in range(draw.randint(1, 5)):
        at, end = sorted((draw.randrange(len(text) + 1), min(len(text), draw.randrange(len(text) + 1))))
        end = min(end, at + draw.choice([1, 3, 20, 200]))
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:at] + draw.choice(WORDS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[end:]
        elif kind == 2:
            text = text[:end] + text[at:end] + text[end:]
        elif kind == 3:
            text = (
                text[:at]
                + chr(draw.choice([0, 9, 34, 39, 61, 91, 123, 233, 0x1F600, draw.randrange(32, 127)]))
                + text[at + 1 :]
            )
        else:
            text = text[:at] + draw.choice(WORDS) + text[end:]
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", SyntaxWarning)  # Python's own remarks on mutated numbers
    draw = random.Random(options.seed)
    originals = [
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "experiments").glob("*.toml"))
        if path.stem in ("quick", "smoke")
    ]
    seen: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        experiment, own = Path(folder) / "e.toml", Path(folder) / "own.py"
        for number in range(options.files):
            is_loss = number % 5 == 4
            text = mutate(OWN if is_loss else draw.choice(originals), draw)
            (own if is_loss else experiment).write_text(text, encoding="utf-8", errors="surrogatepass")
            began = time.perf_counter()
            try:
                if is_loss:
                    losses([own])
                else:
                    read_experiment(experiment)
                seen["read"] += 1
            except UserError as error:
                seen["refused" if str(error).strip() else "EMPTY SENTENCE"] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                seen[f"{type(error).__name__}"] += 1
                traceback.print_exc(limit=-3)
            slowest = max(slowest, time.perf_counter() - began)
    print(f"{options.files} mutated files (seed {options.seed}): {dict(seen)}, slowest {slowest:.2f} s")
    raise SystemExit(0 if set(seen) <= {"read", "refused"} else 1)


if __name__ == "__main__":
    main()
