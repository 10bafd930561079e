"""Mutated experiment files and loss files are read or refused in one sentence, quickly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage import refusal

from lossbench.catalogue.registry import losses
from lossbench.experiment.reading import read_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORDS = [*"=[]{}\"'#\n\0é+()", "", "1e999", "-1", "nan", "true", "ce", "dice", "0.5*", "seeds", "9" * 400]
OWN = """from lossbench import loss

@loss('mine', family='overlap', cite='me')
def mine(logits, target, *, power=2.0, weights=None):
    return (logits - target).abs().pow(power).mean()
"""


def mutate(text: str, draw: random.Random) -> str:
    """Return the text after one to five edits: words put in, spans cut or doubled, characters changed."""
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
            character = chr(draw.choice([0, 9, 34, 39, 61, 91, 123, 233, 0x1F600, draw.randrange(32, 127)]))
            text = text[:at] + character + text[at + 1 :]
        else:
            text = text[:at] + draw.choice(WORDS) + text[end:]
    return text


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # Python's own remarks on mutated numbers
def test_mutated_files_are_read_or_refused_in_a_sentence(size, draw, seen, tmp_path):
    experiments = [(EXPERIMENTS / f"{name}.toml").read_text("utf-8") for name in ("quick", "smoke")]
    experiment, own = tmp_path / "e.toml", tmp_path / "own.py"
    for number in range(size(few=500, full=10_000)):
        is_loss = number % 5 == 4
        text = mutate(OWN if is_loss else draw.choice(experiments), draw)
        file = own if is_loss else experiment
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        refused = refusal(lambda: losses([own]) if is_loss else read_experiment(experiment))  # noqa: B023
        seen["refused" if refused else "read"] += 1
    assert seen["refused"] and seen["read"]
