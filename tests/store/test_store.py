"""The store keeps every record whole, derives states from names, and lets no two processes train one cell."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lossbench.base import files, process
from lossbench.base.errors import UserError
from lossbench.store import leases
from lossbench.store import record as schema
from lossbench.store.schema import Record, wrong
from lossbench.store.store import Store

GOLDEN = Path(__file__).parents[1] / "golden" / "record_v1.json"
KEY, FP = "00112233445566ff", "9f8e7d6c5b4a3928"


def a_record(key=KEY, fp=FP, **changes):
    return {**json.loads(GOLDEN.read_text()), "key": key, "loss_fingerprint": fp, **changes}


def old(**changes):
    """The bytes of a record without a check sum, as earlier versions wrote them."""
    return (json.dumps(a_record(**changes)) + "\n").encode()


@pytest.fixture
def results(tmp_path):
    store = Store(tmp_path / "results")
    store.open_for_writing()
    return store


def files_of(store):
    return sorted(p.relative_to(store.folder).as_posix() for p in store.folder.rglob("*") if p.is_file())


# Writing and reading


def test_a_written_record_reads_back_the_same(results):
    results.write(a_record())
    assert results.read(KEY, FP) == a_record()
    assert files_of(results) == [f"cells/00/{KEY}.9f8e7d6c.json"]


def test_the_record_of_schema_1_still_reads(results):
    path = results.path(KEY, FP)
    path.parent.mkdir(parents=True)
    shutil.copy(GOLDEN, path)
    assert results.read(KEY, FP)["metrics"]["dice@0.5"] == 0.8125
    assert not wrong(Record, results.read(KEY, FP))


def test_an_older_schema_is_read_through_its_upgrade(results, monkeypatch):
    monkeypatch.setattr(schema, "SCHEMA", 2)
    monkeypatch.setattr(schema, "_UPGRADES", {1: lambda old: {**old, "collapse": "background"}})
    path = results.path(KEY, FP)
    path.parent.mkdir(parents=True)
    shutil.copy(GOLDEN, path)
    assert results.read(KEY, FP) == a_record(schema=2, collapse="background")


def test_a_newer_schema_is_the_users_to_mend_and_is_left_in_place(results):
    path = results.path(KEY, FP)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(a_record(schema=9)))
    with pytest.raises(UserError, match="schema 9, newer than this lossbench knows"):
        results.read(KEY, FP)
    assert path.exists()


def test_numbers_that_are_not_finite_become_null_in_strict_json(results):
    path = results.write(
        a_record(metrics={"a": math.nan, "b": math.inf, "c": 1.5}, threshold_curve=[-math.inf, 2])
    )
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert results.read(KEY, FP)["metrics"] == {"a": None, "b": None, "c": 1.5}
    assert results.read(KEY, FP)["threshold_curve"] == [None, 2]


def test_numpy_values_are_written_as_plain_numbers(results):
    np = pytest.importorskip("numpy")
    metrics = {"a": np.float32(0.5), "d": np.bool_(True), "e": np.float64("nan")}
    images = {"b": np.arange(2), "c": np.array([np.nan, 1.0])}
    results.write(a_record(metrics=metrics, images=images))
    assert results.read(KEY, FP)["metrics"] == {"a": 0.5, "d": True, "e": None}
    assert results.read(KEY, FP)["images"] == {"b": [0, 1], "c": [None, 1.0]}


@pytest.mark.parametrize(
    "change", [{"key": "short"}, {"key": "../../../../etc/x"}, {"loss_fingerprint": "xyz"}]
)
def test_a_record_with_a_bad_name_is_refused(results, change):
    with pytest.raises(ValueError, match=r"'key'|'loss_fingerprint'"):
        results.write(a_record(**change))


def test_a_record_without_one_of_its_facts_is_refused_and_the_fact_named(results):
    record = a_record()
    del record["certificate"]
    with pytest.raises(ValueError, match="has no 'certificate'"):
        results.write(record)


def test_reading_a_folder_that_does_not_exist_finds_nothing_and_makes_nothing(tmp_path):
    store = Store(tmp_path / "nowhere")
    assert store.state([(KEY, FP)])[KEY].status == "missing"
    assert list(store.records()) == [] and store.read(KEY, FP) is None
    assert not (tmp_path / "nowhere").exists()


# States


def test_states_follow_from_names(results):
    keys = [f"{n:016x}" for n in range(4)]
    old, new = "1a2b3c4d" * 2, "9f8e7d6c" * 2
    results.write(a_record(keys[0], new))
    results.write(a_record(keys[1], old))
    results.write_error(keys[2], new, error="it broke")
    states = results.state([(k, new) for k in keys], labels=dict.fromkeys(keys, "dice"))
    assert [states[k].status for k in keys] == ["done", "stale", "failed", "missing"]
    assert states[keys[1]].why == "the source of loss 'dice' changed (record 1a2b3c4d, now 9f8e7d6c)"
    assert states[keys[2]].why.endswith(".error.json says how")


def test_a_failure_of_an_older_source_leaves_the_cell_missing(results):
    results.write_error(KEY, "aaaaaaaa", error="it broke")
    assert results.state([(KEY, FP)])[KEY].status == "missing"
    assert "another source" in results.state([(KEY, FP)])[KEY].why


def test_an_error_keeps_the_beginning_of_a_long_text_no_folders_and_no_half_characters(results):
    trace = 'File "/home/me/own.py", line 3: \ud800'
    results.write_error(KEY, FP, error="x" * 5_000_000, trace=trace)
    kept = results.read_error(KEY, FP)
    assert kept["error"] == "x" * 4000 and kept["trace"] == 'File "own.py", line 3: ?'


def test_success_removes_the_failure_and_the_records_of_older_sources(results):
    results.write(a_record(fp="1a2b3c4d"))
    results.write_error(KEY, FP, error="it broke", trace="a, b")
    results.write(a_record("00ffffffffffffff", "1a2b3c4d"))
    assert results.read_error(KEY, FP)["error"] == "it broke"
    results.write(a_record())
    assert files_of(results) == [f"cells/00/{KEY}.9f8e7d6c.json", "cells/00/00ffffffffffffff.1a2b3c4d.json"]


def test_records_are_yielded_by_key_and_of_two_sources_the_newer(results):
    results.write(a_record("ff" * 8))
    results.write(a_record())
    old = results.path(KEY, "1a2b3c4d")
    old.write_bytes(schema.encode(a_record(fp="1a2b3c4d")))  # as a kill between rename and removal leaves it
    os.utime(old, (1, 1))
    assert [(r["key"], r["loss_fingerprint"]) for r in results.records()] == [(KEY, FP), ("ff" * 8, FP)]
    assert [r["key"] for r in results.records([("ff" * 8, FP), (KEY, FP)])] == ["ff" * 8, KEY]


def test_the_state_of_10000_cells_follows_from_listings_without_opening_a_file(results, monkeypatch):
    body = schema.encode(a_record())
    pairs = [(f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}", FP) for n in range(10_000)]
    for key, fp in pairs[:9_000]:
        path = results.path(key, fp)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)

    def refuse(*_, **__):
        raise AssertionError("a file was opened")

    for opener in ("open", "read_bytes", "read_text"):
        monkeypatch.setattr(Path, opener, refuse)
    states = results.state(pairs)
    assert sum(s.status == "done" for s in states.values()) == 9_000


# Damage


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda b: b[: len(b) // 2], "not valid JSON"),
        (lambda b: b"", "empty"),
        (lambda b: b"\xff\xfe" + b, "not valid JSON"),
        (lambda b: b'{"schema":1,"key":"ffffffffffffffff"}\n', "holds the cell 'ffffffffffffffff'"),
        (lambda b: schema.encode(a_record(fp="0" * 16)), "holds the loss fingerprint"),
        (lambda b: b.replace(b"0.8125", b"0.8135"), "check sum"),
        (lambda b: b.replace(b'"stack":2', b'"stack":22'), "check sum"),
        (lambda b: b.replace(b'"check":"', b'"check":"A'), "check sum"),
        (lambda b: b"[1,2]\n", "not a lossbench record"),
        (lambda b: b'{"schema":0}\n', "schema 0 never existed"),
        (lambda b: b"[" * 100_000, "not valid JSON"),
        (lambda b: b'{"schema":NaN}\n', "not valid JSON"),
        (lambda b: b'{"schema":true}\n', "not a lossbench record"),
        (lambda b: old(metrics=[1, 2]), "metrics are not numbers"),
        (lambda b: old(metrics={"dice@0.5": "high"}), "metrics are not numbers"),
        (lambda b: old().replace(b"0.8125", b"1e999"), "metrics are not numbers"),
        (lambda b: old(images={"image": [1, 2], "dice@0.5": [0.5]}), "images differ in length"),
        (lambda b: old(curves={"step": [1, {}]}), "curves hold no numbers in the column 'step'"),
        (lambda b: old(curves={"step": [9**99]}), "curves hold no numbers in the column 'step'"),
        (lambda b: old(cost={"seconds": "long"}), "its 'cost.seconds' is not what it should be"),
        (lambda b: old(cost={"seconds": 1.0, "cpu_seconds": 2**70}), "cost holds a number that is too large"),
        (
            lambda b: old(provenance={"hardware": {"cores": 1e308}}),
            "provenance holds a number that is too large",
        ),
        (lambda b: old(provenance={"commit": {}}), "'provenance.commit' is not what it should be"),
        (lambda b: old(metrics={"log_size_ratio_soft": 1e9}), "logarithm that no ratio of sizes has"),
        (lambda b: old(images={"key": [1]}), "column 'key'"),
        (lambda b: old(curves={"step": ["a"]}), "curves hold no numbers in the column 'step'"),
        (lambda b: old(reliability=[1]), "reliability are not columns"),
        (lambda b: old(family="\ud800"), "not valid JSON"),
        (lambda b: old(collapse="sideways"), "collapse is none of background, foreground, not_finite"),
        (lambda b: old(outcome="perfect"), "outcome is none of done, collapsed"),
        (lambda b: old(cell={}), "has no 'cell.dataset'"),
    ],
)
def test_a_damaged_record_is_set_aside_with_the_reason_and_its_cell_is_missing(results, damage, why):
    path = results.write(a_record())
    path.write_bytes(damage(path.read_bytes()))
    assert results.read(KEY, FP) is None
    assert results.state([(KEY, FP)])[KEY].status == "missing"
    assert files_of(results) == [f"quarantine/{path.name}"]
    assert len(results.notes) == 1 and why in results.notes[0] and "counts as missing" in results.notes[0]


def test_opening_for_writing_sets_cut_and_foreign_files_aside_but_leaves_other_peoples_notes(results):
    good = results.write(a_record())
    cut = results.write(a_record("00aaaaaaaaaaaaaa"))
    cut.write_bytes(cut.read_bytes()[:-40])
    foreign = good.with_name("results.json")
    foreign.write_text("{}")
    note = good.with_name("README.txt")
    note.write_text("mine")
    again = Store(results.folder)
    again.open_for_writing()
    assert good.exists() and note.exists() and not cut.exists() and not foreign.exists()
    assert sorted(n.split(":")[1].split(";")[0] for n in again.notes) == [
        " it is cut short",
        " its name is not that of a record",
    ]


def test_a_second_damaged_file_of_one_name_does_not_replace_the_first(results):
    for _ in range(2):
        results.write(a_record()).write_text("{")
        results.read(KEY, FP)
    assert len(list(results.quarantine.iterdir())) == 2


def test_mutated_records_never_raise_anything_but_are_set_aside_or_read(results):
    import random

    random.seed(0)
    whole = schema.encode(a_record())
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random.randint(1, 5)):
            data[random.randrange(len(data))] = random.randrange(256)
        del data[random.randrange(len(data)) :][: random.choice([0, 0, 10])]
        path = results.path(KEY, FP)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        try:
            found = results.read(KEY, FP)
        except UserError as error:
            assert "newer" in str(error)
            continue
        assert found is None or found["key"] == KEY


# Folders that refuse


def test_a_folder_under_a_file_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: .*; name another with --results"):
        Store(tmp_path / "file" / "results").open_for_writing()


def test_a_read_only_folder_is_refused_before_training(results, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match="read-only file system"):
        results.open_for_writing()


def test_a_full_disk_leaves_nothing_half_written(results, monkeypatch):
    before = results.write(a_record(loss_label="before"))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space is left"):
        results.write(a_record(loss_label="after"))
    assert results.read(KEY, FP)["loss_label"] == "before"
    assert files_of(results) == [before.relative_to(results.folder).as_posix()]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB; a function remounts it read-only."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.system
def test_a_really_full_disk_leaves_nothing_half_written(small_disk):
    store = Store(small_disk / "results")
    store.open_for_writing()
    written = []
    with pytest.raises(UserError, match="no space is left"):
        for n in range(1000):
            key = f"00{n:014x}"
            store.write(a_record(key, curves={"step": list(range(1000))}))
            written.append(key)
    assert written and [r["key"] for r in store.records()] == written and not store.notes
    assert not list(store.folder.rglob("*.tmp"))


@pytest.mark.system
def test_a_really_read_only_disk_can_be_read_and_is_refused_for_training(small_disk):
    store = Store(small_disk / "results")
    store.open_for_writing()
    store.write(a_record())
    store.write(a_record("ff" * 8)).write_text("{")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert [r["key"] for r in store.records()] == [KEY]
    assert "passed over" in store.notes[0]
    with pytest.raises(UserError, match="read-only file system"):
        store.open_for_writing()
    with pytest.raises(UserError, match="read-only file system"), store.claim([("ee" * 8, FP)]):
        pass


def test_what_a_dead_writer_left_is_swept_and_a_living_ones_draft_stays(results):
    shard = results.path(KEY, FP).parent
    shard.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = shard / f".{KEY}.9f8e7d6c.json.{process.host()}-{ended.pid}-123.0.tmp"
    alive = files.temporary(shard / f"{KEY}.9f8e7d6c.json")
    elsewhere = shard / f".{KEY}.9f8e7d6c.json.0badcafe-1-1.0.tmp"
    ancient = shard / f".{KEY}.9f8e7d6c.json.0badcafe-1-2.0.tmp"
    for path in (dead, alive, elsewhere, ancient):
        path.write_text("{")
    os.utime(ancient, (1, 1))
    results.open_for_writing()
    assert [p.exists() for p in (dead, alive, elsewhere, ancient)] == [False, True, True, False]


def test_a_reader_never_sees_a_torn_record_while_writers_replace_it(results):
    stop = threading.Event()
    results.write(a_record())
    bad = []

    def write(label):
        while not stop.is_set():
            results.write(a_record(loss_label=label, curves={"step": [1] * 500}))

    writers = [threading.Thread(target=write, args=(c,)) for c in "ab"]
    for w in writers:
        w.start()
    try:
        for _ in range(500):
            if results.read(KEY, FP) is None:
                bad.append(results.notes)
    finally:
        stop.set()
        for w in writers:
            w.join()
    assert not bad and not results.notes


# Leases


def test_a_claimed_cell_is_refused_to_others_and_free_again_afterwards(results):
    other = Store(results.folder)
    with results.claim([(KEY, FP), ("ff" * 8, FP)]) as mine:
        assert mine == [(KEY, FP), ("ff" * 8, FP)]
        with other.claim([(KEY, FP), ("ee" * 8, FP)]) as theirs:
            assert theirs == [("ee" * 8, FP)]
        with other.claim([(KEY, FP)]) as held:
            assert not held
    with other.claim([(KEY, FP)]) as held:
        assert held
    assert not list((results.folder / "leases").iterdir())


def test_one_lease_covers_all_lengths_of_a_trunk(results):
    short, long, other = (KEY, FP), ("ff" * 8, FP), ("ee" * 8, FP)
    trunks = {short: "aa" * 8, long: "aa" * 8}
    with results.claim([short], trunks) as mine:
        assert mine == [short]
        again = Store(results.folder)
        with again.claim([long, other], trunks) as theirs:
            assert theirs == [other]
        assert again.wait([long], trunks, poll=0, timeout=0) == ([], [])
    assert Store(results.folder).wait([long], trunks) == ([], [long])


def test_a_recorded_cell_is_not_claimed(results):
    results.write(a_record())
    with results.claim([(KEY, FP)]) as mine:
        assert mine == []


def test_an_error_inside_a_claim_releases_it(results):
    with pytest.raises(ZeroDivisionError), results.claim([(KEY, FP)]):
        raise ZeroDivisionError
    assert not results.leases.live()


def hold_and_die(folder, key, fp):
    claim = Store(folder).claim([(key, fp)])
    claim.__enter__()
    os.kill(os.getpid(), 9)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_the_lease_of_a_killed_process_of_this_host_is_taken_over_at_once(results):
    child = multiprocessing.get_context("spawn").Process(target=hold_and_die, args=(results.folder, KEY, FP))
    child.start()
    child.join()
    assert len(list((results.folder / "leases").iterdir())) == 1
    with results.claim([(KEY, FP)]) as held:
        assert held
        assert len(list((results.folder / "leases").iterdir())) == 1


def test_a_claim_that_was_cut_off_before_its_owner_stood_in_it_is_none(results):
    code = (
        "import os\nfrom lossbench.store import leases, store\nleases.Lease.beat = lambda self: os._exit(9)\n"
        f"store.Store({str(results.folder)!r}).leases.take({KEY!r}, {FP!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not results.leases.live()
    results.leases.give(results.leases.take(KEY, FP))
    results.open_for_writing()
    assert not list((results.folder / "leases").iterdir())


def test_a_zombie_counts_as_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and stays to be waited for
    word = f"{process.host()}-{child.pid}-{process.started(child.pid)}"
    assert process.started(child.pid) is None and process.is_dead(word)
    child.wait()


def test_a_reused_pid_does_not_keep_a_dead_owner_alive():
    assert not process.is_dead(process.owner())
    assert process.is_dead(f"{process.host()}-{os.getpid()}-1")


def test_a_process_of_another_host_is_never_called_dead_by_its_pid():
    assert not process.is_dead("0badcafe-999999-1")


def foreign_lease(store, beat=1):
    path = store.folder / "leases" / f"{KEY}.{FP[:8]}.feedfeedfeedfeed"
    path.write_text(f"0badcafe-1-1 {beat:012d}\n")
    return path


def test_a_foreign_lease_is_stale_only_after_its_counter_stood_still_whatever_its_file_time_says(
    results, monkeypatch
):
    store = Store(results.folder, patience=60)
    now = [1000.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    path = foreign_lease(store)
    os.utime(path, (1, 1))  # a clock that is decades off
    assert store.leases.live()
    now[0] += 59
    foreign_lease(store, beat=2)  # it lives
    assert store.leases.live()
    now[0] += 59
    os.utime(path, (1, 1))
    assert store.leases.live()
    now[0] += 2
    assert not store.leases.live() and not path.exists()


def test_a_paused_owner_finds_its_lease_gone_and_does_not_overwrite_its_successors(results):
    mine = results.leases.take(KEY, FP)
    mine.path.unlink()  # another sweep took over while we were paused
    with Store(results.folder).claim([(KEY, FP)]) as held:
        assert held and not mine.held
        mine.beat()
        assert len(list((results.folder / "leases").iterdir())) == 1
    results.leases.give(mine)


def test_a_held_lease_beats(tmp_path):
    store = Store(tmp_path, beat=0.05)
    with store.claim([(KEY, FP)]):
        path = next((tmp_path / "leases").iterdir())
        first = int(path.read_text().split()[1])
        deadline = time.monotonic() + 60  # a busy machine may beat late
        while int(path.read_text().split()[1]) < first + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert int(path.read_text().split()[1]) >= first + 2


def test_a_lease_names_no_host(results):
    with results.claim([(KEY, FP)]):
        path = next((results.folder / "leases").iterdir())
        assert os.uname().nodename not in path.read_text() + path.name


def race(folder, keys, log, start):
    store = Store(folder)
    start.wait()
    for key in keys:
        for _ in range(20):
            with store.claim([(key, FP)]) as held:
                if held:
                    with open(log, "a") as f:
                        f.write(f"+{key}\n")
                    time.sleep(0.003)
                    store.write(a_record(key))
                    with open(log, "a") as f:
                        f.write(f"-{key}\n")
            if store.has(key, FP):
                break
            time.sleep(0.002)


@pytest.mark.system
def test_four_processes_on_one_folder_train_each_cell_once(results, tmp_path):
    context = multiprocessing.get_context("spawn")
    keys, log, start = [f"{n:016x}" for n in range(40)], tmp_path / "log", context.Event()
    children = [context.Process(target=race, args=(results.folder, keys, log, start)) for _ in range(4)]
    for child in children:
        child.start()
    time.sleep(1)
    start.set()
    for child in children:
        child.join()
    lines = log.read_text().split()
    assert sorted(lines) == sorted([f"{sign}{key}" for key in keys for sign in "+-"])


def test_waiting_ends_when_nobody_else_holds_the_cells(results):
    other = Store(results.folder)
    pairs = [(KEY, FP), ("ff" * 8, FP), ("ee" * 8, FP)]
    claim = other.claim(pairs)
    claim.__enter__()
    assert results.wait(pairs, poll=0.01, timeout=0.05) == ([], [])
    other.write(a_record())
    assert results.wait(pairs, poll=0.01, timeout=0.05) == ([(KEY, FP)], [])
    threading.Timer(0.1, claim.__exit__, (None, None, None)).start()
    assert results.wait(pairs, poll=0.01) == ([(KEY, FP)], pairs[1:])


def test_the_store_needs_neither_torch_nor_numpy():
    code = (
        "import sys, lossbench.store.store; assert not {'torch', 'numpy', 'distributed', 'pandas'} & "
        "set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
