"""Every record, table and certificate of a folder is read by its check sum when asked for."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from command import lossbench
from lossbench.store import integrity, note, pack
from lossbench.store.store import Store
from lossbench.sweep import verify
from lossbench.tables import files, stamp

GOLDEN = Path(__file__).parents[1] / "golden" / "record_v1.json"


def key(number):
    return f"{number:016x}"


@pytest.fixture
def store(tmp_path):
    """Six records, three of them packed."""
    store = Store(tmp_path / "results")
    for number in range(3):
        store.write({**json.loads(GOLDEN.read_text()), "key": key(number), "loss_fingerprint": "9f8e7d6c"})
    pack.pack(store)
    for number in range(3, 6):
        store.write({**json.loads(GOLDEN.read_text()), "key": key(number), "loss_fingerprint": "9f8e7d6c"})
    return Store(tmp_path / "results")


def flip(path, old, new):
    data = path.read_bytes()
    assert data.count(old) >= 1
    path.write_bytes(data.replace(old, new, 1))


def test_a_sound_folder_is_said_to_be_sound(store):
    found = integrity.check_records(store)
    assert (found.records, found.damaged, found.unmarked) == (6, [], [])
    assert "6 records and 0 tables: all as they were written" in lossbench(
        store.folder, "verify", "--all-records", "--results", "."
    )


def test_a_changed_digit_a_foreign_name_and_a_missing_check_sum_are_named(store):
    digit, renamed, bare = (store.path(key(number), "9f8e7d6c") for number in (3, 4, 5))
    flip(digit, b'"schema":1', b'"schema":2')
    renamed.rename(store.path(key(4 + 16), "9f8e7d6c"))
    facts = json.loads(bare.read_bytes())
    del facts["check"]
    bare.write_text(json.dumps(facts, separators=(",", ":")) + "\n")
    found = integrity.check_records(store)
    assert [line.partition(": ")[2] for line in found.damaged] == [
        "its check sum does not fit its bytes",
        "it holds another cell",
    ]
    assert found.unmarked == [str(bare)]
    said = lossbench(store.folder, "verify", "--all-records", "--results", ".", code=1)
    assert "6 records and 0 tables: 2 damaged" in said and "without a check sum" in said


@pytest.fixture
def tables(mini_tables, tmp_path):
    """A folder of tables as a report leaves it, without records."""
    folder = tmp_path / "study" / "tables"
    stamp.stamp(folder, "digest", files.write_tables(mini_tables, folder))
    csv = files.write_csv(mini_tables["recipes"], folder / "verdicts.csv")
    tex = files.write_latex(mini_tables["recipes"], folder / "verdicts.tex")
    stamp.stamp_derived(folder, [csv, tex])
    (folder / ".cells.parquet.1.part").write_bytes(b"of a dead writer")
    return folder


def looked(tables, code=0):
    return lossbench(tables, "verify", "--all-records", "--results", "..", code=code)


def test_tables_that_a_report_derived_are_read_by_their_check_sums_too(tables):
    count = len(list(tables.glob("[!.]*"))) - 1
    assert looked(tables).endswith(f"0 records and {count} tables: all as they were written\n")
    assert stamp.is_fresh(tables, "digest")
    for name in ("verdicts.csv", "verdicts.tex"):
        with open(tables / name, "a") as file:
            file.write(" ")
    said = looked(tables, code=1)
    assert f"{count} tables: 2 damaged" in said and said.count("verdicts") == 2
    assert stamp.is_fresh(tables, "digest")  # what is made from the records is as it was


def test_a_table_without_a_check_sum_is_named_and_is_no_damage(tables):
    facts = json.loads((tables / "made_from.json").read_text())
    del facts["derived"]  # as earlier versions wrote it
    (tables / "made_from.json").write_text(json.dumps(facts))
    said = looked(tables)
    assert "without a check sum" in said and "verdicts.csv, ../tables/verdicts.tex\n" in said
    assert "all as they were written, but for 2 without a check sum" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "it is missing"),
        ("{", "it cannot be read"),
        ("[]", "it is not what a report wrote there"),
        ('{"digest": "d", "files": {"cells.parquet": 3}}', "it is not what a report wrote there"),
        ('{"digest": "d", "files": {}, "derivee": {}}', "it is not what a report wrote there"),
        ('{"digest": "d", "files": {}, "derived": []}', "it is not what a report wrote there"),
    ],
)
def test_check_sums_of_tables_that_are_missing_or_damaged_are_damage(tables, text, why):
    (tables / "made_from.json").unlink()
    if text is not None:
        (tables / "made_from.json").write_text(text)
    said = looked(tables, code=1)
    assert f"DAMAGED  ../tables/made_from.json: {why}" in said and "`lossbench report" in said
    assert "without a check sum" in said and "1 damaged" in said


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path):
    words = ("verify", "--all-records", "--results")
    assert "nonexist: there is no such folder" in lossbench(tmp_path, *words, "nonexist", code=2)
    assert not (tmp_path / "nonexist").exists()
    (tmp_path / "empty").mkdir()
    said = lossbench(tmp_path, *words, "empty", code=2)
    assert "empty holds no record, no table and no certificate" in said


def test_options_about_training_do_not_go_with_reading_every_record(store):
    words = ("verify", "--all-records", "--results", ".")
    said = lossbench(store.folder, *words, "--sample", "10", "--cell", "abc", code=2)
    assert "--all-records trains nothing, so that it does not go with --sample, --cell" in said
    assert "with --sample\n" in lossbench(store.folder, *words, "--sample", "3", code=2)
    assert "with --seed\n" in lossbench(store.folder, *words, "--seed", "0", code=2)


def test_a_damaged_pack_is_noticed(store):
    with zipfile.ZipFile(store.pack.path) as archive:
        info = archive.infolist()[1]
    data = bytearray(store.pack.path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    store.pack.path.write_bytes(data)
    (line,) = integrity.check_records(Store(store.folder), loose=False).damaged
    assert info.filename[9:25] in line and "cannot be unpacked" in line
    said = lossbench(store.folder, "status", "quick", "--results", ".")
    assert f"damaged: records.zip: {info.filename[9:25]}" in said
    assert said.count("to train its cell again: lossbench sweep quick --results .\n") == 1
    store.write(
        {**json.loads(GOLDEN.read_text()), "key": info.filename[9:25], "loss_fingerprint": "9f8e7d6c"}
    )
    said = lossbench(store.folder, "status", "quick", "--results", ".")
    assert "its cell again" not in said and said.count("to remove it: lossbench pack --results .\n") == 1
    pack.pack(Store(store.folder))
    assert "damaged" not in lossbench(store.folder, "status", "quick", "--results", ".")


def test_a_certificate_carries_a_check_sum(tmp_path):
    path = tmp_path / "verified.json"
    path.write_bytes(integrity.seal({"says": "3 of 4 cells trained again", "passed": True}))
    assert integrity.check_certificates([path]) == integrity.Found()
    flip(path, b"true", b"false")
    assert "its check sum does not fit" in integrity.check_certificates([path]).damaged[0]
    path.write_text('{"says": ""}')
    assert integrity.check_certificates([path, tmp_path / "none.json"]).unmarked == [str(path)]


def test_the_certificate_of_the_committed_study_is_written_beside_ones_own_results(tmp_path):
    assert verify.certificate_of(note.STUDY) == note.OWN / "verified-paper.json"
    assert verify.certificate_of(tmp_path) == tmp_path / "verified.json"


def test_no_certificate_is_written_into_a_study_that_git_tracks(tmp_path, monkeypatch):
    own, noted, packed, certified = (tmp_path / "results" / n for n in ("", "noted", "packed", "certified"))
    for folder, name in ((noted, note.NAME), (packed, "records.zip"), (certified, "verified.json")):
        folder.mkdir(parents=True)
        (folder / name).write_text("{}")
    assert verify.certificate_of(noted) == noted / "verified.json"
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    for folder in (noted, packed, certified):
        assert verify.certificate_of(folder) == own / f"verified-{folder.name}.json"
    assert verify.certificate_of(own) == own / "verified.json"  # which only holds them
    monkeypatch.chdir(noted)
    assert verify.certificate_of(".") == own / "verified-noted.json"
    monkeypatch.chdir(own)
    assert verify.certificate_of("packed") == Path("verified-packed.json")
