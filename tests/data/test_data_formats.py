"""Files are read as their formats say, and what cannot be meant is refused by name."""

import gzip
import itertools
import tracemalloc

import numpy as np
import pytest
from data_files import nifti_bytes
from PIL import Image

from lossbench.base.errors import UserError
from lossbench.data.formats import labels_of, read_any, read_nifti, read_picture, stem_of, suffix_of

VOLUME = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_of_every_type_and_byte_order_comes_back(tmp_path, kind, order):
    (tmp_path / "v.nii").write_bytes(nifti_bytes(VOLUME.astype(kind), (1.0, 2.0, 3.5), order=order))
    array, spacing = read_nifti(tmp_path / "v.nii")
    assert array.dtype == kind and np.array_equal(array, VOLUME) and spacing == (1.0, 2.0, 3.5)


def test_nifti_may_be_compressed_and_scaled(tmp_path):
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(nifti_bytes(VOLUME, slope=2.0, shift=-1.0)))
    assert np.array_equal(read_nifti(tmp_path / "v.nii.gz")[0], VOLUME * 2.0 - 1)


@pytest.mark.parametrize(("slope", "shift"), [(0.0, 5.0), (1.0, 0.0), (float("nan"), 0.0)])
def test_a_scale_that_says_nothing_leaves_the_type(tmp_path, slope, shift):
    (tmp_path / "v.nii").write_bytes(nifti_bytes(VOLUME, slope=slope, shift=shift))
    assert read_nifti(tmp_path / "v.nii")[0].dtype == np.int16


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    (tmp_path / "v.nii").write_bytes(nifti_bytes(VOLUME[..., None]))
    assert read_nifti(tmp_path / "v.nii")[0].shape == (2, 3, 4)


GOOD = nifti_bytes(VOLUME)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a single-file NIfTI"),
        (b"nonsense" * 100, "not a single-file NIfTI"),
        (GOOD[:-4], "cut short"),
        (gzip.compress(GOOD, mtime=0)[:-30], "damaged gzip"),
        (GOOD[:70] + b"\x80\x00" + GOOD[72:], "makes no sense"),
        (GOOD[:40] + b"\x09\x00" + GOOD[42:], "makes no sense"),
    ],
)
def test_a_damaged_nifti_is_refused_by_name(tmp_path, content, word):
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(UserError, match=word) as refused:
        read_nifti(tmp_path / "v.nii.gz")
    assert "v.nii.gz" in str(refused.value)


def test_no_more_is_unpacked_than_the_header_promises(tmp_path):
    """A few kilobytes of gzip can hold gigabytes of zeros."""
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(GOOD + bytes(50_000_000)))
    tracemalloc.start()
    array, _ = read_nifti(tmp_path / "v.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(array, VOLUME) and peak < 5_000_000


def test_any_single_damaged_header_byte_gives_an_array_or_one_sentence(tmp_path):
    for at in itertools.chain(range(120), range(340, 352)):
        content = bytearray(GOOD)
        content[at] ^= 0xFF
        (tmp_path / "v.nii").write_bytes(content)
        try:
            read_nifti(tmp_path / "v.nii")
        except UserError as error:
            assert "\n" not in str(error)


def test_nibabel_agrees(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(
        nibabel.Nifti1Image(VOLUME.astype(np.float32), np.diag([1, 2, 3, 1.0])), tmp_path / "v.nii.gz"
    )
    array, spacing = read_nifti(tmp_path / "v.nii.gz")
    assert np.array_equal(array, VOLUME) and spacing == (1.0, 2.0, 3.0)


def test_pictures_keep_their_values_whatever_their_mode(tmp_path):
    palette = Image.fromarray(np.array([[0, 3]], np.uint8), "P")
    palette.putpalette([10, 20, 30] * 256)
    palette.save(tmp_path / "p.png")
    Image.fromarray(np.array([[0, 1000]], np.uint16)).save(tmp_path / "i.png")
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "b.png")
    Image.fromarray(np.array([[0.5, -2.0]], np.float32)).save(tmp_path / "f.tif")
    assert read_picture(tmp_path / "p.png").tolist() == [[0, 3]]
    assert read_picture(tmp_path / "i.png").tolist() == [[0, 1000]]
    assert read_picture(tmp_path / "b.png").tolist() == [[0, 255]]
    assert read_picture(tmp_path / "f.tif").tolist() == [[0.5, -2.0]]


@pytest.mark.parametrize("palette", [(255, 255, 255, 0, 0, 0), (0, 0, 0, 255, 255, 255)])
def test_white_is_white_wherever_a_gif_keeps_it(tmp_path, palette):
    indices = np.array([[0, 0, 1], [0, 0, 1]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(palette)
    picture.save(tmp_path / "m.gif", optimize=False)
    assert np.array_equal(read_picture(tmp_path / "m.gif"), np.array(palette, np.uint8)[::3][indices])


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_colours_of_a_palette_stay_class_ids(tmp_path, suffix):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette((0, 0, 0, 128, 0, 0, 0, 128, 0))
    picture.save(tmp_path / f"m.{suffix}", optimize=False)
    assert np.array_equal(read_picture(tmp_path / f"m.{suffix}"), indices)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.nii", "a.nii.gz", "a.jpg"])
def test_a_file_of_rubbish_is_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x93NUMPY rubbish \x00\x01" * 30)
    with pytest.raises(UserError, match=name):
        read_any(tmp_path / name)


def test_pickles_and_unknown_suffixes_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="NPY"):
        read_any(tmp_path / "o.npy")
    with pytest.raises(UserError, match="supported are"):
        read_any(tmp_path / "o.xyz")


def test_labels_may_be_whole_floats_and_nothing_else(tmp_path):
    assert labels_of(np.array([0.0, 2.0]), tmp_path).tolist() == [0, 2]
    assert labels_of(np.array([True, False]), tmp_path).tolist() == [1, 0]
    for bad, word in (
        ([0.5], "probability"),
        ([-1], "0 to 255"),
        ([256], "0 to 255"),
        ([np.nan], "0 to 255"),
    ):
        with pytest.raises(UserError, match=word):
            labels_of(np.array(bad), tmp_path)


def test_both_parts_of_a_double_suffix_go(tmp_path):
    assert (stem_of(tmp_path / "a.b.nii.gz"), suffix_of(tmp_path / "a.NII.GZ")) == ("a.b", ".nii.gz")
