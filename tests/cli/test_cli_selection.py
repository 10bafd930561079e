"""What the command line changes of an experiment: the user's own files count for losses and for data."""

import pytest

from lossbench.base.errors import UserError
from lossbench.cli.options import Selection

OWN = """
from lossbench import dataset, loss

@dataset("mine")
def mine(*, seed, noise=0.4): ...

@loss("own")
def own(logits, target, *, power=2.0): ...
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my.py").write_text(OWN)
    text = 'name = "t"\nseeds = 1\nlosses = ["ce"]\ndatasets = ["scenes"]\n'
    (tmp_path / "t.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_data_set_of_ones_own_file_is_known_to_the_option_data(folder):
    experiment = Selection("t.toml", with_=[folder / "my.py"], data=["mine"]).resolve()
    assert [(cell.data.text, cell.loss.text) for cell in experiment.cells()] == [
        ("mine", "ce"),
        ("mine", "own"),
    ]


def test_without_the_file_its_data_set_is_unknown(folder):
    with pytest.raises(UserError, match="--data mine: there is no such folder or file"):
        Selection("t.toml", data=["mine"]).resolve()


def test_a_file_that_is_not_there_is_named(folder):
    with pytest.raises(UserError, match=r"--with no\.py: there is no such file"):
        Selection("t.toml", with_=[folder.joinpath("no.py").relative_to(folder)]).resolve()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("sirts", "sirst"), ("FUSEG", "fuseg"), ("hyta-sky", "hyta_sky")],
)
def test_a_data_set_that_is_mistyped_is_guessed(folder, typed, meant):
    with pytest.raises(UserError, match=rf"--data {typed}: there is no .*; did you mean '{meant}'\?"):
        Selection("t.toml", data=[typed]).resolve()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Quick", "quick"),
        ("lesoins.toml", "lesions.toml"),
        ("lesion", "lesions.toml"),
        ("sub/nightley.toml", "sub/nightly.toml"),
        ("hourly", "experiments/hourly_one.toml"),
    ],
)
def test_an_experiment_that_is_mistyped_is_guessed_from_the_users_files_too(folder, typed, meant):
    for own in ("lesions", "pyproject", "sub/nightly", "experiments/hourly_one"):
        (folder / own).parent.mkdir(exist_ok=True)
        (folder / f"{own}.toml").touch()
    with pytest.raises(UserError, match=rf"no experiment file '{typed}'; did you mean '{meant}'\?"):
        Selection(typed).resolve()
    with pytest.raises(UserError, match=r"; there are: experiments/hourly_one.toml, .*lesions.toml, paper"):
        Selection("xyz.toml").resolve()
