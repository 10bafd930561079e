"""Every registered data set keeps the contract of the container, in every variant that is offered here."""

import numpy as np
import pytest

from lossbench import get_dataset
from lossbench.catalogue.registry import datasets, parse_dataset
from lossbench.data.container import Data
from lossbench.data.identity import identity
from lossbench.data.prepare import missing

FEW = "n_train=12, n_val=4, n_test=6"
SYNTHETIC = [
    f"scenes({FEW})", f"scenes({FEW}, dims=3, size=16, foreground=0.05)", f"scenes({FEW}, classes=5, foreground=0.1)",
    f"scenes({FEW}, shape='vessel', foreground=0.03)", f"scenes({FEW}, shape='field', classes=3, proportions='varying')",
    f"scenes({FEW}, objects=3, distractors=2, empty=0.5)", f"scenes({FEW}, boundary_shift=0.2, foreground=0.05)",
]  # fmt: skip
PUBLIC = [
    "msd_hippocampus(subset=6)", "msd_hippocampus(subset=6, view='volumes')", "magnetic_tile(kinds=['Crack'])", "crackforest(per_image=1)",
    "camvid(per_image=1)", "sirst",
]  # fmt: skip


@pytest.fixture(params=SYNTHETIC + [pytest.param(spec, marks=pytest.mark.realdata) for spec in PUBLIC])
def spec(request):
    why = missing(parse_dataset(request.param))
    if why:
        pytest.skip(why)
    return request.param


def test_every_registered_name_is_under_contract():
    covered = {text.partition("(")[0] for text in SYNTHETIC + PUBLIC}
    assert {name for name, entry in datasets().items() if entry.family in ("synthetic", "public")} == covered
    assert {"folder", "torchvision"} == set(
        datasets()
    ) - covered  # these need the user's files; see tests/data


def test_a_data_set_keeps_the_contract(spec):
    data = get_dataset(spec, seed=0)
    assert isinstance(data, Data) and data.name == parse_dataset(spec).text
    assert data.images.dtype == np.float32 and data.masks.dtype == np.uint8 and data.groups.dtype == np.int64
    assert data.images.shape == (len(data), data.images.shape[1], *data.shape) and all(
        side % 4 == 0 for side in data.shape
    )
    assert len(data.spacing) == len(data.shape) and min(data.spacing) > 0 and data.unit in ("px", "mm")
    assert np.isfinite(data.images).all()
    allowed = {*range(len(data.classes)), *([] if data.ignore_index is None else [data.ignore_index])}
    assert set(np.unique(data.masks).tolist()) <= allowed
    assert (np.asarray(data.masks) != data.ignore_index).reshape(len(data), -1).any(1).all()
    assert set(data.split) == {"train", "val", "test"}
    seen: set[int] = set()
    for index in data.split.values():
        assert index.dtype == np.int64 and len(index) and (np.diff(index) > 0).all()
        groups = set(data.groups[index].tolist())
        assert not groups & seen
        seen |= groups
    assert sum(map(len, data.split.values())) == len(data)
    assert {"licence", "citation", "url", "source"} <= set(data.card)
    for k in range(1, len(data.classes)):
        assert (data.masks[data.split["train"]] == k).any(), data.classes[k]
    if data.posterior is not None:
        assert (
            data.posterior.shape == (len(data), len(data.classes), *data.shape)
            and data.posterior.dtype == np.float32
        )


def test_the_same_seed_gives_the_same_data_and_the_identity_does_not_need_them(spec):
    assert get_dataset(spec, seed=3).fingerprint == get_dataset(spec, seed=3).fingerprint
    parsed = parse_dataset(spec)
    assert identity(parsed) == identity(parse_dataset(spec)) and len(identity(parsed)) == 16


def test_another_seed_gives_other_scenes_or_another_split_unless_it_is_official(spec):
    first, second = get_dataset(spec, seed=0), get_dataset(spec, seed=1)
    official = parse_dataset(spec).name in ("camvid", "sirst")
    assert (first.fingerprint == second.fingerprint) == official
