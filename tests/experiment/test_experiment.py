"""Experiment files: every mistake at once with file, line and key; keys that hold what decides a result and
nothing else.
"""

import hashlib
import json
from dataclasses import replace

import pytest

from lossbench.base.errors import UserError
from lossbench.experiment.cells import Cell, Recipe
from lossbench.experiment.reading import find_experiment, read_experiment

GOOD = """
name = "t"
seeds = 2
losses = ["ce", { use = "dice(over='batch')", label = "batch dice" }]
datasets = ["scenes(foreground=0.05)", { use = "scenes(foreground=0.1)", recipe = { steps = 7 } }]
[recipe]
steps = 5
"""


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "t.toml"
        path.write_text(text)
        return path

    return make


def test_cells_come_in_complete_blocks(write):
    cells = read_experiment(write(GOOD)).cells()
    assert len(cells) == 8 and len({cell.key for cell in cells}) == 8
    assert [cell.block for cell in cells[::2]] == [cell.block for cell in cells[1::2]]
    assert len({cell.block for cell in cells}) == 4
    assert [cell.recipe.steps for cell in cells[:4]] == [5, 5, 7, 7]


def test_every_cell_is_trained_from_each_head(write):
    cells = read_experiment(
        write(GOOD.replace("seeds = 2", 'seeds = 2\nheads = ["default", "prior"]'))
    ).cells()
    assert [cell.recipe.head for cell in cells[:4]] == ["default", "default", "prior", "prior"]
    assert len(cells) == 16 and len({cell.block for cell in cells}) == 8
    with pytest.raises(UserError, match="heads"):
        read_experiment(write(GOOD.replace("seeds = 2", 'heads = ["random"]')))


def test_the_key_does_not_depend_on_label_file_or_spelling(write):
    first = read_experiment(write(GOOD)).cells()
    other = (
        GOOD.replace("scenes(foreground=0.05)", "scenes(foreground=0.05, noise=0.6)")
        .replace("batch dice", "anything")
        .replace('"t"', '"u"')
    )
    assert [c.key for c in read_experiment(write(other)).cells()] == [c.key for c in first]


def test_a_cell_comes_back_from_its_json(write):
    for cell in read_experiment(write(GOOD)).cells():
        facts = json.loads(json.dumps(cell.to_json()))
        again = Cell.from_json(facts)
        assert again.key == cell.key and again == replace(cell, parts=())
        assert again.to_json() == facts


def test_a_cell_that_is_another_one_today_does_not_come_back(write):
    cell = read_experiment(write(GOOD)).cells()[0]
    with pytest.raises(UserError, match="the source of loss 'ce' has changed since"):
        Cell.from_json(cell.to_json() | {"loss_fingerprint": "00000000"})
    with pytest.raises(UserError, match="another cell by today's defaults"):
        Cell.from_json(cell.to_json() | {"key": "0" * 16})


def test_the_public_name_of_a_cell_keeps_its_key_and_hides_the_path(write, tmp_path):
    cell = Cell.of(f"folder(path={str(tmp_path / 'things')!r})", "dice")
    assert cell.public.key == cell.key and str(tmp_path) not in str(cell.public.to_json())
    assert cell.public.to_json()["cell"]["dataset"] == "folder(path='things')"


OWN_NETWORK = """
from torch import nn
from lossbench import network

@network("own_net")
def own_net(in_channels, classes, dims, *, width=4):
    return nn.Conv2d(in_channels, classes, 1)
"""


def test_our_network_by_name_or_by_widths_is_one_recipe(write):
    before = [cell.key for cell in read_experiment(write(GOOD)).cells()]
    for line in ('network = "unet"', 'network = "unet(widths=[8, 16, 32])"', 'head = "default"'):
        assert [cell.key for cell in read_experiment(write(GOOD + line)).cells()] == before
    wide = {cell.recipe for cell in read_experiment(write(GOOD + 'network = "unet(widths=[4, 8])"')).cells()}
    assert {recipe.widths for recipe in wide} == {(4, 8)} and {recipe.network for recipe in wide} == {None}


def test_network_and_head_are_in_the_key_the_block_and_the_label(write):
    other = '{ use = "scenes(foreground=0.05)", recipe = { network = "smp:Unet( encoder_weights=None)" } }'
    prior = '{ use = "scenes(foreground=0.05)", recipe = { head = "prior" } }'
    cells = read_experiment(write(GOOD.replace("datasets = [", f"datasets = [{other}, {prior}, "))).cells()
    assert len({cell.key for cell in cells}) == 16 and len({cell.block for cell in cells}) == 8
    labels = {cell.data_label for cell in cells}
    assert {"scenes, U-Net of smp", "scenes, head prior"} <= {
        label.replace("scenes(foreground=0.05)", "scenes") for label in labels
    }
    assert {cell.grouped for cell in cells if cell.recipe.network} == {False}


def test_widths_of_a_part_bring_our_network_back(write):
    text = GOOD.replace("recipe = { steps = 7 }", "recipe = { widths = [4, 8] }")
    cells = read_experiment(write(text + 'network = "smp:Unet"')).cells()
    assert {(cell.recipe.network, cell.recipe.widths) for cell in cells} == {
        ("smp:Unet", (8, 16, 32)),
        (None, (4, 8)),
    }


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('network = "unett"', "did you mean 'unet'"),
        ("network = \"smp:Unet(encoder_weights='imagenet')\"", "would download trained weights"),
        ('network = "smp:Unet"\nwidths = [4, 8]', "leave them out beside 'network'"),
        ('head = "zero"', "'default' or 'prior'"),
        ('weights = "none.pt"', "none.pt: cannot be read"),
    ],
)
def test_a_wrong_network_gets_one_sentence(write, line, part):
    with pytest.raises(UserError, match=part) as caught:
        read_experiment(write(GOOD + line))
    assert "t.toml:" in str(caught.value)


def test_editing_ones_own_network_makes_its_cells_stale_and_keeps_their_keys(write, tmp_path):
    file, path = tmp_path / "own.py", write(GOOD + 'network = "own_net"')
    file.write_text(OWN_NETWORK)
    before = read_experiment(path, (str(file),)).cells()
    facts = before[0].to_json()
    assert Cell.from_json(facts, [str(file)]).pair == before[0].pair
    file.write_text(OWN_NETWORK.replace("classes, 1)", "classes, 3, padding=1)"))
    after = read_experiment(path, (str(file),)).cells()
    assert [cell.key for cell in after] == [cell.key for cell in before]
    assert all(a.pair != b.pair for a, b in zip(after, before, strict=True))
    with pytest.raises(UserError, match="the source of loss 'ce' or of own_net has changed since"):
        Cell.from_json(facts, [str(file)])


def test_weights_count_by_what_they_hold_and_not_by_where_they_lie(write, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pt").write_bytes(b"some weights")
    one, two = (
        read_experiment(write(GOOD + f'weights = "{folder}/net.pt"')).cells()[0] for folder in ("a", "b")
    )
    assert one.key == two.key != read_experiment(write(GOOD)).cells()[0].key
    assert one.recipe.weights == str(tmp_path / "a" / "net.pt")
    record = one.public.to_json()
    assert record["key"] == one.key and str(tmp_path) not in str(record)
    assert record["cell"]["recipe"]["weights_hash"] == hashlib.sha256(b"some weights").hexdigest()[:16]
    with pytest.raises(UserError, match="holds other weights"):
        read_experiment(write(GOOD + f'weights = "a/net.pt"\nweights_hash = "{"0" * 16}"'))


@pytest.mark.parametrize(
    "change",
    [("steps = 5", "steps = 6"), ("foreground=0.05", "foreground=0.051"), ("over='batch'", "over='sample'")],
)
def test_the_key_depends_on_everything_that_decides_the_result(write, change):
    before = {c.key for c in read_experiment(write(GOOD)).cells()}
    assert {c.key for c in read_experiment(write(GOOD.replace(*change))).cells()} != before


def test_all_mistakes_are_reported_at_once_with_line_and_nearest_key(write):
    bad = (
        GOOD.replace("steps = 5", "step = 5\nbatch = -1")
        .replace("seeds = 2", 'seeds = [1, "two"]')
        .replace("label =", "lable =")
    )
    with pytest.raises(UserError) as caught:
        read_experiment(write(bad))
    text = str(caught.value)
    assert (
        "t.toml:3: seeds[1]" in text
        and "did you mean 'steps'" in text
        and "did you mean 'label'" in text
        and "recipe.batch" in text
    )
    assert len(text.splitlines()) == 4


def test_unknown_losses_and_data_sets_are_reported_together(write):
    with pytest.raises(UserError) as caught:
        read_experiment(write(GOOD.replace('"ce"', '"cee"').replace("foreground=0.05", "fg=0.05")))
    assert "losses[0]" in str(caught.value) and "datasets[0]" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (('"ce"', '"ce", "ce"'), "stands twice"),
        (("seeds = 2", "seeds = [1, 1]"), "stands twice"),
        (("seeds = 2", "seeds = 0"), "seeds"),
        (('name = "t"', ""), "name: is missing"),
        (("steps = 5", "steps = 5 5"), "not valid TOML"),
        (("steps = 5", 'learning_rate = "fast"'), "must be a number or 'own' or 'shared', not 'fast'"),
        (("steps = 5", "learning_rate = 0"), "must be above 0 or 'own' or 'shared', not 0"),
        (("steps = 5", 'steps = "many"'), "recipe.steps: must be a whole number, not 'many'"),
        (("steps = 5", "steps = true"), "must be a whole number, not true"),
        (("steps = 5", "patch = 3.5"), "recipe.patch: must be a whole number or a list, not 3.5"),
        (("steps = 5", "widths = [8]"), r"recipe.widths: must be a list of at least 2, not \[8\]"),
        (("steps = 5", "validations = 9999"), "must be at most 1000, not 9999"),
        (("steps = 5", 'sampler = "no"'), r"there is no sampler 'no'; there are: .*uniform$"),
        (("steps = 5", 'weights_hash = "x"'), "must be a text of the pattern"),
        (("seeds = 2", "seeds = [0, -1]"), r"seeds\[1\]: must be at least 0, not -1"),
        (("seeds = 2", "title = 3"), "must be a text in quotation marks, not 3"),
        (('name = "t"', 'name = "my study"'), "name: must be letters, digits, .* not 'my study'"),
        (("[recipe]\nsteps = 5", "recipe = 5"), "recipe: must be a table, not 5"),
        (("seeds = 2", "seeds = 2\nlengths = [10, 25]"), "25 is no multiple of 10; the nearest is 20"),
        (("seeds = 2", "seeds = 2\nlengths = [10, 10]"), "one stands twice"),
        (("seeds = 2", "seeds = 2\nlengths = [10, 20]"), 'need schedule = "wsd"'),
        (("{ steps = 7 }", "{ stps = 7 }"), "did you mean 'steps'"),
        (
            ('["scenes(foreground=0.05)"', '["scenes(foreground=0.05)", "scenes(foreground=0.05)"'),
            "stands twice",
        ),
    ],
)
def test_each_mistake_names_its_place(write, change, part):
    with pytest.raises(UserError, match=part) as caught:
        read_experiment(write(GOOD.replace(*change)))
    assert "t.toml:" in str(caught.value)


def test_an_unknown_experiment_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'quick'"):
        find_experiment("quikc")


def test_a_users_file_adds_its_losses_and_only_their_cells(write, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from lossbench import loss\n@loss('own')\ndef own(logits, target, *, a=1.0):\n    return "
        "logits.mean() * a\n"
    )
    path = write(GOOD)
    before, after = (read_experiment(path, files).cells() for files in ((), (str(own),)))
    assert {c.key for c in before} < {c.key for c in after} and len(after) == 12


def test_ten_thousand_cells_have_ten_thousand_keys(write):
    many = ", ".join(f'"tversky(fp_weight={i / 1000})"' for i in range(1, 101))
    path = write(
        f'name = "m"\nseeds = 50\nlosses = [{many}]\ndatasets = ["scenes(foreground=0.05)", '
        '"scenes(foreground=0.1)"]\n'
    )
    assert len({cell.key for cell in read_experiment(path).cells()}) == 10_000


def test_the_shipped_experiments_resolve():
    for name in ("quick", "smoke"):
        assert read_experiment(name).cells()


def test_recipes_of_equal_content_have_equal_digests():
    assert Recipe(steps=3).digest == Recipe.model_validate({"steps": 3}).digest != Recipe(steps=4).digest
    changed = Recipe(steps=3)
    assert changed.digest != changed.model_copy(update={"learning_rate": 0.1}).digest


PARTS = """
name = "two"
seeds = 2
losses = ["ce", "dice"]
[recipe]
steps = 5
[[part]]
name = "ladder"
datasets = ["scenes(size=32)", "scenes(size=32, foreground=0.05)"]
[[part]]
name = "rates"
seeds = 3
fixed = true
losses = ["ce", "focal"]
datasets = ["scenes(size=32)", { use = "scenes(size=32)", recipe = { learning_rate = 0.02 } }]
"""


def test_a_cell_that_two_parts_share_is_one_cell_and_belongs_to_both(write):
    found = read_experiment(write(PARTS))
    cells = found.cells()
    assert len(cells) == 2 * 2 * 2 + 3 * 2 * 2 - 2  # ce on the first data set with two seeds is in both
    shared = [cell for cell in cells if cell.parts == ("ladder", "rates")]
    assert {(cell.loss.text, cell.seed) for cell in shared} == {("ce", 0), ("ce", 1)}
    assert len({cell.key for cell in cells}) == len(cells)


def test_one_data_set_under_two_recipes_has_two_labels(write):
    found = read_experiment(write(PARTS))
    labels = [label for part in found.parts for _, _, label, _ in part.datasets]
    assert labels[-2:] == ["scenes(size=32)", "scenes(size=32), learning_rate 0.02"]


def test_an_added_loss_joins_the_open_parts_only(write):
    found = read_experiment(write(PARTS), add_losses=("jaccard",))
    assert [len(part.losses) for part in found.parts] == [3, 2]


def test_other_data_and_seeds_apply_to_all_parts(write):
    path = write(PARTS)
    assert len(read_experiment(path, data=("scenes(size=48)",)).cells()) == 2 * 2
    assert {len(part.seeds) for part in read_experiment(path, seeds=4).parts} == {4}


def test_a_network_of_the_command_line_takes_the_place_of_all_others(write):
    text = PARTS.replace("learning_rate = 0.02", "learning_rate = 0.02, widths = [4, 8]")
    assert text != PARTS
    cells = read_experiment(write(text), network="unet(widths=[4, 8, 16])").cells()
    assert {cell.recipe.widths for cell in cells} == {(4, 8, 16)}
    cells = read_experiment(write(text), network="smp:Unet").cells()
    assert {cell.recipe.network for cell in cells} == {"smp:Unet"}
    with pytest.raises(UserError, match="--network unett: unknown network 'unett'; did you mean"):
        read_experiment(write(text), network="unett")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('name = "rates"', 'name = "ladder"'), "two parts are called 'ladder'"),
        (('"focal"]', '"focl"]'), "part[1].losses[1]: "),
        (
            ("learning_rate = 0.02", "learning_rat = 0.02"),
            "part[1].datasets[1].recipe.learning_rat: unknown key; did you mean 'learning_rate'",
        ),
        (("fixed = true", "fixd = true"), "part[1].fixd: unknown key; did you mean 'fixed'"),
        (('"ce", "focal"]', '"ce", { use = "focal", label = "ce" }]'), "the label 'ce' stands twice"),
        (("seeds = 3", "seeds = [1, 1]"), "a seed stands twice"),
    ],
)
def test_a_mistake_in_a_part_is_named(write, change, sentence):
    with pytest.raises(UserError) as error:
        read_experiment(write(PARTS.replace(*change)))
    assert sentence in str(error.value)


SEQUENTIAL = GOOD.replace("seeds = 2", "seeds = 12\nlooks = LOOKS\nchoice = true")


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        ("[10, 8, 12]", "do not increase"),
        ("[8, 10]", "end with 12"),
        ("[6, 8, 10, 12]", "at 6 seeds .smallest p 0.12, .*; begin with 8"),
        ("[8, 10, 30]", "there are 12"),
    ],
)
def test_looks_that_cannot_be_taken_are_refused_in_a_sentence(write, looks, says):
    with pytest.raises(UserError, match=f"t.toml:4: looks: .*{says}"):
        read_experiment(write(SEQUENTIAL.replace("LOOKS", looks)))


def test_looks_go_as_far_as_the_seeds_of_the_command_line(write):
    file = write(SEQUENTIAL.replace("LOOKS", "[8, 10, 12]"))
    read = [read_experiment(file, seeds=seeds).looks for seeds in (None, 9, 4)]
    assert read == [(8, 10, 12), (8, 9), (4,)]
    with pytest.raises(UserError, match="choice: needs looks"):
        read_experiment(write(GOOD.replace("seeds = 2", "choice = true")))
