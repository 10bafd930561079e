"""A record says which code, packages and hardware made it, and nothing about who or where."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lossbench.base.errors import UserError
from lossbench.store import provenance
from lossbench.store.schema import Provenance

USERS = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


def git(folder, *words):
    subprocess.run(
        ["git", "-C", folder, *words], check=True, capture_output=True, env={**os.environ, **USERS}
    )


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package and a results folder, as ours is."""
    code = tmp_path / "repo" / "benchmark"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("")
    (code / "a.py").write_text("x = 1\n")
    (tmp_path / "repo" / "results").mkdir()
    (tmp_path / "repo" / "results" / "table.csv").write_text("1\n")
    git(tmp_path / "repo", "init", "-q")
    git(tmp_path / "repo", "add", "-A")
    git(tmp_path / "repo", "commit", "-qm", "first")
    return code


def collect(code, results=None):
    return provenance.collect(results or code.parent / "results", code=code, command=["lossbench"])


def diffs(code):
    return sorted((code.parent / "results" / "provenance").glob("*"))


def test_a_clean_checkout_has_a_commit_and_no_difference(checkout):
    facts = collect(checkout)
    assert len(facts["commit"]) == 40 and facts["dirty"] is False and facts["diff"] is None
    assert not diffs(checkout)


def test_a_change_of_the_code_is_stored_once_by_its_hash(checkout):
    (checkout / "a.py").write_text("x = 2\n")
    first, second = collect(checkout), collect(checkout)
    assert first["dirty"] and first["diff"] == second["diff"]
    assert [p.name for p in diffs(checkout)] == [f"{first['diff']}.diff"]
    assert "+x = 2" in diffs(checkout)[0].read_text()


def test_staged_changes_count(checkout):
    (checkout / "a.py").write_text("x = 3\n")
    git(checkout, "add", "-A")
    assert collect(checkout)["dirty"]


def test_changes_under_results_do_not_count(checkout):
    (checkout.parent / "results" / "table.csv").write_text("2\n")
    (checkout.parent / "results" / "new.json").write_text("{}")
    assert collect(checkout)["dirty"] is False
    (checkout.parent / "out").mkdir()
    (checkout.parent / "out" / "table.csv").write_text("2\n")
    git(checkout, "add", "-f", str(checkout.parent / "out"))
    assert collect(checkout, checkout.parent / "out")["dirty"] is False
    assert collect(checkout)["dirty"] is True


def test_of_a_new_file_in_the_code_only_its_hash_is_kept(checkout):
    (checkout / "new.py").write_text("token = 'secret'\n")
    (checkout.parent / "private.txt").write_text("secret")
    assert collect(checkout)["dirty"]
    text = diffs(checkout)[0].read_text()
    assert (
        text.startswith("new file benchmark/new.py sha256 ")
        and "secret" not in text
        and "private" not in text
    )


def test_a_home_folder_in_a_changed_line_is_shortened(checkout, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    (checkout / "a.py").write_text("x = '/home/somebody/data'\n")
    collect(checkout)
    assert "~/data" in diffs(checkout)[0].read_text() and "somebody" not in diffs(checkout)[0].read_text()


def test_collecting_leaves_the_index_alone(checkout):
    (checkout / "a.py").write_text("x = 2\n")
    before = (checkout.parent / ".git" / "index").read_bytes()
    collect(checkout)
    assert (checkout.parent / ".git" / "index").read_bytes() == before


def test_outside_git_the_commit_is_unknown(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    facts = collect(tmp_path, tmp_path)
    assert (facts["commit"], facts["dirty"], facts["diff"]) == (None, False, None)


def test_a_package_installed_below_somebody_elses_checkout_does_not_take_its_commit(checkout):
    installed = checkout.parent / "venv" / "benchmark"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert collect(installed)["commit"] is None


def test_without_git_the_commit_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert collect(checkout)["commit"] is None


def test_a_results_folder_that_refuses_is_the_users_to_mend(checkout):
    (checkout / "a.py").write_text("x = 2\n")
    (checkout.parent / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        collect(checkout, checkout.parent / "file")


def test_all_keys_of_the_schema_are_there_but_those_of_the_worker(tmp_path):
    facts = provenance.collect(tmp_path)
    assert set(facts) == set(Provenance.model_fields) - {
        "threads",
        "device",
        "loss_libraries",
        "loss_injected",
        "copy_of",
    }
    assert facts["packages"]["numpy"] and "cpu" in facts["hardware"] and facts["hardware"]["cores"] >= 1
    assert facts["python"] == platform.python_version()


def test_nothing_tells_who_or_where(tmp_path):
    text = str(
        provenance.collect(
            tmp_path, command=["/opt/x/bin/lossbench", "sweep", "--results", "/srv/people/ann/results"]
        )
    )
    for secret in (platform.node(), os.path.expanduser("~") + "/", str(Path.cwd()), "ann", "/opt/x"):
        assert len(secret) < 3 or secret not in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["/usr/bin/lossbench", "sweep", "quick"], "lossbench sweep quick"),
        (["lossbench", "sweep", "--with", "/home/ann/my_loss.py"], "lossbench sweep --with my_loss.py"),
        (["lossbench", "sweep", "--results=/home/ann/r"], "lossbench sweep --results=r"),
        (["lossbench", "sweep", "--scheduler", "node7.cluster.org:8786"], "lossbench sweep --scheduler ..."),
        (["lossbench", "sweep", "--scheduler=tcp://10.0.0.7:8786"], "lossbench sweep --scheduler=..."),
        (["lossbench", "sweep", "--loss", "0.5*ce + 0.5*dice"], "lossbench sweep --loss 0.5*ce + 0.5*dice"),
        (["/x/lossbench/__main__.py", "plan"], "__main__ plan"),
        ([], ""),
    ],
)
def test_a_command_is_kept_without_folders_and_addresses(words, text):
    assert provenance.typed(words) == text


def test_a_huge_difference_is_cut_but_its_hash_is_not(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "LARGEST", 50)
    (checkout / "a.py").write_text("x = 2\n")
    first = collect(checkout)["diff"]
    (checkout / "a.py").write_text("x = 3\n")
    assert collect(checkout)["diff"] != first
    assert all(b"[cut: " in p.read_bytes() for p in diffs(checkout))


def test_collecting_needs_no_torch(tmp_path):
    code = (
        f"import sys; from lossbench.store import provenance; provenance.collect({str(tmp_path)!r}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_environment_is_what_decides_the_bits_of_a_training_and_no_more(tmp_path):
    facts = {**provenance.collect(results=tmp_path), "threads": 1, "device": "cpu"}
    same = {**facts, "commit": "0" * 40, "command": "x", "hardware": {**facts["hardware"], "cores": 99}}
    assert provenance.environment(same) == provenance.environment(facts)
    others = [
        {"threads": 2},
        {"device": "cuda"},
        {"hardware": {"cpu": "another"}},
        {"packages": facts["packages"] | {"torch": "0"}},
    ]
    for other in others:
        assert provenance.environment(facts | other) != provenance.environment(facts), other
