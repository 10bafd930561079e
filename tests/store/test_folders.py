"""A reading command means the user's own results, else the study that ships."""

from pathlib import Path

from lossbench.store import note


def test_a_folder_that_is_given_is_taken_as_it_is():
    assert note.reading(Path("elsewhere")) == Path("elsewhere")


def test_without_a_sweep_of_ones_own_the_study_is_read_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/paper/tables").mkdir(parents=True)
    said = []
    assert note.reading(None, said.append) == Path("results/paper")
    assert "committed study in results/paper" in said[0]


def test_ones_own_sweep_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/paper/tables").mkdir(parents=True)
    (tmp_path / "results/experiment.json").write_text("{}")
    assert note.reading(None) == Path("results")


def test_without_either_the_users_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert note.reading(None) == Path("results")
