"""A data set's card says what a reader needs, in numbers that can be counted by hand."""

import json

import numpy as np
import pytest

from lossbench import get_dataset
from lossbench.data.cards import card
from lossbench.data.container import container


def test_a_card_counts_fractions_objects_and_empty_images():
    masks = np.zeros((6, 8, 8), np.uint8)
    masks[0, 0, 0] = masks[0, 4:6, 4:6] = 1
    masks[1:, 6:] = 255
    masks[4, :2, :2] = 1
    split = {"train": [0, 1, 2], "val": [3], "test": [4, 5]}
    found = card(
        container(
            name="toy",
            images=np.zeros((6, 1, 8, 8)),
            masks=masks,
            split=split,
            ignore_index=255,
            card={"licence": "open"},
        )
    )
    assert found["object_sizes"] == {"foreground": [1, 4, 4]} and found["licence"] == "open"
    assert found["image_fractions"]["foreground"] == pytest.approx([5 / 64, 0, 0, 0, 4 / 48, 0])
    assert found["fractions"]["foreground"] == pytest.approx(9 / (64 + 5 * 48))
    assert found["empty"] == pytest.approx({"train": 2 / 3, "val": 1, "test": 0.5}) and found["images"] == {
        "train": 3,
        "val": 1,
        "test": 2,
    }
    assert len(found["samples"]) == 1 and np.array_equal(found["samples"][0][1], masks[4])


@pytest.mark.parametrize(
    "spec",
    [
        "scenes(n_train=9, n_val=3, n_test=9)",
        "scenes(n_train=5, n_val=3, n_test=3, dims=3, size=16, foreground=0.05)",
    ],
)
def test_a_card_is_json_but_for_its_pictures(spec):
    found = card(get_dataset(spec), samples=3)
    for image, mask in found.pop("samples"):
        assert image.dtype == np.uint8 and image.shape == mask.shape and (mask > 0).any()
    json.dumps(found)


def test_data_modules_do_not_import_torch():
    import subprocess
    import sys

    code = (
        "import sys, lossbench.cli.data, lossbench.data.medical, lossbench.data.folder, "
        "lossbench.data.scenes, "
    )
    code += (
        "lossbench.data.photographs, lossbench.data.torch_sets, lossbench.data.inspection; print('torch' in "
        "sys.modules, 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == [
        "False",
        "False",
    ]
