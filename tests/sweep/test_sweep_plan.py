"""Which cells are trained now: whole blocks, disjoint shards, no more than the budget; stacks keep blocks
together.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command import lossbench
from lossbench.base.errors import UserError
from lossbench.engine.tasks import EngineOptions
from lossbench.experiment.reading import read_experiment
from lossbench.store.store import State
from lossbench.sweep import plan, run

TEXT = """
name = "grid"
seeds = 5
losses = ["ce", "dice", "focal", "tversky", "dice_ce"]
datasets = ["scenes(foreground=0.05)", "scenes(foreground=0.1)"]
"""


@pytest.fixture
def planned(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TEXT)
    return plan.plan(read_experiment(path), tmp_path / "results")


def stacks(planned, cells, **options):
    return run.tasks(planned, cells, Path("results"), {}, EngineOptions(**options))


def blocks(cells):
    return {cell.block for cell in cells}


def test_shards_are_whole_blocks_disjoint_and_complete(planned):
    parts = [plan.select(planned, shard=f"{i}/3") for i in (1, 2, 3)]
    assert sum(map(len, parts)) == 50 and len(set().union(*(blocks(p) for p in parts))) == 10
    assert all(len(part) == 5 * len(blocks(part)) for part in parts)


def test_a_budget_takes_whole_blocks_in_order_and_at_least_one(planned):
    block = planned.cost(planned.cells[:5]).total
    some = plan.select(planned, budget=f"{3.5 * block:.0f}s", workers=1)
    assert [c.key for c in some] == [c.key for c in planned.cells[:15]]
    assert len(plan.select(planned, budget="1s", workers=1)) == 5
    # What went into timing counts, but a sweep always trains something; a later look need not.
    assert len(plan.select(planned, budget="1m", workers=1, spent=3600)) == 5
    assert not plan.select(planned, budget="1m", workers=1, spent=3600, least=False)
    assert len(plan.select(planned, budget="100h", workers=1)) == 50


def test_a_part_is_trained_alone_with_what_it_shares_and_an_unknown_one_is_refused(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text("""
name = "two"
seeds = 2
[[part]]
name = "rare"
losses = ["ce", "dice"]
datasets = ["scenes(foreground=0.05)"]
[[part]]
name = "common"
losses = ["ce"]
datasets = ["scenes(foreground=0.05)", "scenes(foreground=0.2)"]
""")
    planned = plan.plan(read_experiment(path), tmp_path / "results")
    rare = [(cell.loss.text, cell.seed) for cell in plan.select(planned, parts=["rare"])]
    assert rare == [("ce", 0), ("dice", 0), ("ce", 1), ("dice", 1)]
    assert len(plan.select(planned, parts=["common"])) == 4
    assert len(plan.select(planned, parts=["rare", "common"])) == 6
    with pytest.raises(UserError, match="there is no such part; did you mean 'rare'"):
        plan.select(planned, parts=["rar"])


@pytest.mark.parametrize(
    "arguments", [{"shard": "0/2"}, {"shard": "3/2"}, {"shard": "a"}, {"budget": "soon"}, {"budget": "0m"}]
)
def test_a_bad_share_is_refused_with_an_example(planned, arguments):
    with pytest.raises(UserError, match=r"for example|such as"):
        plan.select(planned, **arguments)


def test_stacks_hold_cells_of_one_block_and_nearly_equal_numbers(planned):
    tasks = stacks(planned, planned.cells, stack=4)
    assert sorted(len(task.cells) for task in tasks) == [2] * 10 + [3] * 10
    by_key = {cell.key: cell for cell in planned.cells}
    assert all(len({by_key[key].block for key in task.cells}) == 1 for task in tasks)


def test_single_cells_of_many_seeds_are_stacked_together(planned):
    lone = [cell for cell in planned.cells if cell.loss.text == "dice" and "0.1" in cell.data.text]
    tasks = stacks(planned, lone, stack=4)
    assert sorted(len(task.cells) for task in tasks) == [2, 3]


def test_large_stacks_hold_cells_of_several_seeds(planned):
    tasks = stacks(planned, planned.cells, stack=13)
    assert sorted(len(task.cells) for task in tasks) == [12, 12, 13, 13] and all(
        task.payload["size"] == 13 for task in tasks
    )


def test_a_worker_that_tries_sizes_is_handed_the_cells_of_all_seeds_of_a_data_set(planned):
    tasks = stacks(planned, planned.cells, device="cuda", stack=None)
    assert sorted(len(task.cells) for task in tasks) == [25, 25] and all(
        task.payload["size"] is None for task in tasks
    )
    by_key = {cell.key: cell for cell in planned.cells}
    assert all(len({by_key[key].data.text for key in task.cells}) == 1 for task in tasks)


def test_workers_that_share_a_card_share_the_trunks(planned):
    tasks = stacks(planned, planned.cells, device="cuda", stack=None, gpus=("0",), per_gpu=5)
    assert sorted(len(task.cells) for task in tasks) == [8, 8, 8, 8, 9, 9]
    tasks = stacks(planned, planned.cells, device="cuda", stack=25, gpus=("0",), per_gpu=5)
    assert [len(task.cells) for task in tasks] == [25, 25]


def test_only_missing_cells_are_planned_and_costs_add_up(planned):
    assert planned.counts() == {"missing": 50} and len(planned.missing) == 50
    assert planned.cost().total == pytest.approx(sum(planned.cell_cost(c).total for c in planned.cells))


LENGTHS = 'lengths = [100, 200, 400]\n[recipe]\nschedule = "wsd"\nvalidations = 4\n'


def test_a_missing_length_costs_what_no_other_missing_length_of_its_trunk_pays(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(TEXT + LENGTHS)
    planned = plan.plan(read_experiment(path), tmp_path / "results")
    short, middle, long = planned.cells[0], planned.cells[5], planned.cells[10]
    assert [cell.recipe.steps for cell in (short, middle, long)] == [100, 200, 400]
    # A trunk is left where the last fifth begins.
    assert [planned.added_steps(cell) for cell in (short, middle, long)] == [100, 200 - 80, 400 - 160]
    later = replace(planned, states={**planned.states, middle.key: State("done")})
    assert later.added_steps(long) == 400 - 80
    last = replace(later, states={**later.states, short.key: State("done")})
    assert last.added_steps(long) == 400


def test_training_validation_and_test_are_counted_apart_as_a_record_of_the_kind_says(tmp_path):
    class Records:
        def read(self, key, fingerprint):
            took = {"seconds": 60.0, "cpu_seconds": 30.0, "steps": 80}
            took |= {"validation_seconds": 16.0, "test_seconds": 12.0}
            cost = took if key == long.key else {"seconds": 0.0, "steps": 0}
            return {"cost": cost, "provenance": {"device": "cpu"}}

    path = tmp_path / "grid.toml"
    path.write_text(TEXT + LENGTHS)
    planned = plan.plan(read_experiment(path), tmp_path / "results")
    short, long = planned.cells[0], planned.cells[10]
    paces = plan.measured(Records(), [short, long])
    # Half the time other programs had the core: 16 seconds for 80 steps; 4 validations; every length is
    # tested.
    assert replace(planned, paces=paces).cell_cost(short) == (100 * 0.2, 8.0, 6.0)


OWN = """
from torch import nn
from lossbench import network

@network("plain")
def plain(in_channels, classes, dims):
    return nn.Conv2d(in_channels, classes, 1, bias=False)

@network("missing")
def missing(in_channels, classes, dims):
    raise ValueError("a layer is missing")
"""


def test_cells_of_a_network_that_cannot_be_grouped_are_a_task_each(tmp_path):
    own, path = tmp_path / "own.py", tmp_path / "grid.toml"
    own.write_text(OWN)
    path.write_text(TEXT + '[recipe]\nnetwork = "plain"\n')
    planned = plan.plan(read_experiment(path, (str(own),)), tmp_path / "results")
    assert {len(task.cells) for task in stacks(planned, planned.cells)} == {1}


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        ('network = "missing"', r"cannot be built for .*ValueError: a layer is missing \(own.py:11\)"),
        ('network = "plain"\nhead = "prior"', "network 'plain' has no bias that shifts its logits"),
        pytest.param('network = "smp:Unett"', "did you mean 'Unet'", marks=pytest.mark.peers),
    ],
)
def test_a_network_that_cannot_be_built_or_has_no_head_stops_the_sweep_before_it_starts(
    tmp_path, recipe, part
):
    own, path = tmp_path / "own.py", tmp_path / "grid.toml"
    own.write_text(OWN)
    path.write_text(f"{TEXT}[recipe]\n{recipe}\n")
    with pytest.raises(UserError, match=part):
        run.check_networks(read_experiment(path, (str(own),)).cells())


@pytest.mark.parametrize(
    ("held", "part"),
    [
        ({"a": print}, "net.pt: holds more than tensors"),
        ({"other.weight": torch.zeros(3)}, "net.pt: lacks 'down.0.0.weight' and 21 more of the network"),
    ],
)
def test_a_file_of_weights_with_code_or_for_another_network_stops_the_sweep_before_it_starts(
    tmp_path, held, part
):
    torch.save(held, tmp_path / "net.pt")
    path = tmp_path / "grid.toml"
    path.write_text(f'{TEXT}[recipe]\nwidths = [4, 8]\nweights = "net.pt"\n')
    with pytest.raises(UserError, match=part):
        run.check_networks(read_experiment(path).cells())


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        ("patch = 50", r"every side must be divisible by 4; the nearest is 48x48"),
        ("widths = [4, 8, 16, 32, 64]\npatch = 40", "must be divisible by 16; the nearest is 32x32"),
        ("patch = 160", "the largest is 64x64, so a patch may be 128x128 at most"),
        pytest.param(
            "network = \"smp:Segformer(encoder_name='resnet18')\"\npatch = 48",
            "must be divisible by 32; the nearest is 64x64",
            marks=pytest.mark.peers,
        ),
    ],
)
@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_a_patch_that_fits_neither_network_nor_data_is_refused_before_anything_is_trained(
    tmp_path, command, recipe, part
):
    (tmp_path / "grid.toml").write_text(f"{TEXT}[recipe]\n{recipe}\n")
    said = lossbench(tmp_path, command, "grid.toml", code=2)
    assert part in said and not list(tmp_path.glob("results/cells/*/*"))


RAISES = """
from lossbench import loss
from lossbench.base.errors import UserError

@loss("mine")
def mine(logits, target, *, ignore_index=None):
    raise UserError("it never works")
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("", "", "loss 'mine': it never works"),
        (
            '"dice"',
            '"tversky(fp_weight=-3.0)"',
            "fp_weight=-3.0 is not a number of at least 0; the nearest is 0",
        ),
        ("foreground=0.1", "foreground=1.7", "scenes: 'foreground' must lie between 1e-06 and 0.6, got 1.7"),
    ],
)
def test_what_a_sweep_refuses_at_its_start_its_plan_refuses_in_the_same_words(tmp_path, old, new, sentence):
    (tmp_path / "grid.toml").write_text(TEXT.replace(old, new) if old else TEXT)
    own = [] if old else ["--with", "own.py"]
    (tmp_path / "own.py").write_text(RAISES)
    said = [
        lossbench(tmp_path, *words, "grid.toml", *own, code=2).splitlines()[-1]
        for words in (["plan"], ["sweep", "--serial"])
    ]
    assert said[0] == said[1] and sentence in said[0]
