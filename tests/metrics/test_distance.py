"""Distance maps change sign at the boundary and are zero where there is none."""

import numpy as np

from lossbench.metrics.surface import signed_distances


def test_a_square_has_hand_checked_distances():
    mask = np.zeros((1, 5, 5), np.uint8)
    mask[0, 1:4, 1:4] = 1
    near = signed_distances(mask, 2, (1.0, 1.0))[0, 1]
    assert near[2, 2] == -1 and near[1, 2] == 0 and near[0, 2] == 1
    assert near[0, 0] == np.float32(np.sqrt(2))


def test_spacing_is_respected_and_void_is_outside():
    mask = np.array([[[1, 0, 0, 255]]], np.uint8)
    near = signed_distances(mask, 2, (1.0, 2.0), 255)[0, 1]
    assert near.tolist() == [[-1.0, 2.0, 4.0, 6.0]]


def test_absent_and_filling_classes_give_zeros():
    assert not signed_distances(np.zeros((2, 4, 4), np.uint8), 3, (1.0, 1.0)).any()
