"""What a file holds beside one plane: planes, channels, pages, and a photograph that lies on its side."""

import json

import numpy as np
import pytest
from data_files import write
from PIL import Image

from lossbench import get_dataset
from lossbench.base.errors import UserError
from lossbench.data.formats import read_any, size_of
from lossbench.data.layouts import find
from lossbench.data.reading import read_image, read_mask

SHAPE = (20, 24)


def load(root, **options):
    given = {"path": str(root), "view": "whole", **options}
    return get_dataset(f"folder({', '.join(f'{key}={value!r}' for key, value in given.items())})")


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Each test reads its own folders."""


def square(value=1):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 4:9] = value
    return mask


def colours(n=0, channels=3):
    return np.random.default_rng(n).integers(0, 200, (*SHAPE, channels)).astype(np.uint8)


def lay(root, masks, suffix=".npy", images=colours, count=6):
    """Write RGB pictures, and masks as a function makes them."""
    for side in ("images", "masks"):
        (root / side).mkdir(parents=True)
    for n in range(count):
        write(root / "images" / f"{n}.png", images(n))
        write(root / "masks" / f"{n}{suffix}", masks())
    return root


# --- masks of several planes


def one_hot(top=1):
    mask = square()
    mask[12:14] = 2
    return (np.stack([mask == kind for kind in range(3)], -1) * top).astype(np.uint8)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("top", [1, 255])
def test_a_one_hot_mask_beside_a_picture_is_its_classes(tmp_path, first, top):
    root = lay(tmp_path, lambda: np.moveaxis(one_hot(top), -1, 0) if first else one_hot(top))
    data = load(root)
    assert data.dims == 2 and data.channels == 3 and data.counts.tolist() == [[480 - 25 - 48, 25, 48]] * 6


@pytest.mark.parametrize("kind", [bool, np.float32, np.int64])
def test_a_one_hot_mask_may_be_of_any_type(tmp_path, kind):
    assert load(lay(tmp_path, lambda: one_hot().astype(kind))).counts[:, 2].tolist() == [48] * 6


@pytest.mark.parametrize("first", [False, True])
def test_a_mask_of_equal_planes_beside_a_picture_is_one_of_them(tmp_path, first):
    root = lay(tmp_path, lambda: np.stack([square(255)] * 3, 0 if first else -1))
    data = load(root)
    assert data.dims == 2 and data.counts[:, 1].tolist() == [25] * 6


def overlapping():
    return np.stack([square(), square(), 1 - square()], -1)


def too_large():
    return np.zeros((40, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("masks", "word"),
    [
        (overlapping, r"has 3 planes beside a picture.*save class ids as one plane \(20, 24\)"),
        (too_large, r"shape \(40, 48, 3\), its picture \(20, 24\)"),
    ],
)
def test_other_planes_beside_a_picture_are_refused(tmp_path, masks, word):
    with pytest.raises(UserError, match=word):
        load(lay(tmp_path, masks))


def test_volumes_of_few_slices_stay_volumes(tmp_path):
    root = lay(tmp_path, lambda: np.stack([square()] * 3, -1))
    for n in range(6):
        (root / "images" / f"{n}.png").unlink()
        np.save(root / "images" / f"{n}.npy", colours(n))
    assert load(root).dims == 3


def test_several_raters_may_have_masks_of_planes(tmp_path):
    lay(tmp_path, one_hot)
    (tmp_path / "masks").rename(tmp_path / "masks_1")
    (tmp_path / "masks_2").mkdir()
    for n in range(6):
        np.save(tmp_path / "masks_2" / f"{n}.npy", one_hot())
    data = get_dataset(f"raters(path={str(tmp_path)!r})")
    assert data.dims == 2 and data.counts[:, 2].tolist() == [48] * 6


# --- channels


def channels_of(root, image, suffix):
    root.mkdir()
    path = root / f"a{suffix}"
    write(path, image) if isinstance(image, np.ndarray) else image.save(path)
    write(root / "a_mask.png", square())
    return read_image(find(root).pairs[0], SHAPE)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", [".npy", ".nii"])
def test_every_channel_of_an_array_is_used(tmp_path, channels, suffix):
    image = colours(1, channels)
    assert np.array_equal(channels_of(tmp_path / "own", image, suffix), np.moveaxis(image, -1, 0))


@pytest.mark.parametrize(("mode", "count"), [("LA", 1), ("RGBA", 3)])
def test_alpha_of_a_picture_is_left_out(tmp_path, mode, count):
    image = Image.fromarray(colours(1, 4)).convert(mode)
    assert len(channels_of(tmp_path / "own", image, ".png")) == count


def test_a_tiff_of_which_pillow_would_read_three_channels_of_four_is_refused(tmp_path):
    Image.frombytes("RGBX", SHAPE[::-1], colours(1, 4).tobytes()).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"has 4 channels, of which only 3 would be read; save it as NPY"):
        read_any(tmp_path / "a.tif")


def test_a_picture_in_printing_colours_becomes_rgb(tmp_path):
    image = Image.fromarray(np.full((*SHAPE, 3), (250, 120, 5), np.uint8)).convert("CMYK")
    read = channels_of(tmp_path / "own", image, ".jpg")
    assert read.shape == (3, *SHAPE) and np.abs(read[:, 5, 5].astype(int) - (250, 120, 5)).max() < 12


# --- pages


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".png"])
def test_a_picture_of_several_pages_is_refused(tmp_path, suffix):
    pages = [Image.fromarray(colours(n)[..., 0]) for n in range(3)]
    pages[0].save(tmp_path / f"stack{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=rf"stack\{suffix}: has 3 pages.*NIfTI or NPY volume"):
        read_any(tmp_path / f"stack{suffix}")


def test_a_smaller_copy_or_a_preview_is_no_page(tmp_path):
    picture = Image.fromarray(colours())
    small = picture.resize((12, 10))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    picture.save(tmp_path / "b.jpg", format="MPO", save_all=True, append_images=[picture])
    for name in ("a.tif", "b.jpg"):
        with Image.open(tmp_path / name) as opened:
            assert opened.n_frames == 2
        assert read_any(tmp_path / name)[0].shape == (*SHAPE, 3)


# --- photographs that lie on their side


def photograph(path, orientation, shown=SHAPE):
    """Write a picture that is bright where ``square`` is, once it is turned as it notes."""
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    turns = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
        7: "TRANSVERSE",
        8: "ROTATE_90",
    }
    picture = Image.fromarray(np.stack([square(200)] * 3, -1))
    if back > 1:
        picture = picture.transpose(Image.Transpose[turns[back]])
    exif = Image.Exif()
    exif[274] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_photograph_is_turned_as_its_mask_is_drawn(tmp_path, orientation, suffix):
    photograph(tmp_path / f"a{suffix}", orientation)
    write(tmp_path / "a_mask.bmp", square())
    assert size_of(tmp_path / f"a{suffix}") == SHAPE
    image = read_image(find(tmp_path).pairs[0], SHAPE)
    assert np.array_equal(image[0] > 100, square() == 1)


def test_a_mask_that_was_drawn_on_the_picture_as_stored_still_fits(tmp_path):
    stored = np.asarray(photograph(tmp_path / "a.jpg", 6))[..., 0]
    write(tmp_path / "a_mask.png", (stored > 100).astype(np.uint8))
    pair = find(tmp_path).pairs[0]
    mask = read_mask(pair)[0]
    assert mask.shape == SHAPE[::-1] and np.array_equal(read_image(pair, mask.shape)[0] > 100, mask == 1)


OUTLINE = [[4, 3], [8, 3], [8, 7], [4, 7]]  # of ``square``


def outlined(root, kind, height, width, points=OUTLINE):
    """Write a LabelMe or a COCO file beside 'a.jpg'."""
    if kind == "labelme":
        shape = {"label": "cat", "points": points, "shape_type": "polygon"}
        described = {"imagePath": "a.jpg", "shapes": [shape], "imageHeight": height, "imageWidth": width}
    else:
        pytest.importorskip("pycocotools")
        right = [[x + (x > points[0][0]), y + (y > points[0][1])] for x, y in points]
        thing = {"image_id": 1, "category_id": 1, "segmentation": [np.ravel(right).tolist()]}
        image = {"id": 1, "file_name": "a.jpg", "height": height, "width": width}
        categories = [{"id": 1, "name": "cat"}]
        described = {"images": [image], "annotations": [thing], "categories": categories}
    (root / "a.json").write_text(json.dumps(described))
    return find(root).pairs[0]


@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_outlines_are_drawn_on_the_photograph_as_it_was_seen(tmp_path, kind):
    photograph(tmp_path / "a.jpg", 6)
    for height, width in ((*SHAPE,), (None, None), (0, 0)):
        pair = outlined(tmp_path, kind, height, width)
        assert np.array_equal(read_mask(pair)[0], square())
        assert np.array_equal(read_image(pair, SHAPE)[0] > 100, square() == 1)
    # Drawn by a tool that does not turn: the corner at (x, y) of what is shown lies elsewhere.
    lying = [[y, SHAPE[1] - 1 - x] for x, y in OUTLINE]
    lying = sorted(lying)[:2] + sorted(lying)[:1:-1]
    pair = outlined(tmp_path, kind, SHAPE[1], SHAPE[0], lying)
    mask = read_mask(pair)[0]
    assert mask.shape == SHAPE[::-1] and np.array_equal(read_image(pair, mask.shape)[0] > 100, mask == 1)


@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_outlines_of_a_picture_of_another_size_are_refused_with_both_sizes(tmp_path, kind):
    photograph(tmp_path / "a.jpg", 1)
    pair = outlined(tmp_path, kind, 40, 48)
    with pytest.raises(UserError, match=r"a.json: .*drawn on 48x40 pixels, 'a.jpg' has 24x20"):
        read_mask(pair)


def test_yolo_counts_in_shares_of_the_photograph_as_it_is_shown(tmp_path):
    photograph(tmp_path / "images" / "a.jpg", 6)
    (tmp_path / "labels").mkdir()
    numbers = " ".join(f"{x / SHAPE[1]:.6f} {y / SHAPE[0]:.6f}" for x, y in OUTLINE)
    (tmp_path / "labels" / "a.txt").write_text(f"0 {numbers}\n")
    pair = find(tmp_path).pairs[0]
    assert np.array_equal(read_mask(pair)[0], square())
    assert np.array_equal(read_image(pair, SHAPE)[0] > 100, square() == 1)
