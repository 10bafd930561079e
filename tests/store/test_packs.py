"""A pack reads like the loose records that it replaces, loses none of them whenever it is killed, and does
nothing it is not for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import pytest
from test_store import FP, KEY, a_record

from lossbench.base.errors import UserError
from lossbench.store import archive, pack
from lossbench.store import record as schema
from lossbench.store.note import Note, NotedCell
from lossbench.store.store import Store
from lossbench.sweep.run import open_results

KEYS = [f"{n:02x}" * 8 for n in range(6)]
PAIRS = [(key, FP) for key in KEYS]


@pytest.fixture
def results(tmp_path):
    store = Store(tmp_path / "results")
    store.open_for_writing()
    for number, key in enumerate(KEYS):
        store.write(a_record(key, loss_label=f"loss {number}"))
    return store


def loose(store):
    return sorted(path.name for path in store.cells.glob("*/*"))


def contents(store, pairs=PAIRS):
    return [record["loss_label"] for record in store.records(pairs)]


def test_packed_records_read_like_loose_ones_and_nothing_is_left_to_train(results):
    before = {pair: results.read(*pair) for pair in PAIRS}
    assert pack.pack(results).startswith("6 records packed, 0 were packed already;")
    assert not loose(results)
    again = Store(results.folder)
    assert {pair: again.read(*pair) for pair in PAIRS} == before
    assert list(again.records()) == [before[pair] for pair in sorted(PAIRS)] and again.count() == 6
    assert {state.status for state in again.state(PAIRS).values()} == {"done"}
    with again.claim(PAIRS) as mine:
        assert mine == []
    assert again.wait(PAIRS, timeout=0) == (PAIRS, [])
    assert not again.notes and again.read("ee" * 8, FP) is None


def test_a_store_that_was_open_before_sees_the_pack_and_what_is_packed_later(results):
    early = Store(results.folder)
    assert len(early.state(PAIRS)) == 6 and early.count() == 6
    pack.pack(results)
    assert early.count() == 6 and early.has(*PAIRS[0])
    results.write(a_record("ee" * 8))
    assert pack.pack(results).startswith("1 records packed")
    assert early.read("ee" * 8, FP)["key"] == "ee" * 8 and early.count() == 7


def test_a_second_pack_adds_and_equal_records_give_equal_bytes(results, tmp_path):
    pack.pack(results)
    first = (results.folder / pack.NAME).read_bytes()
    assert pack.pack(results).startswith("0 records packed")
    assert (results.folder / pack.NAME).read_bytes() == first
    other = Store(tmp_path / "other")
    other.open_for_writing()
    for record in results.records():
        other.write(record)
    pack.pack(other)
    assert (other.folder / pack.NAME).read_bytes() == first


def test_the_pack_unfolds_to_the_loose_files_with_a_common_tool(results):
    bytes_of = {name: results.path(*name.split(".")[:2]).read_bytes() for name in loose(results)}
    pack.pack(results)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", pack.NAME, "."], cwd=results.folder, check=True)
    assert {name: results.path(*name.split(".")[:2]).read_bytes() for name in loose(results)} == bytes_of


def test_a_loose_record_goes_before_a_packed_one_and_replaces_it_when_packed(results):
    pack.pack(results)
    results.write(a_record(KEYS[0], loss_label="again"))
    results.write(a_record(KEYS[1], "1a2b3c4d", loss_label="other source"))
    again = Store(results.folder)
    assert again.read(KEYS[0], FP)["loss_label"] == "again" and again.count() == 6
    assert {r["key"]: r["loss_fingerprint"] for r in again.records()}[KEYS[1]] == "1a2b3c4d"
    pack.pack(again)
    with zipfile.ZipFile(results.folder / pack.NAME) as archive:
        assert len(archive.namelist()) == 6 and f"cells/01/{KEYS[1]}.1a2b3c4d.json" in archive.namelist()
    assert again.read(KEYS[0], FP)["loss_label"] == "again"
    assert again.state([(KEYS[1], FP)])[KEYS[1]].status == "stale"


def test_errors_stay_beside_the_pack_until_their_cell_succeeds(results):
    pack.pack(results)
    results.write_error("ee" * 8, FP, error="it broke")
    pack.pack(results)
    assert results.state([("ee" * 8, FP)])["ee" * 8].status == "failed" and loose(results) == [
        f"{'ee' * 8}.9f8e7d6c.error.json"
    ]


@pytest.mark.parametrize("moment", ["_build", "_check", "replace", "flush_folder", "_remove", "unlink"])
def test_a_crash_between_any_two_steps_loses_nothing_and_the_next_pack_ends_the_work(
    results, monkeypatch, moment
):
    before = contents(results)

    class Killed(BaseException):
        """Not an error that anything could catch by mistake."""

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "unlink":
            real, left = Path.unlink, []

            def unlink(path, **options):
                left.append(path.suffix == ".json")
                return die() if left[-1] and sum(left) > 5 else real(path, **options)

            patch.setattr(Path, "unlink", unlink)
        else:
            patch.setattr(*((pack.os, "replace") if moment == "replace" else (pack, moment)), die)
        with pytest.raises(Killed):
            pack.pack(results)
    again = Store(results.folder)
    assert contents(again) == before and {s.status for s in again.state(PAIRS).values()} == {"done"}
    pack.pack(again)
    assert contents(again) == before and not loose(again) and not list(again.folder.glob(".*.tmp"))


@pytest.mark.system
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_pack_killed_at_any_moment_loses_nothing(results):
    for number in range(300):
        results.write(
            a_record(f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}", curves={"step": list(range(3000))})
        )
    keys = sorted(record["key"] for record in results.records())
    for wait in (0.02, 0.1, 0.2, 0.4, 0.6, 0.9):
        code = (
            "from lossbench.store import pack, store; print(1, flush=True); "
            f"pack.pack(store.Store({str(results.folder)!r}))"
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.read(1)
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        assert sorted(record["key"] for record in Store(results.folder).records()) == keys
    pack.pack(results)
    assert sorted(record["key"] for record in results.records()) == keys and not loose(results)
    assert not list(results.folder.glob(".*.tmp"))


def test_packing_beside_a_sweep_and_its_readers_loses_nothing_and_hides_nothing(results):
    stop, missed, written = threading.Event(), [], list(PAIRS)

    def sweep():
        store = Store(results.folder)
        for number in range(0x10, 0xD0):
            store.write(a_record(f"{number:02x}" * 8))
            written.append((f"{number:02x}" * 8, FP))
        stop.set()

    def watch():
        store = Store(results.folder)
        while not stop.is_set():
            known = list(written)
            states = store.state(known)
            missed.extend(key for key, state in states.items() if state.status != "done")
            missed.extend(pair for pair in known[-5:] if not store.has(*pair) or store.read(*pair) is None)

    threads = [threading.Thread(target=sweep), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        pack.pack(Store(results.folder))
    for thread in threads:
        thread.join()
    pack.pack(results)
    assert not missed and results.count() == len(written) == 6 + 0xC0


def test_only_one_process_packs_at_a_time(results):
    first, second, said = *(Store(results.folder, beat=0.05, patience=0.5) for _ in range(2)), []
    held = first.leases.take("pack", "records0")
    with pytest.raises(UserError, match="another process is packing"):
        pack.pack(second, said.append)
    assert len(said) == 1 and "waiting, 1 s at most" in said[0]
    threading.Timer(0.2, first.leases.give, [held]).start()
    assert "6 records packed" in pack.pack(second)


def test_a_claim_from_before_the_machine_was_started_again_is_waited_for_and_removed(results):
    claim = results.folder / "leases" / "pack.records0.00112233aabbccdd"
    claim.write_text("0badb007-4242-999 000000000007\n")
    assert "6 records packed" in pack.pack(Store(results.folder, beat=0.05, patience=0.3))
    assert not claim.exists()


def test_a_full_disk_changes_nothing(results, monkeypatch):
    before = contents(results)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack.os, "fsync", full)
    with pytest.raises(UserError, match="no space is left"):
        pack.pack(results)
    assert (
        contents(results) == before and len(loose(results)) == 6 and not list(results.folder.glob(".*.tmp"))
    )


# Packs that others made


def hostile(folder, members):
    with warnings.catch_warnings(), zipfile.ZipFile(folder / pack.NAME, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)


@pytest.mark.parametrize(
    "name",
    [
        f"../../{KEY}.9f8e7d6c.json",
        f"/etc/{KEY}.9f8e7d6c.json",
        f"cells/../cells/00/{KEY}.9f8e7d6c.json",
        f"cells/11/{KEY}.9f8e7d6c.json",
        f"C:\\cells\\00\\{KEY}.9f8e7d6c.json",
        f"cells/00/{KEY}.9f8e7d6c.error.json",
        f"cells/00/{KEY}.9f8e7d6c.json/",
        f"cells/00/{KEY}.9f8e7d6c.json\n",
    ],
)
def test_a_member_with_a_hostile_name_is_passed_over_and_said(tmp_path, name):
    (tmp_path / "r").mkdir()
    hostile(
        tmp_path / "r",
        [
            (name, schema.encode(a_record())),
            (f"cells/ff/{'ff' * 8}.9f8e7d6c.json", schema.encode(a_record("ff" * 8))),
        ],
    )
    store = Store(tmp_path / "r")
    assert store.state([(KEY, FP)])[KEY].status == "missing" and store.read(KEY, FP) is None
    assert [record["key"] for record in store.records()] == ["ff" * 8]
    store.open_for_writing()
    assert "are not records and are passed over" in store.notes[0]
    pack.pack(store)
    with zipfile.ZipFile(tmp_path / "r" / pack.NAME) as archive:
        assert archive.namelist() == [f"cells/ff/{'ff' * 8}.9f8e7d6c.json"]
    assert {path.name for path in tmp_path.iterdir()} == {"r"}


def test_a_packed_record_that_is_not_what_its_name_says_is_noted_and_its_cell_runs_again(tmp_path):
    (tmp_path / "r").mkdir()
    good, bad = f"cells/ff/{'ff' * 8}.9f8e7d6c.json", f"cells/00/{KEY}.9f8e7d6c.json"
    hostile(
        tmp_path / "r", [(bad, schema.encode(a_record("ff" * 8))), (good, schema.encode(a_record("ff" * 8)))]
    )
    store = Store(tmp_path / "r")
    assert store.state([(KEY, FP)])[KEY].status == "done"  # nobody has read it yet
    assert store.read(KEY, FP) is None and "holds the cell 'ffff" in store.notes[0]
    assert (
        store.state([(KEY, FP)])[KEY].status == "failed"
        and "is damaged" in store.read_error(KEY, FP)["error"]
    )
    with store.claim([(KEY, FP)]) as mine:
        assert mine == [(KEY, FP)]
        store.write(a_record())
    assert Store(tmp_path / "r").read(KEY, FP) == a_record()
    pack.pack(store)
    assert Store(tmp_path / "r").read(KEY, FP) == a_record() and store.count() == 2


def test_packing_keeps_an_archive_aside_of_which_something_could_not_be_read(tmp_path):
    (tmp_path / "r").mkdir()
    hostile(
        tmp_path / "r",
        [
            (f"cells/00/{KEY}.9f8e7d6c.json", b"[]"),
            (f"cells/ff/{'ff' * 8}.9f8e7d6c.json", schema.encode(a_record("ff" * 8))),
        ],
    )
    before = (tmp_path / "r" / pack.NAME).read_bytes()
    store = Store(tmp_path / "r")
    pack.pack(store)
    assert (tmp_path / "r" / "quarantine" / "records.zip.1").read_bytes() == before
    assert store.count() == 1 and store.state([(KEY, FP)])[KEY].status == "failed"


def test_flipped_bits_in_a_pack_never_change_a_number_and_never_hide_a_sound_record_for_good(results):
    import random

    pack.pack(results)
    path, whole = results.folder / pack.NAME, (results.folder / pack.NAME).read_bytes()
    draw, expected = random.Random(0), {pair: results.read(*pair) for pair in PAIRS}
    for _ in range(200):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
        store = Store(results.folder)
        try:
            found = {pair: store.read(*pair) for pair in PAIRS}
        except UserError as error:
            assert "fetch it again" in str(error)
        else:
            assert all(record in (None, expected[pair]) for pair, record in found.items())
            assert sum(record is None for record in found.values()) <= 1
        path.write_bytes(whole)  # fetched again
        Store(results.folder).open_for_writing()
        assert not list(results.cells.glob("*/*.error.json"))
    assert contents(Store(results.folder)) == contents(results)


def test_what_is_no_archive_is_said_in_one_sentence_and_no_cell_is_trained_again_by_mistake(results):
    pack.pack(results)
    (results.folder / pack.NAME).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"records\.zip cannot be read .*; fetch it again"):
        Store(results.folder).state(PAIRS)


def test_a_member_that_promises_more_than_memory_holds_is_not_unpacked(results, monkeypatch):
    pack.pack(results)
    monkeypatch.setattr(archive, "LARGEST", 100)
    assert results.read(*PAIRS[0]) is None and "unfold" in results.notes[0]


def test_a_pack_is_strict_json_and_no_pickle(results):
    pack.pack(results)
    with zipfile.ZipFile(results.folder / pack.NAME) as archive:
        assert all(json.loads(archive.read(name))["schema"] == 1 for name in archive.namelist())


# Tables


def test_tables_are_made_again_only_when_a_record_the_note_or_the_code_has_changed(
    results, tmp_path, monkeypatch
):
    from lossbench.tables import compact, make, stamp

    def note(first="loss 0"):
        cells = [
            NotedCell(key, FP, first if n == 0 else f"loss {n}", "toy", "b") for n, key in enumerate(KEYS)
        ]
        return Note(name="toy", cells=cells)

    monkeypatch.setattr(stamp, "CODE", (tmp_path,))

    def made(**labels):
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(
                compact, "compact", lambda *given, real=compact.compact: calls.append(1) or real(*given)
            )
            make.write_tables(results.folder, note(**labels))
        return bool(calls)

    assert made() and not made()
    results.write(a_record(KEYS[0], loss_label="again"))
    assert made() and not made()
    assert made(first="another label") and not made(first="another label") and made()
    assert make.write_tables(results.folder, note()).endswith("(6 cells, as they were)")
    pack.pack(results)
    assert made() and not made()
    (results.folder / "tables" / "curves.parquet").unlink()
    assert made() and not made()
    results.write(a_record(KEYS[1])).write_text("{}")
    assert made() and made() and not made()  # set aside, so nothing was noted; the pack still has it
    (tmp_path / "new.py").write_text("")
    assert made() and not made()


def test_a_record_that_is_damaged_in_the_middle_is_named_when_tables_are_made(results):
    from lossbench.tables import make

    note = Note(name="toy", cells=[NotedCell(key, FP, "l", "toy", "b") for key in KEYS])
    path = results.path(*PAIRS[2])
    path.write_bytes(path.read_bytes().replace(b"0.8125", b"0.8135"))
    assert results.state(PAIRS)[KEYS[2]].status == "done"
    text = make.write_tables(results.folder, note)
    assert "5 cells, 1 missing" in text and f"set aside {path}: its check sum does not fit" in text
    assert results.state(PAIRS)[KEYS[2]].status == "missing"


def test_a_packed_record_that_is_damaged_counts_as_missing_once_a_sweep_opens_the_folder(results):
    pack.pack(results)
    with zipfile.ZipFile(results.pack.path) as archive:
        info = archive.infolist()[2]
    data = bytearray(results.pack.path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    results.pack.path.write_bytes(data)
    said = []
    open_results(results.folder, said.append)
    assert len(said) == 1 and KEYS[2] in said[0] and "its cell counts as missing" in said[0]
    states = Store(results.folder).state(PAIRS)
    assert [states[key].status for key in KEYS] == ["done", "done", "failed", "done", "done", "done"]
    results.write(a_record(KEYS[2]))
    said.clear()
    open_results(results.folder, said.append)
    assert not said and Store(results.folder).state(PAIRS)[KEYS[2]].status == "done"


def test_packing_removes_the_loose_records_that_a_newer_one_replaces(results):
    old = results.path(KEYS[0], "1a2b3c4d")
    old.write_bytes(
        schema.encode(a_record(KEYS[0], "1a2b3c4d"))
    )  # as a kill between rename and removal leaves it
    os.utime(old, (1, 1))
    pack.pack(results)
    assert not loose(results) and results.count() == 6 and results.read(KEYS[0], FP)["loss_label"] == "loss 0"
