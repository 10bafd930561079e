"""Damage records, packs, notes and data files in every way: what is sound must stay, what is not must be said
in a sentence, nothing hangs.

    python perf/fuzz_files.py [--records 1000] [--tables 1000] [--data 1000] [--seed 0]

Records: a results folder of sound records, of which some are damaged at a time, goes through opening, status,
tables and (now and then) the report; the sound ones must come out with the same numbers. Tables: of a
finished folder the tables, cards and small files beside them are damaged, with the records they were made
from and without; every table is loaded, the report is written, now and then with its figures and by the
command line. Data: a user's folder of each kind goes through ``data inspect`` and through what ``sweep
--data`` does before it trains. Prints every exception that is not a sentence (there must be none).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lossbench.base.errors import UserError
from lossbench.report.make import make_all
from lossbench.store import note as notes
from lossbench.store import pack
from lossbench.store.store import Store
from lossbench.sweep import run
from lossbench.tables import make
from lossbench.tables.compact import TABLES, load_table

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "record_v1.json"
FP = "9f8e7d6c5b4a3928"
# seconds of the processor after which one case counts as a hang; asleep it may be thirty times as long
LIMIT = 20
BAD = ("HANG", "TRACEBACK", "SOUND,", "DAMAGE,")  # how words begin that must not be counted
VALUES = [
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    1e-320,
    "",
    "NaN",
    "<b>",
    "\u0000",
    "\ud800",
    [],
    {},
    [[]],
    {"a": {"b": [None]}},
    "9" * 5000,
]
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


def damage(data: bytes, draw: random.Random) -> bytes:
    """Return the bytes after one to four injuries: a flipped bit, a cut, a hole, a doubled span, foreign
    bytes, zeros.
    """
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


def twist(record: dict, draw: random.Random) -> bytes:
    """Return a record in which values have other types, names are changed or nests are deep; valid JSON,
    without a check sum.
    """
    record = json.loads(json.dumps(record))
    for _ in range(draw.choice([1, 1, 2, 3])):
        place = record
        while True:
            inner = [
                item
                for item in (place.values() if isinstance(place, dict) else place)
                if isinstance(item, dict | list) and item
            ]
            if not inner or draw.random() < 0.3:
                break
            place = draw.choice(inner)
        if not place:
            break
        name = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
        kind = draw.randrange(4)
        if kind == 0 and isinstance(place, dict):
            place[draw.choice(["", "x", name + "_", name[::-1]])] = place.pop(name)
        elif kind == 1:
            del place[name]
        elif kind == 2:
            deep: Any = 1
            for _ in range(draw.choice([3, 90, 900])):
                deep = [deep]
            place[name] = deep
        else:
            place[name] = draw.choice(VALUES)
    return (json.dumps(record) + "\n").encode()


def report_of(error: BaseException, seen: Counter, what: str = "refused") -> None:
    """Count what a case ended with, a sentence as ``what``; print what is none."""
    if isinstance(error, UserError) and str(error).strip() and "\n" not in str(error):
        seen[what] += 1
        return
    seen["HANG" if isinstance(error, Hang) else f"TRACEBACK {type(error).__name__}"] += 1
    traceback.print_exception(error, limit=-4)


# Records


def original(number: int) -> dict:
    """A sound record of its own: of three losses, two data sets and as many seeds as it takes."""
    record = json.loads(GOLDEN.read_text())
    loss, seed, share = ("ce", "dice", "dice_ce")[number % 3], number // 6, (0.01, 0.1)[number // 3 % 2]
    facts = {
        "dataset": f"scenes(foreground={share})",
        "dataset_name": "scenes",
        "data_params": {"foreground": share, "size": 64},
    }
    facts |= {
        "data_label": f"scenes {share:.0%}",
        "learning_rate": 0.01,
        "block": f"b{number // 3}",
        "loss": loss,
        "seed": seed,
    }
    noise = number * 7919 % 101 / 1000
    metrics = {
        **record["metrics"],
        "dice@0.5": 0.5 + number / 1000,
        "dice@val": 0.6 + noise,
        "foreground_true": share,
        "n_test": 12,
    }
    metrics |= {f"val_{name}": metrics[name] for name in ("dice@0.5", "dice@val")}
    metrics |= {
        "size_ratio_soft": 1 + noise,
        "log_size_ratio_soft": noise,
        "log_size_ratio_hard@0.5": -noise,
        "nll": 0.1 + noise,
        "ece": noise,
    }
    bins = {
        "class": ["thing"] * 4,
        "region": ["all"] * 4,
        "bin": [0, 1, 2, 3],
        "n": [9, 5, 3, 2],
        "probability": [0.1, 0.4, 0.6, 0.9],
    }
    more = {
        "steps": {"train_loss": [1 / (1 + step) for step in range(60)]},
        "reliability": bins | {"frequency": [0.0, 0.5, 0.5, 1.0]},
    }
    key = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"
    return {
        **record,
        **more,
        "key": key,
        "loss_label": loss,
        "loss_fingerprint": FP,
        "cell": {**record["cell"], **facts},
        "metrics": metrics,
    }


def note_of(records: list[dict]) -> dict:
    """What a sweep notes about the experiment of these records."""
    rows = [[r["key"], FP, r["loss_label"], r["cell"]["data_label"], r["cell"]["block"], ""] for r in records]
    return {"name": "fuzz", "title": "", "cells": rows}


def fuzz_records(
    count: int, draw: random.Random, seen: Counter, reports: int = 0, size: int = 40, hurt: int = 20
) -> None:
    """Damage ``count`` records, ``hurt`` in a folder at a time, and look whether the others come out
    unharmed.
    """
    rounds = -(-count // hurt)
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            store.open_for_writing()
            sound = [original(n) for n in range(size)]
            for record in sound:
                store.write(record)
            packed = number % 3 == 2
            chosen = set(draw.sample(range(size), min(hurt, count - number * hurt)))
            for n in chosen:
                path = store.path(sound[n]["key"], FP)
                kind = draw.randrange(5)
                if kind == 0:
                    path.rename(
                        path.with_name(
                            draw.choice(
                                [
                                    "x.json",
                                    f"{'0' * 16}.{FP[:8]}.json",
                                    path.name.upper(),
                                    f"..{path.name}",
                                    "é.json",
                                ]
                            )
                        )
                    )
                elif kind < 3:
                    path.write_bytes(damage(path.read_bytes(), draw))
                else:
                    path.write_bytes(twist(sound[n], draw))
            note = note_of(sound)
            (Path(folder) / "experiment.json").write_text(json.dumps(note))
            try:
                with limited():
                    if packed:
                        pack.pack(store)
                    _records_case(Path(folder), sound, chosen, number < reports, seen)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                report_of(error, seen, "folders of records refused")
            seen["records"] += len(chosen)
            _fuzz_notes(Path(folder), note, draw, seen)


def _records_case(folder: Path, sound: list[dict], chosen: set[int], report: bool, seen: Counter) -> None:
    store = Store(folder)
    pairs = [(record["key"], FP) for record in sound]
    store.state(pairs)
    run.open_results(folder, say=lambda text: None)
    make.write_tables(folder, notes.read(folder))
    cells = load_table(folder, "cells").set_index("key")
    states = store.state(pairs)
    for n, record in enumerate(sound):
        if n not in chosen:
            unharmed = (
                states[record["key"]].status == "done"
                and cells.loc[record["key"], "dice@0.5"] == record["metrics"]["dice@0.5"]
            )
            seen["sound, kept" if unharmed else "SOUND, LOST"] += 1
    if report:
        make_all(folder)
        seen["reports"] += 1


def _fuzz_notes(folder: Path, note: dict, draw: random.Random, seen: Counter) -> None:
    text = json.dumps(note).encode()
    for _ in range(2):
        (folder / "experiment.json").write_bytes(
            damage(text, draw) if draw.random() < 0.5 else twist(note, draw)
        )
        seen["notes"] += 1
        try:
            with limited():
                found = notes.read(folder)
                if found is not None:
                    make.write_tables(folder, found)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            report_of(error, seen, "notes refused")


# Tables and what lies beside them


def finished(folder: Path) -> None:
    """A results folder whose report has been made."""
    records = [original(number) for number in range(12)]
    store = Store(folder)
    store.open_for_writing()
    for record in records:
        store.write(record)
    cards = sorted((ROOT / "results" / "paper" / "cards").glob("*.json"))[:1]
    (folder / "cards").mkdir()
    for card in cards:
        shutil.copy(card, folder / "cards")
    note = {
        **note_of(records),
        "cards": {f"scenes {share}": card.name for card in cards for share in ("1%", "10%")},
    }
    (folder / "experiment.json").write_text(json.dumps(note))
    (folder / "verified.json").write_text(
        json.dumps({"says": "3 of 12 cells trained again: all as recorded (3 bit for bit)"})
    )
    make_all(folder)


def fuzz_tables(count: int, draw: random.Random, seen: Counter, drawn: int = 20) -> None:
    """Damage one or two files of a finished folder at a time; a report with figures and one by the command
    line each ``drawn`` cases, if any.
    """
    from lossbench.figures import drawing

    draw_everything = drawing.draw_everything
    with tempfile.TemporaryDirectory() as scratch:
        whole, case = Path(scratch) / "whole", Path(scratch) / "case"
        drawing.draw_everything = lambda tables: ([], {})  # the figures of a report take longer than all else
        finished(whole)
        sound = {name: load_table(whole, name) for name in TABLES}
        for number in range(count):
            shutil.rmtree(case, ignore_errors=True)
            shutil.copytree(whole, case)
            files = [
                *sorted(file for part in ("tables", "cards") for file in (case / part).iterdir()),
                case / "verified.json",
            ]
            records, stamped = (
                number % 3 != 0,
                number % 3 != 1,
            )  # without either what is damaged is only seen as it is read
            for file in draw.sample(files, draw.choice([1, 1, 2])):
                twisted = file.suffix == ".json" and draw.random() < 0.5
                file.write_bytes(
                    twist(json.loads(file.read_text()), draw) if twisted else damage(file.read_bytes(), draw)
                )
            if not records:
                shutil.rmtree(case / "cells")
            if not stamped or number % 6 == 0:
                (case / "tables" / "made_from.json").unlink()
            try:
                drawing.draw_everything = (
                    draw_everything if drawn and number % drawn == 0 else lambda tables: ([], {})
                )
                with limited():
                    _tables_case(case, sound, records, seen)
                    if drawn and number % drawn == 0:
                        command("report", "--results", str(case), seen=seen)
                        command("status", "smoke", "--why", "--results", str(case), seen=seen)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                report_of(error, seen, "reports of damaged tables refused")
            seen["folders of tables"] += 1
    drawing.draw_everything = draw_everything


def _tables_case(case: Path, sound: dict[str, Any], records: bool, seen: Counter) -> None:
    from tools import findings

    for name in TABLES:
        try:
            as_it_was = load_table(case, name).equals(sound[name])
            seen["tables loaded" if as_it_was else "tables loaded, other numbers"] += 1
            if not as_it_was and (case / "tables" / "made_from.json").is_file() and _stamped(case, name):
                seen["DAMAGE, UNSEEN"] += 1
        except UserError as error:
            report_of(error, seen, "tables refused")
    for call in ("study", "hours", "tally", "verdicts", "mean dice@0.5 | ce | scenes 1%"):
        try:
            findings.show(call, findings.Results(case, ROOT))
        except UserError as error:
            report_of(error, seen, "numbers refused")
    make_all(case)
    seen["reports of damaged tables"] += 1
    if records:
        rebuilt = all(load_table(case, name).equals(sound[name]) for name in TABLES)
        seen["tables rebuilt" if rebuilt else "SOUND, LOST"] += 1


def _stamped(case: Path, name: str) -> bool:
    """Whether the stamp itself is unharmed where it speaks of a table."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return isinstance(
            json.loads((case / "tables" / "made_from.json").read_text())["files"][f"{name}.parquet"], str
        )
    return False


def command(*args: str, seen: Counter) -> int:
    """Run the command line in this process; its exit code. 0, 1 and 2 are its ways to end, and nothing may
    print a traceback.
    """
    from lossbench.cli import main as cli

    out, before = io.StringIO(), sys.argv
    sys.argv = ["lossbench", *args]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    sane = code in (0, 1, 2) and "Traceback" not in out.getvalue() and out.getvalue().strip()
    seen["commands" if sane else "TRACEBACK of a command"] += 1
    if not sane:
        print(args, code, out.getvalue()[-2000:])
    return code


# Data of a user


def pictures(folder: Path) -> None:
    """images/ beside masks/, as PNG, NPY and NIfTI."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:9, number : number + 5] = 1
        Image.fromarray((mask * 90 + draw.integers(0, 60, mask.shape)).astype(np.uint8)).save(
            folder / "images" / f"{number}.png"
        )
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def arrays(folder: Path) -> None:
    """The same as NPY."""
    pictures(folder)
    from PIL import Image

    for file in [*folder.glob("*/*.png")]:
        np.save(file.with_suffix(".npy"), np.asarray(Image.open(file)))
        file.unlink()


def task(folder: Path) -> None:
    """A task folder: dataset.json, imagesTr and labelsTr as NIfTI."""
    draw = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((8, 8, 4), np.uint8)
        mask[2:5, 2:6, 1:3] = 1
        for kind, values in (
            ("imagesTr", (mask * 90 + draw.integers(0, 60, mask.shape)).astype(np.int16)),
            ("labelsTr", mask),
        ):
            head = bytearray(352)
            head[:4] = (348).to_bytes(4, "little")
            head[40:56] = np.array([3, *mask.shape, 1, 1, 1, 1], "<i2").tobytes()
            head[70:72] = np.array([4 if values.dtype == np.int16 else 2], "<i2").tobytes()
            head[76:108] = np.array([1, 1, 1, 1, 0, 0, 0, 0], "<f4").tobytes()
            head[108:112] = np.array([352], "<f4").tobytes()
            head[344:348] = b"n+1\0"
            raw = bytes(head) + values.tobytes(order="F")
            (folder / kind / f"c{number}.nii.gz").write_bytes(gzip.compress(raw))
    pairs = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(6)]
    described = {
        "name": "toy",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "thing"},
        "numTraining": 6,
        "training": pairs,
    }
    (folder / "dataset.json").write_text(json.dumps(described))


def benchmark_file(folder: Path) -> None:
    """A MedSegBench file: one NPZ."""
    folder.mkdir(parents=True)
    mask = np.zeros((6, 16, 16), np.uint8)
    mask[:, 4:9, 4:9] = 1
    kept = {
        f"{part}_{kind}": values
        for part in ("train", "val", "test")
        for kind, values in (("images", mask * 90), ("label", mask))
    }
    np.savez_compressed(folder / "toy.npz", **kept)


KINDS: tuple[Callable[[Path], None], ...] = (pictures, arrays, task, benchmark_file)


def fuzz_data(count: int, draw: random.Random, seen: Counter) -> None:
    """Damage one or two files of a user's data at a time; inspect them, and open them as a sweep does."""
    import os

    from rich.console import Console

    from lossbench.catalogue.registry import get_dataset
    from lossbench.cli import datasets

    console = Console(file=io.StringIO(), width=150)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LOSSBENCH_CACHE"] = f"{scratch}/cache"
        for kind in KINDS:
            kind(Path(scratch) / kind.__name__)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            folder = Path(scratch) / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(Path(scratch) / kind.__name__, folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            cache = number % 10 == 9  # the prepared arrays instead of what they are made from
            path = folder / "toy.npz" if kind is benchmark_file else folder
            with contextlib.suppress(UserError), limited():
                if cache:
                    get_dataset(f"folder(path={str(path)!r})", 0)
                    files = sorted(
                        file
                        for file in Path(scratch, "cache").rglob("*")
                        if file.is_file() and file.suffix in (".npy", ".json")
                    )
            for file in draw.sample(files, draw.choice([1, 1, 2])) if len(files) > 1 else files:
                raw = file.read_bytes()
                if file.suffix == ".json" and draw.random() < 0.5:
                    file.write_bytes(twist(json.loads(raw), draw))
                elif file.name.endswith(".nii.gz") and draw.random() < 0.7:
                    file.write_bytes(gzip.compress(damage(gzip.decompress(raw), draw)))
                else:
                    file.write_bytes(damage(raw, draw))
            refused = ""
            for step in ("inspect", "sweep"):
                try:
                    with limited():
                        if step == "inspect":
                            console.print(datasets.render_inspection(datasets.inspect(str(path))))
                        else:
                            get_dataset(f"folder(path={str(path)!r})", 0)
                    seen["data read"] += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    report_of(error, seen, "data refused")
                    refused = step
            if number % 50 == 0:
                command("data", "inspect", str(path), seen=seen)
                if refused == "sweep":  # else it would train
                    code = command(
                        "sweep", "smoke", "--data", str(path), "--results", f"{scratch}/results", seen=seen
                    )
                    seen["sweeps of damaged data refused" if code == 2 else "SOUND, TRAINED"] += 1
            if cache:
                shutil.rmtree(Path(scratch, "cache"), ignore_errors=True)
            seen["data folders"] += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--data", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=3, help="folders whose report is made, too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    seen: Counter = Counter()
    began = time.perf_counter()
    fuzz_records(options.records, random.Random(options.seed), seen, options.reports)
    if options.tables:
        fuzz_tables(options.tables, random.Random(options.seed), seen)
    fuzz_data(options.data, random.Random(options.seed), seen)
    print(f"{dict(seen)}, {time.perf_counter() - began:.0f} s")
    raise SystemExit(any(word.split()[0] in BAD for word in seen))


if __name__ == "__main__":
    main()
