"""What ``lossbench plan`` says of the claims of an experiment, and which of them it refuses; what ``status``
says of cells.
"""

import pytest

import small_claim
from command import command
from lossbench.store import provenance

CLAIM = (
    small_claim.CLAIM.replace("quick", "t").replace('"ce"', '"ce"\npart = "rare"').replace("0.005", "0.01")
)
PART = '[[part]]\nname = "{}"\nlosses = ["ce", "dice"]\ndatasets = ["scenes(foreground={})"]\n'


@pytest.mark.parametrize(("seeds", "code"), [(5, 2), (6, 0)])
def test_a_primary_test_needs_six_seeds(tmp_path, seeds, code):
    parts = PART.format("rare", 0.01) + PART.format("common", 0.2)
    (tmp_path / "t.toml").write_text(f'name = "t"\nseeds = {seeds}\n{parts}')
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "claims.toml").write_text(CLAIM)
    done = command(tmp_path, "plan", "t.toml")
    assert done.code == code and "X.1" in done.out
    assert ("no outcome could bring p below 0.05" in done.err) == (code != 0)


def test_cells_that_never_ran_are_named_in_one_line_a_data_set(tmp_path):
    (tmp_path / "t.toml").write_text(
        'name = "t"\nseeds = 9\n' + PART.format("rare", 0.01) + PART.format("common", 0.2)
    )
    lines = command(tmp_path, "status", "t.toml", "--why").out.splitlines()
    every = "18 cells of ce, dice, seeds 0, 1, 2, 3, 4, 5, 6, 7, 8  never run"
    assert [line.endswith(every) for line in lines] == [False, True, True]


@pytest.mark.parametrize(("seeds", "ends"), [(8, ": to call one loss better takes 9 seeds."), (9, ".")])
def test_the_smallest_p_is_told_after_adjustment_over_all_pairs(tmp_path, seeds, ends):
    losses = 'losses = ["ce", "dice", "dice_ce", "focal", "batch_dice"]'
    (tmp_path / "t.toml").write_text(f'name = "t"\nseeds = {seeds}\n{losses}\ndatasets = ["scenes"]\n')
    # Five losses are ten pairs: 10 * 2 / 2^8 = .078, and 10 * 2 / 2^9 = .039.
    told = {8: "0.0781", 9: "0.0391"}[seeds]
    said = f"With 5 losses that is {told} after adjustment over 10 pairs{ends}"
    assert said in " ".join(command(tmp_path, "plan", "t.toml").out.split())


@pytest.mark.parametrize(
    ("top", "item", "product"),
    [
        ("", "", "8 cells = 2 losses x 2 data sets x 2 seeds"),
        ("lengths = [100, 200]", "", "16 cells = 2 losses x 2 data sets x 2 lengths x 2 seeds"),
        ('heads = ["default", "prior"]', "", "16 cells = 2 losses x 2 data sets x 2 heads x 2 seeds"),
        ("", ", recipe = { steps = 100 }", "8 cells = 2 losses x 2 data sets x 2 seeds"),
    ],
)
def test_heads_and_lengths_are_not_counted_as_data_sets(tmp_path, top, item, product):
    sets = f'datasets = ["scenes", {{ use = "scenes(foreground=0.1)"{item} }}]\n[recipe]\nschedule = "wsd"'
    (tmp_path / "t.toml").write_text(f'name = "t"\nseeds = 2\nlosses = ["ce", "dice"]\n{top}\n{sets}\n')
    assert f"t: {product}\n" in command(tmp_path, "plan", "t.toml").out


def test_a_data_set_under_two_recipes_is_two_settings(tmp_path):
    sets = 'datasets = ["scenes", { use = "scenes", label = "s", recipe = { batch = 4 } }]'
    (tmp_path / "t.toml").write_text(f'name = "t"\nseeds = 2\nlosses = ["ce", "dice"]\n{sets}\n')
    said = command(tmp_path, "plan", "t.toml")
    assert "8 cells = 2 losses x 2 settings x 2 seeds\n" in said.out, said


@pytest.mark.parametrize("count", [2, 0])
def test_a_plan_says_that_gpus_are_there_which_a_sweep_would_not_use(tmp_path, monkeypatch, count):
    for number in range(count):
        (tmp_path / "gpus" / str(number)).mkdir(parents=True)
        (tmp_path / "gpus" / str(number) / "information").write_text("Model: \t NVIDIA H100\nIRQ: 7\n")
    there = provenance.gpus(tmp_path / "gpus")
    assert there == ["NVIDIA H100"] * count
    monkeypatch.setattr(provenance, "gpus", lambda: there)
    (tmp_path / "t.toml").write_text(
        'name = "t"\nseeds = 2\nlosses = ["ce", "dice"]\ndatasets = ["scenes"]\n'
    )
    told = "a sweep trains on the CPU; '--gpus 2' trains on the GPUs that are here"
    assert (told in command(tmp_path, "plan", "t.toml").out) == (count > 0)
