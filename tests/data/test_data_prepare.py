"""Prepared arrays are built once, are whole or absent, and what they are is known without building them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_dataset
from lossbench.data import prepare
from lossbench.data.pairs import Arrays, Item
from lossbench.data.prepare import identity, missing, open_prepared, prepared_path
from lossbench.data.windows import zscore

PARAMS = {"size": 8, "val_fraction": 0.2, "test_fraction": 0.2}


def made():
    rng = np.random.default_rng(0)
    masks = (rng.random((20, 8, 8)) < 0.1).astype(np.uint8)
    images = rng.normal(size=(20, 1, 8, 8)).astype(np.float32)
    return Arrays(images, masks, [Item(f"n{i}", i) for i in range(20)], [f"n{i}" for i in range(20)])


def opened(build, seed=0, **changed):
    return open_prepared("toy", "toy", {**PARAMS, **changed}, 1, build, {"licence": "none"})


def test_arrays_are_built_once_for_all_seeds_and_fractions(cache):
    calls = []

    def build():
        calls.append(1)
        return made()

    first, second = opened(build), opened(build, seed=1)
    third = opened(build, val_fraction=0.3)
    assert len(calls) == 1 and first.fingerprint == second.fingerprint != third.fingerprint
    assert opened(build).fingerprint == first.fingerprint and isinstance(first.images, np.memmap)
    opened(build, size=16)
    assert len(calls) == 2


def test_the_fingerprint_of_a_mapped_set_is_that_of_its_arrays(cache):
    from lossbench.data.container import container

    data = opened(made)
    same = container(
        name="x",
        images=np.array(data.images),
        masks=np.array(data.masks),
        split=data.split,
        groups=data.groups,
        ignore_index=255,
    )
    assert same.fingerprint == data.fingerprint


def test_a_failed_build_leaves_nothing_behind(cache):
    def broken():
        raise UserError("no such file")

    with pytest.raises(UserError, match="no such file"):
        opened(broken)

    def wrong():
        items = [Item(name, n) for n, name in enumerate("abc")]
        masks = np.full((3, 8, 8), 7, np.uint8)
        return Arrays(np.zeros((3, 1, 8, 8), np.float32), masks, items, list("abc"))

    with pytest.raises(UserError, match=r"undeclared values \[7\]"):
        opened(wrong)
    assert [p.name for p in (cache / "prepared").iterdir() if not p.name.endswith(".lock")] == []


def test_damaged_prepared_arrays_are_built_anew(cache):
    opened(made)
    folder = prepared_path("toy", PARAMS, 1)
    with (folder / "images.npy").open("r+b") as file:
        file.truncate(200)
    assert len(opened(made)) == 20
    (folder / "meta.json").write_text("{")
    assert len(opened(made)) == 20


@pytest.mark.parametrize("name", ["images", "masks"])
def test_a_changed_bit_in_prepared_arrays_is_found_and_they_are_built_anew(cache, name):
    whole = np.array(getattr(opened(made), name))
    file = prepared_path("toy", PARAMS, 1) / f"{name}.npy"
    with file.open("r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)[0]
        stream.seek(-5, os.SEEK_END)
        stream.write(bytes([byte ^ 1]))
    os.utime(file, ns=(1, 1))  # as a disk that lost a bit: another process, which has not read the file yet
    assert np.array_equal(getattr(opened(made), name), whole)


def test_an_unwritable_cache_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOSSBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="LOSSBENCH_CACHE") as refused:
        opened(made)
    assert "\n" not in str(refused.value)


def test_a_full_disk_during_preparation_is_one_sentence_and_leaves_nothing(cache, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(prepare.np, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        opened(made)
    assert [p.name for p in (cache / "prepared").iterdir() if not p.name.endswith(".lock")] == []


def test_processes_that_prepare_at_once_build_once(cache, tmp_path):
    code = (
        "import sys, time; sys.path[:0] = [{here!r}, {root!r}]\n"
        "from pathlib import Path\n"
        "import test_data_prepare as t\n"
        "def build():\n"
        "    Path({log!r}).open('a').write('x'); time.sleep(0.3); return t.made()\n"
        "print(t.opened(build).fingerprint)\n"
    ).format(here=str(Path(__file__).parent), root=str(Path(__file__).parents[2]), log=str(tmp_path / "log"))
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    prints = {process.communicate(timeout=120)[0].strip() for process in running}
    assert len(prints) == 1 and prints != {""}
    assert (tmp_path / "log").read_text() == "x"


def test_official_parts_are_kept_for_every_seed(cache):
    def build():
        plain, parts = made(), ["train"] * 12 + ["val"] * 3 + ["test"] * 5
        plain.items = [Item(f"n{i}", i, part=part) for i, part in enumerate(parts)]
        return plain

    assert all(opened(build, seed=s).split["test"].tolist() == [15, 16, 17, 18, 19] for s in range(3))


def test_zscore_makes_unit_spread_and_a_constant_image_zero():
    image = np.random.default_rng(0).normal(1e6, 30, (2, 9, 9))
    image[1] = 5
    scored = zscore(image)
    assert (
        abs(scored[0].mean()) < 1e-5 and scored[0].std() == pytest.approx(1, abs=1e-5) and not scored[1].any()
    )


# --- identity


def ident(text, extra=()):
    return identity(parse_dataset(text, extra))


def test_the_identity_depends_on_every_parameter_and_on_nothing_else(no_data):
    assert ident("scenes") == ident("scenes(foreground=0.01)") != ident("scenes(foreground=0.011)")
    names = ["scenes", "msd_hippocampus", "magnetic_tile", "crackforest", "camvid", "sirst"]
    assert len({ident(name) for name in names}) == 6
    assert ident("camvid") != ident("camvid(frames='all')")


def test_the_identity_of_a_set_follows_its_registry(monkeypatch, no_data):
    from lossbench.data import sources

    before = ident("sirst")
    monkeypatch.setattr(sources, "registry_hash", lambda name: "other")
    assert ident("sirst") != before


def test_the_identity_of_a_folder_is_its_content_not_its_place(make_folder, cache, tmp_path):
    import shutil

    root = make_folder()
    first = ident(f"folder(path={str(root)!r})")
    moved = shutil.copytree(root, tmp_path / "moved")
    assert ident(f"folder(path={str(moved)!r})") == first
    assert ident(f"folder(path={str(root)!r}, view='whole')") != first
    victim = moved / "masks" / "case03.png"
    shutil.copy(moved / "masks" / "case04.png", victim)
    assert ident(f"folder(path={str(moved)!r})") != first


def test_the_identity_of_a_builder_of_ones_own_follows_its_source(tmp_path):
    file = tmp_path / "own.py"
    text = "from lossbench import dataset\n\n@dataset('own')\ndef own(*, seed, n=3):\n    return {}\n"
    marks = []
    for body in ("n + 1", "n + 2"):
        file.write_text(text.format(body))
        marks.append(ident("own", (str(file),)))
    assert marks[0] != marks[1]


def test_an_absent_set_is_said_with_its_size_and_licence(no_data):
    why = missing(parse_dataset("sirst"))
    assert (
        "lossbench data fetch sirst" in why
        and "15 MB" in why
        and "none stated" in why
        and "LOSSBENCH_DATA" in why
    )
    with pytest.raises(UserError, match="is not on this machine"):
        get_dataset("sirst")
    assert missing(parse_dataset("scenes")) == ""


def test_a_set_with_gaps_is_said_to_be_incomplete(no_data, monkeypatch, tmp_path):
    (tmp_path / "data" / "sirst").mkdir(parents=True)
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path / "data"))
    assert "857 of 857 files are missing" in missing(parse_dataset("sirst"))
    with pytest.raises(UserError, match="is missing; run 'lossbench data fetch sirst'"):
        get_dataset("sirst")
