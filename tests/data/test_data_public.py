"""The public sets hold what was measured on them, with each trap handled; needs the files at
LOSSBENCH_DATA.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data import medical, photographs, sources
from lossbench.data.cache import check
from lossbench.data.formats import as_it_came, read_picture
from lossbench.data.windows import zscore

pytestmark = pytest.mark.realdata
GOLDEN, GOLDEN2 = (
    json.loads((Path(__file__).parent / f"golden_stats{number}.json").read_text()) for number in ("", "2")
)
VARIANTS = [
    "msd_hippocampus(view='slices')",
    "msd_hippocampus(view='volumes', subset=20)",
    "magnetic_tile(view='crop')",
    "magnetic_tile(view='tiles', kinds=['Crack'], per_image=2)",
    "crackforest(view='tiles')",
    "camvid(view='tiles')",
    "sirst(view='crop')",
    "sirst(view='padded')",
]


@pytest.fixture(scope="module", autouse=True)
def here(real_data):
    """Skip the module where there are no data."""


def summary(fractions):
    """Return the statistics that the golden file holds for a list of per-image fractions."""
    f = np.asarray(fractions)
    return {
        "mean": f.mean(),
        "median": np.median(f),
        "min": f.min(),
        "max": f.max(),
        "empty_frac": (f == 0).mean(),
    }


def object_sizes(masks):
    """Return the sizes of connected regions (8-neighbours)."""
    found = []
    for mask in masks:
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        found += np.bincount(labelled.ravel())[1:].tolist() if count else []
    return {str(q): np.percentile(found, q) for q in (0, 5, 25, 50, 75, 95, 100)}


def test_hippocampus_volumes_have_the_golden_fractions_and_sizes():
    folder = check("msd_hippocampus") / "data" / "TrainingSet"
    golden, fractions, voxels, pooled = GOLDEN["msd_hippocampus"], [], [], np.zeros(3)
    slices, empty = 0, np.zeros(3)
    for path in sorted((folder / "images").iterdir()):
        image, mask = medical.read_volume(path, folder / "labels" / path.name)
        image = zscore(image)
        assert abs(image.mean()) < 1e-3  # although maxima go from 112 to 1.7 million
        assert image.std() == pytest.approx(1, abs=1e-3)
        counts = np.bincount(mask.ravel(), minlength=3)
        assert counts.size == 3
        pooled += counts
        fractions.append(counts / mask.size)
        voxels.append(counts)
        slices += mask.shape[2]
        for at, test in enumerate((mask > 0, mask == 1, mask == 2)):
            empty[at] += (~test.any((0, 1))).sum()
    assert len(fractions) == golden["n"] and np.allclose(pooled / pooled.sum(), golden["pooled"])
    for k, name in enumerate(medical.HIPPOCAMPUS):
        assert summary(np.array(fractions)[:, k]) == pytest.approx(golden["per"][name])
    for k, name in enumerate(medical.HIPPOCAMPUS[1:], 1):
        found = {q: np.percentile(np.array(voxels)[:, k], int(q)) for q in golden["volume_vox"][name]}
        assert found == pytest.approx(golden["volume_vox"][name])
    assert slices == golden["slices_total"][2] and np.allclose(
        empty / slices, golden["empty_slice_frac_axis_any_ant_post"][2]
    )


def test_the_slices_of_all_volumes_are_the_volumes_padded_with_void():
    data = get_dataset("msd_hippocampus(view='slices', subset=None)")
    assert (
        len(data) == 9270
        and len(np.unique(data.groups)) == 260
        and data.spacing == (1.0, 1.0)
        and data.unit == "mm"
    )
    empty = [not np.isin(mask, (1, 2)).any() for mask in data.masks]
    assert np.mean(empty) == pytest.approx(
        GOLDEN["msd_hippocampus"]["empty_slice_frac_axis_any_ant_post"][2][0]
    )
    counts = np.bincount(data.masks.ravel(), minlength=256)
    assert np.allclose(counts[:3] / counts[:3].sum(), GOLDEN["msd_hippocampus"]["pooled"])
    assert not np.asarray(data.images[:, 0])[data.masks == 255].any()


def test_subsets_of_the_volumes_nest():
    small, large = (get_dataset(f"msd_hippocampus(subset={n})") for n in (10, 20))
    names = [{name.split(":")[0] for name in data.card["names"]} for data in (small, large)]
    assert len(names[0]) == 10 and names[0] < names[1]


@pytest.mark.parametrize("kind", photographs.KINDS)
def test_tiles_of_each_kind_have_the_golden_fractions_and_objects(kind):
    golden = GOLDEN["magnetic_tile"][f"MT_{kind}"]
    paths = [row["path"] for row in sources.tile_groups() if row["defect"] == f"MT_{kind}"]
    folder = check("magnetic_tile", [p for path in paths for p in (path, photographs.tile_mask(path))])
    masks = [photographs.read_tile(folder, path)[1] for path in paths]
    assert len(masks) == golden["n"] and {m.max() for m in masks} <= {0, 1}
    assert summary([m.mean() for m in masks]) == pytest.approx(golden["per"])
    assert sum(int(m.sum()) for m in masks) / sum(m.size for m in masks) == pytest.approx(golden["pooled"])
    if golden["obj"]:
        assert object_sizes(masks) == pytest.approx(golden["obj"])


def test_no_tile_shows_in_two_parts_and_each_kind_shows_in_all():
    for seed in range(3):
        data = get_dataset("magnetic_tile", seed=seed)
        names = np.array([name.split("@")[0] for name in data.card["names"]])
        group_of = {row["path"]: row["group"] for row in sources.tile_groups()}
        parts = {part: {group_of[name] for name in names[index]} for part, index in data.split.items()}
        assert not (
            parts["train"] & parts["test"] or parts["train"] & parts["val"] or parts["val"] & parts["test"]
        )
        for index in data.split.values():
            assert {name.split("/")[0] for name in names[index]} == {
                "MT_Blowhole",
                "MT_Crack",
                "MT_Break",
                "MT_Free",
            }
    free = np.char.startswith(names, "MT_Free")
    assert free.sum() == 257 and (~free).sum() == 257


def test_a_kind_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="did you mean 'Blowhole'"):
        get_dataset("magnetic_tile(kinds=['Blowholes'])")


def test_cracks_are_the_codes_two_and_four_and_not_the_road_they_enclose():
    folder = check("crackforest")
    masks = [photographs.read_crack(folder, f"{n:03d}")[1] for n in range(1, 119)]
    golden = GOLDEN["crackforest"]
    assert summary([m.mean() for m in masks]) == pytest.approx(golden["per"])
    assert max(m.mean() for m in masks) < golden["wrong_gt1"]["max"] / 5
    assert object_sizes(masks) == pytest.approx(golden["obj"])


@pytest.mark.parametrize("part", ["train", "test"])
def test_streets_have_the_golden_fractions_with_the_unlabelled_as_void(part):
    folder = check("camvid")
    golden = GOLDEN["camvid"][part]
    paths = [path for path in sources.SOURCES["camvid"].files if path.startswith(f"CamVid/{part}/")]
    masks = [photographs.read_street(folder, path)[1] for path in paths]
    assert len(masks) == golden["n"] and {int(v) for m in masks for v in np.unique(m)} == {*range(11), 255}
    for k, name in enumerate([*photographs.STREETS, "Unlabelled"]):
        value = 255 if name == "Unlabelled" else k
        assert summary([(m == value).mean() for m in masks]) == pytest.approx(golden["per"][name])


def test_validation_streets_are_the_end_of_each_training_sequence():
    items = photographs.street_items("camvid")
    parts = {part: [item for item in items if item.part == part] for part in ("train", "val", "test")}
    assert {part: len(found) for part, found in parts.items()} == {"train": 98, "val": 25, "test": 78}
    last = {item.name.split("/")[2][:6]: item.name for item in parts["train"]}
    assert all(item.name > last[item.name.split("/")[2][:6]] for item in parts["val"])
    assert len({item.group for item in items}) == 3 + 3 + 2
    official = photographs.street_items("camvid_full")
    assert [sum(item.part == part for item in official) for part in ("train", "val", "test")] == [
        367,
        101,
        233,
    ]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_targets_have_the_golden_fractions_and_sizes_in_the_official_split(part):
    folder = check("sirst")
    stems = (folder / "idx_427" / f"{part}.txt").read_text().split()
    pairs = [photographs.read_target(folder, stem) for stem in stems]
    golden = GOLDEN["sirst"][part]
    assert all(image.shape == (1, *mask.shape) for image, mask in pairs)  # Misc_111 comes with a larger mask
    others = [mask for stem, (_, mask) in zip(stems, pairs, strict=True) if stem != "Misc_111"]
    assert len(stems) == golden["n"]
    assert np.mean([m.mean() for m in others]) == pytest.approx(golden["per"]["mean"], rel=0.01)
    assert summary([mask.mean() for _, mask in pairs])["median"] == pytest.approx(
        golden["per"]["median"], rel=0.02
    )
    assert min(int(m.sum()) for m in others) >= 4


def test_crops_of_infrared_frames_keep_a_target_whole():
    data = get_dataset("sirst(view='crop')")
    assert all(len(index) == n for index, n in zip(data.split.values(), (256, 85, 86), strict=True))
    assert (data.masks == 1).any((1, 2)).all()
    folder = sources.raw_folder("sirst")
    for n in range(0, 427, 20):
        _, whole = photographs.read_target(folder, data.card["names"][n].split("@")[0])
        labelled, _ = ndimage.label(whole, np.ones((3, 3)))
        sizes = set(np.bincount(labelled.ravel())[1:].tolist())
        found, _ = ndimage.label(data.masks[n] == 1, np.ones((3, 3)))
        assert sizes & set(np.bincount(found.ravel())[1:].tolist())


GOLDEN_WHOLE = {
    "acdc(view='whole')": "acdc",
    "acdc": "acdc_slices",
    "lgg_mri": "lgg",
    "fuseg": "fuseg",
    "chase_db1": "chase_1st",
    "chase_db1(observer='second')": "chase_2nd",
    "coffee_leaf": "coffee",
    "neu_seg": "neu_seg",
    "epfl_roads": "roads127",
    "hyta_sky": "hyta_sky",
}


@pytest.mark.parametrize("spec", GOLDEN_WHOLE)
def test_whole_images_have_the_golden_fractions_sizes_and_empty_images(spec):
    """Counted once with other code; percentages with three decimals."""
    golden = GOLDEN2[GOLDEN_WHOLE[spec]]
    data = get_dataset(spec)
    shares = 100 * data.counts / data.counts.sum(1, keepdims=True)
    foreground = 100 - shares[:, 0]
    assert len(data) == golden["n"] and len(np.unique(data.sizes, axis=0)) == golden["sizes"]
    assert 100 * data.counts.sum(0) / data.counts.sum() == pytest.approx(golden["pooled"], abs=6e-4)
    assert (data.counts == 0).sum(0).tolist() == golden["class_absent"]
    assert (data.counts[:, 1:].sum(1) == 0).sum() == golden["empty"]
    assert foreground.mean() == pytest.approx(golden["fg_mean"], abs=6e-4)
    assert foreground.max() == pytest.approx(golden["fg_max"], abs=6e-4)


def test_sections_of_the_nerve_cord_have_the_golden_fractions():
    folder = check("drosophila_vnc")
    masks = [medical.read_section(folder, f"{z:02d}")[1] for z in range(15)]
    counts = sum(np.bincount(mask.ravel(), minlength=5) for mask in masks)
    assert 100 * counts / counts.sum() == pytest.approx(GOLDEN2["drosophila_vnc"]["pooled"], abs=6e-4)
    data = get_dataset("drosophila_vnc")
    assert data.card["names"] == [f"{z:02d}" for z in (*range(9), 10, 12, 13, 14)]


def test_a_leaf_at_half_size_is_the_mean_of_four_pixels_and_named_so():
    folder = check("coffee_leaf")
    path = "segmentation/dataset/images/test/1016.jpg"
    (full, mask), (half, small) = (photographs.read_leaf(folder, path, scale) for scale in ("full", "half"))
    assert half.shape == (3, 512, 1024) and np.array_equal(small, mask[::2, ::2])
    assert half[0, 100, 7] == int(full[0, 200:202, 14:16].mean() + 0.5)
    assert get_dataset("coffee_leaf(scale='half')").card["notes"] == "half size"


def test_one_class_of_the_streets_stands_against_the_rest():
    streets, cars = get_dataset("camvid(view='whole')"), get_dataset("camvid_binary(target='Car')")
    assert cars.counts[:, 1].tolist() == streets.counts[:, photographs.STREETS.index("Car")].tolist()
    assert cars.counts.sum() == streets.counts.sum() and cars.classes == ("rest", "Car")
    with pytest.raises(UserError, match="did you mean 'Pedestrian'"):
        get_dataset("camvid_binary(target='Pedestrain')")


def test_both_eyes_of_a_child_and_all_slices_of_a_patient_lie_in_one_part():
    eyes = get_dataset("chase_db1")
    assert {eyes.card["names"][n] for n in eyes.split["test"]} == {
        f"Image_{c}{s}" for c in (11, 12, 13, 14) for s in "LR"
    }
    brains = get_dataset("lgg_mri")
    assert [len(np.unique(brains.groups[brains.split[part]])) for part in ("train", "val", "test")] == [
        8,
        2,
        4,
    ]
    hearts = get_dataset("acdc")
    assert [len(np.unique(hearts.groups[hearts.split[part]])) for part in ("train", "val", "test")] == [
        15,
        5,
        5,
    ]


def test_slices_of_a_brain_are_in_the_order_of_their_numbers():
    data = get_dataset("lgg_mri(view='whole')")
    folder = check("lgg_mri") / "kaggle_3m" / data.card["names"][0]
    for number in (2, 10):
        mask = read_picture(as_it_came(folder / f"{folder.name}_{number}_mask.tif"))
        assert np.array_equal(data.masks[0][..., number - 1], mask > 127)


@pytest.mark.slow
@pytest.mark.parametrize("spec", VARIANTS)
def test_a_prepared_set_is_memory_mapped(spec):
    get_dataset(spec)
    data = get_dataset(spec, seed=1)
    assert isinstance(data.images, np.memmap)
    assert data.card["licence"] and data.card["citation"] and data.card["url"]


def test_a_damaged_raw_file_stops_the_preparation_by_name(tmp_path, cache, monkeypatch, real_data):
    import shutil

    copy = tmp_path / "data" / "crackforest"
    shutil.copytree(real_data / "crackforest", copy)
    monkeypatch.setenv("LOSSBENCH_DATA", str(tmp_path / "data"))
    victim = copy / "groundTruth" / "007.mat"
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"007.mat: is damaged or not the registered file"):
        get_dataset("crackforest")
    assert not list(cache.glob("prepared/*/meta.json"))
