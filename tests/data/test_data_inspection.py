"""Inspect says what would lead to a wrong answer, and writes an experiment that runs."""

import io
import json
import os
import shlex
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from data_files import write
from PIL import Image
from rich.console import Console

from command import command
from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_dataset
from lossbench.cli import experiments
from lossbench.cli.data import render_inspection, write_experiment
from lossbench.data import leaks, parts, suggestion
from lossbench.data.inspection import inspect
from lossbench.data.prepare import identity
from lossbench.data.sheet import font
from lossbench.experiment.reading import read_experiment


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Each test looks at its own folders."""


def doubts(root, **options):
    """Return what is suspicious, after it was shown as the command shows it."""
    findings = inspect(root, **options)
    page = io.StringIO()
    Console(file=page, width=300).print(render_inspection(findings))
    assert findings.layout in page.getvalue()
    return "\n".join(findings.suspicious)


def change(root, side, n, array):
    write(root / side / f"case{n:02d}.png", array)


def test_a_sound_folder_has_nothing_suspicious_and_gives_an_experiment_that_reads(make_folder, tmp_path):
    findings = inspect(make_folder(count=40, shape=(70, 70)))
    assert findings.suspicious == [] and findings.sizes == "70x70, 1 channel" and findings.empty == 0
    assert findings.split == "train 24, val 8, test 8; unit: single images"
    assert [row["name"] for row in findings.classes] == ["background", "foreground"]
    foreground = findings.classes[1]
    assert foreground["fraction"] == pytest.approx(25 / 4900) and foreground["median_object"] == 25
    (tmp_path / "e.toml").write_text(findings.experiment)
    suggested = read_experiment(tmp_path / "e.toml")
    assert len(suggested.cells()) == 4 * 20 * 2  # losses, seeds, lengths
    assert suggested.looks == (10, 14, 20) and suggested.choice


def test_a_fifth_of_few_images_decides_nothing_so_test_takes_a_larger_share(make_folder, tmp_path):
    root = make_folder(count=30, shape=(70, 70))
    usual = f"folder(path={str(root)!r})"
    assert parts.too_few(get_dataset(usual)).startswith(
        "the test part holds 6 independent images, 8 are needed before a loss can be called better"
    )
    findings = inspect(root)
    assert findings.suspicious == [] and "test_fraction=" in findings.spec
    data = get_dataset(findings.spec)
    assert 8 <= len(data.split["test"]) <= 9 and len(data.split["val"]) == 6
    assert "of a fifth it would hold 6 independent images" in findings.sees[0]
    assert f"# {findings.sees[0]}" in findings.experiment
    text = f'name = "a"\nseeds = 20\nlosses = ["ce", "dice"]\ndatasets = [{json.dumps(usual)}]\n'
    (tmp_path / "a.toml").write_text(text + "[recipe]\npatch = 16\nwidths = [8, 16]\nsteps = 2\n")
    said = " ".join(command(tmp_path, "plan", "a.toml", "--no-time").out.split())
    assert "8 are needed before a loss can be called better, however many seeds; 'test_fraction=0." in said


@pytest.mark.parametrize("split", ["dealt", "given"])
def test_where_no_share_gives_enough_test_groups_it_is_said(make_folder, split):
    root = make_folder(count=30 if split == "given" else 12)
    if split == "given":
        rows = "".join(f"case{n:02d},{'test' if n > 24 else 'train'}\n" for n in range(30))
        (root / "split.csv").write_text(f"name,split\n{rows}")
    held = {"dealt": 2, "given": 5}[split]
    assert f"the test part holds {held} independent images, 8 are needed" in doubts(root)
    assert "test_fraction" not in inspect(root).spec


def without(root, names):
    """Take the foreground out of some masks."""
    for n in names:
        change(root, "masks", n, np.zeros((40, 40), np.uint8))


def test_a_rare_class_reaches_every_part_of_the_split(make_folder):
    root = make_folder(count=40, shape=(40, 40))
    without(root, range(4, 40))
    data = get_dataset(f"folder(path={str(root)!r})")
    assert [int((data.counts[data.split[part], 1] > 0).sum()) > 0 for part in data.split] == [True] * 3
    assert not parts.lacks(data)


def test_a_part_that_lacks_a_class_is_named_by_inspect_and_at_the_end_of_a_sweep(
    make_folder, tmp_path, monkeypatch, capsys
):
    root = make_folder(count=40, shape=(40, 40))
    without(root, range(2, 40))
    rows = "".join(f"case{n:02d},{'test' if n > 20 else 'train'}\n" for n in range(40))
    (root / "split.csv").write_text(f"name,split\n{rows}")
    lack = "the test part holds no image with class 'foreground' (2 of 40 images hold it)"
    assert lack in doubts(root)
    spec = parse_dataset(f"folder(path={str(root)!r})")
    row = {"dataset": spec.public.text, "loss_label": "ce"}
    monkeypatch.setattr(experiments, "_advised", lambda results: [row])
    monkeypatch.setattr(experiments, "_worst", lambda results, row: {})
    experiments.say_images(tmp_path, SimpleNamespace(datasets=[(spec,)], seeds=(0,), extra_files=()))
    assert f"split    {lack}" in capsys.readouterr().out


def test_no_experiment_is_written_where_training_holds_no_foreground(make_folder, tmp_path):
    root = make_folder(count=40, shape=(40, 40))
    without(root, range(21))
    rows = "".join(f"case{n:02d},{'test' if n > 20 else 'train'}\n" for n in range(40))
    (root / "split.csv").write_text(f"name,split\n{rows}")
    assert "no training image holds foreground" in doubts(root)
    done = command(tmp_path, "inspect", str(root), "--write", "a.toml")
    assert done.code == 2 and "no training image holds foreground" in done.err
    assert not (tmp_path / "a.toml").exists() and not (tmp_path / "a.png").exists()


def test_the_lengths_that_are_suggested_leave_the_first_answer_within_its_time():
    def looks(count, side):
        return [SimpleNamespace(size=(side, side))] * count

    # 15 minutes on two cores are 1,800 s; of 40 cells 45 s each. Ten images of 64 px are scored in no time; a
    # step on 8 x 64^2 pixels of three levels takes .02 s, which leaves time for 2,200: the most are 1,200.
    assert suggestion.lengths(looks(10, 64), 64, 8, 3, 4) == (300, 1200)
    # 500 images of 320 px: 2 x 2 + 5 + 10 million pixels are scored at each length, 18 s at four levels; a
    # step on 4 x 96^2 takes .031 s, which leaves time for 860; of 55 cells for 460.
    assert suggestion.lengths(looks(500, 320), 96, 4, 4, 4) == (200, 800)
    assert suggestion.lengths(looks(500, 320), 96, 4, 4, 5) == (100, 400)


def test_the_losses_that_are_suggested_suit_thin_objects_and_empty_images():
    def look(pixels, side, empty=False):
        return SimpleNamespace(objects=[(1, pixels, side)], counts=np.array([100, 0 if empty else pixels]))

    usual = ["ce", "batch_dice", "dice", "dice_ce"]
    # A disc of 20 px has 314 pixels, a line of 20 px and one pixel's width 20.
    assert [loss for loss, _ in suggestion.losses([look(314, 20)] * 10)] == usual
    assert [loss for loss, _ in suggestion.losses([look(20, 20)] * 10)] == [*usual, "cldice"]
    with_empty = [look(314, 20)] * 9 + [look(314, 20, empty=True)]
    assert [loss for loss, _ in suggestion.losses(with_empty)] == [*usual, "dice_ce(over='batch')"]
    assert "where many images are empty, to mark nothing" in dict(suggestion.losses(with_empty))["dice"]
    assert "empty" not in dict(suggestion.losses([look(20, 20)] * 10, bare=0.4))["dice"]
    assert "where many patches are empty" in dict(suggestion.losses([look(20, 20)] * 10, bare=0.6))["dice"]


def test_inverted_masks_are_doubted_with_the_mapping_that_turns_them(make_folder):
    root = make_folder(values=(255, 0), count=20)
    assert "are the masks inverted? If so, write values=[255, 0]" in doubts(root)
    assert inspect(root).classes[1]["fraction"] > 0.9
    assert get_dataset(f"folder(path={str(root)!r}, values=[255, 0])").counts[:, 1].tolist() == [25] * 20


def test_a_few_inverted_masks_among_others_are_named(make_folder):
    root = make_folder(count=20)
    change(root, "masks", 3, 255 - np.asarray(Image.open(root / "masks" / "case03.png")))
    assert "1 masks look inverted beside the others ('case03')" in doubts(root)


def test_rare_values_among_classes_are_asked_about(make_folder):
    root = make_folder(count=20, values=(0, 1, 2), shape=(80, 80))
    mask = np.array(Image.open(root / "masks" / "case03.png"))
    mask[0, 0] = 7
    for n in range(20):  # so that one pixel is less than a thousandth of the foreground
        other = np.array(Image.open(root / "masks" / f"case{n:02d}.png"))
        other[40:60] = 1
        change(root, "masks", n, other)
    mask[40:60] = 1
    change(root, "masks", 3, mask)
    text = doubts(root)
    assert "the mask value 7 stands in 1 pixels of 1 of 20 masks ('case03')" in text
    assert "values=[0, 1, [2, 7]]" in text


def test_soft_edges_depth_and_alpha_are_said(make_folder):
    root = make_folder(count=20)
    for n in range(20):
        mask = np.zeros((24, 20), np.uint8)
        mask[5:10, 5:10] = 255
        mask[4, 5:10] = 2 + 2 * n + np.arange(5) * 20  # from 2 to 120: below half
        change(root, "masks", n, mask)
        change(root, "images", n, np.random.default_rng(n).integers(0, 4000, (24, 20)).astype(np.uint16))
    rgba = np.random.default_rng(0).integers(0, 255, (24, 20, 4)).astype(np.uint8)
    change(root, "images", 0, rgba)
    text = doubts(root)
    assert "the edges are soft" in text and "with every pixel above 0 it would be 20% more" in text
    assert "19 images have 16 bit, up to 3" in text and "1 images have an alpha channel" in text
    assert "images differ in channels: 1 in 'case01', 3 in 'case00': grey ones get each colour alike" in text


def test_pairs_that_cannot_be_used_are_left_out_by_name_and_the_rest_is_read(make_folder):
    root = make_folder(count=24)
    change(root, "images", 2, np.zeros((10, 10), np.uint8))
    (root / "images" / "case04.png").write_bytes(b"rubbish")
    (root / "masks" / "case05.png").write_bytes(b"rubbish")
    (root / "images" / "case06.png").unlink()
    findings = inspect(root)
    assert "leave_out=['case02', 'case04', 'case05', 'masks/case06.png']" in findings.spec
    assert len(get_dataset(findings.spec)) == 20
    assert "3 of 23 pairs cannot be used" in "\n".join(findings.suspicious)
    written = findings.experiment
    for name, why in (("case04", "is not a picture"), ("case06", "has no image")):
        assert any(
            line.startswith("# left out: ") and name in line and why in line for line in written.splitlines()
        )


def test_a_folder_of_which_nothing_can_be_read_is_refused(make_folder):
    root = make_folder()
    for file in (root / "images").iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match="none of its pairs can be read"):
        inspect(root)


def test_near_duplicates_become_groups_and_across_an_official_split_they_leak(make_folder):
    root = make_folder(count=20)
    shutil.copy(root / "images" / "case05.png", root / "images" / "case16.png")
    findings = inspect(root)
    assert "2 images have a near-duplicate ('case05' and 'case16')" in "\n".join(findings.suspicious)
    findings = inspect(root, accept=True)
    assert "groups.csv has 19 groups, and the split is dealt by them" in "\n".join(findings.suspicious)
    assert "unit: 19 groups" in findings.split
    assert len(np.unique(get_dataset(findings.spec).groups)) == 19
    (root / "groups.csv").unlink()
    rows = "".join(f"case{n:02d},{'test' if n > 14 else 'train'}\n" for n in range(20))
    (root / "split.csv").write_text(f"name,split\n{rows}")
    assert "1 test images have a near-duplicate outside test" in doubts(root)


@pytest.mark.parametrize(
    "name", ["run:a", "Dataset: BUSI", "a" * 200, "\U0001f52c \U00020bb7", "a \"b\" 'c'", "\x7f"]
)
def test_the_experiment_of_a_folder_of_any_name_runs(make_folder, tmp_path, name):
    make_folder(count=8, name=name)
    said = command(tmp_path, "inspect", name, "--write", "e.toml")
    assert said.code == 0 and command(tmp_path, "plan", "e.toml", "--no-time").code == 0


def test_many_long_names_are_left_out_of_an_experiment_that_runs(make_folder, tmp_path):
    root = make_folder(count=28)
    for file in sorted(root.glob("*/*")):
        file.rename(file.with_stem(f"{file.stem}_{'long' * 55}"))
    for file in sorted((root / "masks").iterdir())[:20]:
        file.write_bytes(b"rubbish")
    assert command(tmp_path, "inspect", str(root), "--write", "e.toml").code == 0
    assert command(tmp_path, "plan", "e.toml", "--no-time").code == 0


def test_an_experiment_that_could_not_be_read_again_is_not_written(make_folder, tmp_path):
    findings = replace(inspect(make_folder()), experiment="name = 1")
    with pytest.raises(UserError, match=r"--write .*e\.toml: no experiment is written"):
        write_experiment(findings, tmp_path / "e.toml")
    assert not (tmp_path / "e.toml").exists()


def test_what_cannot_be_looked_at_is_passed_over_and_a_link_to_a_folder_above_ends(make_folder, monkeypatch):
    root = make_folder(count=8)
    before = get_dataset(f"folder(path={str(root)!r})").fingerprint
    (root / "lost+found").mkdir()
    (root / "images" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "notes").symlink_to(root / "nowhere")
    (root / "above").symlink_to(root)
    scandir = os.scandir

    def refused(place="."):
        if str(place).endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
    findings = inspect(root)
    assert get_dataset(findings.spec).fingerprint == before
    (root / "images" / ".hidden").symlink_to(root / "nowhere")
    assert get_dataset(findings.spec).fingerprint == before


def test_a_changed_mask_gives_another_identity_and_a_hidden_file_does_not(make_folder):
    root = make_folder(count=8)
    own = parse_dataset(f"folder(path={str(root)!r})")
    before = identity(own)
    (root / "images" / "._case00.png").write_bytes(b"mac")
    assert identity(own) == before
    change(root, "masks", 3, np.full((24, 20), 255, np.uint8))
    assert identity(own) != before


def in_one_folder(root):
    for side, end in (("images", "image"), ("masks", "mask")):
        for file in sorted((root / side).iterdir()):
            file.rename(root / f"{file.stem}_{end}.png")
        (root / side).rmdir()


def test_a_contact_sheet_is_never_taken_for_an_image(make_folder):
    root = make_folder(count=8)
    assert command(root, "inspect", ".", "--write", "first.toml").code == 0  # beside images/ and masks/
    assert command(root, "plan", "first.toml", "--no-time").code == 0
    for file in root.glob("first.*"):
        file.unlink()
    in_one_folder(root)
    done = command(root, "inspect", ".", "--write", "first.toml")
    assert done.code == 2 and "first.png would be taken for one of the images of ." in done.err
    assert not list(root.glob("first.*"))
    assert command(root, "inspect", ".", "--write", "../first.toml").code == 0


@pytest.mark.parametrize("name", ["x.png", "x.PNG"])
def test_an_experiment_is_not_written_where_its_contact_sheet_goes(make_folder, tmp_path, name):
    done = command(tmp_path, "inspect", str(make_folder(count=8)), "--write", name)
    assert done.code == 2 and "name a file such as x.toml" in done.err and not list(tmp_path.glob("x.*"))


def test_an_experiment_that_is_written_elsewhere_names_the_whole_path(make_folder, tmp_path):
    root = make_folder(count=8)
    (tmp_path / "exp").mkdir()
    assert command(tmp_path, "inspect", "mine", "--write", "exp/a.toml").code == 0
    assert f"path='{root}'" in (tmp_path / "exp" / "a.toml").read_text()
    assert command(tmp_path / "exp", "plan", "a.toml", "--no-time").code == 0
    assert command(tmp_path, "inspect", "mine", "--write", "here.toml").code == 0
    assert "path='mine'" in (tmp_path / "here.toml").read_text()


def test_a_relative_path_is_found_beside_the_experiment(make_folder, tmp_path, monkeypatch):
    make_folder(count=8)
    (tmp_path / "exp").mkdir()
    assert command(tmp_path / "exp", "inspect", "../mine", "--write", "a.toml").code == 0
    monkeypatch.chdir(tmp_path)
    spec = read_experiment("exp/a.toml").datasets[0][0]
    assert spec.params["path"] == str(tmp_path / "mine") and len(get_dataset(spec)) == 8
    (tmp_path / "exp" / "a.toml").write_text((tmp_path / "exp" / "a.toml").read_text().replace("mine", "no"))
    with pytest.raises(UserError, match="there is no such folder"):
        read_experiment("exp/a.toml")


@pytest.mark.parametrize("path", [".", "../mine/.", "images/.."])
def test_a_folder_is_named_by_its_real_name(make_folder, monkeypatch, path):
    monkeypatch.chdir(make_folder(count=8))
    spec = parse_dataset(f"folder(path={path!r})")
    assert spec.public.text == "folder(path='mine')" and get_dataset(spec).card["source"] == "mine"


def test_accepted_groups_name_pairs_that_cannot_be_read_and_all_goes_on(make_folder, tmp_path):
    root = make_folder(count=24)
    shutil.copy(root / "images" / "case05.png", root / "images" / "case16.png")
    (root / "masks" / "case07.png").write_bytes(b"rubbish")
    said = command(tmp_path, "inspect", str(root), "--groups", "--write", "a.toml").out
    assert "22 groups" in said and "case07," in (root / "groups.csv").read_text()
    assert command(tmp_path, "plan", "a.toml", "--no-time").code == 0
    assert inspect(root).split.endswith("22 groups")


def test_a_table_need_not_name_a_pair_that_is_left_out(make_folder):
    root = make_folder()
    rows = "".join(f"case{n:02d},{n // 2}\n" for n in range(1, 12))
    (root / "groups.csv").write_text(f"name,group\n{rows}")
    with pytest.raises(UserError, match="does not name 'case00'"):
        get_dataset(f"folder(path={str(root)!r})")
    assert len(get_dataset(f"folder(path={str(root)!r}, leave_out=['case00'])")) == 11
    (root / "groups.csv").write_text(f"name,group\ncase00,0\n{rows}")
    assert len(get_dataset(f"folder(path={str(root)!r}, leave_out=['case00'])")) == 11


@pytest.mark.parametrize("scenes", [1, 2])
def test_a_folder_of_near_duplicates_alone_says_nothing_of_other_images(tmp_path, scenes):
    root = series(tmp_path / "mine", "frame{step}_{subject}", count=scenes, steps=12, alike=0.99)
    text = doubts(root)
    units = f"{scenes} independent unit{'s' * (scenes > 1)}"
    assert "all images are near-duplicates of one another (such as " in text and units in text
    assert "a split of them says nothing of other images" in text


def test_as_few_links_as_join_them_are_kept_of_images_that_look_alike():
    rng = np.random.default_rng(0)
    images = np.repeat(rng.normal(size=(3, 50)), (40, 1, 20), 0)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    order = rng.permutation(61)
    links = leaks.near_duplicates(images[order])
    assert len(links) == 39 + 19  # of all pairs there are 780 and 190
    groups = leaks.joined([], links, [f"{n:02}" for n in range(61)])
    scene = np.repeat([0, 1, 2], (40, 1, 20))[order]
    assert len({*zip(groups, scene.tolist(), strict=True)}) == len(set(groups)) == 3
    chain = np.array([[np.cos(t), np.sin(t)] for t in (0.0, 0.2, 0.1)])  # the third lies between the others
    assert leaks.joined([], leaks.near_duplicates(chain), ["a", "b", "c"]) == ["a"] * 3


def series(root, name, count=6, steps=4, alike=0.9):
    """Write pictures of ``count`` subjects, ``steps`` each, that resemble one another by subject."""
    rng = np.random.default_rng(0)
    for subject in range(count):
        usual = rng.normal(size=(24, 24))
        for step in range(steps):
            image = 100 + 20 * (alike * usual + (1 - alike) * rng.normal(size=usual.shape))
            mask = np.zeros(image.shape, np.uint8)
            mask[5:9, 5:9] = 255
            for side, array in (("images", image.astype(np.uint8)), ("masks", mask)):
                path = root / side / f"{name.format(subject=subject, step=step)}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, array)
    return root


@pytest.mark.parametrize("name", ["p{subject}_{step}", "p{subject}/{step}", "p{subject}_slice{step}"])
def test_groups_are_guessed_from_names_where_images_resemble_their_own(tmp_path, name):
    findings = inspect(series(tmp_path / "mine", name))
    assert "names tell 6 groups" in "\n".join(findings.suspicious)
    assert len(set(findings.groups.values())) == 6


def test_names_that_tell_no_likeness_and_left_and_right(tmp_path):
    assert not inspect(series(tmp_path / "a", "p{subject}_{step}", alike=0)).groups
    sides = inspect(series(tmp_path / "b", "eye{subject}_{step}", steps=2, alike=0))
    assert not sides.groups
    for file in [*(tmp_path / "b").glob("*/*.png")]:
        file.rename(file.with_name(file.name.replace("_0", "L").replace("_1", "R")))
    assert len(set(inspect(tmp_path / "b").groups.values())) == 6


def test_what_training_and_test_see_is_said(make_folder):
    root = make_folder(count=20, shape=(300, 200))
    write(root / "images" / "case00.png", np.zeros((40, 50), np.uint8))
    write(root / "masks" / "case00.png", np.zeros((40, 50), np.uint8))
    findings = inspect(root)
    seen = "\n".join(findings.sees)
    # 19 objects of 25 pixels in 19 x 60,000 + 2,000; a third of the patches holds one: 25 of 4,096 pixels.
    assert "patches of 64 px, foreground(share=0.33): foreground is 0.04% of all pixels and 0.2" in seen
    assert "test sees 100% of its pixels" in seen and "1 of 20 images are smaller than the patch" in seen
    assert findings.empty == 0.05 and "5.0% of the images hold no foreground" in doubts(root)


def test_an_experiment_and_a_contact_sheet_are_written_and_never_over_a_file(make_folder, tmp_path):
    root = make_folder(count=20, shape=(70, 70))
    change(root, "masks", 3, np.zeros((70, 70), np.uint8))
    text = write_experiment(inspect(root), tmp_path / "mine.toml")
    assert f"lossbench sweep {tmp_path / 'mine.toml'}" in text
    assert read_experiment(tmp_path / "mine.toml").name == "mine"
    sheet = Image.open(tmp_path / "mine.png")
    assert sheet.width > 1000 and len(sheet.getcolors(100_000)) > 100
    done = command(tmp_path, "inspect", str(root), "--write", "mine.toml")
    assert done.code == 2 and "mine.toml is there already" in done.err


def test_a_folder_of_any_name_is_inspected_planned_and_told_to_be_swept(make_folder, tmp_path):
    make_folder(count=20, shape=(70, 70), name="Größe [1]/Bilder äö")
    done = command(tmp_path, "inspect", "Größe [1]/Bilder äö", "--write", "mein 'Versuch' ü.toml")
    told = shlex.split(done.out.splitlines()[-1].partition("then: ")[2])
    assert told[-3:] == ["lossbench", "sweep", "mein 'Versuch' ü.toml"]
    planned = command(tmp_path, "plan", told[-1], "--no-time")
    assert planned.code == 0 and "Bilder äö" in planned.out


def test_letters_of_many_alphabets_are_drawn():
    box, *letters = (bytes(font().getmask(letter)) for letter in "\ue000aäöüßłéПж")
    assert box not in letters and len(set(letters)) == len(letters)


def test_masks_of_odd_values_get_the_option_that_reads_them(make_folder):
    assert "values=[0, 100, 200]" in inspect(make_folder(values=(0, 100, 200), shape=(40, 40))).spec
    void = make_folder(values=(0, 1, 2, 255), name="void", shape=(40, 40))
    assert len(inspect(void).classes) == 3 and "is read as void" in doubts(void)


def cells(root, number_of):
    """Write masks with squares of 4 px, numbered by a function of how many there are in an image."""
    rng = np.random.default_rng(0)
    for n in range(20):
        mask = np.zeros((64, 64), np.uint8)
        # Up to 15 of 64 places.
        for number, place in enumerate(rng.permutation(64)[: 1 + n * 3 % 15]):
            row, column = 8 * (place // 8), 8 * (place % 8)
            mask[row : row + 4, column : column + 4] = number_of(number)
        for side, array in (("images", rng.integers(0, 255, mask.shape).astype(np.uint8)), ("masks", mask)):
            (root / side).mkdir(parents=True, exist_ok=True)
            write(root / side / f"case{n:02d}.png", array)
    return root


def test_a_few_numbered_objects_are_doubted_as_classes(tmp_path):
    root = cells(tmp_path / "mine", lambda number: 1 + number)
    text = doubts(root)
    assert "are the values 1 to 13 classes? 100% of the masks hold 1 to k without a gap" in text
    assert "write threshold=0" in text
    assert len(get_dataset(f"folder(path={str(root)!r}, threshold=0)").classes) == 2


@pytest.mark.parametrize("number_of", [lambda number: 1 + number % 3, lambda number: 1 + number * 7 % 15])
def test_classes_are_no_numbered_objects(tmp_path, number_of):
    assert "threshold=0" not in doubts(cells(tmp_path / "mine", number_of))


def test_a_class_that_is_most_of_the_image_is_doubted_beside_the_background(make_folder):
    root = make_folder(values=(2, 0, 1), shape=(40, 40), count=20)
    text = doubts(root)
    assert "class 2 (value 2) is 97% of the pixels, the background 1" in text
    assert "put the background's value first" in text


def test_slices_without_foreground_are_counted_for_volumes(tmp_path):
    for n in range(20):
        mask = np.zeros((20, 24, 4), np.uint8)
        mask[4:9, 4:9, 1:3] = 1
        for side, array in (("images", np.random.default_rng(n).normal(size=mask.shape)), ("labels", mask)):
            (tmp_path / "mine" / side).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "mine" / side / f"{n}.npy", array)
    assert "80 slices, of which 50.0% hold no foreground" in " ".join(inspect(tmp_path / "mine").sees)
