"""Whole images are prepared once, lie as they came, and take no memory before they are read."""

import shutil
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.base.files import sha256_of
from lossbench.data import prepare
from lossbench.data.container import SPLITS
from lossbench.data.pairs import Item, Pairs
from lossbench.data.prepare import open_prepared, prepared_path
from lossbench.data.ragged import Ragged, Stored, Writer
from lossbench.data.windows import zscore

PARAMS = {"view": "whole", "val_fraction": 0.2, "test_fraction": 0.2}


def image_of(n, kind=np.uint8):
    rng = np.random.default_rng(n)
    return rng.integers(0, 200, (3, 10 + n, 17)).astype(kind)


def mask_of(n):
    """A square in one corner; images 0, 4, 8, ... have no foreground."""
    mask = np.zeros((10 + n, 17), np.uint8)
    mask[:4, :4] = n % 4 > 0
    mask[-1] = 255
    return mask


def pairs(count=10, kind=np.uint8, **changed):
    items = [Item(str(n), n) for n in range(count)]
    return Pairs(items, lambda name: (image_of(int(name), kind), mask_of(int(name))), **changed)


def opened(build=pairs, seed=0, **changed):
    return open_prepared("toy", "toy", {**PARAMS, **changed}, 1, build, {})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_what_is_read_is_what_was_written_z_scored(cache, kind):
    data = opened(lambda: pairs(kind=kind))
    assert isinstance(data.images, Ragged) and data.sizes.tolist() == [[10 + n, 17] for n in range(10)]
    for n in range(10):
        expected = zscore(image_of(n))
        assert np.abs(data.images[n] - expected).max() < 1e-5 and data.images[n].dtype == np.float32
        assert np.array_equal(data.images[n, :, 3:7, 2:9], data.images[n][:, 3:7, 2:9])
        assert np.array_equal(data.masks[n], mask_of(n)) and np.array_equal(
            data.masks[n, 2:5], mask_of(n)[2:5]
        )
    assert data.counts[:, 1].tolist() == [0, 16, 16, 16] * 2 + [0, 16]
    small = kind in (np.uint8, np.uint16, np.int16)
    assert data.images.arrays[0].dtype == (kind if small else np.float32)


def test_a_constant_channel_becomes_zero(cache):
    flat = np.full((1, 8, 8), 7, np.uint8)
    build = lambda: Pairs([Item(str(n), n) for n in range(3)], lambda name: (flat, flat[0] * 0))  # noqa: E731
    assert not opened(build).images[0].any()


def test_the_slices_of_a_volume_are_scaled_alike_and_share_its_group(cache):
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 1000, (5, 1, 6, 9, 4)).astype(np.int16)

    def build():
        items = [Item(f"v{n}", n) for n in range(5)]
        return Pairs(items, lambda name: (volumes[int(name[1])], np.zeros((6, 9, 4), np.uint8)))

    data = opened(build, view="whole_slices")
    assert len(data) == 20 and data.shape == (6, 9) and data.card["names"][5] == "v1:1"
    assert data.groups.tolist() == np.repeat(range(5), 4).tolist()
    assert np.abs(data.images[5] - zscore(volumes[1])[..., 1]).max() < 1e-5


def test_the_split_is_the_same_for_every_seed_and_for_every_process(cache):
    first, second = opened(), opened(seed=1)
    assert first.fingerprint == second.fingerprint
    assert [first.split[part].tolist() for part in SPLITS] == [[0, 1, 2, 4, 5, 8], [3, 9], [6, 7]]


def test_a_pair_that_breaks_a_promise_is_named_and_leaves_nothing(cache):
    def built(image=None, mask=None):
        def read(name):
            pair = image_of(int(name)), mask_of(int(name))
            return (
                pair
                if name != "6"
                else (pair[0] if image is None else image, pair[1] if mask is None else mask)
            )

        return lambda: Pairs([Item(str(n), n) for n in range(10)], read)

    bad = image_of(6).astype(np.float32)
    bad[0, 0, 0] = np.nan
    for changed, word in (
        (
            {"mask": np.full((16, 17), 2)},
            r"'6': the mask holds the undeclared value 2; the classes are 0 to 1",
        ),
        ({"mask": np.zeros((16, 16))}, r"'6': the image has the size \(16, 17\), its mask \(16, 16\)"),
        ({"image": image_of(6)[:1]}, r"'6' has 1 channels, the images before it have 3"),
        ({"image": bad}, "'6': the image holds values that are not finite"),
    ):
        with pytest.raises(UserError, match=word):
            opened(built(**changed))
    assert not list(cache.glob("prepared/toy*"))


def test_a_disk_without_room_is_refused_before_anything_is_written(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    with pytest.raises(UserError, match=r"needs 16\.0 GB .* 1\.0 GB are free.* LOSSBENCH_CACHE") as error:
        opened(lambda: pairs(pixels=4 * 10**9))
    assert "\n" not in str(error.value) and not list(cache.glob("prepared/toy*"))


@pytest.mark.parametrize("name", ["images.bin", "masks.bin", "index.npz", "places.bin", "meta.json"])
def test_a_damaged_file_is_noticed_and_prepared_anew(cache, name):
    before = opened().fingerprint
    file = prepared_path("toy", {"view": "whole"}, 1) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    data = opened()
    assert data.fingerprint == before and np.array_equal(data.masks[3], mask_of(3))


def test_opening_reads_nothing_and_hashes_nothing(cache, monkeypatch):
    opened()
    monkeypatch.setattr(prepare, "sha256_of", lambda path: pytest.fail("hashed again"))
    monkeypatch.setattr(Stored, "__getitem__", lambda *_: pytest.fail("read an array"))
    opened(lambda: pytest.fail("built again"))


def test_preparing_holds_few_images_in_memory_whatever_their_number(cache):
    def peak(count):
        def read(name):
            return np.full((1, 256, 256), int(name) % 7, np.uint8), np.zeros((256, 256), np.uint8)

        build = lambda: Pairs([Item(str(n), n) for n in range(count)], read)  # noqa: E731
        tracemalloc.start()
        opened(build, number=count)
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(5)  # what a first call imports is no memory of images
    few, many = peak(20), peak(200)
    assert many < few + 180 * 20_000  # names, sizes and counts; each picture with its mask has 131,072 bytes


def test_the_pixels_of_foreground_are_kept_beside_the_masks(cache, monkeypatch):
    data = opened()
    monkeypatch.setattr(Stored, "__getitem__", lambda *_: pytest.fail("read an array"))
    for n in range(10):
        rows, columns = np.unravel_index(data.places.of(n, 1), data.sizes[n])
        assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
            (r, c) for r in range(4) for c in range(4) if n % 4
        ]


def test_a_file_of_arrays_gives_them_back(tmp_path):
    arrays = [np.arange(n, dtype=kind) for n, kind in ((5, "uint8"), (3, "float32"), (70, "int16"))]
    with Writer(tmp_path / "x.bin") as writer:
        for array in arrays:
            writer.append(array)
    stored = Stored(tmp_path / "x.bin", writer.index())
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, stored, strict=True))
    assert writer.hash.hexdigest() == sha256_of(tmp_path / "x.bin")


def test_pictures_of_a_folder_are_kept_whole_with_their_empty_ones(cache, make_folder):
    root = make_folder(count=9, shape=(300, 211))
    Image.fromarray(np.zeros((300, 211), np.uint8)).save(root / "masks" / "case04.png")
    data = get_dataset(f"folder(path={str(root)!r}, view='whole')")
    assert len(data) == 9 and data.shape == (300, 211) and data.counts[4].tolist() == [300 * 211, 0]
    assert data.counts[0].tolist() == [300 * 211 - 25, 25]
