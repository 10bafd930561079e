"""Damaged records and notes are refused in a sentence or set aside; what is sound stays. The long run is
perf/fuzz_files.py.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the watch over hangs needs SIGALRM", allow_module_level=True)

import fuzz_files


def bad(seen: Counter) -> dict:
    return {word: count for word, count in seen.items() if word.split()[0] in fuzz_files.BAD}


def test_damaged_records_and_notes_never_raise_and_never_harm_sound_ones():
    seen: Counter = Counter()
    fuzz_files.fuzz_records(60, random.Random(1), seen)
    assert not bad(seen)
    assert seen["sound, kept"] == 60 and seen["records"] == 60 and seen["notes"] == 6


def test_damaged_data_of_a_user_are_refused_in_a_sentence_or_read(monkeypatch, tmp_path):
    monkeypatch.setenv("LOSSBENCH_CACHE", str(tmp_path))
    seen: Counter = Counter()
    fuzz_files.fuzz_data(40, random.Random(1), seen)
    assert not bad(seen) and seen["data folders"] == 40 and seen["data refused"] > 5


def test_damaged_tables_and_cards_are_rebuilt_or_refused_in_a_sentence():
    seen: Counter = Counter()
    fuzz_files.fuzz_tables(9, random.Random(1), seen, drawn=0)
    assert not bad(seen) and seen["folders of tables"] == 9
    assert seen["tables rebuilt"] == 6 and seen["tables refused"] > 1
