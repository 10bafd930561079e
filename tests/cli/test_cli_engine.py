"""Options that contradict each other are refused before anything starts, and a card that is not there is
named.
"""

from __future__ import annotations

import pytest

from lossbench.base.errors import UserError
from lossbench.cli.options import Engine, slots
from lossbench.engine.tasks import EngineOptions


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"serial": True, "cluster": "c.toml"}, "--serial and --cluster name two places"),
        ({"gpus": "1", "scheduler": "s.json"}, "--scheduler and --gpus name two places"),
        ({"gpus": "1", "workers": 2}, "--per-gpu sets how many share a GPU"),
        ({"cluster": "c.toml", "workers": 2}, "the file's 'jobs' and 'cores' set it"),
        ({"per_gpu": 2}, "--per-gpu needs --gpus"),
        ({"device": "tpu"}, "must be cpu or cuda"),
        ({"gpus": "1", "device": "cpu"}, "contradict each other"),
        ({"stack": "1"}, "--stack 1: write a number of cells, 2 or more, or auto"),
        ({"stack": "many"}, "or auto"),
        ({"serial": True, "logs": "x"}, "--logs does nothing with --serial"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_one_sentence(given, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        Engine(**given).options()
    assert "\n" not in str(error.value)


def test_plain_options_go_through_as_they_are():
    assert Engine().options() == EngineOptions()
    assert Engine(workers=3, time_limit=9.0).options() == EngineOptions(workers=3, time_limit=9.0)
    assert Engine(cluster="c.toml", device="cuda").options().device == "cuda"


def test_a_card_finds_out_how_many_cells_to_stack_unless_it_is_told():
    on_cards = {"cluster": "c.toml", "device": "cuda"}
    assert Engine(**on_cards).options().stack is None and Engine(stack="auto").options().stack is None
    assert Engine(**on_cards, stack="32").options().stack == 32


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("2", ["0", "1", "2"], ("0", "1")),
        ("0,2", ["0", "1", "2"], ("0", "2")),
        ("0,", ["0"], ("0",)),
        ("1,0", ["5", "7"], ("7", "5")),  # what a batch system gave, by its own numbers
        ("1", ["GPU-2f3a", "GPU-77b1"], ("GPU-2f3a",)),
    ],
)
def test_cards_are_counted_or_listed_among_those_that_may_be_used(text, there, expected):
    assert slots(text, lambda option: there) == expected


@pytest.mark.parametrize("text", ["", "0", "a", "-1", "0,0", "1.5", ","])
def test_what_names_no_cards_is_refused(text):
    with pytest.raises(UserError, match="write how many GPUs"):
        slots(text, lambda option: ["0"])


@pytest.mark.parametrize(
    ("text", "count", "end"),
    [("3", 2, "2 usable GPUs, number 0 to 1"), ("1,", 1, "1 usable GPU, number 0")],
)
def test_a_card_that_is_not_there_is_named(text, count, end):
    with pytest.raises(UserError, match=f"--gpus {text}: this machine has {end}"):
        slots(text, lambda option: [str(n) for n in range(count)])


def test_without_a_card_the_option_says_so():
    import torch

    if torch.cuda.device_count():
        pytest.skip("there is a GPU here")
    for given in ({"gpus": "1"}, {"device": "cuda"}):
        with pytest.raises(
            UserError,
            match=r"there is no usable GPU here .*; leave the option out to train on the CPU",
        ):
            Engine(**given).options()


@pytest.mark.system
def test_two_workers_a_card_train_on_it(tmp_path):
    import torch

    if not torch.cuda.device_count():
        pytest.skip("needs a GPU")
    from lossbench.experiment.reading import read_experiment
    from lossbench.store import provenance
    from lossbench.store.store import Store
    from lossbench.sweep import plan, run

    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nseeds = 2\nlosses = ["ce", "dice"]\ndatasets = [{ use = "scenes(size=32, '
        'n_train=8, n_val=4, n_test=4)" }]\n'
        "[recipe]\nsteps = 4\nbatch = 4\nwidths = [4, 8]\nvalidations = 1\n"
    )
    planned = plan.plan(read_experiment(tmp_path / "tiny.toml"), tmp_path / "r")
    facts = provenance.collect(results=tmp_path)
    where = Engine(gpus="1", per_gpu=2).options()
    done = run.run(planned, planned.missing, tmp_path / "r", where, provenance=facts, mode="quiet")
    assert done.summary.failed == 0 and done.trained == 4
    assert {record["provenance"]["device"] for record in Store(tmp_path / "r").records()} == {"cuda"}
