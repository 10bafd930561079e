"""Downloads from a server on this machine: whole or not at all, checked, never outside their folder."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import shutil
import threading
import time
import zipfile
from dataclasses import replace

import pytest

from lossbench.base.errors import UserError
from lossbench.base.files import write_atomically
from lossbench.cli import data as datasets
from lossbench.data import fetch, sources
from lossbench.data.cache import check

FILES = {
    f"data/{kind}/case_{n}.bin": (f"{kind} {n} " * 2000).encode()
    for kind in ("images", "labels")
    for n in range(4)
}


class Server:
    """A server of archives and single files that can be made to misbehave; it lists what it was asked for."""

    def __init__(self):
        self.asked: list[str] = []
        self.answers: dict[str, list] = {}  # path -> what to do with the next requests: a status or "cut"
        self.archive = archive_of(FILES)
        self.files = dict(FILES)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.serve(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def serve(self, request):
        path = request.path
        self.asked.append(path)
        what = self.answers[path].pop(0) if self.answers.get(path) else None
        content = self.archive if path.endswith(".zip") else self.files.get(path.split("/abc123/")[-1])
        request.send_response(what if isinstance(what, int) else 200)
        if isinstance(what, int):
            request.send_header("Retry-After", "7")
            content = b""
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2] if what == "cut" else content)
        request.close_connection = what == "cut"


def archive_of(contents: dict[str, bytes], top: str = "toy-abc123") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            archive.writestr(f"{top}/{path}", content)
    return target.getvalue()


@pytest.fixture
def waits(monkeypatch):
    """The pauses that a download makes, without making them."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def server(monkeypatch, no_data, tmp_path, waits):
    """A server that offers the public set 'toy', with its registry, and no real address to fall back to."""
    running = Server()
    monkeypatch.setattr(fetch, "ARCHIVES", running.url)
    monkeypatch.setattr(fetch, "SINGLES", running.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    offer(monkeypatch, archive=True)
    yield running
    running.http.shutdown()
    running.http.server_close()


def offer(monkeypatch, archive):
    toy = sources.Source("toy", "Toy", "owner/toy", "abc123", 200_000, "none", "nobody", False, archive)
    toy.__dict__["files"] = {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    monkeypatch.setitem(sources.SOURCES, "toy", toy)


def held(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


ARCHIVE = "/owner/toy/archive/abc123.zip"


def single(path):
    return f"/owner/toy/abc123/{path}"


def test_one_archive_gives_exactly_the_registered_files(server):
    server.archive = archive_of(
        {**FILES, "README.md": b"not asked for", "data/images/extra.bin": b"nor this"}
    )
    steps = []
    folder = fetch.fetch("toy", progress=lambda what, done, total: steps.append((what, done, total)))
    assert held(folder) == FILES and server.asked == [ARCHIVE]
    assert steps[-1] == ("unpacking toy", 8, 8) and all(0 <= done <= total for _, done, total in steps)
    assert sorted(p.name for p in folder.parent.iterdir()) == [".toy.lock", "toy"]


def test_a_second_fetch_asks_the_server_nothing_and_a_lost_file_alone_is_fetched(server, monkeypatch):
    folder = fetch.fetch("toy")
    server.asked.clear()
    fetch.fetch("toy")
    assert server.asked == []
    (folder / "data/images/case_2.bin").unlink()
    offer(monkeypatch, archive=False)
    fetch.fetch("toy")
    assert server.asked == [single("data/images/case_2.bin")] and held(folder) == FILES


def test_an_archive_that_breaks_off_is_asked_for_again(server):
    server.answers[ARCHIVE] = ["cut"]
    assert held(fetch.fetch("toy")) == FILES and server.asked == [ARCHIVE, ARCHIVE]


def test_a_fetch_that_died_is_completed_by_the_next(server):
    class Died(Exception):
        pass

    def die(what, done, total):
        if what.startswith("unpacking") and done == 3:
            raise Died

    with pytest.raises(Died):
        fetch.fetch("toy", progress=die)
    folder = sources.fetched_folder("toy")
    assert 0 < len(held(folder)) < len(FILES) and all(
        FILES[path] == content for path, content in held(folder).items()
    )
    assert held(fetch.fetch("toy")) == FILES


def test_where_the_archive_is_refused_single_files_stand_in(server, waits):
    server.answers[ARCHIVE] = [404]
    assert held(fetch.fetch("toy")) == FILES
    assert server.asked == [ARCHIVE, *map(single, FILES)] and set(waits) == {fetch.PAUSE}


def test_a_busy_server_is_given_the_pause_it_asks_for(server, waits, monkeypatch):
    offer(monkeypatch, archive=False)
    server.answers[single("data/images/case_1.bin")] = [429, 503]
    assert held(fetch.fetch("toy")) == FILES
    assert waits.count(7) == 2


def test_a_server_that_stays_busy_is_left_with_one_sentence_and_what_came_is_kept(server, monkeypatch):
    offer(monkeypatch, archive=False)
    server.answers[single("data/labels/case_1.bin")] = [429] * 50
    server.answers[ARCHIVE] = [429] * 50
    with pytest.raises(
        UserError, match=r"429.*5 of 8 files of 'toy' are here, run the command again"
    ) as error:
        fetch.fetch("toy")
    assert "\n" not in str(error.value)
    assert len(held(sources.fetched_folder("toy"))) == 5


def test_a_foreign_file_is_refused_by_name_and_never_gets_its_place(server):
    wrong = {**FILES, "data/images/case_3.bin": b"something else"}
    server.archive, server.files = archive_of(wrong), wrong
    with pytest.raises(UserError, match=r"data/images/case_3.bin is not the registered file .*7 of 8"):
        fetch.fetch("toy")
    assert held(sources.fetched_folder("toy")) == {
        path: content for path, content in FILES.items() if path != "data/images/case_3.bin"
    }


def test_a_wrong_file_in_the_archive_is_replaced_by_the_right_single_file(server):
    server.archive = archive_of({**FILES, "data/images/case_3.bin": b"something else"})
    assert held(fetch.fetch("toy")) == FILES


@pytest.mark.parametrize(
    "evil", ["../../evil.bin", "/evil.bin", "data/../../evil.bin", "..\\..\\evil.bin", "C:/evil.bin"]
)
def test_an_archive_cannot_write_outside_its_folder(server, tmp_path, evil):
    server.archive = archive_of({**FILES, evil: b"evil", "/" + evil: b"evil"})
    fetch.fetch("toy")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


@pytest.mark.parametrize("path", ["../up.bin", "/root.bin", "a/../../b.bin", "a\\b.bin", "C:/x", "~/x", ""])
def test_a_registry_that_names_a_path_outside_is_refused(tmp_path, path):
    (tmp_path / "r.txt").write_text(f"{path} sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match=r"r\.txt:1"):
        sources.read_registry(tmp_path / "r.txt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        archive_of(FILES)[:-200],
        archive_of(FILES)[:500] + b"\0" * 50 + archive_of(FILES)[550:],
    ],
)
def test_a_corrupt_archive_gives_way_to_single_files(server, content):
    server.archive = content
    assert held(fetch.fetch("toy")) == FILES


def test_a_member_that_claims_to_be_enormous_is_not_unpacked(server, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 100)
    server.answers.update({single(path): [404] for path in FILES})
    with pytest.raises(UserError, match="0 of 8"):
        fetch.fetch("toy")


def test_without_a_network_one_sentence_says_what_to_do(server):
    server.http.shutdown()
    server.http.server_close()
    sentence = r"cannot download 'toy': 127\.0\.0\.1:\d+ cannot be reached .*LOSSBENCH_DATA"
    with pytest.raises(UserError, match=sentence) as error:
        fetch.fetch("toy")
    assert "\n" not in str(error.value)
    assert not sources.fetched_folder("toy").exists()


def test_a_full_disk_is_said_in_one_sentence_and_leaves_whole_files_only(server, monkeypatch):
    written = []

    def full(path, content):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "write_atomically", full)
        with pytest.raises(UserError, match="the disk is full"):
            fetch.fetch("toy")
    assert held(sources.fetched_folder("toy")).items() < FILES.items() and len(written) == 3
    assert held(fetch.fetch("toy")) == FILES


def test_too_little_room_is_noticed_before_anything_is_asked(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="are free, 'toy' needs"):
        fetch.fetch("toy")
    assert server.asked == []


def test_the_terms_are_said_before_the_first_download_and_not_again(server):
    said = []
    status = datasets.fetch_set(
        "toy", say=lambda text: (said.append(text), server.asked and pytest.fail("asked before it was said"))
    )
    assert (
        status.state == "ready"
        and len(said) == 1
        and "licence: none" in said[0]
        and "cite: nobody" in said[0]
    )
    datasets.fetch_set("toy", say=lambda text: pytest.fail("said twice"))


def test_verify_hashes_again_and_names_what_is_damaged(server):
    datasets.fetch_set("toy")
    steps = []
    found = datasets.verify_set("toy", progress=lambda what, done, total: steps.append((done, total)))
    assert found["files"] == 8 and steps[-1] == (8, 8)
    damaged = sources.fetched_folder("toy") / "data/labels/case_0.bin"
    stat = damaged.stat()
    damaged.write_bytes(b"x" * stat.st_size)
    os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as quiet as a failing disk
    check("toy")  # remembered
    with pytest.raises(UserError, match=r"case_0.bin: is damaged or not the registered file"):
        datasets.verify_set("toy")
    damaged.unlink()
    with pytest.raises(UserError, match=r"case_0.bin: is missing"):
        datasets.verify_set("toy")
    assert datasets.list_sets()[-1].state == "incomplete"
    datasets.fetch_set("toy")
    assert datasets.verify_set("toy")["files"] == 8


def test_a_changed_file_is_noticed_without_being_asked(server):
    datasets.fetch_set("toy")
    (sources.fetched_folder("toy") / "data/labels/case_0.bin").write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        check("toy")


def test_a_copy_at_lossbench_data_is_taken_and_checked(server, monkeypatch, tmp_path):
    copy = tmp_path / "copy" / "toy"
    for path, content in FILES.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content)
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path / "copy"))
    assert datasets.fetch_set("toy").folder == str(copy) and server.asked == []
    (copy / "data/images/case_0.bin").write_bytes(b"foreign")
    with pytest.raises(UserError, match="case_0"):
        datasets.verify_set("toy")


def test_sets_without_an_open_licence_come_by_name_only():
    free = ["msd_hippocampus", "magnetic_tile", "coffee_leaf"]
    assert datasets.named(["all"]) == free
    assert datasets.named(["sirst", "all", "sirst"]) == ["sirst", *free]
    with pytest.raises(UserError, match="did you mean 'camvid'"):
        datasets.named(["camvit"])
    with pytest.raises(UserError, match="name the sets"):
        datasets.named([])


def test_the_shipped_registries_are_those_of_the_sources():
    from collections import Counter

    counts = {name: len(source.files) for name, source in sources.SOURCES.items()}
    assert counts == {
        "msd_hippocampus": 520,
        "magnetic_tile": 2688,
        "crackforest": 236,
        "camvid": 402,
        "camvid_full": 1402,
        "sirst": 857,
        "acdc": 25,
        "lgg_mri": 561,
        "fuseg": 100,
        "chase_db1": 84,
        "drosophila_vnc": 31,
        "coffee_leaf": 166,
        "neu_seg": 1110,
        "epfl_roads": 68,
        "hyta_sky": 64,
    }
    assert set(sources.SOURCES["camvid"].files.items()) <= set(sources.SOURCES["camvid_full"].files.items())
    rows = sources.tile_groups()
    sizes = Counter(row["group"] for row in rows)
    assert len(rows) == 1344 and len(sizes) == 254 and sum(size == 6 for size in sizes.values()) == 194
    assert {row["path"] for row in rows} <= set(sources.SOURCES["magnetic_tile"].files)
    assert all(
        source.licence and source.citation and source.url.startswith("https://")
        for source in sources.SOURCES.values()
    )


def test_a_copy_may_hold_tiff_written_again_as_png(server, monkeypatch, tmp_path):
    """So the copies of two sets lie at hand; what is downloaded is the TIFF."""
    toy = sources.SOURCES["toy"]
    lost, content = "data/images/case_0.tif", b"the same pixels"
    toy.__dict__["files"] = {lost: "0" * 64}
    toy.__dict__["copies"] = {lost: ("data/images/case_0.png", hashlib.sha256(content).hexdigest())}
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path))
    (tmp_path / "toy/data/images").mkdir(parents=True)
    assert sources.absent("toy", tmp_path / "toy") == [lost]
    (tmp_path / "toy/data/images/case_0.png").write_bytes(content)
    assert sources.absent("toy", tmp_path / "toy") == [] and check("toy") == tmp_path / "toy"
    (tmp_path / "toy/data/images/case_0.png").write_bytes(b"other")
    with pytest.raises(UserError, match=r"case_0\.png: is damaged"):
        check("toy")


def test_a_prefix_of_the_repository_stays_out_of_the_paths(server, monkeypatch):
    server.archive = archive_of({f"a b/{path}": content for path, content in FILES.items()})
    monkeypatch.setitem(sources.SOURCES, "toy", replace(sources.SOURCES["toy"], prefix="a b/"))
    sources.SOURCES["toy"].__dict__["files"] = {
        path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()
    }
    assert held(fetch.fetch("toy")) == FILES
    lost = sources.fetched_folder("toy") / "data/images/case_2.bin"
    lost.unlink()
    server.answers[ARCHIVE] = [404]
    server.files = {"a%20b/data/images/case_2.bin": FILES["data/images/case_2.bin"]}
    fetch.fetch("toy")
    assert server.asked[-1] == "/owner/toy/abc123/a%20b/data/images/case_2.bin"


def test_the_list_shows_every_set_in_eighty_columns(no_data):
    from rich.console import Console

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(datasets.render_list(datasets.list_sets()))
    text = console.export_text()
    assert all(name in text for name in sources.SOURCES) and text.count("absent") == len(sources.SOURCES)
    assert "│ 186.8 │" in text and "│ no licence file   │" in text
    assert len(text.splitlines()) < 25
